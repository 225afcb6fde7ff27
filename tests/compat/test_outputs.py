"""Outputs beside the kernel and FUSE: device nodes, and images that are mounted, stay with --force too. Links of other users
are followed as the kernel does with protected_symlinks, whatever the host has set.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from sifkit.sif import SIF, DataType, FSType, PartType

from ..support.commands import copy_tree
from ..support.sif_images import STAMP, partition
from ..support.tools import NOBODY, find, kernel_mount, require, requires_root, tool_environment, wait_until_detached
from ..support.tools import run as run_tool

Run = Callable[..., tuple[int, str]]
CONTENT = b"content\n"
STREAMS = {
    "dump": ("sif", "dump", "--force", "1", "i.sif", "-o"),
    "export": ("overlay", "export", "-f", "overlay.img", "-o"),
    "cp": ("cp", "-f", "overlay.img:/upper/f"),
}
IMAGES = {
    "create": ("overlay", "create", "--size", "4M", "-F"),
    "clone": ("overlay", "clone", "--force", "overlay.img"),
    "new": ("sif", "new", "--force"),
    "pack": ("sif", "pack", "--force", "image.d"),
}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: object) -> tuple[int, str]:
        code = main([*map(str, argv)])
        return code, capfd.readouterr().err

    return call


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SIF with a squashfs, an overlay with a file, and the SIF unpacked."""
    top = tmp_path_factory.mktemp("stock")
    with chdir(top):
        with SIF.create("i.sif", stamp=STAMP) as sif:
            sif.add(CONTENT, DataType.GENERIC)
        create("overlay.img", CreateOptions(size=4 << 20))
        (top / "f").write_bytes(CONTENT)
        assert main(["cp", "f", "overlay.img:/upper/f", "-q"]) == 0
        assert main(["sif", "unpack", "i.sif", "image.d", "-q"]) == 0
    return top


