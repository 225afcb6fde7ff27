"""``sifkit check``: a line or a JSON object per image, sums, exit codes, digests."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from sifkit.sif import SIF, DataType, FSType, PartType

from ....support.fsck_damage import damage_counts
from ....support.sif_damage import slot
from ....support.sif_images import partition
from ....support.tiny_squashfs import TINY_SQUASHFS, tiny_sif

GOOD_SIF = "good: SIF, 8.5 KiB; root squashfs (gzip, 5 inodes)"


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "sub").mkdir(parents=True)
    tiny_sif(tmp_path / "images" / "a.sif")
    (tmp_path / "images" / "sub" / "root").write_bytes(TINY_SQUASHFS)
    (tmp_path / "images" / "notes").write_text("text")
    return tmp_path / "images"


def test_good_images(run):
    code, out, err = run("check", "images")
    assert code == 0
    assert out == f"images/a.sif: {GOOD_SIF}\nimages/sub/root: good: squashfs, 381 bytes, gzip, 5 inodes\n"
    assert err.startswith("2 images: 2 good, 0 bad, 8.8 KiB in ") and err.count("\n") == 1


def test_bad_images(run, images):
    os.truncate(images / "a.sif", 5000)
    (images / "x.sif").touch()
    code, out, err = run("check", "images", "none")
    assert code == 1
    assert out.splitlines() == [
        "images/a.sif: bad: truncated: 3.6 KiB (3,673 bytes) of 8.5 KiB (8,673 bytes) are missing; download or copy it again",
        "images/x.sif: bad: truncated: it is empty; download or copy it again",
        "images/sub/root: good: squashfs, 381 bytes, gzip, 5 inodes",
        "none: bad: it cannot be read: No such file or directory",
    ]
    assert err.startswith("4 images: 1 good, 3 bad, ")
    code, out, err = run("check", "-q", "images")
    assert code == 1 and out.count("\n") == 2 and "good" not in out and not err


def test_no_image(run, images):
    (images / "empty").mkdir()
    code, out, err = run("check", "images/empty")
    assert (code, out) == (2, "")
    assert err == "sifkit check: there is no image in images/empty; give images, or other directories\n"
    code, out, _ = run("check", "--json", "images/empty")
    assert code == 2 and json.loads(out)["error"]["kind"] == "not-found"
    code, _, err = run("check", "images/empty", "images/a.sif")
    assert code == 0 and "there is no other image in images/empty" in err
    code, out, err = run("check", "none/*.sif", "images/a.sif/x")
    assert (code, out) == (2, "")
    assert err == "sifkit check: none/*.sif, images/a.sif/x: no such file or directory; give images, or directories\n"
    (images / "sums").write_text(f"{'0' * 64}  empty/gone.sif\n")
    assert run("check", "--sha256", "images/sums", "images/empty")[0] == 1


@pytest.mark.parametrize("arguments", [(), ("--threads", "0", "images"), ("--progress", "x", "images"), ("--sums", "images")])
def test_usage(run, arguments):
    assert run("check", *arguments)[0] == 2


def test_the_line_of_a_signed_sif(run, images):
    tiny_sif(images / "s.sif", signatures=2)
    out = run("check", "images/s.sif")[1]
    assert out == "images/s.sif: good: SIF, 8.5 KiB; root squashfs (gzip, 5 inodes); signatures: 2, not checked\n"
    os.truncate(images / "s.sif", 7000)
    assert run("check", "images/s.sif")[1].endswith(" are missing; download or copy it again; signatures: 2, not checked\n")


def test_what_to_do_about_a_damaged_filesystem(run, overlay):
    damage_counts(overlay)
    out = run("check", "overlay.img")[1]
    assert out.endswith("; repair it with: sifkit overlay fsck -fp overlay.img\n")
    with SIF.create("b.sif") as sif:
        sif.add(overlay, DataType.PARTITION, group=1, metadata=partition(PartType.OVERLAY, FSType.EXT3))
    out = run("check", "b.sif")[1]
    assert "bad: object 1: group 0: free blocks count is" in out
    assert out.endswith("; repair it with: sifkit overlay fsck -fp --partition 1 b.sif\n")
    assert run("overlay", "fsck", "-fp", "--partition", "1", "b.sif")[0] == 1
    assert run("check", "b.sif")[0] == 0


def test_a_damaged_table_names_sif_check(run, images):
    raw = bytearray((images / "a.sif").read_bytes())
    slot(0, Size=-5)(raw)
    (images / "a.sif").write_bytes(raw)
    out = run("check", "images/a.sif")[1]
    assert out.startswith("images/a.sif: bad: object 1: its size is negative; see: sifkit sif check images/a.sif; ")


def test_all_problems_are_shown_with_v(run, images):
    with SIF.open(images / "a.sif") as sif:
        start = sif.get(1).offset
    raw = bytearray((images / "a.sif").read_bytes())
    raw[start + 100] ^= 1
    (images / "a.sif").write_bytes(raw + b"more")
    code, out, err = run("check", "-v", "images/a.sif")
    assert code == 1 and out.startswith("images/a.sif: bad: object 1: ") and "; 1 warning (-v shows it)\n" in out
    assert "images/a.sif: error: object 1: " in err and "images/a.sif: warning: 4 bytes after the last object" in err


def test_digests(run, images):
    good, text = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (images / "a.sif", images / "notes"))
    other = "0" * 64
    (images / "sums").write_text(f"{good}  a.sif\n")
    code, out, _ = run("check", "--sha256", "images/sums", "images/a.sif")
    assert code == 0 and out == f"images/a.sif: {GOOD_SIF}; SHA-256 as listed\n"
    (images / "sums").write_text(f"{other}  a.sif\n{other}  gone.sif\n{other}  notes\n")
    code, out, _ = run("check", "--sha256", "images/sums", "images")
    assert code == 1 and out.splitlines() == [
        f"images/a.sif: bad: its SHA-256 is {good}, listed is {other}; download or copy it again",
        "images/sub/root: bad: the list of digests does not have it",
        "images/gone.sif: bad: it is in images/sums, but missing",
        f"images/notes: bad: its SHA-256 is {text}, listed is {other}; download or copy it again",
    ]
    assert run("check", "--sha256", "none", "images")[0] == 1
    assert run("check", "--sha256", "images/notes", "images")[2].startswith("sifkit check: images/notes: line 1 is not")


def test_json(run, images):
    os.truncate(images / "a.sif", 5000)
    code, out, err = run("check", "--json", "images")
    first, second, last = map(json.loads, out.splitlines())
    assert (code, err) == (1, "")
    assert (first["image"], first["verdict"], first["missing_bytes"]) == ("images/a.sif", "bad", 3673)
    assert first["problems"][0]["code"] == "truncated" and second["verdict"] == "good"
    assert second["filesystems"] == [
        {"id": None, "role": None, "kind": "squashfs", "compressor": "gzip", "inodes": 5, "skipped": None}
    ]
    assert (last["images"], last["good"], last["bad"]) == (2, 1, 1)


def test_names_of_files_do_not_reach_a_terminal(run, images):
    os.rename(images / "a.sif", os.path.join(os.fsencode(images), b"\x1b[31m\xff.sif"))
    code, out, _ = run("check", "images")
    assert code == 0 and out.startswith("images/\\x1b[31m\\xff.sif: good")
    found = json.loads(run("check", "--json", "images")[1].splitlines()[0])
    assert found["image_b64"]


def test_progress_as_json(run):
    err = run("check", "--progress", "json", "images")[2]
    last = json.loads(err.splitlines()[-2])["progress"]
    assert last["phase"] == "done" and last["done"] == 8673 + 381
