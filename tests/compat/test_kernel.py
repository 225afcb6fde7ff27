"""The kernel works on our images: fills them, empties them, replays their journal, stacks an overlay on them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

import pytest

import ext3
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from tools import diff_tree

from ..support import trees
from ..support.tools import assert_clean, dumpe2fs, kernel_mount, require, run

pytestmark = pytest.mark.root
MIB = 1 << 20


def fill(directory: Path, *, length: int, most: int = 200_000) -> int:
    """Write files of ``length`` bytes until the filesystem is full; how many were made."""
    data = trees.pattern(length)
    for number in range(most):
        try:
            with (directory / f"fill-{number:06}").open("wb") as file:
                file.write(data)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return number
    pytest.fail("the filesystem does not get full")


def sample(scratch: Path, **options: object) -> tuple[Path, diff_tree.Facts]:
    """An image with content in ``keep``, and what is in it."""
    tree = trees.everything(scratch / "tree" / "keep", big=False).parent
    trees.small_files(tree / "keep" / "indexed", 3000, length=3)
    want = diff_tree.read_host(tree)
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=tree, layout="data", **options))  # type: ignore[arg-type]
    return image, want


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_filled_and_emptied(block_size: int, scratch: Path) -> None:
    """Every free block is really free: the kernel takes them all, and what was there before is still right."""
    require("e2fsck")
    image, want = sample(scratch, size=64 * MIB, block_size=block_size)
    with kernel_mount(image, rw=True) as point:
        before = os.statvfs(point)
        target = point / "fill"
        target.mkdir()
        count = fill(target, length=300_000)
        assert count > 20
        assert os.statvfs(point).f_bfree < before.f_bfree // 100
        for number in range(0, count, 2):
            (target / f"fill-{number:06}").unlink()
        fill(target / "..", length=100_000)
    assert_clean(image)
    with kernel_mount(image, rw=True) as point:
        shutil.rmtree(point / "fill")
        for path in point.glob("fill-*"):
            path.unlink()
    assert_clean(image)
    assert diff_tree.diff_kernel(want, image, ignore=("root",)) == []


def test_all_inodes_used(scratch: Path) -> None:
    image, want = sample(scratch, size=64 * MIB, inodes=6000)
    with kernel_mount(image, rw=True) as point:
        free = os.statvfs(point).f_ffree
        (point / "fill").mkdir()
        assert fill(point / "fill", length=0) == free - 1
        shutil.rmtree(point / "fill")
    assert_clean(image)
    assert diff_tree.diff_kernel(want, image, ignore=("root",)) == []


def test_indexed_directories_grow_and_shrink(scratch: Path) -> None:
    """The kernel adds to and removes from our directory index."""
    tree = trees.small_files(scratch / "tree" / "names", 5000, length=0).parent
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=tree, layout="data", size=64 * MIB, inodes=30_000, block_size=1024))
    with kernel_mount(image, rw=True) as point:
        names = point / "names"
        for number in range(10_000):
            (names / f"added-{number}").touch()
        for number in range(0, 5000, 3):
            (names / f"file_{number:06}").unlink()
        found = {entry.name for entry in os.scandir(names)}
    want = {f"added-{n}" for n in range(10_000)} | {f"file_{n:06}" for n in range(5000) if n % 3}
    assert found == want
    assert_clean(image)


def test_attributes_change(scratch: Path) -> None:
    """Shared attribute blocks are copied when one file's attributes change, and the others keep theirs."""
    image, want = sample(scratch, size=64 * MIB)
    if not want[b"keep/attributes/shared-1"].xattrs:
        pytest.skip("the host's filesystem has no user attributes")
    with kernel_mount(image, rw=True) as point:
        top = point / "keep" / "attributes"
        for number in range(0, 30, 2):
            os.setxattr(top / f"shared-{number}", "user.shared", b"N" * 290)
        (top / "shared-1").unlink()
        os.removexattr(top / "shared-3", "user.shared")
        assert os.getxattr(top / "shared-5", "user.shared") == b"S" * 300
        assert os.getxattr(top / "shared-0", "user.shared") == b"N" * 290
    assert_clean(image)


