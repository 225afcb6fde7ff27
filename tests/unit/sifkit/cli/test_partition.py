"""Every command that looks into images or changes them, on partitions of SIF images: the overlay, and ext3 in other groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from ext3.constants import STATE_VALID
from ext3.device.base import FileDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.format.superblock import read_superblock
from ext3.read.filesystem import Filesystem
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.embedding.in_partition import embed
from sifkit.overlay.options import CreateOptions
from sifkit.sif import SIF, DataType, FSType, PartType

from ....support.commands import refused
from ....support.sif_images import partition

MIB = 1 << 20


@pytest.fixture
def image(tmp_path, monkeypatch):
    """a.sif: a root, its overlay in group 1 (object 2), ext3 in group 2 (object 3) and without a journal (object 4)."""
    monkeypatch.chdir(tmp_path)
    create("raw.img", CreateOptions(size=6 * MIB, layout="data"))
    create("plain.img", CreateOptions(size=4 * MIB, layout="data", journal=False))
    with SIF.create("a.sif", launch=b"#!/usr/bin/env run-singularity\n") as sif:
        sif.add(b"hsqs" + b"root" * 3000, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
    assert embed("a.sif", CreateOptions(size=8 * MIB)).partition.id == 2
    with SIF.open("a.sif", "r+") as sif:
        for name in ("raw.img", "plain.img"):
            sif.add(Path(name), DataType.PARTITION, group=2, metadata=partition(PartType.DATA, FSType.EXT3))
    Path("motd").write_bytes(b"hello\n")
    return tmp_path / "a.sif"


@pytest.mark.slow
@pytest.mark.parametrize(("which", "top"), [("overlay", "/upper"), ("2", "/upper"), ("3", ""), ("4", "")])
def test_every_command_works_on_a_partition(run, image, tmp_path, which, top):
    def good(*words):
        verb = words[:2] if words[0] == "xattr" else words[:1]
        code, out, err = run(*verb, "--partition", which, *words[len(verb) :])
        assert code == 0 and not err, (words, code, out, err)
        return out

    spot = f"a.sif:{top}"
    others = {"2": which not in ("overlay", "2"), "3": which != "3", "4": which != "4"}
    before = {number: window(image, number) for number, other in others.items() if other}
    good("mkdir", "-p", f"{spot}/d/e")
    good("cp", "motd", f"{spot}/d/motd")
    good("cp", f"{spot}/d/motd", f"{spot}/d/again")
    good("ln", f"{spot}/d/motd", f"{spot}/d/twin")
    good("ln", "-s", "motd", f"{spot}/d/link")
    good("mv", f"{spot}/d/again", f"{spot}/d/moved")
    good("chmod", "-R", "u=rwX,go=", f"{spot}/d")
    good("chown", "5:6", f"{spot}/d/motd")
    good("xattr", "set", "user.k", "v", f"{spot}/d/motd")
    good("rm", "-r", f"{spot}/d/e", f"{spot}/d/moved")
    assert good("ls", "a.sif", f"{top}/d") == good("ls", f"{spot}/d") == "link\nmotd\ntwin\n"
    assert "-rw------- 2 5 6 6 " in good("ls", "-l", "a.sif", f"{top}/d")
    assert good("cat", "a.sif", f"{top}/d/link") == "hello\n"
    assert good("find", "a.sif", f"{top}/d", "-type", "f") == f"{top}/d/motd\n{top}/d/twin\n"
    assert good("find", "a.sif", f"{top}/d", "-newer", f"{spot}/d/link", "-type", "f") == ""
    assert "link -> motd" in good("tree", "a.sif", f"{top}/d")
    assert "owner       5:6" in good("stat", "a.sif", f"{top}/d/motd")
    assert good("xattr", "get", "user.k", "a.sif", f"{top}/d/motd") == "v"
    assert 'user.k="v"' in good("xattr", "list", "a.sif", f"{top}/d/motd")
    good("xattr", "rm", "user.k", f"{spot}/d/motd")
    assert good("du", "-s", "--inodes", "a.sif", f"{top}/d") == f"3\t{top}/d\n"
    assert good("df", "a.sif").count("a.sif") == 2
    assert good("diff", "a.sif", "a.sif") == ""
    good("cp", "-r", f"{spot}/d", "out")
    assert (tmp_path / "out" / "twin").read_bytes() == b"hello\n"
    good("extract", "a.sif", "-C", "all", f"{top}/d")
    assert (tmp_path / "all" / top.lstrip("/") / "d" / "motd").read_bytes() == b"hello\n"
    assert {number: window(image, number) for number in before} == before
    with SIF.open(image) as sif:
        assert not sif.warnings and len(sif) == 4


def window(image, number):
    with SIF.open(image) as sif:
        found = sif.get(int(number))
    return image.read_bytes()[found.offset : found.end]


@pytest.mark.parametrize(
    ("which", "code", "said"),
    [("9", 1, "no object with ID 9"), ("upper", 2, "must be overlay, root or an ID")],
)
@pytest.mark.parametrize("words", [("ls", "a.sif"), ("mkdir", "a.sif:/x")], ids=" ".join)
def test_other_partitions(run, image, which, code, said, words):
    found, out, err = run(words[0], "--partition", which, *words[1:])
    assert (found, out, err.count("\n")) == (code, "", 1) and said in err


@pytest.mark.parametrize("which", ["1", "root"])
def test_a_squashfs_is_read_only(run, image, which):
    err = refused(run, "mkdir", "--partition", which, "a.sif:/x")
    assert "object 1 is a squashfs filesystem, not ext3; look into it with: sifkit ls --partition 1 a.sif" in err
    assert "a.sif: squashfs version" in refused(run, "ls", "--partition", which, "a.sif")  # this one is none


def test_without_a_journal_the_partition_is_edited_in_place(run, image, monkeypatch):
    """Marked as not in order before the first change, and in order again after the last."""
    with SIF.open(image) as sif:
        found = sif.get(4)
    seen = []
    write = FileDevice.write

    def looking_write(device, offset, data):
        write(device, offset, data)
        if device.offset == found.offset:
            seen.append(bool(read_superblock(device).state & STATE_VALID))

    monkeypatch.setattr(FileDevice, "write", looking_write)
    before = image.stat().st_ino
    assert run("mkdir", "--partition", "4", "a.sif:/d")[0] == 0
    assert image.stat().st_ino == before
    assert len(seen) > 2 and not any(seen[:-1]) and seen[-1]
    monkeypatch.undo()
    with image.open("rb") as file, Filesystem.open(FileDevice(file.fileno(), found.offset, found.size)) as filesystem:
        assert filesystem.stat("/d").is_dir and not filesystem.superblock.has_journal


def test_a_partition_left_in_the_middle_is_refused_until_it_was_checked(run, image, monkeypatch):
    def killed(*_, **__):
        raise SystemExit(9)

    monkeypatch.setattr("ext3.edit.session.write_blocks", killed)
    monkeypatch.setattr(WritableFilesystem, "abandon", lambda self: None)
    with pytest.raises(SystemExit):
        run("mkdir", "--partition", "4", "a.sif:/d")
    monkeypatch.undo()
    monkeypatch.chdir(image.parent)
    code, out, err = run("mkdir", "--partition", "4", "a.sif:/d")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "was not unmounted cleanly; repair it with: sifkit overlay fsck -fp --partition 4 a.sif" in err
    assert run("ls", "--partition", "4", "a.sif") == (0, "lost+found\n", "")
