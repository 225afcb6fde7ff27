"""Header blocks of tar archives: the fields of one block of 512 bytes, in every dialect, and its checksum.

ustar, star's prefix, GNU's times and base-256 numbers, and old Unix archives. The standard library's reader is not used: it
takes times through floats, ends silently at a damaged header, reads GNU's times as a path prefix, and sizes reads by numbers
from the archive. Sources: POSIX.1-2017 ``pax``, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"; libarchive
``tar(5)``.
"""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise
from typing import NamedTuple

from ..errors import show

__all__ = [
    "BLOCK",
    "FIELDS",
    "PATH_LIMIT",
    "Header",
    "HeaderError",
    "check_header",
    "is_header",
    "parse_number",
    "unpack_header",
]

BLOCK = 512
PATH_LIMIT = 4096
"""PATH_MAX of Linux: the longest path, its terminating NUL included."""

_ZEROS = bytes(BLOCK)

_WIDTHS = {
    "name": 100,
    "mode": 8,
    "uid": 8,
    "gid": 8,
    "size": 12,
    "mtime": 12,
    "chksum": 8,
    "typeflag": 1,
    "linkname": 100,
    "magic": 8,  # with the version
    "uname": 32,
    "gname": 32,
    "devmajor": 8,
    "devminor": 8,
    "prefix": 155,
    "pad": 12,
}
FIELDS = {
    name: slice(start, end)
    for name, (start, end) in zip(_WIDTHS, pairwise(accumulate(_WIDTHS.values(), initial=0)), strict=True)
}
"""The bytes of each field of a ustar header, by its POSIX name."""
_header = struct.Struct("".join(f"{width}s" for width in _WIDTHS.values()))
assert _header.size == BLOCK

_CHKSUM = FIELDS["chksum"]
_STAR_PREFIX = slice(0, 131)
_STAR_MAGIC = slice(8, 12)
_GNU_ATIME, _GNU_CTIME = slice(0, 12), slice(12, 24)
GNU_MAGIC = b"ustar  \0"


class HeaderError(ValueError):
    """Header, or extended header, that contradicts the format. ``member``: the name of its entry, if that is known."""

    def __init__(self, message: str, member: bytes | None = None) -> None:
        super().__init__(message)
        self.member = member


class Header(NamedTuple):
    """Raw fields of a ustar header, by their POSIX names; ``magic`` with the version behind it."""

    name: bytes
    mode: bytes
    uid: bytes
    gid: bytes
    size: bytes
    mtime: bytes
    chksum: bytes
    typeflag: bytes
    linkname: bytes
    magic: bytes
    uname: bytes
    gname: bytes
    devmajor: bytes
    devminor: bytes
    prefix: bytes
    pad: bytes

    def path(self) -> bytes:
        """The name, with its prefix in front."""
        name = self.name.partition(b"\0")[0]
        if self.magic[:6] == b"ustar\0":
            # star ends its shorter prefix before its times
            prefix = self.prefix[_STAR_PREFIX] if self.pad[_STAR_MAGIC] == b"tar\0" else self.prefix
            prefix = prefix.partition(b"\0")[0]
            if prefix:
                return prefix + b"/" + name
        return name

    def gnu_times(self) -> tuple[int, int] | None:
        """atime and ctime in seconds, which GNU tar keeps in place of the prefix; None if it did not."""
        prefix = self.prefix
        if self.magic == GNU_MAGIC and prefix[_GNU_ATIME.start] and prefix[_GNU_CTIME.start]:
            return parse_number(prefix[_GNU_ATIME], "a time"), parse_number(prefix[_GNU_CTIME], "a time")
        return None


def unpack_header(block: bytes) -> Header:
    """The fields of a block of 512 bytes."""
    return Header._make(_header.unpack(block))


def is_header(block: bytes) -> bool:
    """Return True if 512 bytes begin an archive: a header with a valid checksum, or the zeros of an empty archive."""
    if block == _ZEROS:
        return True
    try:
        return _checksum_fits(block)
    except HeaderError:
        return False


def check_header(block: bytes) -> None:
    """Raises HeaderError if the checksum is wrong."""
    if not _checksum_fits(block):
        raise HeaderError("a header's checksum is wrong")


def _checksum_fits(block: bytes) -> bool:
    own = block[_CHKSUM]
    want = parse_number(own, "the checksum")
    got = sum(block) - sum(own) + 8 * 0x20  # its own field counts as spaces
    # some old programs summed signed characters
    return got == want or got - 256 * (_high_bytes(block) - _high_bytes(own)) == want


def _high_bytes(octets: bytes) -> int:
    return sum(byte > 127 for byte in octets)


def parse_number(octets: bytes, what: str) -> int:
    """A field's number: octal text, or base-256 (two's complement) if the first bit is set. ``what``: for the error's text.

    Raises HeaderError if it is neither. The number has any size and sign.
    """
    if octets[0] & 0x80:
        bits = len(octets) * 8 - 1
        number = int.from_bytes(octets, "big") & ((1 << bits) - 1)
        return number - (1 << bits) if number >> (bits - 1) else number
    text = octets.partition(b"\0")[0].strip()
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            pass
    elif not text:
        return 0
    raise HeaderError(f"{what} is not a number: {show(text[:24])}")
