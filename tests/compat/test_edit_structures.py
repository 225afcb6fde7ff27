"""Directories, block maps and attributes edited in real images: e2fsck, debugfs and the kernel agree with what we meant."""

from __future__ import annotations

import os
import random
import uuid
from pathlib import Path

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.edit.block_map_edit import BlockMapEditor
from ext3.errors import NoSpaceError

from ..support.blocks import ImageBlocks, read_attributes
from ..support.tools import assert_clean, kernel_mount, require, run

MIB = 1 << 20
STAMP = ext3.Stamp(1_700_000_000, uuid.UUID(int=7).bytes, uuid.UUID(int=8).bytes)
NOW = (1_700_000_000, 1_700_000_000, 1_700_000_000, 0, 0, 0)


def make_image(path: Path, *, block_size: int, wide: int = 0, size: int = 32 * MIB, inode_size: int = 256) -> None:
    """An image with files f0 to f9 (each 5000 bytes), an empty directory and one with ``wide`` names."""
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o40755, 0, 0, 0, NOW)
    data = {}
    for number in range(10):
        node = builder.add(0, b"f%d" % number, 0o100644, 0, 0, 5000, NOW)
        data[node] = bytes([65 + number]) * 5000
    builder.add(0, b"empty", 0o40755, 0, 0, 0, NOW)
    top = builder.add(0, b"wide", 0o40755, 0, 0, 0, NOW)
    for number in range(wide):
        builder.add(top, b"old-%05d" % number, 0o100644, 0, 0, 0, NOW)
    options = ext3.ImageOptions(size=size, block_size=block_size, inode_size=inode_size, inodes=wide + 8000)
    device = MemoryDevice(bytes(size))
    ext3.build_image(builder.finish(ext3.MemoryContent(data)), device, options=options, stamp=STAMP)
    path.write_bytes(device.read(0, size))


def inos(path: Path) -> dict[bytes, int]:
    with ext3.Filesystem.open(path) as fs:
        return {entry.name: entry.ino for entry in fs.scandir(2)}


def names_of(path: Path, directory: bytes) -> set[bytes]:
    with ext3.Filesystem.open(path) as fs:
        return {entry.name for entry in fs.scandir(directory)} - {b".", b".."}


def htree_is_whole(path: Path, directory: str, *, levels: int | None = None) -> None:
    done = run("debugfs", "-R", f"htree_dump {directory}", path)
    text = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
    assert "Root node dump" in text
    assert "error" not in text.lower()
    assert "not sorted" not in text.lower()
    if levels is not None:
        assert f"Indirect levels: {levels}" in text


def grow(image: ImageBlocks, ino: int, names: list[bytes], files: list[int]) -> None:
    directory = image.directory(ino)
    for number, name in enumerate(names):
        image.link(directory, name, files[number % len(files)])
    image.keep_directory(ino, directory)


def prune(image: ImageBlocks, ino: int, names: list[bytes]) -> None:
    directory = image.directory(ino)
    for name in names:
        image.unlink(directory, name)
    image.keep_directory(ino, directory)


