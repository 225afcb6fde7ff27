"""Golden bytes: deterministic images are these very bytes on every host, and the reference library's too.

All but the last were made with siftool 2.24 too (``new`` and ``add`` with the same values) and are the same to the byte once
identity and times are those of a deterministic image. A change here is a change of what is written: it must be meant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from sifkit.sif import (
    SIF,
    Arch,
    DataType,
    EditError,
    FSType,
    HashType,
    PartitionMeta,
    PartType,
    SBOMFormat,
    SBOMMeta,
    SignatureMeta,
    Stamp,
    TruncatedError,
)

DEFINITION = b"Bootstrap: docker\nFrom: alpine\n"


def two_objects(sif: SIF) -> None:
    """A definition file, and a primary partition in group 1."""
    metadata = PartitionMeta(FSType.SQUASHFS, PartType.PRIMARY_SYSTEM, Arch.AMD64)
    sif.add(DEFINITION, DataType.DEFFILE)
    sif.add(b"p" * 100, DataType.PARTITION, group=1, name=b"rootfs", metadata=metadata)


def an_overlay(sif: SIF) -> None:
    two_objects(sif)
    metadata = PartitionMeta(FSType.EXT3, PartType.OVERLAY, Arch.AMD64)
    with sif.reserve(5000, metadata, group=1):
        pass


def many_types(sif: SIF) -> None:
    two_objects(sif)
    sif.add(b"{}", DataType.OCI_BLOB)
    sif.add(b"{}", DataType.SBOM, link=2, metadata=SBOMMeta(SBOMFormat.SPDX_JSON))
    sif.add(b"signed", DataType.SIGNATURE, link_group=1, metadata=SignatureMeta(HashType.SHA256, bytes(range(20))))


def many_edits(sif: SIF) -> None:
    many_types(sif)
    sif.add(b"s" * 10, DataType.PARTITION, group=1, metadata=PartitionMeta(FSType.RAW, PartType.SYSTEM, Arch.ARM64))
    sif.set_primary(6)
    sif.delete([1, 3])
    sif.replace(4, b"[]")
    sif.update(2, name=b"old root", group=2)


GOLDEN: dict[str, tuple[Callable[[SIF], None], str]] = {
    "empty": (lambda sif: None, "1987d6041b278a3a87810475ce3bbe5416bc0301471c29c1e2f020579a61f815"),
    "two objects": (two_objects, "719356ab8baba349e83fc7f6797304adf3e1caf0fe970c65d9dba2f1fcf63a31"),
    "an overlay": (an_overlay, "c880d4ffb4a33d2e845f242ba68bbdac8a5cbefbc703725275c504070aeb6759"),
    "many types": (many_types, "6f76caae451f661832e68eb191738a88be2fe175079e2a512a69b30bd98ead17"),
    "many edits": (many_edits, "57ee9f145bb0847adb47731d1f517e156db8f7dd9ef69ea484ff77af9439031d"),
}


@pytest.mark.parametrize("in_place", [False, True], ids=["while it is made", "afterwards"])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(tmp_path: Path, name: str, in_place: bool) -> None:
    """The same bytes whether edits happen before the image has its name or after."""
    edit, digest = GOLDEN[name]
    path = tmp_path / "image.sif"
    with SIF.create(path, stamp=Stamp.deterministic()) as sif:
        if not in_place:
            edit(sif)
    if in_place:
        with SIF.open(path, "r+") as sif:
            edit(sif)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("before", "error", "edit"),
    [
        (None, EditError, lambda sif: sif.add(b"x" * 100_000, DataType.GENERIC, name=b"n" * 129)),
        (None, EditError, lambda sif: sif.set_primary(1)),
        (None, OSError, lambda sif: sif.add("/nowhere/to/be/found", DataType.GENERIC)),
        (cut_short, TruncatedError, lambda sif: sif.add(b"x", DataType.GENERIC)),
        (cut_short, TruncatedError, lambda sif: sif.update(2, name=b"x")),
    ],
)
def test_an_error_leaves_golden_bytes(
    tmp_path: Path,
    before: Callable[[Path], None] | None,
    error: type[Exception],
    edit: Callable[[SIF], object],
) -> None:
    path = tmp_path / "image.sif"
    with SIF.create(path, stamp=Stamp.deterministic()) as sif:
        two_objects(sif)
    if before:
        before(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with SIF.open(path, "r+") as sif, pytest.raises(error):
        edit(sif)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    if not before:
        assert digest == GOLDEN["two objects"][1]


def test_a_given_date_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.sif", "other.sif"):
        with SIF.create(tmp_path / name, stamp=Stamp.at(1_700_000_000)) as sif:
            two_objects(sif)
    assert (tmp_path / "one.sif").read_bytes() == (tmp_path / "other.sif").read_bytes()
