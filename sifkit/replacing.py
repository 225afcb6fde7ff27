"""Existing files under the names of outputs: which of them a command may replace, truncate or remove.

Only regular files are replaced, never devices, FIFOs, sockets or directories, and no image that is in use: locked, behind a
loop device, or served by FUSE. Commands that make images replace only files of their own kind. Everything that replaces a
file asks here: commits of ``AtomicFile``, files written in place, and names that are removed for another file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ext3 import hostio
from ext3.hostio import HostPath

from .errors import ImageInUseError, NotReplaceableError, TargetError, UsageError, show
from .file_locks import lock_range, still_named
from .in_use import ImageUse, LoopFiles, Mount, fuse_servers, image_use, in_use_error
from .lock_wait import retry_in_use, without_waiting
from .output_path import resolve_output

__all__ = ["ANY_FILE", "HEAD_BYTES", "OpenedFile", "Replaceable", "check_output", "image_noun"]

HEAD_BYTES = 2048
_TYPES = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}
EXT_NOUN = "an ext2, ext3 or ext4 image"
_EXT_MAGIC = slice(1080, 1082)
"""s_magic of the superblock at byte 1024."""


def image_noun(head: bytes) -> str:
    """Return what image begins with these bytes (2 KiB of it), as a noun with its article; "" for none that is known."""
    if b"SIF_MAGIC\0" in head[:64]:  # after the launch script
        return "a SIF image"
    if head[:4] in (b"hsqs", b"sqsh"):
        return "a squashfs image"
    if head[_EXT_MAGIC] == b"\x53\xef":
        return EXT_NOUN
    return "a LUKS image" if head[:6] == b"LUKS\xba\xbe" else ""


@dataclass(frozen=True, slots=True)
class Replaceable:
    """Existing files that a command replaces.

    ``noun``: such a file, ``plural``: all that are replaced, for messages. ``accepts``: called with the first 2 KiB and the
    size of a file; None for all regular files.
    """

    noun: str
    plural: str
    accepts: Callable[[bytes, int], bool] | None = None

    def check(self, path: HostPath, *, shown: str = "") -> None:
        """Raise NotReplaceableError or ImageInUseError if there is a file under this name that may not be replaced.

        A symbolic link is followed. ``shown``: what to call the file.
        """
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return
        self._check(os.fsdecode(path), found, shown, None)

    def check_name(
        self, path: HostPath, found: os.stat_result | None = None, *, shown: str = "", loops: LoopFiles | None = None
    ) -> None:
        """As ``check``, for a name that is removed: a symbolic link is not followed, and may be removed.

        ``found``: the file, if it is known. ``shown``: what to call it. ``loops``: for a command that checks many files.
        """
        found = os.lstat(path) if found is None else found
        if not stat.S_ISLNK(found.st_mode):
            self._check(os.fsdecode(path), found, shown, loops)

    def _check(self, name: str, found: os.stat_result, shown: str, loops: LoopFiles | None) -> None:
        shown = shown or show(name)
        if (other := _TYPES.get(stat.S_IFMT(found.st_mode))) is not None:
            raise NotReplaceableError(f"{shown} is {other}, which is not replaced", path=name, hint="give another name")
        head = self._head(name, shown)
        image = image_noun(head)
        if self.accepts is not None and not self.accepts(head, found.st_size):
            raise NotReplaceableError(
                f"{shown} is {f'not {self.noun}' if image in ('', EXT_NOUN) else image}; --force replaces only {self.plural}",
                path=name,
                hint="give another name, or remove the file first",
            )
        if image or self.accepts is not None or (loops or LoopFiles()).holds(found):
            _check_unused(name, found, shown)

    def allows(self, path: HostPath) -> bool:
        """Return True if ``check`` passes."""
        try:
            with without_waiting():
                self.check(path)
        except (NotReplaceableError, ImageInUseError, OSError):
            return False
        return True

    @contextmanager
    def hold(self, path: str, *, shown: str = "") -> Iterator[None]:
        """Check the file, and keep an image locked until the end of the block, which replaces or rewrites it."""
        self.check(path, shown=shown)
        fd = _open_image(path)
        try:
            if fd >= 0:
                lock_range(fd, write=True, path=path)
                if not still_named(fd, path):
                    raise TargetError(
                        f"{show(path)} was replaced by another process while this command ran", path=path, hint="try again"
                    )
            yield
        finally:
            if fd >= 0:
                os.close(fd)

    def _head(self, name: str, shown: str) -> bytes:
        """Return the first bytes of a regular file; none of one that cannot be read if any content will do."""
        try:
            with open(name, "rb", opener=_open_now) as file:
                return file.read(HEAD_BYTES)
        except OSError as error:
            if self.accepts is None:
                return b""
            text = f"{shown}: cannot read its type: {error.strerror}"
            raise NotReplaceableError(text, path=name, hint="give another name", error=error) from error


ANY_FILE = Replaceable("a regular file", "regular files")
"""Files that are replaced by commands whose output may be anything."""


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """File that is replaced by its own changed copy: the one open and locked as ``fd``, if it still is as ``found`` says."""

    fd: int
    found: os.stat_result

    def check(self, path: str) -> None:
        """Raise ImageInUseError if the file was replaced or written to."""
        now = os.fstat(self.fd)
        if not still_named(self.fd, path) or (now.st_mtime_ns, now.st_size) != (self.found.st_mtime_ns, self.found.st_size):
            raise ImageInUseError(
                f"{show(path)} was changed by another process", path=path, hint="stop the process that uses it, then try again"
            )

    @contextmanager
    def hold(self, path: str) -> Iterator[None]:
        """Check the file. Windows replaces no open file: there the caller has checked and closed it."""
        if os.name != "nt":
            self.check(path)
        yield


def check_output(
    target: str, replaceable: Replaceable, *, force: bool, noun: str = "image", exists: type[TargetError] = TargetError
) -> None:
    """Refuse, before any work, an output that cannot be created or (with ``force``) replaced under this name.

    UsageError without a name; TargetError for a directory, a missing or unwritable parent, a symbolic link that is not
    followed; ``exists`` for an existing file; NotReplaceableError and ImageInUseError as ``Replaceable.check`` does. ``noun``:
    the output, for messages.
    """
    if not target:
        raise UsageError(f"the name of the {noun} is empty", hint="name a file")
    if os.path.isdir(target):
        raise TargetError(f"{show(target)} is a directory", path=target, hint="name a file in it")
    if target.endswith("/"):
        raise TargetError(f"{show(target)} ends with a slash, but the {noun} is a file", path=target, hint="name a file")
    _check_directory(resolve_output(target), target, noun)
    if not os.path.lexists(target):
        return
    if not force:
        hint = ", or --force to replace it" if replaceable.allows(target) else "; --force does not replace such a file"
        raise exists(f"{show(target)} exists", path=target, hint=f"give another name{hint}")
    replaceable.check(target)


def _check_directory(path: str, target: str, noun: str) -> None:
    directory = os.path.dirname(path) or os.curdir
    if not os.path.isdir(directory):
        existing = directory
        while existing and not os.path.lexists(existing):
            existing = os.path.dirname(existing)
        if existing and not os.path.isdir(existing):
            what = "a file" if os.path.exists(existing) else "a dangling symbolic link"
            raise TargetError(f"{show(existing)} is {what}, not a directory", path=target, hint="name a file in a directory")
        raise TargetError(f"the directory {show(directory)} does not exist", path=target, hint="create the directory first")
    if not os.access(directory, os.W_OK | os.X_OK):
        hint = f"write the {noun} to a directory you can write to"
        raise TargetError(f"the directory {show(directory)} is not writable", path=target, hint=hint)


def _check_unused(name: str, found: os.stat_result, shown: str) -> None:
    """Raise ImageInUseError for an image that is locked, behind a loop device, or served by FUSE."""

    def check() -> None:
        try:
            use = image_use(name)
        except OSError:  # not readable: its locks cannot be seen, and others see that it has a loop device
            use = ImageUse("unsupported", mounts=(Mount("a loop device", None, False),))
        if not use.busy:
            use = use._replace(servers=tuple(fuse_servers(found)))
        if use.busy:
            raise in_use_error(name, use, shown=shown)

    retry_in_use(check)


def _open_now(name: str, flags: int) -> int:
    return os.open(name, flags | hostio.NO_WAIT)


def _open_image(path: str) -> int:
    """Open an image for a lock; -1 for any other file, and one that cannot be written to: it is replaced all the same."""
    try:
        fd = os.open(path, os.O_RDWR | hostio.NO_WAIT)
    except OSError:
        return -1
    if hostio.is_regular(fd) and image_noun(hostio.read_at(fd, 0, HEAD_BYTES)):
        return fd
    os.close(fd)
    return -1
