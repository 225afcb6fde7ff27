"""Runs as root: the kernel's mounts of images, an overlay, the command's exit, and that nothing is left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sifkit.runtime.planning.run_plan import Layer, Mount, Upper
from tests.support.plan_runner import plan_of, run_plan, start_plan
from tests.support.squashfs_images import make_squashfs
from tests.support.tools import assert_clean, require, requires_root, run

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    """The root of a container, at an offset in a file as in a SIF."""
    folder = tmp_path_factory.mktemp("base")
    root = folder / "root"
    (root / "app").mkdir(parents=True)
    (root / "app/message.txt").write_text("base\n")
    (root / "run").symlink_to("/app")
    (root / "etc").symlink_to("../../../../etc-of-the-image")
    (root / "etc-of-the-image").mkdir(mode=0o750)
    image = make_squashfs(root, folder / "root.sqfs")
    size = image.stat().st_size
    (folder / "image").write_bytes(bytes(4096) + image.read_bytes() + bytes(4096))
    return Layer(path=str(folder / "image"), kind="squashfs", offset=4096, size=size, object_id=1)


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    require("mke2fs")
    image = tmp_path / "overlay.img"
    run("mke2fs", "-q", "-t", "ext3", image, "8M")
    return image


def mounts_and_loops(path: Path) -> list[str]:
    """Mounts and loop devices that the kernel still has of files below a path."""
    loops = [
        file.read_text().strip() for file in Path("/sys/block").glob("loop*/loop/backing_file") if str(path) in file.read_text()
    ]
    return loops + [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(path) in line]


def test_a_read_only_root(base: Layer, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("of the host\n")
    binds = (
        Mount(kind="bind", target="/run/data", source=str(tmp_path / "data")),
        Mount(kind="bind", target="/etc/new", source=str(tmp_path)),
        Mount(kind="bind", target="/made/text", content=b"generated\n"),
        Mount(kind="tmpfs", target="/memory", size=1 << 20),
        Mount(kind="bind", target="/nothing", source=str(tmp_path / "missing"), is_optional=True),
    )
    script = (
        "cat /app/data /app/message.txt /etc-of-the-image/new/data /made/text; stat -c %a /etc-of-the-image; "
        "echo x >/memory/x && touch /app/x"
    )
    plan = plan_of("root", ["sh", "-c", script], [base], None, *binds)
    code, out, err = run_plan(plan, tmp_path)
    assert out == "of the host\nbase\nof the host\ngenerated\n750\n"
    assert "Read-only file system" in err and code == 1
    assert "missing" in err and "note:" in err
    assert not mounts_and_loops(Path(base.path).parent)


def private_and_childless() -> None:
    """State that some callers leave: a umask, and SIGCHLD ignored."""
    os.umask(0o077)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def test_a_umask_is_the_commands_alone_and_replaced_directories_have_mount_points(
    base: Layer, overlay: Path, tmp_path: Path
) -> None:
    upper = Upper(kind="image", path=str(overlay))
    script = "umask; stat -c %a /; rm -r /app; mkdir /app; stat -c %a /app; touch /gone; rm /gone; exit 3"
    plan = plan_of("root", ["sh", "-c", script], [base], upper)
    assert run_plan(plan, tmp_path, before=private_and_childless) == (3, "0077\n755\n700\n", "")
    host = tmp_path / "host"
    host.mkdir(mode=0o755)
    bind = Mount(kind="bind", target="/app/in/it", source=str(host))
    plan = plan_of("root", ["sh", "-c", "stat -c %a /app /app/in /app/in/it; ls -A /app"], [base], upper, bind)
    assert run_plan(plan, tmp_path, before=private_and_childless) == (0, "700\n755\n755\nin\n", "")


def test_a_host_without_a_root_to_change_and_with_other_defaults_of_overlayfs(base: Layer, tmp_path: Path) -> None:
    file = tmp_path / "plan.pickle"
    file.write_bytes(pickle.dumps(plan_of("root", ["sh", "-c", "ls / | head -2; cat /app/message.txt"], [base])))
    program = """
import errno, pickle, sys
from sifkit.runtime import launch, sys as calls
from sifkit.runtime.planning.run_plan import Start
def refuse(new_root, put_old):
    raise OSError(errno.EINVAL, "as in an initial ramdisk", "pivot_root")
calls.pivot_root = refuse
mount = calls.mount
def shown(source, target, kind=None, flags=0, options=None):
    if kind == "overlay":
        print(sorted(option for option in options.split(",") if "dir=/" not in option), flush=True)
    mount(source, target, kind, flags, options)
calls.mount = shown
plan = pickle.load(open(sys.argv[1], "rb"))
start = lambda found, _: Start(found.command.words, found.environment.fixed)
sys.exit(launch.launch(plan, start_of=start, notify=print))
"""
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['index=off', 'redirect_dir=follow']\napp\nbin\nbase\n", "")


def test_a_kernel_without_squashfs(base: Layer, overlay: Path, tmp_path: Path) -> None:
    """Administrators switch it off: the root, an overlay and a data image are served by FUSE; what is written to is mounted."""
    more = tmp_path / "more"
    (more / "app").mkdir(parents=True)
    (more / "app/more.txt").write_text("more\n")
    layer = Layer(path=str(make_squashfs(more, tmp_path / "more.sqfs")), kind="squashfs", has_marks=True)
    data = layer._replace(has_marks=False)
    bind = Mount(kind="bind", target="/data", image=data, image_source="/app")
    upper = Upper(kind="image", path=str(overlay))
    script = "cat /app/message.txt /app/more.txt /data/more.txt; echo new >/app/new; ls /app; stat -c %a:%u /etc/."
    plan = plan_of("root", ["sh", "-c", script], [base, layer], upper, bind)._replace(images=(data,))
    file = tmp_path / "plan.pickle"
    file.write_bytes(pickle.dumps(plan))
    program = """
