"""The FUSE server's writable mounts of ext3 images, against a host directory and e2fsck."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import BinaryIO

import pytest

import ext3
from sifkit.runtime.fuse.writable_server import FULL_OF_BYTES, WritableServer
from sifkit.vfs.host_tree import HostTree
from tests.support.fuse_writable import writable_mount
from tests.support.squashfs_images import facts_of_tree
from tests.support.tools import requires_root

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
AT_FDCWD = -100


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return new_image(tmp_path, "32M")


def new_image(folder: Path, size: str, *options: str) -> Path:
    path = folder / "image"
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext3", *options, path, size], check=True)
    return path


def check(image: Path) -> None:
    """Fail unless e2fsck finds nothing wrong."""
    found = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    assert found.returncode == 0 and "wrong" not in found.stdout and "Fix?" not in found.stdout, found.stdout


def renameat2(old: Path, new: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, bytes(old), AT_FDCWD, bytes(new), ctypes.c_uint(flags)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def error_of(work: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as error:
        work()
    return error.value.errno


def test_a_copied_tree_is_as_it_was(image: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(Path(ext3.__file__).parent / "edit", root / "many/files")
    (root / "large").write_bytes(os.urandom(3 << 20) + b"end")
    (root / "link").symlink_to("many/" + "x" * 100)
    os.link(root / "large", root / "many/hard")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", 0o20640, os.makedev(1, 300))
    os.mknod(root / "gone", 0o20000, 0)
    os.chmod(root / "many", 0o3771)
    os.setxattr(root / "large", "user.note", b"x" * 300)
    os.setxattr(root / "many", "user.overlay.opaque", b"y")
    os.utime(root / "many", ns=(5 * 10**9, 2_000_000_000 * 10**9 + 7))
    with writable_mount(image) as mount:
        subprocess.run(["cp", "-a", f"{root}/.", mount.point / "copy"], check=True)
        written = facts_of_tree(HostTree(mount.point / "copy"))
        assert len(os.listdir(mount.point / "copy/many/files")) == len(os.listdir(root / "many/files"))
    assert written == facts_of_tree(HostTree(root))
    check(image)
    with writable_mount(image) as mount:
        assert facts_of_tree(HostTree(mount.point / "copy")) == written
        shutil.rmtree(mount.point / "copy")
        assert os.listdir(mount.point) == ["lost+found"]
    check(image)


def test_random_changes_of_a_file(image: Path, tmp_path: Path) -> None:
    chance = random.Random(7)
    with writable_mount(image) as mount, open(mount.point / "file", "w+b") as file, open(tmp_path / "model", "w+b") as model:
        for _ in range(600):
            at, size = chance.randrange(1 << 18), chance.randrange(1 << 15)
            action = chance.randrange(4)
            for target in (file, model):
                if action == 0:
                    target.truncate(at)
                elif action == 1:
                    target.seek(at)
                    target.write(bytes([size % 251]) * size)
            file.seek(at)
            model.seek(at)
            assert file.read(size) == model.read(size)
        model.seek(0)
        wanted = model.read()
    with writable_mount(image) as mount:
        assert (mount.point / "file").read_bytes() == wanted
    check(image)


def test_storm_of_names(image: Path, tmp_path: Path) -> None:
    """The same random calls fail, or not, in a mount and in a host directory, and leave the same tree."""
    chance = random.Random(3)
    names = [f"{a}{b}" for a in ("", "d/", "e/", "d/s/") for b in "abcds"]
    model = tmp_path / "model"
    model.mkdir()
    with writable_mount(image) as mount:
        (mount.point / "lost+found").rmdir()
        for _ in range(1500):
            kind, one, two = chance.randrange(9), chance.choice(names), chance.choice(names)
            flags = chance.choice((0, 0, NOREPLACE, EXCHANGE, WHITEOUT))
            results = [change(kind, folder, one, two, flags) for folder in (mount.point, model)]
            assert results[0] == results[1], (kind, one, two, flags)
        shown = {
            (path.relative_to(mount.point), path.lstat().st_mode, path.lstat().st_nlink) for path in mount.point.rglob("*")
        }
        wanted = {(path.relative_to(model), path.lstat().st_mode, path.lstat().st_nlink) for path in model.rglob("*")}
        directories = {item for item in shown if item[1] & 0o170000 == 0o040000}
        assert {item[:2] for item in shown} == {item[:2] for item in wanted}
        assert shown - directories <= wanted
    check(image)


def change(kind: int, folder: Path, one: str, two: str, flags: int) -> int | None:
    """Do one change below a folder; return its errno."""
    try:
        if kind <= 1:
            os.close(os.open(folder / one, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        elif kind == 2:
            os.mkdir(folder / one)
        elif kind == 3:
            os.unlink(folder / one)
        elif kind == 4:
            os.rmdir(folder / one)
        elif kind == 5:
            os.link(folder / one, folder / two, follow_symlinks=False)
        elif kind == 6:
            os.symlink(two, folder / one)
        else:
            renameat2(folder / one, folder / two, flags)
    except OSError as error:
        return error.errno
    return None


def test_files_without_names(image: Path) -> None:
    with writable_mount(image) as mount:
        free = os.statvfs(mount.point).f_ffree
        with open(mount.point / "gone", "w+b") as file:
            file.write(b"kept")
            file.flush()
            os.unlink(mount.point / "gone")
            assert os.pread(file.fileno(), 9, 0) == b"kept"
            assert os.fstat(file.fileno()).st_nlink == 0
        fd = os.open(mount.point, os.O_TMPFILE | os.O_RDWR, 0o600)
        os.write(fd, b"named late")
        os.link(f"/proc/self/fd/{fd}", mount.point / "named", src_dir_fd=fd)
        os.close(fd)
        os.close(os.open(mount.point, os.O_TMPFILE | os.O_RDWR, 0o600))
        assert (mount.point / "named").read_bytes() == b"named late"
        os.unlink(mount.point / "named")
        end = time.monotonic() + 5  # the kernel forgets files when it likes
        while os.statvfs(mount.point).f_ffree != free:
            assert time.monotonic() < end, "deleted files keep their inodes"
            time.sleep(0.01)
    check(image)


def test_names_stay_while_they_are_read_and_removed(image: Path) -> None:
    with writable_mount(image) as mount:
        for number in range(700):
            (mount.point / f"{number:0100d}").touch()
        seen = []
        with os.scandir(mount.point) as entries:
            for entry in entries:
                seen.append(entry.name)
                if entry.name != "lost+found":
                    os.unlink(entry.path)
        assert len(seen) == len(set(seen)) == 701
        assert os.listdir(mount.point) == ["lost+found"]
    check(image)


def test_xattrs_and_what_is_not_there(image: Path) -> None:
    with writable_mount(image) as mount:
        path = mount.point / "file"
        path.touch()
        os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)
        assert error_of(lambda: os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)) == errno.EEXIST
        assert error_of(lambda: os.setxattr(path, "user.b", b"2", os.XATTR_REPLACE)) == errno.ENODATA
        os.setxattr(path, "user.a", b"", os.XATTR_REPLACE)
        assert os.listxattr(path) == ["user.a"] and os.getxattr(path, "user.a") == b""
        os.removexattr(path, "user.a")
        assert error_of(lambda: os.getxattr(path, "user.a")) == errno.ENODATA
        with open(path, "r+b") as file:
            libc = ctypes.CDLL(None, use_errno=True)
            size = ctypes.c_long(4096)
            assert libc.fallocate(file.fileno(), 0, ctypes.c_long(0), size) == -1 and ctypes.get_errno() == errno.EOPNOTSUPP
    check(image)


def test_writes_of_others_drop_set_id_bits(image: Path) -> None:
    with writable_mount(image) as mount:
        mount.point.chmod(0o755)
        for name in ("write", "cut"):
            (mount.point / name).write_bytes(b"x")
            (mount.point / name).chmod(0o6777)
            os.stat(mount.point / name)
        others = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "sh", "-c"]
        subprocess.run([*others, "echo x >> write; : > cut"], cwd=mount.point, check=True)
        assert [(mount.point / name).stat().st_mode & 0o7777 for name in ("write", "cut")] == [0o777, 0o777]
    check(image)


def test_synced_data_survives_a_killed_server(image: Path) -> None:
    with writable_mount(image, kill=True) as mount:
        (mount.point / "d").mkdir()
        for number in range(200):
            (mount.point / f"d/{number}").write_bytes(bytes([number]) * 5000)
        fd = os.open(mount.point / "d", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        (mount.point / "late").write_bytes(b"x" * 100_000)
        os.unlink(mount.point / "d/0")
    with writable_mount(image) as mount:
        assert [(mount.point / f"d/{number}").read_bytes() for number in range(1, 200)] == [
            bytes([number]) * 5000 for number in range(1, 200)
        ]
    check(image)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_commit_and_the_server_goes_on(number: int, image: Path) -> None:
    with writable_mount(image, kill=True) as mount:
        (mount.point / "before").write_bytes(b"committed")
        os.kill(mount.pid, number)
        wait_for_commit(image, b"before")
        (mount.point / "after").write_bytes(b"served")
        assert (mount.point / "after").read_bytes() == b"served"
    with ext3.Filesystem.open(image, "r+") as filesystem:
        assert filesystem.read_bytes("/before") == b"committed"
    check(image)


def wait_for_commit(image: Path, name: bytes, seconds: float = 4) -> None:
    """Wait until the image holds a file, as it would be found after a crash."""
    end = time.monotonic() + seconds
    copy = image.with_name("crashed")
    while True:
        shutil.copyfile(image, copy)
        with ext3.Filesystem.open(copy, "r+") as filesystem:
            if filesystem.find_name(2, name) is not None:
                return
        assert time.monotonic() < end, "nothing was committed"
        time.sleep(0.05)


@pytest.mark.slow
def test_an_idle_mount_is_committed_after_five_seconds(image: Path) -> None:
    with writable_mount(image, kill=True) as mount:
        (mount.point / "before").write_bytes(b"committed")
        start = time.monotonic()
        wait_for_commit(image, b"before", seconds=9)
        assert time.monotonic() - start > 3


def test_a_full_image_refuses_in_write_and_keeps_what_it_took(tmp_path: Path) -> None:
    image = new_image(tmp_path, "8M", "-m", "0", "-J", "size=1")
    source = os.urandom(12 << 20)
    with writable_mount(image, expected=FULL_OF_BYTES) as mount:
        accepted = 0
        fd = os.open(mount.point / "file", os.O_CREAT | os.O_WRONLY)
        with pytest.raises(OSError) as error:
            while True:
                accepted += os.write(fd, source[accepted : accepted + (1 << 20)])
        os.close(fd)
        assert error.value.errno == errno.ENOSPC
        assert (mount.point / "file").read_bytes() == source[:accepted]
        assert os.statvfs(mount.point).f_bavail <= 4
        found = subprocess.run(["sh", "-c", "echo more > more"], cwd=mount.point, capture_output=True, check=False)
        assert found.returncode != 0
    check(image)
    with writable_mount(image) as mount:
        assert (mount.point / "file").read_bytes() == source[:accepted]
        os.unlink(mount.point / "file")
        (mount.point / "again").write_bytes(source[:accepted])
    check(image)


@pytest.fixture
def slow_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that are as slow as on a busy machine: the next request always waits when one is read."""
    wait = WritableServer.wait

    def wait_longer(server: WritableServer) -> None:
        time.sleep(0.005)
        wait(server)

    monkeypatch.setattr(WritableServer, "wait", wait_longer)


