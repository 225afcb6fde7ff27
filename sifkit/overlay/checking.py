"""Check of the filesystem in an image: opened and locked as its policy needs, repaired in place, with an undo file if wanted.

A check that only looks takes no lock and opens the image read-only. One that repairs locks it as an edit does. In a SIF image
the partition is repaired in place; signatures are decided on before the first write, so that a sound image keeps them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import UUID

from ext3 import hostio
from ext3.constants import SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ext3.device.base import BlockDevice, FileDevice, data_ranges
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.finding import Finding, Report
from ext3.fsck.policy import Policy
from ext3.fsck.undo import UndoRecorder, UndoResult, put_back
from ext3.hostio import HostPath
from ext3.newfs.stamp import Stamp

from ..errors import FormatError, UsageError, show
from .images.change_watch import ChangeWatch, ImageState
from .images.locked_file import open_for_edit
from .images.opening import named_errors, open_window
from .images.sif_partition import check_ext3_partition, edit_sif, filesystem_place, lock_partition, select_partition
from .images.window import Window, file_window
from .undo_file import UndoFile

if TYPE_CHECKING:
    from ..sif import Descriptor
    from ..sif import Stamp as SIFStamp
    from .images.reservation import OnSignatures

__all__ = ["CheckPlace", "ImageCheck", "open_for_check", "repair_stamp", "undo_check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPlace:
    """Where the filesystem is, and how its image is opened.

    ``partition``: of a SIF: "overlay" (the default), "root" or an ID. ``offset``: byte of a larger file where it begins.
    ``on_signatures``: refuse to break signatures, drop or keep those that break. ``require_lock``: fail if file locking is
    unavailable. ``stamp``: time of changes to the SIF itself.
    """

    partition: str | None = None
    offset: int | None = None
    on_signatures: OnSignatures = "refuse"
    require_lock: bool = False
    stamp: SIFStamp | None = None


@dataclass(slots=True)
class ImageCheck:
    """Image that is open for a check.

    ``locked`` False: file locking is unavailable (None: no lock is taken, as nothing is written). ``users``: who may write to
    the image while it is looked at, "" for no one. ``notes``: for the user; ``dropped``: IDs of signatures that were removed.
    """

    path: str
    window: Window
    device: BlockDevice
    locked: bool | None = None
    users: str = ""
    notes: list[str] = field(default_factory=list)
    dropped: tuple[int, ...] = ()
    _watch: ChangeWatch | None = None
    _decide: Callable[[bool], None] = lambda writes: None
    _written: bool = False

    @property
    def partition(self) -> Descriptor | None:
        """Partition of a SIF that it is."""
        return self.window.partition

    @property
    def written(self) -> bool:
        """True if something was written to the image."""
        return self._written

    def check_writable(self) -> None:
        """Raise SignedError if a write would break signatures that are to be kept."""
        if not self._written:
            self._decide(False)

    def prepare_write(self) -> None:
        """Decide about signatures that a write breaks, before the first one. Raises SignedError, with nothing written."""
        if not self._written:
            self._decide(True)
            self._written = True

    def changed_meanwhile(self) -> bool:
        """Return True if another process wrote to the image since it was opened for looking."""
        return self._watch is not None and self._watch.changed()

    def run(
        self,
        policy: Policy,
        *,
        options: CheckOptions | None = None,
        stamp: Stamp | None = None,
        undo: HostPath | None = None,
        progress: Callable[[int, int, int], None] | None = None,
        begin: Callable[[str], None] | None = None,
        observe: Callable[[Finding], None] | None = None,
    ) -> Report:
        """Check the image as ``ext3.fsck.check`` does. ``undo``: name of a new file that takes what is overwritten.

        The undo file is made before the first write, and only if there is one. Raises what the check does, NotReplaceableError
        if the undo file exists, TargetError if it cannot be written; what was not saved is not overwritten then.
        """
        stamp = stamp or Stamp.now()
        with ExitStack() as stack:
            device = self.device
            recorder: UndoRecorder | None = None
            if policy.writes:
                device = _FirstWrite(device, self.prepare_write)
            if undo is not None and policy.writes:
                # Signatures are dropped when the undo file is there, and a refusal leaves no undo file.
                recorder = UndoRecorder(device, stack.enter_context(UndoFile(undo)), made=stamp.seconds)
                device = _FirstWrite(recorder, self.check_writable)
            stack.enter_context(named_errors(self.path))
            report = check(device, policy, options=options, stamp=stamp, progress=progress, begin=begin, observe=observe)
            if recorder is not None:
                with hostio.signals_deferred():
                    recorder.finish()
        return report


class _FirstWrite:
    """BlockDevice that calls ``prepare`` before the first change of ``base``."""

    def __init__(self, base: BlockDevice, prepare: Callable[[], None]) -> None:
        self.base = base
        self._prepare = prepare
        self._prepared = False

    @property
    def size(self) -> int:
        return self.base.size

    def read(self, offset: int, size: int) -> bytes:
        return self.base.read(offset, size)

    def data_ranges(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        return data_ranges(self.base, offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._before()
        self.base.write(offset, data)

    def make_zero(self, offset: int, size: int) -> None:
        self._before()
        self.base.make_zero(offset, size)

    def _before(self) -> None:
        if not self._prepared:
            self._prepare()
            self._prepared = True

    def sync(self) -> None:
        self.base.sync()


@contextmanager
def open_for_check(path: HostPath, place: CheckPlace | None = None, *, writes: bool) -> Iterator[ImageCheck]:
    """Open the image at ``path`` for a check; locked if it ``writes``, else read-only, also while others use it.

    Raises OSError, FormatError for what is no ext3 image, UsageError, and if it writes ImageInUseError, and SifkitError without
    a lock that is required.
    """
    place = place or CheckPlace()
    name = os.fsdecode(path)
    partition, offset = filesystem_place(name, place.partition, place.offset)
    if not writes:
        with open_window(name, partition, offset=offset) as window:
            watch = ChangeWatch(window, ImageState.of(window), lambda: None)
            users = watch.users()
            yield ImageCheck(name, window, window.device(), users=users.describe() if users.busy else "", _watch=watch)
    elif partition is not None:
        with _open_partition(name, partition, place) as opened:
            yield opened
    else:
        fd, locked = open_for_edit(name, require_lock=place.require_lock)
        try:
            window = file_window(name, fd, place.offset)
            yield ImageCheck(name, window, window.device(), locked)
        finally:
            os.close(fd)


@contextmanager
def _open_partition(name: str, partition: str, place: CheckPlace) -> Iterator[ImageCheck]:
    from .images.reservation import apply_signature_policy  # with the SIF library

    with edit_sif(name, stamp=place.stamp, require_lock=place.require_lock) as edited:
        sif = edited.sif
        found = select_partition(sif, partition, name)
        check_ext3_partition(sif, edited.fd, found, name)
        locked = lock_partition(edited.fd, name, found, write=True, require_lock=place.require_lock)
        window = Window(name, edited.fd, found.offset, found.size, found)
        opened = ImageCheck(name, window, window.device(), locked)

        def decide(writes: bool) -> None:
            what = f"changing object {found.id}"
            policy = place.on_signatures
            decision = apply_signature_policy(sif, name, what, policy, old=found, group=found.group or 1)
            if not writes:
                return
            if decision.dropped:
                sif.delete(decision.dropped)
            opened.dropped = decision.dropped
            opened.notes += decision.notes

        opened._decide = decide
        yield opened


def repair_stamp(device: BlockDevice, seconds: int | None) -> Stamp:
    """Return time and identity for repairs: now and random ones, or of the time ``seconds`` and of the image alone."""
    if seconds is None:
        return Stamp.now()
    raw = device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE) if device.size >= SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE else b""
    digest = sha256(repr(seconds).encode() + raw).digest()
    identity, seed = UUID(bytes=digest[:16], version=4), UUID(bytes=digest[16:], version=4)
    return Stamp(seconds, identity.bytes, seed.bytes, 1 + int.from_bytes(digest[:3], "little"))


def undo_check(undo: HostPath, path: HostPath, place: CheckPlace | None = None) -> tuple[UndoResult, ImageCheck]:
    """Put the image at ``path`` back as it was before the check that made the file ``undo``.

    Raises UndoError if the file is of another image or the image was changed since, and what ``open_for_check`` does.
    """
    name = os.fsdecode(undo)
    fd = os.open(name, os.O_RDWR | hostio.NO_WAIT)
    try:
        if not hostio.is_regular(fd):
            raise FormatError(f"{show(name)} is not a regular file", path=name, hint="give the undo file of a check")
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            raise UsageError(f"{show(name)} is the image itself", hint="give the undo file, then the image")
        with open_for_check(path, place, writes=True) as opened, named_errors(name):
            log = FileDevice(fd)
            device = _FirstWrite(opened.device, opened.prepare_write)
            with hostio.signals_deferred():
                return put_back(log, device), opened
    finally:
        os.close(fd)
