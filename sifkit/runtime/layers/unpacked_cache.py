"""Cache of unpacked images: trees of files under keys made of digests, in a directory that only the caller can enter.

    trees/KEY/root      the files; trees/KEY/complete: how many names they have
    unfinished/KEY.X    trees that are being made, which are renamed when they are complete, or that one run uses alone
    locks/KEY           held by the process that makes a tree; locks/KEY.use: by those that use it
    digests/NAME        digests of images; see image_digest

A tree is on storage before it has its name. What others have left in ``unfinished`` is removed, and so is an older tree of the
same image files when a new one is added, unless a run uses it. Once a day the names of a tree
are counted: clusters delete files that nobody has read for some weeks, one by one.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from ...errors import ImageInUseError, show
from ...file_locks import lock_now, lock_range
from .. import sys
from ..errors import LaunchError, failed_call
from .tree_removal import count_names, remove_tree

__all__ = ["ONE_RUN", "CachedTree", "UnpackedCache", "cached_trees"]

FOLDERS = ("trees", "unfinished", "locks", "digests")
CHECK_SECONDS = 86_400
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to lock: each is twice as long as the one before, and with the longest the wait is said."""
LARGEST_FILE, LONGEST_NAME = 4096, 500
DIGEST_LENGTH = 64
ONE_RUN = "run-"
"""Beginning of the keys of trees that one run uses alone."""
ELSEWHERE = "set APPTAINER_CACHEDIR to a directory of yours"


class CachedTree(NamedTuple):
    """Tree in the cache. ``image``: what it was made of; ``size``: bytes that it took when it was made."""

    key: str
    image: str
    size: int


