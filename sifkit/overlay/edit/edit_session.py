"""Edit session of an image: checks who else uses it, takes Apptainer's locks, handles signatures, commits or rolls back.

An image with a journal is changed in place. One without a journal is changed as a copy, which is renamed over it at the end;
inside a SIF it is changed in place, with its valid flag cleared until the end. A container is changed in its highest layer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ext3 import hostio
from ext3.device.base import FileDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import Ext3Error
from ext3.format.superblock import read_superblock
from ext3.hostio import HostPath

from ...atomic import AtomicFile
from ...errors import HostFullError, UsageError
from ...file_attributes import keep_attributes
from ...file_locks import lock_range
from ...host_space import full_host_errors
from ...replacing import OpenedFile
from ...vfs.file_tree import FileTree
from ..images.image_format import image_kind
from ..images.locked_file import copy_data, open_for_edit
from ..images.opening import named_errors
from ..images.sif_partition import check_ext3_partition, edit_sif, filesystem_place, lock_partition, select_partition
from ..images.window import Window, check_window, file_window
from ..resizing.unfinished_resize import finish_resize
from ..view.overlay_argument import OverlayArgument
from .edit_target import open_edit_target
from .upper_edit import OverlayEditor

if TYPE_CHECKING:
    from ...sif import Stamp
    from ..images.reservation import OnSignatures

__all__ = ["EditOptions", "EditSession", "edit_image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditOptions:
    """Options of an edit session.

    ``partition``: of a SIF: "overlay", "root" or an ID. ``offset``: byte of a larger file where the filesystem begins.
    ``upper``: names are those a container sees, below upper/. ``overlays``: above the image; then, and in a SIF without all
    these, names are those of the container, and its highest writable layer is changed. ``lower``: of an overlay, the layers
    below it, the lowest first.
    ``on_signatures``: refuse to break signatures, drop or keep those that break. ``require_lock``: fail if file locking is
    unavailable. ``stamp``: time of changes to the SIF itself. ``check``: called with the editor before any change; an error it
    raises leaves the image as it is.
    """

    partition: str | None = None
    offset: int | None = None
    upper: bool = False
    overlays: Sequence[OverlayArgument] = ()
    lower: Sequence[FileTree[Any]] | None = None
    on_signatures: OnSignatures = "refuse"
    require_lock: bool = False
    stamp: Stamp | None = None
    check: Callable[[OverlayEditor], None] | None = None


@dataclass(slots=True)
class EditSession:
    """Image that is open for changes.

    ``copied``: it has no journal; a copy is changed and renamed at the end. ``locked`` False: file locking is unavailable.
    ``notes``: for the user. ``dropped``: IDs of removed signatures. ``object_id``: of the partition, in a SIF.
    """

    path: str
    editor: OverlayEditor
    locked: bool = True
    copied: bool = False
    notes: tuple[str, ...] = ()
    dropped: tuple[int, ...] = field(default=())
    object_id: int | None = None

    @property
    def name(self) -> str:
        """Name for messages: the file's, with the object of a SIF."""
        return self.path if self.object_id is None else f"{self.path}, object {self.object_id}"

    @property
    def filesystem(self) -> WritableFilesystem:
        return self.editor.filesystem

    def sync(self) -> None:
        """Commit the changes so far to storage (of a copy: to the copy)."""
        with hostio.signals_deferred():
            self.filesystem.sync()


@contextmanager
def edit_image(path: HostPath, options: EditOptions | None = None) -> Iterator[EditSession]:
    """Open and lock the ext3 image at ``path``, or in a SIF there, and commit the changes at the end of the block.

    An exception in the block rolls back what was not synced and leaves the image clean. Raises ImageInUseError,
    NoWritableLayerError, FormatError, SignedError, UsageError, OSError if the file cannot be written, and Ext3Error.
    """
    options = options or EditOptions()
    name = os.fsdecode(path)
    if options.overlays and options.upper:
        hint = "leave out --upper: with --overlay the paths are the container's"
        raise UsageError("--upper and --overlay contradict each other", hint=hint)
    if options.overlays or _is_whole_sif(name, options):
        with open_edit_target(name, options.partition, offset=options.offset, overlays=options.overlays) as target:
            inside = replace(options, partition=target.partition, offset=None, overlays=(), lower=target.lower)
            with named_errors(target.path), edit_image(target.path, inside) as edited:
                yield edited
        return
    partition, _ = filesystem_place(name, options.partition, options.offset)
    if partition is not None:
        with _edit_partition(name, partition, options) as edited:
            yield edited
        return
    with _edit_file(name, options) as edited:
        yield edited


