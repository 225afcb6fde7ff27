"""When a layer counts as full."""

from __future__ import annotations

import errno
import os

import pytest

from sifkit.runtime.layers.writable_layer import full_note, fullness, unjoined
from sifkit.runtime.planning.run_plan import Upper

IMAGE, MEMORY = Upper(kind="image", path="/a b.img"), Upper(kind="tmpfs", size=64 << 20)


def totals(size: int, free: int, *, files: int = 100, free_files: int = 50) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, size // 4096, free // 4096, free // 4096, files, free_files, free_files, 0, 255))


@pytest.mark.parametrize(
    ("upper", "found", "wanted"),
    [
        (IMAGE, totals(1 << 30, 1 << 20), "bytes"),
        (IMAGE, totals(1 << 30, 3 << 20), ""),
        (IMAGE, totals(4 << 20, 1 << 20), ""),
        (IMAGE, totals(4 << 20, 500 << 10), "bytes"),
        (IMAGE, totals(14201 << 10, 1840 << 10), "bytes"),  # as after dd bs=4M
        (IMAGE, totals(1 << 30, 1 << 29, free_files=0), "inodes"),
        (MEMORY, totals(64 << 20, 4096), ""),
        (MEMORY, totals(64 << 20, 0), "bytes"),
        (MEMORY, totals(0, 0, files=0, free_files=0), ""),
    ],
)
def test_what_is_full(upper: Upper, found: os.statvfs_result, wanted: str) -> None:
    assert fullness(upper, found) == wanted


def test_notes_name_what_helps() -> None:
    assert full_note(MEMORY, "bytes").endswith("(64 MiB) is full: give it more with --tmpfs-size 128M")
    assert full_note(IMAGE, "inodes") == (
        "/a b.img is full (inodes); make it larger with: sifkit overlay resize '/a b.img' --size +1G"
    )


@pytest.mark.parametrize("upper", [None, Upper(kind="directory", path="/box/over")])
def test_layers_in_each_other_are_named_as_such(upper: Upper | None) -> None:
    error = unjoined(upper, OSError(errno.ELOOP, os.strerror(errno.ELOOP)))
    assert "one lies in another" in error.message and error.hint
