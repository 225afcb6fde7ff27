"""Damage ext3 images at random, and see that reading and changing them gives data or a clear error.

    python tools/fuzz_ext3.py [--count N] [--seed N] [--first N] [IMAGE...]

Every mutant is walked and read, now and then extracted to a directory, and opened for changes: files are made, written,
cut, moved and removed, it is synced, closed and read again. Anything but one of this project's errors, a read or write
outside the image, metadata that moved, more than 128 MiB of memory, or more than five seconds of the processor is a
failure: the mutant is written to a file and the exit code is 1. Without images, some are made that have
structures of every kind.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import product
from pathlib import Path

import ext3
from ext3.constants import FileType
from ext3.device.base import MemoryDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import DeviceError, Ext3Error
from ext3.format.schema import GROUP_DESC, SUPERBLOCK
from ext3.format.superblock import Superblock, read_superblock
from ext3.read.directory_scan import read_directories
from ext3.read.inode_scan import read_facts
from sifkit.vfs.errors import DamagedTreeError
from sifkit.vfs.extracting import extract
from sifkit.vfs.host_writer import supported
from tests.support.operations import ImageTree, Paths
from tests.support.random_operations import RandomOperations

__all__ = ["main", "try_image"]

MEMORY_BYTES = 128 << 20
SECONDS = 5
PART = 64 << 10
MOST_ENTRIES = 3000
EXTRACTED = 0.02
"""Share of the mutants that are extracted too: the host's work takes longest."""
FIXED = ("s_inodes_count", "s_blocks_count", "s_first_data_block", "s_log_block_size", "s_blocks_per_group",
         "s_inodes_per_group", "s_magic", "s_rev_level", "s_first_ino", "s_inode_size", "s_journal_inum")  # fmt: skip
ATTRIBUTES = (b"trusted.t", b"security.s")
"""Names of attributes that the samples have."""
PLACES = ("bg_block_bitmap", "bg_inode_bitmap", "bg_inode_table")
MODEST = 40
"""Operations tried on one mutant at most."""


