"""``sifkit doctor`` and the probe, where everything is allowed and where it is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sifkit.runtime.layers.unpacked_cache import CachedTree, UnpackedCache
from tests.support.tools import requires_root

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

ROOT = Path(__file__).parents[2]
FACTS = ("loop", "user_namespace", "user_mount", "fuse", "overlay", "fuse_upper", "fuse_tmpfile", "tmpfs_upper")


def doctor(prepare: str = "pass", *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the verb after a few lines of Python, in a process of its own."""
    program = f"import sys; {prepare}; from sifkit.cli import run; sys.argv = ['sifkit', 'doctor', *sys.argv[1:]]; run()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_this_host_allows_everything() -> None:
    done = doctor("pass", "--json")
    found = json.loads(done.stdout)
    assert found["not_isolated"] == ["capabilities", "devices", "processes", "network"]
    assert {key: fact["works"] for key, fact in found["facts"].items()} == dict.fromkeys(FACTS, True)
    assert found["ways"] == {"read_only": "root", "writable": "root"} and done.returncode == 0
    assert "overlayfs in user namespaces" in doctor().stdout


def test_a_server_that_dies_is_an_answer() -> None:
    lines = (
        "import os",
        "from sifkit.runtime.host import probing as host",
        "from sifkit.runtime.fuse.server import Server",
        "Server._statfs = lambda *words: os._exit(3)",
        "host.Host.is_root = False",
    )
    found = json.loads(doctor("; ".join(lines), "--json").stdout)
    assert not found["facts"]["fuse_upper"]["works"]
    assert found["ways"]["read_only"] == "view" and found["ways"]["writable"] != "user"


