"""Which extended attributes go into an overlay.

Copied are those a program in a container can use. Left out are labels of the host (SELinux, IMA, EVM, Lustre's layout),
which mean nothing elsewhere and which mke2fs copies to people's surprise, and what ext3 has no name for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .options import XattrPolicy

__all__ = ["attribute_filter"]

HOST_LABELS = frozenset(
    (
        b"security.selinux",
        b"security.ima",
        b"security.evm",
        b"security.SMACK64",
        b"security.apparmor",
        b"trusted.lov",
        b"trusted.lma",
        b"trusted.lmv",
        b"trusted.link",
        b"trusted.som",
        b"trusted.fid",
        b"trusted.hsm",
    )
)
ACLS = frozenset((b"system.posix_acl_access", b"system.posix_acl_default"))
COPIED = (b"user.", b"trusted.")


def attribute_filter(policy: XattrPolicy) -> Callable[[bytes], bool]:
    """Whether an attribute of this full name (``user.mime_type``) is taken. ``strict`` takes what ``default`` takes."""
    if policy == "none":
        return lambda name: False
    if policy == "all":
        from ext3.format.xattr import split_name  # with numpy: the usual policies do not need it

        return lambda name: split_name(name) is not None

    def taken(name: bytes) -> bool:
        if name in HOST_LABELS:
            return False
        return name == b"security.capability" or name in ACLS or name.startswith(COPIED)

    return taken
