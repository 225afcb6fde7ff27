"""A SIF image as it is shown here, and what the kernel shows as an overlayfs mount of its layers: the same in every fact."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from sifkit.overlay.view.container import open_container
from sifkit.overlay.view.overlay_argument import parse_overlays

from ..support.containers import sif_of
from ..support.layers import facts_of_mount, facts_of_tree
from ..support.squashfs_images import make_squashfs, squashfs_mount
from ..support.tools import kernel_mount, require, run

pytestmark = [pytest.mark.compat, pytest.mark.root]


@contextmanager
def overlay_mount(point: Path, lower: list[Path], upper: Path | None = None) -> Iterator[Path]:
    """Mount layers, the highest lower one first, as Apptainer does for root."""
    point.mkdir(exist_ok=True)
    words = "lowerdir=" + ":".join(map(str, lower))
    if upper is not None:
        words += f",upperdir={upper}/upper,workdir={upper}/work"
    run("mount", "-t", "overlay", "overlay", "-o", words, point)
    try:
        yield point
    finally:
        run("umount", point)


def source_tree(top: Path) -> Path:
    for name in ("etc", "data", "usr/share/doc", "usr/share/old/sub", "opt/deep/er"):
        (top / name).mkdir(parents=True)
    for number in range(30):
        (top / "data" / f"file-{number:02}").write_bytes(b"%d\n" % number * number * 40)
    for name in ("etc/motd", "etc/passwd", "usr/share/doc/x", "usr/share/old/sub/f", "opt/deep/er/file"):
        (top / name).write_text(name)
    os.link(top / "data" / "file-01", top / "data" / "linked")
    os.symlink("../etc/motd", top / "usr" / "link")
    os.setxattr(top / "etc" / "motd", "user.note", b"base")
    os.chown(top / "etc" / "passwd", 70_000, 5)
    for path in [top, *top.rglob("*")]:
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    return top


def first_session(root: Path) -> None:
    (root / "etc" / "motd").write_text("changed")
    os.setxattr(root / "etc" / "motd", "user.other", b"upper")
    os.unlink(root / "etc" / "passwd")
    shutil.rmtree(root / "usr" / "share" / "old")
    (root / "usr" / "share" / "old").mkdir(0o711)
    (root / "usr" / "share" / "old" / "new").write_bytes(b"n" * 70_000)
    os.rename(root / "data" / "file-02", root / "data" / "moved")
    os.chmod(root / "data" / "file-03", 0o4711)
    os.unlink(root / "data" / "file-04")
    (root / "data" / "file-04").mkdir()
    (root / "added" / "deep").mkdir(parents=True)
    os.symlink("deep", root / "added" / "link")
    os.link(root / "data" / "moved", root / "added" / "hard")


def second_session(root: Path) -> None:
    shutil.rmtree(root / "added")
    (root / "added").write_text("a file now")
    (root / "etc" / "passwd").write_text("back")
    os.unlink(root / "usr" / "link")
    shutil.rmtree(root / "opt" / "deep")
    (root / "opt" / "deep").mkdir()
    os.rmdir(root / "data" / "file-04")


def test_overlays_that_the_kernel_wrote(tmp_path: Path) -> None:
    require("mksquashfs")
    squashfs = make_squashfs(source_tree(tmp_path / "source"), tmp_path / "root.sqfs", "-comp", "zstd")
    overlays = [tmp_path / "first.img", tmp_path / "second.img"]
    point = tmp_path / "merged"
    for number, work in enumerate((first_session, second_session)):
        create(overlays[number], CreateOptions(size=8 << 20))
        with ExitStack() as stack:
            root = stack.enter_context(squashfs_mount(squashfs))
            below = [stack.enter_context(kernel_mount(path)) / "upper" for path in overlays[:number]]
            upper = stack.enter_context(kernel_mount(overlays[number], rw=True))
            work(stack.enter_context(overlay_mount(point, [*below[::-1], root], upper)))
    image = sif_of(tmp_path / "image.sif", squashfs, overlays[0])
    for given in ([], overlays[1:]):
        with ExitStack() as stack:
            root = stack.enter_context(squashfs_mount(squashfs))
            layers = [stack.enter_context(kernel_mount(path)) / "upper" for path in [overlays[0], *given]]
            wanted = facts_of_mount(stack.enter_context(overlay_mount(point, [*layers[::-1], root])))
        with open_container(image, overlays=parse_overlays(list(map(str, given)))) as container:
            found = facts_of_tree(container.tree)
        assert len(found) > 40 and found == wanted
