"""What every test shares: tests in compat/ are marked so, and tests that need root are skipped without it."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from .support.tools import why_no_mount

TESTS = Path(__file__).parent

# No test asserts a time: the machine may be busy. Where all tools are required, as in CI, hypothesis tries the same examples
# each time: a change does not fail by chance.
settings.register_profile("sifkit", deadline=None, derandomize=os.environ.get("SIFKIT_REQUIRE_TOOLS") == "1")
settings.load_profile("sifkit")


def pytest_configure() -> None:
    # A shell starts what it puts into the background with Ctrl-C ignored; tests that send the signal want to see it arrive.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # TMPDIR says where tests work, also after _quiet_environment has taken it away from what they run.
    tempfile.gettempdir()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    # Twelve thousand tests are collected, and all stay: looking for garbage among them takes seconds and finds nothing.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if TESTS / "compat" in item.path.parents:
            item.add_marker("compat")
        if TESTS / "crash" in item.path.parents or TESTS / "property" in item.path.parents:
            item.add_marker("slow")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root"):
        reason = why_no_mount()
        if reason:
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the host reaches the code under test; a test that wants one sets it."""
    for name in list(os.environ):
        if name.startswith(("APPTAINER_", "SINGULARITY_")) or name in (
            "SOURCE_DATE_EPOCH",
            "NO_COLOR",
            "COLUMNS",
            "MKE2FS_CONFIG",
            "TMPDIR",
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A directory for large images that is emptied at once and not kept for later looks as ``tmp_path`` is."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def sample_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As ``scratch``, for what several tests share; gone at the end of the run."""
    directory = tmp_path_factory.mktemp("shared")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
