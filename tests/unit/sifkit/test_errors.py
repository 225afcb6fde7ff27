"""SifkitError: the message names the file concerned once."""

from __future__ import annotations

from sifkit.errors import ImageInUseError, SifkitError


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
