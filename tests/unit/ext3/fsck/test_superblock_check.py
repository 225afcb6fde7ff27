"""Superblock and descriptors: values, places, reasons to check, and the state at the end."""

from __future__ import annotations

import pytest

import ext3
from ext3.constants import STATE_ERROR, STATE_VALID, Compat, Incompat
from ext3.format.schema import SUPERBLOCK
from ext3.fsck.policy import Ask, CheckOnly, Preen, Yes

from ....support.fsck_volumes import LATER, Volume, assert_sound, codes, run, volume

NOW = LATER.seconds
DAY = 86400
BACKUP = 8193 * 1024


@pytest.mark.parametrize("field", ["s_min_extra_isize", "s_want_extra_isize"])
@pytest.mark.parametrize(("value", "good"), [(0, True), (4, True), (32, True), (128, True), (33, False), (132, False)])
def test_extra_isize(field, value, good):
    image = volume()
    image.set_super(**{field: value})
    report = run(image)
    assert codes(report) == ([] if good else ["superblock-extra-isize"])
    assert image.super(field) == (value if good else 32)
    assert image.super(field, BACKUP) == 32
    assert_sound(image)


@pytest.mark.parametrize(
    ("fields", "code", "exits"),
    [
        ({"s_want_extra_isize": 33}, "superblock-extra-isize", (4, 1, 4)),
        ({"s_usr_quota_inum": 12}, "superblock-quota-inode", (4, 1, 4)),
        ({"s_grp_quota_inum": 3}, "superblock-quota-inode", (4, 1, 4)),
        ({"s_creator_os": 1}, "superblock-hurd-filetype", (4, 1, 4)),
        ({"s_uuid": bytes(16)}, "superblock-no-uuid", (0, 0, 0)),
        ({"s_flags": 0}, "superblock-hash-sign", (0, 0, 0)),
        ({"s_mtime": NOW + 2 * DAY}, "superblock-time-in-future", (0, 0, 0)),
        ({"s_wtime": NOW + DAY // 2}, "superblock-time-ahead", (0, 0, 0)),
    ],
)
def test_exit_codes(fields, code, exits):
    found = []
    for policy in (CheckOnly(), Yes(), Preen()):
        image = volume()
        image.set_super(**fields)
        report = run(image, policy)
        assert codes(report)[0] == code
        found.append(report.exit_code)
    assert tuple(found) == exits


def test_numbers_of_quota_inodes_that_are_reserved_for_them_stay():
    image = volume()
    image.set_super(s_usr_quota_inum=3, s_grp_quota_inum=4)
    assert codes(run(image)) == []
    assert (image.super("s_usr_quota_inum"), image.super("s_grp_quota_inum")) == (3, 4)


def test_the_hurd_has_no_filetype():
    image = volume()
    image.set_super(s_creator_os=1)
    run(image)
    assert not image.super("s_feature_incompat") & Incompat.FILETYPE
    assert not image.super("s_feature_incompat", BACKUP) & Incompat.FILETYPE


def test_uuid_comes_from_the_stamp():
    image = volume()
    image.set_super(s_uuid=bytes(16))
    run(image)
    assert image.superblock.uuid.bytes == LATER.uuid
    assert image.device.read(BACKUP + 0x68, 16) == LATER.uuid


def test_hash_sign_is_set_only_with_indexes():
    image = volume()
    image.set_super(s_flags=0, s_feature_compat=image.super("s_feature_compat") & ~Compat.DIR_INDEX)
    image.set_super(BACKUP, s_feature_compat=image.super("s_feature_compat"))
    assert codes(run(image)) == []
    assert image.super("s_flags") == 0
    image = volume()
    image.set_super(s_flags=2)
    assert codes(run(image)) == []
    image.set_super(s_flags=0)
    run(image)
    assert image.super("s_flags") == 1


def test_times_in_the_future():
    image = volume()
    image.set_super(s_mtime=NOW + 2 * DAY, s_wtime=NOW + 3 * DAY)
    report = run(image)
    assert codes(report) == ["superblock-time-in-future"] * 2
    assert (image.super("s_mtime"), image.super("s_wtime")) == (NOW, NOW)


def test_times_do_not_matter_if_nobody_counts_them():
    image = volume()
    image.set_super(s_mtime=NOW + 2 * DAY)
    assert codes(run(image, Preen(), force=False)) == []
    assert image.super("s_mtime") == NOW + 2 * DAY
    image.set_super(s_checkinterval=1000 * DAY)
    assert codes(run(image, Preen(), force=False)) == ["superblock-time-in-future"]


# -- descriptors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["bg_block_bitmap", "bg_inode_bitmap"])
def test_bitmaps_outside_of_their_group_are_placed_anew(field):
    image = volume(4 << 20)  # one group, without a backup
    files = {name: image.read(f"/{name}") for name in ("f0", "f5")}
    image.set_group(0, **{field: 99_999})
    before = image.data
    looked = run(image, CheckOnly())
    assert "group-location" in codes(looked)
    assert looked.exit_code == 4
    assert image.data == before
    report = run(image)
    assert codes(report)[0] == "group-location"
    assert report.exit_code == 1
    assert files == {name: image.read(f"/{name}") for name in files}
    assert_sound(image)


def test_an_inode_table_outside_of_its_group():
    image = volume(4 << 20)
    image.set_group(0, bg_inode_table=99_999)
    report = run(image)
    assert codes(report)[0] == "group-location"
    assert report.exit_code == 1
    assert_sound(image)


def test_places_that_nobody_wants_changed():
    image = volume(4 << 20)
    image.set_group(0, bg_inode_table=99_999)
    report = run(image, Ask(lambda finding: False))
    assert (report.exit_code, bool(report.gave_up)) == (4, True)
    image = volume(4 << 20)
    image.set_group(0, bg_block_bitmap=99_999)
    assert run(image, Ask(lambda finding: False)).exit_code == 4


def test_preening_stops_at_a_place_outside():
    for place in (99_999, 0):
        image = volume()
        image.set_group(1, bg_block_bitmap=place)
        report = run(image, Preen())
        assert report.stopped is not None
        assert report.stopped.code == "group-location"
        assert image.super("s_state") == STATE_ERROR


def test_a_backup_of_the_descriptors_is_better_than_new_places():
    image = volume()
    image.set_group(1, bg_inode_table=99_999)
    report = run(image)
    assert codes(report) == ["superblock-unusable", "superblock-not-valid"]
    assert image.read("/f3") == volume().read("/f3")


@pytest.mark.parametrize("fields", [{"bg_flags": 1}, {"bg_flags": 2}, {"bg_itable_unused": 5}])
def test_groups_marked_as_not_initialised(fields):
    image = volume()
    image.set_group(1, **fields)
    assert run(image, CheckOnly()).exit_code == 4
    report = run(image, Preen(), force=False)
    assert (codes(report), report.exit_code, report.skipped) == (["group-uninit"], 0, False)
    assert_sound(image)


@pytest.mark.parametrize("field", ["bg_free_blocks_count", "bg_free_inodes_count", "bg_used_dirs_count"])
def test_counters_above_their_limits_force_a_check(field):
    image = volume()
    image.set_group(1, **{field: 60_000})
    report = run(image, Preen(), force=False)
    assert codes(report)[0] == "group-counters"
    assert not report.skipped
    assert report.exit_code == 1
    assert_sound(image)


@pytest.mark.parametrize("field", ["s_free_blocks_count", "s_free_inodes_count"])
def test_totals_above_their_limits_force_a_check(field):
    image = volume()
    image.set_super(**{field: 0xFFFFFFFF})
    report = run(image, Preen(), force=False)
    assert codes(report)[0] == "superblock-totals"
    assert not report.skipped
    assert_sound(image)


def test_stale_totals_are_no_fault():
    for policy, exit_code in ((CheckOnly(), 0), (Yes(), 1)):
        image = volume()
        image.set_super(s_free_blocks_count=77)
        report = run(image, policy)
        assert (codes(report), report.exit_code) == (["free-blocks"], exit_code)
    image = volume()
    image.set_super(s_free_blocks_count=77)
    report = run(image, Preen(), force=False)
    assert (codes(report), report.exit_code, report.skipped) == ([], 0, True)
    assert image.super("s_free_blocks_count") == volume().super("s_free_blocks_count")
    assert image.super("s_state") == STATE_VALID


# -- reasons to check ------------------------------------------------------------------------------------------------


def skipped(image: Volume, stamp: ext3.Stamp = LATER) -> bool:
    return run(image, Preen(), force=False, stamp=stamp).skipped


def test_a_clean_filesystem_is_skipped_and_stays_as_it_is():
    image = volume()
    before = image.data
    assert skipped(image)
    assert image.data == before


@pytest.mark.parametrize(
    ("fields", "skips"),
    [
        ({"s_state": STATE_VALID | STATE_ERROR}, False),
        ({"s_state": STATE_ERROR}, False),
        ({"s_state": 0}, False),
        ({"s_max_mnt_count": 3, "s_mnt_count": 3}, False),
        ({"s_max_mnt_count": 3, "s_mnt_count": 2}, True),
        ({"s_max_mnt_count": 0, "s_mnt_count": 2}, True),
        ({"s_max_mnt_count": -1, "s_mnt_count": 2}, True),
        ({"s_checkinterval": 10, "s_lastcheck": NOW - 10}, False),
        ({"s_checkinterval": 10, "s_lastcheck": NOW - 9}, True),
        ({"s_checkinterval": 10, "s_lastcheck": NOW + 1}, False),
        ({"s_checkinterval": 0, "s_lastcheck": NOW + 1}, True),
    ],
)
def test_reasons_in_the_superblock(fields, skips):
    image = volume()
    image.set_super(**fields)
    assert skipped(image) is skips


@pytest.mark.parametrize(
    ("fields", "skips"),
    [
        ({"s_feature_compat": 0x3D}, False),
        ({"s_feature_ro_compat": 0}, False),
        ({"s_feature_incompat": 0}, False),
        ({"s_blocks_count": 10000}, False),
        ({"s_uuid": b"x" * 16}, False),
        ({"s_feature_incompat": 2 | int(Incompat.NEEDS_RECOVERY)}, True),
        ({"s_feature_ro_compat": 1}, True),  # large_file is set by the kernel in the primary superblock alone
        ({"s_free_blocks_count": 1, "s_state": 1}, True),
        ({"s_magic": 0}, True),
    ],
)
def test_backups_that_differ(fields, skips):
    image = volume()
    image.set_super(BACKUP, **fields)
    assert skipped(image) is skips
    if not skips:
        assert image.super("s_state", BACKUP) == 0
        assert image.super("s_block_group_nr", BACKUP) == 1
        for name in fields:
            row = SUPERBLOCK.record(image.device.read(1024, 1024))
            assert SUPERBLOCK.record(image.device.read(BACKUP, 1024))[name] == row[name]
        assert skipped(image)


def test_only_backups_that_differ_are_written():
    image = volume()
    before = image.device.read(BACKUP, 2048)
    image.set_super(BACKUP, s_feature_compat=0)
    run(image)
    row = SUPERBLOCK.record(image.device.read(BACKUP, 1024))
    old = SUPERBLOCK.record(before[:1024])
    assert {name for name in old if old[name] != row[name]} <= {"s_wtime", "s_lastcheck", "s_mnt_count"}
    assert image.device.read(BACKUP + 1024, 1024) == before[1024:]


# -- the end ---------------------------------------------------------------------------------------------------------


def test_what_a_full_check_sets():
    image = volume()
    image.set_super(s_mnt_count=7, s_lastcheck=5, s_error_log=b"\1" * 108, s_overhead_clusters=77)
    report = run(image)
    assert (codes(report), report.exit_code) == ([], 0)
    assert (image.super("s_mnt_count"), image.super("s_lastcheck"), image.super("s_wtime")) == (0, NOW, NOW)
    assert image.super("s_overhead_clusters") == volume().super("s_overhead_clusters")
    assert not any(SUPERBLOCK.record(image.device.read(1024, 1024))["s_error_log"])
    assert image.super("s_state") == STATE_VALID


def test_an_overhead_of_zero_stays():
    image = volume()
    image.set_super(s_overhead_clusters=0)
    run(image)
    assert image.super("s_overhead_clusters") == 0


@pytest.mark.parametrize(("state", "exit_code"), [(3, 0), (2, 1), (0, 1), (4, 1)])
def test_states(state, exit_code):
    image = volume()
    image.set_super(s_state=state)
    assert run(image, CheckOnly()).exit_code == 0
    assert image.super("s_state") == state
    assert run(image, Preen(), force=False).exit_code == exit_code
    assert image.super("s_state") == STATE_VALID


def test_what_is_left_keeps_the_filesystem_unsound():
    image = volume()
    image.set_inode(2, i_links_count=9)
    report = run(image, Ask(lambda finding: finding.code != "link-count"))
    assert report.exit_code == 4
    assert not image.super("s_state") & STATE_VALID
    assert image.super("s_lastcheck") == NOW
    assert run(image, Preen(), force=False).exit_code == 1
    assert_sound(image)


def test_preening_that_stopped_marks_the_filesystem():
    image = volume()
    image.set_super(s_want_extra_isize=33)
    report = run(image, Preen())
    assert (report.exit_code, image.super("s_state")) == (4, STATE_ERROR)
    assert image.super("s_lastcheck") != NOW
    run(image)
    assert image.super("s_state") == STATE_VALID
