"""Runs that fill what they write to: the image, memory, or the disk below a sparse image."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.runtime.planning.run_plan import Layer, Upper, Way
from tests.support.containers import sif_of
from tests.support.plan_runner import plan_of, run_plan
from tests.support.squashfs_images import make_squashfs
from tests.support.tools import assert_clean, requires_root, run

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

WAYS: tuple[Way, ...] = ("root", "user")
FILL = "head -c 6000000 /dev/zero >/fill"
LARGER = "make it larger with: "


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    folder = tmp_path_factory.mktemp("base")
    (folder / "root/app").mkdir(parents=True)
    return Layer(path=str(make_squashfs(folder / "root", folder / "image.sqfs")), kind="squashfs")


def started(way: Way, script: str, base: Layer, upper: Upper, folder: Path) -> tuple[int, str, str]:
    return run_plan(plan_of(way, ["sh", "-c", script], [base], upper), folder)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_full_image_names_the_command_that_helps(base: Layer, tmp_path: Path, way: Way, what: str) -> None:
    image = tmp_path / "a full.img"
    options, script = (("-N", "32"), "for i in $(seq 40); do : >/$i; done") if what == "inodes" else ((), FILL)
    run("mke2fs", "-q", "-t", "ext3", *options, image, "4M")
    upper = Upper(kind="image", path=str(image))
    if what == "bytes":  # too large for ext3, which says so in the same way
        xattr = "setfattr -n user.x -v $(head -c 5000 /dev/zero | tr '\\0' x) /app"
        assert "full" not in started(way, xattr, base, upper, tmp_path)[2]
    code, _, err = started(way, script, base, upper, tmp_path)
    assert code != 0 and "No space left on device" in err and err.count("is full") == 1
    assert f"note: {image} is full ({what}); {LARGER}sifkit overlay resize '{image}' --size +1G\n" in err
    words = shlex.split(err.splitlines()[-1].partition(LARGER)[2].replace("+1G", "+8M"))
    assert main(["-q", *words[1:]]) == 0
    assert started(way, script, base, upper, tmp_path) == (0, "", "")
    assert_clean(image)


def test_a_full_partition_is_named(base: Layer, tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    run("mke2fs", "-q", "-t", "ext3", image, "4M")
    sif = sif_of(tmp_path / "a.sif", Path(base.path), image)
    offset = sif.read_bytes().index(image.read_bytes())
    upper = Upper(kind="image", path=str(sif), offset=offset, size=4 << 20, object_id=2)
    _, _, err = started("root", FILL, base, upper, tmp_path)
    assert f"{sif}, object 2 is full (bytes); {LARGER}sifkit overlay resize --partition 2 {sif} --size +1G\n" in err
    words = shlex.split(err.splitlines()[-1].partition(LARGER)[2].replace("+1G", "+4M"))
    assert main(["-q", *words[1:]]) == 0
    assert_clean(sif, offset, size=8 << 20)


@pytest.mark.parametrize("way", WAYS)
def test_full_memory_names_its_option(base: Layer, tmp_path: Path, way: Way) -> None:
    upper = Upper(kind="tmpfs", size=4 << 20)
    _, _, err = started(way, FILL, base, upper, tmp_path)
    assert err.endswith("note: the memory for changes (4 MiB) is full: give it more with --tmpfs-size 8M\n")
    assert started(way, "echo x >/fill", base, upper, tmp_path) == (0, "", "")


@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk_below_a_sparse_image(base: Layer, tmp_path: Path, way: Way) -> None:
    """Synced data is there; the exit code says that the rest is not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=2m", "none", disk)
    try:
        image = disk / "a.img"
        run("mke2fs", "-q", "-t", "ext3", image, "16M")
        script = f"echo synced >/app/first; sync /app/first; {FILL} 2>/dev/null; echo lost >/app/second; echo end"
        code, out, err = started(way, script, base, Upper(kind="image", path=str(image)), tmp_path)
        assert (code, out) == (255, "end\n") and f"{image}: the last changes could not be written" in err
        assert "is full" not in err and "free space" in err
        copy = tmp_path / "copy.img"
        run("cp", "--sparse=always", image, copy)
        code, out, err = started(way, "true", base, Upper(kind="image", path=str(image)), tmp_path)
        assert (code, out) == (255, "") and "free space on its disk" in err and err.count("\n") == 1
        read = Layer(path=str(image), kind="ext3", subdirectory="upper")
        assert run_plan(plan_of(way, ["cat", "/app/first"], [base, read]), tmp_path) == (0, "synced\n", "")
    finally:
        run("umount", disk)
    run("e2fsck", "-fp", copy, ok=(0, 1))
    assert run("debugfs", "-R", "cat /upper/app/first", copy).stdout == b"synced\n"
