"""Atomic writes of new files: they appear whole under their name, or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from ext3 import hostio
from ext3.hostio import HostPath

from .errors import TargetError, show
from .file_locks import still_named
from .output_path import resolve_output

__all__ = [
    "AtomicFile",
    "ReplaceGuard",
    "current_umask",
    "new_file_mode",
]

DEFAULT_NAME_MAX = 255
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
_OWN_FDS = "/proc/self/fd"


class ReplaceGuard(Protocol):
    """Decision whether the file under a name may be replaced."""

    def hold(self, path: str) -> AbstractContextManager[None]:
        """Keep others from using the file while the block replaces it. Raises SifkitError if it may not be replaced."""
        ...


class AtomicFile:
    """New file that gets its name at ``commit``; until then it has no name, or a temporary one beside ``target``.

        with AtomicFile("overlay.img") as file:
            os.pwrite(file.fd, data, 0)
            file.commit()

    Leaving the block without ``commit`` removes the file. If the filesystem supports unnamed files (``O_TMPFILE``, Linux), a
    kill -9 leaves nothing either, unless it comes while a file is replaced. A symbolic link is followed if the system would do
    so: the file it leads to is replaced. Raises TargetError if the file cannot be created.
    """

    def __init__(self, target: HostPath, mode: int = 0o600) -> None:
        self.target = resolve_output(target)
        """Path of the file at ``commit``."""
        self.mode = mode
        self.fd = -1
        """Descriptor, open for reading and writing inside the block."""
        self.path = ""
        """Path of the temporary file, "" while it has no name."""
        self._committed = False

    def __enter__(self) -> Self:
        directory, name = os.path.split(self.target)
        self._check(directory or os.curdir, name)
        try:
            self.fd = _open_unnamed(directory or os.curdir)
            if self.fd < 0:
                self._take_temporary_name(self._open_named)
        except OSError as error:
            raise self._target_error(directory or os.curdir, error) from error
        except BaseException:
            self._discard()
            raise
        return self

    def _open_named(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | hostio.OPEN, 0o600)

    def _take_temporary_name(self, take: Callable[[str], None]) -> None:
        """Call ``take`` with temporary names beside the target until one is free."""
        directory, name = os.path.split(self.target)
        limit = _name_max(directory or os.curdir)
        for _ in range(100):
            self.path = os.path.join(directory, _temporary_name(name, limit))
            try:
                take(self.path)
                return
            except FileExistsError:
                self.path = ""
            except OSError:
                self.path = ""
                raise
        raise TargetError("no free temporary name beside the target", path=self.target)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._discard()

    def commit(self, replace: ReplaceGuard | None = None) -> None:
        """Sync the file, set its mode and its name, sync the directory.

        An existing file is replaced if the guard ``replace`` allows it. Raises TargetError if there is none, and if syncing or
        naming fails (a full disk may show only here); SifkitErrors of the guard.
        """
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(self.fd, self.mode)
            hostio.sync(self.fd)
            if self.path or not self._link_directly():
                self._name(replace)
        except TargetError:
            raise
        except FileExistsError as error:
            raise TargetError(
                f"{show(self.target)} was created by another process while this command ran; it was kept",
                path=self.target,
                hint="give another name",
                error=error,
            ) from error
        except OSError as error:
            raise TargetError(f"{show(self.target)}: {error.strerror}", path=self.target, error=error) from error
        self._committed = True
        hostio.sync_directory(os.path.dirname(self.target) or os.curdir)

    def _link_directly(self) -> bool:
        """Give an unnamed file its final name; False if a file of that name exists. No moment has another name."""
        try:
            _link_unnamed(self.fd, self.target)
        except FileExistsError:
            return False
        try:
            hostio.sync(self.fd)  # some filesystems log a file only with its name
        except BaseException:
            with suppress(OSError):
                if still_named(self.fd, self.target):  # another process may have replaced it
                    os.unlink(self.target)
            raise
        return True

    def _name(self, replace: ReplaceGuard | None) -> None:
        """Give the file its name where another file has it, or where files cannot be without one."""
        if replace is None and not self.path:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.target)
        with nullcontext() if replace is None else replace.hold(self.target):
            if not self.path:
                self._take_temporary_name(partial(_link_unnamed, self.fd))
                hostio.sync(self.fd)
            if os.name == "nt":  # an open file cannot be renamed there
                os.close(self.fd)
                self.fd = -1
            if replace is not None:
                os.replace(self.path, self.target)
            else:
                self._rename_without_replacing()

    def _rename_without_replacing(self) -> None:
        if _renameat2(self.path, self.target):
            return
        try:
            os.link(self.path, self.target)
        except FileExistsError:
            # A network filesystem may answer a repeated request: it is ours all the same if both names are one file.
            if not os.path.samestat(os.stat(self.target), os.stat(self.path)):
                raise
        except (OSError, NotImplementedError, AttributeError):
            # No hard links here: take the name first, which fails if it exists, then rename over the empty file.
            os.close(os.open(self.target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | hostio.OPEN, 0o600))
            try:
                os.replace(self.path, self.target)
            except BaseException:
                with suppress(OSError):
                    os.unlink(self.target)
                raise
            return
        os.unlink(self.path)

    def _check(self, directory: str, name: str) -> None:
        """Raise TargetError for what the rename would find only after all the work."""
        if not name:
            raise TargetError(f"{show(self.target)} is a directory", path=self.target, hint="give a file name in it")
        try:
            found = os.lstat(self.target)
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise self._target_error(directory, error) from error
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise TargetError(f"{show(self.target)} is a directory", path=self.target, hint="give a file name in it")
        if found is not None and _is_kept_for_owner(found, directory or os.curdir):
            raise TargetError(
                f"{show(self.target)} belongs to another user, in a directory where only its owner can replace it",
                path=self.target,
                hint="use a file in a directory of yours, or ask its owner",
            )
        if len(os.fsencode(name)) > _name_max(directory):
            raise TargetError(f"the name {show(name)} is too long for this filesystem", path=self.target)

    def _target_error(self, directory: str, error: OSError) -> TargetError:
        if not os.path.isdir(directory):
            what = "is not a directory" if os.path.lexists(directory) else "does not exist"
            hint = "" if os.path.lexists(directory) else "create the directory first"
            return TargetError(f"the directory {show(directory)} {what}", path=self.target, hint=hint, error=error)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return TargetError(
                f"the directory {show(directory)} is not writable: {error.strerror}",
                path=self.target,
                hint="choose a directory you can write to",
                error=error,
            )
        return TargetError(f"{show(self.target)}: {error.strerror}", path=self.target, error=error)

    def _discard(self) -> None:
        if self.path and not self._committed:
            with suppress(OSError):
                os.unlink(self.path)
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)
        if self.path and not self._committed and os.name == "nt":
            with suppress(OSError):
                os.unlink(self.path)
        self.path = ""


def _open_unnamed(directory: str) -> int:
    """Open an unnamed file in ``directory``; -1 if that is unsupported."""
    flags = getattr(os, "O_TMPFILE", 0)
    if not flags or not os.path.isdir(_OWN_FDS):
        return -1
    try:
        return os.open(directory, os.O_RDWR | flags | hostio.OPEN, 0o600)
    except OSError:
        return -1  # unsupported, or no file can be created here: a named one reports the error


def _link_unnamed(fd: int, path: str) -> None:
    # With a directory's descriptor given this is linkat, which alone follows the link to the file.
    os.link(f"{_OWN_FDS}/{fd}", path, src_dir_fd=fd, follow_symlinks=True)


def current_umask() -> int:
    """Return the process's umask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def new_file_mode(mode: int) -> int:
    """Return ``mode`` without the bits of the umask."""
    return mode & ~current_umask()


def _temporary_name(name: str, limit: int) -> str:
    raw = os.fsencode(name)[: limit - len(b"..XXXXXX.tmp")]
    return os.fsdecode(b"." + raw.decode("utf-8", "ignore").encode() + b"." + os.urandom(3).hex().encode() + b".tmp")


def _is_kept_for_owner(found: os.stat_result, directory: str) -> bool:
    """Return True if a sticky directory, such as /tmp, keeps the caller from replacing a file."""
    if not hasattr(os, "geteuid"):
        return False
    above = os.stat(directory)
    return bool(above.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, found.st_uid, above.st_uid)


def _name_max(directory: str) -> int:
    try:
        return max(32, os.pathconf(directory, "PC_NAME_MAX"))
    except (OSError, AttributeError, ValueError):
        return DEFAULT_NAME_MAX


def _renameat2(source: str, target: str) -> bool:
    """Rename unless the target exists (FileExistsError); False if the system or filesystem has no such call."""
    if sys.platform != "linux":
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        raise FileExistsError(code, os.strerror(code), target)
    return False
