"""Runs as a plain user in a user namespace: the view by FUSE, writable layers above it, and what is left behind."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sifkit.runtime.planning.run_plan import Layer, Mount, RunPlan, Upper
from tests.support.plan_runner import plan_of, run_plan, start_plan
from tests.support.squashfs_images import make_squashfs
from tests.support.tools import assert_clean, kernel_mount, require, requires_root, run

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

USER = 4321


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory that every user can read, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="sifkit-user-") as found:
        os.chmod(found, 0o755)
        yield Path(found)


@pytest.fixture(scope="module")
def base(folder: Path) -> Layer:
    root = folder / "root"
    (root / "app").mkdir(parents=True)
    (root / "app/message.txt").write_text("base\n")
    os.setxattr(root / "app/message.txt", "trusted.note", b"of root")  # no plain user may read these two
    os.setxattr(root / "app/message.txt", "security.capability", bytes.fromhex("01000002002000000000000000000000") + bytes(4))
    with (root / "sparse").open("wb") as file:
        file.truncate(64 << 20)
    (root / "app/secret").write_text("of root\n")
    (root / "app/secret").chmod(0o600)
    (root / "run").symlink_to("/app")
    (root / "plain").write_text("echo plain $1\n")
    (root / "plain").chmod(0o755)
    return Layer(path=str(make_squashfs(root, folder / "image.sqfs")), kind="squashfs")


def servers(scratch: Path) -> set[str]:
    """Processes of runs in ``scratch`` that have /dev/fuse open."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = os.fsencode(scratch) in (process / "cmdline").read_bytes()
            if is_ours and any(os.readlink(link) == "/dev/fuse" for link in (process / "fd").iterdir()):
                found.add(process.name)
        except OSError:
            continue
    return found


def run_as_user(plan: RunPlan, scratch: Path) -> tuple[int, str, str]:
    """Run a plan; no server of it is left."""
    found = run_plan(plan, scratch, uid=USER)
    until = time.monotonic() + 10
    while (left := servers(scratch)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not left
    return found


@pytest.mark.parametrize("namespaces", [(), ("pid", "ipc", "uts")])
def test_a_read_only_view(base: Layer, folder: Path, namespaces: tuple[str, ...]) -> None:
    binds = (
        Mount(kind="bind", target="/run/new/text", content=b"generated\n"),
        Mount(kind="bind", target="/data", source="/tmp"),
        Mount(kind="bind", target="/sys", source="/sys", is_optional=True),
    )
    script = "cat /app/message.txt /app/secret /app/new/text; id -u; stat -c '%u %a' /app/secret; ls /; touch /app/x"
    plan = plan_of("view", ["sh", "-c", script], [base], None, *binds, namespaces=namespaces)
    code, out, err = run_as_user(plan, folder)
    wanted = f"base\nof root\ngenerated\n{USER}\n{USER} 600\napp\nbin\ndata\ndev\n"
    assert out.startswith(wanted)
    assert code == 1 and "Read-only file system" in err


def test_fakeroot_and_exit_codes(base: Layer, folder: Path) -> None:
    plan = plan_of("view", ["sh", "-c", "id -u; kill -9 $$"], [base])._replace(fakeroot=True)
    assert run_as_user(plan, folder)[:2] == (137, "0\n")
    # a script without #! is run by the shell, as execvp(3) does
    plan = plan._replace(command=plan.command._replace(words=("/plain", "script")))
    assert run_as_user(plan, folder) == (0, "plain script\n", "")


def test_layers_are_merged(base: Layer, folder: Path) -> None:
    require("mke2fs")
    source = folder / "over"
    (source / "upper/app").mkdir(parents=True)
    (source / "upper/app/.wh.secret").touch()
    (source / "upper/app/message.txt").write_text("changed\n")
    image = folder / "over.img"
    run("mke2fs", "-q", "-t", "ext3", "-d", source, image, "4M")
    image.chmod(0o644)
    over = Layer(path=str(image), kind="ext3", subdirectory="upper", has_marks=True)
    # as root, in a user namespace all the same: another user may have no right to read this interpreter's numpy
    found = run_plan(plan_of("view", ["sh", "-c", "cat /app/message.txt; ls /app"], [base, over]), folder)
    assert found == (0, "changed\nmessage.txt\n", "")
    assert_clean(image)


@pytest.mark.parametrize("kind", ["tmpfs", "directory"])
def test_writable_layers(base: Layer, folder: Path, kind: str) -> None:
    over = folder / f"own-{kind}"
    over.mkdir()
    os.chown(over, USER, USER)
    upper = Upper(kind=kind, path="" if kind == "tmpfs" else str(over), size=4 << 20)  # type: ignore[arg-type]
    script = (
        "echo more >>/app/message.txt; cat /app/message.txt; rm /app/secret; mkdir /d; mv /d /e; ls /app /e; "
        "rm -r /app; mkdir /app; ls -A /app"
    )
    code, out, err = run_as_user(plan_of("user", ["sh", "-c", script], [base], upper), folder)
    assert (code, out, err) == (0, "base\nmore\n/app:\nmessage.txt\n\n/e:\n", "")
    assert (over / "upper/e").exists() == (kind == "directory")


def private_and_childless() -> None:
    """State that some callers leave: a umask, SIGCHLD ignored, and a limit of files."""
    os.umask(0o077)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))


def without_large_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


