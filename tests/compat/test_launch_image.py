"""Writable ext3 images in a user namespace: our server below the kernel's overlayfs, judged by e2fsck and a kernel mount.

The runs are root's, in a user namespace all the same: another user may have no right to read this interpreter's numpy.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sifkit.file_locks import lock_state
from sifkit.runtime.planning.run_plan import Layer, Mount, Upper, Way
from tests.support.plan_runner import plan_of, run_plan, start_plan
from tests.support.squashfs_images import make_squashfs
from tests.support.tools import assert_clean, has_ended, kernel_mount, requires_root, run

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    folder = tmp_path_factory.mktemp("base")
    (folder / "root/app/sub").mkdir(parents=True)
    (folder / "root/app/message.txt").write_text("base\n")
    for number in range(50):
        (folder / f"root/app/sub/{number}").write_text(f"{number}\n")
    return Layer(path=str(make_squashfs(folder / "root", folder / "image.sqfs")), kind="squashfs")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    found = tmp_path / "overlay.img"
    run("mke2fs", "-q", "-t", "ext3", found, "16M")
    return found


def upper(image: Path) -> Upper:
    return Upper(kind="image", path=str(image))


def run_script(script: str, base: Layer, image: Path, *mounts: Mount) -> tuple[int, str, str]:
    found = run_plan(plan_of("user", ["sh", "-c", script], [base], upper(image), *mounts), image.parent)
    assert_clean(image)
    return found


def test_changes_are_as_the_kernel_reads_them(base: Layer, image: Path) -> None:
    script = """set -e
        echo more >>/app/message.txt; chmod 640 /app/message.txt
        for f in /app/sub/?; do echo x >>$f; done
        rm /app/sub/10; mv /app/sub/11 /app/sub/renamed; ln /app/sub/12 /app/sub/linked
        mkdir /new; ln -s target /new/link; mkfifo /new/fifo; touch -d @5 /new/old
        mv /new /moved; rm -r /app/sub; mkdir /app/sub; echo again >/app/sub/1
        dd if=/dev/urandom of=/big bs=64k count=40 status=none; truncate -s 3000000 /big; sync /big; cksum </big
    """
    code, out, err = run_script(script, base, image)
    assert (code, err) == (0, "")
    with kernel_mount(image) as point:
        top = point / "upper"
        assert sorted(path.name for path in top.iterdir()) == ["app", "big", "moved"]
        assert (top / "app/message.txt").read_text() == "base\nmore\n"
        assert os.getxattr(top / "app/sub", "trusted.overlay.opaque") == b"y"
        assert os.getxattr(top / "app/sub", "user.overlay.opaque") == b"y"
        assert os.listdir(top / "app/sub") == ["1"]
        assert (top / "moved/old").stat().st_mtime == 5
        assert run("cksum", stdin=(top / "big").read_bytes()).stdout.decode() == out
        assert (top / "big").stat().st_size == 3_000_000
    root = run_plan(plan_of("root", ["sh", "-c", "ls /app/sub; cat /app/message.txt"], [base], upper(image)), image.parent)
    assert root == (0, "1\nbase\nmore\n", "")
    assert run_script("ls /app/sub; stat -c %a /app/message.txt", base, image)[:2] == (0, "1\n640\n")


def test_random_writes_equal_those_on_the_host(base: Layer, image: Path, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    work = random.Random(18)
    program = ["import os", "for top in '/data', '/host':", " f = os.open(top + '/f', os.O_RDWR | os.O_CREAT)"]
    for _ in range(300):
        offset, size = work.randrange(400_000), work.randrange(1, 30_000)
        if work.random() < 0.7:
            program.append(f" os.pwrite(f, bytes([{work.randrange(256)}]) * {size}, {offset})")
        elif work.random() < 0.5:
            program.append(f" os.ftruncate(f, {offset})")
        else:
            program.append(f" r = os.pread(f, {size}, {offset})")
    program.append(" os.close(f); os.rename(top + '/f', top + '/g')")
    (tmp_path / "work.py").write_text("\n".join(program))
    host = Mount(kind="bind", target="/host", source=str(tmp_path / "host"))
    script = Mount(kind="bind", target="/work.py", source=str(tmp_path / "work.py"))
    code, _, err = run_script("mkdir /data && /usr/bin/python3 /work.py && cmp /data/g /host/g", base, image, host, script)
    assert (code, err) == (0, "")


def test_a_full_image_refuses_writes_and_keeps_what_it_took(base: Layer, image: Path) -> None:
    script = "head -c 40000000 /dev/zero | tr '\\0' x >/fill; echo code $?; echo y >/another || echo refused; wc -c </fill"
    code, out, err = run_script(script, base, image)
    assert code == 0 and "No space left on device" in err
    assert f"{image} is full" in err and "sifkit overlay resize" in err
    taken = int(out.split()[-1])
    assert 5_000_000 < taken < 16_000_000
    assert run_script("tr -d x </fill | wc -c; wc -c </fill", base, image)[1].split() == ["0", str(taken)]


@pytest.mark.parametrize("options", [("-N", "64"), ("-J", "size=1")])
def test_a_full_image_can_be_used_again(base: Layer, tmp_path: Path, options: tuple[str, ...]) -> None:
    """The next overlay makes a work directory in it, whether it has no inodes or no blocks for files."""
    image = tmp_path / "overlay.img"
    run("mke2fs", "-q", "-t", "ext3", *options, image, "6M")
    script = "mkdir /w; cat /dev/zero >/w/fill; i=0; while true >/w/$i; do i=$((i+1)); done"
    fill = script if "-J" in options else script.replace("cat /dev/zero >/w/fill; ", "")
    code, _, err = run_script(fill, base, image)
    assert code == 0 and "No space left on device" in err and f"{image} is full" in err
    code, out, err = run_script("rm /w/1 /w/2 /w/3; rm /app/message.txt; ls /app; echo $?", base, image)
    assert (code, out, err) == (0, "sub\n0\n", "")


def test_an_image_without_a_free_inode_says_what_helps(base: Layer, tmp_path: Path) -> None:
    image = tmp_path / "overlay.img"
    run("mke2fs", "-q", "-t", "ext3", "-N", "16", image, "4M")
    with kernel_mount(image, rw=True) as point:
        (point / "upper").mkdir()
        (point / "work/work").mkdir(parents=True)
        for number in range(int(os.statvfs(point).f_ffree)):
            (point / f"upper/{number}").touch()
    for way in ("user", "root"):
        code, out, err = run_plan(plan_of(way, ["true"], [base], upper(image)), tmp_path)  # type: ignore[arg-type]
        assert (code, out) == (255, "") and len(err.splitlines()) == 1
        assert "full" in err and "sifkit overlay resize" in err and f"{image}:ro" in err
        assert_clean(image)


def test_unlinked_files_live_while_they_are_open(base: Layer, image: Path) -> None:
    script = "exec 3<>/f; echo kept >&3; rm /f; echo other >/f; cat /proc/self/fd/3; exec 3>&-; cat /f; ls /app/sub | wc -l"
    assert run_script(script, base, image) == (0, "kept\nother\n50\n", "")


def server_of(image: Path) -> int:
    """The process that serves an image: it has both the image and /dev/fuse open."""
    for folder in Path("/proc").glob("[0-9]*/fd"):
        links = set()
        with suppress(OSError):  # it has ended, or closes a file
            for link in folder.iterdir():
                with suppress(FileNotFoundError):
                    links.add(os.readlink(link))
        if "/dev/fuse" in links and str(image) in links:
            return int(folder.parent.name)
    raise AssertionError("no server")


@pytest.mark.parametrize("victim", ["server", "launch"])
def test_synced_data_survives_a_kill(base: Layer, image: Path, victim: str) -> None:
    script = "echo synced >/kept; sync /kept; for i in 1 2 3 4 5 6; do echo $i >/app/$i; done; echo up; exec sleep 1000"
    with start_plan(plan_of("user", ["sh", "-c", script], [base], upper(image)), image.parent) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        server = server_of(image)
        os.kill(server if victim == "server" else process.pid, signal.SIGKILL)
        if victim == "server":
            process.terminate()
        _, err = process.communicate(timeout=30)
    if victim == "server":
        assert process.returncode == 255 and b"its server was killed by SIGKILL" in err
    until = time.monotonic() + 10
    while not has_ended(server):
        assert time.monotonic() < until, "its server is still there"
        time.sleep(0.02)
    run("e2fsck", "-fp", image, ok=(0, 1))
    assert run_script("cat /kept", base, image) == (0, "synced\n", "")


@pytest.mark.parametrize("is_signal", [True, False])
def test_a_signal_or_five_seconds_commit_and_serving_goes_on(base: Layer, image: Path, is_signal: bool) -> None:
    plan = plan_of("user", ["sh", "-c", "echo one >/one; echo up; read x; echo two >/two; cat /one /two"], [base], upper(image))
    with start_plan(plan, image.parent, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        until = time.monotonic() + (4 if is_signal else 20)
        if is_signal:
            os.kill(server_of(image), signal.SIGTERM)
        while not has_survived(b"one\n", "/upper/one", image):
            assert time.monotonic() < until
            time.sleep(0.1)
        out, _ = process.communicate(b"\n", timeout=30)
    assert (process.returncode, out) == (0, b"one\ntwo\n")


def has_survived(text: bytes, path: str, image: Path) -> bool:
    """Return True if a file would be there after a crash now. A copy that was made during a commit may be of no use."""
    copy = image.with_name("copy.img")
    copy.write_bytes(image.read_bytes())
    run("e2fsck", "-fp", copy, ok=range(16))
    return run("debugfs", "-R", f"cat {path}", copy).stdout == text


@pytest.mark.parametrize("name", ["upper", "work"])
def test_a_hostile_image_cannot_lead_to_the_host(base: Layer, image: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    run("debugfs", "-w", "-R", f"symlink {name} {victim}", image)
    code, _, err = run_script("touch /x", base, image)
    assert code == 255 and f"{name} is not a directory" in err
    layer = Layer(path=str(image), kind="ext3", subdirectory=name, has_marks=True)
    code, _, err = run_plan(plan_of("view", ["true"], [base, layer]), tmp_path)
    assert code == 255 and f"{name} is not a directory" in err
    assert not os.listdir(victim)


def test_two_writers_never(base: Layer, image: Path) -> None:
    with start_plan(plan_of("user", ["sh", "-c", "echo up; exec sleep 30"], [base], upper(image)), image.parent) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        code, _, err = run_plan(plan_of("user", ["true"], [base], upper(image)), image.parent)
        assert code == 255 and "in use" in err and "Traceback" not in err
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143
    assert run_script("true", base, image)[0] == 0


LONG = 100_000 + os.getpid()
"""Seconds that a process left behind sleeps unless it is ended: a number that no other process has."""


def end_sleep() -> None:
    """End the process that sleeps for so long; the shell that waits for it goes on."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if line.read_bytes() == f"sleep\0{LONG}\0".encode():
                os.kill(int(line.parent.name), signal.SIGTERM)


