"""What is extracted from a squashfs image is what unsquashfs makes of it, by forked processes too, and with its holes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sifkit.squashfs import Reader
from sifkit.vfs.extracting import extract

from ..support import trees
from ..support.facts import assert_same, facts_of_host
from ..support.squashfs_images import make_squashfs
from ..support.tools import require, run

pytestmark = [pytest.mark.compat, pytest.mark.root]

FORMS = {
    "gzip": ["-comp", "gzip", "-b", "64K"],
    "zstd-no-fragments": ["-comp", "zstd", "-no-fragments", "-b", "4K"],
    "stored": ["-noI", "-noD", "-noF", "-noX", "-noId", "-b", "128K"],
}
HOLE_BYTES = 50 << 20


@pytest.fixture(scope="module")
def source(sample_session: Path) -> Path:
    """A tree with one of each, files enough for two processes, large ones, and one that is almost only a hole."""
    top = trees.everything(sample_session / "extracted", big=False)
    trees.small_files(top / "small", 1024)
    (top / "large").write_bytes(trees.pattern(5 << 20, 1))
    trees.write_at(top / "hole", (20 << 20, trees.pattern(300_000, 2)), size=HOLE_BYTES)
    return top


@pytest.mark.parametrize("form", FORMS)
def test_as_unsquashfs_extracts_it(form: str, source: Path, scratch: Path) -> None:
    require("mksquashfs", "unsquashfs")
    image = make_squashfs(source, scratch / "image.sqfs", *FORMS[form])
    with Reader.open(image) as reader:
        made = extract(reader, scratch / "ours")
        node = reader.find_name(reader.root, b"large")
        assert node is not None
        with reader.open_file(node) as file:
            assert (file.host_ranges() is not None) == form.startswith("stored")
    assert (made.failed, made.problems, made.owners_left, made.xattrs_left, made.specials_left) == (0, [], 0, 0, 0)
    run("unsquashfs", "-q", "-n", "-d", scratch / "theirs", image)
    assert_same(facts_of_host(scratch / "ours"), facts_of_host(scratch / "theirs"))
    hole = os.stat(scratch / "ours" / "hole")
    assert hole.st_size == HOLE_BYTES
    assert hole.st_blocks * 512 < 2 << 20


def test_damaged_files_are_left_out_and_told(source: Path, scratch: Path) -> None:
    require("mksquashfs")
    image = make_squashfs(source, scratch / "image.sqfs", "-b", "64K")
    with Reader.open(image) as reader:
        node = reader.find_name(reader.root, b"large")
        assert node is not None
        start = reader.inode(node).start_block
    with image.open("r+b") as file:
        file.seek(start)
        file.write(bytes(100))
    with Reader.open(image) as reader:
        made = extract(reader, scratch / "ours")
    assert [path for path, _ in made.problems] == [b"/large"]
    assert f"data block at byte {start}: its gzip data is damaged" in made.problems[0][1]
    assert made.files > 1024