class UnpackedCache:
    """Cache at ``path``, which is made if it is missing."""

    def __init__(self, path: str) -> None:
        """Raises LaunchError for a directory that others can change, or in which programs do not run."""
        self.path = path
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            found = os.stat(path)
            if {found.st_uid, os.lstat(path).st_uid} != {os.geteuid()}:  # nor a link that another user has put there
                raise LaunchError(f"{show(path)}, the cache of unpacked images, belongs to another user", hint=ELSEWHERE)
            if stat.S_IMODE(found.st_mode) & 0o077:
                os.chmod(path, 0o700)
            for name in FOLDERS:
                with suppress(FileExistsError):
                    os.mkdir(f"{path}/{name}", 0o700)
        except OSError as error:
            raise failed_call(f"the cache of unpacked images cannot be made at {show(path)}", error, hint=ELSEWHERE) from error
        if os.statvfs(path).f_flag & os.ST_NOEXEC:
            raise LaunchError(f"no program can run from {show(path)}: its filesystem is mounted noexec", hint=ELSEWHERE)

    def use(self, key: str, until: ExitStack) -> str | None:
        """Return the root of a tree, which is kept until ``until`` is closed; None if there is none that is complete."""
        fd = os.open(f"{self.path}/locks/{key}.use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        root = None
        with suppress(ImageInUseError):  # it is just being removed
            lock_range(fd, write=False, path=key)
            root = self.find(key)
        if root is None:
            os.close(fd)
        else:
            until.callback(os.close, fd)
        return root

    def find(self, key: str) -> str | None:
        """Return the root of a tree that is complete; None if there is none."""
        place = f"{self.path}/trees/{key}"
        marker = f"{place}/complete"
        try:
            checked = os.stat(marker).st_mtime
            if not 0 <= time.time() - checked < CHECK_SECONDS:
                if _read(marker).get("names") != count_names(f"{place}/root"):
                    return None
                os.utime(marker)
        except OSError:
            return None
        return f"{place}/root"

    def digest(self, name: str) -> str | None:
        """Return the digest that is remembered for an image; None if there is none."""
        try:
            with open(f"{self.path}/digests/{name}", encoding="ascii", errors="replace") as file:
                text = file.read(LARGEST_FILE)
        except OSError:
            return None
        is_whole = len(text) == DIGEST_LENGTH and text.isalnum()  # else the host was switched off when it was written
        return text if is_whole else None

    def remember_digest(self, name: str, digest: str) -> None:
        """Raises OSError."""
        temporary = f"{self.path}/digests/.{name}.{os.urandom(4).hex()}"
        with open(temporary, "x", encoding="ascii") as file:
            file.write(digest)
        os.rename(temporary, f"{self.path}/digests/{name}")

    @contextmanager
    def locked(self, key: str, notify: Callable[[str], None]) -> Iterator[None]:
        """Hold the lock of a key in the block, alone; wait for it. Forked processes hold it, too, until they end."""
        fd = os.open(f"{self.path}/locks/{key}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            pause = FIRST_PAUSE
            while not self._try_lock(fd, key):
                time.sleep(pause)
                if pause < LONGEST_PAUSE <= 2 * pause:
                    notify("waiting for another process that unpacks the same image")
                pause = min(2 * pause, LONGEST_PAUSE)
            yield
        finally:
            os.close(fd)

    def forget_lock(self, key: str) -> None:
        """Remove the lock of a key that is used no more."""
        with suppress(FileNotFoundError):
            os.unlink(f"{self.path}/locks/{key}")

    def _try_lock(self, fd: int, key: str) -> bool:
        try:
            lock_now(fd, write=True, path=key)
        except ImageInUseError:
            return False
        return True

    @contextmanager
    def new_tree(self, key: str) -> Iterator[str]:
        """Give a directory for a new tree, which is removed after the block unless it was added."""
        place = f"{self.path}/unfinished/{key}.{os.urandom(4).hex()}"
        os.mkdir(place, 0o700)
        try:
            yield place
        finally:
            remove_tree(place)

    def add(self, place: str, tree: CachedTree) -> str:
        """Add the tree made at ``place``; return its root. Raises OSError."""
        names = count_names(f"{place}/root")
        with open(f"{place}/complete", "x", encoding="ascii") as file:
            json.dump({"names": names, "size": tree.size, "image": tree.image[:LONGEST_NAME]}, file)
        _sync(self.path)
        target = f"{self.path}/trees/{tree.key}"
        try:
            os.rename(place, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            found = self.find(tree.key)  # made meanwhile, where the filesystem has no locks
            if found is not None:
                return found
            os.rename(target, f"{self.path}/unfinished/{tree.key}.{os.urandom(4).hex()}")
            os.rename(place, target)
        for other in cached_trees(self.path):
            if other.image == tree.image[:LONGEST_NAME] and other.key != tree.key:
                self._remove_unused(other.key)
        return f"{target}/root"

    def _remove_unused(self, key: str) -> None:
        """Remove a tree unless a run uses it, or that cannot be known, as far as that is possible."""
        with suppress(OSError):
            fd = os.open(f"{self.path}/locks/{key}.use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if lock_now(fd, write=True, path=key):
                    place = f"{self.path}/unfinished/{key}.{os.urandom(4).hex()}"
                    os.rename(f"{self.path}/trees/{key}", place)
                    remove_tree(place)
            except ImageInUseError:
                pass
            finally:
                os.close(fd)

    def remove_unfinished(self) -> None:
        """Remove trees whose makers have ended before they were complete, as far as that is possible."""
        for name in os.listdir(f"{self.path}/unfinished"):
            key = name.rpartition(".")[0]
            with suppress(OSError):
                fd = os.open(f"{self.path}/locks/{key}", os.O_RDWR | os.O_CLOEXEC)
                try:
                    if lock_now(fd, write=True, path=key):  # else the filesystem cannot tell
                        remove_tree(f"{self.path}/unfinished/{name}")
                        if key.startswith(ONE_RUN):
                            self.forget_lock(key)
                except ImageInUseError:
                    continue
                finally:
                    os.close(fd)


def _sync(path: str) -> None:
    """Flush the filesystem of a directory to its storage. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sys.syncfs(fd)
    finally:
        os.close(fd)


def cached_trees(path: str) -> list[CachedTree]:
    """Return the complete trees of a cache; none if it is missing or not readable."""
    found = []
    with suppress(OSError):
        for key in sorted(os.listdir(f"{path}/trees")):
            with suppress(OSError):
                facts = _read(f"{path}/trees/{key}/complete")
                found.append(CachedTree(key, str(facts.get("image", "")), int(str(facts.get("size", 0)))))
    return found


def _read(path: str) -> dict[str, object]:
    """Return the facts in a marker; none if it is damaged. Raises OSError."""
    with open(path, "rb") as file, suppress(ValueError):
        found = json.loads(file.read(LARGEST_FILE))
        if isinstance(found, dict):
            return found
    return {}