def fill(file: BinaryIO, left: int) -> None:
    """Write to a file until about ``left`` blocks are free."""
    found = os.statvfs(file.fileno())
    file.write(bytes((found.f_bavail - left) * found.f_bsize))


@pytest.mark.usefixtures("slow_server")
def test_pages_that_have_no_room_fail_when_they_are_synced(tmp_path: Path) -> None:
    image = new_image(tmp_path, "8M", "-m", "0", "-J", "size=1")
    with writable_mount(image, expected=FULL_OF_BYTES) as mount:
        with open(mount.point / "held", "wb", buffering=0) as held:
            fill(held, 40)
        with open(mount.point / "mapped", "w+b") as file:
            file.truncate(1 << 20)
            with mmap.mmap(file.fileno(), 1 << 20) as mapped:
                mapped[:] = b"x" * (1 << 20)
                assert error_of(mapped.flush) == errno.ENOSPC
        os.unlink(mount.point / "held")
        with open(mount.point / "mapped", "r+b") as file, mmap.mmap(file.fileno(), 1 << 20) as mapped:
            mapped[:] = b"y" * (1 << 20)
            mapped.flush()
    check(image)
    with writable_mount(image) as mount:
        assert (mount.point / "mapped").read_bytes() == b"y" * (1 << 20)


