"""Passes 3 to 5 beside e2fsck: what each finds, what preening repairs, and that the repaired image is sound for both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ext3.constants import ROOT_INO
from ext3.device.base import MemoryDevice
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.finding import Report
from ext3.fsck.policy import CheckOnly, Policy, Preen, Yes
from tests.support.fsck_images import STAMP, Image
from tests.support.tools import assert_clean, require, run

pytestmark = pytest.mark.compat

BLOCK = 1024


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    require("mke2fs", "debugfs", "e2fsck")
    scratch = tmp_path_factory.mktemp("structure")
    (scratch / "content").write_bytes(b"content " * 700)
    (scratch / "empty").write_bytes(b"")
    path = scratch / "image"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", "-g", "2048", path, "8000")
    requests = [
        "mkdir a",
        "mkdir a/b",
        "mkdir a/b/c",
        "mkdir d",
        "write content a/file",
        "write empty d/empty",
        "symlink d/s target",
    ]
    for request in requests:
        run("debugfs", "-w", "-R", request, path, cwd=scratch)
    assert_clean(path)
    return path.read_bytes()


def debugfs(*requests: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        for request in requests:
            run("debugfs", "-w", "-R", request, path)

    return damage


def edited(change: Callable[[Image], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        image = Image(path.read_bytes())
        change(image)
        path.write_bytes(image.data)

    return damage


def wrong_parent(image: Image) -> None:
    image.lead_name(image.ino("/a/b"), b"..", image.ino("/d"))


def parent_out_of_range(image: Image) -> None:
    image.lead_name(image.ino("/a/b"), b"..", 60_000)


def unset_padding(column: str) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        image.device.write((int(image.groups[column][-1]) + 1) * BLOCK - 4, bytes(4))

    return change


def poke_bitmap(column: str, group: int) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        image.device.write(int(image.groups[column][group]) * BLOCK + 20, b"\x5a" * 16)

    return change


DAMAGE: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "directory without a name": (debugfs("unlink a/b"), {"directory-unconnected"}),
    "several of them": (debugfs("unlink a/b/c", "unlink a/b", "unlink d"), {"directory-unconnected"}),
    "file without a name": (debugfs("unlink a/file"), {"inode-unattached"}),
    "link without a name": (debugfs("unlink d/s"), {"inode-unattached"}),
    "empty file without a name": (debugfs("unlink d/empty"), {"empty-inode-unattached"}),
    "link count": (debugfs("sif a/file links_count 7"), {"link-count"}),
    "link count of a directory": (debugfs("sif a links_count 1"), {"link-count"}),
    "two names, one link": (debugfs("ln a/file d/twin"), {"link-count"}),
    "wrong parent": (edited(wrong_parent), {"directory-parent"}),
    "impossible parent": (edited(parent_out_of_range), {"directory-parent"}),
    "no root": (debugfs(f"clri <{ROOT_INO}>"), {"root-missing", "directory-unconnected", "lost-found-missing"}),
    "no root, full of directories": (
        debugfs(*(f"mkdir a/{number}-{'n' * 20}" for number in range(100)), "clri a", f"clri <{ROOT_INO}>"),
        {"root-missing", "lost-found-missing", "lost-found-full"},
    ),
    "lost+found a file": (
        debugfs("rmdir lost+found", "ln a/file lost+found", "unlink a/b"),
        {"lost-found-not-directory", "lost-found-missing", "directory-unconnected"},
    ),
    "no lost+found, and a use for it": (
        debugfs("rmdir lost+found", "unlink a/file"),
        {"lost-found-missing", "inode-unattached"},
    ),
    "blocks marked free": (debugfs("freeb 200 9"), {"block-bitmap"}),
    "blocks marked used": (debugfs("setb 5000 9"), {"block-bitmap"}),
    "inode marked free": (debugfs("freei a/file"), {"inode-bitmap"}),
    "inode marked used": (debugfs("seti <700>"), {"inode-bitmap"}),
    "any block bitmap": (edited(poke_bitmap("bg_block_bitmap", 2)), {"block-bitmap"}),
    "any inode bitmap": (edited(poke_bitmap("bg_inode_bitmap", 2)), {"inode-bitmap"}),
    "block bitmap padding": (edited(unset_padding("bg_block_bitmap")), {"block-bitmap-padding"}),
    "inode bitmap padding": (edited(unset_padding("bg_inode_bitmap")), {"inode-bitmap-padding"}),
    "counts of a group": (
        debugfs("set_bg 1 free_blocks_count 5", "set_bg 1 free_inodes_count 6", "set_bg 1 used_dirs_count 7"),
        {"group-free-blocks", "group-free-inodes", "group-directories"},
    ),
}


def ours(data: bytes, policy: Policy) -> tuple[Report, bytes]:
    device = MemoryDevice(data)
    report = check(device, policy, options=CheckOptions(force=True), stamp=STAMP)
    return report, bytes(device.data)


@pytest.mark.parametrize("name", DAMAGE)
def test_repairs_satisfy_e2fsck(name: str, pristine: bytes, tmp_path: Path) -> None:
    damage, codes = DAMAGE[name]
    path = tmp_path / "image"
    path.write_bytes(pristine)
    damage(path)
    damaged = path.read_bytes()
    assert run("e2fsck", "-fn", path, ok=range(256)).returncode & 4, "e2fsck finds nothing"
    looked, unchanged = ours(damaged, CheckOnly())
    assert unchanged == damaged
    assert codes <= {finding.code for finding in looked.findings}
    assert looked.exit_code == 4
    report, repaired = ours(damaged, Yes())
    assert report.exit_code == 1
    path.write_bytes(repaired)
    assert_clean(path)
    again, _ = ours(repaired, Yes())
    assert not again.findings
    assert again.exit_code == 0
    path.write_bytes(damaged)
    theirs = run("e2fsck", "-fp", path, ok=range(256)).returncode
    preened, after = ours(damaged, Preen())
    assert preened.exit_code == theirs
    if theirs == 1:
        path.write_bytes(after)
        assert_clean(path)


def test_a_loop_that_e2fsck_does_not_see_is_opened(pristine: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(pristine)
    debugfs("ln a a/b/x", "unlink a")(path)
    report, repaired = ours(path.read_bytes(), Yes())
    assert report.exit_code == 1
    assert "directory-loop" in {finding.code for finding in report.findings}
    path.write_bytes(repaired)
    assert_clean(path)
    assert not ours(repaired, Yes())[0].findings


def test_a_missing_lost_and_found_alone_is_created_and_not_found_by_a_look(pristine: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(pristine)
    debugfs("rmdir lost+found")(path)
    data = path.read_bytes()
    assert ours(data, CheckOnly())[0].exit_code == run("e2fsck", "-fn", path).returncode == 0
    report, repaired = ours(data, Preen())
    assert report.exit_code == run("e2fsck", "-fp", path, ok=range(256)).returncode == 1
    path.write_bytes(repaired)
    assert_clean(path)


@pytest.mark.parametrize("field", ["free_blocks_count", "free_inodes_count"])
def test_sums_of_the_superblock(field: str, pristine: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(pristine)
    debugfs(f"ssv {field} 5")(path)
    data = path.read_bytes()
    assert ours(data, CheckOnly())[0].exit_code == run("e2fsck", "-fn", path).returncode == 0
    report, repaired = ours(data, Preen())
    assert report.exit_code == run("e2fsck", "-fp", path, ok=range(256)).returncode == 1
    path.write_bytes(repaired)
    assert_clean(path)
