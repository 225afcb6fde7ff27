"""Extended attributes of an archive's members as an ext3 image holds them: ACLs in the kernel's form, also those in text.

Users and groups of an ACL in text that have a name only, as GNU tar writes them, get the host's ids.
"""

from __future__ import annotations

from collections.abc import Mapping

from ext3.format import acl
from ext3.format.acl import AclTag
from ext3.format.schema import ACL_ENTRY, ACL_HEADER

from ...tar.pax import parse_xattrs
from ..host_names import group_id, user_id

__all__ = ["ACCESS", "DEFAULT", "member_xattrs", "mode_of_acl"]

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
MINIMAL_ACL_BYTES = 4 + 3 * 8
"""Such an ACL has owner, group and other only: it says what the mode says."""
_ACL_TEXTS = ((b"SCHILY.acl.access", ACCESS), (b"SCHILY.acl.default", DEFAULT))
_NFS4_ACL = b"SCHILY.acl.ace"


def member_xattrs(records: Mapping[bytes, bytes]) -> dict[bytes, bytes | None]:
    """Extended attributes in a member's pax records by full name; None for an ACL that an image cannot hold.

    An ACL of no bytes is none, as to setxattr(2). Raises HeaderError for a value that is not base64.
    """
    found: dict[bytes, bytes | None] = {**parse_xattrs(records)}
    for name in (ACCESS, DEFAULT):
        value = found.get(name)
        if value == b"":
            del found[name]
        elif value is not None and not _is_acl(value):
            found[name] = None
    if _NFS4_ACL in records:
        found[_NFS4_ACL] = None
    for key, name in _ACL_TEXTS:
        if key in records and name not in found:
            try:
                value = acl.parse_text(records[key].decode("utf-8", "surrogateescape"), _find_id)
            except ValueError:
                found[name] = None
            else:
                if name == DEFAULT or len(value) > MINIMAL_ACL_BYTES:
                    found[name] = value
    return found


def _find_id(tag: AclTag, name: str) -> int | None:
    return user_id(name) if tag == AclTag.USER else group_id(name)


def mode_of_acl(mode: int, value: bytes) -> int:
    """Return the mode that goes with an access ACL, as the kernel sets it; libarchive writes another one with a mask."""
    bits: dict[int, int] = {tag: allowed for tag, allowed, _ in ACL_ENTRY.packer.iter_unpack(value[ACL_HEADER.size :])}
    group = bits.get(AclTag.MASK, bits[AclTag.GROUP_OBJ])
    return mode & ~0o777 | bits[AclTag.USER_OBJ] << 6 | group << 3 | bits[AclTag.OTHER]


def _is_acl(value: bytes) -> bool:
    try:
        acl.to_disk(value)
    except ValueError:
        return False
    return True
