"""Check of data: every block and fragment decompressed to its right length, in threads, in the order of the image.

Files with the same content share their blocks. Other files share nothing: each byte of the image is decompressed once, whatever
the inodes of a damaged or hostile image say.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import counted
from .block_threads import for_each
from .check_report import CheckReport, SquashfsProblemCode
from .check_tree import CheckedTree
from .data_blocks import BlockCache, DataBlock, stored_bytes, wrong_length
from .errors import CorruptSquashfsError
from .file_data import BlockList
from .inode import Inode
from .reader import Reader

__all__ = ["check_data"]

JOB_BYTES = 1 << 20
"""Most bytes of the image that are read at once, unless a block has more."""


class _Owner(NamedTuple):
    """Owner of blocks: a file, by its inode's number, or a fragment."""

    ino: int = 0
    fragment: int = -1


class _Job(NamedTuple):
    """Blocks that lie together, each with its owner. The length of a fragment is the least it may have."""

    blocks: list[DataBlock]
    owners: list[_Owner]


def check_data(reader: Reader, tree: CheckedTree, report: CheckReport, *, threads: int, data_start: int) -> int:
    """Check all data blocks; return their number. ``data_start``: first byte of the image that can be data."""
    check = _DataCheck(reader, tree, report, data_start)
    for_each(check.jobs(), check.run, threads)
    check.report_fragments()
    return check.count


