"""Runs with images that are not as a clean unmount leaves them: dirty, unchecked, damaged, or with marks of others."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ext3.edit.filesystem import WritableFilesystem
from sifkit.runtime.planning.run_plan import Layer, RunPlan, Upper, Way
from tests.support.containers import sif_of
from tests.support.plan_runner import plan_of, run_plan
from tests.support.squashfs_images import make_squashfs
from tests.support.tools import assert_clean, requires_root, run

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

USER = 4321
WAYS: tuple[Way, ...] = ("root", "user")
SHOW = "cd /app; ls -A . sub; cat message.txt"
BASE = ".:\nmessage.txt\nsub\n\nsub:\none\nbase\n"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory that every user can read, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="sifkit-states-") as found:
        os.chmod(found, 0o755)
        yield Path(found)


@pytest.fixture(scope="module")
def base(folder: Path) -> Layer:
    root = folder / "root"
    (root / "app/sub").mkdir(parents=True)
    (root / "app/message.txt").write_text("base\n")
    (root / "app/sub/one").write_text("1\n")
    return Layer(path=str(make_squashfs(root, folder / "image.sqfs")), kind="squashfs")


@pytest.fixture
def image(folder: Path) -> Iterator[Path]:
    """An overlay of the plain user's."""
    found = folder / "overlay.img"
    run("mke2fs", "-q", "-t", "ext3", "-E", f"root_owner={USER}:{USER}", found, "8M")
    with edited(found) as fs:
        for name in ("/upper", "/work"):
            fs.mkdir(name, uid=USER, gid=USER)
    os.chown(found, USER, USER)
    yield found
    found.unlink()


@contextmanager
def edited(image: Path) -> Iterator[WritableFilesystem]:
    with WritableFilesystem.open_for_changes(image) as fs:
        yield fs


def started(way: Way, script: str, base: Layer, image: Path, *, write: bool = True) -> tuple[int, str, str]:
    """Run a script with an image that is written to or read, as root or a plain user."""
    words = ["sh", "-c", script]
    over = Layer(path=str(image), kind="ext3", subdirectory="upper", has_marks=True)
    plan: RunPlan
    if write:
        plan = plan_of(way, words, [base], Upper(kind="image", path=str(image)))
    else:
        plan = plan_of("view" if way == "user" else way, words, [base, over])
    return run_plan(plan, image.parent, uid=USER if way == "user" else 0)


def set_superblock(image: Path, **values: int) -> None:
    for name, value in values.items():
        run("debugfs", "-w", "-R", f"ssv {name} {value}", image)


def make_dirty(image: Path, change: Callable[[WritableFilesystem], None]) -> None:
    """Make a change that is in the journal only, as after a kill."""
    filesystem = WritableFilesystem.open_for_changes(image, late_checkpoint=True)
    change(filesystem)
    filesystem.sync()
    raw = image.read_bytes()
    filesystem.close()
    image.write_bytes(raw)
    assert b"needs_recovery" in run("dumpe2fs", "-h", image).stdout


@contextmanager
def read_only(image: Path) -> Iterator[None]:
    """The image's file on a read-only mount, which stops root, too."""
    run("mount", "--bind", image, image)
    run("mount", "-o", "remount,bind,ro", image)
    try:
        yield
    finally:
        run("umount", image)


@pytest.mark.parametrize("way", WAYS)
def test_what_was_not_unmounted_cleanly_is_checked_before_it_is_written_to(way: Way, base: Layer, image: Path) -> None:
    set_superblock(image, state=0)
    run("debugfs", "-w", "-R", "setb 3000 5", image)
    before = image.read_bytes()
    code, out, err = started(way, SHOW, base, image, write=False)
    assert (code, out) == (0, BASE) and image.read_bytes() == before
    assert err == f"note: {image} was not unmounted cleanly, or has errors; check it with: sifkit overlay fsck -p {image}\n"
    code, out, err = started(way, "echo x >/app/new && cat /app/new", base, image)
    assert (code, out) == (0, "x\n")
    assert f"note: {image} was not unmounted cleanly, or has errors; it is checked first\n" in err and " repairs" in err
    assert_clean(image)