def test_journal_is_replayed(scratch: Path) -> None:
    """A copy of the image taken while it is mounted has work in its journal; the kernel and e2fsck both bring it home."""
    image, _ = sample(scratch, size=64 * MIB)
    dirty = scratch / "dirty.img"
    with kernel_mount(image, rw=True) as point:
        for number in range(300):
            (point / f"late-{number}").write_text("journaled\n")
        fd = os.open(point, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        shutil.copyfile(image, dirty)
    assert "needs_recovery" in dumpe2fs(dirty, header_only=True)
    again = scratch / "again.img"
    shutil.copyfile(dirty, again)
    run("e2fsck", "-fp", dirty, ok=(0, 1))
    assert_clean(dirty)
    with kernel_mount(again, rw=True) as point:
        assert (point / "late-299").read_text() == "journaled\n"
    assert_clean(again)
    assert_clean(image)


@pytest.mark.parametrize("size", [64 * MIB, 600 * MIB])
def test_resize2fs_grows_it(size: int, scratch: Path) -> None:
    """The resize inode and the reserved descriptor blocks are what resize2fs wants, with the image at rest."""
    require("resize2fs")
    image, want = sample(scratch, size=size)
    run("e2fsck", "-fp", image)
    run("resize2fs", image, f"{size * 3 // MIB}M")
    assert_clean(image)
    assert diff_tree.diff_kernel(want, image) == []


def test_grows_while_mounted(scratch: Path) -> None:
    """The kernel's own resize checks every slot of the resize inode."""
    require("resize2fs", "losetup")
    image = scratch / "overlay.img"
    ext3.mkfs(image, 64 * MIB)
    with kernel_mount(image, rw=True) as point:
        device = run("findmnt", "-n", "-o", "SOURCE", point).stdout.decode().strip()
        os.truncate(image, 400 * MIB)
        run("losetup", "-c", device)
        done = run("resize2fs", device, ok=(0, 1))
        if b"Permission denied" in done.stderr:
            pytest.skip("this host does not let root resize a mounted filesystem (CAP_SYS_RESOURCE)")
        assert done.returncode == 0, done.stderr
        assert os.statvfs(point).f_blocks * os.statvfs(point).f_frsize > 300 * MIB
        fill(point, length=8 * MIB)
    assert_clean(image)


@pytest.mark.parametrize("layout", ["upper", "root"])
def test_as_the_upper_layer(layout: str, scratch: Path) -> None:
    """What Apptainer does with the image: upper/ and work/ under an overlay mount, changes kept in the image."""
    source = scratch / "source"
    upper = source / "upper" if layout == "root" else source
    (upper / "opt").mkdir(parents=True)
    (upper / "opt" / "added").write_text("from the overlay\n")
    (upper / "hidden").write_text("from the overlay\n")
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=source, layout=layout, size=64 * MIB))  # type: ignore[arg-type]
    lower, merged = scratch / "lower", scratch / "merged"
    (lower / "etc").mkdir(parents=True)
    (lower / "etc" / "base").write_text("from below\n")
    (lower / "hidden").write_text("from below\n")
    merged.mkdir()
    with kernel_mount(image, rw=True) as point, contextlib.ExitStack() as stack:
        options = f"lowerdir={lower},upperdir={point}/upper,workdir={point}/work"
        run("mount", "-t", "overlay", "overlay", "-o", options, merged)
        stack.callback(run, "umount", merged)
        assert (merged / "opt" / "added").read_text() == "from the overlay\n"
        assert (merged / "hidden").read_text() == "from the overlay\n"
        assert (merged / "etc" / "base").read_text() == "from below\n"
        (merged / "etc" / "base").write_text("changed\n")
        (merged / "hidden").unlink()
        (merged / "opt").rename(merged / "opt2")
    assert_clean(image)
    assert (lower / "etc" / "base").read_text() == "from below\n"
    with kernel_mount(image) as point:
        assert (point / "upper" / "etc" / "base").read_text() == "changed\n"
        assert (point / "upper" / "opt2" / "added").read_text() == "from the overlay\n"
        assert os.lstat(point / "upper" / "hidden").st_rdev == 0
