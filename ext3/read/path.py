"""Path: a file in an image, with the habits of ``pathlib`` and ``zipfile.Path``."""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from fnmatch import translate
from functools import cached_property, total_ordering
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from ..constants import S_IFCHR, S_IFIFO, S_IFMT, S_IFSOCK
from ..errors import PathError, PathExistsError, PathNotDirectoryError, PathNotFoundError
from ..format.inode import Stat
from .path_walk import AnyPath, path_bytes

if TYPE_CHECKING:
    from ..edit.filesystem import WritableFilesystem
    from .filesystem import Filesystem

__all__ = ["Path"]

S_IFBLK = 0o060000
MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors that mean there is no such file, as for pathlib."""


@total_ordering
class Path:
    """Path in the image that ``filesystem`` is; it begins at the root.

    Methods have the names, arguments and errors of ``pathlib.Path``. Those that change the image need a filesystem that is open
    for changes, and raise OSError (EROFS) otherwise. Names are text as UTF-8, with surrogate escapes for other bytes.
    """

    __slots__ = ("__dict__", "_pure", "filesystem")

    def __init__(self, filesystem: Filesystem, at: AnyPath = "/") -> None:
        self.filesystem = filesystem
        self._pure = PurePosixPath("/", path_bytes(at).decode("utf-8", "surrogateescape"))

    def _with(self, pure: PurePosixPath) -> Path:
        return Path(self.filesystem, str(pure))

    @cached_property
    def _bytes(self) -> bytes:
        return str(self._pure).encode("utf-8", "surrogateescape")

    @property
    def _writable(self) -> WritableFilesystem:
        if not self.filesystem.writable:
            raise PathError(self._bytes, "Read-only file system: open the image with mode 'r+'", code=errno.EROFS)
        return cast("WritableFilesystem", self.filesystem)

    # The path itself

    def __str__(self) -> str:
        return str(self._pure)

    def __bytes__(self) -> bytes:
        return self._bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.filesystem!r}, {str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Path):
            return NotImplemented
        return self.filesystem is other.filesystem and self._pure == other._pure

    def __lt__(self, other: Path) -> bool:
        if not isinstance(other, Path):
            return NotImplemented
        return self._bytes < other._bytes

    def __hash__(self) -> int:
        return hash((id(self.filesystem), self._pure))

    def __truediv__(self, other: AnyPath) -> Path:
        return self.joinpath(other)

    def joinpath(self, *parts: AnyPath) -> Path:
        return self._with(self._pure.joinpath(*(path_bytes(part).decode("utf-8", "surrogateescape") for part in parts)))

    @property
    def name(self) -> str:
        return self._pure.name

    @property
    def stem(self) -> str:
        return self._pure.stem

    @property
    def suffix(self) -> str:
        return self._pure.suffix

    @property
    def suffixes(self) -> list[str]:
        return self._pure.suffixes

    @property
    def parts(self) -> tuple[str, ...]:
        return self._pure.parts

    @property
    def parent(self) -> Path:
        return self._with(self._pure.parent)

    @property
    def parents(self) -> tuple[Path, ...]:
        return tuple(map(self._with, self._pure.parents))

    def with_name(self, name: str) -> Path:
        return self._with(self._pure.with_name(name))

    def with_stem(self, stem: str) -> Path:
        return self._with(self._pure.with_stem(stem))

    def with_suffix(self, suffix: str) -> Path:
        return self._with(self._pure.with_suffix(suffix))

    def relative_to(self, other: Path | AnyPath) -> PurePosixPath:
        return self._pure.relative_to(other._pure if isinstance(other, Path) else os.fsdecode(other))

    def is_relative_to(self, other: Path | AnyPath) -> bool:
        return self._pure.is_relative_to(other._pure if isinstance(other, Path) else os.fsdecode(other))

    def match(self, pattern: str) -> bool:
        return self._pure.match(pattern)

    # What is there

    def stat(self, *, follow_symlinks: bool = True) -> Stat:
        return self.filesystem.stat(self._bytes, follow=follow_symlinks)

    def lstat(self) -> Stat:
        return self.stat(follow_symlinks=False)

    def _format(self, *, follow: bool = True) -> int:
        """Return the format bits of the mode, 0 if there is no such file."""
        try:
            return self.stat(follow_symlinks=follow).mode & S_IFMT
        except PathError as error:
            if error.errno in MISSING:
                return 0
            raise

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return bool(self._format(follow=follow_symlinks))

    def is_dir(self) -> bool:
        return self._format() == 0o040000

    def is_file(self) -> bool:
        return self._format() == 0o100000

    def is_symlink(self) -> bool:
        return self._format(follow=False) == 0o120000

    def is_fifo(self) -> bool:
        return self._format() == S_IFIFO

    def is_socket(self) -> bool:
        return self._format() == S_IFSOCK

    def is_char_device(self) -> bool:
        return self._format() == S_IFCHR

    def is_block_device(self) -> bool:
        return self._format() == S_IFBLK

    def samefile(self, other: Path | AnyPath) -> bool:
        """Return True if both lead to the same inode of the image."""
        there = other if isinstance(other, Path) else Path(self.filesystem, other)
        return self.filesystem is there.filesystem and self.stat().ino == there.stat().ino

    def readlink(self) -> PurePosixPath:
        return PurePosixPath(self.filesystem.readlink(self._bytes).decode("utf-8", "surrogateescape"))

    def resolve(self, strict: bool = False) -> Path:
        """Return the path without symlinks and ``..``. ``strict``: raise PathNotFoundError if there is no such file."""
        done = Path(self.filesystem)
        pending = list(self.parts[1:])[::-1]
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                done = done.parent
                continue
            done /= part
            if done.is_symlink():
                links += 1
                if links > 40:
                    raise PathError(self._bytes, "Too many levels of symbolic links", code=errno.ELOOP)
                target = done.readlink()
                done = Path(self.filesystem) if target.is_absolute() else done.parent
                pending += [name for name in target.parts if name != "/"][::-1]
            elif strict and not done.exists():
                raise PathNotFoundError(self._bytes, "No such file or directory")
        return done

    def xattrs(self, *, follow_symlinks: bool = True) -> dict[bytes, bytes]:
        """Return the extended attributes: full name -> value."""
        return self.filesystem.xattrs(self._bytes, follow=follow_symlinks)

    # Directories

    def iterdir(self) -> Iterator[Path]:
        """Iterate over the entries of a directory, in byte order of names."""
        names = sorted(entry.name for entry in self.filesystem.scandir(self._bytes))
        return iter([self / name for name in names])

    def walk(self, top_down: bool = True, follow_symlinks: bool = False) -> Iterator[tuple[Path, list[str], list[str]]]:
        """Iterate over (directory, names of directories in it, other names), as ``pathlib.Path.walk``."""
        directories: list[str] = []
        files: list[str] = []
        for child in self.iterdir():
            is_directory = child.is_dir() if follow_symlinks else child._format(follow=False) == 0o040000
            (directories if is_directory else files).append(child.name)
        if top_down:
            yield self, directories, files
        for name in directories:
            yield from (self / name).walk(top_down, follow_symlinks)
        if not top_down:
            yield self, directories, files

    def glob(self, pattern: str) -> Iterator[Path]:
        """Iterate over the files below that match, in byte order: * ? [a-z], and ** for any directories."""
        parts = PurePosixPath(pattern).parts
        if not parts or pattern.startswith("/"):
            raise ValueError(f"unacceptable pattern: {pattern!r}")
        seen: set[Path] = set()
        for found in self._glob(parts):
            if found not in seen:
                seen.add(found)
                yield found

    def rglob(self, pattern: str) -> Iterator[Path]:
        return self.glob(f"**/{pattern}")

    def _glob(self, parts: tuple[str, ...]) -> Iterator[Path]:
        if not parts:
            yield self
            return
        part, rest = parts[0], parts[1:]
        if part == "**":
            yield from self._glob(rest) if rest else [self]
            for child in self._children():
                if child._format(follow=False) == 0o040000:
                    yield from child._glob(parts)
        elif not re.search(r"[*?\[]", part):
            child = self / part
            if child.exists(follow_symlinks=False):
                yield from child._glob(rest)
        else:
            matches = re.compile(translate(part)).match
            for child in self._children():
                if matches(child.name) and (not rest or child.is_dir()):
                    yield from child._glob(rest)

    def _children(self) -> Iterator[Path]:
        return self.iterdir() if self.is_dir() else iter(())

    # Content

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Open a regular file, as the built-in ``open``. What is written is in the image once the file is closed."""
        kind = mode.replace("b", "").replace("t", "")
        if kind.strip("+") not in ("r", "w", "a", "x") or kind.count("+") > 1 or ("b" in mode and "t" in mode):
            raise ValueError(f"invalid mode: {mode!r}")
        if "b" in mode and (encoding, errors, newline) != (None, None, None):
            raise ValueError("binary mode takes no encoding, errors or newline argument")
        raw = self._open_raw(kind)
        size = io.DEFAULT_BUFFER_SIZE if buffering in (-1, 1) else buffering
        if not size:
            if "b" not in mode:
                raise ValueError("can't have unbuffered text I/O")
            return cast("IO[Any]", raw)
        buffered: Any
        if "+" in kind:
            buffered = io.BufferedRandom(raw, size)
        else:
            buffered = io.BufferedReader(raw, size) if kind == "r" else io.BufferedWriter(raw, size)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline, buffering == 1)

    def _open_raw(self, kind: str) -> io.RawIOBase:
        if kind == "r":
            return self.filesystem.open_file(self._bytes)
        filesystem = self._writable
        if kind[0] != "r":
            filesystem.create(self._bytes, exclusive=kind[0] == "x")
        raw = filesystem.open_file(self._bytes, "r+")
        if kind[0] == "w":
            raw.truncate(0)
        elif kind[0] == "a":
            raw.seek(0, io.SEEK_END)
        return raw

    def read_bytes(self) -> bytes:
        return self.filesystem.read_bytes(self._bytes)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        with self.open("r", encoding=encoding, errors=errors) as file:
            text: str = file.read()
            return text

    def write_bytes(self, data: bytes | bytearray | memoryview) -> int:
        """Create a file with this content, or replace that of an existing one. Return the number of bytes."""
        self._writable.write_bytes(self._bytes, data)
        return memoryview(data).nbytes

    def write_text(self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> int:
        """Create a file with this text, or replace that of an existing one. Return the number of characters."""
        if not isinstance(data, str):
            raise TypeError(f"data must be str, not {type(data).__name__}")
        text = data if newline in (None, "", "\n") else data.replace("\n", newline)
        self.write_bytes(text.encode(encoding or "utf-8", errors or "strict"))
        return len(data)

    # Changes

    def mkdir(self, mode: int = 0o755, parents: bool = False, exist_ok: bool = False) -> None:
        """Create a directory; owner and group are 0 (see ``chown``)."""
        try:
            self._writable.mkdir(self._bytes, mode)
        except PathNotFoundError:
            if not parents or self.parent == self:
                raise
            self.parent.mkdir(parents=True, exist_ok=True)
            self.mkdir(mode, exist_ok=exist_ok)
        except PathExistsError:
            if not exist_ok or not self.is_dir():
                raise

    def touch(self, mode: int = 0o644, exist_ok: bool = True) -> None:
        """Create an empty file, or set the times of an existing one to now."""
        filesystem = self._writable
        there = self.exists()
        filesystem.create(self._bytes, mode, exclusive=not exist_ok)
        if there:
            filesystem.touch(self._bytes)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._writable.unlink(self._bytes)
        except PathNotFoundError:
            if not missing_ok:
                raise

    def rmdir(self) -> None:
        self._writable.rmdir(self._bytes)

    def rename(self, target: Path | AnyPath) -> Path:
        """Rename to ``target``, replacing an existing file. Return the new path; a relative one is from the root."""
        new = target if isinstance(target, Path) else Path(self.filesystem, target)
        if new.filesystem is not self.filesystem:
            raise OSError(errno.EXDEV, "the paths are in different images")
        self._writable.rename(self._bytes, new._bytes)
        return new

    replace = rename

    def symlink_to(self, target: Path | AnyPath) -> None:
        """Make this path a symbolic link to ``target``."""
        self._writable.symlink(target._bytes if isinstance(target, Path) else target, self._bytes)

    def hardlink_to(self, target: Path | AnyPath) -> None:
        """Make this path a hard link to the file ``target``."""
        self._writable.link(target._bytes if isinstance(target, Path) else target, self._bytes)

    def chmod(self, mode: int, *, follow_symlinks: bool = True) -> None:
        self._writable.chmod(self._bytes, mode, follow=follow_symlinks)

    def chown(self, uid: int | None, gid: int | None, *, follow_symlinks: bool = True) -> None:
        """Set owner and group, if not None."""
        self._writable.chown(self._bytes, uid, gid, follow=follow_symlinks)

    def rmtree(self) -> None:
        """Remove the file, or the directory and everything below it."""
        if self.parent == self:
            raise PathNotDirectoryError(self._bytes, "the root of the image is not removed")
        self._writable.remove_tree(self._bytes)