import errno, pickle, sys
from sifkit.runtime import launch, sys as calls
from sifkit.runtime import kernel_filesystems
from sifkit.runtime.planning.run_plan import Start
mount = calls.mount
def refuse(source, target, kind=None, flags=0, options=None):
    if kind == "squashfs":
        raise OSError(errno.ENODEV, "No such device", "mount")
    mount(source, target, kind, flags, options)
calls.mount, kernel_filesystems.is_loaded = refuse, lambda kind: kind != "squashfs"
plan = pickle.load(open(sys.argv[1], "rb"))
start = lambda found, _: Start(found.command.words, found.environment.fixed)
sys.exit(launch.launch(plan, start_of=start, notify=print))
"""
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=False, timeout=60)
    wanted = "base\nmore\nmore\nmessage.txt\nmore.txt\nnew\n750:0\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted, "")
    assert not mounts_and_loops(tmp_path)
    assert_clean(overlay)


def test_changes_of_a_writable_overlay_stay(base: Layer, overlay: Path, tmp_path: Path) -> None:
    upper = Upper(kind="image", path=str(overlay))
    script = "echo new >/app/message.txt; mkdir /data; touch /data/x; rm /run"
    assert run_plan(plan_of("root", ["sh", "-c", script], [base], upper), tmp_path) == (0, "", "")
    assert not mounts_and_loops(tmp_path)
    assert_clean(overlay)
    seen = run_plan(plan_of("root", ["sh", "-c", "cat /app/message.txt; ls /data; ls /run"], [base], upper), tmp_path)
    assert seen[:2] == (2, "new\nx\n")
    read_only = Layer(path=str(overlay), kind="ext3", subdirectory="upper", has_marks=True)
    seen = run_plan(plan_of("root", ["cat", "/app/message.txt"], [base, read_only]), tmp_path)
    assert seen == (0, "new\n", "")


@pytest.mark.parametrize("kind", ["tmpfs", "directory"])
def test_other_upper_layers(base: Layer, tmp_path: Path, kind: str) -> None:
    (tmp_path / "over").mkdir()
    upper = Upper(kind=kind, path="" if kind == "tmpfs" else str(tmp_path / "over"), size=4 << 20)  # type: ignore[arg-type]
    plan = plan_of("root", ["sh", "-c", "echo new >/app/message.txt; cat /app/message.txt"], [base], upper)
    assert run_plan(plan, tmp_path) == (0, "new\n", "")
    assert (tmp_path / "over/upper/app/message.txt").exists() == (kind == "directory")


@pytest.mark.parametrize("namespaces", [(), ("pid", "ipc", "uts")])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["sh", "-c", "exit 9"], 9),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["no-such-program"], 255),
        (["/app/message.txt"], 255),
    ],
)
def test_exit_codes(base: Layer, tmp_path: Path, words: list[str], code: int, namespaces: tuple[str, ...]) -> None:
    done, _, err = run_plan(plan_of("root", words, [base], namespaces=namespaces), tmp_path)
    assert done == code
    assert ("error:" in err) == (code == 255)
    assert "Traceback" not in err


def test_a_locked_overlay_is_refused(base: Layer, overlay: Path, tmp_path: Path) -> None:
    upper = Upper(kind="image", path=str(overlay))
    with start_plan(plan_of("root", ["sh", "-c", "echo up; exec sleep 30"], [base], upper), tmp_path) as first:
        assert first.stdout is not None and first.stdout.readline() == b"up\n"
        code, _, err = run_plan(plan_of("root", ["true"], [base], upper), tmp_path)
        assert code == 255 and "in use" in err
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 143
        first.communicate()
    assert run_plan(plan_of("root", ["true"], [base], upper), tmp_path)[0] == 0


def test_a_killed_launch_leaves_nothing(base: Layer, overlay: Path, tmp_path: Path) -> None:
    upper = Upper(kind="image", path=str(overlay))
    script = "echo kept >/app/kept; sync; echo up; exec sleep 1000"
    with start_plan(plan_of("root", ["sh", "-c", script], [base], upper), tmp_path) as first:
        assert first.stdout is not None and first.stdout.readline() == b"up\n"
        first.kill()
        first.communicate()
    until = time.monotonic() + 10
    while mounts_and_loops(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    assert not mounts_and_loops(tmp_path)
    assert run_plan(plan_of("root", ["cat", "/app/kept"], [base], upper), tmp_path) == (0, "kept\n", "")
    assert_clean(overlay)


def test_a_hostile_overlay_cannot_lead_to_the_host(base: Layer, overlay: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    run("debugfs", "-w", "-R", f"symlink upper {victim}", overlay)
    code, _, err = run_plan(plan_of("root", ["touch", "/x"], [base], Upper(kind="image", path=str(overlay))), tmp_path)
    assert code == 255 and "not a directory" in err
    assert not os.listdir(victim)
    assert not mounts_and_loops(tmp_path)
