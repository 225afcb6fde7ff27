"""Layers served by FUSE: their end, with servers that are made up."""

from __future__ import annotations

import sys
from contextlib import closing

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("containers run on Linux only", allow_module_level=True)

from sifkit.runtime.container.left_behind import LEFT_BEHIND_SECONDS
from sifkit.runtime.fuse.mounting import ServerProcess
from sifkit.runtime.images.image_files import ImageFiles
from sifkit.runtime.layers.served_layers import ServedLayers
from sifkit.runtime.layers.session import Session
from sifkit.runtime.planning.run_plan import Upper


def test_what_is_left_behind_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class UsedServer(ServerProcess):
        """Server of a mount that processes of the container use."""

        def __init__(self) -> None:
            super().__init__(0, -1)

        def is_unmounted(self, seconds: float) -> bool:
            nonlocal now
            now += max(0, seconds)
            return False

        def resume(self) -> None: ...

        def leave(self) -> None: ...

        def code_if_ended(self) -> int | None:
            return None

    notes: list[str] = []
    monkeypatch.setattr("time.monotonic", lambda: now)
    with closing(ImageFiles(notes.append)) as images:
        images.locked_directory = "overlay"
        layers = ServedLayers(Session("/", "/", "/", "/"), None, images, notes.append)
        layers._servers += [(UsedServer(), ()) for _ in range(3)]
        layers._writers |= {Upper(kind="image", path=name, work=""): (UsedServer(), "/") for name in "ab"}
        layers.close()
    assert now == LEFT_BEHIND_SECONDS
    assert [note.split()[0] for note in notes] == ["overlay", "a", "b"]
