"""Fixtures of the command line's tests: commands run in this process, empty overlays, a stand-in for create."""

from __future__ import annotations

import importlib
import os
import sys
from uuid import UUID

import pytest

from sifkit.cli import main
from sifkit.overlay.options import CreateOptions, CreateResult

from ...support.commands import copy_sparse

CREATE = importlib.import_module("sifkit.overlay.creating.standalone")
"""The module; the package has a function of that name."""
UUID_TEXT = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
def run(capfdbinary):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def call(*argv):
        code = main([os.fspath(arg) for arg in argv])
        sys.stdout.flush()
        found = capfdbinary.readouterr()
        return code, found.out.decode("utf-8", "surrogateescape"), found.err.decode("utf-8", "surrogateescape")

    return call


@pytest.fixture(scope="session")
def empty_overlay(tmp_path_factory):
    """An empty overlay of 8 MiB, which is copied."""
    path = tmp_path_factory.mktemp("overlay") / "overlay.img"
    CREATE.create(path, CreateOptions(size=8 << 20))
    return path


@pytest.fixture
def overlay(tmp_path, empty_overlay, monkeypatch):
    """An empty overlay called overlay.img in the working directory."""
    monkeypatch.chdir(tmp_path)
    return copy_sparse(empty_overlay, tmp_path / "overlay.img")


@pytest.fixture
def made(monkeypatch):
    """Put a stand-in for overlay.create; the calls it got."""
    calls = []

    def create(path, options, *, progress=None):
        calls.append((path, options))
        progress.phase("copy", 10, "files")
        progress.advance(10)
        progress.done()
        return CreateResult(
            path=path,
            size_bytes=500 << 20,
            block_size=1024,
            inodes=128016,
            inodes_used=13,
            used_bytes=50 << 20,
            free_bytes=450 << 20,
            files=1,
            excluded=2,
            groups=62,
            journal_bytes=16 << 20,
            content_bytes=12,
            layout="upper",
            seconds=0.25,
            uuid=UUID(UUID_TEXT),
            label=b"lab",
            notes=("a note",),
        )

    monkeypatch.setattr(CREATE, "create", create)
    return calls
