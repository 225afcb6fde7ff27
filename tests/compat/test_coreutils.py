"""Real coreutils and our commands, case by case on the same tree: words, exit codes and what is left."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
from pathlib import Path

import pytest

from ext3 import Filesystem
from ext3.device.base import FileDevice
from sifkit.cli import main

from ..support.coreutils_cases import CASES, IMAGE, Case, make_tree, words_on_image
from ..support.tools import assert_clean, kernel_mount, requires_root, run

pytestmark = requires_root  # owners, and a mount

Facts = dict[str, tuple[object, ...]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("coreutils")
    (top / "tree").mkdir()
    make_tree(top / "tree")
    path = top / "base.img"
    options = ["--size", "6M", "--layout", "upper", "--from-dir", str(top / "tree")]
    assert main(["-q", "overlay", "create", *options, str(path)]) == 0
    return path


def facts_of_tree(top: Path) -> Facts:
    """Type, mode, owner and content of each file, and which names are one file."""
    found: Facts = {}
    names: dict[int, list[str]] = {}
    for directory, below, files in os.walk(top):
        for name in [*below, *files]:
            path = Path(directory, name)
            status = path.lstat()
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            elif path.is_symlink():
                content = os.readlink(path).encode()
            shown = str(path.relative_to(top))
            found[shown] = (status.st_mode, status.st_uid, status.st_gid, content)
            if not stat.S_ISDIR(status.st_mode):
                names.setdefault(status.st_ino, []).append(shown)
    return found | {f"links of {min(group)}": tuple(sorted(group)) for group in names.values()}


def facts_of_image(path: Path) -> Facts:
    found: Facts = {}
    names: dict[int, list[str]] = {}
    with Filesystem.open(path) as fs:
        for name, entry in fs.walk("/upper"):
            status = fs.stat(entry.ino)
            content: object = None
            if stat.S_ISREG(status.mode):
                content = fs.read_bytes(entry.ino)
            elif status.is_symlink:
                content = fs.readlink(entry.ino)
            shown = os.fsdecode(name)
            found[shown] = (status.mode, status.uid, status.gid, content)
            if not status.is_dir:
                names.setdefault(entry.ino, []).append(shown)
    return found | {f"links of {min(group)}": tuple(sorted(group)) for group in names.values()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_coreutils_do_the_same(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    tree, image = tmp_path / "tree", tmp_path / IMAGE
    tree.mkdir()
    make_tree(tree)
    shutil.copy(base, image)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FileDevice, "sync", lambda device: None)
    verb, *rest = case.line.split()
    done = run(verb, *rest, cwd=tree, ok=range(256))
    assert main(words_on_image(case.line)) == case.code
    lines = [line for line in done.stderr.decode().splitlines() if not line.startswith("Try ")]
    words = tuple(line.partition(": ")[2] for line in lines)
    if "code" not in case.but:
        assert done.returncode == case.code
    if "words" not in case.but:
        assert words in (case.words, case.or_words)
    if "tree" not in case.but:
        assert facts_of_image(image) == facts_of_tree(tree)
    assert_clean(image)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An ACL as the system calls have it: (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY_IN_PARTICULAR = 0xFFFFFFFF
ACCESS = acl(
    (1, 6, NOBODY_IN_PARTICULAR),
    (2, 4, 1234),
    (4, 4, NOBODY_IN_PARTICULAR),
    (16, 6, NOBODY_IN_PARTICULAR),
    (32, 0, NOBODY_IN_PARTICULAR),
)


def _data_of(path: Path) -> list[tuple[int, int]]:
    """Where a file has data."""
    found: list[tuple[int, int]] = []
    if not path.is_file() or path.is_symlink():
        return found
    with path.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return found
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, end))


def everything(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    names = sorted(os.listxattr(path, follow_symlinks=False))
    values = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_nlink, _data_of(path), values


@pytest.mark.parametrize("options", [["-a"], ["-rp"], ["-r"]])
def test_what_a_copy_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    """Times, ACLs, attributes, hard links, holes: the image's copy beside that of cp, both seen by the kernel."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "f").write_bytes(b"x" * 9000)
    os.link(source / "f", source / "d" / "twin")
    (source / "l").symlink_to("f")
    with (source / "holes").open("wb") as file:
        for place in (0, 1 << 20, (3 << 20) - 4096):
            file.seek(place)
            file.write(b"y" * 4096)
    os.truncate(source / "holes", 4 << 20)
    try:
        os.setxattr(source / "f", "user.k", b"\0v")
        os.setxattr(source / "f", "system.posix_acl_access", ACCESS)
        os.setxattr(source / "d", "system.posix_acl_default", ACCESS)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("the filesystem of the tests has no ACLs")
    os.chmod(source / "holes", 0o2751)
    os.chown(source / "holes", 5, 6)
    assert main(["-q", "overlay", "create", "--size", "32M", "-b", "4096", "o.img"]) == 0
    for name in ("f", "holes", "d", "l"):
        os.utime(source / name, ns=(1_500_000_000_000_000_001, 1_600_000_000_123_456_789), follow_symlinks=False)
    run("cp", *options, "source", "theirs")
    assert main(["cp", *options, "source", "o.img:/upper/ours"]) == 0
    assert_clean(tmp_path / "o.img")
    kept = "p" in options[0] or "a" in options[0]
    with kernel_mount(tmp_path / "o.img") as point:
        for name in ("f", "d/twin", "l", "holes", "d"):
            ours, theirs = everything(point / "upper" / "ours" / name), everything(tmp_path / "theirs" / name)
            if not kept:
                ours, theirs = (*ours[:3], *ours[4:]), (*theirs[:3], *theirs[4:])
            assert ours == theirs, name
