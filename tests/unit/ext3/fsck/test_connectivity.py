"""Pass 3: the root, directories without a parent and in loops, ``..``, lost+found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ext3
from ext3.check.name_counts import connected_directories
from ext3.constants import ROOT_INO, S_IFDIR, InodeFlag
from ext3.fsck.connectivity import check_connectivity
from ext3.fsck.context import Context, GaveUp
from ext3.fsck.policy import Ask, CheckOnly, Preen, Stopped, Yes
from tests.support.fsck_images import Image, filled_context


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("connectivity") / "image"
    ext3.mkfs(path, 4 << 20)
    with ext3.Filesystem.open(path, "r+") as fs:
        for name in ("/a", "/a/b", "/a/b/c", "/d", "/d/e"):
            fs.mkdir(name)
        fs.write_bytes("/a/b/file", b"content")
    return path.read_bytes()


@pytest.fixture
def image(pristine: bytes) -> Image:
    return Image(pristine)


def after(context: Context) -> Image:
    """The filesystem with the repairs."""
    storage = context.storage
    return Image(storage.read(0, storage.size))


def codes(context: Context) -> list[str]:
    return [finding.code for finding in context.report.findings]


def test_a_sound_tree_has_no_findings_and_whole_counts(image: Image) -> None:
    context = filled_context(image)
    check_connectivity(context)
    assert not codes(context)
    assert not context.storage.pending
    census = context.census
    for path in ("/", "/a", "/a/b", "/a/b/c", "/d", "/lost+found"):
        ino = image.ino(path)
        assert census.names[ino] == census.links[ino], path


def test_a_directory_without_a_name_goes_to_lost_and_found(image: Image) -> None:
    b, a = image.ino("/a/b"), image.ino("/a")
    image.drop_name(a, b"b")
    context = filled_context(image)
    check_connectivity(context)
    assert codes(context) == ["directory-unconnected"]
    repaired = after(context)
    lost = repaired.ino("/lost+found")
    assert repaired.listing(lost) == {b"#%d" % b: b}
    assert repaired.ino(f"/lost+found/#{b}/..") == lost
    assert set(repaired.listing(b)) == {b"c", b"file"}
    assert context.census.names[b] == 3
    assert context.census.names[lost] == context.census.links[lost] == 3
    assert context.census.names[a] == 2


def test_a_refused_connection_leaves_the_directory_and_is_asked_once(image: Image) -> None:
    image.drop_name(image.ino("/a"), b"b")
    context = filled_context(image, Ask(lambda finding: False))
    check_connectivity(context)
    assert codes(context) == ["directory-unconnected"]
    assert context.report.left == 1


def test_of_a_loop_one_directory_goes_to_lost_and_found(image: Image) -> None:
    a, c = image.ino("/a"), image.ino("/a/b/c")
    with ext3.Filesystem.open(image.device, "r+") as fs:
        fs.write_bytes("/a/b/c/x", b"")
    image.lead_name(c, b"x", a)
    image.drop_name(ROOT_INO, b"a")
    context = filled_context(image)
    check_connectivity(context)
    assert codes(context) == ["directory-loop", "directory-parent"]
    repaired = after(context)
    (moved,) = repaired.listing(repaired.ino("/lost+found")).values()
    with ext3.Filesystem.open(repaired.device) as fs:
        names = [path.rpartition(b"/")[2] for path, entry in fs.walk(f"/lost+found/#{moved}")]
        assert {b"file"} <= set(names)
    checked = filled_context(repaired)
    check_connectivity(checked)
    assert not codes(checked)
    for ino in checked.census.directories.tolist():
        assert checked.census.names[ino] >= 2


def test_dotdot_follows_the_name(image: Image) -> None:
    c, d = image.ino("/a/b/c"), image.ino("/d")
    image.lead_name(c, b"..", d)
    context = filled_context(image)
    check_connectivity(context)
    assert [str(finding) for finding in context.report.findings] == [
        f"directory inode {c}: '..' is inode {d}, want {image.ino('/a/b')}"
    ]
    assert after(context).ino("/a/b/c/..") == image.ino("/a/b")
    assert context.census.names[d] == context.census.links[d]


def test_dotdot_that_stays_wrong_counts_where_it_leads(image: Image) -> None:
    c, d = image.ino("/a/b/c"), image.ino("/d")
    image.lead_name(c, b"..", d)
    context = filled_context(image, Ask(lambda finding: False))
    check_connectivity(context)
    assert context.census.names[d] == context.census.links[d] + 1


def test_a_missing_lost_and_found_is_created_only_where_repairs_are_written(image: Image) -> None:
    with ext3.Filesystem.open(image.device, "r+") as fs:
        fs.rmdir("/lost+found")
    looked = filled_context(image, CheckOnly())
    check_connectivity(looked)
    assert not codes(looked)
    for policy in (Yes(), Preen()):
        context = filled_context(image, policy)
        check_connectivity(context)
        assert codes(context) == ["lost-found-missing"]
        repaired = after(context)
        with ext3.Filesystem.open(repaired.device) as fs:
            stat = fs.stat("/lost+found")
            assert (stat.mode, stat.links, stat.size) == (S_IFDIR | 0o700, 2, repaired.superblock.block_size)
            assert fs.stat("/").links == context.census.names[ROOT_INO]
        assert context.census.names[stat.ino] == 2
        assert repaired.ino("/lost+found/..") == ROOT_INO


def test_lost_and_found_that_is_a_file_is_replaced(image: Image) -> None:
    with ext3.Filesystem.open(image.device, "r+") as fs:
        fs.rmdir("/lost+found")
        fs.write_bytes("/lost+found", b"a file")
    file = image.ino("/lost+found")
    with pytest.raises(Stopped):
        check_connectivity(filled_context(image, Preen()))
    context = filled_context(image)
    check_connectivity(context)
    assert codes(context) == ["lost-found-not-directory", "lost-found-missing"]
    assert context.census.names[file] == 0
    assert after(context).ino("/lost+found") != file


def test_a_missing_root_is_created_and_its_directories_found_again(image: Image) -> None:
    numbers = {name: image.ino(f"/{name}") for name in ("a", "d", "lost+found")}
    context = filled_context(image)
    census = context.census
    for ino in (*numbers.values(), ROOT_INO):
        census.names[ino] -= 1
    census.mode[ROOT_INO] = census.links[ROOT_INO] = 0
    for ino in numbers.values():
        context.parent[ino] = 0
    check_connectivity(context)
    assert codes(context)[0] == "root-missing"
    repaired = after(context)
    assert list(repaired.listing()) == [b"lost+found"]
    lost = repaired.ino("/lost+found")
    assert set(repaired.listing(lost).values()) == set(numbers.values())
    with ext3.Filesystem.open(repaired.device) as fs:
        assert fs.read_bytes(f"/lost+found/#{numbers['a']}/b/file") == b"content"
        assert fs.stat("/").links == census.names[ROOT_INO] == 3
        assert fs.stat(lost).links == census.names[lost] == 5


def test_without_a_root_there_is_nothing_to_check(image: Image) -> None:
    context = filled_context(image, Ask(lambda finding: False))
    context.census.mode[ROOT_INO] = 0
    with pytest.raises(GaveUp):
        check_connectivity(context)


def test_a_full_lost_and_found_gets_blocks(pristine: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(pristine)
    with ext3.Filesystem.open(path, "r+") as fs:
        fs.rmdir("/lost+found")
        for number in range(300):
            fs.mkdir(f"/d/directory-{number}")
    image = Image(path.read_bytes())
    d = image.ino("/d")
    names = image.listing(d)
    context = filled_context(image)
    for ino in names.values():
        context.parent[ino] = 0
        context.census.names[ino] -= 1
    check_connectivity(context)
    assert codes(context).count("directory-unconnected") == len(names)
    assert {"lost-found-missing", "lost-found-full"} < set(codes(context))
    repaired = after(context)
    lost = repaired.ino("/lost+found")
    assert repaired.listing(lost) == {b"#%d" % ino: ino for ino in names.values()}
    with ext3.Filesystem.open(repaired.device) as fs:
        stat = fs.stat("/lost+found")
        assert stat.links == 2 + len(names)
        assert stat.blocks * 512 == fs.block_map(lost).mapped * 1024 + 1024 * len(fs.block_map(lost).indirect)


def test_a_name_that_is_taken_gets_a_suffix(image: Image) -> None:
    b = image.ino("/a/b")
    with ext3.Filesystem.open(image.device, "r+") as fs:
        fs.write_bytes(f"/lost+found/#{b}", b"other")
    image.drop_name(image.ino("/a"), b"b")
    context = filled_context(image)
    check_connectivity(context)
    repaired = after(context)
    assert repaired.ino(f"/lost+found/#{b}~1") == b


def test_no_space_for_lost_and_found_is_left(image: Image) -> None:
    with ext3.Filesystem.open(image.device, "r+") as fs:
        fs.rmdir("/lost+found")
    image.drop_name(image.ino("/a"), b"b")
    context = filled_context(image)
    context.census.used[:] = True
    check_connectivity(context)
    assert codes(context) == ["directory-unconnected", "lost-found-missing", "lost-found-failed", "lost-found-failed"]
    assert context.report.exit_code == 4
    assert not context.inodes_allocated
    assert b"lost+found" not in after(context).listing()


def test_connected_directories_with_deep_chains_and_cycles() -> None:
    count = 5000
    parent = np.zeros(count + 10, np.uint32)
    directories = np.array([ROOT_INO, *range(10, count)])
    parent[ROOT_INO] = ROOT_INO
    parent[10] = ROOT_INO
    parent[11:count] = np.arange(10, count - 1)
    assert connected_directories(directories, parent).all()
    parent[2000] = 4000
    found = connected_directories(directories, parent)
    assert found[: list(directories).index(2000)].all()
    assert not found[list(directories).index(2000) :].any()
    parent[2000] = 7
    assert not connected_directories(directories, parent)[list(directories).index(2000) :].any()


def test_a_name_in_an_indexed_root_drops_the_index(pristine: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(pristine)
    with ext3.Filesystem.open(path, "r+") as fs:
        fs.rmdir("/lost+found")
        for number in range(60):
            fs.write_bytes(f"/file-{number}-" + "n" * 30, b"")
        assert fs.inode(ROOT_INO).stat.flags & InodeFlag.INDEX
    context = filled_context(Image(path.read_bytes()))
    check_connectivity(context)
    assert context.to_rebuild == {ROOT_INO}
    repaired = after(context)
    with ext3.Filesystem.open(repaired.device) as fs:
        assert not fs.inode(ROOT_INO).stat.flags & InodeFlag.INDEX
        assert fs.stat("/lost+found").is_dir
        assert fs.lookup("/file-59-" + "n" * 30)
