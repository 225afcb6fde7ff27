"""Names of files with several: of which one overlayfs keeps the dentry after it was removed."""

from __future__ import annotations

from sifkit.runtime.fuse.link_names import LinkNames

A, B, C, AWAY = (1, b"a"), (1, b"b"), (1, b"c"), (2, b"a")
NODE, OTHER = 7, 8


def test_the_first_name_is_kept_if_another_was_looked_up() -> None:
    names = LinkNames()
    names.linked(NODE, B)
    names.looked_up(NODE)
    assert names.removed(NODE, A)


def test_the_first_name_goes_if_no_other_was_looked_up_and_then_any_may_be_kept() -> None:
    names = LinkNames()
    names.linked(NODE, B)
    names.linked(NODE, C)
    assert not names.removed(NODE, A)
    names.looked_up(NODE)  # one of them, which is the first now
    names.looked_up(NODE)
    assert names.removed(NODE, B)


def test_other_names_are_not_kept() -> None:
    names = LinkNames()
    names.linked(NODE, B)
    names.looked_up(NODE)
    assert not names.removed(NODE, B) and names.removed(NODE, A)


def test_names_of_a_file_that_had_several_before() -> None:
    names = LinkNames()
    for key in (A, B, A):
        names.found(NODE, key)
        names.looked_up(NODE)
    assert not names.removed(NODE, B) and names.removed(NODE, A)
    assert names.removed(OTHER, C)  # nothing is known of it


def test_the_first_name_is_renamed() -> None:
    names = LinkNames()
    for key in (A, B):
        names.found(NODE, key)
        names.looked_up(NODE)
    names.moved(A, C, is_exchange=False)
    assert not names.removed(NODE, B) and names.removed(NODE, C)


def test_names_are_exchanged() -> None:
    names = LinkNames()
    for node, key in ((NODE, A), (NODE, AWAY), (OTHER, B), (OTHER, C)):
        names.found(node, key)
        names.looked_up(node)
    names.moved(A, C, is_exchange=True)  # the first name of one file, a later one of the other
    assert not names.removed(OTHER, A) and names.removed(NODE, C)


def test_names_by_their_last_component() -> None:
    names = LinkNames()
    names.linked(NODE, AWAY)
    names.linked(NODE, B)
    assert names.has_one_of(NODE, (b"x", b"a")) and not names.has_one_of(NODE, (b"x",)) and not names.has_one_of(OTHER, (b"a",))
    names.moved((3, b"new"), B, is_exchange=False)  # replaced
    assert not names.has_one_of(NODE, (b"b",))
    names.forget(NODE)
    assert not names.has_one_of(NODE, (b"a",))
    names.forget(NODE)
