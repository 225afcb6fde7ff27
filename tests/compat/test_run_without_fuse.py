"""``sifkit exec`` of a plain user without /dev/fuse, as users type it; and with memory and directories to write to."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.containers import sif_of
from ..support.plain_user import USER, program_for, run_sifkit, start_sifkit, user_directory
from ..support.program_tree import write_program_tree
from ..support.squashfs_images import make_squashfs
from ..support.tools import assert_clean, require, requires_root, run

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

HIDE = 'mount --bind "$1" /dev/fuse && user="$2" && shift 2 && exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@"'
Sifkit = Callable[..., tuple[int, str, str]]


def run_without_fuse(uid: int, directory: Path, *words: str, **variables: str) -> tuple[int, str, str]:
    """As ``run_sifkit``, with /dev/fuse hidden."""
    program, path = program_for(uid)
    closed = directory / "of-root"
    closed.touch(mode=0o600)
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(directory), "PYTHONPATH": path, **variables}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", HIDE, "sh", str(closed), str(uid), program, "-m", "sifkit", *words],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def box() -> Iterator[Path]:
    """A user's directory with base.sif, the directory box with the same files, and overlays."""
    require("mke2fs", "unshare", "setpriv")
    with user_directory(USER) as top:
        root = write_program_tree(top / "box")
        (root / "app").mkdir()
        (root / "app/message.txt").write_text("base\n")
        (root / "app/old").mkdir()
        (root / "app/old/file").touch()
        squashfs = make_squashfs(root, top / "root.sqfs")
        sif_of(top / "base.sif", squashfs)
        source = top / "source"
        (source / "upper/app").mkdir(parents=True)
        (source / "upper/app/message.txt").write_text("overlay\n")
        (source / "work").mkdir()
        for name in ("over.img", "inner.img"):
            run("mke2fs", "-q", "-t", "ext3", "-E", f"root_owner={USER}:{USER}", "-d", source, top / name, "4M")
        sif_of(top / "embedded.sif", squashfs, top / "inner.img")
        run("chown", "-hR", f"{USER}:{USER}", top)
        yield top


def test_images_are_unpacked(box: Path) -> None:
    script = "cat /app/message.txt; id -u; touch /app/x"
    code, out, err = run_without_fuse(USER, box, "exec", "base.sif", "sh", "-c", script)
    assert (code, out) == (1, f"base\n{USER}\n") and "Read-only file system" in err
    assert err.startswith(f"sifkit exec: warning: {box}/base.sif, object 1 is unpacked in {box}/.cache/sifkit: ")
    code, out, err = run_without_fuse(USER, box, "exec", "-f", "base.sif", "sh", "-c", script)
    assert (code, out) == (1, "base\n0\n") and "is unpacked" not in err
    assert "images unpacked into" in run_without_fuse(USER, box, "exec", "--dry-run", "base.sif", "id")[1]
    for image, options in (("base.sif", ("-o", "over.img:ro")), ("embedded.sif", ())):
        code, out, err = run_without_fuse(USER, box, "exec", *options, image, "cat", "/app/message.txt", "/dev/null")
        assert (code, out) == (0, "overlay\n")
    assert_clean(box / "over.img")
    elsewhere = {"APPTAINER_CACHEDIR": str(box / "elsewhere")}
    code, out, err = run_without_fuse(USER, box, "exec", "root.sqfs", "cat", "/app/message.txt", **elsewhere)
    assert (code, out) == (0, "base\n") and f"unpacked in {box}/elsewhere/sifkit" in err


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("-o", "over.img", "base.sif"), "over.img:ro"),
        (("-w", "embedded.sif"), "leave out --writable"),
    ],
)
def test_a_writable_image_is_refused(box: Path, options: tuple[str, ...], hint: str) -> None:
    code, out, err = run_without_fuse(USER, box, "exec", *options, "true")
    assert (code, out, err.count("\n")) == (255, "", 1) and hint in err
    assert "cannot be written to on this host: /dev/fuse: Permission denied" in err


@pytest.mark.parametrize(
    ("sifkit", "image"), [(run_sifkit, "base.sif"), (run_without_fuse, "base.sif"), (run_without_fuse, "box")]
)
def test_memory_and_directories_are_written_to(box: Path, sifkit: Sifkit, image: str) -> None:
    name = f"{image}-{sifkit.__name__}"
    script = (
        "echo more >>/app/message.txt; cat /app/message.txt; mv /app/message.txt /app/moved; rm -r /app/old; mkdir /app/old; "
        "ls -A /app /app/old; "
    )
    changed = "base\nmore\n/app:\nmoved\nold\n\n/app/old:\n"
    fill = "dd if=/dev/zero of=/app/big bs=64k 2>/dev/null; ls -s /app/big"
    code, out, err = sifkit(USER, box, "exec", "--writable-tmpfs", "--tmpfs-size", "1M", image, "sh", "-c", script + fill)
    assert code == 0 and out.startswith(changed) and 500 < int(out.removeprefix(changed).split()[0]) <= 1024
    assert err.endswith("the memory for changes (1 MiB) is full: give it more with --tmpfs-size 2M\n")
    for directory in (name, f"{name}-up", f"{name}-work"):
        (box / directory).mkdir()
        os.chown(box / directory, USER, USER)
    two = f"{name}-up:{name}-work:rw"
    for overlay, upper in ((name, f"{name}/upper"), (two, f"{name}-up")):
        assert sifkit(USER, box, "exec", "-o", overlay, image, "sh", "-c", script) == (0, changed, "")
        assert (box / upper / "app/moved").exists()
    for overlay in (name, f"{name}:ro"):
        assert sifkit(USER, box, "exec", "-o", overlay, image, "ls", "/app") == (0, "moved\nold\n", "")


