"""Users and groups of the host."""

from __future__ import annotations

import pytest

from sifkit.overlay.host_names import group_id, user_id


def test_names_of_the_host() -> None:
    pwd, grp = pytest.importorskip("pwd"), pytest.importorskip("grp")
    user, group = pwd.getpwall()[0], grp.getgrall()[0]
    assert user_id(user.pw_name) == user.pw_uid
    assert group_id(group.gr_name) == group.gr_gid
    for name in ("no such name", "", "a\0b", "\udcff"):
        assert user_id(name) is None and group_id(name) is None
