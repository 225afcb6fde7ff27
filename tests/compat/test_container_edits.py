"""The same edits through a kernel overlay mount and with sifkit give a container the same files."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.overlay.view.overlay_argument import OverlayArgument
from sifkit.overlay.view.tree_opening import open_tree

from ..support.layers import MTIME, facts_of_mount, facts_of_tree
from ..support.tools import assert_clean, overlay_mount, require

pytestmark = [pytest.mark.compat, pytest.mark.root]

NOW = "now"
Facts = dict[bytes, tuple[object, ...]]


def lower_layers(top: Path, *, linked: bool) -> list[Path]:
    """A root and a read-only overlay over it: files, directories in one or both, links, holes, attributes, a whiteout."""
    root, middle = top / "root", top / "middle"
    for path in ("a/f", "a/b/g", "a/b/c/h", "d/e/i", "d/j", "top", "both/one", "both/gone"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"root {path}" * 300)
    with (root / "d/sparse").open("wb") as file:
        file.seek(200_000)
        file.write(b"end")
    (root / "empty").mkdir()
    (root / "link").symlink_to("a/b")
    (root / "dangling").symlink_to("none")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    if linked:
        os.chmod(root / "d/j", 0o4755)  # GNU cp -a and mv let such bits of what they replace stay
        os.link(root / "d/j", root / "d/j2")
    (middle / "both").mkdir(parents=True)
    (middle / "both/two").write_text("middle")
    os.mknod(middle / "both/gone", 0o020000, 0)
    (middle / "top").write_text("middle top")
    os.setxattr(root / "a/f", "user.note", b"note")
    os.setxattr(root / "a/b", "user.note", b"directory")
    os.chmod(root / "a/f", 0o751)
    os.chown(root / "a/b/g", 7, 8)
    os.chmod(root / "a/b", 0o775)
    for layer in (root, middle):
        for above, below, names in os.walk(layer, topdown=False):
            for number, name in enumerate(below + names + ["."]):
                os.utime(os.path.join(above, name), ns=(MTIME, MTIME + number * 1_000_000), follow_symlinks=False)
    return [root, middle]


def seen(facts: Facts) -> Facts:
    """Facts to compare: times that an edit set are all the same, and the links of directories are not compared."""
    found: Facts = {}
    for path, (mode, uid, gid, size, mtime, links, content, xattrs) in facts.items():
        assert isinstance(mtime, int) and isinstance(mode, int)
        is_directory = mode & 0o170000 == 0o040000
        when = NOW if mtime > MTIME + 10**12 else mtime
        assert isinstance(xattrs, dict)
        visible = {name: value for name, value in xattrs.items() if not name.startswith(b"user.overlay.")}
        found[path] = (mode, uid, gid, size, when, None if is_directory else links, content, visible)
    return found


class Sides:
    """One container twice: a mount by the kernel, and an image that sifkit edits."""

    def __init__(self, top: Path, merged: Path) -> None:
        self.top = top
        self.merged = merged
        self.done: list[tuple[str, ...]] = []
        self.root, self.middle = top / "root", top / "middle"

    def run(self, *words: str) -> None:
        """Run a verb of sifkit and the tool of that name; words that begin with a slash are paths in the container."""
        kernel = subprocess.run(
            [f"{self.merged}{word}" if word.startswith("/") else word for word in words],
            check=False,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        ours = [f"{self.root}:{word}" if word.startswith("/") else word for word in words]
        owner = ["--owner", "0:0"] if words[0] in ("cp", "mkdir", "ln") else []
        options = ["--overlay", f"{self.middle}:ro", "--overlay", str(self.top / "ours.img")]
        code = main(["-q", ours[0], *owner, *options, *ours[1:]])
        assert (code == 0) == (kernel.returncode == 0), (words, code, kernel)
        self.done.append((*words, str(code)))


def compare(top: Path, edits: Callable[[Sides], None], *, linked: bool = False) -> Facts:
    """Make the same edits on both sides; return what a container sees afterwards."""
    require("mke2fs", "e2fsck")
    layers = lower_layers(top, linked=linked)
    for name in ("kernel.img", "ours.img"):
        assert main(["-q", "overlay", "create", "--size", "16M", "--owner", "0:0", str(top / name)]) == 0
    lower = f"{layers[1]}:{layers[0]}"
    with overlay_mount(Path(lower), top / "kernel.img", top / "merged") as merged:
        sides = Sides(top, merged)
        edits(sides)
        by_kernel = seen(facts_of_mount(merged))
    assert_clean(top / "ours.img")
    with overlay_mount(Path(lower), top / "ours.img", top / "merged") as merged:
        by_us = seen(facts_of_mount(merged))
    for path in sorted(by_kernel.keys() | by_us.keys()):
        assert by_us.get(path) == by_kernel.get(path), (path, sides.done)
    for name in ("kernel.img", "ours.img"):
        overlays = [OverlayArgument(str(layers[1]), read_only=True), OverlayArgument(str(top / name))]
        with open_tree(layers[0], overlays=overlays) as opened:
            view = seen(facts_of_tree(opened.tree))
        for path in sorted(view.keys() | by_us.keys()):
            assert view.get(path) == by_us.get(path), (name, path, sides.done)
    return by_us


OPERATIONS = (
    "rm",
    "rm -r",
    "rm -d",
    "mkdir",
    "mkdir -p",
    "chmod",
    "chmod -R",
    "chown",
    "mv",
    "mv -T",
    "ln",
    "ln -s",
    "cp -rT",
    "cp -a",
)


def random_edits(seed: int, count: int) -> Callable[[Sides], None]:
    def edits(sides: Sides) -> None:
        chosen = random.Random(seed)

        def path() -> str:
            known = [str(found).removeprefix(str(sides.merged)) for found in sorted(sides.merged.rglob("*"))]
            one = chosen.choice(known)
            return one if chosen.random() < 0.8 else f"{one}/new" if chosen.random() < 0.5 else "/new"

        for _ in range(count):
            words = chosen.choice(OPERATIONS).split()
            match words[0]:
                case "rm" | "mkdir":
                    sides.run(*words, path())
                case "chmod":
                    sides.run(*words, chosen.choice(["700", "u+w,g-r", "a+x"]), path())
                case "chown":
                    sides.run("chown", "-h", "5:6", path())
                case "ln" if "-s" in words:
                    sides.run("ln", "-sT", "a/f", path())
                case "ln":
                    sides.run("ln", "-T", path(), path())
                case _:
                    one, other = path(), path()
                    goal = Path(f"{sides.merged}{other}")
                    is_special = goal.is_fifo() or goal.is_char_device()  # cp would write to it
                    inside = os.path.realpath(f"{sides.merged}{one}")  # cp fails, and leaves something
                    is_inside = f"{goal.resolve()}/".startswith(f"{inside}/")
                    if words[0] == "mv" or not (is_special or is_inside):
                        sides.run(*words, one, other)

    return edits


def test_edits_of_lower_files(tmp_path: Path) -> None:
    def edits(sides: Sides) -> None:
        sides.run("chmod", "g+w", "/d/j")  # set-user-ID, with a second name
        sides.run("chown", "-h", "5:6", "/d/j2")
        sides.run("chown", "-h", "5:6", "/dangling")
        sides.run("chmod", "600", "/null")
        sides.run("mv", "-T", "/a/b", "/moved")  # with all that is in it
        sides.run("mv", "-T", "/d/sparse", "/moved/sparse")
        sides.run("ln", "-T", "/a/f", "/both/linked")
        sides.run("rm", "/both/one")
        sides.run("rm", "/both/two")
        sides.run("mkdir", "/both/gone")  # where the middle layer has a whiteout
        sides.run("rm", "-r", "/d/e")
        sides.run("mkdir", "/d/e")
        sides.run("cp", "-rT", "/moved", "/d/e")
        sides.run("mv", "-T", "/empty", "/both/gone")
        sides.run("cp", "/a/f", "/top")
        sides.run("ln", "-sfT", "text", "/fifo")
        sides.run("rm", "-d", "/a")

    found = compare(tmp_path, edits, linked=True)
    assert {b"moved/c/h", b"moved/sparse", b"d/e/c/h", b"both/linked"} <= found.keys()
    with open_tree(tmp_path / "ours.img", upper=True, whiteouts=True) as opened:
        raw = facts_of_tree(opened.tree)
    whiteouts = {path for path, facts in raw.items() if facts[0] == 0o020000}
    assert whiteouts == {b"a/b", b"both/one", b"both/two", b"d/sparse", b"empty"}
    with open_tree(tmp_path / "ours.img") as opened:
        node = opened.tree.find_name(opened.tree.find_name(opened.tree.find_name(2, b"upper"), b"moved"), b"sparse")
        assert opened.tree.stat(node).blocks * 512 < 20_000  # its hole is a hole


@pytest.mark.parametrize("seed", range(3))
def test_random_edits(tmp_path: Path, seed: int) -> None:
    compare(tmp_path, random_edits(seed, 16))