class _DataCheck:
    """Check of the blocks, in jobs that threads take."""

    def __init__(self, reader: Reader, tree: CheckedTree, report: CheckReport, data_start: int) -> None:
        self.count = 0
        self._reader = reader
        self._tree = tree
        self._report = report
        self._blocks: BlockCache = reader.data
        self._high = data_start
        """End of the data that is checked, or in a job."""
        self._damaged_fragments: dict[int, OSError] = {}
        self._damaged_files: set[int] = set()

    # Which blocks there are: called by one thread at a time

    def jobs(self) -> Iterator[_Job]:
        """Iterate over all blocks, by their place in the image."""
        job = _Job([], [])
        size = 0
        for block, owner in self._owned_blocks():
            stored = stored_bytes(block.word)
            if job.blocks and (
                size + stored > JOB_BYTES or block.start != job.blocks[-1].start + stored_bytes(job.blocks[-1].word)
            ):
                yield job
                self._report.advance(size)
                job, size = _Job([], []), 0
            job.blocks.append(block)
            job.owners.append(owner)
            self.count += 1
            size += stored
        if job.blocks:
            yield job
            self._report.advance(size)

    def _owned_blocks(self) -> Iterator[tuple[DataBlock, _Owner]]:
        """Iterate over the blocks of files and fragments; blocks that several files share are given once."""
        starts, owner_of = self._first_bytes()
        longest, most = _Owner(), -1
        """Owner of the most blocks among those that begin at the byte ``previous``."""
        previous = -1
        for number in sorted(range(len(starts)), key=starts.__getitem__):
            if starts[number] != previous:
                previous, most = starts[number], -1
            owner, count = owner_of(number), 0
            try:
                known = self._blocks_of(longest) if most >= 0 else iter(())
                for block in self._blocks_of(owner):
                    count += 1
                    shared = next(known, None)
                    if shared is None:
                        self._check_place(block)
                        yield block, owner
                    elif shared != block:
                        raise _overlap(block.start, "the same as another file's, which begins there")
            except OSError as error:
                self._add_error(owner, error)
            if count > most:
                longest, most = owner, count

    def _first_bytes(self) -> tuple[array[int], _OwnerOf]:
        """Return where the data of each file and then of each fragment begins, and who they are."""
        starts = array("Q", self._tree.file_starts)
        fragments = array("I")
        for index in range(len(self._tree.fragment_ends)):
            try:
                starts.append(self._reader.fragment(index).start)
            except OSError as error:
                self._add_error(_Owner(fragment=index), error)
            else:
                fragments.append(index)
        return starts, _OwnerOf(self._tree.file_inos, fragments)

    def _blocks_of(self, owner: _Owner) -> Iterator[DataBlock]:
        """Iterate over the stored blocks of a file or a fragment. Raises CorruptSquashfsError and OSError."""
        if owner.fragment >= 0:
            start, word = self._reader.fragment(owner.fragment)
            yield DataBlock(start, word, self._tree.fragment_ends[owner.fragment])
            return
        unit = self._blocks.block_size
        inode: Inode = self._reader.inode(self._tree.node(owner.ino))
        for first, words, starts in BlockList(self._reader.inodes.table, inode).segments():
            for number, (start, word) in enumerate(zip(starts, words, strict=True), first):
                if word:
                    yield DataBlock(start, word, min(unit, inode.size - number * unit))

    def _check_place(self, block: DataBlock) -> None:
        """Check that a block lies behind all others so far, and before the tables. Raises CorruptSquashfsError."""
        start, word, _ = block
        self._blocks.check(start, word)
        end = start + stored_bytes(word)
        if start < self._high:
            raise _overlap(start, f"behind byte {self._high}, where the one before ends")
        if end > self._reader.superblock.inode_table_start:
            raise _overlap(
                start, f"one that ends before byte {self._reader.superblock.inode_table_start}, where the tables begin"
            )
        self._high = end

    # What is in them: called by several threads

    def run(self, job: _Job) -> None:
        """Decompress blocks and compare their lengths."""
        blocks, begin = job.blocks, job.blocks[0].start
        end = blocks[-1].start + stored_bytes(blocks[-1].word)
        try:
            raw = memoryview(self._reader.source.read_at(begin, end - begin))
        except OSError as error:
            for owner in dict.fromkeys(job.owners):
                self._add_error(owner, error)
            return
        for (start, word, length), owner in zip(blocks, job.owners, strict=True):
            at = start - begin
            try:
                found = len(self._blocks.decompress(raw[at : at + stored_bytes(word)], start, word))
                if owner.fragment >= 0 and found < length:
                    raise wrong_length(start, found, f"at least {length}, as its files need")
                if owner.fragment < 0 and found != length:
                    raise wrong_length(start, found, length)
            except OSError as error:
                self._add_error(owner, error)

    def _add_error(self, owner: _Owner, error: OSError) -> None:
        """Report an error of a file, one for each file; keep one of a fragment until its files are known."""
        if owner.fragment >= 0:
            self._damaged_fragments.setdefault(owner.fragment, error)
        elif owner.ino not in self._damaged_files:
            self._damaged_files.add(owner.ino)
            code = _code_of(error, SquashfsProblemCode.DATA)
            self._report.add_error(code, error, path=self._tree.path(owner.ino))

    def report_fragments(self) -> None:
        """Report damaged fragments, each with the first of its files."""
        if not self._damaged_fragments:
            return
        files: dict[int, tuple[int, int]] = {}
        for ino, reference in enumerate(self._tree.references):
            if reference:
                try:
                    index = self._reader.inode(reference - 1).fragment_index
                except OSError:  # reported
                    continue
                if index is not None and index in self._damaged_fragments:
                    first, count = files.get(index, (ino, 0))
                    files[index] = first, count + 1
        for index, error in sorted(self._damaged_fragments.items()):
            first, count = files.get(index, (0, 0))
            prefix = f"fragment {index}, with data of {counted(count, 'file')}: "
            path = self._tree.path(first) if first else None
            self._report.add_error(_code_of(error, SquashfsProblemCode.FRAGMENT), error, path=path, prefix=prefix)


def _overlap(start: int, want: str) -> CorruptSquashfsError:
    return CorruptSquashfsError("data block", "place", "inside other data", want, offset=start)


def _code_of(error: OSError, code: SquashfsProblemCode) -> SquashfsProblemCode:
    overlaps = isinstance(error, CorruptSquashfsError) and error.field == "place"
    return SquashfsProblemCode.OVERLAP if overlaps else code


class _OwnerOf:
    """Owners by their number: files, then fragments."""

    def __init__(self, files: array[int], fragments: array[int]) -> None:
        self._files = files
        self._fragments = fragments

    def __call__(self, number: int) -> _Owner:
        if number < len(self._files):
            return _Owner(ino=self._files[number])
        return _Owner(fragment=self._fragments[number - len(self._files)])