def _is_whole_sif(name: str, options: EditOptions) -> bool:
    """Return True for a SIF of which no part is named, so that what a container sees is meant."""
    is_part = options.partition is not None or options.offset is not None or options.upper
    return not is_part and not os.path.isdir(name) and image_kind(name) == "sif"


@contextmanager
def _edit_file(name: str, options: EditOptions) -> Iterator[EditSession]:
    fd, locked = open_for_edit(name, require_lock=options.require_lock)
    try:
        window = file_window(name, fd, options.offset)
        check_window(window)
        with named_errors(name, options.offset):
            superblock = read_superblock(window.device())
        if superblock.has_journal:
            with _open_writable(window, options) as editor:
                yield EditSession(name, editor, locked)
            return
        with _working_copy(window, options) as (editor, notes):
            yield EditSession(name, editor, locked, copied=True, notes=notes)
    finally:
        os.close(fd)


@contextmanager
def _working_copy(window: Window, options: EditOptions) -> Iterator[tuple[OverlayEditor, tuple[str, ...]]]:
    """Open a copy of the image file, which replaces it at the end of the block; yield also notes on what the copy lacks."""
    name, fd, found = window.path, window.fd, os.fstat(window.fd)
    with AtomicFile(name, stat.S_IMODE(found.st_mode)) as file:
        try:
            with full_host_errors(name, hostio.allocated_bytes(found)):
                if not hostio.clone_file(fd, file.fd):
                    copy_data(name, fd, file.fd, found.st_size, None)
        except HostFullError as error:
            error.hint = "free some space there: an image without a journal is changed as a copy"
            raise
        notes = keep_attributes(fd, file.fd)
        # The copy is locked before it gets the name, so that no other process can open it unlocked.
        lock_range(file.fd, write=True, path=name)
        with _open_writable(window._replace(fd=file.fd), options) as editor:
            yield editor, notes
        file.commit(OpenedFile(fd, found))


@contextmanager
def _edit_partition(name: str, partition: str, options: EditOptions) -> Iterator[EditSession]:
    from ..images.reservation import apply_signature_policy  # with the SIF library

    with edit_sif(name, stamp=options.stamp, require_lock=options.require_lock) as edited:
        sif = edited.sif
        found = select_partition(sif, partition, name)
        check_ext3_partition(sif, edited.fd, found, name)
        what = f"changing object {found.id}"
        decision = apply_signature_policy(sif, name, what, options.on_signatures, old=found, group=found.group or 1)
        locked = lock_partition(edited.fd, name, found, write=True, require_lock=options.require_lock)
        window = Window(name, edited.fd, found.offset, found.size, found)
        check_window(window)
        with ExitStack() as stack:
            # Opened first: an image that cannot be changed keeps its signatures.
            editor = stack.enter_context(_open_writable(window, options))
            if decision.dropped:
                sif.delete(decision.dropped)
            yield EditSession(name, editor, locked, notes=decision.notes, dropped=decision.dropped, object_id=found.id)


@contextmanager
def _open_writable(window: Window, options: EditOptions) -> Iterator[OverlayEditor]:
    """Open the filesystem in ``window``; commit at the end, or roll back to the last sync if the block fails."""
    device = window.device()
    filesystem: WritableFilesystem | None = None
    try:
        with hostio.signals_deferred():
            finish_resize(device)
            filesystem = WritableFilesystem(device)
        editor = OverlayEditor(filesystem, path=window.path, upper=options.upper, lower=options.lower)
        if options.check is not None:
            options.check(editor)
        yield editor
        with hostio.signals_deferred():
            filesystem.close()
    except BaseException:
        if filesystem is not None:
            with hostio.signals_deferred():
                _roll_back(filesystem, device)
        raise


def _roll_back(filesystem: WritableFilesystem, device: FileDevice) -> None:
    """Roll back what was not synced. Opening the image again replays or drops an interrupted commit and frees orphans."""
    with suppress(Ext3Error, OSError):
        filesystem.abandon()
    with suppress(Ext3Error, OSError):
        superblock = read_superblock(device)
        if superblock.needs_recovery or superblock.last_orphan:
            WritableFilesystem(device).close()
