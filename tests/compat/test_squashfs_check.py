"""Whatever unsquashfs finds wrong in an image, the check finds too; and it finds nothing in sound images."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from sifkit.squashfs import Reader
from sifkit.squashfs.checking import SquashfsProblem, check_squashfs

from ..support import trees
from ..support.squashfs_images import make_squashfs, squashfs_mount
from ..support.tools import require, run

pytestmark = [pytest.mark.compat, pytest.mark.root]

FORMS = {
    "gzip": ["-comp", "gzip"],
    "gzip-stored-tables": ["-comp", "gzip", "-noI", "-noId", "-noX"],
    "lz4": ["-comp", "lz4"],
    "lzma": ["-comp", "lzma"],
    "lzo": ["-comp", "lzo"],
    "xz": ["-comp", "xz", "-Xbcj", "x86"],
    "zstd": ["-comp", "zstd", "-noX"],
    "stored": ["-noI", "-noD", "-noF", "-noX", "-noId"],
}
FLIPS = 20
SOUND = {
    **FORMS,
    "gzip-options": ["-comp", "gzip", "-Xcompression-level", "3", "-Xwindow-size", "10", "-Xstrategy", "default,fixed"],
    "lz4-options": ["-comp", "lz4", "-Xhc"],
    "lzo-options": ["-comp", "lzo", "-Xalgorithm", "lzo1x_1_15"],
    "xz-options": ["-comp", "xz", "-Xdict-size", "75%", "-b", "256K"],
    "zstd-options": ["-comp", "zstd", "-Xcompression-level", "1"],
    "no-fragments": ["-no-fragments", "-no-exports"],
    "always-fragments": ["-always-use-fragments", "-no-xattrs"],
    "no-duplicates": ["-no-duplicates", "-no-sparse", "-b", "1M"],
}


@pytest.fixture(scope="module")
def source(sample_session: Path) -> Path:
    """A small tree with holes, shared content, several blocks of names, and more than one fragment."""
    top = sample_session / "checked"
    numbers = random.Random(17)

    def text(size: int) -> bytes:
        return b" ".join(b"%d" % numbers.randrange(9999) for _ in range(size // 4))

    (top / "names").mkdir(parents=True)
    for number in range(40):
        (top / "names" / f"{number} {'a very long name ' * 13}").write_bytes(text(numbers.randrange(60)))
    for name, size in (("large", 30_000), ("small", 900), ("other", 3000)):
        (top / name).write_bytes(text(size))
    shutil.copy(top / "large", top / "same")
    (top / "hard").hardlink_to(top / "large")
    (top / "link").symlink_to("names")
    trees.write_at(top / "sparse", (0, b"begin"), (50_000, b"middle"), size=90_000)
    trees.set_xattr(top / "small", "user.note", b"value" * 100)
    trees.set_xattr(top / "other", "user.note", b"value" * 100)
    return top


def problems_of(image: Path) -> list[SquashfsProblem | OSError]:
    found: list[SquashfsProblem | OSError] = []
    try:
        with Reader.open(image) as reader:
            check_squashfs(reader, on_problem=found.append, threads=1)
    except OSError as error:
        found.append(error)
    return found


@pytest.mark.parametrize("form", SOUND)
def test_sound_image_has_no_problems(form: str, source: Path, scratch: Path) -> None:
    require("mksquashfs")
    options = SOUND[form] if "-b" in SOUND[form] else [*SOUND[form], "-b", "4K"]
    assert problems_of(make_squashfs(source, scratch / "image.sqfs", *options)) == []


def test_appended_image_has_no_problems(source: Path, scratch: Path) -> None:
    require("mksquashfs")
    image = make_squashfs(source / "names", scratch / "image.sqfs")
    run("mksquashfs", source, image, "-quiet", "-no-progress")
    assert problems_of(image) == []


@pytest.mark.parametrize("form", FORMS)
def test_every_changed_bit_that_unsquashfs_finds_is_found(form: str, source: Path, scratch: Path) -> None:
    require("mksquashfs", "unsquashfs")
    image = make_squashfs(source, scratch / "image.sqfs", *FORMS[form], "-b", "4K")
    sound = image.read_bytes()
    with Reader.open(image) as reader:
        used, tables = reader.superblock.bytes_used, reader.superblock.inode_table_start
    numbers = random.Random(form)
    places = [*(numbers.randrange(96) for _ in range(4)), *(numbers.randrange(96, used) for _ in range(4))]
    places += [numbers.randrange(tables, used) for _ in range(FLIPS - len(places))]
    found = 0
    for place in places:
        bit = numbers.randrange(8)
        changed = bytearray(sound)
        changed[place] ^= 1 << bit
        image.write_bytes(changed)
        out = scratch / "out"
        judged = run("unsquashfs", "-n", "-processors", "1", "-d", out, image, cwd=scratch, ok=range(-64, 256))
        shutil.rmtree(out, ignore_errors=True)
        if judged.returncode:
            errors = [problem for problem in problems_of(image) if getattr(problem, "severity", "error") == "error"]
            assert errors, (place, bit, judged.stderr)
            found += 1
    assert found > FLIPS // 4


def test_image_that_is_cut_in_its_padding_is_not_mounted(source: Path, scratch: Path) -> None:
    require("mksquashfs")
    image = make_squashfs(source, scratch / "image.sqfs", "-nopad")
    used = image.stat().st_size
    sector = -(-used // 512) * 512
    with image.open("r+b") as file:
        file.truncate(sector)
    with squashfs_mount(image):
        assert problems_of(image) == []
    with image.open("r+b") as file:
        file.truncate(sector - 1)
    point = scratch / "point"
    point.mkdir()
    assert run("mount", "-o", "loop,ro", image, point, ok=range(256)).returncode
    assert [getattr(problem, "severity", None) for problem in problems_of(image)] == ["error"]
