"""Names of ``sifkit.vfs``, which are imported on first use."""

from __future__ import annotations

import pytest

import sifkit.vfs


@pytest.mark.parametrize("name", sifkit.vfs.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(sifkit.vfs, name) is not None
    assert name in dir(sifkit.vfs)


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sifkit.vfs.nothing  # noqa: B018
