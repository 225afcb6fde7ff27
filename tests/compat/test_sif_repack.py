"""Images that were compacted, repaired, or unpacked and packed, judged by siftool; images of siftool taken apart and back."""

from __future__ import annotations

import re
from pathlib import Path

from sifkit.sif import SIF
from sifkit.sif.checking import check_file
from sifkit.sif.compacting import compact
from sifkit.sif.finding import Problem
from sifkit.sif.pack.packing import pack
from sifkit.sif.pack.unpacking import unpack
from sifkit.sif.repairing import repair

from ..support.tools import run

SIGNER = "433FE984155206BD962725E20E8713472A879943"


def siftool_image(directory: Path) -> Path:
    """An image with all siftool makes of it: objects of several types, two deleted, so that bytes are left in gaps."""
    path, big, small = directory / "image.sif", directory / "big", directory / "small"
    big.write_bytes(b"x" * 5000)
    small.write_bytes(b"y" * 777)
    run("siftool", "new", path)
    add = ("siftool", "add", path)
    run(*add, big, "--datatype", "1")
    run(*add, big, "--datatype", "4", "--parttype", "2", "--partfs", "1", "--partarch", "2", "--groupid", "1")
    run(*add, small, "--datatype", "7", "--link", "2")
    run(*add, small, "--datatype", "8")
    run(*add, small, "--datatype", "5", "--signhash", "1", "--signentity", SIGNER)
    run(*add, small, "--datatype", "4", "--parttype", "3", "--partfs", "4", "--partarch", "2", "--link", "0xF0000001")
    run("siftool", "del", "1", path)
    run("siftool", "del", "5", path)
    return path


def listed(path: Path) -> list[str]:
    """siftool's table without the places."""
    lines = run("siftool", "list", path).stdout.decode().splitlines()
    return [re.sub(r"\|[0-9]+-[0-9]+ *\|", "|", line) for line in lines if re.match(r"\d", line)]


def dumped(path: Path) -> dict[str, bytes]:
    return {line.split()[0]: run("siftool", "dump", line.split()[0], path).stdout for line in listed(path)}


def header_number(path: Path, name: str) -> str:
    text = run("siftool", "header", path).stdout.decode()
    found = re.search(rf"{name}:\s*(\S+)", text)
    assert found
    return found.group(1)


def test_compacted(tmp_path: Path) -> None:
    path = siftool_image(tmp_path)
    before, data = listed(path), dumped(path)
    assert len(before) == 4
    size = path.stat().st_size
    assert compact(path).after_bytes < size
    assert (listed(path), dumped(path)) == (before, data)
    assert compact(path, capacity=100).capacity == 100
    assert (listed(path), dumped(path)) == (before, data)
    assert header_number(path, "Descriptors Free") == "96"
    for _ in range(3):
        run("siftool", "add", path, tmp_path / "small", "--datatype", "7")
    after = dumped(path)
    assert len(after) == 7 and {id: after[id] for id in data} == data
    assert {finding.problem for finding in check_file(path)} == {Problem.FILESYSTEM}


def test_repaired(tmp_path: Path) -> None:
    path = siftool_image(tmp_path)
    data = dumped(path)
    findings = list(check_file(path))
    assert Problem.STALE_BYTES in {finding.problem for finding in findings}
    assert repair(path, findings)
    assert {finding.problem for finding in check_file(path)} == {Problem.FILESYSTEM}
    assert dumped(path) == data
    run("siftool", "add", path, tmp_path / "small", "--datatype", "7")
    after = dumped(path)
    assert len(after) == 5 and {id: after[id] for id in data} == data


def test_taken_apart_and_put_together(tmp_path: Path) -> None:
    path = siftool_image(tmp_path)
    with SIF.open(path) as sif:
        unpack(sif, tmp_path / "unpacked")
    assert pack(tmp_path / "unpacked", tmp_path / "again.sif").exact
    assert (tmp_path / "again.sif").read_bytes() == path.read_bytes()
    (tmp_path / "unpacked" / "3-generic.bin").write_bytes(b"other" * 1000)
    assert not pack(tmp_path / "unpacked", tmp_path / "changed.sif").exact
    assert listed(tmp_path / "changed.sif") == listed(path)
    assert dumped(tmp_path / "changed.sif") == dumped(path) | {"3": b"other" * 1000}