@pytest.mark.parametrize(("block_size", "count"), [(1024, 9000), (2048, 3000), (4096, 20_000)])
def test_a_directory_grows_and_shrinks(block_size: int, count: int, scratch: Path) -> None:
    """From empty to a linear block, one index block and (with blocks of 1024 bytes) two levels, and back."""
    require("e2fsck", "debugfs")
    path = scratch / "image"
    make_image(path, block_size=block_size)
    found = inos(path)
    files = [found[b"f%d" % number] for number in range(10)]
    want: set[bytes] = set()
    rng = random.Random(block_size)
    for step in (3, 60, count):
        image = ImageBlocks(path)
        names = [b"step-%d-%d" % (step, number) + b"x" * rng.choice([0, 1, 2, 3, 40]) for number in range(step)]
        grow(image, found[b"empty"], names, files)
        image.save()
        want |= set(names)
        assert_clean(path)
        assert names_of(path, b"empty") == want
    htree_is_whole(path, "/empty", levels=int(block_size == 1024))
    gone = sorted(want)
    rng.shuffle(gone)
    for share in (len(gone) // 2, len(gone)):
        image = ImageBlocks(path)
        prune(image, found[b"empty"], [name for name in gone[:share] if name in want])
        image.save()
        want -= set(gone[:share])
        assert_clean(path)
        assert names_of(path, b"empty") == want


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_a_packed_index_is_edited(block_size: int, scratch: Path) -> None:
    """An index the builder made: its leaves split, names leave, others lead elsewhere."""
    require("e2fsck", "debugfs")
    path = scratch / "image"
    make_image(path, block_size=block_size, wide=4000)
    found = inos(path)
    image = ImageBlocks(path)
    grow(image, found[b"wide"], [b"new-%d" % number for number in range(4000)], [found[b"f1"]])
    directory = image.directory(found[b"wide"])
    for number in range(0, 4000, 4):
        image.unlink(directory, b"new-%d" % number)
    for number in range(1, 4000, 4):
        assert directory.replace(b"new-%d" % number, found[b"f2"], 1).ino == found[b"f1"]
        image.inode(found[b"f1"])["i_links_count"] -= 1
        image.inode(found[b"f2"])["i_links_count"] += 1
    image.keep_directory(found[b"wide"], directory)
    image.save()
    assert_clean(path)
    htree_is_whole(path, "/wide")
    assert names_of(path, b"wide") == {b"old-%05d" % n for n in range(4000)} | {b"new-%d" % n for n in range(4000) if n % 4}


@pytest.mark.root
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_the_kernel_and_we_take_turns(block_size: int, scratch: Path) -> None:
    """A directory the kernel made grows under us, then under the kernel again; each finds all names by itself."""
    require("e2fsck", "debugfs", "mke2fs")
    path = scratch / "image"
    with path.open("wb") as file:
        file.truncate(48 * MIB)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", str(block_size), "-N", "20000", path)
    with kernel_mount(path, rw=True) as point:
        (point / "names").mkdir()
        (point / "file").write_text("content")
        for number in range(4000):
            (point / "names" / f"kernel-{number}").touch()
        for number in range(0, 4000, 3):
            (point / "names" / f"kernel-{number}").unlink()
    found = inos(path)
    image = ImageBlocks(path)
    ours = [b"ours-%d" % number for number in range(6000)]
    grow(image, found[b"names"], ours, [found[b"file"]])
    prune(image, found[b"names"], ours[::5])
    image.save()
    assert_clean(path)
    htree_is_whole(path, "/names")
    with kernel_mount(path, rw=True) as point:
        for number in range(6000):
            assert (point / "names" / f"ours-{number}").exists() == bool(number % 5)
        for number in range(4000):
            assert (point / "names" / f"kernel-{number}").exists() == bool(number % 3)
        for number in range(4000):
            (point / "names" / f"again-{number}").touch()
        for number in range(1, 6000, 5):
            (point / "names" / f"ours-{number}").unlink()
    assert_clean(path)
    image = ImageBlocks(path)
    directory = image.directory(found[b"names"])
    for number in range(4000):
        assert directory.find(b"again-%d" % number)
    grow(image, found[b"names"], [b"last-%d" % number for number in range(1000)], [found[b"file"]])
    image.save()
    assert_clean(path)
    with kernel_mount(path) as point:
        want = {f"kernel-{n}" for n in range(4000) if n % 3} | {f"ours-{n}" for n in range(6000) if n % 5 > 1}
        want |= {f"again-{n}" for n in range(4000)} | {f"last-{n}" for n in range(1000)}
        assert set(os.listdir(point / "names")) == want


@pytest.mark.parametrize("version", [("legacy", False), ("tea", False), ("half_md4", True), ("tea", True)])
def test_other_hashes(version: tuple[str, bool], scratch: Path) -> None:
    """e2fsck knows every hash we use, signed and unsigned, for names beyond ASCII too."""
    require("e2fsck", "mke2fs", "tune2fs", "debugfs")
    path = scratch / "image"
    with path.open("wb") as file:
        file.truncate(32 * MIB)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", path)
    run("tune2fs", "-E", f"hash_alg={version[0]}", path)
    if version[1]:
        run("debugfs", "-w", "-R", "ssv flags 2", path)
    run("debugfs", "-w", "-R", "mkdir names", path)
    run("debugfs", "-w", "-R", "write /dev/null file", path)
    found = inos(path)
    image = ImageBlocks(path)
    grow(image, found[b"names"], ["näme-é-".encode() * (n % 6 + 1) + b"%d" % n for n in range(1500)], [found[b"file"]])
    image.save()
    assert_clean(path)


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_maps(block_size: int, scratch: Path) -> None:
    """Ranges mapped, punched and cut off at random: e2fsck counts the same blocks."""
    require("e2fsck")
    path = scratch / "image"
    make_image(path, block_size=block_size)
    found = inos(path)
    rng = random.Random(block_size)
    reach = 80_000
    for _ in range(4):
        image = ImageBlocks(path)
        for number in range(3):
            ino = found[b"f%d" % number]
            mapping = image.mapping(ino)
            for _ in range(40):
                edit_map(mapping, rng, reach)
            mapping.map(5, 1, 0)
            image.keep_mapping(ino, mapping)
            row = image.inode(ino)
            row["i_size"] = reach * block_size % 2**32
            row["i_size_high"] = reach * block_size >> 32
        image.save()
        assert_clean(path)
    image = ImageBlocks(path)
    for number in range(3):
        ino = found[b"f%d" % number]
        mapping = image.mapping(ino)
        mapping.truncate(0)
        assert mapping.sectors == 0
        assert not any(mapping.i_block)
        image.keep_mapping(ino, mapping)
    image.save()
    assert_clean(path)


def edit_map(mapping: BlockMapEditor, rng: random.Random, reach: int) -> None:
    at = rng.choice([0, 5, 11, 12, 260, 267, 268, 1035, 1036, 65_800, 65_804, rng.randrange(reach - 300)])
    count = rng.choice([1, 1, 2, 7, 100, 300])
    choice = rng.randrange(10)
    if choice < 6:
        try:
            mapping.map(at, count, rng.randrange(1, 8000))
        except NoSpaceError:
            mapping.truncate(300)
    elif choice < 9:
        mapping.punch(at, count * 3)
    else:
        mapping.truncate(at)


@pytest.mark.parametrize("inode_size", [128, 256])
def test_attributes(inode_size: int, scratch: Path) -> None:
    """Attributes in the inode, in a block, in a shared block; changed, grown and taken away."""
    require("e2fsck")
    path = scratch / "image"
    make_image(path, block_size=1024, inode_size=inode_size)
    found = inos(path)
    want: dict[int, dict[bytes, bytes]] = {found[b"f%d" % number]: {} for number in range(10)}
    rng = random.Random(inode_size)
    names = [b"user.a", b"user.longer_name", b"trusted.overlay.opaque", b"security.capability"]
    for _ in range(6):
        image = ImageBlocks(path)
        for ino, values in want.items():
            for _ in range(5):
                editor = image.attributes(ino)
                name = rng.choice(names)
                if name in values and rng.random() < 0.4:
                    editor.remove(name)
                    del values[name]
                else:
                    value = bytes([rng.randrange(2)]) * rng.choice([0, 1, 20, 60, 200])
                    editor.set(name, value)
                    values[name] = value
                image.keep_attributes(ino, editor)
                assert read_attributes(editor) == values
        image.save()
        assert_clean(path)
        with ext3.Filesystem.open(path) as fs:
            assert {ino: fs.xattrs(ino) for ino in want} == want


@pytest.mark.root
def test_the_kernel_reads_our_attributes(scratch: Path) -> None:
    """Shared blocks too: what one file changes through the kernel the others keep."""
    require("e2fsck", "mke2fs")
    path = scratch / "image"
    make_image(path, block_size=1024)
    found = inos(path)
    image = ImageBlocks(path)
    for number in range(10):
        ino = found[b"f%d" % number]
        editor = image.attributes(ino)
        editor.set(b"user.big", b"B" * 500)
        editor.set(b"user.small", b"%d" % number)
        image.keep_attributes(ino, editor)
    assert len({int(image.inode(found[b"f%d" % number])["i_file_acl"]) for number in range(10)}) == 1
    image.save()
    assert_clean(path)
    with kernel_mount(path, rw=True) as point:
        for number in range(10):
            assert os.getxattr(point / f"f{number}", "user.big") == b"B" * 500
            assert os.getxattr(point / f"f{number}", "user.small") == b"%d" % number
        os.setxattr(point / "f3", "user.big", b"C" * 400)
        os.removexattr(point / "f4", "user.big")
        (point / "f5").unlink()
    assert_clean(path)
    image = ImageBlocks(path)
    assert image.attributes(found[b"f3"]).get(b"user.big") == b"C" * 400
    assert image.attributes(found[b"f4"]).get(b"user.big") is None
    assert image.attributes(found[b"f6"]).get(b"user.big") == b"B" * 500