class Watched(MemoryDevice):
    """An image in memory. Whoever leaves it did not check a number: that is a failure, not an error of the device."""

    def read(self, offset: int, size: int) -> bytes:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise AssertionError(f"read of {size} bytes at {offset}, of {self.size}")
        return super().read(offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if offset < 0 or offset + len(data) > self.size:
            raise AssertionError(f"write of {len(data)} bytes at {offset}, of {self.size}")
        super().write(offset, data)


class Trial:
    """One mutant. ``errors`` counts the kinds of Ext3Error that came."""

    def __init__(self, data: bytes, chance: random.Random) -> None:
        self.data = data
        self.chance = chance
        self.errors: set[str] = set()

    @contextmanager
    def typed(self) -> Iterator[None]:
        """Only the kinds of Ext3Error and DamagedTreeError may come out, with one line that says something."""
        try:
            yield
        except DeviceError as error:
            raise AssertionError(f"an error of a device that works: {error}") from error
        except (Ext3Error, DamagedTreeError) as error:
            if not str(error) or "\n" in str(error) or "\n" in error.hint:
                raise AssertionError(f"a message of no line, or of several: {error!r}") from error
            self.errors.add(type(error).__name__)

    def read(self) -> None:
        """Everything a reader can ask for."""
        fs = None
        with self.typed():
            fs = ext3.Filesystem(Watched(self.data))
        if fs is None:
            return
        self._look(fs)
        if supported() and self.chance.random() < EXTRACTED:
            with tempfile.TemporaryDirectory() as scratch, self.typed():
                extract(fs, Path(scratch, "out"), owners=False)

    def _look(self, fs: ext3.Filesystem) -> list[tuple[bytes, ext3.Entry]]:
        found: list[tuple[bytes, ext3.Entry]] = []
        with self.typed():
            for item in fs.walk(onerror=self._note):
                found.append(item)
                if len(found) >= MOST_ENTRIES:
                    break
        for path, entry in found[:300]:
            self._look_at(fs, path, entry)
        self._look_at_many(fs, [entry for _, entry in found])
        for group in range(min(fs.superblock.groups_count, 8)):
            for look in (fs.block_bitmap, fs.inode_bitmap, fs.inode_table):
                with self.typed():
                    look(group)
        with self.typed():
            fs.journal_superblock()
        with self.typed():
            fs.lookup("/long")
        return found

    def _look_at(self, fs: ext3.Filesystem, path: bytes, entry: ext3.Entry) -> None:
        looks: list[Callable[[int], object]] = [fs.stat, fs.xattrs, fs.data_extents]
        for look in looks:
            with self.typed():
                look(entry.ino)
        if entry.file_type is FileType.SYMLINK:
            with self.typed():
                fs.readlink(entry.ino)
        elif entry.file_type is FileType.REGULAR:
            with self.typed(), fs.open_file(entry.ino) as file:
                for at in (0, max(0, file.size - PART), self.chance.randrange(file.size + 1)):
                    file.seek(at)
                    file.read(PART)
        if len(path) < 100:
            with self.typed():
                fs.lookup(path, follow=False)

    def _look_at_many(self, fs: ext3.Filesystem, entries: list[ext3.Entry]) -> None:
        """What is read in columns is what is read one by one."""
        directories = [2, *(entry.ino for entry in entries if entry.file_type is FileType.DIRECTORY)]
        for ino, together in zip(directories, read_directories(fs, directories), strict=False):
            if together is not None and together.entries != list(fs.scandir(ino)):
                raise AssertionError(f"directory {ino} reads otherwise alone")
        inos = [entry.ino for entry in entries[:300]]
        for ino, facts in zip(inos, read_facts(fs, inos)[0], strict=True):
            if not isinstance(facts, OSError) and facts != fs.stat(ino):
                raise AssertionError(f"inode {ino} reads otherwise alone")

    def _note(self, error: Ext3Error) -> None:
        with self.typed():
            raise error

    def edit(self) -> None:
        """Changes of all kinds; what they leave is read again, and changed again."""
        device = Watched(self.data)
        fixed: object = None
        for _ in range(2):
            with self.typed():
                fs = ext3.Filesystem.open(device, "r+", clock=lambda: 1_700_000_100 * 10**9)
                fixed = fixed or _fixed(device, fs.superblock)
                with closing(fs):
                    self._change(fs)
                if _fixed(device, read_superblock(device)) != fixed:
                    raise AssertionError("metadata is not where it was")
        with self.typed():
            self._look(ext3.Filesystem(device))

    def _change(self, fs: WritableFilesystem) -> None:
        """Random operations on what a walk finds, and some of the calls that follow symbolic links."""
        chance = self.chance
        found, directories, files = [b"/d", b"/large"], [b""], [b"/large"]
        with self.typed():
            for path, entry in fs.walk(onerror=self._note):
                found.append(b"/" + path)
                if entry.file_type in (FileType.DIRECTORY, FileType.REGULAR):
                    (directories if entry.file_type is FileType.DIRECTORY else files).append(b"/" + path)
                if len(found) >= MODEST * 4:
                    break
        paths = Paths(found, directories, files, attributes=list(product(found, ATTRIBUTES)))
        image = ImageTree(fs)
        operations = RandomOperations(
            chance, lambda: paths, block_size=fs.superblock.block_size, largest=30_000, phases=("any",)
        )  # fmt: skip
        for _ in range(chance.randrange(5, MODEST)):
            path = chance.choice(found)
            offset = chance.choice([0, 10_000, 300_000, 1 << 27, 1 << 31])
            calls: list[Callable[[], object]] = [
                fs.sync,
                partial(fs.write_bytes, path, chance.randbytes(chance.choice([1, 1000, 5000, 30_000]))),
                partial(fs.truncate, path, offset),
                partial(fs.punch_hole, path, offset // 2, chance.choice([1, 5000, 1 << 32])),
            ]
            with self.typed():
                if chance.random() < 0.2:
                    chance.choice(calls)()
                else:
                    image.run(operations.next())
        with self.typed():
            fs.sync()
        for file in image.held:
            with self.typed():
                file.close()


def _fixed(device: MemoryDevice, superblock: Superblock) -> object:
    """What no edit may change: the geometry, and where the metadata of the groups lies."""
    row = SUPERBLOCK.record(device.read(1024, SUPERBLOCK.size))
    blocks = {superblock.geometry.descriptor_block(index) for index in range(superblock.geometry.descriptor_blocks)}
    size = superblock.block_size
    tables = [GROUP_DESC.view(device.read(block * size, size), size // GROUP_DESC.size) for block in sorted(blocks)]
    return [row[name] for name in FIXED], [table[name].tolist() for table in tables for name in PLACES]


def try_image(data: bytes, chance: random.Random) -> str:
    """Read and change a mutant; how that went in a few words. Whatever is raised but Ext3Error is a failure."""
    trial = Trial(data, chance)
    trial.read()
    read = "+".join(sorted(trial.errors)) or "fine"
    trial.errors.clear()
    trial.edit()
    return f"read {read}; " + (
        "changed" if not trial.errors & {"NotExt3Error", "NeedsCheckError", "UnsupportedError"} else "refused"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit code."""
    from .ext3_mutants import mutate, sample_of, samples
    from .fuzzing import fuzz, options_of

    options = options_of("Damage ext3 images, read and change them.", arguments)
    made = [sample_of(path.read_bytes()) for path in options.images] or samples()
    for number, sample in enumerate(made):
        try_image(sample.data, random.Random(number))
    return fuzz("fuzz-ext3", made, mutate, try_image, options, memory_bytes=MEMORY_BYTES, seconds=SECONDS)


if __name__ == "__main__":
    # Run as a script: the same modules as for an import.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tools.fuzz_ext3 import main as run

    sys.exit(run())