@pytest.mark.parametrize("way", WAYS)
def test_damage_that_needs_a_decision_stops_a_writable_run(way: Way, base: Layer, image: Path) -> None:
    with edited(image) as fs:
        fs.mkdir("/upper/lost")
        fs.write_bytes("/upper/lost/file", b"x")
    run("debugfs", "-w", "-R", "clri /upper/lost", image)
    set_superblock(image, state=2)
    code, out, err = started(way, "echo ran", base, image)
    assert (code, out) == (255, "") and f"repair it with: sifkit overlay fsck {image}\n" in err.replace(" \n", "\n")


def test_partitions_are_checked_and_named(base: Layer, image: Path) -> None:
    set_superblock(image, state=0)
    sif = sif_of(image.parent / "over.sif", Path(base.path), image)
    with sif.open("rb") as file:
        offset = file.read().index(image.read_bytes())
    layer = Layer(path=str(sif), kind="ext3", offset=offset, size=8 << 20, object_id=2, subdirectory="upper", has_marks=True)
    upper = Upper(kind="image", path=str(sif), offset=offset, size=8 << 20, object_id=2)
    code, _, err = run_plan(plan_of("root", ["true"], [base, layer]), image.parent)
    assert code == 0 and f"{sif}, object 2 was not unmounted" in err
    assert f"sifkit overlay fsck -p --partition 2 {sif}\n" in err
    for way in WAYS:
        code, _, err = run_plan(plan_of(way, ["touch", "/app/new"], [base], upper), image.parent)
        assert code == 0 and ("checked first" in err) == (way == "root")
    assert_clean(sif, offset, size=8 << 20)
    moved = upper._replace(offset=offset + 4096)
    code, _, err = run_plan(plan_of("root", ["true"], [base], moved), image.parent)
    assert code == 255 and "was changed by another process" in err
    sif.unlink()


@pytest.mark.parametrize(
    ("way", "allowed"),
    [("root", "write"), ("root", "read"), ("root", "nothing but reading"), ("user", "read"), ("user", "nothing but reading")],
)
def test_a_journal_is_replayed_or_read_through(base: Layer, image: Path, way: Way, allowed: str) -> None:
    def change(fs: WritableFilesystem) -> None:
        fs.mkdir("/upper/app", uid=USER, gid=USER)
        fs.write_bytes("/upper/app/message.txt", b"from the journal\n")

    make_dirty(image, change)
    raw = image.read_bytes()
    wanted = (0, BASE.replace("base", "from the journal"), "")
    if allowed == "nothing but reading":
        with read_only(image):
            assert started(way, SHOW, base, image, write=False) == wanted
        assert image.read_bytes() == raw
    else:
        assert started(way, SHOW, base, image, write=allowed == "write") == wanted
        assert_clean(image)


def test_a_journal_that_cannot_be_read_is_never_ignored(base: Layer, image: Path) -> None:
    make_dirty(image, lambda fs: fs.write_bytes("/upper/new", b"x"))
    run("debugfs", "-w", "-R", "sif <8> block[0] 7", image)
    for way, write in (("root", False), ("user", True)):
        code, out, err = started(way, "ls /new", base, image, write=write)
        assert (code, out) == (255, "") and "sifkit overlay fsck" in err


def marks_of_users(fs: WritableFilesystem) -> None:
    fs.mkdir("/upper/app", uid=USER, gid=USER)
    fs.write_bytes("/upper/app/.wh.message.txt", b"")
    fs.mkdir("/upper/app/sub", uid=USER, gid=USER)
    fs.set_xattr("/upper/app/sub", b"user.overlay.opaque", b"y")
    fs.write_bytes("/upper/app/sub/two", b"")


def test_marks_of_plain_users_hold_for_root(base: Layer, image: Path) -> None:
    with edited(image) as fs:
        marks_of_users(fs)
    script = "cd /app; ls -A . sub"
    shown = ".:\nsub\n\nsub:\ntwo\n"
    raw = image.read_bytes()
    assert started("root", script, base, image, write=False) == (0, shown, "")
    over = Layer(path=str(image), kind="ext3", subdirectory="upper", has_marks=True)
    changes = "cd /app; stat -c %u sub; echo x >>sub/two; mv sub/two two; rmdir sub; mkdir sub; ls -A . sub; stat -c %u two"
    plan = plan_of("root", ["sh", "-c", changes], [base, over], Upper(kind="tmpfs"))
    assert run_plan(plan, image.parent) == (0, f"{USER}\n.:\nsub\ntwo\n\nsub:\n0\n", "")
    assert image.read_bytes() == raw
    code, out, err = started("root", script, base, image)
    assert (code, out) == (0, shown) and "marks of removed files" in err and err.count("\n") == 1
    assert_clean(image)
    for way in WAYS:
        assert started(way, script, base, image) == (0, shown, "")


