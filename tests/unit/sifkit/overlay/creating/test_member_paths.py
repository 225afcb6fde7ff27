"""Paths of an archive's members through symlinks made to be slow."""

from __future__ import annotations

from typing import Any

import pytest

from sifkit.overlay.creating.member_paths import TOP, MemberPathError, MemberPaths


def test_the_target_of_a_symlink_is_taken_apart_once() -> None:
    """As many members as an archive has may go through one symlink whose target is long."""
    taken_apart = 0

    class Target(bytes):
        def split(self, *arguments: Any) -> list[bytes]:
            nonlocal taken_apart
            taken_apart += 1
            return bytes(self).split(*arguments)

    paths = MemberPaths({TOP: {b"d": 1, b"link": 2}, 1: {}}, {2: Target(b"./" * 2000 + b"d")})
    assert [paths.find(b"./" * number + b"link", "x") for number in range(100)] == [1] * 100
    assert taken_apart == 1


@pytest.mark.parametrize(("links", "refused"), [(4, False), (8, True)])
def test_all_components_on_the_way_of_one_path_are_counted(links: int, refused: bool) -> None:
    names = {b"d": 1} | {b"%d" % number: 2 + number for number in range(links)}
    targets = {2 + number: b"d/../" * 400 + b"%d" % (number + 1) for number in range(links)}
    targets[1 + links] = b"d"
    paths = MemberPaths({TOP: names, 1: {}}, targets)
    if not refused:
        assert paths.find(b"0", "x") == 1
        return
    with pytest.raises(MemberPathError, match="x goes through more than 4096 names and symlinks") as caught:
        paths.find(b"0", "x")
    assert caught.value.hint == "do not trust this archive"
    assert paths.find(b"d", "y") == 1
