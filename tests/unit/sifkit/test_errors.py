"""SifkitError: the message names the file concerned once; facts pass between processes."""

from __future__ import annotations

import errno
import pickle

import pytest

from sifkit.errors import ImageInUseError, SifkitError, TargetError, TruncatedError
from sifkit.vfs.data_limit import SharedBlocksError
from sifkit.vfs.errors import DamagedTreeError, MissingPathError, TreePathError, path_error


def test_a_file_is_named_once() -> None:
    error = SifkitError("no such object")
    error.set_path("a.sif")
    error.set_path("a.sif")
    assert (str(error), error.path) == ("a.sif: no such object", "a.sif")


def test_a_file_that_is_known_but_not_named_is_named() -> None:
    error = SifkitError("the image is open read-only", path="a.sif")
    error.set_path("a.sif")
    assert str(error) == "a.sif: the image is open read-only"


def test_another_file_keeps_its_name() -> None:
    error = SifkitError("b.img is missing", path="b.img")
    error.set_path("a.sif")
    assert (str(error), error.path) == ("b.img is missing", "b.img")


def test_text_is_appended_and_locks_are_a_fact() -> None:
    error = ImageInUseError("a.sif is in use", path="a.sif", locked=True)
    error.append(": process 1 (init)")
    assert str(error) == "a.sif is in use: process 1 (init)"
    assert error.locked


@pytest.mark.parametrize(
    "error",
    [
        ImageInUseError("a.sif is in use", path="a.sif", holders=("1 init",), locked=True),
        TruncatedError("a.img", needed_bytes=2, available_bytes=1),
        TargetError("a.img: full", path="a.img", error=OSError(errno.ENOSPC, "full")),
        path_error(b"/a\xff", errno.ENOENT),
        TreePathError(b"/a", errno.ELOOP),
        DamagedTreeError(b"/a", "damaged"),
        SharedBlocksError(100),
    ],
    ids=lambda error: type(error).__name__,
)
def test_all_facts_pass_between_processes(error: SifkitError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)
    assert getattr(copy, "errno", None) == getattr(error, "errno", None)
    assert isinstance(copy, FileNotFoundError) == isinstance(error, MissingPathError)
