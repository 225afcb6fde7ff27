"""Sources of copies that are no plain files: the same bytes and modes as cp of coreutils gives them."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ext3 import Filesystem, SourceError
from ext3.scan import false_sizes as scan_sizes
from sifkit.cli import main

from ..support.false_size_fuse import FILES, false_sizes
from ..support.tools import assert_clean, missing, require, requires_root, run

pytestmark = pytest.mark.compat

Facts = tuple[int, bytes]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["-q", "overlay", "create", "--size", "32M", "o.img"]) == 0


def in_image(path: str) -> Facts:
    with Filesystem.open("o.img") as fs:
        return fs.stat(path).mode, fs.read_bytes(path)


def on_host(path: str) -> Facts:
    return os.stat(path).st_mode, Path(path).read_bytes()


def pipe() -> str:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    os.write(writing, b"from a pipe")
    os.close(writing)
    return f"/dev/fd/{reading}"


def removed() -> str:
    Path("gone").write_bytes(b"removed")
    fd = os.open("gone", os.O_RDONLY)
    os.set_inheritable(fd, True)
    os.unlink("gone")
    return f"/dev/fd/{fd}"


def fifo() -> str:
    if not os.path.exists("fifo"):
        os.mkfifo("fifo")
    threading.Thread(target=lambda: Path("fifo").write_bytes(b"from a fifo")).start()
    return "fifo"


SOURCES: dict[str, Callable[[], str]] = {
    "a pipe": pipe,
    "a removed file": removed,
    "a fifo": fifo,
    "null": lambda: "/dev/null",
    "proc": lambda: "/proc/version",
    "sysfs": lambda: "/sys/kernel/mm/transparent_hugepage/enabled",
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("options", [[], ["-p"]], ids=["plain", "-p"])
def test_as_coreutils_copy_it(name: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    require("cp")
    make = SOURCES[name]
    copied = make()
    if not os.path.exists(copied):
        pytest.skip(f"there is no {copied} here")
    inherited = [int(copied.rpartition("/")[2])] if copied.startswith("/dev/fd/") else []
    script = f"cp {' '.join(options)} {copied} copy"
    done = subprocess.run(["sh", "-c", script], pass_fds=inherited, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert main(["-q", "cp", *options, make(), "o.img:/upper/copy"]) == 0
    assert in_image("/upper/copy") == on_host("copy")
    assert stat.S_ISREG(in_image("/upper/copy")[0])
    assert_clean("o.img")


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[Path]:
    if not os.path.exists("/dev/fuse"):
        missing("there is no /dev/fuse")
    try:
        with false_sizes(tmp_path / "fuse") as point:
            yield point
    except PermissionError as error:
        missing(str(error))


@requires_root
def test_a_filesystem_of_fuse_with_false_sizes(fuse: Path) -> None:
    for name, (size, content) in FILES.items():
        path = fuse / os.fsdecode(name)
        assert path.stat().st_size == size
        run("cp", path, "copy")
        assert Path("copy").read_bytes() == content
    assert main(["-q", "cp", "-r", str(fuse), "o.img:/upper"]) == 0
    assert main(["-q", "overlay", "create", "--from-dir", str(fuse), "p.img"]) == 0
    for image, top in (("o.img", "/upper/fuse"), ("p.img", "/upper")):
        assert_clean(image)
        with Filesystem.open(image) as fs:
            assert {name: fs.read_bytes(os.fsencode(top) + b"/" + name) for name in FILES} == {
                name: content for name, (_, content) in FILES.items()
            }
    assert main(["-q", "extract", str(fuse), "-C", "out"]) == 0
    assert main(["-q", "diff", "--no-owner", str(fuse), "p.img:/upper"]) == 0
    assert {os.fsencode(path.name): path.read_bytes() for path in Path("out").iterdir()} == {
        name: content for name, (_, content) in FILES.items()
    }


@requires_root
def test_what_no_sample_showed_is_an_error_and_no_short_file(fuse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sifkit.overlay.creating.standalone import create
    from sifkit.overlay.options import CreateOptions

    monkeypatch.setattr(scan_sizes.SizeTrust, "doubts", lambda *_: False)
    for name in FILES:
        if name in (b"true", b"none"):
            continue
        others = tuple(os.fsdecode(other) for other in FILES if other != name)
        with pytest.raises(SourceError, match="its filesystem reports"):
            create("p.img", CreateOptions(from_dir=fuse, exclude=others))
        assert not os.path.exists("p.img")
