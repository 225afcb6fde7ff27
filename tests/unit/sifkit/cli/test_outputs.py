"""Outputs of commands: streams are written into and never replaced; images in use and FIFOs are kept with --force too."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import threading
from contextlib import chdir, contextmanager

import pytest

from sifkit.cli import main
from sifkit.file_locks import lock_range
from sifkit.replacing import Replaceable

from ....support.commands import copy_sparse, copy_tree, good, read_in, refused
from ....support.platforms import linux_locks
from ....support.sif_images import sample_image

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors have names, FIFOs and locks on Linux")

LAST = b"last" * 200
"""Object 6 of the sample SIF."""
STREAMS = {
    "dump": ("sif", "dump", "6", "i.sif", "-o"),
    "dump --force": ("sif", "dump", "--force", "6", "i.sif", "-o"),
    "export": ("overlay", "export", "overlay.img", "-o"),
    "export -f": ("overlay", "export", "-f", "overlay.img", "-o"),
}
IMAGES = {
    "create": ("overlay", "create", "--size", "4M"),
    "create -F": ("overlay", "create", "--size", "4M", "-F"),
    "clone": ("overlay", "clone", "overlay.img"),
    "clone --force": ("overlay", "clone", "--force", "overlay.img"),
    "detach --force": ("overlay", "detach", "--force", "attached.sif", "-o"),
    "sif new": ("sif", "new"),
    "sif new --force": ("sif", "new", "--force"),
    "sif pack": ("sif", "pack", "image.d"),
    "sif pack --force": ("sif", "pack", "image.d", "--force"),
}


@pytest.fixture(scope="module")
def stock(empty_overlay, tmp_path_factory):
    """A SIF, an overlay with a file in it, and a SIF unpacked."""
    top = tmp_path_factory.mktemp("stock")
    copy_sparse(empty_overlay, top / "overlay.img")
    sample_image(top / "i.sif")
    (top / "f").write_bytes(b"content\n")
    with chdir(top):
        assert main(["cp", "f", "overlay.img:/upper/f", "-q"]) == 0
        assert main(["sif", "new", "attached.sif", "-q"]) == 0
        assert main(["overlay", "attach", "attached.sif", "overlay.img", "-q"]) == 0
        assert main(["sif", "unpack", "i.sif", "image.d", "-q"]) == 0
    return top


@pytest.fixture
def place(stock, tmp_path, monkeypatch):
    """The stock and a FIFO in the working directory."""
    monkeypatch.chdir(tmp_path)
    copy_tree(stock, tmp_path)
    os.mkfifo("fifo")
    return tmp_path


class Reader(threading.Thread):
    """Reader of a FIFO to its end."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.data = b""
        self.start()

    def run(self) -> None:
        with open(self.path, "rb") as file:
            self.data = file.read()


def expected(run, command):
    """What a command writes to a plain file."""
    good(run, *(word for word in STREAMS[command] if word not in ("-f", "--force")), "plain.out", "-q")
    with open("plain.out", "rb") as file:
        return file.read()


@pytest.mark.parametrize("command", STREAMS)
@pytest.mark.parametrize("name", ["fifo", "link"])
def test_streams_are_written_into_a_fifo(run, place, command, name):
    (place / "link").symlink_to("fifo")
    data = expected(run, command)
    reader = Reader("fifo")
    good(run, *STREAMS[command], name, "-q")
    reader.join(60)
    assert reader.data == data and stat.S_ISFIFO(os.lstat("fifo").st_mode) and os.path.islink("link")


@pytest.mark.parametrize("command", STREAMS)
def test_streams_are_written_into_an_open_file(run, place, command):
    """At its position, as the shell's ``3>>out`` wants it; the file stays the one that is open."""
    data = expected(run, command)
    (place / "out").write_bytes(b"before")
    fd = os.open("out", os.O_RDWR)
    try:
        os.lseek(fd, 0, os.SEEK_END)
        good(run, *STREAMS[command], f"/dev/fd/{fd}", "-q")
        assert os.path.samestat(os.stat("out"), os.fstat(fd))
        assert (place / "out").read_bytes() == b"before" + data
    finally:
        os.close(fd)
    refused(run, *STREAMS[command], f"/dev/fd/{fd}")
    with open("out", "rb") as file:
        assert "is not open for writing" in refused(run, *STREAMS[command], f"/dev/fd/{file.fileno()}")
    assert (place / "out").read_bytes() == b"before" + data


@pytest.mark.parametrize("command", STREAMS)
def test_dev_stdout_is_standard_output(run, place, command, capfdbinary):
    data = expected(run, command)
    capfdbinary.readouterr()
    code, out, _ = run(*STREAMS[command], "/dev/stdout", "-q")
    assert code == 0 and out.encode("utf-8", "surrogateescape") == data


