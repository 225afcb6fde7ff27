"""Entries of the user in passwd and group."""

from __future__ import annotations

import pytest

from sifkit.errors import UsageError
from sifkit.runtime.container.accounts import group_text, passwd_text
from sifkit.runtime.planning.run_plan import Account

ALICE = Account(uid=1000, gid=1000, name="alice", group="alice", home="/home/alice", groups=((1000, "alice"), (27, "sudo")))
PASSWD = b"root:x:0:0:root:/root:/bin/sh"


def test_an_entry_is_added() -> None:
    assert passwd_text(PASSWD, ALICE) == PASSWD + b"\nalice:x:1000:1000::/home/alice:/bin/sh\n"
    assert passwd_text(b"", ALICE) == b"alice:x:1000:1000::/home/alice:/bin/sh\n"


def test_an_entry_of_the_same_number_gets_the_home_directory() -> None:
    root = ALICE._replace(uid=0, gid=0, name="admin", home="/work")
    assert passwd_text(PASSWD + b"\nbin:x:1:1::/:\n", root) == b"root:x:0:0:root:/work:/bin/sh\nbin:x:1:1::/:\n"


def test_groups_are_added_and_none_is_replaced() -> None:
    raw = b"root:x:0:\nadm:x:27:x"
    assert group_text(raw, ALICE) == raw + b"\nalice:x:1000:alice\nsudo:x:27:alice\n"
    assert group_text(b"", ALICE) == b"alice:x:1000:alice\nsudo:x:27:alice\n"


def test_lines_that_are_not_understood_stay() -> None:
    raw = b"\xff\n::::::\na:x:1000\nb:x:99999999999:1:::\n+\n"
    assert passwd_text(raw, ALICE) == raw + b"alice:x:1000:1000::/home/alice:/bin/sh\n"


def test_a_name_that_is_another_entry_is_refused() -> None:
    for wrong in ("a:b", "a\nroot::0:0:::"):
        with pytest.raises(UsageError, match="colon or a newline"):
            passwd_text(b"", ALICE._replace(home=wrong))
        with pytest.raises(UsageError, match="colon or a newline"):
            group_text(b"", ALICE._replace(groups=((5, wrong),)))