@pytest.mark.parametrize("way", ["root", "user"])
def test_processes_left_behind_keep_the_image(base: Layer, image: Path, way: Way) -> None:
    script = f"(sleep {LONG}; echo late >/late) >/dev/null 2>&1 & exit 7"
    with start_plan(plan_of(way, ["sh", "-c", script], [base], upper(image)), image.parent) as process:
        out, err = process.communicate(timeout=60)  # nobody keeps them open, the servers included
    assert (process.returncode, out) == (7, b"")
    assert b"stays in use" in err and b"(sleep)" in err
    code, _, err = run_plan(plan_of(way, ["true"], [base], upper(image)), image.parent)
    assert code == 255 and "in use" in err
    with image.open("rb") as file:  # Apptainer looks at nothing else
        assert lock_state(file.fileno())[0] == "write"
    end_sleep()
    until = time.monotonic() + 20
    while code == 255 and time.monotonic() < until:
        time.sleep(0.2)
        code, out, _ = run_plan(plan_of(way, ["cat", "/late"], [base], upper(image)), image.parent)
    assert (code, out) == (0, "late\n")
    assert_clean(image)


@pytest.mark.parametrize("way", ["root", "user"])
def test_an_image_that_is_cut_during_a_run(base: Layer, image: Path, way: Way) -> None:
    """Programs get errors; the end of the run says why. What a plain user writes to is not made longer again."""
    root = image.parent / "root.sqfs"
    shutil.copy(base.path, root)
    script = "echo up; read x; cat /app/sub/1 >/dev/null 2>&1; echo more >/app/new; exit 3"
    plan = plan_of(way, ["sh", "-c", script], [base._replace(path=str(root))], upper(image))
    with start_plan(plan, image.parent, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        for path in (root, image):
            os.truncate(path, 100)
        err = process.communicate(b"\n", timeout=30)[1].decode()
    assert process.returncode == 255 and f"not all of {root} could be read: " in err
    assert f"{image}: the last changes could not be written: its file was cut to " in err
    assert f"check it with: sifkit overlay fsck -fn {image}\n" in err
    if way == "user":
        assert f"check it with: sifkit check {root}\n" in err and image.stat().st_size == 100