@pytest.mark.parametrize("fakeroot", [False, True])
def test_an_image_is_written_to(base: Layer, folder: Path, fakeroot: bool) -> None:
    image = folder / f"overlay-{fakeroot}.img"
    run("mke2fs", "-q", "-t", "ext3", "-E", f"root_owner={USER}:{USER}", image, "8M")
    os.chown(image, USER, USER)
    script = (
        "echo more >>/app/message.txt; cat /app/message.txt; rm -r /app; mkdir /app; echo new >/app/new; stat -c %u /app/new; "
        "echo more >>/sparse"  # with its holes: the image is smaller than the file
    )
    plan = plan_of("user", ["sh", "-c", script], [base], Upper(kind="image", path=str(image)))._replace(fakeroot=fakeroot)
    stored = 0 if fakeroot else USER
    assert run_as_user(plan, folder) == (0, f"base\nmore\n{stored}\n", "")
    assert_clean(image)
    bind = Mount(kind="bind", target="/app/in/it", source="/srv")  # below a directory that hides those of the layers below
    script = "stat -c %a / /app/in; umask; echo 1234 >/app/small"
    plan = plan._replace(mounts=(*plan.mounts, bind), command=plan.command._replace(words=("sh", "-c", script)))
    assert run_plan(plan, folder, uid=USER, before=private_and_childless) == (0, "755\n755\n0077\n", "")
    code, _, err = run_plan(plan, folder, uid=USER, before=without_large_files)
    assert code == 255 and "it has 8 MiB, and files that you write may have at most 1 MiB" in err
    with kernel_mount(image) as point:
        assert (point / "upper/app/new").stat().st_uid == stored
        assert os.getxattr(point / "upper/app", "trusted.overlay.opaque") == b"y"


def test_directories_are_joined_as_they_are(base: Layer, folder: Path) -> None:
    """Changes made in them meanwhile are seen; marks that the kernel does not follow are merged by the view."""
    over, above = folder / "as-it-is", folder / "box"
    (over / "app").mkdir(parents=True)
    (over / "app/message.txt").write_text("over\n")
    os.mknod(over / "app/secret", 0o20000, os.makedev(0, 0))
    (above / "app").mkdir(parents=True)
    (above / "app/message.txt").write_text("box\n")
    run("chown", "-R", f"{USER}:{USER}", above)
    own = folder / "above.img"
    run("mke2fs", "-q", "-t", "ext3", "-E", f"root_owner={USER}:{USER}", own, "8M")
    os.chown(own, USER, USER)
    layer, box = (Layer(path=str(path), kind="directory") for path in (over, above))
    wait = "until [ -e /flag/go ]; do sleep 0.02; done"
    script = f"echo up; {wait}; ls -A /app; cat /app/message.txt; touch /app/x"
    for way, layers, upper, wanted in (
        ("view", [base, layer], None, "message.txt\n"),
        ("view", [box, layer], None, "message.txt\n"),
        ("user", [box], Upper(kind="image", path=str(own)), "message.txt\n"),
    ):
        shown = above if upper else over
        flag = folder / f"flag-{way}-{len(layers)}-{layers[0].kind}"
        flag.mkdir()
        bind = Mount(kind="bind", target="/flag", source=str(flag))
        plan = plan_of(way, ["sh", "-c", script], layers, upper, bind)  # type: ignore[arg-type]
        with start_plan(plan, folder, uid=USER) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline(), process.stderr.read()
            (shown / "app/message.txt").write_text("changed\n")
            (flag / "go").touch()
            out, err = process.communicate(timeout=60)
        assert out.decode() == wanted + "changed\n", err
        assert process.returncode == (0 if upper else 1)
        (shown / "app/message.txt").write_text(f"{shown.name.replace('as-it-is', 'over')}\n")
    assert_clean(own)
    (over / "app/.wh.message.txt").touch()
    (over / "app/message.txt").unlink()
    assert run_as_user(plan_of("view", ["ls", "-A", "/app"], [base, layer]), folder) == (0, "", "")


def test_a_killed_launch_leaves_no_server(base: Layer, folder: Path) -> None:
    with start_plan(plan_of("view", ["sh", "-c", "echo up; exec sleep 1000"], [base]), folder, uid=USER) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        assert servers(folder)
        process.kill()
        process.communicate()
    until = time.monotonic() + 10
    while servers(folder) and time.monotonic() < until:
        time.sleep(0.02)
    assert not servers(folder)


def test_a_damaged_image_is_one_line(folder: Path) -> None:
    image = folder / "bad.sqfs"
    image.write_bytes(b"hsqs" + bytes(200))
    code, _, err = run_as_user(plan_of("view", ["true"], [Layer(path=str(image), kind="squashfs")]), folder)
    assert code == 255 and "bad.sqfs" in err and "Traceback" not in err
    assert f"check it with: sifkit check {image}" in err


def test_a_damaged_root_directory_is_one_line(folder: Path) -> None:
    image = folder / "damaged.img"
    run("mke2fs", "-q", "-t", "ext3", "-b", "1024", image, "4M")
    raw = bytearray(image.read_bytes())
    start = raw.index(b"lost+found") // 1024 * 1024
    raw[start : start + 1024] = b"\xff" * 1024
    image.write_bytes(raw)
    # as root, in a user namespace all the same: another user may have no right to read this interpreter's numpy
    code, _, err = run_plan(plan_of("view", ["true"], [Layer(path=str(image), kind="ext3")]), folder)
    assert code == 255 and "the root of the container is damaged" in err and len(err.splitlines()) == 1
