"""Names of ``sifkit.sif``: each is there, and those of release 0.1 are still the same classes."""

from __future__ import annotations

import pytest

import sifkit.sif


@pytest.mark.parametrize("name", sifkit.sif.__all__)
def test_every_public_name_is_there(name):
    assert getattr(sifkit.sif, name) is not None
    assert name in dir(sifkit.sif)


@pytest.mark.parametrize(
    ("old", "new"), [("Stamp", "SIFStamp"), ("SourceError", "SIFSourceError"), ("TruncatedError", "TruncatedSIFError")]
)
def test_names_of_the_first_release_are_the_same_classes(old, new):
    assert getattr(sifkit.sif, old) is getattr(sifkit.sif, new)
    assert getattr(sifkit.sif, new).__name__ == new
