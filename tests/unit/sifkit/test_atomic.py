"""AtomicFile: a file appears whole or not at all, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import signal
import stat

import pytest

from sifkit import atomic
from sifkit.atomic import AtomicFile
from sifkit.errors import TargetError
from sifkit.replacing import ANY_FILE

from ...support.platforms import linux_locks

unnamed = pytest.mark.parametrize("kind", ["unnamed"], indirect=True)
unprivileged = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")


@pytest.fixture(params=["unnamed", "named"], autouse=True)
def kind(request, monkeypatch, tmp_path):
    """Files without a name where there are such, and the ones with a temporary name that are everywhere."""
    if request.param == "named":
        monkeypatch.setattr(atomic, "_open_unnamed", lambda directory: -1)
    else:
        fd = atomic._open_unnamed(str(tmp_path))
        if fd < 0:
            pytest.skip("no files without a name here")
        os.close(fd)
    return request.param


def write(path, data=b"new", *, replace=False, mode=0o600):
    with AtomicFile(path, mode) as file:
        os.write(file.fd, data)
        file.commit(ANY_FILE if replace else None)


def test_appears_with_content_and_mode(tmp_path):
    target = tmp_path / "x.img"
    with AtomicFile(target, 0o640) as file:
        os.write(file.fd, b"data")
        assert not target.exists()
        file.commit()
        assert target.read_bytes() == b"data"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["x.img"]


@pytest.mark.parametrize("trouble", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_any_exception_leaves_nothing(tmp_path, trouble):
    with pytest.raises(trouble), AtomicFile(tmp_path / "x") as file:
        os.write(file.fd, b"half")
        raise trouble
    assert os.listdir(tmp_path) == []


def test_without_commit_nothing_appears(tmp_path, kind):
    with AtomicFile(tmp_path / "x"):
        assert len(os.listdir(tmp_path)) == (kind == "named")
    assert os.listdir(tmp_path) == []


@linux_locks
def test_a_kill_leaves_nothing(tmp_path, kind):
    pid = os.fork()
    if not pid:
        file = AtomicFile(tmp_path / "x").__enter__()
        os.write(file.fd, b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert len(os.listdir(tmp_path)) == (kind == "named")


@linux_locks
@unnamed
@pytest.mark.parametrize("sync", [1, 2])
def test_a_kill_while_a_new_file_gets_its_name_leaves_no_other(tmp_path, sync):
    """Killed at the first sync, before the name, or at the second, after it: never is there a temporary name."""
    pid = os.fork()
    if not pid:
        count = 0

        def kill(fd):
            nonlocal count
            count += 1
            if count == sync:
                os.kill(os.getpid(), signal.SIGKILL)

        atomic.hostio.sync = kill
        try:
            write(tmp_path / "x")
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert os.listdir(tmp_path) == ([] if sync == 1 else ["x"])


@unnamed
def test_only_a_file_that_is_replaced_needs_a_temporary_name(tmp_path, monkeypatch):
    names = []
    real = atomic._link_unnamed
    monkeypatch.setattr(atomic, "_link_unnamed", lambda fd, path: [names.append(os.path.basename(path)), real(fd, path)])
    write(tmp_path / "x", replace=True)
    write(tmp_path / "x", b"newer", replace=True)
    assert (tmp_path / "x").read_bytes() == b"newer" and os.listdir(tmp_path) == ["x"]
    assert names[:2] == ["x", "x"] and len(names) == 3 and names[2].startswith(".x.")


@unnamed
def test_a_failed_sync_of_the_name_takes_it_back(tmp_path, monkeypatch):
    calls = []

    def fail_at_the_second(fd):
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(atomic.hostio, "sync", fail_at_the_second)
    with pytest.raises(TargetError, match="x: Input/output error"):
        write(tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_replace(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"old")
    write(target, replace=True)
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("renameat2", [True, False])
@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_without_replace_a_file_that_appeared_is_kept(tmp_path, monkeypatch, renameat2, link, there):
    """All three ways to rename without replacing, the last of them for filesystems without hard links."""

    real = os.link

    def no_links(source, *rest, **options):
        if os.path.dirname(source) == "/proc/self/fd":  # how a file without a name gets its first one
            return real(source, *rest, **options)
        raise OSError(errno.EPERM, "no links here")

    if not renameat2:
        monkeypatch.setattr(atomic, "_renameat2", lambda source, target: False)
    if not link:
        monkeypatch.setattr(os, "link", no_links)
    target = tmp_path / "x"
    if there:
        with pytest.raises(TargetError, match="while this command ran; it was kept"), AtomicFile(target) as file:
            target.write_bytes(b"other")
            file.commit()
        assert target.read_bytes() == b"other"
    else:
        write(target)
        assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]


def test_a_link_is_followed_and_stays_one(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", replace=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["x" * 255, "\u00e9" * 127, "a"])
def test_the_temporary_name_fits(tmp_path, name):
    write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_names_that_are_not_utf8(tmp_path):
    target = os.path.join(os.fsencode(tmp_path), b"\xff\xfe.img")
    write(target)
    assert os.path.exists(target)


@pytest.mark.parametrize(
    ("name", "says"),
    [("missing/x", "does not exist"), ("", "is a directory"), ("file/x", "not a directory"), ("y" * 256, "(?i)too long")],
)
def test_targets_that_cannot_be(tmp_path, name, says):
    (tmp_path / "file").touch()
    with pytest.raises(TargetError, match=says), AtomicFile(os.path.join(tmp_path, name)):
        pytest.fail("the block must not be entered")
    assert os.listdir(tmp_path) == ["file"]


@unprivileged
def test_a_directory_that_is_not_writable(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(TargetError, match="not writable"), AtomicFile(tmp_path / "x"):
        pytest.fail("the block must not be entered")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users")
def test_another_users_file_in_a_sticky_directory(tmp_path, monkeypatch):
    """The rename would fail after all the work."""
    (tmp_path / "x").write_bytes(b"old")
    tmp_path.chmod(0o1777)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(TargetError, match="belongs to another user") as caught, AtomicFile(tmp_path / "x"):
        pytest.fail("the block must not be entered")
    assert caught.value.hint and os.listdir(tmp_path) == ["x"]
    tmp_path.chmod(0o777)
    with AtomicFile(tmp_path / "x"):
        pass


def test_a_full_disk_at_the_end_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TargetError, match="No space") as caught:
        write(tmp_path / "x")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("replaced", [False, True])
def test_a_failed_sync_removes_the_own_file_only(tmp_path, monkeypatch, kind, replaced):
    """Another process may have replaced the file as soon as it had its name."""
    if kind == "named":
        pytest.skip("synced before it gets its name")
    target, other = tmp_path / "x", tmp_path / "other"
    other.write_bytes(b"other")
    real = os.fsync

    def full(fd):
        if not target.exists():
            real(fd)
            return
        if replaced:
            other.replace(target)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TargetError, match="No space"):
        write(target)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x" if replaced else "other": b"other"}
