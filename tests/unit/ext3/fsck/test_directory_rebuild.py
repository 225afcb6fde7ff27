"""Pass 3A: directories packed anew, repeated names, and what a cut leaves."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest

import ext3
from ext3.constants import SUPERBLOCK_OFFSET, Compat, InodeFlag
from ext3.device.base import MemoryDevice
from ext3.errors import NoSpaceError
from ext3.format.dirent_block import find_record
from ext3.format.schema import SUPERBLOCK
from ext3.fsck import storage
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions, Context
from ext3.fsck.directories import check_directories
from ext3.fsck.directory_rebuild import rebuild_directories
from ext3.fsck.finding import Report
from ext3.fsck.inodes import check_inodes
from ext3.fsck.policy import Ask, CheckOnly, Policy, Preen, Yes
from tests.support.directory_damage import INDEX_DAMAGE, damaged_index, indexed_image
from tests.support.fsck_images import STAMP, Image, context_of
from tests.support.sessions import clock, empty_image

ALL = CheckOptions(force=True, rebuild_directories=True)
FORCE = CheckOptions(force=True)
SIZE = 1024


def run(
    image: bytes | bytearray | MemoryDevice, policy: Policy | None = None, options: CheckOptions = FORCE
) -> tuple[Report, bytes]:
    device = image if isinstance(image, MemoryDevice) else MemoryDevice(bytes(image))
    report = check(device, policy or Yes(), options=options, stamp=STAMP)
    return report, bytes(device.data)


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def tree(image: bytes | bytearray) -> dict[bytes, int]:
    with ext3.Filesystem.open(MemoryDevice(bytes(image))) as fs:
        return {b"/" + path: entry.ino for path, entry in fs.walk()}


def facts(image: bytes, path: bytes) -> tuple[int, bool]:
    """(blocks of a directory, whether it has an index)."""
    with ext3.Filesystem.open(MemoryDevice(image)) as fs:
        found = fs.stat(path)
        return found.size // SIZE, bool(found.flags & InodeFlag.INDEX)


def made(count: int = 90, *, index: bool = False, blocks: int = 4 << 20) -> bytes:
    """An image with directory /d of several blocks, with an index or without."""
    device = empty_image(blocks, block_size=SIZE, inodes=512)
    row = SUPERBLOCK.view(device.data, 1, SUPERBLOCK_OFFSET)
    if not index:
        row["s_feature_compat"] ^= int(Compat.DIR_INDEX)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir(b"/d")
        fs.mkdir(b"/d/sub")
        for number in range(count):
            fs.create(b"/d/name-%04d-" % number + b"x" * 30)
    SUPERBLOCK.view(device.data, 1, SUPERBLOCK_OFFSET)["s_feature_compat"] |= int(Compat.DIR_INDEX)
    return bytes(device.data)


def places(image: bytes | bytearray, wanted: bytes) -> list[int]:
    """The bytes where the records of a name in /d begin."""
    found = []
    with ext3.Filesystem.open(MemoryDevice(bytes(image))) as fs:
        for _, first, count in fs.data_extents(b"/d"):
            for block in range(first, first + count):
                record = find_record(fs.device.read(block * SIZE, SIZE), wanted)
                if record is not None:
                    found.append(block * SIZE + record[0])
    return found


def renamed(image: bytes | bytearray, old: bytes, new: bytes, *, ino: int | None = None) -> bytearray:
    """The image with the bytes of a name in /d overwritten by another of its length, and perhaps another inode."""
    assert len(old) == len(new)
    data = bytearray(image)
    (at,) = places(image, old)
    data[at + 8 : at + 8 + len(new)] = new
    if ino is not None:
        struct.pack_into("<I", data, at, ino)
    return data


def name(number: int) -> bytes:
    return b"name-%04d-" % number + b"x" * 30


# -- repeated names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("second", [2, 80])
def test_the_second_of_two_files_of_one_name_is_renamed(second: int, index: bool) -> None:
    image = made(index=index)
    report, after = run(renamed(image, name(second), name(1)))
    assert codes(report)[:2] == ["directory-name-twice", "entry-name-twice"] or "index-wrong" in codes(report)
    assert report.exit_code == 1
    before, now = tree(image), tree(after)
    assert now.keys() - before.keys() == {b"/d/" + name(1) + b"~0"}
    assert before.keys() - now.keys() == {b"/d/" + name(second)}
    assert sorted(now.values()) == sorted(before.values())
    assert not run(after, CheckOnly())[0].findings


def test_the_second_of_two_entries_for_one_file_is_deleted() -> None:
    image = made()
    first = tree(image)[b"/d/" + name(1)]
    report, after = run(renamed(image, name(80), name(1), ino=first))
    assert "entry-duplicate" in codes(report)
    assert tree(after).keys() == tree(image).keys() - {b"/d/" + name(80)}
    assert not run(after, CheckOnly())[0].findings


def test_a_new_name_is_not_one_that_exists() -> None:
    image = made()
    image = bytes(renamed(image, name(50), name(1)[:-2] + b"~0"))
    with ext3.Filesystem.open(device := MemoryDevice(image), "r+", clock=clock) as fs:
        fs.create(b"/d/" + name(1) + b"~0")
    report, after = run(renamed(bytes(device.data), name(80), name(1)))
    assert b"/d/" + name(1) + b"~1" in tree(after)
    assert report.exit_code == 1
    assert not run(after, CheckOnly())[0].findings


def test_names_of_full_length_are_cut() -> None:
    device = MemoryDevice(made(3))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.create(b"/d/" + b"n" * 255)
        fs.create(b"/d/" + b"m" * 255)
    _, after = run(renamed(bytes(device.data), b"m" * 255, b"n" * 255))
    assert b"/d/" + b"n" * 253 + b"~0" in tree(after)
    assert not run(after, CheckOnly())[0].findings


def test_repeated_names_stop_preening() -> None:
    report, _ = run(renamed(made(), name(80), name(1)), Preen())
    assert report.stopped is not None
    assert report.stopped.code == "entry-name-twice"


def test_repeated_names_that_are_to_stay() -> None:
    report, after = run(renamed(made(), name(80), name(1)), Ask(lambda finding: False))
    assert report.exit_code == 4
    assert run(after, CheckOnly())[0].exit_code == 4


def test_equal_names_in_two_directories_are_no_fault() -> None:
    device = MemoryDevice(made(3))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.create(b"/d/sub/" + name(1))
    assert not run(device, CheckOnly())[0].findings


def full(image: bytes | bytearray) -> bytes:
    """The image without a free block."""
    device = MemoryDevice(bytes(image))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.create(b"/fill")
        with fs.open_file(b"/fill", "r+") as file, suppress(NoSpaceError):
            for offset in range(0, 64 << 20, SIZE):
                file.write_at(offset, b"f" * SIZE)
    assert Image(device.data).superblock.free_blocks <= 1
    return bytes(device.data)


@pytest.mark.parametrize("index", [False, True])
def test_without_a_free_block_names_change_where_they_are(index: bool) -> None:
    image = made(index=index)
    first = tree(image)[b"/d/" + name(1)]
    broken = renamed(bytes(renamed(image, name(80), name(1))), name(70), name(1), ino=first)
    report, after = run(full(broken))
    assert report.exit_code == 1, report.findings
    names = {path for path in tree(after) if path.startswith(b"/d/" + name(1)[:-4])}
    assert len(names) == 2
    assert b"/d/" + name(70) not in tree(after)
    assert not run(after, CheckOnly())[0].findings


def test_a_short_name_without_room_for_another_is_left() -> None:
    device = MemoryDevice(made(0))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for letter in range(250):
            fs.create(b"/d/" + b"%04d" % letter)
    report, after = run(full(renamed(bytes(device.data), b"0200", b"0001")))
    # Four bytes hold another name with a number.
    assert report.exit_code == 1
    assert b"/d/00~0" in tree(after)


# -- packing -------------------------------------------------------------------------------------------------------


def test_a_directory_whose_names_fit_a_block_gets_one() -> None:
    image = made(60)
    device = MemoryDevice(image)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for number in range(5, 60):
            fs.unlink(b"/d/" + name(number))
    before = bytes(device.data)
    assert facts(before, b"/d")[0] > 1
    report, after = run(before, options=ALL)
    assert report.exit_code == 0
    assert facts(after, b"/d") == (1, False)
    assert tree(after) == tree(before)
    assert not run(after, CheckOnly())[0].findings


def test_a_larger_directory_gets_an_index() -> None:
    image = made()
    assert facts(image, b"/d")[1] is False
    report, after = run(image, options=ALL)
    assert not report.findings
    assert facts(after, b"/d")[1] is True
    assert tree(after) == tree(image)
    assert not run(after, CheckOnly())[0].findings


def test_without_the_feature_there_is_no_index() -> None:
    image = bytearray(made())
    SUPERBLOCK.view(image, 1, SUPERBLOCK_OFFSET)["s_feature_compat"] ^= int(Compat.DIR_INDEX)
    _, after = run(image, options=ALL)
    assert facts(after, b"/d")[1] is False
    assert tree(after) == tree(image)
    assert not run(after, CheckOnly())[0].findings


def test_a_second_time_there_is_nothing_to_do() -> None:
    for image in (made(), made(index=True), indexed_image(1)):
        _, after = run(image, options=ALL)
        report, again = run(after, options=ALL)
        assert not report.changed or again == after


def test_without_a_need_directories_stay_as_they_are() -> None:
    image = made()
    report, after = run(image)
    assert not report.findings
    assert facts(after, b"/d") == facts(image, b"/d")


def test_looking_does_not_rebuild() -> None:
    image = made()
    report, after = run(image, CheckOnly(), ALL)
    assert after == image
    assert not report.findings


def test_lost_and_found_keeps_its_blocks_and_has_no_index() -> None:
    device = MemoryDevice(made(3))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for number in range(40):
            fs.create(b"/lost+found/a-%02d" % number)
    before = bytes(device.data)
    blocks = facts(before, b"/lost+found")[0]
    assert blocks > 2
    _, after = run(before, options=ALL)
    assert facts(after, b"/lost+found") == (blocks, False)
    data = bytearray(before)
    at = data.index(b"a-07")
    data[at : at + 4] = b"a-06"
    report, after = run(data)
    assert "entry-name-twice" in codes(report)
    assert facts(after, b"/lost+found") == (blocks, False)
    assert not run(after, CheckOnly())[0].findings


def test_a_directory_with_faults_that_stay_is_not_rebuilt() -> None:
    recipe = INDEX_DAMAGE["limit"]
    image = damaged_index(recipe)
    data = bytearray(image)
    (at,) = places(image, b"name-7" + b"y" * 20)
    struct.pack_into("<H", data, at + 4, 3)
    answers = {"index-limit": True}
    report, after = run(data, Ask(lambda finding: answers.get(finding.code, False)))
    assert report.exit_code == 4
    assert facts(after, b"/d")[1] is False
    assert run(after)[0].exit_code == 1


def test_the_census_is_right_after_a_rebuild() -> None:
    context = rebuilt(damaged_index(INDEX_DAMAGE["limit"]))
    fresh = context_of(Image(context.storage.read(0, context.storage.size)))
    check_inodes(fresh)
    assert (fresh.census.used == context.census.used).all()
    assert context.freed
    assert context.allocated


def rebuilt(image: bytes | bytearray) -> Context:
    context = context_of(Image(bytes(image)))
    check_inodes(context)
    check_directories(context)
    rebuild_directories(context)
    return context


# -- cuts ----------------------------------------------------------------------------------------------------------


class Cut(Exception):
    pass


class CutDevice(MemoryDevice):
    """A device that fails at the write after so many."""

    def __init__(self, data: bytes, left: int) -> None:
        super().__init__(data)
        self.left = left

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if not self.left:
            raise Cut
        self.left -= 1
        super().write(offset, data)


def cuts(image: bytes | bytearray, options: CheckOptions) -> Iterator[bytes]:
    """The image after every number of writes of a check."""
    for left in range(1000):
        device = CutDevice(bytes(image), left)
        try:
            check(device, Yes(), options=options, stamp=STAMP)
        except Cut:
            yield bytes(device.data)
        else:
            assert left > 3
            return


@pytest.mark.parametrize("often", [False, True], ids=["written at the end", "written as often as possible"])
@pytest.mark.parametrize("case", ["index", "all", "repeated", "one block", "full"])
def test_a_cut_at_any_write_loses_no_name(case: str, often: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if often:
        monkeypatch.setattr(storage, "MEMORY_BYTES", 0)
    image, options = made(), FORCE
    kept = {path for path in tree(image) if path not in (b"/d/" + name(80), b"/d/" + name(1))}
    if case == "index":
        image = bytes(damaged_index(INDEX_DAMAGE["not ascending"]))
        kept = set(tree(indexed_image(0)))
    elif case == "all":
        options = ALL
    elif case == "repeated":
        image = bytes(renamed(image, name(80), name(1)))
    else:
        device = MemoryDevice(image)
        with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
            for number in range(5, 90):
                fs.unlink(b"/d/" + name(number))
        image, options = bytes(device.data), ALL
        if case == "full":
            image = full(image)
        kept = set(tree(image))
    count = 0
    for cut in cuts(image, options):
        report, after = run(cut)
        assert not report.left
        assert kept <= set(tree(after))
        assert not run(after, CheckOnly())[0].findings
        count += 1
    assert count > 3