def test_an_image_that_is_searched_by_walking(base: Layer, folder: Path) -> None:
    """The descriptors of its groups are elsewhere (meta_bg)."""
    image = folder / "unusual.img"
    run("mke2fs", "-q", "-t", "ext3", "-O", "meta_bg,^resize_inode", image, "8M")
    with edited(image) as fs:
        fs.mkdir("/upper")
        marks_of_users(fs)
    code, out, err = started("root", "ls -A /app", base, image)
    assert (code, out) == (0, "sub\n") and "marks of removed files" in err
    with edited(image) as fs:
        fs.set_xattr("/upper/app/sub", b"user.overlay.redirect", b"/app")
    code, _, err = run_plan(plan_of("user", ["true"], [base], Upper(kind="image", path=str(image))), folder)
    assert code == 255 and "cannot be written to" in err


def test_redirects_and_metacopies_are_read_and_never_written_over(base: Layer, image: Path) -> None:
    with edited(image) as fs:
        fs.mkdir("/upper/moved", uid=USER, gid=USER)
        fs.set_xattr("/upper/moved", b"trusted.overlay.redirect", b"/app")
        fs.mkdir("/upper/app", uid=USER, gid=USER)
        fs.write_bytes("/upper/app/message.txt", b"")
        fs.truncate("/upper/app/message.txt", 5)
        fs.set_xattr("/upper/app/message.txt", b"user.overlay.metacopy", b"")
    raw = image.read_bytes()
    for way in WAYS:
        found = started(way, "cat /app/message.txt /moved/message.txt /moved/sub/one", base, image, write=False)
        assert found == (0, "base\nbase\n1\n", "")
        code, out, err = started(way, "echo ran", base, image)
        assert (code, out) == (255, "") and "cannot be written to" in err and ":ro" in err
    assert image.read_bytes() == raw


def directory_with_marks(top: Path, uid: int) -> None:
    """A directory overlay as fuse-overlayfs leaves it: a removed file and a replaced directory."""
    (top / "upper/app/sub").mkdir(parents=True)
    (top / "work").mkdir()
    for name in (".wh.message.txt", "sub/.wh..wh..opq", "sub/two"):
        (top / "upper/app" / name).touch()
    os.mknod(top / "upper/app/sub/.wh..opq", 0o20000)
    for path in (top, *top.rglob("*")):
        os.chown(path, uid, uid)


@pytest.mark.parametrize("way", WAYS)
def test_directories_with_marks_of_fuse_overlayfs(way: Way, base: Layer, folder: Path) -> None:
    top = folder / f"directory-{way}"
    uid = USER if way == "user" else 0
    directory_with_marks(top, uid)
    words, shown = ["sh", "-c", "cd /app; ls -A . sub"], ".:\nsub\n\nsub:\ntwo\n"
    read = Layer(path=str(top), kind="directory", subdirectory="upper", has_marks=True)
    plan = plan_of("view" if way == "user" else way, words, [base, read])
    assert run_plan(plan, folder, uid=uid) == (0, shown, "")
    assert (top / "upper/app/.wh.message.txt").exists()
    plan = plan_of(way, words, [base], Upper(kind="directory", path=str(top)))
    code, out, err = run_plan(plan, folder, uid=uid)
    assert (code, out) == (0, shown) and err.count("\n") == 1 and "marks of removed files" in err
    assert (top / "upper/app/message.txt").is_char_device() and os.listdir(top / "upper/app/sub") == ["two"]
    if way == "user":  # root's overlayfs does not know user.overlay.opaque
        code, out, err = run_plan(plan._replace(way="root"), folder)
        assert (code, out) == (0, shown) and "marks of removed files" in err


def test_squashfs_layers_with_marks_hold_for_root(base: Layer, folder: Path) -> None:
    directory_with_marks(folder / "squashed", 0)
    image = make_squashfs(folder / "squashed/upper", folder / "over.sqfs")
    layer = Layer(path=str(image), kind="squashfs", has_marks=True)
    found = run_plan(plan_of("root", ["sh", "-c", "cd /app; ls -A . sub"], [base, layer]), folder)
    assert found == (0, ".:\nsub\n\nsub:\ntwo\n", "")
