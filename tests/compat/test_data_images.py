"""Binds of directories and files in images, as root and as a plain user, by the kernel, by FUSE, and unpacked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sifkit.sif import SIF, DataType, FSType, PartType

from ..support.containers import sif_of
from ..support.plain_user import USER, run_sifkit, user_directory
from ..support.program_tree import write_program_tree
from ..support.sif_images import partition
from ..support.squashfs_images import make_squashfs
from ..support.tools import assert_clean, require, requires_root, run
from .test_run_without_fuse import run_without_fuse

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

SCRIPT = """
cat /set/motd /one; ls /two; cat /three/motd
echo changed > /two/new; chmod 640 /two/new; mv /two/new /two/kept
for place in /set /three /two/read; do echo x > $place/x; done
"""
"""Commands that run with the binds of the test."""
READ = "motd\nmotd\nfile\nread\nmotd\n"


@pytest.fixture(scope="module")
def images() -> Iterator[Path]:
    """A directory of a user with base.sif, the directory box with the same files, and data in images of each kind."""
    require("mke2fs", "mksquashfs")
    with user_directory(USER) as top:
        root = write_program_tree(top / "box")
        sif_of(top / "base.sif", make_squashfs(root, top / "root.sqfs"))
        data = top / "data"
        (data / "set").mkdir(parents=True)
        (data / "set/motd").write_text("motd\n")
        (data / "up").symlink_to("../../../set")
        (data / "host").symlink_to(top)
        written = top / "tree"
        (written / "sub/read").mkdir(parents=True)
        (written / "sub/file").touch()
        make_squashfs(data, top / "data.sqfs")
        run("mke2fs", "-q", "-t", "ext3", "-E", f"root_owner={USER}:{USER}", "-d", written, top / "data.img", "4M")
        run("mke2fs", "-q", "-t", "ext3", "-d", data, top / "inner.img", "4M")
        with SIF.create(top / "data.sif") as sif:
            sif.add(top / "data.sqfs", DataType.PARTITION, metadata=partition(PartType.DATA))
            sif.add(top / "inner.img", DataType.PARTITION, metadata=partition(PartType.DATA, FSType.EXT3))
        run("chown", "-hR", f"{USER}:{USER}", top)
        yield top


def binds(*specs: str) -> list[str]:
    return [word for spec in specs for word in ("-B", spec)]


@pytest.mark.parametrize(
    ("uid", "image"), [(0, "base.sif"), (USER, "base.sif"), (USER, "box")], ids=["root", "user", "user-directory"]
)
def test_images_of_each_kind(images: Path, tmp_path: Path, uid: int, image: str) -> None:
    shutil.copy(images / "data.img", images / "a.img")
    os.chown(images / "a.img", uid, uid)
    given = binds(
        "data.sqfs:/set:image-src=/up",
        "data.sqfs:/one:image-src=set/motd",
        "a.img:/two:image-src=/sub",
        "a.img:/two/read:image-src=/sub/read,ro",
        "data.sif:/three:image-src=/set,id=2,ro",
    )
    code, out, err = run_sifkit(uid, images, "exec", *given, image, "sh", "-c", SCRIPT)
    assert (code, out) == (2, READ) and err.count("Read-only file system") == 3 and "warning" not in err
    assert_clean(images / "a.img")
    run("debugfs", "-R", f"dump /sub/kept {tmp_path}/kept", images / "a.img")
    assert (tmp_path / "kept").read_text() == "changed\n"
    code, out, err = run_sifkit(uid, images, "exec", *binds("data.sqfs:/set:image-src=/host"), image, "ls", "/set")
    assert (code, out) == (255, "") and f"/host in {images}/data.sqfs: no such file or directory" in err


@pytest.mark.parametrize("way", ["root", "data", "overlay"])
def test_an_image_that_the_kernel_does_not_mount(images: Path, way: str) -> None:
    """The error names it, and the command that finds what is wrong."""
    cut = images / "cut.sqfs"
    whole = (images / "root.sqfs").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    words = {
        "root": ["cut.sqfs"],
        "data": [*binds("cut.sqfs:/set:image-src=/"), "box"],
        "overlay": ["-o", "cut.sqfs:ro", "box"],
    }
    code, _, err = run_sifkit(0, images, "exec", *words[way], "ls")
    assert code == 255 and err.startswith(f"sifkit exec: {cut} cannot be mounted: ")
    assert f"; check it with: sifkit check {cut}" in err and "/dev/loop" not in err and "session" not in err


def test_without_fuse_images_are_unpacked(images: Path) -> None:
    given = binds("data.sqfs:/set:image-src=/up", "data.sif:/one:image-src=/set/motd,id=2,ro")
    script = "cat /set/motd /one; touch /set/x"
    code, out, err = run_without_fuse(USER, images, "exec", *given, "box", "sh", "-c", script)
    assert (code, out) == (1, "motd\nmotd\n") and "Read-only file system" in err and "data.sqfs is unpacked in" in err
    code, out, err = run_without_fuse(USER, images, "exec", *binds("data.img:/set:image-src=/"), "box", "ls")
    assert (code, out) == (255, "") and "data.img cannot be written to on this host" in err
