"""Overlays made from directories, judged by those who did not make them: e2fsck, debugfs (no root) and the kernel (root)."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
from pathlib import Path

import numpy
import pytest

import ext3
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from tools import diff_tree
from tools.debugfs_tree import read_debugfs

from ..support import trees
from ..support.tools import NOBODY, as_user, assert_clean, dumpe2fs, kernel_mount, require, run, why_no_mount

MIB = 1 << 20
EPOCH = 1_750_000_000


def judges() -> list[str]:
    """Who can judge here: debugfs, the kernel where root can mount, and our own reader, to keep it honest too."""
    return ["debugfs", "sifkit"] if why_no_mount() else ["debugfs", "sifkit", "kernel"]


def assert_same(want: diff_tree.Facts, image: Path, *, below: str = "", offset: int = 0, ignore: tuple[str, ...] = ()) -> None:
    """The tree in the image is the tree ``read_host`` saw, say all judges at hand."""
    require("debugfs")
    assert want, "nothing to compare"
    for judge in judges():
        found = diff_tree.diff(want, image, judge=judge, below=below, offset=offset, ignore=ignore)
        assert not found, f"{judge}:\n" + "\n".join(found[:40])


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
def test_everything(block_size: int, scratch: Path) -> None:
    """All attributes of all kinds of files, sparse ones over 4 GiB among them."""
    tree = trees.everything(scratch / "tree", block_size=block_size)
    want = diff_tree.read_host(tree)
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=tree, layout="data", size=64 * MIB, block_size=block_size))
    assert_clean(image)
    assert_same(want, image)


def test_small_inodes(scratch: Path) -> None:
    """128-byte inodes have no room for attributes, and times of whole seconds from 1901 to 2038."""
    tree = trees.everything(scratch / "tree", big=False)
    want = diff_tree.read_host(tree)
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=tree, layout="data", size=64 * MIB, inode_size=128))
    assert_clean(image)
    assert_same(want, image, ignore=("mtime", "atime", "ctime"))
    got = read_debugfs(image)
    held = [path for path, fact in want.items() if -(2**31) <= fact.mtime // 10**9 < 2**31]
    assert len(held) > 50
    assert [path for path in held if got[path].mtime != want[path].mtime // 10**9 * 10**9] == []


@pytest.mark.parametrize("layout", ["root", "upper"])
def test_layouts(layout: str, scratch: Path) -> None:
    tree = trees.everything(scratch / "tree", big=False)
    source = tree
    if layout == "root":
        source = scratch / "source"
        source.mkdir()
        tree.rename(source / "upper")
        tree = source / "upper"
    want = diff_tree.read_host(tree)
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=source, layout=layout, size=64 * MIB))  # type: ignore[arg-type]
    assert_clean(image)
    assert_same(want, image, below="upper")
    top = diff_tree.diff({}, image, judge="debugfs", ignore=("links",))
    names = {line.partition(":")[0] for line in top if "/" not in line.partition(":")[0]}
    assert names == {".", "upper", "work"}


def test_wide_directory(scratch: Path) -> None:
    """An index of two levels in blocks of 4 KiB: all names are found by listing, and one by one through the index."""
    tree = trees.wide(scratch / "tree", 20_000, longest=240)
    want = diff_tree.read_host(tree)
    assert len(want) == 20_002
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=tree, layout="data", block_size=4096))
    assert_clean(image)
    assert_same(want, image)
    dump = run("debugfs", "-R", "htree_dump /wide", image).stdout
    assert b"Hash Version: 1" in dump
    assert b"Indirect levels: 1" in dump
    # An index entry that e2fsck would have to rebuild shows here, too.
    assert b"is not in" not in dump
    if not why_no_mount():
        with kernel_mount(image) as point:
            for path in want:
                assert os.lstat(os.fsencode(point) + b"/" + path).st_size >= 0
            with pytest.raises(FileNotFoundError):
                os.lstat(point / "wide" / "no such name")


@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.parametrize("count", [10, 40, 41, 80, 200, 2000, 6000])
def test_index_sizes(count: int, block_size: int, scratch: Path) -> None:
    """Directories of one block, of a few, with an index of one level and of two."""
    tree = scratch / "tree"
    trees.small_files(tree / "names", count, length=0)
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=tree, layout="data", block_size=block_size, inodes=count + 100))
    assert_clean(image)
    assert_same(diff_tree.read_host(tree), image, ignore=("atime",))


def test_deep_tree(scratch: Path) -> None:
    tree = trees.deep(scratch / "tree")
    want = diff_tree.read_host(tree)
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=tree, layout="data"))
    assert_clean(image)
    assert_same(want, image)


def test_many_directories(scratch: Path) -> None:
    tree = trees.many_directories(scratch / "tree")
    want = diff_tree.read_host(tree)
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=tree, layout="data"))
    assert_clean(image)
    assert_same(want, image)


def test_an_installed_package(scratch: Path) -> None:
    """Real input: programs and libraries as pip installs them."""
    tree = Path(numpy.__file__).parent
    want = diff_tree.read_host(tree)
    image = scratch / "overlay.img"
    created = create(image, CreateOptions(from_dir=tree, layout="upper"))
    assert created.files >= len(want) - 1
    assert_clean(image)
    # One judge is enough for so much; others may read this tree at the same time, so no atime.
    assert diff_tree.diff(want, image, judge="debugfs", below="upper", ignore=("atime",)) == []


def reversed_copy(source: Path, target: Path) -> None:
    """The same tree in directories whose entries were made in the opposite order, on other inodes, at another time."""
    target.mkdir()
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name, reverse=True):
        if entry.is_dir(follow_symlinks=False):
            reversed_copy(Path(entry.path), target / entry.name)
        elif entry.is_symlink():
            (target / entry.name).symlink_to(os.readlink(entry.path))
        else:
            shutil.copy2(entry.path, target / entry.name)
    for entry in os.scandir(source):
        status = entry.stat(follow_symlinks=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(target / entry.name, ns=times, follow_symlinks=False)
    shutil.copystat(source, target)


@pytest.mark.parametrize("layout", ["data", "upper"])
def test_reproducible(layout: str, scratch: Path) -> None:
    """Two copies of a tree give the same bytes."""
    plain = scratch / "plain"
    trees.many_directories(plain, 200)
    trees.small_files(plain / "indexed", 500)
    (plain / "link").symlink_to("t" * 100)
    trees.set_xattr(plain / "indexed" / "file_000001", "user.a", b"b" * 200)
    trees.set_xattr(plain / "indexed" / "file_000002", "user.z", b"1")
    trees.set_xattr(plain / "indexed" / "file_000002", "user.a", b"b" * 200)
    trees.set_times(plain)
    os.utime(plain, ns=(0, 0))
    reversed_copy(plain, scratch / "other")
    for name in ("plain", "other"):
        options = CreateOptions(from_dir=scratch / name, layout=layout, source_date_epoch=EPOCH)  # type: ignore[arg-type]
        create(scratch / f"{name}.img", options)
    assert_clean(scratch / "plain.img")
    assert sha256(scratch / "plain.img") == sha256(scratch / "other.img")
    assert f"{EPOCH}" not in dumpe2fs(scratch / "plain.img", header_only=True)
    facts = diff_tree.diff({}, scratch / "plain.img", judge="debugfs")
    assert facts


def test_reproducible_follows_its_input(scratch: Path) -> None:
    """One byte more, another time: another identity."""
    tree = trees.small_files(scratch / "tree", 10)
    seen = set()
    for number in range(3):
        options = CreateOptions(from_dir=tree, layout="data", source_date_epoch=EPOCH + (number == 2))
        create(scratch / f"{number}.img", options)
        seen.add(sha256(scratch / f"{number}.img"))
        (tree / "file_000001").write_bytes(b"x" * (number + 1))
        os.utime(tree / "file_000001", ns=(0, 0))
    assert len(seen) == 3


def test_everything_is_reproducible(scratch: Path) -> None:
    """The whole zoo twice, made anew: links, holes, devices and attributes depend on nothing that is not in the tree."""
    for name in ("one", "two"):
        trees.everything(scratch / name, big=False)
        create(scratch / f"{name}.img", CreateOptions(from_dir=scratch / name, layout="data", source_date_epoch=EPOCH))
    assert sha256(scratch / "one.img") == sha256(scratch / "two.img")
    want = diff_tree.read_host(scratch / "one")
    for fact in want.values():
        if fact.mtime >= EPOCH * 10**9:
            fact.mtime = EPOCH * 10**9
        fact.atime = fact.ctime = fact.mtime
    assert_clean(scratch / "one.img")
    assert_same(want, scratch / "one.img")


@pytest.mark.parametrize(("stale", "size"), [("ones", 8 * MIB), ("random", 8 * MIB), ("ext3", 8 * MIB), ("ext3", 600 * MIB)])
def test_over_stale_bytes(stale: str, size: int, scratch: Path) -> None:
    """A region of a larger file that is full of old bytes becomes a clean image, and nothing around it is touched."""
    require("e2fsck", "debugfs")
    offset = 3 * MIB + 512 * 3
    used = min(size, 40 * MIB)
    image = scratch / "larger"
    filler = {"ones": b"\xff" * used, "random": random.Random(1).randbytes(used)}
    old = filler.get(stale)
    if old is None:
        require("mke2fs")
        first = scratch / "first.img"
        first.write_bytes(bytes(used))
        run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", first)
        run("debugfs", "-w", "-R", "jo", first, ok=range(256))
        old = first.read_bytes()
        first.unlink()
    edge = b"\xaa" * offset
    with image.open("wb") as file:
        file.write(edge + old)
        if used < size:
            file.seek(offset + size - used)
            file.write(old)
        file.write(edge)
    with image.open("r+b") as file:
        ext3.mkfs(file, size, offset=offset)
    data = image.stat().st_size
    assert data == offset + size + len(edge)
    with image.open("rb") as file:
        assert file.read(offset) == edge
        file.seek(offset + size)
        assert file.read() == edge
    assert_clean(image, offset, size=size)
    assert diff_tree.diff({}, image, judge="debugfs", offset=offset) == [".: only in the image"]


def test_a_tree_over_stale_bytes(scratch: Path) -> None:
    """Content over old bytes: the ends of last blocks, holes and directories show none of them."""
    tree = trees.everything(scratch / "tree", big=False)
    want = diff_tree.read_host(tree)
    stale = scratch / "stale.img"
    stale.write_bytes(b"\xa5" * (64 * MIB))
    builder, options, stamp = plan_inputs(tree)
    with stale.open("r+b") as file:
        ext3.build_image(builder, file, options=options, stamp=stamp)  # type: ignore[arg-type]
    assert_clean(stale)
    assert_same(want, stale)


def plan_inputs(tree: Path) -> tuple[object, object, object]:
    """A tree as the library takes it, without the overlay layer."""
    from ext3.newfs.builder import TreeBuilder
    from ext3.newfs.plan import ImageOptions
    from ext3.newfs.stamp import Stamp
    from ext3.scan.host_directory import ScanOptions, host_times, scan_directory

    builder = TreeBuilder()
    status = os.stat(tree)
    builder.add(0, b"", status.st_mode, status.st_uid, status.st_gid, 0, host_times(status))
    content = scan_directory(builder, os.fsencode(tree), 0, ScanOptions())
    return builder.finish(content), ImageOptions(size=64 * MIB), Stamp.now()


def test_owner(scratch: Path) -> None:
    tree = trees.small_files(scratch / "tree" / "below", 5).parent
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=tree, layout="upper", owner=(70_000, 100_000)))
    assert_clean(image)
    want = diff_tree.read_host(tree)
    for fact in want.values():
        fact.uid, fact.gid = 70_000, 100_000
    assert_same(want, image, below="upper", ignore=("atime",))


def test_a_plain_user_can_judge_it(scratch: Path) -> None:
    """The mode asked for is the mode the image gets, and e2fsck needs no root to call it clean."""
    for parent in (scratch, *scratch.parents[:4]):
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o011)
    tree = trees.everything(scratch / "tree", big=False)
    image = scratch / "overlay.img"
    create(image, CreateOptions(from_dir=tree, layout="data", size=64 * MIB, mode=0o644))
    assert stat.S_IMODE(image.stat().st_mode) == 0o644
    require("e2fsck")
    done = as_user(NOBODY, ["e2fsck", "-fn", image])
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"Fix?" not in done.stdout
