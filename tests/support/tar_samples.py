"""Tar archives for tests, made of raw header fields: also what no program would write."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable

import zstandard

__all__ = [
    "END",
    "PACKERS",
    "SAMPLE",
    "SKIPPABLE",
    "SPARSE_DATA",
    "SPARSE_MEMBERS",
    "Pipe",
    "directory",
    "file",
    "hardlink",
    "header",
    "padded",
    "pax",
    "symlink",
]

END = bytes(1024)


def header(
    name: bytes, *, size: bytes = b"", kind: bytes = b"0", mtime: bytes = b"", link: bytes = b"", **fields: bytes
) -> bytes:
    """A ustar header of raw fields, with the right checksum."""
    block = bytearray(512)

    def put(offset: int, width: int, value: bytes) -> None:
        assert len(value) <= width
        block[offset : offset + len(value)] = value

    put(0, 100, name)
    put(100, 8, fields.get("mode", b"0000644"))
    put(108, 8, fields.get("uid", b"0000000"))
    put(116, 8, fields.get("gid", b"0000000"))
    put(124, 12, size or b"00000000000")
    put(136, 12, mtime or b"00000000000")
    put(156, 1, kind)
    put(157, 100, link)
    put(257, 8, fields.get("magic", b"ustar\x0000"))
    put(329, 8, fields.get("major", b"0000000"))
    put(337, 8, fields.get("minor", b"0000000"))
    put(345, 155, fields.get("prefix", b""))
    for offset, value in (
        (386, fields.get("sparse", b"")),
        (482, fields.get("extended", b"")),
        (483, fields.get("realsize", b"")),
    ):
        put(offset, 100, value)
    put(508, 4, fields.get("star", b""))
    block[148:156] = b"%06o\0 " % (sum(block) + 8 * 32)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(records: list[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """An extended header with these records."""
    lines = b""
    for key, value in records:
        rest = len(key) + len(value) + 3
        length = rest + len(str(rest))
        length = rest + len(str(length))
        lines += b"%d %s=%s\n" % (length, key, value)
    return header(b"pax", size=b"%011o" % len(lines), kind=kind) + padded(lines)


def file(name: bytes, data: bytes = b"", records: list[tuple[bytes, bytes]] | None = None, **fields: bytes) -> bytes:
    return (pax(records) if records else b"") + header(name, size=b"%011o" % len(data), **fields) + padded(data)


def directory(name: bytes, **fields: bytes) -> bytes:
    return header(name, kind=b"5", **{"mode": b"0000755", **fields})


def symlink(name: bytes, target: bytes) -> bytes:
    return header(name, kind=b"2", link=target)


def hardlink(name: bytes, target: bytes) -> bytes:
    return header(name, kind=b"1", link=target)


class Pipe(io.RawIOBase):
    """Can only be read forwards, a few bytes at a time."""

    def __init__(self, data: bytes, step: int = 700) -> None:
        self._file = io.BytesIO(data)
        self._step = step

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._file.read(min(len(buffer), self._step))
        buffer[: len(piece)] = piece
        return len(piece)


SKIPPABLE = b"\x50\x2a\x4d\x18\3\0\0\0abc"
"""A zstd frame without data."""
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip in two members": lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
    "xz": lzma.compress,
    "xz in two streams": lambda data: lzma.compress(data[:700]) + bytes(8) + lzma.compress(data[700:]),
    "bzip2": bz2.compress,
    "zstd": zstandard.compress,
    "zstd in two frames": lambda data: zstandard.compress(data[:700]) + SKIPPABLE + zstandard.compress(data[700:]),
}
SAMPLE = file(b"b", b"hello") + directory(b"d/") + file(b"d/a", b"x" * 3000) + END

SPARSE_DATA = b"A" * 10 + bytes(990) + b"B" * 24 + bytes(476)
SPARSE_MEMBERS = {
    "0.0": pax(
        [
            (b"GNU.sparse.size", b"1500"),
            (b"GNU.sparse.numblocks", b"2"),
            (b"GNU.sparse.offset", b"0"),
            (b"GNU.sparse.numbytes", b"10"),
            (b"GNU.sparse.offset", b"1000"),
            (b"GNU.sparse.numbytes", b"24"),
        ]
    )
    + header(b"s", size=b"%011o" % 34)
    + padded(b"A" * 10 + b"B" * 24),
    "0.1": file(
        b"cut",
        b"A" * 10 + b"B" * 24,
        [(b"GNU.sparse.size", b"1500"), (b"GNU.sparse.name", b"s"), (b"GNU.sparse.map", b"0,10,1000,24")],
    ),
    "1.0": file(
        b"cut",
        padded(b"2\n0\n10\n1000\n24\n") + b"A" * 10 + b"B" * 24,
        [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.realsize", b"1500"),
            (b"GNU.sparse.name", b"s"),
        ],
    ),
    "old": header(
        b"s",
        kind=b"S",
        magic=b"ustar  \0",
        size=b"%011o" % 34,
        realsize=b"%011o" % 1500,
        sparse=b"".join(b"%011o\0" % number for number in (0, 10, 1000, 24)),
    )
    + padded(b"A" * 10 + b"B" * 24),
}
"""A file ``s`` of SPARSE_DATA in each format of GNU tar."""
