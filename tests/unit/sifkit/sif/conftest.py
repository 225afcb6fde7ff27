"""A sample image that is edited."""

from __future__ import annotations

from pathlib import Path

import pytest

from ....support.sif_images import sample_image


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image.sif"
    sample_image(path)
    return path
