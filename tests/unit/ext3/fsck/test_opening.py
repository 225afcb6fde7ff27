"""A superblock that cannot be used: backups, counts that are known otherwise, and what nothing helps against."""

from __future__ import annotations

import pytest

import ext3
from ext3.constants import STATE_ERROR, STATE_VALID, Incompat, RoCompat
from ext3.device.base import MemoryDevice
from ext3.errors import CorruptError, NotExt3Error, UnsupportedError
from ext3.fsck.policy import Ask, CheckOnly, Preen, Yes
from ext3.newfs.plan import ImageOptions

from ....support.fsck_volumes import Volume, assert_sound, codes, dirty_volume, run, volume
from ....support.sessions import STAMP, empty_tree

BACKUP = 8193 * 1024


def zeroed(image: Volume, at: int = 1024, count: int = 1024) -> Volume:
    image.device.write(at, bytes(count))
    return image


@pytest.mark.parametrize("count", [1024, 2048])
def test_a_backup_takes_the_place_of_the_superblock(count):
    image = zeroed(volume(), count=count)  # 2048: the descriptors are lost, too
    report = run(image)
    assert codes(report) == ["superblock-unusable", "superblock-not-valid"]
    assert report.exit_code == 1
    assert image.super("s_state") == STATE_VALID
    assert image.super("s_block_group_nr") == 0
    assert image.read("/f3") == volume().read("/f3")
    assert_sound(image)


def test_descriptors_that_are_sound_are_kept():
    image = zeroed(volume())
    image.set_super(BACKUP, s_free_blocks_count=5)
    image.device.write(BACKUP + 1024 + 12, b"\x05\x00")  # a free count in the backup of the descriptors
    report = run(image)
    assert codes(report) == ["superblock-unusable", "free-blocks", "superblock-not-valid"]


def test_a_backup_in_a_later_group():
    image = volume(40 << 20)
    sound = image.data
    zeroed(zeroed(image), BACKUP)
    report = run(image)
    assert report.findings[0].want == 1 + 3 * 8192
    assert image.read("/f3") == Volume(sound).read("/f3")
    assert_sound(image)


@pytest.mark.parametrize("block_size", [2048, 4096])
def test_backups_of_other_block_sizes(block_size):
    image = zeroed(volume(9 * block_size * block_size, block_size=block_size))
    report = run(image)
    assert report.findings[0].want == 8 * block_size
    assert_sound(image)


def test_groups_that_the_damaged_superblock_tells_of():
    # So many inodes need groups that are smaller than their bitmap allows.
    device = MemoryDevice(20 << 20)
    options = ImageOptions(size=20 << 20, block_size=1024, inodes=36000)
    ext3.build_image(empty_tree(), device, options=options, stamp=STAMP)
    image = Volume(bytes(device.data))
    per_group = image.superblock.blocks_per_group
    assert per_group < 8192
    image.set_super(s_inode_size=0)
    report = run(image)
    assert report.findings[0].want == 1 + per_group
    assert_sound(image)


def test_old_backups_do_not_know_their_group():
    image = zeroed(volume())
    image.set_super(BACKUP, s_block_group_nr=0)
    assert codes(run(image))[0] == "superblock-unusable"


def test_a_backup_at_the_wrong_place_is_not_one():
    image = zeroed(volume())
    image.set_super(BACKUP, s_block_group_nr=3)
    with pytest.raises(NotExt3Error):
        run(image)


@pytest.mark.parametrize(
    "fields",
    [
        {"s_magic": 0},
        {"s_inode_size": 0},
        {"s_log_block_size": 9},
        {"s_r_blocks_count": 10240},
        {"s_reserved_gdt_blocks": 300},
        {"s_first_ino": 3},
        {"s_blocks_count": 0},
        {"s_blocks_count": 20000},
        {"s_inodes_count": 77},
        {"s_inodes_per_group": 8},
        {"s_rev_level": 9},
    ],
)
def test_values_that_only_a_backup_puts_right(fields):
    image = volume()
    image.set_super(**fields)
    before = image.data
    looked = run(image, CheckOnly())
    assert (looked.exit_code, codes(looked)) == (4, ["superblock-unusable"])
    assert image.data == before
    report = run(image)
    assert codes(report) == ["superblock-unusable", "superblock-not-valid"]
    for name in fields:
        assert image.super(name) == volume().super(name)
    assert_sound(image)


@pytest.mark.parametrize("fields", [{"s_magic": 0}, {"s_inode_size": 0}, {"s_r_blocks_count": 10240}, {"s_first_ino": 3}])
def test_preening_tries_no_backup(fields):
    image = volume()
    image.set_super(**fields)
    before = image.data
    with pytest.raises((CorruptError, NotExt3Error)):
        run(image, Preen())
    assert image.data == before


