"""Process that unpacks images: its answer."""

from __future__ import annotations

import pytest

from sifkit.runtime.errors import LaunchError
from sifkit.runtime.layers.unpacking import _in_child

LONG = "/a\u00e9\x1b" * 50_000


def test_an_error_with_a_long_path_arrives_whole() -> None:
    def fail() -> str:
        raise LaunchError(LONG, hint="a hint")

    with pytest.raises(LaunchError) as caught:
        _in_child(fail)
    assert (caught.value.message, caught.value.hint) == (LONG, "a hint")
    assert _in_child(lambda: LONG) == LONG