@pytest.fixture
def place(stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stock in the working directory."""
    monkeypatch.chdir(tmp_path)
    copy_tree(stock, tmp_path)
    return tmp_path


@requires_root
@pytest.mark.parametrize("command", STREAMS)
def test_streams_are_written_into_a_character_device(place: Path, run: Run, command: str) -> None:
    """``mknod n c 1 3``, another /dev/null: what is written is gone, and the node is still there, as after ``cat > n``."""
    os.mknod("n", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.symlink("n", "link")
    for name in ("n", "link"):
        assert run(*STREAMS[command], name, "-q") == (0, "")
        assert stat.S_ISCHR(os.lstat("n").st_mode) and os.path.islink("link")


@requires_root
@pytest.mark.parametrize("command", IMAGES)
@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_images_do_not_replace_devices(place: Path, run: Run, command: str, kind: int) -> None:
    os.mknod("n", kind | 0o600, os.makedev(1, 3) if kind == stat.S_IFCHR else os.makedev(259, 1 << 19))
    for argv in (IMAGES[command], [word for word in IMAGES[command] if word not in ("-F", "--force")]):
        code, err = run(*argv, "n")
        assert code == 1 and err.count("\n") == 1 and "or --force" not in err
        assert stat.S_IFMT(os.lstat("n").st_mode) == kind


@requires_root
def test_streams_are_not_written_into_a_block_device(place: Path, run: Run) -> None:
    os.mknod("n", stat.S_IFBLK | 0o600, os.makedev(259, 1 << 19))
    for command in ("dump", "export"):
        code, err = run(*STREAMS[command], "n")
        assert code == 1 and "n is a block device; give a file" in err
    assert stat.S_ISBLK(os.lstat("n").st_mode)


@requires_root
def test_extract_does_not_replace_devices_but_whiteouts(place: Path, run: Run) -> None:
    os.makedirs("out/upper")
    os.mknod("out/upper/f", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    code, err = run("extract", "-f", "overlay.img", "-C", "out")
    assert code == 1 and "/upper/f: the existing file is a character device" in err
    assert stat.S_ISCHR(os.lstat("out/upper/f").st_mode)
    os.unlink("out/upper/f")
    os.mknod("out/upper/f", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    assert run("extract", "-f", "overlay.img", "-C", "out", "-q") == (0, "")
    assert Path("out/upper/f").read_bytes() == CONTENT


@contextmanager
def fuse_mount(image: Path) -> Iterator[Path]:
    """The image served by fuse2fs, which takes no lock."""
    require("fuse2fs")
    point = image.with_name("fuse-point")
    point.mkdir()
    server = subprocess.Popen(
        [str(find("fuse2fs")), "-f", "-o", "ro", str(image), str(point)], env=tool_environment(), stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            if os.path.ismount(point):
                break
            if server.poll() is not None:
                pytest.skip("fuse2fs cannot mount here")
            time.sleep(0.05)
        yield point
    finally:
        with suppress(Exception):
            run_tool("umount", point)
        server.terminate()
        server.wait(30)


@requires_root
@pytest.mark.parametrize("how", ["kernel", "fuse"])
def test_mounted_images_are_kept(place: Path, run: Run, how: str) -> None:
    """By whatever writes over them: a commit, a truncation, an unlink."""
    assert run("cp", "f", "overlay.img:/upper/mounted.img", "-q")[0] == 0
    (place / "used").mkdir()
    used = place / "used" / "mounted.img"
    shutil.copy("overlay.img", used)
    os.link(used, "used/upper")
    with kernel_mount(used, rw=True) if how == "kernel" else fuse_mount(used) as point:
        before = used.stat()
        for argv in (
            ("overlay", "export", "-f", "overlay.img", "-o", used),
            ("overlay", "create", "-F", "--size", "4M", used),
            ("overlay", "clone", "--force", "overlay.img", used),
            ("sif", "dump", "--force", "1", "i.sif", "-o", used),
            ("cp", "-f", "overlay.img:/upper/f", used),
            ("cp", "overlay.img:/upper/mounted.img", used),
            ("cp", "-a", "overlay.img:/upper/mounted.img", used.parent),
            ("cp", "-a", "-T", "overlay.img:/upper", used.parent),
            ("extract", "-f", "overlay.img", "-C", used.parent, "/upper/mounted.img"),
            ("overlay", "export", "-f", "overlay.img", "-o", f"{used.parent}/"),
        ):
            code, err = run(*argv)
            assert code == 1 and "is in use: mounted " in err, argv
            after = used.stat()
            assert (after.st_ino, after.st_size, after.st_mtime_ns, after.st_nlink) == (
                before.st_ino, before.st_size, before.st_mtime_ns, 2,
            ), argv  # fmt: skip
        assert (point / "upper" / "f").read_bytes() == CONTENT


@requires_root
def test_a_sif_whose_squashfs_is_mounted_is_kept(place: Path, run: Run) -> None:
    require("mksquashfs")
    run_tool("mksquashfs", place / "image.d", place / "root.sqfs", "-quiet", "-no-progress")
    with SIF.create("root.sif", stamp=STAMP) as sif:
        found = sif.add("root.sqfs", DataType.PARTITION, metadata=partition(PartType.PRIMARY_SYSTEM, FSType.SQUASHFS))
    point = place / "point"
    point.mkdir()
    run_tool("mount", "-t", "squashfs", "-o", f"loop,ro,offset={found.offset}", place / "root.sif", point)
    try:
        before = os.stat("root.sif")
        for argv in (
            ("sif", "new", "--force", "root.sif"),
            ("sif", "pack", "image.d", "root.sif", "--force"),
            ("sif", "dump", "--force", "1", "i.sif", "-o", "root.sif"),
            ("overlay", "export", "-f", "overlay.img", "-o", "root.sif"),
        ):
            code, err = run(*argv)
            assert code == 1 and f"root.sif is in use: mounted at {point}" in err
            assert os.path.samestat(before, os.stat("root.sif"))
    finally:
        run_tool("umount", point)
        wait_until_detached(place / "root.sif")
    assert run("sif", "new", "--force", "root.sif", "-q")[0] == 0


@requires_root
def test_a_mounted_device_is_not_written_to(place: Path, run: Run) -> None:
    """``cp`` writes into a block device as coreutils' does, unless the kernel has it mounted."""
    shutil.copy("overlay.img", "mounted.img")
    with kernel_mount(place / "mounted.img", rw=True) as point:
        number = os.stat(point).st_dev
        os.mknod("n", stat.S_IFBLK | 0o600, number)
        code, err = run("cp", "overlay.img:/upper/f", "n")
        assert code == 1 and "Device or resource busy" in err
        assert (point / "upper" / "f").read_bytes() == CONTENT


@requires_root
@pytest.mark.parametrize("command", [*STREAMS, *IMAGES])
def test_links_of_others_in_a_shared_directory_are_not_followed(place: Path, run: Run, command: str) -> None:
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (place / "victim").touch()
    (shared / "link").symlink_to(place / "victim")
    os.mkfifo(shared / "fifo")
    for name in ("link", "fifo"):
        os.chown(shared / name, NOBODY, NOBODY, follow_symlinks=False)
    code, err = run(*{**STREAMS, **IMAGES}[command], shared / "link")
    assert code == 1 and "another user's symbolic link" in err
    assert (place / "victim").stat().st_size == 0 and (shared / "link").is_symlink()
    if command in ("dump", "export"):
        code, err = run(*STREAMS[command], shared / "fifo")
        assert code == 1 and "belongs to another user" in err


@requires_root
def test_directories_behind_links_of_others_are_not_written_into(place: Path, run: Run) -> None:
    shared, victim = place / "shared", place / "victim"
    victim.mkdir()
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "link").symlink_to(victim)
    os.chown(shared / "link", NOBODY, NOBODY, follow_symlinks=False)
    for argv in (
        ("extract", "-f", "overlay.img", "-C", shared / "link"),
        ("extract", "overlay.img", "-C", f"{shared}/link/"),
        ("overlay", "export", "-f", "overlay.img", "-o", f"{shared}/link/"),
        ("sif", "unpack", "i.sif", shared / "link"),
    ):
        code, err = run(*argv)
        assert code == 1 and "another user's symbolic link" in err, argv
    assert os.listdir(victim) == []
