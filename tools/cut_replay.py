"""Commands that write are cut at every write, and what is left is judged: the old content or the new, and nothing else.

    python -m tools.cut_replay [--seconds N] [--seed N] [--list] [SCENARIO...]

Each scenario runs one sifkit command under strace, in a directory of its own. From the record come the directories that a crash
could leave: after every call, the last write in part, writes that were not synced lost. In each, e2fsck replays the journal of
an ext3 image and must find nothing else, twice; debugfs and our reader find every file as it was before or after. A SIF image
opens with the old or the new objects, also after the recovery that opening it for writing is, and ``sif check`` finds nothing
after ``--repair --cut``. On a fault the image is kept and the exit code is 1. ``--seconds`` is for each scenario; 0: no limit.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .debugfs_tree import read_debugfs
from .diff_tree import read_sifkit
from .strace_record import Record, crashes, files_of, play, record

__all__ = ["SCENARIOS", "Scenario", "main", "run_scenario"]

SIFKIT = (sys.executable, "-m", "sifkit")
SETUP = "the set-up"


class Fault(Exception):
    """What no crash may leave."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """``command`` follows ``sifkit``; ``prepare`` are commands before it; ``target`` is the image that is changed. ``moved``:
    the file that an overlay of the target, a SIF image, is moved to or from: it is in one of both at any time."""

    command: tuple[str, ...]
    prepare: tuple[tuple[str, ...], ...] = ()
    target: str = "o.img"
    moved: str = ""


CREATE = ("overlay", "create", "--size", "4M", "o.img")
FILL = ("cp", "-r", "tree", "o.img:/upper/tree")
NEW_SIF = ("sif", "new", "i.sif")
ADD = tuple(("sif", "add", "--datatype", "generic", "--name", name, "i.sif", name) for name in ("small", "large", "middle"))

SCENARIOS = {
    "cp": Scenario(("cp", "large", "o.img:/upper/large"), (CREATE,)),
    "cp over": Scenario(("cp", "-f", "large", "o.img:/upper/tree/new"), (CREATE, FILL)),
    "cp -r": Scenario(("cp", "-r", "tree", "o.img:/upper/second"), (CREATE, FILL)),
    "cp within": Scenario(("cp", "-a", "o.img:/upper/tree", "o.img:/upper/copy"), (CREATE, FILL)),
    "rm": Scenario(("rm", "o.img:/upper/tree/d/large"), (CREATE, FILL)),
    "rm -r": Scenario(("rm", "-r", "o.img:/upper/tree"), (CREATE, FILL)),
    "rm --upper": Scenario(("rm", "--upper", "-r", "o.img:/tree/d"), (CREATE, FILL)),
    "mv": Scenario(("mv", "o.img:/upper/tree/d", "o.img:/upper/moved"), (CREATE, FILL)),
    "mv over": Scenario(("mv", "o.img:/upper/tree/d/large", "o.img:/upper/tree/f1"), (CREATE, FILL)),
    "chmod": Scenario(("chmod", "-R", "700", "o.img:/upper/tree"), (CREATE, FILL)),
    "sif add": Scenario(("sif", "add", "--datatype", "generic", "i.sif", "large"), (NEW_SIF, *ADD), "i.sif"),
    "sif del": Scenario(("sif", "del", "2", "i.sif"), (NEW_SIF, *ADD), "i.sif"),
    "sif del last": Scenario(("sif", "del", "3", "i.sif"), (NEW_SIF, *ADD), "i.sif"),
    "sif del --zero": Scenario(("sif", "del", "--zero", "1", "2", "i.sif"), (NEW_SIF, *ADD), "i.sif"),
    "sif replace": Scenario(("sif", "replace", "2", "i.sif", "small"), (NEW_SIF, *ADD), "i.sif"),
    "sif replace larger": Scenario(("sif", "replace", "1", "i.sif", "large"), (NEW_SIF, *ADD), "i.sif"),
    "sif compact": Scenario(("sif", "compact", "i.sif"), (NEW_SIF, *ADD, ("sif", "del", "1", "i.sif")), "i.sif"),
    "sif new --force": Scenario(("sif", "new", "--force", "i.sif"), (NEW_SIF, *ADD), "i.sif"),
    "overlay create": Scenario(("overlay", "create", "--size", "4M", "--from-dir", "tree", "o.img")),
    "overlay create -F": Scenario(("overlay", "create", "-F", "--size", "4M", "--from-dir", "tree", "o.img"), (CREATE,)),
    "overlay create in SIF": Scenario(
        ("overlay", "create", "--size", "4M", "--from-dir", "tree", "i.sif"), (NEW_SIF, *ADD[:2]), "i.sif"
    ),
    "overlay attach": Scenario(("overlay", "attach", "i.sif", "o.img"), (NEW_SIF, *ADD[:2], CREATE, FILL), "i.sif"),
    "overlay attach --move": Scenario(
        ("overlay", "attach", "--move", "i.sif", "o.img"), (NEW_SIF, CREATE, FILL), "i.sif", "o.img"
    ),
    "overlay detach": Scenario(
        ("overlay", "detach", "i.sif", "-o", "d.img"),
        (NEW_SIF, *ADD[:2], CREATE, FILL, ("overlay", "attach", "i.sif", "o.img")),
        "i.sif",
        "d.img",
    ),
    "overlay attach --replace": Scenario(
        ("overlay", "attach", "--replace", "i.sif", "o.img"),
        (NEW_SIF, CREATE, ("overlay", "attach", "i.sif", "o.img"), FILL),
        "i.sif",
    ),
    "cp into SIF": Scenario(
        ("cp", "--partition", "overlay", "large", "i.sif:/upper/large"),
        (NEW_SIF, CREATE, ("overlay", "attach", "i.sif", "o.img")),
        "i.sif",
    ),
    "overlay trim": Scenario(("overlay", "trim", "o.img"), (CREATE, FILL, ("rm", "-r", "o.img:/upper/tree/d"))),
    "overlay tune": Scenario(("overlay", "tune", "--reserved-blocks", "1", "o.img"), (CREATE, FILL)),
    "overlay chown": Scenario(("overlay", "chown", "7:8", "o.img"), (CREATE, FILL)),
    "xattr set": Scenario(("xattr", "set", "user.k", "v", "o.img:/upper/tree/f3"), (CREATE, FILL)),
    "ln": Scenario(("ln", "o.img:/upper/tree/f3", "o.img:/upper/hard"), (CREATE, FILL)),
    "mkdir -p": Scenario(("mkdir", "-p", "o.img:/upper/a/b/c"), (CREATE, FILL)),
    "clone": Scenario(("overlay", "clone", "o.img", "c.img"), (CREATE, FILL), "c.img"),
}
"""By name. Files of the set-up: small, middle, large, and tree with directories."""


def _set_up(top: Path) -> None:
    (top / "small").write_bytes(b"small\n")
    (top / "middle").write_bytes(b"middle" * 2000)
    (top / "large").write_bytes(random.Random(1).randbytes(150_000))
    (top / "tree" / "d").mkdir(parents=True)
    (top / "tree" / "empty").mkdir()
    for number in range(12):
        (top / "tree" / f"f{number}").write_bytes(b"%d" % number * (10 + 700 * number))
    (top / "tree" / "new").write_bytes(b"x")
    shutil.copyfile(top / "large", top / "tree" / "d" / "large")
    (top / "tree" / "d" / "link").symlink_to("large")


def _run(top: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=top, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False
    )


def _e2fsck(image: Path) -> None:
    """The journal and the orphans are all that there is to repair."""
    first = _run(image.parent, "e2fsck", "-fp", image.name)
    if first.returncode & ~1:
        raise Fault(f"e2fsck -fp exits {first.returncode}: {first.stdout}{first.stderr}")
    second = _run(image.parent, "e2fsck", "-fn", image.name)
    if second.returncode or any(word in second.stdout for word in ("Fix?", "wrong", "<n>", "? no")):
        raise Fault(f"e2fsck -fn exits {second.returncode}: {second.stdout}{second.stderr}")


Content = dict[bytes, tuple[object, ...]]


def _tree(image: Path, judge: str) -> Content:
    """What is compared of every path: all but times, block maps, numbers of links and values of attributes."""
    facts = read_debugfs(image) if judge == "debugfs" else read_sifkit(image)
    return {
        path: (fact.kind, fact.mode, fact.uid, fact.gid, fact.size, fact.target, fact.digest, sorted(fact.xattrs))
        for path, fact in facts.items()
        if path.split(b"/")[0] != b"lost+found"
    }


def _objects(image: Path) -> Content:
    """Objects of a SIF image; those with an ext3 filesystem by number alone: their content has a judge of its own."""
    from sifkit.sif import SIF, FSType

    found: Content = {}
    with SIF.open(image) as sif:
        for item in sif:
            fs_type = getattr(item.metadata, "fs_type", None)
            data = b"" if fs_type == FSType.EXT3 else sif.read(item.id)
            found[b"%d" % item.id] = (item.type_text, item.name, item.group, item.size, hashlib.sha256(data).digest())
    return found


def _partitions(image: Path) -> list[tuple[int, int]]:
    from sifkit.sif import SIF, FSType

    with SIF.open(image) as sif:
        return [(item.offset, item.size) for item in sif if getattr(item.metadata, "fs_type", None) == FSType.EXT3]


def _either(found: Content, old: Content, new: Content, what: str) -> None:
    """Every path is as in one of both; those that both have are there."""
    for path in found.keys() | (old.keys() & new.keys()):
        if found.get(path) not in (old.get(path), new.get(path)):
            raise Fault(f"{what}: {path!r} is neither old nor new: {found.get(path)}, {old.get(path)}, {new.get(path)}")


@dataclass(slots=True)
class _Judge:
    """What the target held before and after."""

    scenario: Scenario
    loose: frozenset[bytes] = frozenset()
    old: Content | None = None
    new: Content | None = None
    old_trees: tuple[Content, ...] = ()
    new_trees: tuple[Content, ...] = ()

    def _trees(self, image: Path, judge: str) -> tuple[Content, ...]:
        trees = []
        for offset, size in _partitions(image):
            part = image.with_name("partition.img")
            with image.open("rb") as file:
                file.seek(offset)
                part.write_bytes(file.read(size))
            if judge == "sifkit":
                trees.append(_tree(part, "sifkit"))
                _e2fsck(part)
            trees.append(_tree(part, "debugfs"))
            part.unlink()
        return tuple(trees)

    def learn(self, image: Path) -> tuple[Content | None, tuple[Content, ...]]:
        """The content of a whole image."""
        if not image.exists():
            return None, ()
        if image.suffix == ".sif":
            return _objects(image), self._trees(image, "debugfs")
        return _tree(image, "debugfs"), ()

    def look(self, image: Path) -> None:
        """Raise Fault for what no crash may leave."""
        if not image.exists():
            if self.old is not None:
                raise Fault("the image is gone")
            return
        if image.suffix == ".sif":
            self._look_at_sif(image)
            return
        old, new = ({} if content is None else content for content in (self.old, self.new))
        for judge in ("sifkit", "debugfs"):
            found = _tree(image, judge)
            if self.old is None and found != new:
                raise Fault(f"{judge}: a new image is not whole")
            _either(self._known(found), self._known(old), self._known(new), judge)
            if judge == "sifkit":
                _e2fsck(image)

    def look_at_moved(self, image: Path, other: bytes | None) -> None:
        """Raise Fault if an overlay that is moved is neither in the SIF image nor in the file."""
        if not self.scenario.moved or _partitions(image):
            return
        if other is None:
            raise Fault("the overlay is gone")
        file = image.with_name(self.scenario.moved)
        file.write_bytes(other)
        _e2fsck(file)
        if _tree(file, "debugfs") != (self.old_trees or self.new_trees)[0]:
            raise Fault("the overlay is in the file in part")

    def _known(self, content: Content) -> Content:
        return {path: fact for path, fact in content.items() if path not in self.loose}

    def _look_at_sif(self, image: Path) -> None:
        from sifkit.sif import SIF

        found = _objects(image)
        if found not in (self.old, self.new):
            raise Fault(f"the objects are neither old nor new: {found}")
        for trees in (self._trees(image, "sifkit"),):
            for tree in trees:
                old = self.old_trees[0] if self.old_trees else {}
                new = self.new_trees[0] if self.new_trees else {}
                _either(tree, old or new, new or old, "the overlay")
        with SIF.open(image, "r+"):
            pass
        if _objects(image) != found:
            raise Fault("recovery changes the objects")
        repaired = _run(image.parent, *SIFKIT, "sif", "check", "--repair", "--cut", image.name)
        if repaired.returncode not in (0, 1) or _objects(image) != found:
            raise Fault(f"sif check --repair --cut exits {repaired.returncode}: {repaired.stdout}{repaired.stderr}")
        checked = _run(image.parent, *SIFKIT, "sif", "check", image.name)
        if checked.returncode:
            raise Fault(f"sif check exits {checked.returncode} after recovery: {checked.stdout}{checked.stderr}")


def run_scenario(name: str, *, seed: int, seconds: float) -> str:
    """Run and judge one scenario; a line about it. Raises Fault, with the kept directory in its text."""
    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory(prefix="cut-replay-") as scratch:
        top, states = Path(scratch, "top"), Path(scratch, "states")
        top.mkdir()
        states.mkdir()
        _set_up(top)
        for argv in scenario.prepare:
            done = _run(top, *SIFKIT, *argv, "-q")
            if done.returncode:
                raise Fault(f"{SETUP}: sifkit {' '.join(argv)} exits {done.returncode}: {done.stderr}")
        judge = _Judge(scenario, frozenset({b"upper/tree/new"} if name == "cp over" else set()))
        judge.old, judge.old_trees = judge.learn(top / scenario.target)
        recorded = record([*SIFKIT, *scenario.command, "-q"], top, Path(scratch, "trace"))
        if recorded.code:
            raise Fault(f"{SETUP}: sifkit {' '.join(scenario.command)} exits {recorded.code}: {recorded.output}")
        judge.new, judge.new_trees = judge.learn(top / scenario.target)
        left = files_of(top)
        if play(recorded.before, recorded.events) != left:
            raise Fault(f"{SETUP}: the record does not give what the command left")
        if recorded.before.get(scenario.target) == left.get(scenario.target):
            raise Fault(f"{SETUP}: the command changes nothing")
        outcome = _judge_all(name, judge, recorded, states, seed=seed, seconds=seconds)
    return f"{name}: {len(recorded.events)} events, {outcome}"


def _judge_all(name: str, judge: _Judge, recorded: Record, states: Path, *, seed: int, seconds: float) -> str:
    """Judge every directory that the record gives, each once; how many."""
    judged: set[bytes] = set()
    leftovers: set[str] = set()
    began = time.monotonic()
    for what, events in crashes(recorded.events, random.Random(f"{seed} {name}")):
        if seconds and time.monotonic() - began > seconds:
            return f"{len(judged)} directories judged (time is up)"
        files = play(recorded.before, events)
        content = files.get(judge.scenario.target)
        others = {other: data for other, data in files.items() if other != judge.scenario.target}
        leftovers |= others.keys() - recorded.before.keys()
        other = files.get(judge.scenario.moved)
        key = hashlib.sha256(content or b"").digest() + b"-" * (content is None) + hashlib.sha256(other or b"").digest()
        if key in judged:
            continue
        judged.add(key)
        image = states / judge.scenario.target
        image.unlink(missing_ok=True)
        if content is not None:
            image.write_bytes(content)
        try:
            judge.look(image)
            judge.look_at_moved(image, other)
        except Exception as error:
            kept = Path(tempfile.mkdtemp(prefix=f"cut-replay-{name.replace(' ', '-')}-"))
            if content is not None:
                (kept / image.name).write_bytes(content)
            raise Fault(f"{what}: {type(error).__name__}: {error}; kept as {kept}") from error
    return f"{len(judged)} directories judged" + (f", files left: {', '.join(sorted(leftovers))}" if leftovers else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description="Cut commands at every write, and judge what is left.")
    parser.add_argument("--seconds", type=float, default=0, help="for each scenario; 0 is no limit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(SCENARIOS))
        return 0
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; see --list")
    if missing := [tool for tool in ("strace", "e2fsck", "debugfs") if shutil.which(tool) is None]:
        parser.error(f"{', '.join(missing)} is not installed")
    faults = 0
    for name in options.scenarios or SCENARIOS:
        try:
            print(run_scenario(name, seed=options.seed, seconds=options.seconds), flush=True)
        except Fault as fault:
            faults += 1
            print(f"{name}: {fault}", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