def test_json_and_a_stream_are_not_mixed(run, place):
    for name in ("-", "/dev/stdout", "/dev/fd/1"):
        code, out, _ = run("overlay", "export", "overlay.img", "--json", "-o", name)
        assert code == 2 and "both write to standard output" in out


def test_a_reader_that_leaves_is_a_broken_pipe(run, place):
    """As ``| head`` is: 141, without a word."""
    data = os.urandom(1 << 20)
    (place / "large").write_bytes(data)
    good(run, "sif", "add", "--datatype", "generic", "i.sif", "large", "-q")

    def read_a_little() -> None:
        with open("fifo", "rb", buffering=0) as file:
            file.read(1)

    reader = threading.Thread(target=read_a_little)
    reader.start()
    assert run("sif", "dump", "7", "i.sif", "-o", "fifo") == (141, "", "")
    reader.join(60)


@pytest.mark.slow
@pytest.mark.parametrize("command", IMAGES)
@pytest.mark.parametrize("name", ["fifo", "/dev/stdout", "/dev/fd/0", "socket"])
def test_images_are_not_written_into_streams(run, place, command, name):
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    code, out, err = run(*IMAGES[command], name)
    assert code == 1 and not out and err.count("\n") == 1
    assert "or --force" not in err and name in err
    assert stat.S_ISFIFO(os.lstat("fifo").st_mode) and stat.S_ISSOCK(os.lstat("socket").st_mode)


@pytest.mark.slow
@pytest.mark.parametrize("command", [*STREAMS, *IMAGES])
def test_a_dangling_link_is_never_created_through(run, place, command):
    (place / "link").symlink_to("nowhere")
    says = refused(run, *{**STREAMS, **IMAGES}[command], "link")
    assert "link is a symbolic link to nowhere, which does not exist" in says
    assert not os.path.exists("nowhere")


@pytest.mark.slow
@linux_locks
@pytest.mark.parametrize(
    "command",
    [
        ("overlay", "create", "--size", "4M", "-F", "used.img"),
        ("overlay", "clone", "--force", "overlay.img", "used.img"),
        ("overlay", "export", "-f", "overlay.img", "-o", "used.img"),
        ("sif", "dump", "--force", "6", "i.sif", "-o", "used.img"),
        ("cp", "-f", "overlay.img:/upper/f", "used.img"),
        ("cp", "-f", "overlay.img:/upper/used.img", "used.img"),
        ("cp", "overlay.img:/upper/used.img", "used.img"),  # the same name: no mistake, but it is in use
        ("cp", "-a", "-f", "overlay.img:/upper/link", "used.img"),
        ("sif", "new", "--force", "used.sif"),
        ("sif", "pack", "image.d", "used.sif", "--force"),
    ],
    ids=" ".join,
)
def test_images_in_use_are_kept(run, place, command):
    """As a container keeps them: locked."""
    good(run, "cp", "f", "overlay.img:/upper/used.img", "-q")
    good(run, "ln", "-s", "f", "overlay.img:/upper/link", "-q")
    shutil.copy("overlay.img", "used.img")
    shutil.copy("i.sif", "used.sif")
    used = next(word for word in reversed(command) if word.startswith("used"))
    fd = os.open(used, os.O_RDWR)
    try:
        assert lock_range(fd, write=True)
        before = os.stat(used)
        said = refused(run, *command)
        assert "in use" in said and str(os.getpid()) in said
        after = os.stat(used)
        assert (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns)
    finally:
        os.close(fd)
    assert run(*command)[0] == 0


@linux_locks
def test_extract_keeps_images_in_use_and_fifos(run, place):
    """``extract -f`` over a directory that has them, under names of files and of directories of the image."""
    good(run, "mkdir", "overlay.img:/upper/d", "-q")
    for name in ("a", "b", "plain"):
        good(run, "cp", "f", f"overlay.img:/upper/{name}", "-q")
    os.makedirs("out/upper")
    shutil.copy("overlay.img", "out/upper/a")
    shutil.copy("i.sif", "out/upper/d")
    os.mkfifo("out/upper/b")
    (place / "out" / "upper" / "plain").write_bytes(b"old")
    fds = [os.open(f"out/upper/{name}", os.O_RDWR) for name in "ad"]
    try:
        assert all(lock_range(fd, write=True) for fd in fds)
        code, _, err = run("extract", "-f", "overlay.img", "-C", "out")
        assert code == 1
        for name, why in (("a", "is in use: locked"), ("d", "is in use: locked"), ("b", "is a FIFO, which is not replaced")):
            assert f"/upper/{name}: the existing file {why}" in err
        assert os.path.samestat(os.stat("out/upper/a"), os.fstat(fds[0]))
        assert os.path.samestat(os.stat("out/upper/d"), os.fstat(fds[1]))
    finally:
        for fd in fds:
            os.close(fd)
    assert stat.S_ISFIFO(os.lstat("out/upper/b").st_mode)
    assert (place / "out" / "upper" / "plain").read_bytes() == b"content\n"
    os.unlink("out/upper/b")
    good(run, "extract", "-f", "overlay.img", "-C", "out", "-q")
    assert (place / "out" / "upper" / "a").read_bytes() == b"content\n" and os.path.isdir("out/upper/d")


