"""Image files of a run: opened, locked as Apptainer does, and brought into the state in which they can be used.

An image that is written to is checked first if it was not unmounted cleanly, as ``fsck -p`` does, and its journal is replayed.
One that is read is replayed, too, if that is allowed; else it is read through its journal, by a server of ours. The locks are
this process's until ``close``; servers that it forks have them as well.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from ext3 import hostio

from ...errors import ImageInUseError, SifkitError, human, shell_quote, show
from ..errors import LaunchError, failed_call
from ..planning.run_plan import DataImage, Layer, Upper
from .ext3_state import read_state

if TYPE_CHECKING:
    from .image_place import ImagePlace

__all__ = ["ImageFiles"]

Span = tuple[int, int] | None
MOST_INODES = 2_000_000
"""Inodes that are searched for marks before a plain user writes; more would take longer than the rest of the start."""
REPLAY_SECONDS, UNSEEN_SECONDS, END_SECONDS = 60.0, 5.0, 2.0
"""Time for which another run is waited for that replays the journal, or may do so where it cannot be seen, as on another node;
and for one that has done so and still holds the lock."""
LOOK_SECONDS, PAUSE = 2.0, 0.05
"""Time after which is looked again who has the lock, which reads all of /proc; pause between two looks at the lock."""


class ImageFiles:
    """Open image files. ``notify``: takes a line about what was done to one, or should be."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self.notify = notify
        self._layers: dict[Layer, int] = {}
        self._uppers: dict[Upper, tuple[int, ImagePlace]] = {}
        self._directories: list[int] = []
        """Descriptors that hold the locks of an overlay directory; servers keep them as well, until the container ends."""
        self.locked_directory = ""
        """Name of that directory."""

    def close(self) -> None:
        """Close all, which ends the locks unless a forked process has them, and say if what was written has no name."""
        for fd, place in self._uppers.values():
            if os.fstat(fd).st_nlink == 0:
                self.notify(f"{place.name} was deleted or replaced during the run: what was written to it is lost")
        self.close_others(())
        for fd in self._directories:
            os.close(fd)

    def close_others(self, kept: Collection[Layer | Upper]) -> None:
        """Close all but some: a server has no part in the locks of what others serve."""
        for layer in self._layers.keys() - kept:
            os.close(self._layers.pop(layer))
        for upper in self._uppers.keys() - kept:
            os.close(self._uppers.pop(upper)[0])

    def leave_directory(self, device: int) -> None:
        """Leave the lock of the directory to a process of its own while others have their root on ``device``, and say so."""
        if not self.locked_directory:
            return
        from ..container.left_behind import keep_until_ended

        if keep_until_ended(device, before=partial(self.close_others, ())):
            self.note_left_directory(device)

    def note_left_directory(self, device: int) -> None:
        """Say once, if a directory is locked, that processes with their root on ``device`` still use it."""
        if self.locked_directory:
            from ..container.left_behind import still_used

            self.notify(still_used(self.locked_directory, device))
            self.locked_directory = ""

    @property
    def has_locks(self) -> bool:
        """Return True if an image is locked for reading, or a directory for writing."""
        return bool(self.locked_directory) or any(layer.kind == "ext3" for layer in self._layers)

    def descriptor(self, image: Layer | Upper) -> int:
        """Return the descriptor of an image that was opened."""
        return self._layers[image] if isinstance(image, Layer) else self._uppers[image][0]

    def open(self, layers: Sequence[Layer], upper: Upper | None, *, for_kernel: bool) -> bool:
        """Open the images among the layers, and lock those of ext3, for reading or, ``upper``, for writing; also a directory.

        Return True if the kernel would not show one that is read as it is meant. ``for_kernel``: root's overlayfs will read
        them. Raises ImageInUseError, LaunchError for an image that must be repaired by hand, and OSError.
        """
        needs_view = [self._open_layer(layer, for_kernel) for layer in dict.fromkeys(layers)]
        if upper is not None and upper.kind == "image":
            self._open_upper(upper, for_kernel=for_kernel)
            self._check_marks(upper, for_kernel=for_kernel)
        if upper is not None and upper.kind == "directory":
            self._lock_directory(upper)
            self._replace_marks(upper, for_root=for_kernel)
        return any(needs_view)

    def open_data(self, images: Sequence[DataImage], *, for_kernel: bool) -> frozenset[Layer]:
        """Open and lock data images, as ``open`` does; return those that the kernel would not show as they are meant."""
        found = set()
        for image in images:
            if isinstance(image, Upper):
                self._open_upper(image, for_kernel=for_kernel)
            elif image not in self._layers and self._open_layer(image, for_kernel):
                found.add(image)
        return frozenset(found)

    # Layers that are read

    def _open_layer(self, layer: Layer, for_kernel: bool) -> bool:
        if layer.kind == "squashfs":
            self._layers[layer] = os.open(layer.path, os.O_RDONLY | hostio.NO_WAIT | os.O_CLOEXEC)
            if for_kernel:
                from ..kernel_filesystems import can_mount

                if not can_mount("squashfs"):
                    return True
        if layer.kind != "ext3":
            return for_kernel and layer.has_marks and _has_marks(layer)
        with ExitStack() as replaying:
            was_dirty = self._replay(layer, replaying)
            fd = self._layers[layer] = self._open_for_reading(layer, was_dirty=was_dirty)
        from .image_place import ImagePlace

        place = ImagePlace.of(layer, fd)
        state = read_state(fd, layer.offset)
        if state.needs_check and not _is_served(fd):
            self.notify(f"{place.name} was not unmounted cleanly, or has errors; check it with: {place.fsck('-p')}")
        if state.needs_recovery:
            return True
        if not for_kernel or not layer.has_marks:
            return False
        from .mark_search import search_marks

        found = search_marks(fd, place.offset, place.size)
        return found is None or found.ignored or found.moved

    def _open_for_reading(self, layer: Layer, *, was_dirty: bool) -> int:
        """Open and lock a layer for reading. Another run that only prepares it, as many may want to, is waited for."""
        start = time.monotonic()
        while True:
            try:
                return self._open_locked(layer, write=False)[0]
            except ImageInUseError:
                until = start + _seconds_to_wait(layer, was_dirty=was_dirty)
                if time.monotonic() >= until:
                    raise
            _await_lock(layer, min(until, time.monotonic() + LOOK_SECONDS))

    def _replay(self, layer: Layer, stack: ExitStack) -> bool:
        """Replay the journal of a layer if it is not empty and that is allowed; return True if it was not.

        ``stack``: keeps the lock until the layer is locked for reading.
        """
        try:
            fd = os.open(layer.path, os.O_RDONLY | hostio.NO_WAIT | os.O_CLOEXEC)
            try:
                state = read_state(fd, layer.offset)
            finally:
                os.close(fd)
            if not state.needs_recovery or state.needs_check:
                return False
            fd, is_locked = self._open_locked(layer, write=True)
        except (OSError, ImageInUseError):
            return True  # it may not be written to, or is being read or replayed
        stack.callback(os.close, fd)
        if not is_locked:  # another node may be writing to it
            return False
        from .image_place import ImagePlace

        place = ImagePlace.of(layer, fd)
        if read_state(fd, layer.offset).needs_recovery:
            from .preparation import HostDiskFullError, prepare

            with suppress(HostDiskFullError):  # it is read through its journal
                prepare(fd, place)
        offset, size = _span(layer) or (0, 0)
        from ...file_locks import lock_range

        lock_range(fd, write=False, offset=offset, size=size, path=layer.path)
        return True

    # Images that are written to

    def _open_upper(self, upper: Upper, *, for_kernel: bool) -> None:
        """Open an image that is written to, and bring it into a clean state."""
        fd, is_locked = self._open_locked(upper, write=True)
        if not is_locked:
            self.notify(f"{show(upper.path)}: its filesystem has no file locks; see to it that nobody else writes to it")
        from .image_place import ImagePlace

        place = ImagePlace.of(upper, fd)
        self._uppers[upper] = fd, place
        if not for_kernel:  # whose loop device has no such limit
            _check_size_limit(upper, place, os.fstat(fd).st_size)
        state = read_state(fd, upper.offset)
        if state.needs_check:
            self.notify(f"{place.name} was not unmounted cleanly, or has errors; it is checked first")
        if not state.is_clean:
            from .preparation import prepare

            note = prepare(fd, place, check=state.needs_check)
            if note:
                self.notify(note)

    def _check_marks(self, upper: Upper, *, for_kernel: bool) -> None:
        """Replace the marks that root's overlayfs ignores in the layer that is written to, if it is ``for_kernel``.

        Raises LaunchError for marks that overlayfs does not follow.
        """
        from .mark_search import search_marks

        fd, place = self._uppers[upper]
        if not for_kernel and read_state(fd, place.offset).inodes > MOST_INODES:
            return  # the server shows the marks to the kernel, which refuses these files
        found = search_marks(fd, place.offset, place.size, names=for_kernel)
        if found is not None and found.moved:
            from .preparation import moved_error

            raise moved_error(place.name)
        if found is None or (for_kernel and found.ignored):
            from .preparation import prepare

            note = prepare(fd, place, normalize=for_kernel, search_moved=found is None)
            if note:
                self.notify(note)

    def _lock_directory(self, upper: Upper) -> None:
        """Lock a directory that is written to: a second overlayfs would take the work directory away from the first.

        The upper directory is locked as well: it may be given with another work directory. Raises ImageInUseError. What else is
        wrong with it is said where it is mounted.
        """
        from ...directory_lock import lock_directory

        name = upper.name if upper.upper == "upper" else f"{upper.path}/{upper.upper}"
        for part in (upper.work, upper.upper):
            with suppress(OSError):
                os.makedirs(f"{upper.path}/{part}", 0o755, exist_ok=True)
                self._directories.append(lock_directory(f"{upper.path}/{part}", shown=show(name)))
                self.locked_directory = name

    def _replace_marks(self, upper: Upper, *, for_root: bool) -> None:
        """Replace the marks of fuse-overlayfs in a directory that is written to. Raises LaunchError."""
        from .layer_marks import replace_directory_marks, search_directory

        files = f"{upper.path}/{upper.upper}"
        if os.path.islink(files):
            return  # which is refused where it is mounted
        found = search_directory(files, for_root=for_root)
        if found.moved:
            from .preparation import moved_error

            raise moved_error(show(upper.name))
        if found.ignored:
            try:
                is_changed = replace_directory_marks(files)
            except OSError as error:
                what = f"{show(upper.name)}: marks that fuse-overlayfs left cannot be replaced"
                raise failed_call(what, error, hint="read it, with :ro, or let its owner run something in it") from error
            if is_changed:
                from .image_place import replaced_note

                self.notify(replaced_note(show(upper.name)))

    # Opening

    def _open_locked(self, image: Layer | Upper, *, write: bool) -> tuple[int, bool]:
        """Open and lock an image; return its descriptor, and False if its filesystem has no locks."""
        from ...file_locks import open_locked

        flags = (os.O_RDWR if write else os.O_RDONLY) | hostio.NO_WAIT | os.O_CLOEXEC
        lock = partial(self._lock, image, write=write)
        return open_locked(image.path, partial(os.open, image.path, flags), lock)

    def _lock(self, image: Layer | Upper, fd: int, *, write: bool) -> bool:
        from ...file_locks import lock_range, lock_state
        from ...in_use import check_unused

        span = _span(image)
        offset, size = span or (0, 0)
        has_readers = not write and lock_state(fd, offset=offset, size=size)[0] == "read"
        try:
            try:
                is_locked = lock_range(fd, write=write, offset=offset, size=size, path=image.path)
            except ImageInUseError:
                check_unused(image.path, writers_only=not write, span=span)  # says who uses it
                raise
            # mounts take no lock
            check_unused(image.path, writers_only=not write, span=span, own_lock=is_locked, has_readers=has_readers)
        except ImageInUseError as error:
            error.hint = "wait until that has ended"
            raise
        if image.object_id is not None:
            _check_partition(image, fd)
        return is_locked