def write(file: BinaryIO) -> None:
    file.write(bytes(1 << 20))
    file.flush()


def write_pages(file: BinaryIO) -> None:
    with mmap.mmap(file.fileno(), 1 << 20) as mapped:
        mapped[:] = b"y" * (1 << 20)
        mapped.flush()


@pytest.mark.usefixtures("slow_server")
@pytest.mark.parametrize("use", [write, write_pages])
def test_the_blocks_of_a_removed_file_are_free_at_once(tmp_path: Path, use: Callable[[BinaryIO], None]) -> None:
    image = new_image(tmp_path, "8M", "-m", "0", "-J", "size=1")
    with writable_mount(image) as mount:
        for number in range(10):
            new = mount.point / f"new{number}"
            new.touch()
            os.truncate(new, 1 << 20)
            with open(mount.point / "held", "wb", buffering=0) as held:
                fill(held, 100)
            os.unlink(mount.point / "held")
            with open(new, "r+b") as file:
                use(file)
            os.truncate(new, 0)
    check(image)


@pytest.mark.usefixtures("slow_server")
def test_the_inode_of_a_removed_file_is_free_at_once(tmp_path: Path) -> None:
    image = new_image(tmp_path, "8M", "-N", "64")
    with writable_mount(image) as mount:
        while os.statvfs(mount.point).f_favail:
            (mount.point / f"file{os.statvfs(mount.point).f_favail}").touch()
        (mount.point / "file1").unlink()
        for _ in range(10):
            (mount.point / "new").mkdir()
            (mount.point / "new").rmdir()
    check(image)


