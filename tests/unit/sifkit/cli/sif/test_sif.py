"""``sifkit sif``: arguments in both orders, what follows from what, refusals that leave the image alone, exit codes."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from sifkit import sif as library
from sifkit.cli import main
from sifkit.cli.sif.codes import TABLES
from sifkit.cli.support.render import stacked_bar
from sifkit.sif import SIF, Arch, DataType, FSType, PartType, SignatureMeta
from sifkit.sif.format import types as codes
from tests.support.sif_images import STAMP, partition, sample_image

SQUASHFS = b"hsqs".ljust(28, b"\0") + b"\x04\0" + bytes(100)
EXT3 = bytes(1080) + b"\x53\xef" + bytes(34) + b"\x04\0\0\0" + b"\x02\0\0\0" + bytes(1000)
KINDS = {
    "DATATYPE": codes.DataType, "PARTTYPE": codes.PartType, "FS": codes.FSType, "ARCH": codes.Arch, "HASH": codes.HashType,
    "FORMAT": codes.FormatType, "MESSAGE": codes.MessageType, "SBOM": codes.SBOMFormat,
}  # fmt: skip


@pytest.fixture
def run(capfdbinary):
    def call(*argv):
        code = main(["sif", *(os.fspath(arg) for arg in argv)])
        sys.stdout.flush()
        found = capfdbinary.readouterr()
        return code, found.out.decode("utf-8", "surrogateescape"), found.err.decode("utf-8", "surrogateescape")

    return call


@pytest.fixture
def image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    (tmp_path / "overlay.img").write_bytes(EXT3)
    (tmp_path / "root.sqfs").write_bytes(SQUASHFS)
    (tmp_path / "a.json").write_bytes(b'{"a": 1}\n')
    (tmp_path / "4").write_bytes(b"four")
    with SIF.create("i.sif", stamp=STAMP) as sif:
        sif.add(b"Bootstrap: docker\n", DataType.DEFFILE, group=2)
        sif.add(SQUASHFS, DataType.PARTITION, group=2, metadata=partition(PartType.PRIMARY_SYSTEM, arch=Arch.ARM64))
        sif.add(b"\x00\x01", DataType.GENERIC, name=b"raw")
    return Path("i.sif")


def facts(image, id):
    with SIF.open(image) as sif:
        return sif.get(id), sif.read(id)


@pytest.mark.parametrize("table", TABLES)
def test_words_in_help_are_the_library_s(table):
    assert TABLES[table] == {member.word: member.number for member in KINDS[table].choices()}


def test_list_header_and_info(run, image):
    code, out, err = run("list", image)
    assert code == 0 and not err
    assert out.splitlines() == [
        "ID  GROUP  LINK    START-END       SIZE  TYPE                         NAME",
        " 1  2      none  32176-32194   18 bytes  Def.FILE",
        " 2  2      none  32768-32898  130 bytes  FS (Squashfs/*System/arm64)",
        " 3  none   none  32898-32900    2 bytes  Generic/Raw                  raw",
    ]
    assert "architecture  arm64\n" in run("header", image)[1]
    assert run("info", "3", image) == run("info", image, "3") == run("info", "--name", "raw", image)
    assert "name      raw\n" in run("info", "3", image)[1]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["info", "1"], "IMAGE is missing; write ./4 for an image named 4"),
        (["info", "i.sif"], "ID is missing"),
        (["info", "1", "2", "i.sif"], "too many IDs: 1, 2"),
        (["info", "x1", "i.sif"], "x1: neither an ID nor the image"),
        (["info", "0", "i.sif"], "0: IDs are from 1"),
        (["info", "1", "i.sif", "--name", "raw"], "ID 1 and --name exclude each other"),
        (["dump", "1", "i.sif", "--force"], "--force needs -o FILE"),
        (["dump", "1", "i.sif", "-o", "i.sif", "--force"], "i.sif is the image itself"),
        (["add", "i.sif", "a.json"], "--datatype is missing; give the type of FILE: deffile, envvar"),
        (["add", "i.sif", "--datatype", "json"], "FILE is missing"),
        (["add", "i.sif", "a.json", "--datatype", "jsn"], "--datatype jsn: unknown data type; did you mean json?"),
        (["add", "i.sif", "a.json", "--datatype", "12"], "--datatype 12: unknown data type; one of: deffile (1)"),
        (["add", "i.sif", "a.json", "--datatype", "6", "--partfs", "1"], "--partfs is for the type partition"),
        (["add", "i.sif", "a.json", "--datatype", "4"], "--parttype is missing"),
        (["add", "i.sif", "a.json", "--datatype", "5"], "--signhash is missing"),
        (["add", "i.sif", "a.json", "--datatype", "5", "--signhash", "1"], "--signentity is missing; 40 digits"),
        (["add", "i.sif", "a.json", "--signentity", "none"], "--signhash is missing"),
        (["add", "i.sif", "a.json", "--datatype", "9"], "a.json: unknown SBOM format"),
        (["add", "i.sif", "a.json", "--cryptoformat", "pem"], "--cryptomessage is missing"),
        (["add", "i.sif", "a.json", "--parttype", "overlay"], "a.json: unknown filesystem; an overlay is"),
        (["add", "i.sif", "--parttype", "4", "--partfs", "squashfs"], "overlay.img is ext3, but --partfs says squashfs"),
        (["add", "i.sif", "--parttype", "4", "--partfs", "raw"], "an overlay is ext3 or squashfs, not raw"),
        (["add", "i.sif", "a.json", "--datatype", "6", "--groupid", "0x10000000"], "--groupid 0x10000000: must be from 0 to"),
        (["add", "i.sif", "a.json", "--datatype", "6", "--link", "-1"], "--link -1: must be from 0 to"),
        (["add", "i.sif", "a.json", "--datatype", "6", "--name", "x" * 129], "129 bytes; a name has at most 128"),
        (["add", "i.sif", "a.json", "--datatype", "6", "--name", "x", "--no-name"], "--name and --no-name contradict"),
        (["add", "i.sif", "a.json", "--datatype", "5", "--signhash", "1", "--signentity", "12"], "--signentity 12: not a"),
        (["add", "i.sif", "a.json", "--parttype", "1", "--partarch", "vax"], "--partarch vax: unknown architecture"),
        (["add", "i.sif", "i.sif", "--datatype", "6"], "i.sif is the image itself"),
        (["del", "i.sif"], "ID is missing"),
        (["update", "1", "i.sif"], "nothing to change"),
        (["update", "1", "i.sif", "--partfs", "1"], "object 1 is Def.FILE, which has no --partfs"),
        (["update", "1", "i.sif", "--link", "2", "--link-group", "2"], "--link and --link-group exclude each other"),
        (["replace", "1", "i.sif"], "FILE is missing; write ID IMAGE FILE"),
        (["new", "n.sif", "--launch", "x" * 32], "32 bytes with its newline; at most 31 fit"),
        (["new", "n.sif", "--capacity", "0"], "--capacity 0: must be from 1 to 16384"),
        (["new", "n.sif", "--id", "abc"], "--id abc: not a UUID"),
    ],
)  # fmt: skip
def test_usage_is_refused_in_one_line_and_nothing_is_written(run, image, argv, says):
    before = image.read_bytes()
    code, out, err = run(*argv)
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1 and err.startswith(f"sifkit sif {argv[0]}: ")
    assert image.read_bytes() == before and not Path("n.sif").exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["info", "9", "i.sif"], "i.sif: no object with ID 9; IDs: 1, 2, 3"),
        (["dump", "--name", "nix", "i.sif"], "i.sif: no object named nix"),
        (["del", "--type", "sbom", "i.sif"], "no object is of type sbom; list them with: sifkit sif list i.sif"),
        (["setprim", "1", "i.sif"], "i.sif: object 1 is not a partition"),
        (["add", "i.sif", "root.sqfs", "--parttype", "primsys"], "i.sif: the image already has a primary partition, object 2"),
        (["add", "i.sif", "a.json", "--datatype", "6", "--link", "9"], "cannot link to object 9: no such object"),
        (["add", "i.sif", "nosuch", "--datatype", "6"], "nosuch: No such file or directory"),
        (["add", "i.sif", "/dev/zero", "--datatype", "6"], "/dev/zero is an endless device"),
        (["add", "nosuch.sif", "a.json", "--datatype", "6"], "nosuch.sif: No such file or directory"),
        (["add", "i.sif", ".", "--datatype", "6"], ". is a directory"),
        (["dump", "1", "i.sif", "-o", "a.json"], "a.json exists; give another name, or --force"),
        (["new", "i.sif"], "i.sif exists; give another name, or --force"),
        (["new", "--force", "a.json"], "a.json is not a SIF image; --force replaces only SIF images and empty files"),
        (["list", "a.json"], "a.json: not a SIF image"),
        (["list", "."], ". is a directory, not an image"),
    ],
)  # fmt: skip
def test_failures_are_one_line_and_leave_the_image_as_it_was(run, image, argv, says):
    before = image.read_bytes()
    code, out, err = run(*argv)
    assert (code, out) == (1, "") and says in err and err.count("\n") == 1
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    "argv",
    [
        ["--parttype", "overlay", "i.sif"],
        ["i.sif", "overlay.img", "--parttype", "4"],
        ["--datatype", "4", "--partfs", "2", "--parttype", "4", "--partarch", "4", "--groupid", "2", "i.sif", "overlay.img"],
        ["--datatype=0x4", "--partfs=ext3", "--parttype=Overlay", "--partarch=aarch64", "i.sif", "overlay.img"],
    ],
)
def test_every_way_to_add_an_overlay_gives_the_same(run, image, argv):
    code, out, err = run("add", *argv)
    assert (code, out, err) == (0, "", "")
    found, data = facts(image, 4)
    assert (found.fs_type, found.part_type, found.arch) == (FSType.EXT3, PartType.OVERLAY, Arch.ARM64)
    assert (found.group, found.name, found.offset % 4096, data) == (2, b"overlay.img", 0, EXT3)


def test_files_with_false_sizes_are_added_whole(run, image, monkeypatch):
    """proc reports 0 bytes."""
    if not os.path.exists("/proc/version"):
        pytest.skip("there is no /proc here")
    assert run("add", "--datatype", "generic", "i.sif", "/proc/version")[0] == 0
    with open("/proc/version", "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert run("add", "--datatype", "generic", "--name", "n", "i.sif", "-")[0] == 0
    assert facts(image, 4)[1] == facts(image, 5)[1] == Path("/proc/version").read_bytes()


def test_a_second_overlay_is_warned_of_with_the_command_that_replaces_the_first(run, image):
    assert run("add", image, "--parttype", "overlay")[0] == 0
    code, _, err = run("add", image, "--parttype", "overlay")
    assert code == 0 and "runtimes use the first one; to replace it: sifkit sif replace 4 i.sif FILE" in err


def test_a_table_on_a_terminal_fits_it_and_ends_with_a_map(run, image, monkeypatch):
    """Names are cut, nothing is folded, however narrow the terminal is."""
    with SIF.open(image, "r+") as sif:
        sif.update(3, name=b"n" * 128)
    plain = run("list", image)[1].splitlines()
    monkeypatch.setattr("sifkit.cli.support.console.Console.out_is_terminal", True)
    monkeypatch.setattr("sifkit.cli.support.console.Console.out_is_unicode", True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = run("list", image)[1].splitlines()
    assert shown[1:3] == plain[1:3] and shown[0] == f"\x1b[1m{plain[0]}\x1b[0m"
    assert len(plain[3]) > 80 and len(shown[3]) == 80 and shown[3][:-1] == plain[3][:79] and shown[3][-1] == "\u2026"
    assert shown[4] == run("list", image, "--nocolor")[1].splitlines()[4]
    assert len(shown) == 5 and len(shown[4]) == 80 and shown[4].startswith("0 |h") and shown[4].endswith(" KiB")
    assert set(shown[4].split("|")[1]) == {"h", "1", "2", "3", "\u00b7"}
    monkeypatch.setenv("COLUMNS", "10")
    assert run("list", image)[1].splitlines()[3].startswith(plain[3][:60])


def test_a_stacked_bar_is_to_scale_and_shows_small_parts():
    assert stacked_bar([50, 30, 20], "abc", width=10) == "aaaaabbbcc"
    assert stacked_bar([10**12, 1, 0, 1], "abcd", width=10) == "aaaaaaaabd"
    assert stacked_bar([0, 0], "ab", width=5) == "aaaaa"
    for parts in ([1] * 30, [7, 1, 1, 10**9, 3], list(range(1, 20))):
        assert len(stacked_bar(parts, "x" * len(parts), width=30)) == 30


def test_group_zero_is_literal_and_an_overlay_elsewhere_is_warned_of(run, image):
    code, _, err = run("add", "--parttype", "overlay", image, "--groupid", "0")
    assert code == 0 and "runtimes will not find it" in err and facts(image, 4)[0].group == 0
    code, _, err = run("add", "--parttype", "overlay", image, "--groupid", "1")
    assert code == 0 and "in group 1, the primary partition in 2" in err and facts(image, 5)[0].group == 1


def test_other_types_have_no_group_and_the_file_s_name(run, image):
    assert run("add", "--datatype", "json", image, "a.json")[0] == 0
    found, data = facts(image, 4)
    assert (found.data_type, found.group, found.name, data) == (DataType.GENERIC_JSON, 0, b"a.json", b'{"a": 1}\n')
    assert (
        run("add", "--datatype", "generic", "--filename", "n", "--link-group", "2", "--alignment", "0x1000", image, "4")[0] == 0
    )
    found, _ = facts(image, 5)
    assert (found.name, found.link_group, found.offset % 4096) == (b"n", 2, 0)
    assert run("add", "--datatype", "generic", "--no-name", image, "4")[0] == 0 and facts(image, 6)[0].name == b""


def test_sbom_format_is_told_by_the_content_and_may_not_contradict_it(run, image):
    Path("b.json").write_text('{"bomFormat": "CycloneDX", "specVersion": "1.5"}')
    assert run("add", "--datatype", "sbom", image, "b.json")[0] == 0
    assert facts(image, 4)[0].type_text == "SBOM (cyclonedx-json)"
    assert run("add", "--sbomformat", "spdx-json", image, "b.json")[0] == 2


def test_standard_input(run, image, monkeypatch):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=Pipe(EXT3 + b"x" * 200_000), isatty=lambda: False))
    assert run("add", "--parttype", "overlay", image, "-")[0] == 0
    found, data = facts(image, 4)
    assert found.fs_type == FSType.EXT3 and found.name == b"" and data == EXT3 + b"x" * 200_000
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    code, _, err = run("add", "--datatype", "generic", image, "-")
    assert code == 2 and "standard input is a terminal" in err


def test_dump_to_standard_output_and_to_a_file(run, image):
    assert run("dump", "1", image)[1] == run("dump", image, "1")[1] == "Bootstrap: docker\n"
    assert run("dump", "3", image, "-o", "out") == (0, "", "") and Path("out").read_bytes() == b"\x00\x01"
    assert run("dump", "1", image, "-o", "out", "--force")[0] == 0 and Path("out").read_bytes() == b"Bootstrap: docker\n"


def test_on_a_terminal_text_is_shown_and_binary_refused(run, image, monkeypatch):
    monkeypatch.setattr("sifkit.cli.support.console.Console.out_is_terminal", True)
    assert run("dump", "1", image)[1] == "Bootstrap: docker\n"
    code, out, err = run("dump", "3", image)
    assert (code, out) == (2, "")
    assert err == ("sifkit sif dump: object 3 is binary, 2 bytes; use a pipe, or: sifkit sif dump 3 i.sif -o FILE\n")


def test_a_digit_name_is_an_image_behind_dot_slash(run, image):
    image.rename("5")
    assert run("info", "1", "./5")[0] == 0


def test_delete_by_id_name_and_type(run, image):
    run("add", "--datatype", "json", image, "a.json")
    run("add", "--datatype", "json", image, "a.json", "--name", "b")
    code, out, _ = run("del", image, "--type", "6", "--name", "raw", "1", "--json")
    assert code == 0 and {entry["id"] for entry in json.loads(out)["removed"]} == {1, 3, 4, 5}
    with SIF.open(image) as sif:
        assert [descriptor.id for descriptor in sif] == [2]


def test_setprim_update_and_replace(run, image):
    run("add", image, "root.sqfs", "--parttype", "system", "--partarch", "amd64")
    assert run("setprim", "4", image)[0] == 0
    with SIF.open(image) as sif:
        assert sif.primary.id == 4 and sif.header.arch == Arch.AMD64
    assert run("update", image, "3", "--name", "n", "--group", "7", "--link", "2")[0] == 0
    found, _ = facts(image, 3)
    assert (found.name, found.group, found.link) == (b"n", 7, 2)
    assert run("update", "3", image, "--no-name", "--link", "0")[0] == 0 and facts(image, 3)[0].link == 0
    assert run("update", "2", image, "--partarch", "riscv64", "--parttype", "data")[0] == 0
    assert facts(image, 2)[0].type_text == "FS (Squashfs/Data/riscv64)"
    assert run("replace", "3", image, "4")[0] == 0 and facts(image, 3)[1] == b"four"
    code, _, err = run("replace", image, "2", "overlay.img")
    assert code == 0 and "object 2 is now declared as ext3" in err and facts(image, 2)[0].fs_type == FSType.EXT3


def test_new_deterministic_and_dated(run, image, monkeypatch):
    assert run("new", "a.sif", "--deterministic")[0] == 0 and run("new", "b.sif", "--deterministic")[0] == 0
    assert Path("a.sif").read_bytes() == Path("b.sif").read_bytes()
    with SIF.open("a.sif") as sif:
        assert sif.header.deterministic
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000")
    assert run("new", "c.sif", "--launch", "#!/bin/sh", "--arch", "2", "--capacity", "0x10")[0] == 0
    with SIF.open("c.sif") as sif:
        assert (sif.header.created, sif.header.launch, sif.header.arch, sif.capacity) == (1000, b"#!/bin/sh\n", Arch.AMD64, 16)


def test_unpack_pack_and_compact(run, image):
    before = image.read_bytes()
    assert run("unpack", image, "d")[0] == 0 and run("pack", "d", "again.sif")[0] == 0
    assert Path("again.sif").read_bytes() == before
    assert run("unpack", image, "d")[0] == 1
    code, out, _ = run("compact", image, "--capacity", "3", "--json")
    assert code == 0 and json.loads(out)["capacity"] == 3
    assert facts(image, 3)[1] == b"\x00\x01"


def test_full_table_says_how_to_make_room(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("f").write_bytes(b"x")
    run("new", "n.sif", "--capacity", "1")
    assert run("add", "n.sif", "f", "--datatype", "generic")[0] == 0
    code, _, err = run("add", "n.sif", "f", "--datatype", "generic")
    assert code == 1 and "1 of 1 descriptors are used; raise the capacity with: sifkit sif compact n.sif --capacity 48" in err


def test_check_has_e2fsck_s_exit_codes(run, image):
    assert run("check", image)[0] == 0
    raw = bytearray(image.read_bytes())
    raw[80] ^= 1  # DescriptorsFree
    image.write_bytes(raw)
    code, out, _ = run("check", image)
    assert (code == 4 and out.count("\n") == 1 and out.startswith("warning: ")) or out.startswith("error: ")
    assert run("check", "--repair", image)[0] == 1 and run("check", image)[0] == 0
    assert run("check", "nosuch.sif")[0] == 8 and run("check", "a.json")[0] == 8 and run("check", ".")[0] == 8
    assert run("check")[0] == 16 and run("check", "--nix", image)[0] == 16 and run("check", image, "--cut")[0] == 16


def test_check_interrupted_is_32(run, image, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("sifkit.sif.checking"), "check_file", interrupt)
    assert run("check", image)[0] == 32


def test_signed_images_are_not_edited_unasked(run, image):
    with SIF.open(image, "r+") as sif:
        sif.delete(3)
        sif.add(b"?", DataType.SIGNATURE, link_group=2, metadata=SignatureMeta(library.HashType.SHA256))
    before = image.read_bytes()
    for argv in (["add", image, "--parttype", "overlay"], ["del", "1", image], ["update", "1", image, "--name", "x"]):
        code, _, err = run(*argv)
        assert code == 1 and "would break signature 3 (of group 2)" in err and "--drop-signatures" in err
        assert image.read_bytes() == before
    assert run("del", "1", image, "--drop-signatures", "--keep-broken-signatures")[0] == 2
    code, _, err = run("update", "1", image, "--name", "x", "--keep-broken-signatures")
    assert code == 0 and "changing object 1 broke signature 3" in err
    code, out, _ = run("add", image, "--parttype", "overlay", "--drop-signatures", "--json")
    assert code == 0 and json.loads(out)["dropped_signatures"] == [3]
    with SIF.open(image) as sif:
        assert not sif.select(data_type=DataType.SIGNATURE)


def test_a_failure_is_one_line_whatever_there_is_to_warn_of(run, image):
    whole = image.read_bytes()
    image.write_bytes(whole[:-1])
    code, _, err = run("dump", "3", image)
    assert code == 1 and err.count("\n") == 1 and err.startswith("sifkit sif dump: i.sif: object 3 ends at byte 32900")
    assert run("list", image)[2].startswith("sifkit sif list: warning: i.sif: object 3 ends at byte 32900")
    with SIF.create("full.sif", capacity=2) as sif:
        sif.add(b"x", DataType.GENERIC, group=1)
        sif.add(b"?", DataType.SIGNATURE, link_group=1, metadata=SignatureMeta(library.HashType.SHA256))
    code, _, err = run("add", "full.sif", "overlay.img", "--parttype", "overlay", "--keep-broken-signatures")
    assert code == 1 and err.count("\n") == 1 and "2 of 2 descriptors are used" in err


def test_a_signature_and_whom_it_is_of(run, image):
    """An envelope tells that there is no fingerprint; what no verifier takes for a signature is said to be that."""
    Path("e.json").write_text('{"payloadType":"application/vnd.sylabs.sif-metadata+json","payload":"","signatures":[]}')
    code, _, err = run("add", image, "e.json", "--datatype", "signature", "--signhash", "sha256", "--link-group", "2")
    assert code == 0 and not err and facts(image, 4)[0].metadata == SignatureMeta(library.HashType.SHA256)
    code, _, err = run("add", image, "a.json", "--signhash", "1", "--signentity", "none")
    assert code == 0 and "a.json: unknown signature format" in err and err.count("\n") == 1
    code, _, err = run("replace", "4", image, "a.json")
    assert code == 0 and "a.json: unknown signature format" in err
    code, _, err = run("add", image, "a.json", "--signhash", "1", "--signentity", "AB " * 20)
    assert code == 0 and facts(image, 6)[0].metadata.fingerprint == b"\xab" * 20


def test_a_signature_that_is_edited_itself_is_not_dropped_with_the_edit(run, image):
    with SIF.open(image, "r+") as sif:
        sif.delete(3)
        sif.add(b"?", DataType.SIGNATURE, link_group=2, metadata=SignatureMeta(library.HashType.SHA256))
    before = image.read_bytes()
    for options in ([], ["--drop-signatures"]):
        code, _, err = run("update", "3", image, "--link", "1", *options)
        assert code == 1 and "use --keep-broken-signatures, or remove it with: sifkit sif del 3 i.sif" in err
    code, _, err = run("update", "3", image, "--link-group", "9", "--keep-broken-signatures")
    assert code == 1 and "cannot link to group 9: it has no objects" in err
    assert image.read_bytes() == before
    assert run("update", "3", image, "--link", "1", "--keep-broken-signatures")[0] == 0


def test_an_edit_and_what_it_drops_are_one_commit(run, image, monkeypatch):
    with SIF.open(image, "r+") as sif:
        sif.delete(3)
        sif.add(b"?", DataType.SIGNATURE, link_group=2, metadata=SignatureMeta(library.HashType.SHA256))
    before = image.read_bytes()
    monkeypatch.setattr(SIF, "delete", None)  # a second commit
    edits = (
        ["add", image, "--parttype", "overlay"],
        ["replace", "1", image, "4"],
        ["update", "1", image, "--name", "x"],
    )
    for argv in edits:
        image.write_bytes(before)
        code, out, _ = run(*argv, "--drop-signatures", "--json")
        assert code == 0 and json.loads(out)["dropped_signatures"] == [3]
        with SIF.open(image) as sif:
            assert not sif.select(data_type=DataType.SIGNATURE)


def test_errors_carry_the_ids_they_are_about(run, image):
    with SIF.open(image, "r+") as sif:
        sif.update(1, name=b"raw")
    error = json.loads(run("info", "--name", "raw", image, "--json")[1])["error"]
    assert (error["kind"], error["ids"]) == ("ambiguous", [1, 3])


def test_what_cuts_trailing_bytes_off_is_said(run, image):
    image.write_bytes(image.read_bytes() + b"more")
    for argv in (["check", image], ["check", "--repair", image]):
        code, out, _ = run(*argv)
        assert code == 4 and "an interrupted addition, or appended data" in out
        assert f"(sifkit sif check --repair --cut {image} removes them" in out
    assert run("check", "--repair", "--cut", image)[0] == 1 and run("check", image)[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs open-file-description locks")
def test_an_image_that_is_being_edited_says_by_whom(run, image):
    holder = "from sifkit.sif import SIF; sif = SIF.open('i.sif', 'r+'); print('ready', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        code, out, _ = run("del", "3", image, "--json")
        error = json.loads(out)["error"]
        assert code == 1 and error["kind"] == "in-use" and "overlay info" not in error["hint"]
        assert len(error["holders"]) == 1 and error["holders"][0].startswith(f"{other.pid} ")
        assert f"process {other.pid} (" in error["message"]
        other.communicate(b"\n")


def test_several_objects_on_a_full_disk(run, image, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(importlib.import_module("ext3.hostio"), "write_at", full)
    code, _, err = run("del", "1", "3", image)
    assert code == 1 and "remove them one by one" in err


def test_a_new_image_on_a_full_disk(run, tmp_path, monkeypatch):
    """The file is named, and what it needs, as for every output."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.import_module("ext3.hostio"), "write_at", full)
    code, _, err = run("new", "new.sif")
    assert code == 1 and "no space left for new.sif: it needs up to 31.4 KiB" in err
    assert os.listdir() == []


def test_listing_loads_no_more_than_it_needs(image):
    script = "import sys; from sifkit.cli import main; main(['sif', 'list', 'i.sif']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "sifkit.sif.image" in loaded
    assert not loaded & {
        "sifkit.sif.checking", "sifkit.sif.compacting", "sifkit.sif.pack.packing", "sifkit.sif.signatures", "sifkit.overlay",
        "hashlib", "json", "numpy", "construct", "rich",
    }  # fmt: skip
    assert {name for name in loaded if name.startswith("ext3.")} == {"ext3.hostio"}


def test_hostile_names_stay_in_their_line(run, image):
    with SIF.open(image, "r+") as sif:
        sif.update(3, name=b"a\n\x1b[31mb\xff")
    out = run("list", image)[1]
    assert out.count("\n") == 4 and "a\\n\\x1b[31mb\\xff" in out
    found = json.loads(run("list", image, "--json")[1])["objects"][2]
    assert found["name_b64"] == "YQobWzMxbWL/"


def test_sample_image_lists_links_and_groups(run, tmp_path):
    sample_image(tmp_path / "s.sif")
    out = run("list", tmp_path / "s.sif")[1].splitlines()
    assert out[6].split()[:3] == ["6", "none", "2"]