def _await_lock(layer: Layer, until: float) -> None:
    """Wait until nobody has a layer locked for writing, or the clock is at ``until``."""
    from ...file_locks import lock_state

    offset, size = _span(layer) or (0, 0)
    fd = os.open(layer.path, os.O_RDONLY | hostio.NO_WAIT | os.O_CLOEXEC)
    try:
        while time.monotonic() < until and lock_state(fd, offset=offset, size=size)[0] == "write":
            time.sleep(PAUSE)
    finally:
        os.close(fd)


def _seconds_to_wait(layer: Layer, *, was_dirty: bool) -> float:
    """Return how long a locked image is waited for: not at all if others use it, and do not only prepare it."""
    from ...in_use import fuse_servers, image_use

    use = image_use(layer.path, span=_span(layer))
    if use.mounts or any(fuse_servers(os.stat(layer.path))):
        return 0
    if not was_dirty:
        return END_SECONDS
    return REPLAY_SECONDS if use.holders else UNSEEN_SECONDS


def _is_served(fd: int) -> bool:
    """Return True if fuse2fs has an image mounted, which says as long that it was not unmounted cleanly."""
    from ...in_use import fuse_servers

    return any(server.kind == "write" for server in fuse_servers(os.fstat(fd)))


def _has_marks(layer: Layer) -> bool:
    """Return True if root's overlayfs would not show a directory or a squashfs image as it is meant."""
    from .layer_marks import search_directory, search_squashfs

    if layer.kind == "directory":
        found = search_directory(f"{layer.path}/{layer.subdirectory}".rstrip("/"), for_root=True)
    else:
        try:
            found = search_squashfs(layer.path, layer.offset, layer.size)
        except SifkitError:
            return False  # the kernel says what is wrong with it
    return found.ignored or found.moved


def _span(image: Layer | Upper) -> Span:
    """Return the range of a partition that is locked; None for the whole file."""
    return None if image.object_id is None else (image.offset, image.size or 0)


def _check_size_limit(upper: Upper, place: ImagePlace, size: int) -> None:
    """Raise LaunchError if the caller may write to no file that is as large as the image."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if limit != resource.RLIM_INFINITY and limit < size:
        what = f"it has {human(size)}, and files that you write may have at most {human(limit)}"
        read = f"--overlay {shell_quote(upper.path)}:ro" if upper.is_layer else "add ro to its bind"
        hint = f"raise the limit (ulimit -f), or read it only: {read}"
        raise LaunchError(f"{place.name} cannot be written to: {what}", hint=hint)


def _check_partition(image: Layer | Upper, fd: int) -> None:
    """Raise LaunchError if an object of a SIF is no longer where it was before it was locked."""
    from ...sif.descriptor_table import DescriptorTable

    assert image.object_id is not None
    try:
        found = DescriptorTable(fd).get(image.object_id)
        is_same = (found.offset, found.size) == (image.offset, image.size)
    except SifkitError:
        is_same = False
    if not is_same:
        raise LaunchError(f"{show(image.path)} was changed by another process while it was opened", hint="run it again")
