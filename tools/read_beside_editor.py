"""Commands that read an image while another process edits it: what they give is of one state, or they say that it may not be.

    python -m tools.read_beside_editor [--seconds N] [--seed N] [COMMAND...]

An editor writes all files of an image with the number of a generation, pauses, and begins again: in sessions as ours, with the
lock or without, or by another file under the same name. Meanwhile one command after the other reads it. An exit code of success
with nothing on standard error promises files as they were at one time. On a fault the output is kept and the exit code is 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import ext3
from sifkit.overlay.edit.edit_session import edit_image

__all__ = ["COMMANDS", "EDITORS", "main"]

SIFKIT = (sys.executable, "-m", "sifkit")
FILES = 12
RECORD = 8
SIZE = 90_000 // RECORD * RECORD
Content = dict[str, bytes]


class Fault(Exception):
    """A torn result without a word about it."""


def content_of(generation: int) -> bytes:
    """The content of a file in a generation: its number, again and again."""
    return b"%08d" % generation * (SIZE // RECORD)


def _write(path: Path, generation: int, chance: random.Random) -> None:
    """All files, with a sync and a pause here and there."""
    with ext3.Filesystem.open(path, "r+") as fs:
        for number in range(FILES):
            fs.write_bytes(f"/upper/f{number}", content_of(generation))
            if chance.random() < 0.2:
                fs.sync()
                time.sleep(chance.random() / 10)


def edit_unlocked(path: Path, generation: int, chance: random.Random) -> None:
    """As a process that takes no lock, for example fuse2fs."""
    _write(path, generation, chance)


def edit_locked(path: Path, generation: int, chance: random.Random) -> None:
    """As our commands."""
    with edit_image(path) as edited:
        for number in range(FILES):
            edited.filesystem.write_bytes(f"/upper/f{number}", content_of(generation))
            if chance.random() < 0.2:
                edited.filesystem.sync()


def edit_copy(path: Path, generation: int, chance: random.Random) -> None:
    """A copy is changed and renamed."""
    copy = path.with_name("copy.img")
    shutil.copyfile(path, copy)
    _write(copy, generation, chance)
    copy.rename(path)


EDITORS: dict[str, Callable[[Path, int, random.Random], None]] = {
    "unlocked": edit_unlocked,
    "locked": edit_locked,
    "replaced": edit_copy,
}


def _edit(path: Path, editor: str, seed: int, stop: Event) -> None:
    chance = random.Random(f"{seed} {editor}")
    generation = 0
    parent = os.getppid()
    while not stop.is_set() and os.getppid() == parent:
        generation += 1
        try:
            EDITORS[editor](path, generation, chance)
        except OSError:  # in use by a reader that holds it for a moment
            generation -= 1
        stop.wait(chance.choice((0, 0.3, 1.0, 2.0)) * chance.random())


def _from_tar(out: Path) -> Content:
    found: Content = {}
    with tarfile.open(out) as archive:
        for member in archive:
            if member.isfile():
                file = archive.extractfile(member)
                assert file is not None
                found[Path(member.name).name] = file.read()
    return found


def _from_directory(out: Path) -> Content:
    return {path.name: path.read_bytes() for path in out.rglob("f*") if path.is_file()}


def _from_image(directory: str) -> Callable[[Path], Content]:
    def read(out: Path) -> Content:
        with ext3.Filesystem.open(out) as fs:
            return {f"f{number}": fs.read_bytes(f"{directory}/f{number}") for number in range(FILES)}

    return read


def _from_diff(out: Path) -> Content:
    """``diff`` with the first generation names all files or none."""
    lines = out.read_text(encoding="utf-8").split("\n")
    changed = {line.split()[1].rpartition("/")[2] for line in lines if line.startswith("M ")}
    return {f"f{number}": content_of(int(f"f{number}" in changed)) for number in range(FILES)}


@dataclass(frozen=True, slots=True)
class Command:
    """``argv`` after ``sifkit``; ``read`` finds the files in ``out``, which is standard output if ``piped``, and is not there
    after a failure if ``whole``."""

    argv: tuple[str, ...]
    out: str
    read: Callable[[Path], Content]
    piped: bool = False
    whole: bool = False
    good: tuple[int, ...] = (0,)


COMMANDS = {
    "export": Command(("overlay", "export", "o.img", "-o", "x.tar"), "x.tar", _from_tar, whole=True),
    "export stream": Command(("overlay", "export", "o.img", "-o", "-"), "x.tar", _from_tar, piped=True),
    "export DIR": Command(("overlay", "export", "o.img", "-o", "x/"), "x", _from_directory),
    "extract": Command(("extract", "o.img", "-C", "x"), "x", _from_directory),
    "cp": Command(("cp", "-r", "o.img:/upper", "x"), "x", _from_directory),
    "cp within images": Command(("cp", "-r", "o.img:/upper", "x.img:/copy"), "x.img", _from_image("/copy")),
    "diff": Command(("diff", "o.img", "first.img"), "x.txt", _from_diff, piped=True, good=(0, 1)),
    "clone": Command(("overlay", "clone", "o.img", "x.img"), "x.img", _from_image("/upper"), whole=True),
}


def is_one_state(found: Content) -> bool:
    """Whole files of one generation; or, as the editor leaves it for a moment, the rest of the one before."""
    generations = [int(found[f"f{number}"][:RECORD] or b"-1") for number in range(FILES)]
    whole = all(found[f"f{number}"] == content_of(generation) for number, generation in enumerate(generations))
    return whole and generations == sorted(generations, reverse=True) and generations[0] - generations[-1] <= 1


def try_one(command: Command, work: Path) -> str:
    """Run one command; how it went. Raises Fault."""
    for path in work.glob("x*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if "x.img:/copy" in command.argv:
        shutil.copyfile(work / "empty.img", work / "x.img")
    done = subprocess.run(
        [*SIFKIT, *command.argv], cwd=work, capture_output=True, stdin=subprocess.DEVNULL, timeout=120, check=False
    )
    text = done.stderr.decode(errors="replace")
    if "Traceback" in text:
        raise Fault(f"a traceback: {text}")
    if done.returncode not in command.good:
        if not text.startswith("sifkit") and "changed" not in text and "in use" not in text:
            raise Fault(f"exit {done.returncode}: {text}")
        if command.whole and (work / command.out).exists():
            raise Fault(f"exit {done.returncode}, but {command.out} is there: {text}")
        return f"exit {done.returncode}"
    if "o.img" in text and any(word in text for word in ("changed", "in use", "may be", "may have")):
        return "a warning"
    if command.piped:
        (work / command.out).write_bytes(done.stdout)
    found = command.read(work / command.out)
    if set(found) != {f"f{number}" for number in range(FILES)}:
        raise Fault(f"files are missing: {sorted(found)}; {text}")
    if not is_one_state(found):
        kinds = {name: sorted({data[n : n + RECORD] for n in range(0, len(data), RECORD)}) for name, data in found.items()}
        raise Fault(f"a torn result, exit {done.returncode}: {kinds}; {text}")
    return "one state"


def _set_up(work: Path) -> None:
    subprocess.run([*SIFKIT, "overlay", "create", "--size", "12M", "o.img", "-q"], cwd=work, check=True)
    shutil.copyfile(work / "o.img", work / "empty.img")
    _write(work / "o.img", 0, random.Random(0))
    shutil.copyfile(work / "o.img", work / "first.img")


def _run(editor: str, names: Sequence[str], *, seed: int, seconds: float) -> bool:
    """Try the commands in turn beside one editor; print how they went. Return False on a fault."""
    outcomes: Counter[str] = Counter()
    work = Path(tempfile.mkdtemp(prefix=f"read-beside-{editor}-"))
    _set_up(work)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=_edit, args=(work / "o.img", editor, seed, stop))
    process.start()
    end = time.monotonic() + seconds
    kept = False
    try:
        while time.monotonic() < end and not kept:
            for name in names:
                try:
                    outcomes[f"{name}: {try_one(COMMANDS[name], work)}"] += 1
                except Fault as fault:
                    kept = True
                    print(f"editor {editor}, {name}: {fault}; kept as {work}", flush=True)
                    break
    finally:
        stop.set()
        process.join(30)
    if not kept:
        shutil.rmtree(work)
    print(f"editor {editor}:")
    for outcome, times in sorted(outcomes.items()):
        print(f"{times:8} {outcome}", flush=True)
    return not kept


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description="Read an image that another process edits.")
    parser.add_argument("--seconds", type=float, default=60, help="for each editor")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--editor", choices=EDITORS, action="append")
    parser.add_argument("commands", nargs="*", metavar="COMMAND")
    options = parser.parse_args(arguments)
    if unknown := set(options.commands) - set(COMMANDS):
        parser.error(f"no command {', '.join(sorted(unknown))}; there are {', '.join(COMMANDS)}")
    names = options.commands or list(COMMANDS)
    good = [_run(editor, names, seed=options.seed, seconds=options.seconds) for editor in options.editor or EDITORS]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
