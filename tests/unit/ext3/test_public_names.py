"""What ``import ext3`` offers: the public names, each of which is there, and a version."""

from __future__ import annotations

import re

import ext3
import sifkit

from ...support.sessions import clock, empty_image


def test_public_names() -> None:
    assert dir(ext3) == sorted([*ext3.__all__, "__version__"])
    assert all(
        getattr(ext3, name).__module__.startswith("ext3.") for name in ext3.__all__ if isinstance(getattr(ext3, name), type)
    )


def test_the_version_is_that_of_the_distribution() -> None:
    assert re.match(r"\d+\.\d+\.\d+", ext3.__version__)
    assert ext3.__version__ == sifkit.__version__


def test_an_image_says_what_it_is() -> None:
    device = empty_image(8 << 20)
    with ext3.Filesystem.open(device) as fs:
        assert repr(fs) == "<Filesystem ext3, 8388608 bytes in blocks of 1024, mode 'r'>"
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        assert repr(fs) == "<WritableFilesystem ext3, 8388608 bytes in blocks of 1024, mode 'r+'>"