def test_extract_twice_is_the_same_as_once(run, place):
    """FIFOs and their hard links that are there already are kept; everything else is replaced."""
    os.mkfifo("one")
    os.link("one", "two")
    good(run, "cp", "-a", "one", "two", "f", "overlay.img:/upper", "-q")
    for _ in range(2):
        good(run, "extract", "-f", "overlay.img", "-C", "out", "/upper", "-q")
        assert os.path.samefile("out/upper/one", "out/upper/two") and os.stat("out/upper/one").st_nlink == 2
        assert stat.S_ISFIFO(os.stat("out/upper/one").st_mode)


def test_unpack_keeps_what_is_no_file(run, place):
    name = next(name for name in os.listdir("image.d") if name.startswith("6-"))
    os.unlink(f"image.d/{name}")
    os.mkfifo(f"image.d/{name}")
    assert "is a FIFO, which is not replaced" in refused(run, "sif", "unpack", "--force", "i.sif", "image.d")
    assert stat.S_ISFIFO(os.lstat(f"image.d/{name}").st_mode)


def test_cp_writes_into_a_fifo_and_never_removes_it(run, place):
    reader = Reader("fifo")
    good(run, "cp", "-f", "overlay.img:/upper/f", "fifo", "-q")
    reader.join(60)
    assert reader.data == b"content\n" and stat.S_ISFIFO(os.lstat("fifo").st_mode)
    good(run, "ln", "-s", "f", "overlay.img:/upper/link", "-q")
    for argv in (("cp", "-a", "overlay.img:/upper/link", "fifo"), ("cp", "-af", "overlay.img:/upper/link", "fifo")):
        assert "will not overwrite 'fifo'" in refused(run, *argv)
        assert stat.S_ISFIFO(os.lstat("fifo").st_mode)


def test_cp_writes_to_dev_stdout_as_coreutils_does(run, place):
    for name in ("/dev/stdout", "/dev/fd/1"):
        assert run("cp", "overlay.img:/upper/f", name, "-q") == (0, "content\n", "")


def test_other_files_are_replaced_as_before(run, place):
    (place / "text").write_bytes(b"text")
    good(run, "sif", "dump", "--force", "6", "i.sif", "-o", "text", "-q")
    assert (place / "text").read_bytes() == LAST
    shutil.copy("i.sif", "other.sif")
    good(run, "sif", "dump", "--force", "6", "i.sif", "-o", "other.sif", "-q")
    assert (place / "other.sif").read_bytes() == LAST
    good(run, "overlay", "export", "-f", "overlay.img", "-o", "text", "-q")
    assert "other.sif is not a SIF image" in refused(run, "sif", "new", "--force", "other.sif")
    (place / "link").symlink_to("i.sif")
    good(run, "sif", "new", "--force", "link", "-q")
    assert os.path.islink("link") and os.path.getsize("i.sif") == 32176
    assert read_in("overlay.img", "/upper/f") == b"content\n"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs another user's FIFO")
@pytest.mark.parametrize("name", ["shared/fifo", "link"])
def test_cp_does_not_write_into_another_users_fifo(run, place, name):
    """As the kernel's protected_fifos has it for directories such as /tmp."""
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    os.mkfifo(shared / "fifo")
    (place / "link").symlink_to("shared/fifo")
    reader = Reader("shared/fifo")
    good(run, "cp", "overlay.img:/upper/f", name, "-q")
    reader.join(60)
    assert reader.data == (place / "f").read_bytes()
    os.chown(shared / "fifo", 12345, 12345)
    fd = os.open("shared/fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert "shared/fifo belongs to another user" in refused(run, "cp", "overlay.img:/upper/f", name, "-q")
        assert os.read(fd, 100) == b""
    finally:
        os.close(fd)


def test_cp_writes_to_the_file_that_it_has_checked(run, place, monkeypatch):
    """Also where a link leads to another file by the time that it is opened."""
    (place / "checked").write_bytes(b"old")
    (place / "other").write_bytes(b"other")
    (place / "link").symlink_to("checked")
    hold = Replaceable.hold

    @contextmanager
    def hold_and_lead_elsewhere(self, path, *, shown=""):
        with hold(self, path, shown=shown):
            (place / "link").unlink()
            (place / "link").symlink_to("other")
            yield

    monkeypatch.setattr(Replaceable, "hold", hold_and_lead_elsewhere)
    good(run, "cp", "overlay.img:/upper/f", "link", "-q")
    assert (place / "other").read_bytes() == b"other"
    assert (place / "checked").read_bytes() == (place / "f").read_bytes()
