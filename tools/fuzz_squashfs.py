"""Damage squashfs images at random, and see that reading them gives data or a clear error.

    python tools/fuzz_squashfs.py [--count N] [--seed N] [--first N] [IMAGE...]

Every mutant is walked whole: Stats one by one and many together, names, targets, attributes, content; some are checked. What is
raised that is not an error of this project is a failure, and so are a read outside the image, a Stat that is not the same both
ways, a check that misses what could not be read, more than 64 MiB of memory, and more than two seconds of the processor. The
mutant is written to a file then, and the exit code is 1. Without images, those of fixtures/squashfs are damaged.
"""

from __future__ import annotations

import errno
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sifkit.errors import SifkitError
from sifkit.squashfs.checking import SquashfsProblem, check_squashfs
from sifkit.squashfs.reader import Reader
from sifkit.vfs.file_tree import Row
from sifkit.vfs.walk import walk
from tools.squashfs_mutants import MemorySource

__all__ = ["FIXTURES", "main", "try_image"]

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "squashfs"
MEMORY_BYTES = 64 << 20
SECONDS = 2
MOST_FILES, MOST_READ = 3000, 400
CHECKED = 0.2
"""Share of the mutants that are checked, too."""
PART = 1 << 16
ANOTHER_TYPE = (errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
"""What is said of a file that is not what its directory entry says."""


class Trial:
    """One mutant, and the names of the errors it raises."""

    def __init__(self, data: bytes, chance: random.Random) -> None:
        self.data = data
        self.chance = chance
        self.errors: set[str] = set()

    @contextmanager
    def typed(self) -> Iterator[None]:
        """A block that may raise errors of this project, each with a text of one line."""
        try:
            yield
        except SifkitError as error:
            if not str(error) or "\n" in str(error) or "\n" in error.hint or not isinstance(error, OSError) or not error.errno:
                raise AssertionError(f"a message of no line, or of several, or no errno: {error!r}") from error
            self.errors.add(type(error).__name__)
        except OSError as error:
            if error.errno not in ANOTHER_TYPE:
                raise
            self.errors.add("another type")

    def read(self) -> None:
        """Everything a reader can ask for."""
        reader = None
        with self.typed():
            reader = Reader(MemorySource(self.data))
        if reader is None:
            return
        rows: list[Row[int]] = []
        with self.typed():
            for _, row, _, _ in walk(reader, reader.root, on_problem=self._note):
                rows.append(row)
                if len(rows) >= MOST_FILES:
                    break
        files = list({row.node: row for row in rows}.values())[:MOST_READ]
        for row in files:
            self._look_at(reader, row)
        self._load(reader, [row.node for row in files])
        for directory in [reader.root, *(row.node for row in rows if row.file_type == 2)][:50]:
            self._find(reader, directory)
        with self.typed():
            assert reader.exports.count in (0, reader.superblock.inodes)
        if self.chance.random() < CHECKED:
            self._check(reader)

    def _check(self, reader: Reader) -> None:
        """Whatever a reader does not get, the check says. What it says is one line."""
        problems: list[SquashfsProblem] = []
        check_squashfs(reader, on_problem=problems.append, threads=1)
        if self.errors and not problems:
            raise AssertionError(f"the check finds nothing, and reading raised {self.errors}")
        for problem in problems:
            if not problem.text or "\n" in problem.text:
                raise AssertionError(f"a problem of no line, or of several: {problem!r}")

    def _note(self, path: bytes, error: OSError) -> None:
        with self.typed():
            raise error

    def _look_at(self, reader: Reader, row: Row[int]) -> None:
        if isinstance(row.stat, OSError):
            self._note(b"", row.stat)
            return
        found = None
        with self.typed():
            found = reader.stat(row.node)
        if found is not None and found != row.stat:
            raise AssertionError(f"{row.name!r} has another Stat alone")
        with self.typed():
            if dict(reader.xattrs(row.node)) and not row.may_have_xattrs:
                raise AssertionError(f"{row.name!r} has attributes")
        if row.file_type == 7:
            with self.typed():
                reader.readlink(row.node)
        elif row.file_type == 1:
            with self.typed(), reader.open_file(row.node) as file:
                for at in (0, max(0, file.size - PART), self.chance.randrange(file.size + 1)):
                    data = file.read_at(at, PART)
                    if len(data) != min(PART, file.size - at):
                        raise AssertionError(f"{len(data)} bytes at {at} of {file.size}")
                file.data_ranges()
                file.host_ranges()

    def _load(self, reader: Reader, nodes: list[int]) -> None:
        for order in (True, False):
            seen = 0
            for loaded in reader.load_many(nodes, keep_order=order):
                seen += 1
                for found in (loaded.stat, loaded.xattrs, loaded.content):
                    if isinstance(found, OSError):
                        self._note(b"", found)
            if seen != len(nodes):
                raise AssertionError(f"{seen} files loaded, of {len(nodes)}")

    def _find(self, reader: Reader, directory: int) -> None:
        """Every name of a listing is found, where the search needs no index."""
        with self.typed():
            listing = reader.listing(directory)
            for entry in listing.entries[:5]:
                with self.typed():
                    found = reader.find_name(directory, entry.name)
                    if found != entry.node and not reader.inode(directory).index_count:
                        raise AssertionError(f"{entry.name!r} is not found")
            reader.find_name(directory, b"no such name")


def try_image(data: bytes, chance: random.Random) -> str:
    """Read a mutant; how that went in a few words. Whatever is raised but this project's errors is a failure."""
    trial = Trial(data, chance)
    trial.read()
    return "+".join(sorted(trial.errors)) or "fine"


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit code."""
    from .fuzzing import fuzz, options_of
    from .squashfs_mutants import mutate, sample_of

    options = options_of("Damage squashfs images and read them.", arguments)
    paths = options.images or sorted(FIXTURES.glob("*.sqfs"))
    made = [sample_of(path.read_bytes()) for path in paths]
    for number, sample in enumerate(made):
        if (outcome := try_image(sample.data, random.Random(number))) != "fine":
            raise AssertionError(f"{paths[number]} is damaged: {outcome}")
    return fuzz("fuzz-squashfs", made, mutate, try_image, options, memory_bytes=MEMORY_BYTES, seconds=SECONDS)


if __name__ == "__main__":
    # Run as a script: the same modules as for an import.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tools.fuzz_squashfs import main as run

    sys.exit(run())
