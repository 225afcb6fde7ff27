"""One directory block, record by record: each fault reported, and repaired or left as the policy says.

This is the careful way; ``directories`` sends plainly sound blocks past it. A block that it changes is written at once.
Source: e2fsprogs ``e2fsck/pass2.c`` (check_dir_block, check_dot, check_dotdot, check_name, check_filetype).
"""

from __future__ import annotations

from typing import NamedTuple

from ..constants import ROOT_INO, FileType
from ..errors import DeviceError
from ..format.dirent import DOT_REC_LEN_MAX, DOTS
from ..format.dirent_block import DOT_REC_LEN
from ..format.inode import file_type_of
from ..format.schema import DIRENT
from .bad_inodes import judge_bad_inode
from .context import Context
from .directory_holes import new_block
from .problem import Place, Problem
from .problems import directories as problems
from .salvage import is_damaged, salvage_record

__all__ = ["BlockPlace", "check_block", "file_type_wanted", "load_block"]

HEAD = DIRENT.size
_unpack = DIRENT.packer.unpack_from
_pack_into = DIRENT.packer.pack_into

TYPE_NAMES = {
    FileType.UNKNOWN: "unknown",
    FileType.REGULAR: "file",
    FileType.DIRECTORY: "directory",
    FileType.CHARACTER: "character device",
    FileType.BLOCK: "block device",
    FileType.FIFO: "FIFO",
    FileType.SOCKET: "socket",
    FileType.SYMLINK: "symlink",
}


class BlockPlace(NamedTuple):
    """Block of a directory."""

    ino: int
    logical: int
    block: int


def load_block(context: Context, place: BlockPlace) -> bytes | None:
    """Return a block; an empty one, which is also written, if it cannot be read. None if that repair was refused."""
    try:
        return context.read(place.block)
    except DeviceError:
        if not context.fix(problems.BLOCK_UNREADABLE, Place(ino=place.ino, block=place.block, logical=place.logical)):
            return None
    data = new_block(context, place.ino, place.logical)
    context.write(place.block, data)
    return data


def check_block(context: Context, place: BlockPlace, data: bytes) -> tuple[bytes, list[bytes]]:
    """Check a block of a directory in use. Return it as it is then, and its names without ``.`` and ``..``.

    Every name that stays is counted in the census, ``..`` is not; ``parent`` and ``dotdot`` are noted.
    """
    block = _Block(context, place, data)
    block.check()
    if block.changed:
        data = bytes(block.data)
        context.write(place.block, data)
    return data, block.names


def file_type_wanted(context: Context, ino: int) -> int:
    """Return the file type of an entry for an inode."""
    if not context.superblock.has_filetype:
        return 0
    return file_type_of(int(context.census.mode[ino]))


