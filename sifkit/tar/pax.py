"""Extended headers of pax: records of keys and values, decimal numbers, times and extended attributes.

Values are bytes: they need not be UTF-8. Sources: POSIX.1-2017 ``pax``, "pax Extended Header"; GNU tar manual, "Storing Sparse
Files"; the keys of extended attributes as GNU tar, star and libarchive write them; Python's ``tarfile``, which writes small and
large times with an exponent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from ..errors import show
from .header import HeaderError

__all__ = [
    "RANGE_LIMIT",
    "Pairs",
    "Records",
    "is_xattr_key",
    "parse_decimal",
    "parse_records",
    "parse_signed",
    "parse_time",
    "parse_xattrs",
]

RECORD_LIMIT = 1 << 16
RANGE_LIMIT = 1 << 20
"""Entries of a sparse map; what has more is hostile."""
DECIMAL_DIGITS = 20
SECONDS_DIGITS = 19

Records = dict[bytes, bytes]
Pairs = list[tuple[int, int]]
"""(offset in the file, length) of the parts that hold data, in bytes, as a sparse map has them: not checked."""

_TIME = re.compile(rb"(-?)(\d{1,19})(?:\.(\d*))?(?:[eE]([+-]?\d{1,3}))?\Z")
_LIBARCHIVE_XATTR, _SCHILY_XATTR = b"LIBARCHIVE.xattr.", b"SCHILY.xattr."


def is_xattr_key(key: bytes) -> bool:
    """Return True for the key of an extended attribute, whose value may be empty."""
    return key.startswith((_SCHILY_XATTR, _LIBARCHIVE_XATTR))


def parse_records(data: bytes) -> tuple[Records, Pairs]:
    """The records ``LENGTH KEY=VALUE\\n`` of a payload, and the map of sparse format 0.0, whose keys repeat.

    Raises HeaderError.
    """
    records: Records = {}
    sparse: Pairs = []
    start = 0
    while start < len(data) and data[start]:
        space = data.find(b" ", start, start + 10)
        digits = data[start:space]
        end = start + int(digits) if space > 0 and digits.isdigit() else -1
        equals = data.find(b"=", space, end) if space < end <= len(data) else -1
        if equals < 0 or data[end - 1] != 0x0A:
            raise HeaderError(f"an extended header's record at its byte {start} is malformed")
        key, value = data[space + 1 : equals], data[equals + 1 : end - 1]
        if key == b"GNU.sparse.offset":
            sparse.append((parse_decimal(value, "a sparse offset"), 0))
        elif key == b"GNU.sparse.numbytes" and sparse:
            sparse[-1] = (sparse[-1][0], parse_decimal(value, "a sparse length"))
        else:
            records[key] = value
        if len(records) > RECORD_LIMIT or len(sparse) > RANGE_LIMIT:
            raise HeaderError("an extended header has too many records")
        start = end
    return records, sparse


def parse_decimal(text: bytes, what: str) -> int:
    """A number of at most 20 digits without a sign. ``what``: for the text of the HeaderError."""
    if text.isdigit() and len(text) <= DECIMAL_DIGITS:
        return int(text)
    raise HeaderError(f"{what} is not a number: {show(text[:24])}")


def parse_signed(text: bytes, what: str) -> int:
    """The same with a minus sign, or without one."""
    return -parse_decimal(text[1:], what) if text.startswith(b"-") else parse_decimal(text, what)


def parse_time(text: bytes) -> tuple[int, int]:
    """Seconds and nanoseconds of decimal text, which may have an exponent; digits behind the ninth are dropped.

    Raises HeaderError.
    """
    match = _TIME.match(text)
    if not match:
        raise HeaderError(f"a time is not a number: {show(text[:32])}")
    whole, fraction = match[2], match[3] or b""
    if match[4]:
        whole, fraction = _shifted(whole, fraction, int(match[4]))
        if len(whole) > SECONDS_DIGITS:
            raise HeaderError("a time is out of range")
    seconds, nanoseconds = int(whole), int((fraction + b"0" * 9)[:9])
    if match[1]:
        return (-seconds - 1, 1_000_000_000 - nanoseconds) if nanoseconds else (-seconds, 0)
    return seconds, nanoseconds


def _shifted(whole: bytes, fraction: bytes, places: int) -> tuple[bytes, bytes]:
    """The digits before and behind the point of a number times ten to the power of ``places``."""
    if places >= 0:
        moved = fraction[:places].ljust(places, b"0")
        return (whole + moved).lstrip(b"0") or b"0", fraction[places:]
    moved = whole.rjust(-places, b"0")
    return moved[:places] or b"0", moved[places:] + fraction


def parse_xattrs(records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Extended attributes by full name; values may be empty.

    What star and GNU tar write wins over what libarchive and Red Hat's tar write. ACLs in text, which are no attributes, stay
    in the records (``SCHILY.acl.*``). Raises HeaderError for a value that is not base64.
    """
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE_XATTR):
            found.setdefault(unquote_to_bytes(key[len(_LIBARCHIVE_XATTR) :]), _decode_base64(value))
        elif key.startswith(_SCHILY_XATTR):
            # GNU tar escapes the two characters a record's key cannot hold
            found[key[len(_SCHILY_XATTR) :].replace(b"%3D", b"=").replace(b"%25", b"%")] = value
        elif key == b"RHT.security.selinux":
            found.setdefault(b"security.selinux", value)
    return found


def _decode_base64(value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except ValueError as error:
        raise HeaderError("an extended attribute is not base64") from error
