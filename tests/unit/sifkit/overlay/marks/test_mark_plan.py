"""Plan of a normalization, on trees in memory: what each mark becomes, and what is left alone."""

from __future__ import annotations

import tracemalloc

import pytest

from ext3.constants import S_IFCHR, S_IFDIR, S_IFREG
from sifkit.overlay.marks.mark_plan import KEPT_PROBLEMS, DirectoryMarks, MarkPlan, MarkPlanner, RenamedDirectoryError

from .....support.memory_tree import MemoryNode, MemoryTree

FUSE, TRUSTED, USER = b"user.fuseoverlayfs.opaque", b"trusted.overlay.opaque", b"user.overlay.opaque"


def tree(*paths: str) -> MemoryTree:
    """A tree of names: directories end with /, whiteouts with !, files with content with +."""
    made = MemoryTree()
    for path in paths:
        name = path.rstrip("/!+").encode()
        mode = S_IFDIR | 0o755 if path.endswith("/") else S_IFCHR if path.endswith("!") else S_IFREG | 0o644
        made.add(name, MemoryNode(mode, content=b"content" if path.endswith("+") else b""))
    return made


def opaque(made: MemoryTree, path: bytes, *names: bytes) -> MemoryTree:
    """Set xattrs of a directory to y."""
    node = 0
    for part in path.split(b"/") if path else ():
        node = made.nodes[node].entries[part]
    made.nodes[node].xattrs.update(dict.fromkeys(names, b"y"))
    return made


def planned(upper: MemoryTree, base: MemoryTree | None) -> tuple[MarkPlan[int, int], dict[bytes, DirectoryMarks]]:
    planner = MarkPlanner(upper, upper.root, base)
    plan = planner.plan()
    return plan, {one.path: planner.marks(one) for one in plan.directories}


@pytest.mark.parametrize("base", [None, tree("d/", "d/x", "d/y")])
def test_wh_files_become_devices(base: MemoryTree | None) -> None:
    plan, changes = planned(tree("d/", "d/.wh.x", "d/y!", "d/.wh.y", "d/z!", "d/.wh.z.txt"), base)
    assert changes[b"/d"].hide == (b"x", b"z.txt")
    assert changes[b"/d"].remove == (b".wh.x", b".wh.y", b".wh.z.txt")
    assert (plan.converted, plan.removed, plan.opaque, plan.problems) == (3, 0, 0, [])


def test_an_opaque_directory_becomes_whiteouts_of_the_base() -> None:
    base = tree("d/", "d/a", "d/b", "d/c", "d/e/", "d/e/low", "d/f/", "d/f/low", "d/g/", "d/g/low")
    upper = tree("d/", "d/.wh..wh..opq", "d/.wh..opq!", "d/a", "d/b!", "d/.wh.c", "d/old!", "d/e/", "d/e/new", "d/f", "d/h/")
    plan, changes = planned(opaque(upper, b"d", FUSE, TRUSTED), base)
    assert changes[b"/d"].hide == (b"c", b"g")  # b has one; a, e and f are in upper/
    assert changes[b"/d"].remove == (b".wh..opq", b".wh..wh..opq", b".wh.c", b"old")
    assert changes[b"/d"].set_xattrs == () and changes[b"/d"].remove_xattrs == (TRUSTED, FUSE)
    assert changes[b"/d/e"].hide == (b"low",)  # it was hidden by the directory above
    assert set(changes) == {b"/d", b"/d/e"}
    assert (plan.opened, plan.hidden, plan.opaque) == (1, 3, 0)


def test_an_opaque_directory_that_the_base_does_not_have_needs_no_whiteouts() -> None:
    upper = opaque(tree("new/", "new/dead!", "new/.wh.dead2", "file/", "file/x"), b"new", FUSE)
    plan, changes = planned(opaque(upper, b"file", USER), tree("file"))
    assert changes[b"/new"] == DirectoryMarks(
        remove=(b".wh.dead2", b"dead"), remove_xattrs=(FUSE,), was_opaque=True, is_opaque=False
    )
    assert changes[b"/file"].remove_xattrs == (USER,) and not changes[b"/file"].hide
    assert (plan.opened, plan.hidden, plan.removed) == (2, 0, 2)