class _Block:
    """State of the check of one block. ``dots``: which of ``.`` (0) and ``..`` (1) comes next, 2: neither."""

    def __init__(self, context: Context, place: BlockPlace, data: bytes) -> None:
        self.context = context
        self.ino, self.logical, self.block = place
        self.data = bytearray(data)
        self.changed = False
        self.names: list[bytes] = []
        self._inodes = context.superblock.inodes_count
        self._first_ino = context.superblock.first_ino
        self._dots = 2 if self.logical else 0
        self._offset = 0

    def check(self) -> None:
        data, size = self.data, len(self.data)
        before = -1
        while self._offset < size:
            offset = self._offset
            if is_damaged(data, offset):
                place = Place(ino=self.ino, block=self.block, logical=self.logical, offset=offset)
                if not self.context.fix(problems.RECORD_DAMAGED, place):
                    return
                taker = before if self._dots == 2 or size - offset < DOT_REC_LEN else -1
                self._offset = salvage_record(data, offset, taker, inodes=self._inodes)
                self.changed = True
                continue
            if self._dots == 2:
                self._entry()
            elif self._dots == 0:
                self._dot()
                self._dots = 1
            else:
                self._dotdot()
                self._dots = 2
            before = offset
            self._offset += self._record()[1]

    # -- the record at the offset ----------------------------------------------------------------------------------

    def _record(self) -> tuple[int, int, int, int]:
        ino, rec_len, name_len, file_type = _unpack(self.data, self._offset)
        return ino, rec_len, name_len, file_type

    def _name(self) -> bytes:
        start = self._offset + HEAD
        return bytes(self.data[start : start + self._record()[2]])

    def _set(self, ino: int, rec_len: int, name_len: int, file_type: int) -> None:
        _pack_into(self.data, self._offset, ino, rec_len, name_len, file_type)
        self.changed = True

    def _set_ino(self, ino: int) -> None:
        _, rec_len, name_len, file_type = self._record()
        self._set(ino, rec_len, name_len, file_type)

    def _where(self, ino: int | None = None) -> Place:
        """The record's place: of an entry for inode ``ino``, or of a record that should be ``.`` or ``..``."""
        name = self._name()
        if ino is None:
            return Place(ino=self.ino, block=self.block, logical=self.logical, offset=self._offset, name=name)
        return Place(ino=ino, block=self.block, logical=self.logical, offset=self._offset, name=name, parent=self.ino)

    # -- . and .. --------------------------------------------------------------------------------------------------

    def _dot(self) -> None:
        context = self.context
        problem = self._dot_problem(problems.DOT_MISSING, problems.DOT_NOT_FIRST, problems.DOT_NOT_TERMINATED)
        made = problem is not None and context.fix(problem, self._where())
        if made:
            self._write_dot(self.ino)
        found = self._record()[0]
        if found != self.ino and context.fix(problems.DOT_INODE, self._where(), got=found, want=self.ino):
            self._set_ino(self.ino)
        rec_len = self._record()[1]
        if rec_len > DOT_REC_LEN_MAX and (made or context.fix(problems.DOT_LONG, self._where(), got=rec_len)):
            self._split_dot(rec_len)
        found = self._record()[0]
        if not self._possible(found):
            return  # '.' was not to be repaired
        judge_bad_inode(context, found, directory=self.ino, name=DOTS[0])
        self._check_type(found)
        context.census.names[found] += 1

    def _split_dot(self, rec_len: int) -> None:
        """Cut the record of ``.``. What is behind it stays as it is if it looks like ``..``, else it is an unused record."""
        ino, _, name_len, file_type = self._record()
        self._set(ino, DOT_REC_LEN, name_len, file_type)
        behind = self._offset + DOT_REC_LEN
        if not self.data.startswith(DOTS[1] + b"\0", behind + HEAD):
            _pack_into(self.data, behind, 0, rec_len - DOT_REC_LEN, 0, 0)

    def _dotdot(self) -> None:
        context = self.context
        problem = self._dot_problem(problems.DOTDOT_MISSING, problems.DOTDOT_NOT_SECOND, problems.DOTDOT_NOT_TERMINATED)
        if problem is not None:
            if context.fix(problem, self._where()):
                self._write_dot(ROOT_INO)
            return
        found = self._record()[0]
        if not self._possible(found):
            if context.fix(problems.DOTDOT_INODE, self._where(), got=found):
                self._set_ino(ROOT_INO)
            return
        if judge_bad_inode(context, found, directory=self.ino, name=DOTS[1]):
            self._set_ino(ROOT_INO)
            return
        if not context.census.mode[found]:
            if context.fix(problems.DOTDOT_UNUSED, self._where(), got=found):
                self._set_ino(ROOT_INO)
            return
        context.dotdot[self.ino] = found
        if context.census.is_dir(found):
            self._check_type(found)

    def _dot_problem(self, missing: Problem, other: Problem, not_terminated: Problem) -> Problem | None:
        name = DOTS[self._dots]
        if not self._record()[0]:
            return missing
        if self._name() != name:
            return other
        return not_terminated if self.data[self._offset + HEAD + len(name)] else None

    def _write_dot(self, ino: int) -> None:
        name = DOTS[self._dots]
        file_type = FileType.DIRECTORY if self.context.superblock.has_filetype else 0
        self._set(ino, self._record()[1], len(name), file_type)
        start = self._offset + HEAD
        self.data[start : start + DOT_REC_LEN - HEAD] = name.ljust(DOT_REC_LEN - HEAD, b"\0")

    # -- other entries ---------------------------------------------------------------------------------------------

    def _possible(self, ino: int) -> bool:
        """Return whether a file may have this inode."""
        return ino == ROOT_INO or self._first_ino <= ino <= self._inodes

    def _entry(self) -> None:
        """Check an entry that is not one of the first two; count its name if it stays."""
        ino = self._record()[0]
        if not ino:
            return
        context = self.context
        problem = self._link_problem(ino)
        if problem is not None:
            if context.fix(problem, self._where(ino)):
                self._set_ino(0)
                return
            if not self._possible(ino):
                return
        if judge_bad_inode(context, ino, directory=self.ino, name=self._name()):
            self._set_ino(0)
            return
        if not context.census.mode[ino] and context.fix(problems.ENTRY_UNUSED, self._where(ino)):
            self._set_ino(0)
            return
        self._check_name(ino)
        self._check_type(ino)
        if context.census.is_dir(ino) and ino not in (ROOT_INO, self.ino):
            parent = int(context.parent[ino])
            if not parent:
                context.parent[ino] = self.ino
            elif context.fix(problems.ENTRY_DIRECTORY_LINK, self._where(ino), got=parent):
                self._set_ino(0)
                return
        context.census.names[ino] += 1
        self.names.append(self._name())

    def _link_problem(self, ino: int) -> Problem | None:
        """Return what is wrong with where the record leads, or with its name as a whole."""
        name = self._name()
        if ino == self.ino and name not in DOTS:
            return problems.ENTRY_SELF
        if not self._possible(ino):
            return problems.ENTRY_INODE
        if name == DOTS[0]:
            return problems.ENTRY_DOT
        if name == DOTS[1]:
            return problems.ENTRY_DOTDOT
        if ino == ROOT_INO:
            return problems.ENTRY_ROOT
        return None if name else problems.ENTRY_NAME_EMPTY

    def _check_name(self, ino: int) -> None:
        name = self._name()
        if b"/" not in name and b"\0" not in name:
            return
        if not self.context.fix(problems.ENTRY_NAME, self._where(ino)):
            return
        name = name.replace(b"/", b".").replace(b"\0", b".")
        if name in DOTS:
            name = b"_" * len(name)
        start = self._offset + HEAD
        self.data[start : start + len(name)] = name
        self.changed = True

    def _check_type(self, ino: int) -> None:
        context = self.context
        _, rec_len, name_len, found = self._record()
        want = file_type_wanted(context, ino)
        if found == want:
            return
        if not context.superblock.has_filetype:
            problem = problems.ENTRY_TYPE_FEATURE
        else:
            problem = problems.ENTRY_TYPE if found else problems.ENTRY_TYPE_UNSET
        names = [TYPE_NAMES.get(FileType(number), "") if number in set(FileType) else str(number) for number in (found, want)]
        if context.fix(problem, self._where(ino), got=names[0], want=names[1]):
            self._set(ino, rec_len, name_len, want)
