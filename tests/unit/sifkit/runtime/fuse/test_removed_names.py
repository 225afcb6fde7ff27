"""Removed names that the kernel goes on to ask for: which node is the answer, by what was asked before."""

from __future__ import annotations

import pytest

from sifkit.runtime.fuse import removed_names
from sifkit.runtime.fuse.removed_names import NAMELESS, RemovedNames

KEY = (1, b"a")
OLD, NEW, OLDER = 7, 8, 6
ME, OTHER = 100, 101


def of(*nodes: int, is_regular: bool = True, name: bytes = b"a") -> RemovedNames:
    found = RemovedNames()
    for node in nodes:
        found.add(1, name, node, is_regular=is_regular)
    return found


def test_the_dentry_of_a_link_is_found() -> None:
    names = of(OLD)
    assert names and KEY in names and (1, b"b") not in names
    assert [names.answer(ME, KEY, None) for _ in range(3)] == [OLD] * 3
    for _ in range(3):
        names.other_request(ME)
        assert names.answer(ME, KEY, NEW) == OLD


def test_a_file_that_got_its_name_late_is_the_one_in_the_call() -> None:
    """Overlayfs asks for all such files of a directory by one name, and a call that fails twice is given up."""
    files = {OLDER: b"x", OLD: b"y", NEW: b"z"}
    names = of(*files, name=NAMELESS)
    for node, name in files.items():
        names.links.linked(node, (1, name))
    for node, name in files.items():
        assert names.answer(ME, (1, NAMELESS), None, (b"new", name)) == node
        names.other_request(ME)
    assert names.answer(ME, (1, NAMELESS), None, (b"x", b"z")) == NEW  # that of the target is asked for in any case
    names.other_request(ME)
    assert names.answer(ME, (1, NAMELESS), None, (b"z", b"x")) == OLDER


def test_a_rename_of_a_link_to_the_first_name_asks_for_both() -> None:
    names = of(OLD)
    assert [names.answer(ME, KEY, NEW) for _ in range(2)] == [OLD, OLD]
    names.forgotten(OLD, is_known=True)  # the target was meant; the kernel tries again
    assert [names.answer(ME, KEY, NEW) for _ in range(3)] == [OLD, NEW, NEW]
    names.other_request(ME, is_change=True)
    assert names.answer(ME, KEY, NEW) == OLD


def test_a_rename_of_another_file_after_the_use_of_a_link() -> None:
    names = of(OLD)
    assert [names.answer(ME, KEY, NEW) for _ in range(2)] == [OLD, OLD]
    names.forgotten(OLD, is_known=True)
    names.other_request(ME, has_found_file=True)  # the source
    assert [names.answer(ME, KEY, NEW) for _ in range(2)] == [NEW, NEW]


def test_a_lookup_of_the_name_shows_by_the_mark_that_is_asked_for() -> None:
    names = of(OLD)
    assert names.answer(ME, KEY, None) == OLD
    assert not names.is_refused(OTHER, OLD) and names.is_refused(ME, OLD)
    assert [names.answer(ME, KEY, None) for _ in range(3)] == [None] * 3  # the dentry, the name, and for a new file
    assert names.answer(ME, KEY, None) == OLD


def test_the_mark_of_another_link_is_no_such_sign() -> None:
    names = of(OLD)
    assert names.answer(ME, KEY, None) == OLD
    names.other_request(ME)
    assert not names.is_refused(ME, OLD)
    assert names.answer(ME, KEY, None) == OLD
    assert names.is_refused(ME, OLD) and not names.is_refused(ME, OLD)  # it was not the name that was looked up again
    assert names.answer(ME, KEY, None) == OLD


def test_a_name_that_the_kernel_knows_to_be_absent_can_be_created() -> None:
    names = of(OLD)
    names.answer(ME, KEY, None)
    names.is_refused(ME, OLD)
    names.answer(ME, KEY, None)
    assert names.answer(OTHER, KEY, None) is None  # for a new file
    names.other_request(OTHER, is_change=True)
    assert names.answer(OTHER, KEY, NEW) == OLD
    names.changed(*KEY)
    assert names.answer(OTHER, KEY, None) == OLD
    names.is_refused(OTHER, OLD)
    names.answer(OTHER, KEY, None)
    names.other_request(OTHER, is_change=True)
    assert [names.answer(OTHER, KEY, None) for _ in range(2)] == [None, OLD]  # tried again: it was the dentry


def test_a_node_that_was_wrong_is_forgotten_and_another_is_the_answer() -> None:
    names = of(OLDER, OLD)
    assert names.answer(ME, KEY, None) == OLD and names.has_asked(ME, KEY) and not names.has_asked(OTHER, KEY)
    names.forgotten(OLD, is_known=True)
    assert names.answer(ME, KEY, None) == OLDER


