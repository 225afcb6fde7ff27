"""overlay info, ls and cat on real images, and the guards: what a file is, who uses it, what may be replaced."""

from __future__ import annotations

import json
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext3 import hostio
from ext3.constants import JOURNAL_INO, ROOT_INO, SUPERBLOCK_OFFSET, Compat, Incompat, RoCompat
from ext3.errors import NotExt3Error
from ext3.format.schema import SUPERBLOCK
from ext3.read.filesystem import Filesystem
from sifkit.cli import main
from sifkit.errors import FormatError, ImageInUseError, NotReplaceableError
from sifkit.file_locks import lock_range
from sifkit.in_use import image_use
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.destination import EXT_IMAGES
from sifkit.overlay.images.image_format import file_format, head_format
from sifkit.overlay.info import image_info
from sifkit.overlay.options import CreateOptions
from sifkit.sif import NotSIFError

from ....support.platforms import linux_locks

SIF = b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + bytes(100)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One image of a small tree, for tests that only read it."""
    base = tmp_path_factory.mktemp("made")
    source = base / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc" / "motd").write_bytes(b"hello\n")
    (source / "etc" / "link").symlink_to("/upper/etc/motd")
    with open(os.path.join(os.fsencode(source), b"odd \xff\n\x1b"), "wb") as file:
        file.write(b"x" * 5000)
    image = base / "o.img"
    create(image, CreateOptions(size=16 << 20, from_dir=source, layout="upper", owner=(70000, 70001), label=b"lab"))
    return image


@pytest.fixture
def image(made, tmp_path):
    """A copy that may be changed."""
    copy = tmp_path / "o.img"
    copy.write_bytes(made.read_bytes())
    return copy


@pytest.fixture
def run(capfdbinary):
    def call(*argv):
        code = main([os.fspath(arg) for arg in argv])
        sys.stdout.flush()
        found = capfdbinary.readouterr()
        return code, found.out, found.err.decode()

    return call


def patch(path, **fields):
    data = bytearray(path.read_bytes())
    row = SUPERBLOCK.view(data, 1, SUPERBLOCK_OFFSET)
    for name, value in fields.items():
        row[name] = value
    path.write_bytes(data)


def test_info_of_what_was_made(made):
    info = image_info(made)
    assert (info.size_bytes, info.block_size, info.inode_size) == (16 << 20, 1024, 256)
    assert info.label == b"lab" and info.state == "clean" and info.readable and not info.problem
    assert info.used_bytes + info.free_bytes == info.size_bytes
    assert info.inodes_used + info.inodes_free == info.inodes
    assert info.journal is not None and info.journal.size_bytes == 1 << 20 and not info.journal.dirty
    assert info.upper is not None and (info.upper.uid, info.upper.gid) == (70000, 70001) and info.work is not None
    assert info.accepted and info.reasons == ()
    assert not info.use.busy and "has_journal" in info.features


@pytest.mark.parametrize(
    ("fields", "accepted", "state", "says"),
    [
        ({"s_feature_compat": 0x38}, False, "clean", "no journal"),
        ({"s_feature_incompat": int(Incompat.FILETYPE | Incompat.EXTENTS)}, False, "clean", "extent"),
        ({"s_feature_ro_compat": int(RoCompat.LARGE_FILE | RoCompat.METADATA_CSUM)}, False, "clean", "metadata_csum"),
        ({"s_feature_incompat": int(Incompat.FILETYPE | Incompat.NEEDS_RECOVERY)}, True, "dirty", "journal is not empty"),
        ({"s_feature_ro_compat": 7}, True, "clean", ""),
        ({"s_feature_compat": int(Compat.HAS_JOURNAL) | 1 << 31}, True, "clean", ""),
        ({"s_blocks_count": 1 << 20}, False, "clean", "shorter"),
        ({"s_state": 3}, True, "errors", "sifkit overlay fsck"),
        ({"s_state": 0}, True, "not clean", "sifkit overlay fsck"),
    ],
)
def test_what_apptainer_accepts(image, fields, accepted, state, says):
    patch(image, **fields)
    info = image_info(image)
    assert (info.accepted, info.state) == (accepted, state)
    assert any(says in line for line in (*info.reasons, *info.notes)) or not says


def test_free_counts_are_those_of_the_groups(image):
    """fuse2fs leaves the superblock's counts of a partition as they were; e2fsck corrects them to the groups'."""
    want = image_info(image)
    with image.open("r+b") as file:
        file.seek(SUPERBLOCK_OFFSET + 0x0C)
        file.write(bytes([7, 0, 0, 0, 5, 0, 0, 0]))
    assert image_info(image) == want
    assert (want.free_bytes, want.inodes_free) != (7 * 1024, 5)


@pytest.mark.parametrize("ino", [ROOT_INO, JOURNAL_INO])
def test_what_is_read_before_the_damage_is_kept(image, ino):
    want = image_info(image)
    with Filesystem.open(image) as opened:
        place = opened.groups[0]["bg_inode_table"] * opened.superblock.block_size + (ino - 1) * opened.superblock.inode_size
    with image.open("r+b") as file:
        file.seek(place)
        file.write(bytes(128))
    found = image_info(image)
    assert not found.readable and found.problem
    assert (found.metadata_bytes, found.used_bytes) == (want.metadata_bytes, want.used_bytes)
    assert (found.upper, found.work) == ((None, None) if ino == ROOT_INO else (want.upper, want.work))


def test_without_upper(tmp_path):
    create(tmp_path / "d.img", CreateOptions(size=8 << 20, layout="data"))
    info = image_info(tmp_path / "d.img")
    assert info.upper is None and info.accepted and any("no upper/" in note for note in info.notes)


@pytest.mark.slow
@given(data=st.data())
def test_hostile_superblocks_give_facts_or_a_typed_error(made, tmp_path_factory, data):
    """Any field with any value: facts or an error of ours, and the text can be shown."""
    path = tmp_path_factory.mktemp("hostile") / "x.img"
    path.write_bytes(made.read_bytes()[: 256 << 10])
    names = [name for name in SUPERBLOCK.dtype.names if SUPERBLOCK.dtype[name].kind == "u" and name != "s_magic"]
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=4)):
        top = 256 ** SUPERBLOCK.dtype[name].itemsize - 1
        patch(path, **{name: data.draw(st.integers(0, top) | st.sampled_from([0, 1, top]))})
    assert main(["overlay", "info", str(path)]) in (0, 1)
    assert main(["overlay", "info", "--json", str(path)]) in (0, 1)
    assert main(["ls", "-lR", str(path)]) in (0, 1)
    path.unlink()


def test_info_as_text(run, made):
    code, out, err = run("overlay", "info", made)
    text = out.decode()
    assert (code, err) == (0, "")
    rows = dict(line.split("  ", 1) for line in text.splitlines())
    assert rows["Apptainer"].strip() == "accepted"
    assert rows["upper/"].strip() == "0755, owner 70000:70001"
    assert rows["space"].strip() == "2.2 MiB used, 13.8 MiB free (13 %)" and "%" in rows["inodes"]
    assert max(map(len, rows)) <= 10 and "\u2588" not in text
    assert "reserved" not in rows and "reserved" in run("overlay", "info", "-v", made)[1].decode()


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_info_on_a_terminal_has_bars_and_fits_it(run, made, monkeypatch, locale):
    from sifkit.cli.support.console import Console

    monkeypatch.setattr(Console, "out_is_terminal", True)
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("COLUMNS", "80")
    text = run("overlay", "info", made)[1].decode()
    assert max(map(len, text.splitlines())) <= 80
    drawn = text.splitlines()[2].split()[1]
    cells = "#=j." if locale == "C" else "\u2588\u2593\u2592\u2591"
    assert len(drawn) == 30 and "".join(sorted(set(drawn), key=drawn.index)) == cells
    assert text.isascii() == (locale == "C")
    legend = text.splitlines()[3].split("  ")
    assert [part.split()[1] for part in legend if part.strip()] == ["content", "metadata", "journal"]


def test_a_table_on_a_terminal_takes_names_as_text(run, made, monkeypatch):
    from sifkit.cli.support.console import Console

    monkeypatch.setattr(Console, "out_is_terminal", True)
    monkeypatch.setenv("COLUMNS", "200")
    odd = made.parent / "[bold]x[].img"
    odd.write_bytes(made.read_bytes())
    code, out, _ = run("overlay", "info", odd)
    assert code == 0 and b"[bold]x[].img" in out
    odd.unlink()


def test_what_is_no_image(tmp_path, run):
    sif, squash, text, directory = (tmp_path / name for name in ("a.sif", "a.sqsh", "a.txt", "a.dir"))
    sif.write_bytes(SIF)
    squash.write_bytes(b"hsqs" + bytes(5000))
    text.write_bytes(b"x" * 5000)
    directory.mkdir()
    for path, error, code in (
        (sif, NotSIFError, 1),
        (squash, FormatError, 1),
        (text, NotExt3Error, 1),
        (directory, FormatError, 1),
        (tmp_path / "none", FileNotFoundError, 1),
    ):
        with pytest.raises(error):
            image_info(path)
        for words in (["overlay", "info"], ["ls"]):
            if path is directory and words == ["ls"]:
                continue  # it is listed
            found, out, err = run(*words, path)
            assert (found, out) == (code, b"") and err.count("\n") == 1 and path.name in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_does_not_hang(tmp_path, run):
    os.mkfifo(tmp_path / "fifo")
    for words in (["overlay", "info"], ["ls"], ["overlay", "create", "-F"]):
        assert run(*words, tmp_path / "fifo")[0] == 1


# ls and cat


def test_ls_on_a_terminal_escapes_names_but_not_with_zero(run, made, monkeypatch):
    monkeypatch.setattr("sifkit.cli.support.console._is_terminal", lambda stream: True)
    odd = b"odd \xff\n\x1b"
    _, lines, _ = run("ls", "-lR", made, "upper")
    assert odd not in lines and b" odd\\ \\377\\n\\033\n" in lines
    assert b" " + odd + b"\0" in run("ls", "-lR0", made, "upper")[1]


def test_ls(run, made):
    odd = b"odd \xff\n\x1b"
    assert run("ls", made) == (0, b"lost+found\nupper\nwork\n", "")
    assert run("ls", made, "/upper") == (0, b"etc\n" + odd + b"\n", "")
    assert run("ls", "-0", f"{made}:/upper") == (0, b"etc\0" + odd + b"\0", "")
    assert run("ls", "-R0", made, "upper")[1].split(b"\0")[:-1] == [
        b"upper/etc", b"upper/" + odd, b"upper/etc/link", b"upper/etc/motd",
    ]  # fmt: skip
    code, out, _ = run("ls", "-lh", made, "/upper/etc")
    lines = out.decode().splitlines()
    assert code == 0 and lines[0].startswith("lrwxrwxrwx 1 70000 70001") and lines[0].endswith(" link -> /upper/etc/motd")
    assert lines[1].split()[4] == "6"
    assert "  " in run("ls", "-l", made, "/upper/etc")[1].decode()  # sizes of 6 and 15 are aligned


def test_ls_escapes_on_a_terminal(run, made, monkeypatch):
    from sifkit.cli.support.console import Console

    monkeypatch.setattr(Console, "out_is_terminal", True)
    assert run("ls", made, "/upper")[1] == b"etc\nodd\\ \\377\\n\\033\n"


def test_all_are_shown_anyway(run, made):
    assert run("ls", "-la", made) == run("ls", "-l", made)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["ls", "{}", "/nope"], "cannot access '/nope': No such file or directory; list files with: sifkit ls {}"),
        (["cat", "{}", "/upper/etc/motd/x"], "/upper/etc/motd/x: Not a directory; list files with: sifkit ls {}"),
        (["cat", "{}", "/upper"], "/upper: Is a directory; give a file (sifkit ls lists directories)"),
        (["cat", "{}"], "PATH is missing: a file in {}; list files with: sifkit ls {}"),
        (["ls", "{}:"], "{}:: no path after the colon; did you mean {}:/?"),
        (["ls", "{}.none"], "{}.none: No such file or directory"),
        (
            ["overlay", "info", "."],
            ". is a directory, not an image; create an image from it with: sifkit overlay create --from-dir .",
        ),
    ],
)
def test_every_error_says_what_to_do_next(run, made, argv, says):
    code, out, err = run(*(word.format(made) for word in argv))
    assert (code, out) == (2 if "PATH" in says or "colon" in says else 1, b"")
    assert err.endswith(says.format(made, made) + "\n") and err.count("\n") == 1


def test_a_damaged_image_has_a_hint(run, image):
    data = bytearray(image.read_bytes())
    data[2048:2112] = b"\xff" * 64
    image.write_bytes(data)
    assert f"the image is damaged; check it with: sifkit overlay fsck -fn {image}" in run("ls", image)[2]
    image.write_bytes(b"x" * 5000)
    assert run("ls", image)[2].endswith("; give a SIF, squashfs or ext3 image\n")


def test_verbose_tells_of_the_image(run, made):
    for argv in (["ls", "-v", made], ["-v", "cat", made, "/upper/etc/motd"]):
        assert run(*argv)[2] == f"{made}: ext3, 16 MiB, blocks of 1 KiB, journal clean\n"


def test_ls_of_what_is_not_there(run, made):
    code, out, err = run("ls", made, "/nope", "/work")
    assert code == 1 and out == b"/work:\n" and "/nope" in err


def test_cat(run, made):
    assert run("cat", made, "/upper/etc/motd", "upper/etc/link") == (0, b"hello\nhello\n", "")
    assert run("cat", f"{made}:/upper/etc/motd") == (0, b"hello\n", "")
    for path in ("/upper", "/nope", "/upper/etc/motd/x"):
        code, out, err = run("cat", made, path)
        assert (code, out) == (1, b"") and err.startswith("sifkit cat: ") and err.count("\n") == 1


def test_cat_in_json_mode_does_not_exist(run, made):
    assert run("cat", "--json", made, "/x")[0] == 2


# Guards


def test_formats(tmp_path, made):
    path = tmp_path / "x"
    for data, wanted in (
        (b"", "empty"),
        (SIF, "sif"),
        (b"hsqs" + bytes(3000), "squashfs"),
        (b"x" * 3000, "unknown"),
        (b"x", "unknown"),
    ):
        path.write_bytes(data)
        assert file_format(path) == wanted
    assert file_format(made) == "ext"


def test_ext4_is_not_ours_to_replace(image):
    patch(image, s_feature_incompat=int(Incompat.FILETYPE | Incompat.EXTENTS))
    assert file_format(image) == "unknown"
    assert not EXT_IMAGES.allows(image)


@given(st.binary(max_size=4096))
def test_any_head_has_a_format(head):
    assert head_format(head, len(head)) in ("empty", "ext", "sif", "squashfs", "unknown")


def test_what_may_be_replaced(tmp_path, made):
    EXT_IMAGES.check(tmp_path / "none")
    EXT_IMAGES.check(made)
    (tmp_path / "empty").touch()
    EXT_IMAGES.check(tmp_path / "empty")
    (tmp_path / "sif").write_bytes(SIF)
    (tmp_path / "dir").mkdir()
    (tmp_path / "text").write_text("precious")
    for name, says in (("sif", "SIF"), ("dir", "a directory"), ("text", "not an ext2 or ext3")):
        with pytest.raises(NotReplaceableError, match=says):
            EXT_IMAGES.check(tmp_path / name)


@linux_locks
@pytest.mark.parametrize("write", [True, False])
def test_a_locked_image_is_in_use_by_us(image, write):
    fd = os.open(image, os.O_RDWR)
    try:
        if not lock_range(fd, write=write, size=16 << 20):
            pytest.skip("this filesystem has no locks")
        use = image_use(image)
        assert (use.lock, use.busy, use.written) == ("write" if write else "read", True, write)
        assert [holder.pid for holder in use.holders] == [os.getpid()]
        with pytest.raises(ImageInUseError, match=str(os.getpid())):
            EXT_IMAGES.check(image)
    finally:
        os.close(fd)
    assert not image_use(image).busy


@linux_locks
def test_create_does_not_replace_a_locked_image(image, run):
    before = image.read_bytes()
    fd = os.open(image, os.O_RDWR)
    try:
        if not lock_range(fd, write=False):
            pytest.skip("this filesystem has no locks")
        code, out, _ = run("overlay", "create", "--json", "-F", "-s", "8M", image)
    finally:
        os.close(fd)
    assert code == 1 and json.loads(out)["error"]["kind"] == "in-use"
    assert image.read_bytes() == before


def test_space_of_free_blocks(tmp_path):
    """A file that is written in full takes space that trim gives back; a sparse one does not."""
    path = tmp_path / "a.img"
    create(path, CreateOptions(size=40 << 20))
    assert not any("trim" in note for note in image_info(path).notes)
    fd = os.open(path, os.O_RDWR)
    try:
        hostio.allocate(fd, 0, 40 << 20)
    finally:
        os.close(fd)
    info = image_info(path)
    if info.allocated_bytes < 40 << 20:
        pytest.skip("nothing can be allocated here")
    assert any("on disk are of free blocks" in note and "sifkit overlay trim" in note for note in info.notes)
    assert main(["-q", "overlay", "trim", os.fspath(path)]) == 0
    assert image_info(path).allocated_bytes < 10 << 20


def test_a_requirement_is_asked_quietly(run, made):
    code, out, err = run("-q", "overlay", "info", "--require", "usable", made)
    assert out == b"" and (code == 0) == (err == "")
    assert b"for you" in run("-q", "overlay", "info", made)[1]
    assert b"for you" in run("overlay", "info", "--require", "usable", made)[1]
