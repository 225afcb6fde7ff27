"""Copies into an image: from the host, from another image, or from the image itself. The rules are those of coreutils' cp.

A directory is merged into one of the same name; a file that is there gets the new content and stays the same file. Trouble
with one file is told and left out; what concerns all (no space, a damaged image) ends the copy.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ext3.errors import Ext3Error, PathError, SourceError, XattrError
from ext3.filesystem import Filesystem
from ext3.writing import WritableFilesystem
from ext3.xattr import split_name

from ..errors import SifkitError, show
from .options import Progress
from .view import is_whiteout
from .whiteout import Editor, Spot, Tracer

__all__ = ["PRESERVE_ALL", "PRESERVE_FACTS", "CopyError", "CopyOptions", "Copier", "HostSource", "ImageSource"]

H = TypeVar("H")
MOST_DEEP = 2048
PIECE_BYTES = 4 << 20
PRESERVE_FACTS = frozenset({"mode", "owner", "times"})
PRESERVE_ALL = PRESERVE_FACTS | {"xattrs", "links"}
ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_OPEN = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


class CopyError(SifkitError):
    """One file that is not copied; ``kind`` as the error behind it has it."""

    def __init__(self, message: str, *, kind: str = "path", path: bytes | str | None = None, hint: str = "") -> None:
        super().__init__(message, path=path, hint=hint)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """``preserve``: any of PRESERVE_ALL. ``replace`` False: files that are there stay. ``owner``, ``umask``: of new files whose
    owner and mode are not preserved."""

    recursive: bool = False
    preserve: frozenset[str] = frozenset()
    replace: bool = True
    owner: tuple[int, int] = (0, 0)
    umask: int = 0o022


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file to be copied; times in nanoseconds. ``key`` tells hard links of one file."""

    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    size: int
    links: int
    rdev: tuple[int, int]
    key: tuple[int, int]


Pending = list[tuple[H, str, FileFacts, int, list[tuple[bytes, H]], Spot]]
"""Directories on the way: handle, name to show, facts, inode of the copy, what is still to be copied, where it goes."""


class Source(Protocol[H]):
    """Where files come from; each is known by a handle."""

    def facts(self, handle: H) -> FileFacts: ...

    def below(self, handle: H) -> list[tuple[bytes, H]]: ...

    def target(self, handle: H) -> bytes: ...

    def xattrs(self, handle: H) -> dict[bytes, bytes]: ...

    def fill(self, handle: H, filesystem: WritableFilesystem, ino: int, advance: Callable[[int], None]) -> None: ...


class HostSource:
    """Files of the host; handles are paths, and links are not followed."""

    def facts(self, handle: bytes) -> FileFacts:
        found = os.lstat(handle)
        rdev = (os.major(found.st_rdev), os.minor(found.st_rdev)) if hasattr(os, "major") else (0, 0)
        return FileFacts(
            found.st_mode,
            found.st_uid,
            found.st_gid,
            found.st_atime_ns,
            found.st_mtime_ns,
            found.st_size,
            found.st_nlink,
            rdev,
            (found.st_dev, found.st_ino),
        )

    def below(self, handle: bytes) -> list[tuple[bytes, bytes]]:
        return [(name, os.path.join(handle, name)) for name in sorted(os.listdir(handle))]

    def target(self, handle: bytes) -> bytes:
        return os.readlink(handle)

    def xattrs(self, handle: bytes) -> dict[bytes, bytes]:
        if not hasattr(os, "listxattr"):
            return {}
        try:
            found = [os.fsencode(name) for name in os.listxattr(handle, follow_symlinks=False)]
            return {name: os.getxattr(handle, name, follow_symlinks=False) for name in found if split_name(name)}
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
                return {}
            raise

    def fill(self, handle: bytes, filesystem: WritableFilesystem, ino: int, advance: Callable[[int], None]) -> None:
        fd = os.open(handle, _OPEN)
        try:
            filesystem.write_from(ino, fd, advance=advance)
        finally:
            os.close(fd)


