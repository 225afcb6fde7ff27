"""The caller of a run, as the databases of the host have him."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from sifkit.runtime.host.caller import current_caller

GROUPS = {1000: "alice", 27: "sudo"}


def group_of(number: int) -> grp.struct_group:
    if number not in GROUPS:
        raise KeyError(number)
    return grp.struct_group((GROUPS[number], "x", number, []))


def no_user(number: int) -> pwd.struct_passwd:
    raise KeyError(number)


def test_groups_without_a_name_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgroups", lambda: [27, 999, 1000])
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    monkeypatch.setattr(grp, "getgrgid", group_of)
    monkeypatch.setattr(
        pwd, "getpwuid", lambda number: pwd.struct_passwd(("me", "x", number, 1000, "Me", "/home/me", "/bin/zsh"))
    )
    found = current_caller({})
    assert found.group == "alice" and found.groups == ((27, "sudo"), (1000, "alice"))
    assert (found.name, found.gecos, found.home, found.shell) == ("me", "Me", "/home/me", "/bin/zsh")


def test_a_user_whom_no_database_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    monkeypatch.setattr(os, "getegid", lambda: 4321)
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(grp, "getgrgid", group_of)
    monkeypatch.setattr(pwd, "getpwuid", no_user)
    found = current_caller({"HOME": "/h"})
    assert (found.name, found.group, found.groups, found.home, found.shell) == ("4321", "4321", (), "/h", "/bin/sh")


def test_a_working_directory_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    found = current_caller({"PWD": str(gone)})
    assert (found.cwd, found.real_cwd) == (str(gone), str(gone))
    gone.rmdir()
    found = current_caller({"PWD": str(gone)})
    assert (found.cwd, found.real_cwd) == ("", "")
