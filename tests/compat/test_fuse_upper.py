"""An ext3 image served as the upper layer of the kernel's overlayfs, for a plain user in a user namespace."""

from __future__ import annotations

import os
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ext3
from ext3.constants import S_IFCHR
from sifkit.runtime import sys
from sifkit.runtime.fuse.ext3_backend import Ext3Backend
from tests.support.fuse_writable import writable_mount
from tests.support.plain_user import become_user
from tests.support.tools import assert_clean, kernel_mount, requires_root, run

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

USER = 1000
OPAQUE = {b"user.overlay.opaque": b"y", b"trusted.overlay.opaque": b"y"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory of the user, with a lower layer ``low``, an image and mount points."""
    with tempfile.TemporaryDirectory(prefix="sifkit-upper-") as found:
        folder = Path(found)
        (folder / "low/app/sub").mkdir(parents=True)
        (folder / "low/app/message").write_text("base\n")
        for number in range(300):
            (folder / f"low/app/sub/{number}").write_text(f"{number}\n")
        (folder / "joined").mkdir()
        run("mke2fs", "-q", "-t", "ext3", folder / "image", "16M")
        with ext3.Filesystem.open(folder / "image", "r+") as filesystem:
            for path in ("/upper", "/work", "/upper/old"):
                filesystem.mkdir(path)
        for place, _, names in os.walk(folder):
            for path in (place, *(os.path.join(place, name) for name in names)):
                os.chown(path, USER, USER)
        yield folder


def as_user(work: Callable[[], None]) -> None:
    """Call ``work`` as root of a user namespace with one user. What it imports must be imported before."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            become_user(USER)
            sys.unshare(sys.CLONE_NEWUSER | sys.CLONE_NEWNS)
            sys.write_id_maps(USER, USER, inner_uid=0, inner_gid=0)
            work()
            code = 0
        except Exception:  # noqa: BLE001 - the process ends here
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def joined(folder: Path, script: str) -> str:
    """Run a script in the lower layer and the image above it, mounted at ``joined``; return what it prints."""
    with writable_mount(folder / "image"):  # imports what the server needs
        pass

    def work() -> None:
        with writable_mount(folder / "image", stored=(USER, USER)) as mount:
            point = str(folder / "joined")
            options = f"lowerdir={folder}/low,upperdir={mount.point}/upper,workdir={mount.point}/work,userxattr"
            sys.mount("overlay", point, "overlay", 0, options)
            try:
                with open(folder / "out", "wb") as out:
                    subprocess.run(["/bin/sh", "-ec", script], cwd=point, stdout=out, check=True)
            finally:
                sys.umount(point)

    as_user(work)
    assert_clean(folder / "image")
    return (folder / "out").read_text()


def test_changes_of_the_lower_layer(folder: Path) -> None:
    script = """
        echo more >>app/message; chmod 600 app/message; stat -c '%u %a' app/message
        for number in app/sub/*; do echo x >>$number; done; cat app/sub/299
        rm app/sub/1; mv app/sub/2 app/sub/renamed; mkdir new; mv new moved; ln app/sub/3 linked
        mv app/sub/4 app/sub/5; cp -a app copy; rm -r copy/sub
    """
    assert joined(folder, script) == "0 600\n299\nx\n"
    with ext3.Filesystem.open(folder / "image") as filesystem:
        assert filesystem.read_bytes("/upper/app/message") == b"base\nmore\n"
        assert filesystem.read_bytes("/upper/app/sub/5") == b"4\nx\n"
        for name in ("1", "2", "4"):
            found = filesystem.stat(f"/upper/app/sub/{name}")
            assert (found.mode & 0o170000, found.major, found.minor) == (S_IFCHR, 0, 0)
        assert filesystem.stat("/upper/linked").links == 2
        owners = {
            filesystem.stat(f"/upper/{path}")[2:4] for path in ("moved", "app", "app/message", "copy/message", "app/sub/7")
        }
        assert owners == {(USER, USER)}
        assert filesystem.stat("/upper/old")[2:4] == (0, 0)
    assert joined(folder, "ls app/sub | wc -l; cat app/sub/renamed") == "298\n2\nx\n"


def test_replaced_directories_hide_those_below_for_every_reader(folder: Path) -> None:
    assert joined(folder, "rm -r app/sub; mkdir app/sub; echo new >app/sub/1; ls app/sub") == "1\n"
    with ext3.Filesystem.open(folder / "image") as filesystem:
        assert OPAQUE.items() <= filesystem.xattrs("/upper/app/sub").items()
    with kernel_mount(folder / "image") as upper:
        assert os.listdir(upper / "upper/app/sub") == ["1"]
        options = f"lowerdir={upper}/upper:{folder}/low"
        sys.mount("overlay", str(folder / "joined"), "overlay", sys.MS_RDONLY, options)
        try:
            assert os.listdir(folder / "joined/app/sub") == ["1"]
        finally:
            sys.umount(str(folder / "joined"))
    assert joined(folder, "rm -r app; ls") == "old\n"


def test_marks_of_other_overlays_hold(folder: Path) -> None:
    with ext3.Filesystem.open(folder / "image", "r+") as filesystem:
        filesystem.mkdir("/upper/app")
        filesystem.create("/upper/app/.wh.message")
        filesystem.mkdir("/upper/app/sub")
        filesystem.set_xattr("/upper/app/sub", b"trusted.overlay.opaque", b"y")
        filesystem.create("/upper/app/sub/only")
    assert joined(folder, "ls app app/sub; echo again >app/message; cat app/message") == "app:\nsub\n\napp/sub:\nonly\nagain\n"
    with ext3.Filesystem.open(folder / "image") as filesystem:
        assert sorted(entry.name for entry in filesystem.scandir("/upper/app")) == [b"message", b"sub"]


def test_copying_up_does_not_commit_but_fsync_does(folder: Path) -> None:
    commit = Ext3Backend.commit

    def noted(backend: Ext3Backend) -> None:
        with open(folder / "commits", "a") as file:
            file.write("x")
        commit(backend)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ext3Backend, "commit", noted)
        joined(folder, "for number in app/sub/?; do echo x >>$number; done; sync app/sub/1; sync app/sub")
    assert (folder / "commits").read_text() == "xx"
