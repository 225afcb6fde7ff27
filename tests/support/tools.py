"""Real tools as judges, run hermetically: fixed locale, no configuration of the host, no stdin.

Where a tool is missing the test is skipped with the reason, or fails when SIFKIT_REQUIRE_TOOLS=1 says that it must be there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

__all__ = [
    "as_user",
    "assert_clean",
    "copy_window",
    "dumpe2fs",
    "fill_and_empty",
    "find",
    "has_ended",
    "kernel_mount",
    "require",
    "requires_root",
    "run",
    "why_no_mount",
]

NOBODY = 65534

Argument = str | bytes | os.PathLike[str]

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def tool_environment() -> dict[str, str]:
    """What every tool sees. MKE2FS_CONFIG stays unset: mke2fs's built-in defaults and Debian's file agree for ext3."""
    return {"PATH": _PATH, "LC_ALL": "C", "TZ": "UTC", "E2FSCK_CONFIG": os.devnull, "HOME": tempfile.gettempdir()}


def corpus(name: str) -> Path:
    """Images made by others, which are not part of the project: SIFKIT_CORPUS names the directory above."""
    return Path(os.environ.get("SIFKIT_CORPUS") or Path(__file__).parents[3] / "shared" / "corpus") / name


@cache
def find(tool: str) -> str | None:
    """Where ``tool`` is, also in the directories only root has in its PATH."""
    return shutil.which(tool, path=_PATH)


def has_ended(pid: int) -> bool:
    """Return True if a process has ended and let go of its files and locks: that it shows no open files comes before."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def missing(reason: str) -> None:
    """Skip, or fail where everything is promised to be there."""
    if os.environ.get("SIFKIT_REQUIRE_TOOLS") == "1":
        pytest.fail(f"SIFKIT_REQUIRE_TOOLS=1, and {reason}")
    pytest.skip(reason)


def require(*tools: str) -> None:
    """Skip the test (see ``missing``) unless all ``tools`` are there."""
    for tool in tools:
        if find(tool) is None:
            missing(f"{tool} is not installed")


def run(
    tool: str,
    *arguments: Argument,
    ok: Sequence[int] = (0,),
    stdin: bytes | None = None,
    cwd: Path | None = None,
    timeout: float = 900,
) -> subprocess.CompletedProcess[bytes]:
    """Run one tool and check its exit code. Its output is in ``stdout`` and ``stderr``, as bytes: names are hostile."""
    require(tool)
    found = find(tool)
    assert found is not None
    done = subprocess.run(
        [found, *(os.fsencode(argument) for argument in arguments)],
        env=tool_environment(),
        input=stdin if stdin is not None else b"",
        capture_output=True,
        cwd=cwd,
        timeout=timeout,
        check=False,
    )
    if done.returncode not in ok:
        text = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
        pytest.fail(f"{tool} {' '.join(map(str, arguments))} exited {done.returncode}:\n{text[-4000:]}")
    return done


def as_user(uid: int, argv: Sequence[Argument]) -> subprocess.CompletedProcess[bytes]:
    """Run a command as another user (its group is the same number); where we are not root, as ourselves."""

    def drop() -> None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)

    prepare: Callable[[], None] | None = drop if os.geteuid() == 0 else None
    command = [os.fsencode(argument) for argument in argv]
    command[0] = os.fsencode(find(os.fsdecode(command[0])) or os.fsdecode(command[0]))
    return subprocess.run(
        command,
        env=tool_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=prepare,
        timeout=900,
        check=False,
    )


def copy_window(image: Path, offset: int, size: int | None = None) -> Path:
    """The filesystem at ``offset`` as a file of its own, beside the image; zero blocks become holes. The caller deletes it."""
    copy = image.with_name(image.name + ".window")
    zeros = bytes(1 << 20)
    with image.open("rb") as source, copy.open("wb") as target:
        source.seek(offset)
        left = os.fstat(source.fileno()).st_size - offset if size is None else size
        total = left
        while left > 0:
            piece = source.read(min(left, len(zeros)))
            if not piece:
                break
            if piece == zeros[: len(piece)]:
                target.seek(len(piece), os.SEEK_CUR)
            else:
                target.write(piece)
            left -= len(piece)
        target.truncate(total - left)
    return copy