def test_without_a_backup_the_error_is_told():
    image = volume(4 << 20)  # one group
    image.set_super(s_inode_size=3)
    with pytest.raises(CorruptError, match="s_inode_size is 3"):
        run(image)


@pytest.mark.parametrize("size", [0, 1000, 2047, 2048])
def test_what_is_too_small(size):
    with pytest.raises(NotExt3Error):
        run(MemoryDevice(size))


def test_a_count_of_inodes_is_the_product():
    image = volume(4 << 20)
    right = image.superblock.inodes_count
    image.set_super(s_inodes_count=right + 8)
    report = run(image)
    assert codes(report) == ["superblock-inodes-count", "superblock-not-valid"]
    assert image.super("s_inodes_count") == right
    assert_sound(image)


def test_inodes_per_group_that_the_count_contradicts():
    image = volume(4 << 20)
    right = image.superblock.inodes_per_group
    image.set_super(s_inodes_per_group=16)
    report = run(image)
    assert codes(report) == ["superblock-inodes-per-group", "superblock-not-valid"]
    assert image.super("s_inodes_per_group") == right
    assert image.read("/f3") == volume(4 << 20).read("/f3")
    assert_sound(image)


def test_preening_stops_at_a_count_of_inodes():
    image = volume(4 << 20)
    image.set_super(s_inodes_count=8)
    report = run(image, Preen())
    assert report.exit_code == 4
    assert report.stopped is not None
    assert image.super("s_inodes_count") == 8
    assert image.super("s_state") == STATE_ERROR


def test_preening_stops_at_a_filesystem_larger_than_its_device():
    image = Volume(volume().data[: 9 << 20])
    report = run(image, Preen())
    assert report.exit_code == 4
    assert report.stopped is not None
    assert report.stopped.code == "superblock-device-size"
    assert image.super("s_state") == STATE_ERROR
    image = Volume(volume().data[: 9 << 20])
    with pytest.raises(CorruptError, match="cut short"):
        run(image)
    assert image.super("s_state") == STATE_VALID


def test_a_refused_repair_leaves_everything_as_it_is():
    for fields in ({"s_magic": 0}, {"s_inodes_count": 8}):
        image = volume()
        image.set_super(**fields)
        before = image.data
        report = run(image, Ask(lambda finding: False))
        assert (report.exit_code, bool(report.gave_up)) == (4, True)
        assert image.data == before


def test_revision_0_with_features():
    image = volume()
    image.set_super(s_rev_level=0)
    assert codes(run(image, CheckOnly())) == ["superblock-revision"]
    report = run(image, Preen())
    assert codes(report) == ["superblock-revision", "superblock-not-valid"]
    assert (image.super("s_rev_level"), image.super("s_inode_size")) == (1, 256)
    assert image.read("/f3") == volume().read("/f3")
    assert_sound(image)


def test_a_backup_that_was_chosen():
    image = volume()
    for block_size in (0, 1024):
        report = run(image, CheckOnly(), superblock=8193, block_size=block_size)
        assert (report.exit_code, codes(report)) == (0, ["superblock-copy-chosen"])
    report = run(image, Preen(), force=False, superblock=8193)
    assert codes(report) == ["superblock-copy-chosen", "superblock-not-valid"]
    assert not report.skipped
    assert_sound(image)


@pytest.mark.parametrize(("block", "block_size"), [(8194, 0), (8193, 4096), (1 << 40, 1024), (5, 1024), (20, 0)])
def test_a_backup_that_was_chosen_and_is_none(block, block_size):
    image = volume()
    before = image.data
    with pytest.raises((NotExt3Error, CorruptError)):
        run(image, superblock=block, block_size=block_size)
    assert image.data == before


def test_a_log_is_replayed_although_a_backup_does_not_tell_of_it():
    image = zeroed(dirty_volume())
    looked = run(image, CheckOnly())
    assert (looked.replayed, looked.exit_code) == (1, 4)
    report = run(image)
    assert codes(report)[:2] == ["superblock-unusable", "journal-data"]
    assert report.replayed == 1
    assert "new" in image.names()
    assert_sound(image)


@pytest.mark.parametrize(
    ("field", "bit", "name"),
    [
        ("s_feature_incompat", Incompat.EXTENTS, "extent"),
        ("s_feature_ro_compat", RoCompat.METADATA_CSUM, "metadata_csum"),
        ("s_feature_ro_compat", 1 << 20, "FEATURE_R20"),
        ("s_feature_compat", 0x200, "sparse_super2"),
    ],
)
@pytest.mark.parametrize("policy", [CheckOnly(), Yes(), Preen()])
def test_features_of_others(field, bit, name, policy):
    image = volume()
    image.set_super(**{field: image.super(field) | int(bit)})
    before = image.data
    with pytest.raises(UnsupportedError) as caught:
        run(image, policy)
    assert caught.value.features == (name,)
    assert image.data == before
