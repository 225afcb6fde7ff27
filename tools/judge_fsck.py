"""Judge the check of ext3.fsck by the real e2fsck: both repair fresh copies of the same images, and each looks at the results.

    python -m tools.judge_fsck IMAGE... [--corpus] [--recipes [NAME...]] [--keep DIRECTORY] [-v]

For each image, which may be packed by gzip:

* look only (-fn): faults that e2fsck counts are found (it does not count those of the superblock), none on a sound image; no
  byte changes; at most a minute;
* repair all (-fy): the same exit code; e2fsck and our own check find nothing in the result; every file that e2fsck's result
  keeps is in ours, with the same type, size and content, under the same path or at least the same inode number;
* preen (-fp and -p): the same exit code (without force, 0 and 1 are taken for the same: e2fsck uses the copy of a damaged
  journal inode without a word); where it repairs, the result is clean; where it stops, what e2fsck -fy makes of the rest keeps
  the same files.

A sound image has to stay as it is, byte for byte, when it is looked at. The exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import ext3
from ext3.device.base import FileDevice
from ext3.errors import DeviceError, Ext3Error
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.finding import Report
from ext3.fsck.policy import CheckOnly, Policy, Preen, Yes
from ext3.read.file import FileReader

__all__ = ["Judgement", "contents", "e2fsck", "judge", "main", "unpack"]

MOST_SECONDS = 60
MORE_RUNS = 2
"""Runs of e2fsck -fy after one that left faults: what they delete, nobody has to keep."""
ERROR_CODES = 0xFF & ~2  # whether somebody should reboot is e2fsck's question about the host's own root
CORPUS = Path(os.environ.get("SIFKIT_CORPUS") or Path(__file__).parents[2] / "shared" / "corpus") / "e2fsprogs"
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
TOOL_ENVIRONMENT = {"PATH": _PATH, "LC_ALL": "C", "TZ": "GMT0", "E2FSCK_CONFIG": os.devnull, "HOME": tempfile.gettempdir()}
_READ_PART = 1 << 20
_ZEROS = bytes(_READ_PART)

_METADATA = re.compile(r"\(inode #(\d+)[^\n]*\n[^\n]*\n\s*<filesystem metadata>")
"""A file that claims a block of the filesystem's metadata: what is in its copy of that depends on the repairs before."""

Fact = tuple[int, int, int, str]
"""(inode, file type of the mode, size, hash of the content) of a file."""


