"""Filter of the xattrs that are copied into an overlay.

Copied are those that programs in a container can use. Left out are labels of the host (SELinux, IMA, EVM, Lustre), which have
no meaning elsewhere, although mke2fs copies them, and xattrs that ext3 cannot store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ext3.format.xattr import split_name

if TYPE_CHECKING:
    from .options import XattrPolicy

__all__ = ["xattr_predicate"]

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


def xattr_predicate(policy: XattrPolicy) -> Callable[[bytes], bool]:
    """Return a predicate on full names (``user.mime_type``), True for xattrs to copy. ``strict`` is like ``default``."""
    if policy == "none":
        return lambda name: False
    if policy == "all":
        return lambda name: split_name(name) is not None

    def is_copied(name: bytes) -> bool:
        if name in HOST_LABELS:
            return False
        return name == b"security.capability" or name in ACLS or name.startswith(COPIED)

    return is_copied
