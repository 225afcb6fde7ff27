"""Our empty images against mke2fs's: everything dumpe2fs tells of them, but identity and times."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest

import ext3
from ext3.format.geometry import plan_geometry

from ..support.tools import assert_clean, dumpe2fs, require, run

MIB = 1 << 20
GIB = 1 << 30
SIZES = {
    "8M": 8 * MIB,
    "64M": 64 * MIB,
    "100M": 100 * MIB,
    "128M": 128 * MIB,
    "129M": 129 * MIB,
    "500M": 500 * MIB,
    "511M": 511 * MIB,
    "512M": 512 * MIB,
    "1G": GIB,
    "10G": 10 * GIB,
    "64G": 64 * GIB,
    "1T": 1024 * GIB,
}
OWN = re.compile(
    r"^(Filesystem UUID|Directory Hash Seed|Filesystem created|Last mount time|Last write time|Last checked|Lifetime writes):"
)
"""Lines that differ from one run of mke2fs to the next."""
ONLY_HEADER_FROM = 64 * GIB
"""Above this the report per group is megabytes long, and the groups are all alike."""


def facts(image: Path, size: int) -> list[str]:
    text = dumpe2fs(image, header_only=size >= ONLY_HEADER_FROM)
    return [line.rstrip() for line in text.splitlines() if not OWN.match(line)]


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize("block_size", [None, 1024, 2048, 4096], ids=lambda b: f"b{b or 'auto'}")
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_dumpe2fs_sees_no_difference(size: int, block_size: int | None, scratch: Path) -> None:
    require("mke2fs", "dumpe2fs", "e2fsck")
    if size == SIZES["1T"] and block_size in (1024, 2048):
        # mke2fs takes most of a minute to write these; -n tells the numbers it would use and writes nothing.
        compare_dry_run(size, block_size, scratch)
        return
    theirs = sparse(scratch / "theirs.img", size)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-m", "0", *(["-b", str(block_size)] if block_size else []), theirs)
    want = facts(theirs, size)
    theirs.unlink()
    ours = scratch / "ours.img"
    ext3.mkfs(ours, size, block_size=block_size)
    got = facts(ours, size)
    assert want, "dumpe2fs said nothing"
    assert not list(difflib.unified_diff(want, got, "mke2fs", "ours", n=1, lineterm=""))
    if size < ONLY_HEADER_FROM:
        assert_clean(ours)


ODD_SIZES = [3 * MIB, 5 * MIB, 8 * MIB + 5000, 8 * MIB + 100 * 1024, 65 * MIB, 777 * MIB + 321, 4 * GIB - 1]


def compare_dry_run(size: int, block_size: int, scratch: Path) -> None:
    image = sparse(scratch / "theirs.img", size)
    text = run("mke2fs", "-n", "-F", "-t", "ext3", "-m", "0", "-b", str(block_size), image).stdout.decode()
    counts = re.search(r"with (\d+) \dk blocks and (\d+) inodes", text)
    backups = re.search(r"Superblock backups stored on blocks: ([\d, \n\t]+)", text)
    assert counts, text
    assert backups, text
    geometry = plan_geometry(size, block_size=block_size)
    assert (geometry.blocks, geometry.inodes) == (int(counts[1]), int(counts[2]))
    wanted = [int(number) for number in re.findall(r"\d+", backups[1])]
    assert [geometry.first_block(group) for group in geometry.backup_groups] == wanted


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"inode_size": 128}, ["-I", "128"]),
        ({"inode_size": 512}, ["-I", "512"]),
        ({"inodes": 5000}, ["-N", "5000"]),
        ({"inodes": 100_000}, ["-N", "100000"]),
        ({"inode_ratio": 65536}, ["-i", "65536"]),
        ({"inode_ratio": 1024}, ["-i", "1024"]),
        ({"reserved_percent": 5.0}, ["-m", "5"]),
        ({"label": b"overlay"}, ["-L", "overlay"]),
        ({"journal_blocks": 2048}, ["-J", "size=2"]),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("size", ["64M", "129M"])
def test_options(size: str, options: dict[str, object], arguments: list[str], scratch: Path) -> None:
    require("mke2fs", "dumpe2fs", "e2fsck")
    theirs = sparse(scratch / "theirs.img", SIZES[size])
    run("mke2fs", "-q", "-F", "-t", "ext3", "-m", "0", *arguments, theirs)
    ours = scratch / "ours.img"
    ext3.mkfs(ours, SIZES[size], **options)  # type: ignore[arg-type]
    got, want = facts(ours, SIZES[size]), facts(theirs, SIZES[size])
    assert not list(difflib.unified_diff(want, got, "mke2fs", "ours", n=1, lineterm=""))
    assert_clean(ours)


@pytest.mark.parametrize("size", ODD_SIZES)
def test_odd_sizes(size: int, scratch: Path) -> None:
    """Sizes that are no whole blocks, or whose last group is too short to be made."""
    require("mke2fs", "dumpe2fs", "e2fsck")
    theirs = sparse(scratch / "theirs.img", size)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-m", "0", theirs)
    ours = scratch / "ours.img"
    ext3.mkfs(ours, size)
    got, want = facts(ours, size), facts(theirs, size)
    assert not list(difflib.unified_diff(want, got, "mke2fs", "ours", n=1, lineterm=""))
    assert_clean(ours)