def test_of_two_files_that_had_the_name_the_one_used_last_comes_first() -> None:
    names = of(OLDER, OLD)
    for used, other in ((OLD, OLDER), (OLDER, OLD)):
        assert names.answer(ME, KEY, NEW) == used
        names.forgotten(used, is_known=True)
        assert names.answer(ME, KEY, NEW) == other  # the kernel has tried again
        names.other_request(ME)
    assert names.answer(ME, KEY, NEW) == OLD
    names.other_request(ME)
    names.add(*KEY, 9, is_regular=True)
    assert names.answer(ME, KEY, NEW) == OLD
    names.forgotten(OLD, is_known=True)
    names.other_request(ME, has_found_file=True)  # the source of a rename
    assert names.answer(ME, KEY, NEW) == NEW


def test_the_target_of_a_rename_is_the_name_as_it_is_now() -> None:
    names = of(OLD)
    assert names.answer(ME, KEY, NEW) == OLD
    names.forgotten(OLD, is_known=True)
    assert [names.answer(ME, KEY, NEW) for _ in range(2)] == [NEW, NEW]
    names.other_request(ME, is_change=True)
    assert names.answer(ME, KEY, NEW) == OLD


def test_links_that_are_no_regular_files_come_second() -> None:
    names = of(OLD, is_regular=False)
    assert [names.answer(ME, KEY, None) for _ in range(2)] == [None, OLD]
    assert names.answer(OTHER, KEY, NEW) == NEW
    names.forgotten(NEW, is_known=True)
    assert names.answer(OTHER, KEY, NEW) == OLD


def test_files_without_a_name() -> None:
    names = of(OLDER, OLD, name=NAMELESS)
    assert names.answer(ME, (1, NAMELESS), None) == OLD
    names.forgotten(OLD, is_known=True)
    assert names.answer(ME, (1, NAMELESS), None) == OLDER


def test_nothing_is_kept_of_what_the_kernel_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    names = of(OLD, NEW)
    names.forgotten(NEW, is_known=False)
    assert names.answer(ME, KEY, None) == OLD
    names.forgotten(OLD, is_known=False)
    assert not names and not names.has_asked(ME, KEY)
    monkeypatch.setattr(removed_names, "MOST_NAMES", 3)
    for number in range(10):
        names.add(1, b"%d" % number, OLD, is_regular=True)
    assert [number for number in range(10) if (1, b"%d" % number) in names] == [7, 8, 9]


def test_a_node_that_is_forgotten_once_more_after_its_name() -> None:
    names = of(OLD)
    names.add(1, b"b", OLDER, is_regular=True)  # so that answers are kept
    assert names.answer(ME, KEY, None) == OLD
    names.forgotten(OLD, is_known=False)
    assert KEY not in names and (1, b"b") in names
    names.forgotten(OLD, is_known=False)  # it was found again, by a name that it still has
    assert names.answer(ME, (1, b"b"), None) == OLDER


def linked(*, is_looked_up: bool) -> RemovedNames:
    """A file that got the name b, and then lost a, which it had first."""
    names = RemovedNames()
    names.links.linked(OLD, (1, b"b"))
    if is_looked_up:
        names.links.looked_up(OLD)
    names.add(*KEY, OLD, is_regular=True)
    return names


def test_the_dentry_of_a_file_that_was_not_used_by_another_name_comes_second() -> None:
    symlink = (b"symlink",)
    assert linked(is_looked_up=True).answer(ME, KEY, None, symlink) == OLD
    names = linked(is_looked_up=False)
    assert names.answer(OTHER, KEY, NEW) == OLD
    assert [names.answer(ME, KEY, None, symlink) for _ in range(2)] == [None, OLD]
    names.other_request(ME)
    names.changed(*KEY)
    assert names.answer(ME, KEY, None, symlink) == OLD  # it was its dentry


def test_the_call_names_what_is_looked_up() -> None:
    names = linked(is_looked_up=True)
    assert [names.answer(ME, KEY, None, (b"a",)) for _ in range(4)] == [None, None, None, OLD]
    names.add(*KEY, OLDER, is_regular=True)
    assert names.answer(OTHER, KEY, NEW, (b"b",)) == OLD
    assert names.answer(OTHER, KEY, NEW, (b"a",)) == NEW
    names.links.linked(OLDER, (2, b"a"))  # which of them was called cannot be seen
    assert names.answer(OTHER, KEY, NEW, (b"a",)) != NEW


@pytest.mark.parametrize(("is_looked_up", "answers"), [(True, [OLD, None, None]), (False, [None, None])])
def test_a_link_to_the_name_that_a_file_had_first(is_looked_up: bool, answers: list[int | None]) -> None:
    names = linked(is_looked_up=is_looked_up)
    assert [names.answer(ME, KEY, None, (b"b", b"a")) for _ in answers] == answers
    names.other_request(ME, is_change=True)
    names.other_request(ME, has_found_file=True)  # the file, by a name that the kernel did not know
    assert names.answer(ME, KEY, None, (b"b", b"a")) is None
