"""Operations on an open image and on a directory of the host, so that both can be compared: the host is the judge."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ext3
from ext3.constants import FileType
from ext3.edit.filesystem import WritableFilesystem

__all__ = ["HostTree", "Operation", "apply", "facts_of_host", "facts_of_image"]

Operation = tuple[Any, ...]
"""(verb, arguments ...)."""
Facts = dict[bytes, tuple[object, ...]]


class HostTree:
    """The same verbs as WritableFilesystem, done by the host below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def mkdir(self, path: str) -> None:
        self.at(path).mkdir()

    def create(self, path: str) -> None:
        os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

    def symlink(self, target: str, path: str) -> None:
        self.at(path).symlink_to(target)

    def link(self, old: str, path: str) -> None:
        os.link(self.at(old), self.at(path), follow_symlinks=False)

    def unlink(self, path: str) -> None:
        self.at(path).unlink()

    def rmdir(self, path: str) -> None:
        self.at(path).rmdir()

    def rename(self, old: str, new: str) -> None:
        self.at(old).rename(self.at(new))

    def chmod(self, path: str, mode: int) -> None:
        if self.at(path).is_symlink():
            raise OSError("not through links")
        self.at(path).chmod(mode)

    def utimens(self, path: str, atime: int, mtime: int) -> None:
        os.utime(self.at(path), ns=(atime, mtime), follow_symlinks=False)

    def write(self, path: str, offset: int, data: bytes) -> None:
        fd = os.open(self.at(path), os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def truncate(self, path: str, size: int) -> None:
        fd = os.open(self.at(path), os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)

    def punch(self, path: str, offset: int, length: int) -> None:
        """A hole is zeros to who reads: on a host that cannot punch they are written."""
        fd = os.open(self.at(path), os.O_WRONLY | os.O_NOFOLLOW)
        try:
            length = min(length, os.fstat(fd).st_size - offset)
            if length > 0:
                os.pwrite(fd, bytes(length), offset)
        finally:
            os.close(fd)


def apply(tree: WritableFilesystem | HostTree, operation: Operation) -> str:
    """Do one operation; the name of the errno it fails with, or nothing."""
    verb, *arguments = operation
    try:
        if isinstance(tree, HostTree):
            getattr(tree, verb)(*arguments)
        elif verb in ("write", "truncate", "punch"):
            path, *rest = arguments
            if tree.stat(path, follow=False).is_symlink:
                return "failed"
            with tree.open_file(path, "r+") as file:
                {"write": file.write_at, "truncate": file.truncate, "punch": file.punch_hole}[verb](*rest)
        elif verb in ("chmod", "utimens"):
            if verb == "chmod" and tree.stat(arguments[0], follow=False).is_symlink:
                return "failed"
            getattr(tree, verb)(*arguments, follow=False)
        else:
            getattr(tree, verb)(*arguments)
    except OSError:
        return "failed"
    return ""


def facts_of_image(fs: ext3.Filesystem) -> Facts:
    """Path -> type, mode, link count (not of directories), size, content or target, and a number for each inode's names."""
    found: Facts = {}
    first: dict[int, bytes] = {}
    subdirectories: dict[bytes, int] = {b"": 2}
    for path, entry in sorted(fs.walk("/")):
        if path == b"lost+found":
            continue
        facts = fs.stat(entry.ino)
        assert facts.file_type is entry.file_type
        text = b""
        if entry.file_type is FileType.REGULAR:
            text = fs.read_bytes(entry.ino)
        elif entry.file_type is FileType.SYMLINK:
            text = fs.readlink(entry.ino)
        if facts.is_dir:
            subdirectories[path] = 2
            subdirectories[path.rpartition(b"/")[0]] += 1
        twin = first.setdefault(entry.ino, path)
        found[path] = (
            facts.mode,
            0 if facts.is_dir else facts.links,
            0 if facts.is_dir else facts.size,
            text,
            twin,
        )
    for path, links in subdirectories.items():
        if path:
            assert fs.stat(path).links == links
    return found


def facts_of_host(root: Path) -> Facts:
    """The same of a directory of the host."""
    found: Facts = {}
    first: dict[int, bytes] = {}
    for path in sorted(_below(os.fsencode(root), b"")):
        where = os.path.join(os.fsencode(root), path)
        facts = os.lstat(where)
        text = b""
        if stat.S_ISREG(facts.st_mode):
            text = Path(os.fsdecode(where)).read_bytes()
        elif stat.S_ISLNK(facts.st_mode):
            text = os.readlink(where)
        is_dir = stat.S_ISDIR(facts.st_mode)
        twin = first.setdefault(facts.st_ino, path)
        found[path] = (facts.st_mode, 0 if is_dir else facts.st_nlink, 0 if is_dir else facts.st_size, text, twin)
    return found


def _below(root: bytes, path: bytes) -> Iterator[bytes]:
    for entry in os.scandir(os.path.join(root, path)):
        below = os.path.join(path, entry.name)
        if below == b"lost+found":
            continue
        yield below
        if entry.is_dir(follow_symlinks=False):
            yield from _below(root, below)
