"""Every command that reads, on damaged images that somebody else made: data, or a line that says why not, in bounded work."""

from __future__ import annotations

import gzip
import os
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

import ext3.device.base
from ext3.read.filesystem import Filesystem
from sifkit.cli import main
from sifkit.overlay.oci_layer.layer_export import export_layer

from ..support.tools import corpus

CORPUS = corpus("e2fsprogs")
CASES = sorted(CORPUS.glob("*/image.gz"))
COMMANDS = [
    ["ls", "-lR", "IMAGE"],
    ["tree", "IMAGE"],
    ["find", "IMAGE"],
    ["stat", "IMAGE", "/", "/lost+found"],
    ["df", "IMAGE"],
    ["du", "-a", "IMAGE"],
    ["diff", "IMAGE", "IMAGE"],
    ["extract", "IMAGE", "-C", "out"],
    ["overlay", "export", "IMAGE", "-o", "layer.tar"],
    ["overlay", "export", "IMAGE", "-o", "tree/"],
]

pytestmark = pytest.mark.skipif(not CASES, reason=f"no images in {CORPUS.name} (SIFKIT_CORPUS names the directory above)")


@pytest.fixture
def reads(monkeypatch):
    """Bytes of each read from a file, as they come."""
    sizes = []
    real = ext3.device.base.FileDevice.read

    def read(self, offset, size):
        sizes.append(size)
        return real(self, offset, size)

    monkeypatch.setattr(ext3.device.base.FileDevice, "read", read)
    return sizes


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.parent.name)
def test_commands(case, tmp_path, monkeypatch, capfdbinary, reads):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sifkit.vfs.extracting.workers_for", lambda jobs: 1)  # so that all reads are counted
    image = tmp_path / "a.img"
    image.write_bytes(gzip.decompress(case.read_bytes()))
    size = image.stat().st_size
    for words in COMMANDS:
        del reads[:]
        code = main(["a.img" if word == "IMAGE" else word for word in words])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        assert code in (0, 1, 2), (words, err)
        assert code == 0 or err or words[0] == "diff", words
        assert all(line.startswith((b"sifkit", b"...", b"the owners")) for line in err.splitlines()), err
        assert sum(reads) < 32 * size + (1 << 20), words
        assert len(reads) < 1000 + size // 256, words
        assert len(out) < 16 * size + (1 << 20), words
    taken = sum(path.lstat().st_blocks * 512 for path in tmp_path.rglob("*") if path != image)
    assert taken < 3 * size + (4 << 20)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.parent.name)
def test_what_can_be_read_is_in_an_archive(case, tmp_path, reads):
    """As ``overlay export`` does it with upper/, which none of these images has."""
    image = tmp_path / "a.img"
    image.write_bytes(gzip.decompress(case.read_bytes()))
    try:
        filesystem = Filesystem.open(image)
    except ext3.Ext3Error:
        return
    with filesystem, (tmp_path / "layer.tar").open("wb") as file:
        done = export_layer(filesystem, file)
        names = 0
        with suppress(ext3.Ext3Error):  # no root
            names = sum(1 for _ in filesystem.walk(onerror=lambda error: None))
    with tarfile.open(tmp_path / "layer.tar", errors="surrogateescape") as tar:
        assert len(tar.getmembers()) == done.entries
    assert done.entries + done.failed + done.left_out > names  # the top, too
    assert len(reads) < 1000 + image.stat().st_size // 64


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.parent.name)
def test_each_file_is_read_or_told(case, tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    Path("a.img").write_bytes(gzip.decompress(case.read_bytes()))
    main(["find", "a.img", "-type", "f", "-0"])
    sys.stdout.flush()
    files = [path for path in capfdbinary.readouterr().out.split(b"\0") if path][:300]
    sizes = 0
    for path in files[:20]:
        code = main(["cat", "a.img", os.fsdecode(path)])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        assert code == (1 if err else 0), path
        sizes += len(out)
    assert sizes < 32 * os.path.getsize("a.img")
    if files:
        assert main(["cat", "a.img", *map(os.fsdecode, files)]) in (0, 1)
