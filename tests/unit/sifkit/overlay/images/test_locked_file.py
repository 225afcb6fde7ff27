"""Copies of an image file that another program changes while it is copied: locks are advisory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sifkit.errors import SifkitError
from sifkit.overlay.images.locked_file import check_unchanged, copy_data, copy_range


def test_what_is_copied_leaves_the_holes(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w+b") as source, (tmp_path / "b").open("w+b") as target:
        os.pwrite(source.fileno(), b"x" * 4096, 1 << 20)
        os.ftruncate(source.fileno(), 2 << 20)
        copied = copy_data("a", source.fileno(), target.fileno(), 2 << 20, None)
        assert copied < 1 << 20
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        check_unchanged(source.fileno(), os.fstat(source.fileno()), "a")


def test_a_file_that_ends_before_its_copy_does(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w+b") as source, (tmp_path / "b").open("w+b") as target:
        os.pwrite(source.fileno(), b"x" * 5000, 0)
        with pytest.raises(SifkitError, match="a became shorter while it was copied") as caught:
            copy_range("a", source.fileno(), 0, target.fileno(), 100, 6000, None)
        assert caught.value.path == "a" and caught.value.hint


def test_a_file_that_is_changed_while_it_is_copied(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w+b") as source:
        before = os.fstat(source.fileno())
        os.ftruncate(source.fileno(), 100)
        with pytest.raises(SifkitError, match="a changed while it was copied"):
            check_unchanged(source.fileno(), before, "a")
