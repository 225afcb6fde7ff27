"""Facts of every name in a tree: what images, directories of the host and models of a tree are compared by.

A field that one side does not know is None there, and is not compared.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import ext3
from ext3.constants import ROOT_INO, FileType
from ext3.format.inode import Stat

__all__ = ["PAGE", "Facts", "TreeFacts", "assert_same", "content_digest", "digest_of", "facts_of_host", "facts_of_image"]

PAGE = 1024
LOST_FOUND = b"/lost+found"


class Facts(NamedTuple):
    """One name. ``size`` and ``content`` are those of a file or a symbolic link; holes count as zeros.

    ``first`` is the first path, in the order of bytes, that leads to the same inode.
    """

    mode: int
    uid: int
    gid: int
    links: int | None
    rdev: tuple[int, int]
    size: int
    content: str
    xattrs: dict[bytes, bytes] | None
    first: bytes
    mtime: int | None = None


TreeFacts = dict[bytes, Facts]
"""Facts by path; every path begins with a slash, and the root's is b"/"."""


def content_digest(pieces: Iterable[tuple[int, bytes]]) -> str:
    """A digest of (byte offset, data) in the order of offsets, which are multiples of PAGE; zeros count as holes."""
    digest = sha256()
    for offset, data in pieces:
        for at in range(0, len(data), PAGE):
            page = data[at : at + PAGE].rstrip(b"\0")
            if page:
                digest.update(b"%d %d " % (offset + at, len(page)) + page)
    return digest.hexdigest()


def digest_of(facts: TreeFacts) -> str:
    """A digest of everything in a tree."""
    return sha256(
        repr([(path, fact._replace(xattrs=None), _sorted(fact)) for path, fact in facts.items()]).encode()
    ).hexdigest()


def _sorted(fact: Facts) -> list[tuple[bytes, bytes]]:
    return sorted((fact.xattrs or {}).items())


def assert_same(found: TreeFacts, expected: TreeFacts) -> None:
    """Both trees have the same names and the same facts; the root is compared where both know it."""
    assert found.keys() - {b"/"} == expected.keys() - {b"/"}
    for path, fact in found.items():
        for name, one, two in zip(Facts._fields, fact, expected.get(path, fact), strict=True):
            assert one is None or two is None or one == two, f"{name} of {path!r}: {one!r} instead of {two!r}"


def facts_of_image(fs: ext3.Filesystem) -> TreeFacts:
    """Everything a reader sees of an image, to the last byte of the largest hole; lost+found is left out."""
    found: TreeFacts = {}
    first: dict[int, bytes] = {}
    entries = [(b"/" + path, entry.ino, entry.file_type) for path, entry in fs.walk("/")]
    lost_found = any(path == LOST_FOUND for path, _, _ in entries)
    for path, ino, file_type in [(b"/", ROOT_INO, FileType.DIRECTORY), *sorted(entries)]:
        if path == LOST_FOUND or path.startswith(LOST_FOUND + b"/"):
            continue
        now = fs.stat(ino)
        assert now.file_type is file_type, path
        size, content = 0, ""
        if file_type is FileType.REGULAR:
            size, content = now.size, content_digest(_pieces_of_image(fs, now))
        elif file_type is FileType.SYMLINK:
            target = fs.readlink(ino)
            size, content = now.size, repr(target)
            assert size == len(target), path
        found[path] = Facts(
            now.mode,
            now.uid,
            now.gid,
            now.links - (lost_found and path == b"/"),
            (now.major, now.minor),
            size,
            content,
            fs.xattrs(ino),
            first.setdefault(ino, path),
            now.mtime,
        )
    return found


def _pieces_of_image(fs: ext3.Filesystem, now: Stat) -> Iterator[tuple[int, bytes]]:
    block_size = fs.superblock.block_size
    if not now.size:  # an empty file is read whatever its map says, as by a rebuild
        return
    with fs.open_file(now.ino) as file:
        for logical, _, count in fs.data_extents(now.ino):
            file.seek(logical * block_size)
            yield logical * block_size, file.read(count * block_size)


def facts_of_host(top: Path) -> TreeFacts:
    """Facts of what is below a directory of the host. Links of directories are left out: some filesystems do not count them."""
    found: TreeFacts = {}
    first: dict[tuple[int, int], bytes] = {}
    root = os.fsencode(top)
    for path in sorted(_below(root, b"/")):
        now = os.lstat(root + path)
        size, content = 0, ""
        if stat.S_ISREG(now.st_mode):
            size, content = now.st_size, content_digest(_pieces_of_host(root + path))
        elif stat.S_ISLNK(now.st_mode):
            size, content = now.st_size, repr(os.readlink(root + path))
        is_device = stat.S_ISCHR(now.st_mode) or stat.S_ISBLK(now.st_mode)
        found[path] = Facts(
            now.st_mode,
            now.st_uid,
            now.st_gid,
            None if stat.S_ISDIR(now.st_mode) else now.st_nlink,
            (os.major(now.st_rdev), os.minor(now.st_rdev)) if is_device else (0, 0),
            size,
            content,
            _xattrs_of_host(root + path),
            first.setdefault((now.st_dev, now.st_ino), path),
            now.st_mtime_ns,
        )
    return found


def _xattrs_of_host(path: bytes) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # a filesystem that has none
        return {}
    return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names}


def _below(root: bytes, directory: bytes) -> Iterator[bytes]:
    for entry in os.scandir(root + directory):
        path = directory + entry.name
        if path != LOST_FOUND:
            yield path
            if entry.is_dir(follow_symlinks=False):
                yield from _below(root, path + b"/")


def _pieces_of_host(path: bytes) -> Iterator[tuple[int, bytes]]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        for start, end in data_ranges(fd):
            page = start - start % PAGE
            yield page, os.pread(fd, end - page, page)
    finally:
        os.close(fd)


def data_ranges(fd: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what is no hole in a file of the host, in bytes."""
    end, size = 0, os.fstat(fd).st_size
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # nothing but a hole is left
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end
