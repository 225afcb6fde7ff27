"""Options, terminals and standard files of ``sifkit exec`` and ``shell`` with a kernel, as root and in a user namespace."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..support.program_tree import write_program_tree
from ..support.tools import assert_clean, requires_root, run

pytestmark = [pytest.mark.compat, requires_root]

PROJECT = Path(__file__).parents[2]
SIFKIT = (sys.executable, "-m", "sifkit")
WAYS = pytest.mark.parametrize("way", [(), ("-u",)], ids=["root", "user"])


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as image, without environment scripts."""
    return write_program_tree(tmp_path_factory.mktemp("options") / "box")


@pytest.fixture(autouse=True)
def environment(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(box.parent)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv("PS1", "")
    for name in [name for name in os.environ if name.startswith(("APPTAINER", "SINGULARITY"))]:
        monkeypatch.delenv(name)


def sifkit(*words: str, redirections: str = "", seconds: float = 60) -> tuple[int, str, str]:
    command = f"exec {shlex.join([*SIFKIT, *words])} {redirections}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=seconds, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@WAYS
def test_without_a_network_there_is_a_loopback_interface(way: tuple[str, ...]) -> None:
    script = "cd /sys/class/net; ls; cat lo/flags /etc/hosts; ls -d /sys/fs/cgroup"
    code, out, err = sifkit("exec", *way, "-c", "--network", "none", "box", "sh", "-c", script)
    assert (code, err) == (0, "")
    assert out == "lo\n0x9\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n/sys/fs/cgroup\n"


def test_a_host_that_forbids_a_new_proc_and_sys() -> None:
    """As in a container of Docker, which mounts something over parts of both."""
    command = shlex.join([*SIFKIT, "exec", "-u", "-p", "--network", "none", "box", "ls", "/proc/self/status", "/sys/kernel"])
    script = f"mount --bind /dev/null /proc/cpuinfo; mount -t tmpfs none /sys/kernel; {command}"
    done = run("unshare", "-m", "env", f"PYTHONPATH={PROJECT}", "sh", "-ec", script, cwd=Path.cwd())
    assert done.stdout == b"/proc/self/status\n\n/sys/kernel:\n"
    assert (
        done.stderr.count(b"warning: ") == 2 and b"/proc is the host's" in done.stderr and b"/sys is the host's" in done.stderr
    )


def test_root_of_a_user_namespace_does_not_reach_the_host_by_its_proc(tmp_path: Path) -> None:
    """The processes of the run have the host's root, and are in the namespace in which root of the container has all rights."""
    inside = f"ls -d /proc/[0-9]*/root{tmp_path} /proc/[0-9]*/cwd{tmp_path} 2>/dev/null; echo end"
    command = shlex.join([*SIFKIT, "exec", "-u", "-C", "--no-mount", "cwd", str(Path.cwd() / "box"), "sh", "-c", inside])
    script = f"mount --bind /dev/null /proc/cpuinfo; cd {tmp_path}; {command}"
    # the host's other processes are out of reach anyhow: they are in the namespace above
    done = run("unshare", "-m", "env", f"PYTHONPATH={PROJECT}", "sh", "-ec", script)
    assert done.stdout == b"end\n" and b"/proc is the host's" in done.stderr


@WAYS
def test_mount_points_in_directories_of_the_host(way: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b/f").touch()
    binds = (f"{tmp_path}/a:/mnt/a", f"{tmp_path}/b:/mnt/a/x/b", f"{tmp_path}/b/f:/mnt/a/y")
    words = [word for spec in binds for word in ("-B", spec)]
    assert sifkit("exec", *way, *words, "box", "ls", "/mnt/a", "/mnt/a/x/b") == (0, "/mnt/a:\nx\ny\n\n/mnt/a/x/b:\nf\n", "")
    assert sorted(path.name for path in (tmp_path / "a").rglob("*")) == ["b", "x", "y"]
    code, _, err = sifkit("exec", *way, "-B", f"{tmp_path}/a:/mnt/a:ro", "-B", f"{tmp_path}/b:/mnt/a/z", "box", "ls")
    assert code == 255 and "/b at /mnt/a/z cannot be mounted: its mount point cannot be made: Read-only file system; " in err
    assert "session" not in err and not (tmp_path / "a/z").exists()
    code, out, err = sifkit(
        "exec", *way, "-B", words[1], "-S", "/mnt/a/s", "box", "sh", "-c", "echo x > /mnt/a/s/f; cat /mnt/a/s/f"
    )
    assert (code, out, err) == (0, "x\n", "") and os.listdir(tmp_path / "a/s") == []
    place = tmp_path / "home"
    code, out, err = sifkit("exec", *way, "-c", "-H", f"{tmp_path}/b:{place}", "box", "ls", str(place))
    assert (code, out, err) == (0, "f\n", "") and not place.exists()
    code, _, err = sifkit("exec", *way, "-w", "-S", str(place), "box", "ls")
    assert code == 255 and f"{place} cannot be mounted: the container has no such path; " in err and not place.exists()
    code, _, err = sifkit("exec", *way, "-B", f"{tmp_path}/b:/dev/sifkit-test", "box", "ls")
    assert code == 255 and "mount points are not made in /dev" in err and not os.path.exists("/dev/sifkit-test")


@WAYS
def test_an_image_with_one_directory_for_temporary_files(way: tuple[str, ...], tmp_path: Path) -> None:
    root = write_program_tree(tmp_path / "linked")
    (root / "var/tmp").rmdir()
    (root / "var/tmp").symlink_to("../tmp")
    code, out, err = sifkit("exec", *way, str(root), "ls", "-di", "/tmp")
    assert (code, out.split(), err) == (0, [str(os.stat("/tmp").st_ino), "/tmp"], "")


@WAYS
def test_later_mounts_of_the_host_arrive(way: tuple[str, ...], tmp_path: Path) -> None:
    """As those of an automounter do: binds are recursive slaves of the host's mounts."""
    inside = "echo up >/mnt/up; until [ -e /mnt/later/file ]; do sleep 0.05; done"
    command = shlex.join([*SIFKIT, "exec", *way, "-B", f"{tmp_path}:/mnt", "box", "sh", "-c", inside])
    script = f"""
        mkdir {tmp_path}/later
        timeout 30 {command} & until [ -e {tmp_path}/up ]; do sleep 0.05; done
        mount -t tmpfs later {tmp_path}/later; touch {tmp_path}/later/file; wait $!
    """
    run("timeout", "60", "unshare", "-m", "--propagation", "shared", "env", f"PYTHONPATH={PROJECT}", "sh", "-ec", script)


def test_libraries_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("bin", "etc/apptainer"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "libgpu.so.1").write_bytes(Path("/proc/self/exe").read_bytes()[:64])
    (tmp_path / "libgpu.so").symlink_to("libgpu.so.1")
    (tmp_path / "bin/apptainer").touch(0o755)
    (tmp_path / "bin/gpu-tool").touch(0o755)
    (tmp_path / "etc/apptainer/apptainer.conf").write_text("always use rocm = no\n")
    (tmp_path / "etc/apptainer/nvliblist.conf").write_text(f"{tmp_path}/libgpu.so.1\ngpu-tool\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    code, out, _ = sifkit("exec", "--nv", "box", "sh", "-c", "cd /.singularity.d/libs; ls; ls /usr/bin; echo $LD_LIBRARY_PATH")
    assert (code, out) == (0, "libgpu.so\nlibgpu.so.1\ngpu-tool\n/.singularity.d/libs\n")


@WAYS
def test_standard_files_that_are_closed(way: tuple[str, ...]) -> None:
    """Images and mounts must not get the numbers 0, 1 and 2, which are then taken for input and output: they are /dev/null."""
    assert sifkit("-q", "overlay", "create", "--size", "8M", "-F", "over.img", redirections="<&- >&- 2>&-")[0] == 0
    script = "cat && echo no input; echo kept >/opt/x"
    code, out, _ = sifkit("exec", *way, "-o", "over.img", "box", "sh", "-c", script, redirections="<&-")
    assert (code, out) == (0, "no input\n")
    assert sifkit("exec", *way, "-o", "over.img:ro", "box", "cat", "/opt/x", redirections="<&- 2>&-") == (0, "kept\n", "")
    assert_clean(Path("over.img"))


def test_the_probe_without_standard_files() -> None:
    assert sifkit("doctor", redirections="<&- 2>&-")[0] == 0


def test_root_that_may_not_mount_takes_a_user_namespace() -> None:
    """As in a container that was not started as privileged one, if it has loop devices."""
    words = [*SIFKIT, "exec", "--writable-tmpfs", "box", "sh", "-c", "touch /etc/x && cat /proc/self/uid_map"]
    done = run("setpriv", "--bounding-set=-sys_admin", "env", f"PYTHONPATH={PROJECT}", *words, cwd=Path.cwd())
    assert done.stdout.split() == [b"0", b"0", b"1"]


def test_programs_that_cannot_be_executed_by_the_shell_of_the_container(box: Path) -> None:
    scripts = box.parent / "with-scripts"
    if not scripts.exists():
        subprocess.run(["cp", "-a", box, scripts], check=True)
        (scripts / ".singularity.d/env").mkdir(parents=True)
        (scripts / ".singularity.d/env/90-environment.sh").write_text("export A=1\n")
    for name, content in {"interpreter": b"#!/no/such\n", "machine": b"\x7fELF\x02\x01\x01" + bytes(100)}.items():
        (scripts / name).write_bytes(content)
        (scripts / name).chmod(0o755)
        code, out, err = sifkit("exec", "with-scripts", f"/{name}")
        assert (code, out) == (255, "") and f"/{name}" in err
    (scripts / "plain").write_text('echo "$1" $A\n')
    (scripts / "plain").chmod(0o755)
    assert sifkit("exec", "with-scripts", "/plain", "x") == (0, "x 1\n", "")


class Terminal:
    """Process on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(words[0], words)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until ``text`` is seen, which is then forgotten with all before it."""
        until = time.monotonic() + 30
        while text not in self.seen:
            assert select.select([self.fd], [], [], until - time.monotonic())[0], f"{text!r} is missing in {self.seen!r}"
            self.seen += os.read(self.fd, 4096).decode()
        self.seen = self.seen.partition(text)[2]

    def end(self) -> int:
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:  # all of its processes have closed it
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@WAYS
def test_a_shell_on_a_terminal(way: tuple[str, ...]) -> None:
    terminal = Terminal(*SIFKIT, "shell", *way, "-c", "-B", "/dev/fuse", "box")
    terminal.type("ls /dev/console && exec 3<>/dev/fuse && echo $((1 + 1))open; sleep 100\n")
    terminal.wait_for("/dev/console\r\n")
    terminal.wait_for("2open")
    time.sleep(0.2)
    terminal.type("\x03")
    terminal.type("echo code $((400 + $?))\n")
    terminal.wait_for("code 530")
    terminal.type("exit 7\n")
    assert terminal.end() == 7


def test_a_killed_command_leaves_the_terminal_as_it_was() -> None:
    command = shlex.join([*SIFKIT, "exec", "box", "sh", "-c", "stty raw -echo; stty -a; kill -9 $$"])
    terminal = Terminal("sh", "-c", f"{command}; echo code $?; stty -a")
    for text in ("-icanon", "-echo ", "code 137", " icanon", " echo "):
        terminal.wait_for(text)
    assert terminal.end() == 0
