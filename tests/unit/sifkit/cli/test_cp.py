"""``sifkit cp`` looks before it writes: how much there is to copy, whether there is space, and what is left out."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from ext3 import Filesystem
from sifkit.overlay.copying.copier import Copier
from sifkit.overlay.copying.copy_options import PRESERVE_ALL, CopyOptions
from sifkit.overlay.copying.copy_source import CopySource
from sifkit.overlay.copying.copy_space import SpaceEstimate
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.edit.edit_session import edit_image
from sifkit.overlay.edit.upper_edit import OverlayEditor
from sifkit.overlay.embedding.in_partition import embed
from sifkit.overlay.options import CreateOptions
from sifkit.sif import SIF, DataType, HashType, PartType, SignatureMeta
from sifkit.vfs.copy_outcome import Copied
from sifkit.vfs.host_tree import HostTree

from ....support.commands import good, names_in, read_in, refused, stat_in
from ....support.sif_images import partition

MIB = 1 << 20


class Counting:
    """What is told of the progress: (phase, total, how much was counted)."""

    def __init__(self) -> None:
        self.phases: list[list[object]] = []

    def phase(self, name: str, total: int | None, unit: str) -> None:
        self.phases.append([name, total, 0])

    def advance(self, count: int) -> None:
        self.phases[-1][2] += count  # type: ignore[operator]

    def done(self) -> None:
        pass


@pytest.fixture
def image(overlay):
    return overlay


def digest(path):
    return sha256(Path(path).read_bytes()).hexdigest()


def make_files(top: Path, count: int, size: int) -> None:
    top.mkdir()
    for number in range(count):
        (top / f"{number}").write_bytes(b"x" * size)


# Space


def test_a_copy_that_does_not_fit_leaves_the_image_as_it_is(run, image, tmp_path):
    make_files(tmp_path / "big", 3, 4 * MIB)
    before = digest(image)
    said = refused(run, "cp", "-r", "big", "overlay.img:/upper")
    assert "overlay.img: the copy needs 12 MiB and 4 inodes, the image has 6." in said
    assert "remove files from it" in said
    found = json.loads(run("cp", "-r", "--json", "big", "overlay.img:/upper")[1])["error"]
    assert found["kind"] == "no-space" and found["needed_bytes"] > 12 * MIB > found["available_bytes"]
    assert found["needed"] == 4 and found["available"] > 4
    assert digest(image) == before


@pytest.mark.slow
def test_more_files_than_inodes(run, image, tmp_path):
    make_files(tmp_path / "many", 2100, 0)
    before = digest(image)
    assert "and 2,101 inodes" in refused(run, "cp", "-r", "many", "overlay.img:/upper")
    assert digest(image) == before


def test_the_same_from_another_image(run, image, tmp_path):
    create("large.img", CreateOptions(size=32 * MIB))
    make_files(tmp_path / "big", 3, 4 * MIB)
    good(run, "cp", "-r", "big", "large.img:/upper")
    before = digest(image)
    assert "the copy needs 12 MiB and 4 inodes" in refused(run, "cp", "-r", "large.img:/upper/big", "overlay.img:/upper")
    assert "the copy needs" in refused(run, "cp", "large.img:/upper/big/0", "large.img:/upper/big/1", "overlay.img:/upper")
    assert digest(image) == before
    good(run, "cp", "large.img:/upper/big/0", "overlay.img:/upper")
    assert "the copy needs 4 MiB and 1 inode" in refused(run, "cp", "overlay.img:/upper/0", "overlay.img:/upper/again")


def test_what_is_replaced_gives_its_room_back(run, image, tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(4 * MIB))
    good(run, "cp", "file", "overlay.img:/upper")
    assert "the copy needs" in refused(run, "cp", "file", "overlay.img:/upper/other")
    (tmp_path / "file").write_bytes(os.urandom(5 * MIB))
    good(run, "cp", "file", "overlay.img:/upper")
    make_files(tmp_path / "upper", 0, 0)
    (tmp_path / "upper" / "file").write_bytes(os.urandom(5 * MIB))
    good(run, "cp", "-rT", "upper", "overlay.img:/upper")
    good(run, "cp", "-n", "file", "overlay.img:/upper")
    with Filesystem.open(image) as filesystem:
        assert filesystem.read_bytes("/upper/file") == (tmp_path / "upper" / "file").read_bytes()


def test_holes_and_links_take_no_room(run, image, tmp_path):
    make_files(tmp_path / "tree", 1, 3 * MIB)
    for number in range(5):
        os.link(tmp_path / "tree" / "0", tmp_path / "tree" / f"link{number}")
    with (tmp_path / "tree" / "holes").open("wb") as file:
        file.truncate(1 << 30)
    assert "the copy needs 18." in refused(run, "cp", "-r", "tree", "overlay.img:/upper")
    good(run, "cp", "-a", "tree", "overlay.img:/upper")


def test_signatures_stay_where_nothing_is_copied(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SIF.create("a.sif", launch=b"#!/usr/bin/env run-singularity\n") as sif:
        sif.add(b"hsqs" + b"root" * 3000, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
    embed("a.sif", CreateOptions(size=8 * MIB))
    with SIF.open("a.sif", "r+") as sif:
        group = sif.overlays[0].group
        sif.add(b"?", DataType.SIGNATURE, link_group=group, metadata=SignatureMeta(HashType.SHA256, b""))
    make_files(tmp_path / "big", 3, 4 * MIB)
    before = digest("a.sif")
    words = ["--partition", "overlay", "--drop-signatures", "-r", "big", "a.sif:/upper"]
    assert "the copy needs" in refused(run, "cp", *words)
    assert digest("a.sif") == before
    code, _, err = run("cp", "--partition", "overlay", "--drop-signatures", "big/0", "a.sif:/upper")
    assert code == 0 and "now removed" in err
    with SIF.open("a.sif") as sif:
        assert not sif.select(data_type=DataType.SIGNATURE)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("archive", [False, True])
def test_what_is_counted_is_never_more_than_what_it_takes(image, tmp_path, seed, archive):
    """Inodes to the one, blocks at most as many, and what was promised of data is what is copied."""
    pick = random.Random(seed)
    top = tmp_path / "tree"
    directories = [top]
    top.mkdir()
    for number in range(30):
        where = pick.choice(directories)
        kind = pick.choice(["dir", "file", "file", "long", "link", "slow", "hard", "holes"])
        name = where / (f"{kind}{number}" + "n" * pick.randrange(100))
        if kind == "dir":
            name.mkdir()
            directories.append(name)
        elif kind in ("file", "long"):
            name.write_bytes(b"x" * pick.randrange(5000 if kind == "file" else 400_000))
        elif kind in ("link", "slow"):
            name.symlink_to("t" * (5 if kind == "link" else 200))
        elif kind == "hard":
            files = [path for path in top.rglob("*") if path.is_file() and not path.is_symlink()]
            if files:
                os.link(pick.choice(files), name)
        else:
            with name.open("wb") as file:
                for _ in range(3):
                    file.seek(pick.randrange(MIB))
                    file.write(b"y" * pick.randrange(1, 9000))
    options = CopyOptions(recursive=True, preserve=PRESERVE_ALL if archive else frozenset())
    progress = Counting()
    with edit_image(image) as edited:
        editor = OverlayEditor(edited.filesystem)
        for tree, path in (
            (HostTree("/"), b"/upper/tree"),
            (editor.tree, b"/upper/copy"),
            (HostTree("/"), b"/upper/tree"),  # all is there already
        ):
            node = os.fsencode(top) if isinstance(tree, HostTree) else editor.lookup(b"/upper/tree", follow=False)
            source = CopySource.of(tree, node, "tree")
            progress.phase("scan", None, "files")
            space = SpaceEstimate(editor, options, progress)
            target = editor.resolve(path, follow=False)
            space.add(source, target.node)
            before = edited.filesystem.superblock
            progress.phase("copy", space.data_bytes, "bytes")
            copier = Copier(editor, options, image="", progress=progress)
            assert all(isinstance(outcome, Copied) for outcome in copier.copy(source, target))
            after = edited.filesystem.superblock
            assert space.inodes == before.free_inodes - after.free_inodes
            assert space.blocks <= before.free_blocks - after.free_blocks
            assert space.blocks >= before.free_blocks - after.free_blocks - 40
            assert progress.phases[-1] == ["copy", space.data_bytes, copier.bytes] and space.data_bytes == copier.bytes
            edited.sync()


def test_progress_has_a_total(run, image, tmp_path):
    make_files(tmp_path / "tree", 7, 1000)
    code, _, err = run("cp", "-r", "--progress", "json", "tree", "overlay.img:/upper")
    told = [json.loads(line)["progress"] for line in err.splitlines()]
    assert code == 0 and [one["phase"] for one in told] == ["scan", "scan", "copy", "copy", "done"]
    assert (told[1]["done"], told[1]["unit"]) == (7, "files")
    assert [(one["done"], one["total"]) for one in told[2:4]] == [(0, 7000), (7000, 7000)]


# What is left out


def test_the_image_is_not_copied_into_itself(run, image, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    code, _, err = run("cp", "-r", ".", "overlay.img:/upper")
    assert code == 0 and err == "sifkit cp: warning: './overlay.img' is the image itself and is not copied\n"
    with Filesystem.open(image) as filesystem:
        assert sorted(entry.name for entry in filesystem.scandir("/upper")) == [b"file"]


def test_a_directory_that_cannot_be_read_is_told_and_the_rest_copied(run, image, tmp_path, monkeypatch):
    make_files(tmp_path / "tree", 2, 10)
    make_files(tmp_path / "tree" / "shut", 1, 10)
    scandir = os.scandir

    def closed(path):
        if not isinstance(path, int) and os.fsencode(path).endswith(b"shut"):
            raise PermissionError(13, os.strerror(13), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert "cannot access 'tree/shut': Permission denied" in refused(run, "cp", "-r", "tree", "overlay.img:/upper")
    with Filesystem.open(image) as filesystem:
        assert sorted(entry.name for entry in filesystem.scandir("/upper/tree")) == [b"0", b"1", b"shut"]


def test_directories_in_a_circle_end(run, image):
    """A damaged image that leads on and on is copied from once."""
    create("bad.img", CreateOptions(size=8 * MIB))
    with edit_image("bad.img") as edited:
        fs = edited.filesystem
        fs.mkdir("/upper/a")
        fs.mkdir("/upper/a/b")
        above = fs.lookup("/upper/a")
        fs.write_bytes("/upper/a/b/circle", b"")
    raw = bytearray(Path("bad.img").read_bytes())
    # The name becomes one of the directory above it.
    place = 0
    while (place := raw.find(b"circle", place + 1)) > 0:  # in the journal, too
        raw[place - 8 : place - 4] = above.to_bytes(4, "little")
        raw[place - 1] = 2
    Path("bad.img").write_bytes(raw)
    assert "this directory is in it twice" in refused(run, "cp", "-r", "bad.img:/upper/a", "overlay.img:/upper")
    assert good(run, "find", "overlay.img", "/upper") == "/upper\n/upper/a\n/upper/a/b\n"


def test_what_is_named_twice_is_copied_once(run, image, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_bytes(b"1")
    (tmp_path / "d" / "f").write_bytes(b"2")
    code, _, err = run("cp", "f", "f", "overlay.img:/upper")
    assert (code, err) == (0, "sifkit cp: warning: source file 'f' specified more than once\n")
    said = refused(run, "cp", "f", "d/f", "overlay.img:/upper")
    assert "will not overwrite just-created 'overlay.img:/upper/f' with 'd/f'" in said
    said = refused(run, "cp", "overlay.img:/upper/f", "overlay.img:/upper/../upper/f", "d")
    assert "will not overwrite just-created 'd/f'" in said
    assert (tmp_path / "d" / "f").read_bytes() == b"1"


def test_partition_is_for_the_sif_among_several_images(run, image, tmp_path):
    with SIF.create("a.sif", launch=b"#!/usr/bin/env run-singularity\n"):
        pass
    embed("a.sif", CreateOptions(size=4 * MIB))
    Path("motd").write_bytes(b"hello\n")
    good(run, "cp", "--partition", "overlay", "motd", "a.sif:/upper/motd")
    good(run, "cp", "--partition", "overlay", "a.sif:/upper/motd", "overlay.img:/upper/here")
    good(run, "cp", "--partition", "overlay", "overlay.img:/upper/here", "a.sif:/upper/back")
    assert good(run, "cat", "--partition", "overlay", "a.sif", "/upper/back") == "hello\n"
    code, _, err = run("cp", "--partition", "overlay", "motd", "overlay.img:/upper/again")
    assert code == 2 and "--partition is for SIF images" in err


@pytest.fixture
def descriptors():
    if not os.path.isdir("/dev/fd"):
        pytest.skip("there is no /dev/fd here")


def in_background(call):
    thread = threading.Thread(target=call)
    thread.start()
    return thread


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("size", [0, 5, 3 * MIB])
def test_a_pipe_is_copied(run, image, size):
    """coreutils: cp <(cmd), and cp /dev/stdin."""
    content = os.urandom(size)
    reading, writing = os.pipe()

    def write():
        with open(writing, "wb") as file:
            file.write(content)

    writer = in_background(write)
    good(run, "cp", f"/dev/fd/{reading}", f"{image}:/upper", "-q")
    writer.join()
    os.close(reading)
    assert read_in(image, f"/upper/{reading}") == content
    assert stat_in(image, f"/upper/{reading}").mode == 0o100600


def test_a_fifo_is_copied_without_r(run, image, tmp_path):
    """coreutils wait for the writer and copy what comes; with -r they make a FIFO."""
    os.mkfifo(tmp_path / "fifo")
    good(run, "cp", "-q", "-r", tmp_path / "fifo", f"{image}:/upper/fifo")
    (tmp_path / "old").write_bytes(b"old content")
    good(run, "cp", "-q", tmp_path / "old", f"{image}:/upper/old")
    for target in ("new", "old"):
        writer = in_background(lambda: (tmp_path / "fifo").write_bytes(b"from a fifo"))
        good(run, "cp", "-q", "-P", tmp_path / "fifo", f"{image}:/upper/{target}")
        writer.join()
        assert read_in(image, f"/upper/{target}") == b"from a fifo"
    assert stat_in(image, "/upper/fifo").mode & 0o170000 == 0o010000


@pytest.mark.usefixtures("descriptors")
def test_a_removed_file_is_copied_by_its_descriptor(run, image, tmp_path):
    """coreutils open /dev/fd/N; what it leads to has no path."""
    (tmp_path / "f").write_bytes(b"removed")
    with (tmp_path / "f").open("rb") as file:
        (tmp_path / "f").unlink()
        good(run, "cp", "-q", f"/dev/fd/{file.fileno()}", f"{image}:/upper/f")
    assert read_in(image, "/upper/f") == b"removed"


@pytest.mark.parametrize("path", ["/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"])
@pytest.mark.parametrize("options", [[], ["-a"]])
def test_a_file_with_a_false_size_is_copied(run, image, path, options):
    """coreutils read it to its end."""
    if not os.path.exists(path):
        pytest.skip(f"there is no {path} here")
    good(run, "cp", "-q", *options, path, f"{image}:/upper/f")
    assert read_in(image, "/upper/f") == Path(path).read_bytes()


def test_a_directory_of_proc_is_copied(run, image):
    source = Path("/proc/sys/net/ipv4/conf/lo")
    if not source.is_dir():
        pytest.skip(f"there is no {source} here")
    good(run, "cp", "-q", "-r", source, f"{image}:/upper")
    for path in source.iterdir():
        assert read_in(image, f"/upper/lo/{path.name}") == path.read_bytes()


def test_a_source_without_an_end_leaves_nothing(run, image):
    if not os.path.exists("/dev/zero"):
        pytest.skip("there is no /dev/zero here")
    with Filesystem.open(image) as filesystem:
        free = filesystem.superblock.free_blocks
    assert "no space left in the image" in refused(run, "cp", "-q", "/dev/zero", f"{image}:/upper/zero")
    assert b"zero" not in names_in(image)
    with Filesystem.open(image) as filesystem:
        assert filesystem.superblock.free_blocks == free


@pytest.mark.usefixtures("descriptors")
def test_sources_that_cannot_be_opened(run, image, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        error = refused(run, "cp", tmp_path / "socket", f"{image}:/upper")
        assert f"cannot open '{tmp_path / 'socket'}' for reading: No such device or address" in error
    assert "cannot stat '/dev/fd/987': No such file" in refused(run, "cp", "/dev/fd/987", f"{image}:/upper")
    good(run, "cp", "-q", "-r", tmp_path / "socket", f"{image}:/upper")
    error = refused(run, "cp", f"{image}:/upper/socket", f"{image}:/upper/other")
    assert "overlay.img:/upper/socket' is not a regular file" in error


def test_hard_links_hold_between_directories_given_as_links(run, image, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"dir{name}").mkdir()
        (tmp_path / name).symlink_to(f"dir{name}")
    (tmp_path / "dira/f").write_bytes(b"1")
    os.link(tmp_path / "dira/f", tmp_path / "dirb/g")
    good(run, "cp", "-q", "-a", f"{tmp_path}/a/", f"{tmp_path}/b/", f"{image}:/upper")
    assert stat_in(image, "/upper/a/f").ino == stat_in(image, "/upper/b/g").ino


def test_devices_that_only_root_may_make_are_told(run, image, monkeypatch):
    with edit_image("overlay.img") as edited:
        edited.filesystem.mkdir("/upper/dev")
        edited.filesystem.mknod("/upper/dev/sda", 0o060600, rdev=(8, 0))

    def no_device(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "mknod", no_device)
    code, _, err = run("cp", "-r", "overlay.img:/upper/dev", "out")
    assert code == 1
    assert err == "sifkit cp: cannot create 1 device in 'out': Operation not permitted; only root can create devices\n"


def test_a_full_disk_is_told_of_the_copy(run, image, tmp_path, monkeypatch):
    with edit_image("overlay.img") as edited:
        edited.filesystem.mkdir("/upper/dir")
    (tmp_path / "out").mkdir()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sifkit.vfs.copy_out.extract", full)
    code, _, err = run("cp", "-r", "overlay.img:/upper/dir", "out")
    assert code == 1 and "cannot create directory 'out/dir': No space left on device" in err
    (tmp_path / "out" / "dir").mkdir()
    code, out, _ = run("cp", "--json", "-r", "overlay.img:/upper/dir", "out")
    error = json.loads(out)["errors"][0]
    assert code == 1 and error["kind"] == "no-space"
    assert error["message"] == "copying 'overlay.img:/upper/dir' to 'out/dir': No space left on device"


def test_an_image_is_not_overwritten_by_what_is_in_it(run, image, tmp_path):
    Path("file").write_bytes(b"x")
    good(run, "cp", "file", "overlay.img:/upper/overlay.img")
    good(run, "mkdir", "overlay.img:/upper/other")
    before = digest(image)
    Path("link").symlink_to("overlay.img")
    for target in ("overlay.img", ".", "link"):
        code, _, err = run("cp", "-f", "overlay.img:/upper/overlay.img", target)
        assert code == 1 and "overlay.img': it is the source image" in err.replace("link'", "overlay.img'")
    for words in (
        ["cp", "-r", "overlay.img:/upper/.", "."],
        ["extract", "--force", "--upper", "overlay.img", "-C", "."],
        ["overlay", "export", "--force", "overlay.img", "-o", "./"],
    ):
        code, _, err = run(*words)
        assert code == 1 and "overlay.img" in err and "the file is the image itself" in err, err
        assert (tmp_path / "other").is_dir()
    assert digest(image) == before


def test_links_are_copied_as_links_where_that_is_asked_for(run, image, tmp_path):
    Path("file").write_bytes(b"x")
    Path("link").symlink_to("file")
    Path("lost").symlink_to("nowhere")
    for option, name in (("-d", "a"), ("-P", "b")):
        good(run, "cp", option, "link", f"overlay.img:/upper/{name}")
        good(run, "cp", option, "lost", f"overlay.img:/upper/{name}lost")
        good(run, "cp", option, f"overlay.img:/upper/{name}", f"out-{name}")
        assert os.readlink(f"out-{name}") == "file"
        good(run, "cp", option, f"overlay.img:/upper/{name}", f"overlay.img:/upper/{name}2")
        with Filesystem.open("overlay.img") as filesystem:
            assert filesystem.readlink(f"/upper/{name}2") == b"file"
            assert filesystem.readlink(f"/upper/{name}lost") == b"nowhere"
    assert "-r not specified" in run("cp", "-d", str(tmp_path), "overlay.img:/upper/dir")[2]


def test_another_image_is_not_overwritten_by_accident(run, image, tmp_path):
    create("other.img", CreateOptions(size=8 * MIB))
    before = Path("other.img").read_bytes()
    Path("file").write_bytes(b"text")
    assert run("cp", "file", "overlay.img:/upper/other.img")[0] == 0
    code, _, err = run("cp", "overlay.img:/upper/lost", "other.img")
    assert code == 1 and "No such file" in err
    assert run("cp", "file", "overlay.img:/upper/file")[0] == 0
    code, _, err = run("cp", "overlay.img:/upper/file", "other.img")
    assert code == 1 and Path("other.img").read_bytes() == before
    assert err == (
        "sifkit cp: will not overwrite image 'other.img' with 'overlay.img:/upper/file'; write other.img:/ to copy into it,"
        " or give -f to replace it\n"
    )
    # one of its own name, or told to
    assert run("cp", "overlay.img:/upper/other.img", ".")[0] == 0 and Path("other.img").read_bytes() == b"text"
    create("third.img", CreateOptions(size=8 * MIB))
    assert run("cp", "-f", "overlay.img:/upper/file", "third.img")[0] == 0 and Path("third.img").read_bytes() == b"text"