def assert_clean(image: Path | str, offset: int = 0, *, size: int | None = None) -> None:
    """``e2fsck -fn`` finds nothing. Its exit code alone is not enough: it is 0 with a wrong free count."""
    require("e2fsck")
    image = Path(image)
    judged = copy_window(image, offset, size) if offset else image
    try:
        done = run("e2fsck", "-fn", judged, ok=range(256))
    finally:
        if offset:
            judged.unlink()
    text = done.stdout + done.stderr
    complaint = b"Fix?" in text or b"wrong" in text or b"<n>" in text or b"? no" in text
    if done.returncode or complaint:
        pytest.fail(f"e2fsck -fn {image} exited {done.returncode}:\n{text.decode('utf-8', 'backslashreplace')[-6000:]}")


def dumpe2fs(image: Path | str, *, header_only: bool = False) -> str:
    """The whole report of dumpe2fs on an image."""
    arguments: list[Argument] = ["-h"] if header_only else []
    return run("dumpe2fs", *arguments, image).stdout.decode("utf-8", "backslashreplace")


@cache
def why_no_mount() -> str:
    """Empty where this process can mount an ext3 image, else the reason why not."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "kernel mounts need root"
    for tool in ("mke2fs", "mount", "umount"):
        if find(tool) is None:
            return f"{tool} is not installed"
    with tempfile.TemporaryDirectory() as scratch:
        image, point = Path(scratch, "probe.img"), Path(scratch, "point")
        point.mkdir()
        with image.open("wb") as file:
            file.truncate(8 << 20)
        run("mke2fs", "-q", "-F", "-t", "ext3", image)
        done = run("mount", "-t", "ext3", "-o", "loop,ro", image, point, ok=range(256))
        if done.returncode:
            return f"this host does not let root mount: {done.stderr.decode(errors='replace').strip()}"
        run("umount", point)
    return ""


@contextmanager
def overlay_mount(lower: Path, image: Path, point: Path, options: str = "") -> Iterator[Path]:
    """What a container sees, at ``point`` during the ``with`` block: ``lower`` with the image's upper/ over it."""
    point.mkdir(exist_ok=True)
    with kernel_mount(image, rw=True) as mounted:
        words = f"lowerdir={lower},upperdir={mounted}/upper,workdir={mounted}/work{options}"
        done = run("mount", "-t", "overlay", "overlay", "-o", words, point, ok=range(256))
        if done.returncode:
            missing("this kernel takes no overlay mount here")
        try:
            yield point
        finally:
            run("umount", point)


requires_root = pytest.mark.root
"""For tests that mount or make device nodes; conftest skips them where that cannot be done."""


@contextmanager
def kernel_mount(image: Path | str, *, rw: bool = False, offset: int = 0) -> Iterator[Path]:
    """The image mounted by the kernel at a fresh directory during the ``with`` block; noatime: looking is free."""
    reason = why_no_mount()
    if reason:
        pytest.skip(reason)
    options = f"loop,noatime,{'rw' if rw else 'ro'}" + (f",offset={offset}" if offset else "")
    with tempfile.TemporaryDirectory(prefix="sifkit-mount-") as scratch:
        point = Path(scratch, "point")
        point.mkdir()
        run("mount", "-t", "ext3", "-o", options, image, point)
        try:
            yield point
        finally:
            # A process that starts a container at this moment has the mount too, and would keep the image from being complete.
            if rw:
                run("mount", "-o", "remount,ro", point, ok=range(256))
            run("umount", point)
            wait_until_detached(image)


def attached(image: Path | str) -> bool:
    """Tell whether a loop device shows an image, also for a mount in another namespace only."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            found.append(file.read_text().strip())
    return str(image) in found


def wait_until_detached(image: Path | str) -> None:
    """Wait for the end of containers that have started meanwhile, and have a mount of an image in their namespaces."""
    end = time.monotonic() + 30
    while attached(image) and time.monotonic() < end:
        time.sleep(0.02)


def fill_and_empty(point: Path) -> None:
    """Use every block there is: one that was given out twice would show."""
    before = point.stat()
    with (point / "fill").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"fill" * 16384):
            pass
    (point / "fill").unlink()
    os.utime(point, ns=(before.st_atime_ns, before.st_mtime_ns))