def test_without_a_base_an_opaque_directory_gets_the_marks_of_all_that_honour_one() -> None:
    upper = tree("d/", "d/.wh..wh..opq", "d/.wh..opq!", "d/dead!", "d/.wh.dead2", "d/e/", "d/e/dead!", "d/e/x")
    plan, changes = planned(opaque(upper, b"d", FUSE), None)
    assert changes[b"/d"].set_xattrs == (TRUSTED, USER) and changes[b"/d"].remove_xattrs == (FUSE,)
    assert changes[b"/d"].remove == (b".wh..opq", b".wh..wh..opq", b".wh.dead2", b"dead") and not changes[b"/d"].hide
    assert changes[b"/d/e"].remove == (b"dead",)
    assert (plan.marked, plan.opened, plan.opaque, plan.removed) == (1, 0, 1, 4)
    done, changes = planned(opaque(tree("d/"), b"d", TRUSTED, USER), None)
    assert not changes and done.opaque == 1


def test_the_top_is_opaque_for_fuse_overlayfs_only() -> None:
    base = tree("a", "b/")
    kernel, changes = planned(opaque(tree("x"), b"", TRUSTED, USER), base)
    assert not changes and not kernel.opaque
    for upper in (tree("x", ".wh..wh..opq"), opaque(tree("x"), b"", FUSE)):
        plan, changes = planned(upper, base)
        assert changes[b"/"].hide == (b"a", b"b") and plan.opened == 1
        kept, changes = planned(upper, None)
        assert not changes and kept.opaque == 1


def test_names_that_are_no_clear_marks_are_problems_and_stay() -> None:
    upper = tree("d/", "d/x+", "d/.wh.x", "d/.wh.full+", "d/.wh.dir/", "d/.wh.", "d/.wh..wh.aufs", "d/.wh.good")
    plan, changes = planned(upper, None)
    assert changes[b"/d"].hide == (b"good",) and changes[b"/d"].remove == (b".wh.good",)
    assert {problem.path for problem in plan.problems} == {
        b"/d/x",
        b"/d/.wh.full",
        b"/d/.wh.dir",
        b"/d/.wh.",
        b"/d/.wh..wh.aufs",
    }
    assert all("\n" not in problem.reason for problem in plan.problems)


def test_a_file_named_like_a_leftover_is_a_whiteout() -> None:
    """fuse-overlayfs leaves a device; an empty file of the same name hides .opq."""
    _, changes = planned(tree("d/", "d/.wh..opq"), None)
    assert changes[b"/d"].hide == (b".opq",)


def test_a_directory_that_overlayfs_renamed_keeps_what_is_below() -> None:
    upper = opaque(tree("d/", "d/moved/", "d/moved/gone!"), b"d", FUSE)
    moved = upper.nodes[upper.nodes[upper.nodes[0].entries[b"d"]].entries[b"moved"]]
    moved.xattrs[b"trusted.overlay.redirect"] = b"/elsewhere"
    _, changes = planned(upper, None)
    assert set(changes) == {b"/d"}
    with pytest.raises(RenamedDirectoryError) as caught:
        planned(upper, tree("d/"))
    assert "/d/moved" in str(caught.value)


def test_a_directory_met_twice_ends_the_plan() -> None:
    upper = tree("d/", "d/e/")
    upper.nodes[2].entries[b"again"] = 1
    with pytest.raises(OSError, match="twice"):
        planned(upper, None)


def test_a_bounded_number_of_problems_is_kept() -> None:
    upper = tree("d/", *(f"d/.wh.{number}+" for number in range(KEPT_PROBLEMS + 5)))
    plan, _ = planned(upper, None)
    assert (len(plan.problems), plan.problem_count) == (KEPT_PROBLEMS, KEPT_PROBLEMS + 5)


def test_directories_take_no_memory_for_their_paths() -> None:
    """Many directories below a long path, all with marks."""
    upper = MemoryTree()
    path = b""
    for _ in range(60):
        path += b"/" + b"n" * 250
        upper.add(path, MemoryNode(S_IFDIR | 0o755))
    top = upper.nodes[-1]
    for number in range(400):
        top.entries[b"%d" % number] = len(upper.nodes)
        upper.nodes.append(MemoryNode(S_IFDIR | 0o755, xattrs={FUSE: b"y"}))
    planner = MarkPlanner(upper, upper.root, None)
    tracemalloc.start()
    try:
        plan = planner.plan()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(plan.directories) == 400 and kept < 400 * 2000
    assert len(plan.directories[0].path) > 15_000
