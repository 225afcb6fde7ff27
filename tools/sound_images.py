"""Sound ext2 and ext3 images for the recipes of damage: frames made by mke2fs, filled through ext3 or debugfs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ext3
from ext3.constants import S_IFIFO
from ext3.edit.filesystem import WritableFilesystem

from .damage import tool

__all__ = ["BASES", "Base", "base_image"]

SECONDS = 1_700_000_000
UUID = "6f1d3a52-0000-4000-8000-00000000c0de"
ACL = bytes.fromhex("02000000 01000600ffffffff 02000700e8030000 04000400ffffffff 10000700ffffffff 20000400ffffffff")


@dataclass(frozen=True, slots=True)
class Base:
    """``words``: options of mke2fs; ``blocks``: size; ``fill``: what is put in, given the path of the image."""

    words: str
    blocks: int
    fill: Callable[[Path], None]


def _clock() -> int:
    return SECONDS * 10**9


def _tree(image: Path) -> None:
    with ext3.Filesystem.open(image, "r+", clock=_clock) as fs:
        _fill(fs)
        if fs.superblock.block_size == 1024 and fs.superblock.blocks_count > 4000:
            fs.mkdir("/htree")
            for number in range(300):
                fs.write_bytes(f"/htree/name-{number:04}-{'x' * (number % 9)}", b"")


def _deep(image: Path) -> None:
    """A directory whose index has two levels."""
    with ext3.Filesystem.open(image, "r+", clock=_clock) as fs:
        _fill(fs)
        fs.mkdir("/htree")
        fs.write_bytes("/htree/first", b"")
        for number in range(700):
            fs.link("/htree/first", f"/htree/{number:04}-{'long' * 58}")


def _fill(fs: WritableFilesystem) -> None:
    size = fs.superblock.block_size
    for path in ("/dir", "/dir/sub", "/dir/sub/deep", "/empty-dir", "/other"):
        fs.mkdir(path)
    for number in range(6):
        fs.write_bytes(f"/dir/file-{number}", bytes((65 + number,)) * (number * 700))
    fs.write_bytes("/file", b"file" * (5 * size // 4))
    fs.write_bytes("/twin", b"twin" * (3 * size // 4 + 100))
    fs.write_bytes("/third", b"3rd." * (4 * size // 4))
    fs.write_bytes("/empty", b"")
    fs.write_bytes("/large", b"".join(number.to_bytes(4, "big") * (size // 4) for number in range(12 + size // 4 + 12)))
    fs.write_bytes("/sparse", b"begin")
    pointers = size // 4
    with fs.open_file("/sparse", "r+") as file:
        file.write_at((12 + pointers + 3) * size, b"double")
        file.write_at((12 + pointers + pointers**2 + 3) * size, b"triple")
    fs.symlink("file", "/fast")
    fs.symlink("dir/sub/" + "x/" * 60, "/slow")
    fs.mknod("/chr", 0o020600, (300, 70_000))
    fs.mknod("/blk", 0o060600, (7, 1))
    fs.mknod("/fifo", S_IFIFO | 0o600)
    fs.mknod("/sock", 0o140600)
    fs.link("/file", "/dir/hard")
    for path in ("/file", "/dir", "/third"):
        fs.set_xattr(path, b"user.t", b"same value" * 20, follow=False)
        fs.set_xattr(path, b"security.s", b"v" * (size // 3), follow=False)
    fs.set_xattr("/twin", b"user.short", b"in the inode")
    fs.set_xattr("/twin", b"user.more", b"m" * 8)
    fs.set_xattr("/other", b"system.posix_acl_default", ACL)


def _old(image: Path) -> None:
    """The same in small, through debugfs: revision 0 has no feature that ext3 could use."""
    with tempfile.TemporaryDirectory(prefix="sound-") as directory:
        data = Path(directory, "data")
        data.write_bytes(b"old." * 5000)
        script = f"""mkdir dir
mkdir dir/sub
write {data} file
write {data} dir/file-1
write {data} twin
symlink fast file
symlink slow {"x/" * 60}
mknod chr c 4 5
mknod fifo p
"""
        tool("debugfs", "-w", "-f", "-", image, stdin=script.encode())
    # debugfs writes no file type into a file system without the feature, and creates root-owned files of the host's time
    tool("e2fsck", "-fy", image, ok=(0, 1))


BASES = {
    "ext3": Base("-t ext3 -b 1024 -I 256 -g 4096 -N 768 -J size=1", 12288, _tree),
    "ext3-128": Base("-t ext3 -b 1024 -I 128 -g 4096 -N 768 -J size=1", 12288, _tree),
    "ext2": Base("-t ext2 -b 1024 -I 128 -g 2048 -N 768", 8192, _tree),
    "ext2-256": Base("-t ext2 -b 1024 -I 256 -g 2048 -N 768", 8192, _tree),
    "wide": Base("-t ext3 -b 1024 -I 256 -N 512 -J size=1", 12288, _tree),
    "4k": Base("-t ext3 -b 4096 -I 256 -N 256 -J size=4", 3072, _tree),
    "2k": Base("-t ext2 -b 2048 -I 256 -N 256", 2048, _tree),
    "meta_bg": Base("-t ext3 -b 1024 -I 256 -g 256 -N 1024 -O meta_bg,^resize_inode -J size=1", 10240, _tree),
    "bare": Base("-t ext2 -b 1024 -I 128 -g 2048 -N 768 -O none", 8192, _old),
    "rev0": Base("-r 0 -b 1024 -g 2048 -N 256", 6144, _old),
    "deep": Base("-t ext2 -b 1024 -I 128 -N 64", 2048, _deep),
}
"""Images by name. They have 1 KiB blocks where the name does not say otherwise."""


@cache
def base_image(name: str) -> bytes:
    """Return the sound image of that name; it is made once per process."""
    base = BASES[name]
    with tempfile.TemporaryDirectory(prefix="sound-") as directory:
        image = Path(directory, "image")
        options = [*base.words.split(), "-q", "-F", "-U", UUID, "-m", "0"]
        if "-r" not in options:
            options += ["-E", f"hash_seed={UUID},nodiscard"]
        tool("mke2fs", *options, image, base.blocks)
        base.fill(image)
        return image.read_bytes()