@pytest.mark.parametrize("uid", [0, USER])
def test_a_directory_has_one_writer(uid: int, box: Path) -> None:
    """A second overlayfs makes the work directory anew, and the first could change no file of the image any longer."""
    name = f"shared-{uid}"
    (box / name).mkdir()
    os.chown(box / name, uid, uid)
    script = "echo ready; read line; echo more >>/app/message.txt && rm /app/old/file && cat /app/message.txt; ls /app/old"
    with start_sifkit(uid, box, "exec", "-o", name, "base.sif", "sh", "-c", script) as first:
        assert first.stdout is not None and first.stdout.readline() == b"ready\n"
        code, out, err = run_sifkit(uid, box, "exec", "-o", name, "base.sif", "true")
        assert (code, out) == (255, "") and f"/{name} is in use: locked for writing by process {first.pid} (" in err
        assert run_sifkit(uid, box, "exec", "-o", f"{name}:ro", "base.sif", "cat", "/app/message.txt") == (0, "base\n", "")
        out_bytes, err_bytes = first.communicate(b"\n", timeout=60)
    assert (first.returncode, out_bytes, err_bytes) == (0, b"base\nmore\n", b"")
    assert run_sifkit(uid, box, "exec", "-o", name, "base.sif", "cat", "/app/message.txt") == (0, "base\nmore\n", "")


@pytest.mark.parametrize("uid", [0, USER])
def test_what_is_left_behind_keeps_a_directory_locked(uid: int, box: Path) -> None:
    """Mounts of root's kernel keep no lock: a process of ours does, which has nothing else of the caller's open."""
    name = f"kept-{uid}"
    (box / name).mkdir()
    os.chown(box / name, uid, uid)
    script = "exec 3<&0; cat <&3 >/dev/null 2>&1 & exit 3"
    with start_sifkit(uid, box, "exec", "-o", name, "base.sif", "sh", "-c", script) as first:
        code = first.wait(60)
        assert first.stderr is not None
        note = first.stderr.read().decode()
        assert f"/{name} stays in use until what the command has left behind ends: " in note and "(cat)\n" in note
        assert code == 3 and run_sifkit(uid, box, "exec", "-o", name, "base.sif", "cat")[0] == 255
    until = time.monotonic() + 30
    while (code := run_sifkit(uid, box, "exec", "-o", name, "base.sif", "cat")[0]) and time.monotonic() < until:
        time.sleep(0.1)
    assert code == 0


def test_a_directory_is_written_to_itself(box: Path) -> None:
    run("cp", "-a", box / "box", box / "mine")
    for sifkit, name in ((run_sifkit, "one"), (run_without_fuse, "two")):
        code, out, err = sifkit(USER, box, "exec", "-w", "mine", "sh", "-c", f"touch /app/{name}; ls -d $HOME")
        assert (code, out) == (0, f"{box}\n") and (box / f"mine/app/{name}").exists(), err
    assert not (box / "box/app/one").exists()
    pair = box / "pair"
    for name in ("up", "wk", "other"):
        (pair / name).mkdir(parents=True)
        os.chown(pair / name, USER, USER)
    (box / "mine/sub").mkdir()
    mounted = [box / "mine/sub", pair / "other"]
    for point in mounted:
        run("mount", "-t", "tmpfs", "-o", "mode=777", "none", point)
    try:
        (mounted[0] / "file").touch()
        for sifkit in (run_sifkit, run_without_fuse):
            assert sifkit(USER, box, "exec", "mine", "ls", "/sub") == (0, "file\n", "")
            code, out, _ = sifkit(USER, box, "exec", "--writable-tmpfs", "mine", "sh", "-c", "rm /sub/file; ls -A /sub; id -u")
            assert (code, out) == (0, f"{USER}\n")
        assert run_sifkit(USER, box, "exec", "-o", "pair/up:pair/wk:rw", "box", "touch", "/new") == (0, "", "")
        assert (pair / "up/new").exists()
        code, _, err = run_sifkit(USER, box, "exec", "-o", "pair/up:pair/other:rw", "box", "id")
        assert code == 255 and "are on different filesystems" in err
    finally:
        for point in mounted:
            run("umount", point)


def test_a_work_directory_of_another_user(box: Path) -> None:
    """Overlayfs could not empty the directory of root that is left in work/, and would be read-only without a word.

    The owner of work/ may remove it if it is empty. Else the run is refused; if work/ is another's, the layer is only read.
    """
    other = box / "other"
    left = other / "work/work"
    (other / "upper/app").mkdir(parents=True)
    (other / "upper/app/message.txt").write_text("other\n")
    left.mkdir(parents=True)
    for path in (other, other / "upper", other / "upper/app"):
        os.chown(path, USER, USER)
    words = ("exec", "-o", "other", "box", "sh", "-c", "cat /app/message.txt; echo mine > /app/mine; cat /app/mine")
    code, out, notes = run_sifkit(USER, box, *words)
    assert out == "other\n" and notes.startswith("sifkit exec: warning: other is not writable for you and is only read\n")
    os.chown(left.parent, USER, USER)
    (left / "x").touch(0)
    code, out, notes = run_sifkit(USER, box, *words)
    assert code == 255 and not out and "other/work/work, have him remove that directory" in notes
    (left / "x").unlink()
    assert run_sifkit(USER, box, *words) == (0, "other\nmine\n", "")