@pytest.mark.parametrize("killed", ["os.getppid(), signal.SIGKILL", "os.getpid(), signal.SIGTERM"])
def test_a_killed_probe_leaves_nothing(killed: str, tmp_path: Path) -> None:
    """A signal while overlayfs is mounted: the layers below it cannot be unmounted, and their servers would serve for ever."""
    lines = (
        "import os, signal; from sifkit.runtime import sys as calls",
        "from sifkit.runtime.host import probing as host",
        f"host.Host.is_root, mount, mark = False, calls.mount, '{tmp_path}'",
        f"calls.mount = lambda *words: (mount(*words), words[2] == 'overlay' and os.kill({killed}))",
    )
    done = doctor("; ".join(lines))
    assert done.returncode < 0 or "ended without an answer" in done.stdout
    until = time.monotonic() + 10
    while (left := _processes_with(tmp_path)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not left


def _processes_with(word: Path) -> list[str]:
    """Processes that have a word in their command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if os.fsencode(word) in file.read_bytes():
                found.append(file.parent.name)
    return found


def test_directories_need_no_fuse() -> None:
    """It is tried only if it is asked for."""
    lines = (
        "from sifkit.runtime.host import probing as host",
        "found = host.probe(fuse=False)",
        "assert found.user_mount.works and found.overlay.works and found.tmpfs_upper.works",
        "assert 'sifkit.runtime.fuse.mounting' not in sys.modules",
        "assert found.fuse.works and found.fuse_upper.works and 'sifkit.runtime.fuse.mounting' in sys.modules",
    )
    assert doctor("; ".join(lines)).returncode == 0


def test_the_upper_layer_of_the_probe_is_served_by_fuse() -> None:
    """A kernel that cannot use one is found out; layers of other kinds still work."""
    lines = (
        "from sifkit.runtime.host import probing as host",
        "from sifkit.runtime.fuse.memory_backend import MemoryBackend",
        "MemoryBackend.rename = None",
        "found = host.probe()",
        "assert not found.fuse_upper.works and found.fuse_upper.reason and found.overlay.works and found.fuse.works",
    )
    done = doctor("; ".join(lines))
    assert done.returncode == 0, done.stderr


def test_a_kernel_that_takes_modified_files_for_stale_gets_none_without_a_name() -> None:
    """As those before Linux 7.2, where an upper layer served by FUSE can have such files."""
    refuse = (
        "def refuse(path, flags, *words):",
        "  if flags & os.O_EXCL and str(path).endswith('all/file') and not refused:",
        "    refused.append(path)",
        "    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)",
        "  return opened(path, flags, *words)",
    )
    lines = (
        "import errno, os; from sifkit.runtime.host import probing as host",
        "refused, opened = [], os.open",
        f"exec({chr(10).join(refuse)!r})",
        "os.open, host.Host.is_root = refuse, False",
    )
    found = json.loads(doctor("; ".join(lines), "--json").stdout)
    works = {key: fact["works"] for key, fact in found["facts"].items()}
    assert works == {**dict.fromkeys(FACTS, True), "loop": False, "fuse_tmpfile": False}
    assert "Stale file handle" in found["facts"]["fuse_tmpfile"]["reason"] and found["ways"]["writable"] == "user"


def test_memory_without_xattrs_forbids_nothing_else() -> None:
    """A removed directory that is made again is EIO there, as on Linux 5.11 to 6.5."""
    lines = (
        "import os; from sifkit.runtime.host import probing as host",
        "host._has_user_xattrs = lambda directory: False",
        "make = os.mkdir",
        "os.mkdir = lambda path, *words: os.stat(path + '/eio') if path.endswith('all/directory') else make(path, *words)",
        "host.Host.is_root = False",
    )
    found = json.loads(doctor("; ".join(lines), "--json").stdout)
    works = {key: fact["works"] for key, fact in found["facts"].items()}
    assert works == {**dict.fromkeys(FACTS, True), "loop": False, "tmpfs_upper": False}
    assert found["ways"] == {"read_only": "view", "writable": "user"}


def test_root_of_a_user_namespace_without_usual_directories() -> None:
    """As in a container that a plain user has started."""
    lines = (
        "from sifkit.runtime import sys as calls; from sifkit.runtime.host import probing as host",
        "host.PLACES = host.PLACES[3:]",
        "calls.unshare(calls.CLONE_NEWUSER | calls.CLONE_NEWNS)",
        "calls.write_id_maps(0, 0, inner_uid=0, inner_gid=0)",
        "host.LOOP_CONTROL = '/none'",
    )
    found = json.loads(doctor("; ".join(lines), "--json").stdout)
    assert {key: fact["works"] for key, fact in found["facts"].items()} == {**dict.fromkeys(FACTS, True), "loop": False}
    assert found["ways"] == {"read_only": "view", "writable": "user"}
    reason = "root of a user namespace mounts no images"  # whatever is asked of the administrator
    assert found["facts"]["loop"] == {"works": False, "reason": reason, "request": ""}


def test_a_device_that_only_a_container_lacks() -> None:
    """As /dev/fuse with -C: no module of the kernel is missing."""
    lines = (
        "from sifkit.runtime.host import probing as host; from sifkit.runtime.fuse import mounting",
        "host.FUSE_DEVICE = mounting.DEVICE = '/dev/none'",
        "host.Host.is_root = False",
    )
    found = json.loads(doctor("; ".join(lines), "--json").stdout)["facts"]["fuse"]
    assert not found["works"] and "start that with -B /dev/none" in found["request"] and "modprobe" not in found["request"]


def test_unpacked_images_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTAINER_CACHEDIR", str(tmp_path))
    cache = UnpackedCache(str(tmp_path / "sifkit"))
    assert "unpacked image" not in doctor().stdout
    with cache.new_tree("key") as place:
        os.makedirs(f"{place}/root/closed", 0)
        cache.add(place, CachedTree("key", "image", 3 << 20))
    assert json.loads(doctor("pass", "--json").stdout)["cache"] == {"path": cache.path, "images": 1, "used_bytes": 3 << 20}
    lines = doctor().stdout.splitlines()
    assert f"1 unpacked image in {cache.path}, 3 MiB" in lines
    command = lines[-1].removeprefix("empty it with: ")
    subprocess.run(["sh", "-c", command], check=True)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("broken", "fact", "ways"),
    [
        ("calls.unshare", "user_namespace", (None, None)),
        ("calls.mount", "user_mount", (None, None)),
        ("mounting.mount_fuse", "fuse", ("unpacked", "unpacked")),
        ("host._change_lower_files", "overlay", ("view", None)),
        ("host._try_overlay_on_fuse", "fuse_upper", ("view", "unpacked")),
        ("mounting.serve_in_child", "fuse_upper", ("view", "unpacked")),
    ],
)
def test_what_is_forbidden_is_named(broken: str, fact: str, ways: tuple[str | None, str | None]) -> None:
    """A call that fails stands for a host that forbids it."""
    lines = (
        "from sifkit.runtime import sys as calls; from sifkit.runtime.host import probing as host",
        "from sifkit.runtime.fuse import mounting",
        'exec(\'def refuse(*words, **named):\\n  raise PermissionError(1, "Operation not permitted", "probe")\')',
        f"{broken} = refuse",
        "host.Host.is_root = False",
    )
    done = doctor("; ".join(lines), "--json")
    found = json.loads(done.stdout)
    facts = found["facts"]
    assert not facts[fact]["works"] and "not permitted" in facts[fact]["reason"]
    before = FACTS[1 : FACTS.index(fact)]
    assert all(facts[name]["works"] for name in before if name != "overlay" or fact == "fuse_upper")
    assert (found["ways"]["read_only"], found["ways"]["writable"]) == ways
    assert done.returncode == (0 if ways[0] else 1)


@pytest.mark.parametrize(
    ("broken", "failing", "reason"),
    [
        ("unshare", "True", "Operation not permitted"),
        ("mount", "True", "Operation not permitted"),
        ("attach_loop", "True", "Operation not permitted"),
        ("mount", "'ext3' in words", "this kernel has no ext3; run containers with -u"),
    ],
)
def test_what_root_cannot_do_is_named(broken: str, failing: str, reason: str) -> None:
    """A container may forbid its root calls for which it has the capability, and a kernel may lack filesystems."""
    number = "errno.ENODEV" if "ext3" in failing else "errno.EPERM"
    refuse = (
        "def refuse(*words, **named):",
        f"  if {failing}:",
        f"    raise OSError({number}, os.strerror({number}), 'probe')",
        "  return call(*words, **named)",
    )
    lines = (
        "import errno, os; from sifkit.runtime import sys as calls",
        f"call = calls.{broken}",
        f"exec({chr(10).join(refuse)!r})",
        f"calls.{broken} = refuse",
        "from sifkit.runtime import kernel_filesystems",
        "kernel_filesystems.is_loaded = lambda kind: False",
    )
    done = doctor("; ".join(lines), "--json")
    found = json.loads(done.stdout)
    assert not found["facts"]["loop"]["works"] and reason in found["facts"]["loop"]["reason"]
    assert found["ways"] == {"read_only": None, "writable": None} and done.returncode == 1


@pytest.mark.parametrize(("broken", "fact"), [("write_id_maps", "user_namespace"), ("mount", "user_mount")])
def test_apparmor_is_named(broken: str, fact: str) -> None:
    """On Ubuntu 24.04 a namespace is made, and nobody can be mapped into it; the restriction may show only at a mount, too."""
    lines = (
        "from sifkit.runtime import sys as calls; from sifkit.runtime.host import probing as host",
        'exec(\'def refuse(*words, **named):\\n  raise PermissionError(13, "Permission denied", "/proc/self/setgroups")\')',
        f"calls.{broken} = refuse",
        "host._setting = lambda name: '1' if 'apparmor' in name else ''",
        "host.Host.is_root = False",
    )
    found = json.loads(doctor("; ".join(lines), "--json").stdout)["facts"][fact]
    assert not found["works"] and "AppArmor" in found["reason"] and "{ userns, }" in found["request"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_probe_leaves_no_server(number: int) -> None:
    """Its servers end with it: they are in its namespace, and would keep its mounts for ever."""
    program = (
        "import time; from sifkit.runtime.host import probing; "
        "probing._change_lower_files = lambda *words: [print('up', flush=True), time.sleep(100)]; probing.probe().overlay"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        (probe,) = children(process.pid)
        servers = children(probe)
        assert len(servers) == 2
        os.kill(probe, number)
        assert process.wait(30) == 0
    end = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}/fd/0") for pid in servers):
        assert time.monotonic() < end, "a server is left"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