@dataclass(slots=True)
class Judgement:
    """What both did to one image, by mode (``n``, ``y``, ``fp``, ``p``), and what differs."""

    name: str
    theirs: dict[str, int] = field(default_factory=dict)
    ours: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Lines in which e2fsck -fn complains of the image."""
    their_text: str = ""
    """Output of e2fsck -fy."""
    codes: list[str] = field(default_factory=list)
    """Codes of our findings with -fy, in their order."""
    seconds: float = 0.0

    def row(self) -> str:
        def columns(codes: dict[str, int]) -> str:
            return " ".join(f"{codes.get(mode, '?'):>3}" for mode in ("n", "y", "fp", "p"))

        what = "; ".join(self.differences) or "same"
        return f"{self.name:<34} {columns(self.theirs)}   {columns(self.ours)}  {self.seconds:5.1f}  {what}"


def _is_zero(part: bytes) -> bool:
    """Tell whether there are only zeros in at most ``_READ_PART`` bytes."""
    return part == _ZEROS[: len(part)]


def unpack(image: Path, target: Path) -> None:
    """Copy an image, unpacked if it is a gzip file; zero parts become holes."""
    with gzip.open(image) if image.suffix == ".gz" else image.open("rb") as source, target.open("wb") as file:
        while part := source.read(_READ_PART):
            if _is_zero(part):
                file.seek(len(part), os.SEEK_CUR)
            else:
                file.write(part)
        file.truncate(file.tell())


def e2fsck(image: Path, *options: str) -> tuple[int, str]:
    """Run e2fsck hermetically. Return (exit code, what it said)."""
    done = subprocess.run(
        ["e2fsck", *options, str(image)],
        env=TOOL_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "backslashreplace")


def settle(image: Path, most: int) -> None:
    """Let e2fsck -fy repair an image until it has nothing left to repair, in at most so many runs."""
    for _ in range(most):
        code, text = e2fsck(image, "-fy")
        if not code and "? yes" not in text and "CLEARED." not in text:  # it does not count every repair
            break


def complaints(code: int, text: str) -> list[str]:
    """Return the lines in which e2fsck -fn complains; its exit code alone is not enough."""
    lines = [line for line in text.splitlines() if "Fix?" in line or "wrong" in line or "? no" in line or "<n>" in line]
    return lines or ([f"exit {code}"] if code else [])


def same_exit(mine: int, theirs: int) -> bool:
    """Tell whether two exit codes say the same. Where e2fsck could not run, which it says along with what it had found until
    then, our check need not give up: its result is judged.
    """
    return mine in (0, 1, 8) if theirs & 8 else mine == theirs & ERROR_CODES


def ours(image: Path, policy: Policy, *, force: bool = True) -> tuple[int, Report | None, str]:
    """Run our check on a file. Return (exit code, report, the error that kept it from running)."""
    flags = os.O_RDWR if policy.writes else os.O_RDONLY
    fd = os.open(image, flags)
    try:
        report = check(FileDevice(fd), policy, options=CheckOptions(force=force))
        return report.exit_code, report, ""
    except DeviceError as error:
        return 8, None, f"{error}"
    except Ext3Error as error:
        return 8, None, f"{error}"
    finally:
        os.close(fd)


# -- what is kept --------------------------------------------------------------------------------------------------


def contents(image: Path) -> dict[bytes, Fact]:
    """Return all files of an image by their path. What cannot be read is left out."""
    try:
        with ext3.Filesystem.open(image) as fs:
            return dict(_facts(fs))
    except Ext3Error:
        return {}


def _facts(fs: ext3.Filesystem) -> Iterator[tuple[bytes, Fact]]:
    known: dict[int, Fact] = {}
    for path, entry in fs.walk(onerror=lambda error: None):
        if entry.ino not in known:
            try:
                known[entry.ino] = _fact(fs, entry.ino)
            except Ext3Error:
                continue
        yield path, known[entry.ino]


def _fact(fs: ext3.Filesystem, ino: int) -> Fact:
    facts = fs.stat(ino)
    digest, size = hashlib.sha256(), facts.size
    if facts.is_dir:
        size = 0  # a directory that was built again may be shorter
    elif facts.is_symlink:
        digest.update(fs.readlink(ino))
    elif facts.is_file:
        with fs.open_file(ino) as file:
            _hash_data(file, fs.superblock.block_size, digest)
    else:
        digest.update(str(facts.dev).encode())
    return ino, facts.mode >> 12, size, digest.hexdigest()


def _hash_data(file: FileReader, block_size: int, digest: hashlib._Hash) -> None:
    """Hash the blocks that hold anything but zeros, each with its place: a block of zeros is the same content as a hole."""
    for offset, length in file.data_ranges():
        for start in range(offset, offset + length, _READ_PART):
            part = file.read_at(start, min(_READ_PART, offset + length - start))
            for place in range(0, len(part), block_size):
                block = part[place : place + block_size]
                if not _is_zero(block):
                    digest.update((start + place).to_bytes(8, "little"))
                    digest.update(block)


def missing(theirs: dict[bytes, Fact], mine: dict[bytes, Fact], sound: dict[bytes, Fact]) -> Iterator[str]:
    """Yield what the first result keeps and the second has not, by path or at least by inode and content.

    ``sound``: files before the damage. One that is as it was then is not missing, whatever the first result has.
    """
    anywhere = set(mine.values())
    for path, fact in theirs.items():
        there = mine.get(path)
        if (there is not None and there[1:] in (fact[1:], sound.get(path, fact)[1:])) or fact in anywhere:
            continue
        name = path.decode("utf-8", "backslashreplace")
        if there is None:
            yield f"{name} (inode {fact[0]}) is missing"
        else:
            yield f"{name}: inode, type, size, content {there} and not {fact}"


# -- the judge -----------------------------------------------------------------------------------------------------


class _Case:
    """One image and the copies that are made of it."""

    def __init__(self, source: Path, name: str, scratch: Path, sound: dict[bytes, Fact]) -> None:
        self.scratch = scratch
        self.sound = sound
        self.image = scratch / "damaged.img"
        unpack(source, self.image)
        self.result = Judgement(name)
        self.their_code: int | None = None
        self.judged: set[bytes] = set()
        """Hashes of the results that were judged and are not judged again."""

    def copy(self, name: str) -> Path:
        target = self.scratch / f"{name}.img"
        unpack(self.image, target)
        return target

    def differ(self, text: str) -> None:
        self.result.differences.append(text)

    def step(self, name: str, act: Callable[[], None]) -> None:
        """Run one part; an exception that is no answer is a difference, too."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are judged
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.differ(f"{name}: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})")

    def run(self, mode: str, image: Path, policy: Policy, *, force: bool = True) -> Report | None:
        started = time.monotonic()
        code, report, error = ours(image, policy, force=force)
        taken = time.monotonic() - started
        self.result.ours[mode] = code
        if taken > MOST_SECONDS:
            self.differ(f"-{mode} took {taken:.0f} s")
        if error and not self.result.theirs[mode] & 8 and not self.result.theirs.get("y", 0) & 8:
            self.differ(f"-{mode}: {error}")
        return report

    # parts

    def look(self) -> None:
        copy = self.copy("n")
        code, text = e2fsck(copy, "-fn")
        self.result.theirs["n"] = code
        self.result.complaints = complaints(code, text)
        quiet = not self.result.complaints
        before = self.image.read_bytes()
        report = self.run("n", copy, CheckOnly())
        if copy.read_bytes() != before:
            self.differ("-n changed the image")
        harmless = self.their_repair()[1] == 0  # nothing but a log to replay, and orphans: our look includes these
        if code & ERROR_CODES and not self.result.ours["n"] and not harmless:
            self.differ("-n exit")
        if quiet and harmless and report is not None and report.left:
            self.differ(f"-n finds {next(iter(report.findings), 'something')} on a sound image")

    def their_repair(self) -> tuple[Path, int]:
        """Let e2fsck -fy repair a copy, once. Return the copy and the exit code."""
        if self.their_code is None:
            self.their_code, self.result.their_text = e2fsck(self.copy("theirs-y"), "-fy")
        return self.scratch / "theirs-y.img", self.their_code

    def repair(self) -> dict[bytes, Fact]:
        (their_image, code), our_image = self.their_repair(), self.copy("ours")
        self.result.theirs["y"] = code
        report = self.run("y", our_image, Yes())
        if report is not None:
            self.result.codes = [finding.code for finding in report.findings]
        hopeless = bool(complaints(*e2fsck(their_image, "-fn")))
        if hopeless:
            settle(their_image, MORE_RUNS)
        exit_code = self.result.ours["y"]
        if hopeless:
            self.result.theirs["y"] = code | 4
        if not code and "  CLEARED." in self.result.their_text:
            code = self.result.theirs["y"] = 1  # what is cleared in a pointer block alone, e2fsck does not count
        if not same_exit(exit_code, code) and not (hopeless and exit_code <= 1):
            self.differ(f"-y exit ({report.gave_up or report.left if report else ''})")
        kept = contents(their_image)
        if exit_code & 8:
            return kept
        if code & 8:
            kept.clear()  # e2fsck could not make anything of it
        self.judge_result("-y", our_image, kept)
        again = ours(our_image, CheckOnly())
        found = [finding for finding in again[1].findings if not finding.problem.note] if again[1] is not None else []
        if again[0] or found:
            self.differ(f"own second run: {again[2] or next(iter(found), again[0])}")
        return kept

    def judge_result(self, mode: str, image: Path, kept: dict[bytes, Fact]) -> None:
        found = hashlib.sha256(image.read_bytes()).digest()
        if found in self.judged:
            return
        self.judged.add(found)
        lines = complaints(*e2fsck(image, "-fn"))
        if lines:
            self.differ(f"{mode}: e2fsck still says: {lines[0]}" + (f" (+{len(lines) - 1})" if len(lines) > 1 else ""))
        copies = {int(ino) for ino in _METADATA.findall(self.result.their_text)}
        kept = {path: fact for path, fact in kept.items() if fact[0] not in copies}
        lost = list(missing(kept, contents(image), self.sound))
        if lost:
            self.differ(f"{mode} loses {len(lost)}: {lost[0]}")

    def preen(self, mode: str, kept: dict[bytes, Fact]) -> None:
        their_image, our_image = self.copy("theirs"), self.copy("ours")
        code, _ = e2fsck(their_image, f"-{mode}")
        self.result.theirs[mode] = code
        report = self.run(mode, our_image, Preen(), force="f" in mode)
        exit_code = self.result.ours[mode]
        hopeless = exit_code == 8 and self.result.theirs.get("y", 0) & 8
        unforced = mode == "p" and {exit_code, code} == {0, 1}
        if not same_exit(exit_code, code) and not (code & 8 and exit_code & 4) and not hopeless and not unforced:
            stop = f": stops at {report.stopped}" if report is not None and report.stopped else ""
            self.differ(f"-{mode} exit{stop}")
        if exit_code & 8 or self.result.theirs.get("y", 0) & 12:
            return
        if exit_code & 4 or mode == "p":
            if our_image.read_bytes() == self.image.read_bytes():
                return  # what e2fsck -fy makes of it is what ours is compared with
            settle(our_image, 1 + MORE_RUNS)
        elif complaints(*e2fsck(their_image, "-fn")):
            return
        self.judge_result(f"-{mode}", our_image, kept)


