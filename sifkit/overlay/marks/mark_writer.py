"""Writer of marks: the changes that ``mark_plan`` has for a directory, in an order in which each step is valid by itself.

The changes of a directory are one operation if the journal holds them; else one for each name, new marks before old ones are
removed. Whiteouts are hard links to a few devices, as the kernel makes them, so that they take no inodes. Directories keep
their modification times, which a container sees.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ext3.constants import LINK_MAX, S_IFCHR
from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import JournalFullError

from .mark_plan import DirectoryMarks

__all__ = ["MarkWriter"]


class MarkWriter:
    """Writer of marks in a filesystem. Whiteouts belong to the owner of the directory ``top``."""

    def __init__(self, filesystem: WritableFilesystem, top: int) -> None:
        self._filesystem = filesystem
        owner = filesystem.stat(top)
        self._owner = (owner.uid, owner.gid)
        self._device: tuple[int, int] | None = None
        """Inode of the device that further whiteouts are links to, and its number of links."""

    def write(self, directory: int, marks: DirectoryMarks) -> None:
        """Make the changes in a directory. Raises NoSpaceError, NoInodesError, CorruptError and DeviceError."""
        steps = self._steps(directory, marks)
        mtime = self._filesystem.stat(directory).mtime

        def run(chosen: list[Callable[[], None]], device: tuple[int, int] | None) -> None:
            self._device = device  # an operation may run twice
            for step in chosen:
                step()
            self._filesystem.set_attributes(directory, mtime=mtime)

        before = self._device
        try:
            self._filesystem.atomically(partial(run, steps, before))
        except JournalFullError:
            self._device = before
            for step in steps:
                self._filesystem.atomically(partial(run, [step], self._device))

    def _steps(self, directory: int, marks: DirectoryMarks) -> list[Callable[[], None]]:
        filesystem = self._filesystem
        return [
            *(partial(self._add_whiteout, directory, name) for name in marks.hide),
            *(partial(filesystem.set_xattr, directory, name, b"y") for name in marks.set_xattrs),
            *(partial(filesystem.unlink_at, directory, name) for name in marks.remove),
            *(partial(filesystem.remove_xattr, directory, name) for name in marks.remove_xattrs),
        ]

    def _add_whiteout(self, directory: int, name: bytes) -> None:
        if self._device is None or self._device[1] >= LINK_MAX:
            uid, gid = self._owner
            self._device = (self._filesystem.mknod_at(directory, name, S_IFCHR, uid=uid, gid=gid), 1)
        else:
            ino, links = self._device
            self._filesystem.link_at(ino, directory, name)
            self._device = (ino, links + 1)
