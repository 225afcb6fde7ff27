"""Errors carry facts: errno, path, numbers; they pass between processes whole."""

from __future__ import annotations

import errno
import pickle

import pytest

from ext3.errors import (
    CorruptError,
    Ext3Error,
    GeometryError,
    NoInodesError,
    NoSpaceError,
    PathNotFoundError,
    SourceError,
    TooLargeError,
    UnsupportedError,
    XattrError,
)

ERRORS = [
    CorruptError("inode 12", "i_size", 5, "a multiple of 1024"),
    UnsupportedError(["extents"], hint="read only"),
    GeometryError("too small", field="size", least=1 << 20),
    NoSpaceError("full", needed_bytes=10, available_bytes=5),
    NoInodesError(needed=10, available=5, enough=16),
    PathNotFoundError(b"/a\xff", "no such file"),
    PathNotFoundError(7, "no such inode"),
    SourceError(b"/src", "unreadable", error=PermissionError(errno.EACCES, "denied")),
    TooLargeError(b"/big", "too large", size_bytes=9, limit_bytes=8, block_size=1024),
    XattrError(b"/f", "too many"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_all_facts_pass_between_processes(error: Ext3Error) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)
    assert getattr(copy, "errno", None) == getattr(error, "errno", None)


def test_damage_and_foreign_features_are_errors_of_the_system_too() -> None:
    """Whoever reads a tree of files needs one ``except OSError``, with the kernel's numbers."""
    with pytest.raises(OSError, match=r"inode 12: i_size is 5, want a multiple of 1024") as caught:
        raise CorruptError("inode 12", "i_size", 5, "a multiple of 1024")
    assert caught.value.errno == errno.EUCLEAN
    with pytest.raises(OSError, match="extents") as caught:
        raise UnsupportedError(["extents"])
    assert caught.value.errno == errno.EOPNOTSUPP


def test_a_path_error_takes_the_callers_path() -> None:
    error = PathNotFoundError(b"name", "No such file or directory")
    error.rename("/whole/name")
    assert (str(error), error.path, error.reason) == (
        "/whole/name: No such file or directory",
        "/whole/name",
        "No such file or directory",
    )
    assert PathNotFoundError(7, "x").ino == 7
    assert error.ino is None
