"""Preparation of an image in a process of its own: its answer."""

from __future__ import annotations

import pytest

from sifkit.runtime.errors import LaunchError
from sifkit.runtime.images import preparation
from sifkit.runtime.images.image_place import ImagePlace

LONG = "/a\u00e9\x1b" * 50_000


def test_an_error_with_a_long_path_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError(LONG)

    monkeypatch.setattr(preparation, "_prepare", fail)
    with pytest.raises(LaunchError) as caught:
        preparation.prepare(0, ImagePlace(path="a.img", offset=0, size=0))
    assert caught.value.message == f"a.img: {LONG}"
