"""An empty overlay that is changed by commands, and a tree to copy into it."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def image(overlay):
    """An empty overlay called overlay.img in the working directory."""
    return overlay


@pytest.fixture
def source(tmp_path, image):
    """A small tree on the host."""
    top = tmp_path / "src"
    (top / "d" / "e").mkdir(parents=True)
    (top / "a").write_bytes(b"hello\n")
    os.link(top / "a", top / "twin")
    (top / "l").symlink_to("a")
    (top / "d" / "e" / "f").write_bytes(b"x" * 5000)
    (top / "d" / "e" / "f").chmod(0o640)
    with (top / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    return top