def judge(
    source: Path,
    scratch: Path,
    name: str = "",
    *,
    sound: dict[bytes, Fact] | None = None,
    preens: Sequence[str] = ("fp", "p"),
) -> Judgement:
    """Judge one image; ``scratch`` is a directory for copies of it.

    ``sound``: its files before the damage, if known. ``preens``: modes of safe repairs, besides ``n`` and ``y``.
    """
    case = _Case(source, name or source.name, scratch, sound or {})
    started = time.monotonic()
    kept: dict[bytes, Fact] = {}
    case.step("-n", case.look)
    case.step("-y", lambda: kept.update(case.repair()))
    for mode in preens:
        case.step(f"-{mode}", partial(case.preen, mode, kept))
    case.result.seconds = time.monotonic() - started
    return case.result


def main(argv: Sequence[str] | None = None) -> int:
    from .corrupt import RECIPES, damaged
    from .sound_images import BASES, base_image

    parser = argparse.ArgumentParser(prog="python -m tools.judge_fsck", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("images", nargs="*", metavar="IMAGE", type=Path)
    parser.add_argument("--corpus", action="store_true", help=f"all images of {CORPUS}")
    parser.add_argument("--recipes", nargs="*", metavar="NAME", help="damage by recipes of tools/corrupt.py: these, or all")
    parser.add_argument("--keep", metavar="DIRECTORY", type=Path, help="keep the damaged images that differ")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what e2fsck -y said, and our findings")
    options = parser.parse_args(argv)
    failed = count = 0
    print(f"{'image':<34} e2fsck: n y fp p   ours: n y fp p   sec  differences")
    with tempfile.TemporaryDirectory(prefix="judge-") as directory:
        scratch = Path(directory)

        def jobs() -> Iterator[tuple[str, Path]]:
            yield from ((image.name, image) for image in options.images)
            if options.corpus:
                yield from ((image.parent.name, image) for image in sorted(CORPUS.glob("*/image.gz")))
            if options.recipes is not None:
                for name in options.recipes or [name for name in RECIPES if not RECIPES[name].apart]:
                    made = scratch / "recipe.img"
                    made.write_bytes(damaged(RECIPES[name]))
                    yield name, made
                for base in BASES if not options.recipes else ():
                    made = scratch / "recipe.img"
                    made.write_bytes(base_image(base))
                    yield f"sound {base}", made

        for name, image in jobs():
            result = judge(image, scratch, name)
            count += 1
            failed += bool(result.differences)
            print(result.row(), flush=True)
            if options.verbose:
                print(result.their_text, *(f"    {code}" for code in result.codes), sep="\n")
            if result.differences and options.keep:
                options.keep.mkdir(exist_ok=True, parents=True)
                shutil.copyfile(scratch / "damaged.img", options.keep / f"{name}.img")
    print(f"{count} images, {failed} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