class ImageSource:
    """Files of an image; handles are inodes. ``upper``: whiteouts are not there."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.filesystem: Filesystem = tracer.reads

    def facts(self, handle: int) -> FileFacts:
        found = self.filesystem.stat(handle)
        return FileFacts(
            found.mode,
            found.uid,
            found.gid,
            found.atime,
            found.mtime,
            found.size,
            found.links,
            (found.major, found.minor),
            (0, found.ino),
        )

    def below(self, handle: int) -> list[tuple[bytes, int]]:
        found = sorted((entry.name, entry.ino) for entry in self.filesystem.scandir(handle))
        return [entry for entry in found if not (self.tracer.upper and is_whiteout(self.filesystem.stat(entry[1])))]

    def target(self, handle: int) -> bytes:
        return self.filesystem.readlink(handle)

    def xattrs(self, handle: int) -> dict[bytes, bytes]:
        return self.filesystem.xattrs(handle)

    def fill(self, handle: int, filesystem: WritableFilesystem, ino: int, advance: Callable[[int], None]) -> None:
        size = self.filesystem.stat(handle).size
        block_size = self.filesystem.superblock.block_size
        with self.filesystem.open_file(handle) as source, filesystem.open_file(ino, "r+") as target:
            target.truncate(0)
            for logical, _, blocks in self.filesystem.data_extents(handle):
                at, end = logical * block_size, min(size, (logical + blocks) * block_size)
                while at < end:
                    source.seek(at)
                    data = source.read(min(PIECE_BYTES, end - at))
                    if not data:
                        break
                    target.write_at(at, data)
                    at += len(data)
                    advance(len(data))
            target.truncate(size)


class Copier:
    """Copies to one image. ``listed`` is told of each copy, ``trouble`` of what was left out."""

    def __init__(
        self,
        editor: Editor,
        options: CopyOptions,
        *,
        name: Callable[[bytes], str],
        listed: Callable[[str, str], None],
        trouble: Callable[[SifkitError], None],
        progress: Progress,
    ) -> None:
        self.editor = editor
        self.options = options
        self.files = self.bytes = 0
        """Names made or given new content, and bytes of their data."""
        self._name = name
        self._listed = listed
        self._trouble = trouble
        self._progress = progress
        self._links: dict[tuple[int, tuple[int, int]], int] = {}
        self._made: set[int] = set()

    def copy(self, source: Source[H], handle: H, shown: str, spot: Spot) -> None:
        """Copy to a place. Raises what ends all copying; the rest goes to ``trouble``."""
        self._progress.phase("copy", None, "bytes")
        pending: Pending[H] = []
        self._try(lambda: self._one(source, handle, shown, spot, pending), shown, spot)
        while pending:
            above, above_shown, facts, ino, rest, place = pending[-1]
            if not rest:
                pending.pop()
                self._try(lambda a=above, f=facts, i=ino: self._dress(source, a, i, f), above_shown, place)  # type: ignore[misc]
                continue
            name, below = rest.pop()
            what = f"{above_shown.rstrip('/')}/{show(name)}"
            into = self.editor.below(place, name)
            self._try(lambda b=below, w=what, s=into: self._one(source, b, w, s, pending), what, into)  # type: ignore[misc]
        self._progress.done()

    def _try(self, work: Callable[[], None], shown: str, spot: Spot) -> None:
        try:
            work()
        except CopyError as error:
            self._trouble(error)
        except (PathError, XattrError) as error:
            reason = os.strerror(error.errno) if error.errno and isinstance(error, PathError) else str(error)
            text = f"cannot create '{self._name(spot.path)}': {reason}"
            self._trouble(CopyError(text, kind=error.kind, path=spot.path, hint=error.hint))
        except SourceError as error:
            self._trouble(CopyError(f"cannot copy '{shown}': {error}", kind=error.kind, path=shown, hint=error.hint))
        except Ext3Error:
            raise
        except OSError as error:
            if error.errno in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            reason = error.strerror or str(error)
            self._trouble(CopyError(f"cannot copy '{shown}': {reason}", kind="source", path=shown))

    def _one(
        self,
        source: Source[H],
        handle: H,
        shown: str,
        spot: Spot,
        pending: Pending[H],
    ) -> None:
        facts = source.facts(handle)
        there = None if spot.ino is None else self.editor.stat(spot.ino)
        goal = self._name(spot.path)
        if stat.S_ISDIR(facts.mode):
            if not self.options.recursive:
                raise CopyError(
                    f"-r not specified; omitting directory '{shown}'", kind="is-a-directory", path=shown, hint="give -r"
                )
            self._check_not_inside(source, facts, shown, spot)
            if there is not None and not there.is_dir:
                text = f"cannot overwrite non-directory '{goal}' with directory '{shown}'"
                raise CopyError(text, kind="not-a-directory", path=spot.path)
            if len(pending) >= MOST_DEEP:
                raise CopyError(f"'{shown}': directories are nested deeper than {MOST_DEEP}", path=shown)
            rest = source.below(handle)[::-1]
            ino = there.ino if there is not None else self._directory(source, handle, facts, spot)
            made = Spot(spot.path, spot.parent, spot.name, ino, spot.way)
            self._listed(shown, goal)
            pending.append((handle, shown, facts, ino, rest, made))
            return
        if there is not None and there.is_dir:
            text = f"cannot overwrite directory '{goal}' with non-directory '{shown}'"
            raise CopyError(text, kind="is-a-directory", path=spot.path)
        if there is not None and not self.options.replace:
            return
        if there is not None and self._is_same(source, facts, there.ino):
            raise CopyError(f"'{shown}' and '{goal}' are the same file", path=spot.path)
        self._file(source, handle, facts, spot, shown)
        self.files += 1
        self._listed(shown, goal)

    def _is_same(self, source: Source[H], facts: FileFacts, ino: int) -> bool:
        return isinstance(source, ImageSource) and source.filesystem is self.editor.filesystem and facts.key[1] == ino

    def _check_not_inside(self, source: Source[H], facts: FileFacts, shown: str, spot: Spot) -> None:
        """A directory is not copied into itself; one that was just made is met where that was tried through a link."""
        if isinstance(source, ImageSource) and source.filesystem is self.editor.filesystem:
            ino = facts.key[1]
            if ino in spot.way or ino in self._made or ino == spot.ino:
                goal = self._name(spot.path)
                raise CopyError(f"cannot copy a directory, '{shown}', into itself, '{goal}'", path=spot.path)

    def _directory(self, source: Source[H], handle: H, facts: FileFacts, spot: Spot) -> int:
        uid, gid = self.options.owner
        ino = self.editor.make_directory(spot, facts.mode & 0o1777 & ~self.options.umask, uid=uid, gid=gid)
        self._made.add(ino)
        self.files += 1
        return ino

    def _file(self, source: Source[H], handle: H, facts: FileFacts, spot: Spot, shown: str) -> None:
        filesystem, options = self.editor.filesystem, self.options
        form = stat.S_IFMT(facts.mode)
        key = id(source), facts.key
        twin = self._links.get(key) if "links" in options.preserve and facts.links > 1 else None
        old = None if spot.ino is None else self.editor.stat(spot.ino)
        if old is not None and old.is_symlink and form == stat.S_IFREG and twin is None:
            spot = self._through(spot)
            old = None if spot.ino is None else self.editor.stat(spot.ino)
            if old is not None and self._is_same(source, facts, old.ino):  # it would be emptied before it is read
                raise CopyError(f"'{shown}' and '{self._name(spot.path)}' are the same file", path=spot.path)
        assert old is None or spot.ino is not None
        refill = old is not None and stat.S_ISREG(old.mode) and form == stat.S_IFREG
        refill = refill and not ("links" in options.preserve and old is not None and old.links > 1)
        if twin is not None or not refill:
            if twin is not None and twin == spot.ino:
                return
            if spot.ino is not None or spot.whiteout:
                filesystem.unlink_at(*spot.place)
            if twin is not None:
                filesystem.link_at(twin, *spot.place)
                return
        uid, gid = options.owner
        mode = form | facts.mode & (0o777 if form == stat.S_IFREG else 0o7777) & ~options.umask
        if form == stat.S_IFLNK:
            ino = filesystem.symlink_at(source.target(handle), *spot.place, uid=uid, gid=gid)
        elif form != stat.S_IFREG:
            if not options.recursive:
                raise CopyError(
                    f"'{shown}' is not a regular file", path=shown, hint="-r copies devices and fifos as what they are"
                )
            ino = filesystem.mknod_at(*spot.place, mode, rdev=facts.rdev, uid=uid, gid=gid)
        else:
            ino = spot.ino if refill and spot.ino is not None else filesystem.create_at(*spot.place, mode, uid=uid, gid=gid)
            try:
                source.fill(handle, filesystem, ino, self._advance)
            except BaseException:
                if not refill:
                    filesystem.unlink_at(*spot.place)
                raise
        if facts.links > 1:
            self._links[key] = ino
        self._dress(source, handle, ino, facts)

    def _through(self, spot: Spot) -> Spot:
        """Where a link in the image leads, for a file is written through it."""
        found = self.editor.spot(spot.path, follow=True)
        if found.ino is None:
            raise CopyError(f"not writing through dangling symlink '{self._name(spot.path)}'", path=spot.path)
        if self.editor.stat(found.ino).is_dir:
            raise CopyError(f"cannot overwrite directory '{self._name(spot.path)}'", kind="is-a-directory", path=spot.path)
        return found

    def _dress(self, source: Source[H], handle: H, ino: int, facts: FileFacts) -> None:
        """Owner, mode, attributes and times, in this order: each of them may change those before it."""
        filesystem, preserve = self.editor.filesystem, self.options.preserve
        if "owner" in preserve:
            filesystem.chown(ino, facts.uid, facts.gid)
        if "mode" in preserve and not stat.S_ISLNK(facts.mode):
            filesystem.chmod(ino, stat.S_IMODE(facts.mode))
        if "mode" in preserve or "xattrs" in preserve:
            for name, value in source.xattrs(handle).items():
                if "xattrs" in preserve or name in ACLS:
                    filesystem.set_xattr(ino, name, value)
        if "times" in preserve:
            filesystem.utimens(ino, facts.atime, facts.mtime)

    def _advance(self, count: int) -> None:
        self.bytes += count
        self._progress.advance(count)