@pytest.mark.usefixtures("slow_server")
def test_statvfs_counts_what_was_removed(tmp_path: Path) -> None:
    with writable_mount(new_image(tmp_path, "8M")) as mount:
        free = os.statvfs(mount.point).f_bavail
        for _ in range(10):
            (mount.point / "file").write_bytes(bytes(1 << 16))
            assert os.statvfs(mount.point).f_bavail < free
            (mount.point / "file").unlink()
            assert os.statvfs(mount.point).f_bavail == free


@pytest.mark.usefixtures("slow_server")
def test_a_removed_file_that_is_open_gives_no_room(tmp_path: Path) -> None:
    image = new_image(tmp_path, "8M", "-m", "0", "-J", "size=1")
    with writable_mount(image, expected=FULL_OF_BYTES) as mount, open(mount.point / "held", "w+b", buffering=0) as held:
        fill(held, 30)
        os.unlink(mount.point / "held")
        writers = [Thread(target=write_until_full, args=(mount.point / f"file{number}",)) for number in range(20)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert os.statvfs(mount.point).f_bavail < 8
        held.truncate(0)
        (mount.point / "file0").write_bytes(bytes(1 << 20))
    check(image)


def write_until_full(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        assert error_of(lambda: [file.write(bytes(4096)) for _ in range(100)]) == errno.ENOSPC


def test_the_end_of_the_largest_file(tmp_path: Path) -> None:
    """As the kernel's ext3: what fits is written, the rest refused."""
    image = new_image(tmp_path, "8M", "-b", "1024")
    largest = 17_247_252_480
    with writable_mount(image) as mount, open(mount.point / "file", "w+b", buffering=0) as file:
        assert os.pwrite(file.fileno(), b"x" * 5000, (1 << 32) - 7) == 5000
        assert os.pread(file.fileno(), 5010, (1 << 32) - 10) == bytes(3) + b"x" * 5000
        assert os.pwrite(file.fileno(), b"y" * 8192, largest - 4096) == 4096
        assert os.pread(file.fileno(), 9000, largest - 4096) == b"y" * 4096
        assert error_of(lambda: os.pwrite(file.fileno(), b"z", largest)) == errno.EFBIG
        assert error_of(lambda: os.ftruncate(file.fileno(), largest + 1)) == errno.EFBIG
        assert os.fstat(file.fileno()).st_size == largest
        os.ftruncate(file.fileno(), (1 << 32) + 2)
        assert os.fstat(file.fileno()).st_blocks <= 22
    check(image)


def test_killed_at_any_moment(image: Path) -> None:
    """Whatever was synced is there, and the journal alone makes the image consistent."""
    chance = random.Random(11)
    for turn in range(4):
        kept = f"kept{turn}"
        with writable_mount(image, kill=True) as mount:
            folder = mount.point / f"storm{turn}"
            folder.mkdir()
            for number in range(chance.randrange(100, 400)):
                change(
                    chance.randrange(9), folder, str(number % 23), str(number % 17), chance.choice((0, 0, EXCHANGE, WHITEOUT))
                )
                if number == 80:
                    (folder / kept).write_bytes(b"x" * 300_000)
                    with open(folder / kept, "rb") as file:
                        os.fsync(file.fileno())
                if number % 40 == 0:
                    os.kill(mount.pid, signal.SIGTERM)
        copy = image.with_name("replayed")
        shutil.copyfile(image, copy)
        replayed = subprocess.run(["e2fsck", "-E", "journal_only", "-p", copy], capture_output=True, text=True, check=False)
        assert replayed.returncode in (0, 1), replayed
        check_but_orphans(copy)
        with writable_mount(image) as mount:
            assert (mount.point / f"storm{turn}" / kept).read_bytes() == b"x" * 300_000
        check(image)


def check_but_orphans(image: Path) -> None:
    """Fail unless e2fsck, which may delete files without names first, finds nothing else."""
    found = subprocess.run(["e2fsck", "-p", image], capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1), found
    check(image)
