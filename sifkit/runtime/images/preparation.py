"""Preparation of an ext3 image before a run uses it: resize finished, filesystem checked, journal replayed, marks replaced.

It is done in a process of its own, which alone loads numpy, on a descriptor that is locked for writing: from the lock to the
mount nobody else can take the image. Most images need nothing of it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from ...errors import SifkitError, counted, show
from .. import sys
from ..errors import LaunchError
from .image_place import ImagePlace, replaced_note

if TYPE_CHECKING:
    from ext3.device.base import FileDevice
    from ext3.edit.filesystem import WritableFilesystem

__all__ = ["HostDiskFullError", "moved_error", "prepare"]

FULL = (errno.ENOSPC, errno.EDQUOT)


class HostDiskFullError(LaunchError):
    """Image with holes whose disk has no room for what its journal holds. It is as it was, and can be read."""


def moved_error(name: str) -> LaunchError:
    """Return the error for a layer with marks that overlayfs does not follow."""
    return LaunchError(
        f"{name} has redirects or metacopies, which the kernel does not follow here: it cannot be written to",
        hint="it can be read: with :ro, or without --writable",
    )


def prepare(fd: int, place: ImagePlace, *, check: bool = False, normalize: bool = False, search_moved: bool = False) -> str:
    """Finish what was begun in an image, replay its journal, and leave it clean. Return a note; "" if there is none.

    ``check``: repair it first as ``fsck -p`` does. ``normalize``: replace marks that root's overlayfs does not know. Raises
    LaunchError with the command that helps if something is left to decide, and with ``search_moved`` if upper/ has redirects
    or metacopies; HostDiskFullError.
    """
    report, answer = os.pipe2(os.O_CLOEXEC)
    pid = sys.fork()
    if pid == 0:
        os.close(report)
        _prepare_in_child(partial(_prepare, fd, place, check=check, normalize=normalize, search_moved=search_moved), answer)
    os.close(answer)
    try:
        with open(report, "rb") as file:
            raw = file.read()
    finally:
        os.waitpid(pid, 0)  # also after Ctrl-C, which it has got as well: it has the lock
    found = json.loads(raw or b'{"error": "the check has ended without an answer"}')
    if "full" in found:
        raise HostDiskFullError(f"{place.name}: {found['full']}", hint="free space on its disk, or read it only, with :ro")
    if "error" in found:
        raise LaunchError(f"{place.name}: {found['error']}", hint=found.get("hint") or f"check it with: {place.fsck('-fn')}")
    return str(found["note"])


def _prepare_in_child(work: Callable[[], str], answer: int) -> NoReturn:
    found: dict[str, str]
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        found = {"note": work()}
    except LaunchError as error:
        found = {"error": error.message, "hint": error.hint}
    except KeyboardInterrupt:
        found = {"error": "interrupted"}
    except Exception as error:  # noqa: BLE001 - the process ends here, and the parent reports it
        text = str(error) if isinstance(error, OSError | SifkitError) or _is_ext3_error(error) else repr(error)
        found = {"full" if getattr(error, "errno", None) in FULL else "error": text}
    try:
        with open(answer, "wb") as file:  # a path in a hostile image may be longer than a pipe takes at once
            file.write(json.dumps(found).encode())
    finally:
        os._exit(0)


def _is_ext3_error(error: Exception) -> bool:
    from ext3.errors import Ext3Error

    return isinstance(error, Ext3Error)


def _prepare(fd: int, place: ImagePlace, *, check: bool, normalize: bool, search_moved: bool) -> str:
    from ext3 import hostio
    from ext3.device.base import FileDevice
    from ext3.edit.filesystem import WritableFilesystem

    from ...overlay.resizing.unfinished_resize import finish_resize
    from ...vfs.upper_view import find_upper

    device = FileDevice(fd, place.offset, place.size)
    with hostio.signals_deferred():
        finish_resize(device)
    note = _check(device, place) if check else ""
    with hostio.signals_deferred():
        filesystem = WritableFilesystem(device)
        try:
            upper = find_upper(filesystem)
            if search_moved and upper is not None and _has_moved(filesystem, upper):
                raise moved_error(place.name)
            if normalize and upper is not None:
                from ...overlay.marks.normalizing import normalize_filesystem

                plan = normalize_filesystem(filesystem, None)
                note = replaced_note(place.name) if plan.directories else note
            filesystem.close()
        except BaseException:
            filesystem.abandon()
            raise
    return note


def _check(device: FileDevice, place: ImagePlace) -> str:
    from ext3.fsck.checking import check
    from ext3.fsck.policy import Preen
    from ext3.newfs.stamp import Stamp

    report = check(device, Preen(), stamp=Stamp.now())
    if not report.clean:
        found = report.stopped or next((one for one in report.findings if not one.repaired), None)
        reason = report.gave_up or (show(found.message) if found is not None else "it has faults")
        raise LaunchError(f"the check has met what needs a decision: {reason}", hint=f"repair it with: {place.fsck()}")
    return f"{place.name}: the check has made {counted(report.corrected, 'repair')}" if report.corrected else ""


def _has_moved(filesystem: WritableFilesystem, upper: int) -> bool:
    from ...vfs.file_tree import is_directory
    from ...vfs.walk import walk
    from ...vfs.whiteouts import has_whiteout_xattr, is_metacopy, is_redirected

    for walked in walk(filesystem, upper):
        if walked.row.may_have_xattrs:
            names = filesystem.xattrs(walked.row.node)
            is_moved = is_redirected(names) if is_directory(walked.row) else is_metacopy(names) or has_whiteout_xattr(names)
            if is_moved:
                return True
    return False
