"""Hints of ``overlay create``: the ext3 library states facts, the command line says which option helps."""

from __future__ import annotations

import errno

import pytest

from ext3.errors import (
    ContentChangedError,
    CorruptError,
    DeviceError,
    GeometryError,
    NoInodesError,
    NoSpaceError,
    SourceError,
    TooLargeError,
    XattrError,
)
from sifkit.cli.support.hints import creation_hint
from sifkit.errors import UsageError


def too_many_attributes(block_size: int) -> XattrError:
    error = XattrError(b"/f", "do not fit")
    error.block_size = block_size
    return error


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (GeometryError("", field="block_size"), "omit -b"),
        (GeometryError("", field="block_size", least=4096), "use -b 4096"),
        (GeometryError("", field="inode_size"), "omit -I"),
        (GeometryError("", field="size", least=3 << 20), "about 3 MiB"),
        (GeometryError("", field="size", most=16 << 40), "16 TiB"),
        (GeometryError("", field="inodes"), "larger --size"),
        (GeometryError("", field="journal", least=1 << 20), "-J size=1"),
        (GeometryError("", field="journal", most=1 << 20), "smaller journal, or a larger --size"),
        (GeometryError("", field="label", most=16), ""),
        (NoSpaceError("", needed_bytes=(5 << 20) + 1, available_bytes=0), "--size 6M"),
        (NoInodesError(needed=9, available=5, enough=16), "-N 16"),
        (SourceError(b"/f", "reading", error=OSError(errno.EIO, "io")), "--exclude"),
        (SourceError(b"/f", "not a directory", error=OSError(errno.ENOTDIR, "")), "--from-tar"),
        (ContentChangedError(b"/f", "changed"), "--allow-changed"),
        (TooLargeError(b"/f", "", size_bytes=1, limit_bytes=1, block_size=1024), "-b 4096"),
        (TooLargeError(b"/f", "", size_bytes=1, limit_bytes=1, block_size=4096), "split it"),
        (too_many_attributes(1024), "use -b 4096, or --xattrs none"),
        (too_many_attributes(4096), "with --xattrs none"),
        (DeviceError("", error=OSError(errno.ENOSPC, "")), "smaller --size"),
        (DeviceError("", error=OSError(errno.EIO, "")), ""),
        (CorruptError("x", "y", 1, 2), ""),
    ],
)
def test_the_hint_names_the_option_that_helps(error: Exception, hint: str) -> None:
    found = creation_hint(error)
    assert hint in found
    assert bool(hint) == bool(found)


def test_a_usage_error_is_hinted_by_its_cause() -> None:
    error = UsageError("no")
    error.__cause__ = GeometryError("no", field="inodes")
    assert "--size" in creation_hint(error)
    assert creation_hint(UsageError("no")) == ""


def test_too_few_inodes_end_with_the_option(run, tmp_path) -> None:
    source = tmp_path / "upper"
    source.mkdir()
    for number in range(200):
        (source / str(number)).touch()
    code, _, err = run("overlay", "create", "-N", "32", "--size", "8M", "--from-dir", source, tmp_path / "o.img")
    assert code == 1
    assert "give -N " in err
    assert not (tmp_path / "o.img").exists()
