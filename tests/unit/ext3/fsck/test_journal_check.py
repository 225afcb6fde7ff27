"""Journal: replayed, restored from its copy, given a new superblock, dropped and made again, or named as not ours."""

from __future__ import annotations

import pytest

import ext3
from ext3.constants import JOURNAL_INO, STATE_VALID, Compat, Incompat
from ext3.errors import CorruptError, UnsupportedError
from ext3.format.jbd_schema import JOURNAL_COMMIT, JOURNAL_HEADER, JOURNAL_TAG
from ext3.format.schema import INODE_CORE, SUPERBLOCK
from ext3.fsck.policy import Ask, CheckOnly, Preen, Yes

from ....support.fsck_volumes import LATER, Volume, assert_sound, codes, dirty_volume, journal_blocks, run, volume
from ....support.sessions import clock

BACKUP = 8193 * 1024
RECOVER = int(Incompat.NEEDS_RECOVERY)


def needs_recovery(image: Volume) -> bool:
    return bool(image.super("s_feature_incompat") & RECOVER)


def with_log(*blocks: int, content: bytes = b"log ", **fields: int) -> Volume:
    """A sound image with one transaction in its log, which gives new content to blocks."""
    image = volume()
    at = image.words(JOURNAL_INO)[1:]
    sequence = image.journal("s_sequence")
    tags = b"".join(
        JOURNAL_TAG.packer.pack(block, 0, (0 if not number else 2) | (8 if number == len(blocks) - 1 else 0))
        + (bytes(16) if not number else b"")
        for number, block in enumerate(blocks)
    )
    descriptor = JOURNAL_HEADER.packer.pack(0xC03B3998, 1, sequence) + tags
    commit = JOURNAL_COMMIT.packer.pack(0xC03B3998, 2, sequence, 0, 0, b"\0\0", *[0] * 8, 0, 0)
    for place, data in zip(at, [descriptor, *[content * (1024 // len(content))] * len(blocks), commit], strict=False):
        image.device.write(place * 1024, data.ljust(1024, b"\0"))
    image.set_journal(s_start=1, **fields)
    image.set_super(s_feature_incompat=image.super("s_feature_incompat") | RECOVER)
    return image


# -- replay ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Yes(), Preen()])
def test_a_log_is_replayed(policy):
    image = dirty_volume()
    report = run(image, policy, force=False)
    assert (report.replayed, report.exit_code, report.skipped) == (1, 0, True)
    assert codes(report) == ["orphan-deleted", "orphan-deleted"]
    assert not needs_recovery(image)
    assert image.journal("s_start") == 0
    assert image.names() == {"d", "new", "lost+found", "f2", "f3", "f4", "f5"}
    assert_sound(image)


def test_looking_replays_in_memory():
    image = dirty_volume()
    before = image.data
    report = run(image, CheckOnly())
    assert (report.replayed, report.exit_code, report.left) == (1, 0, 0)
    assert image.data == before


def test_only_the_journal():
    image = dirty_volume()
    report = run(image, Preen(), force=True, journal_only=True)
    assert (report.replayed, report.orphans, report.exit_code, codes(report)) == (1, 0, 0, [])
    assert not needs_recovery(image)
    assert image.super("s_last_orphan")
    assert image.super("s_lastcheck") == volume().super("s_lastcheck")


def test_only_the_journal_and_that_is_broken():
    image = volume()
    image.set_super(**NO_COPY)
    image.set_inode(JOURNAL_INO, i_mode=0)
    report = run(image, Preen(), journal_only=True)
    assert (codes(report), report.exit_code) == (["journal-inode"], 1)
    assert not image.superblock.has_journal
    assert not image.super("s_state") & STATE_VALID  # the next check is a full one
    assert not run(image, Preen(), force=False).skipped
    assert_sound(image)


def test_a_log_with_an_error_number_forces_a_check():
    image = dirty_volume()
    image.set_journal(s_errno=5)
    for policy in (CheckOnly(), Yes()):
        report = run(image, policy, force=False)
        assert not report.skipped
        assert report.orphans == 0  # the list cannot be trusted: pass 1 finds what is on it
        assert "inode-low-dtime" in codes(report)
    assert image.super("s_state") == STATE_VALID
    assert_sound(image)


def test_an_error_number_in_an_empty_log():
    image = volume()
    image.set_journal(s_errno=5)
    report = run(image, Preen(), force=False)
    assert (codes(report), report.skipped) == (["journal-errno"], False)
    assert image.journal("s_errno") == 0
    assert image.super("s_state") == STATE_VALID
    assert_sound(image)


def test_content_for_blocks_outside_is_left_out():
    image = with_log(9000, 0x00FFFFFF)
    looked = run(image, CheckOnly())
    assert codes(looked) == ["journal-far-block"]
    report = run(image, Preen(), force=False)
    assert (codes(report), report.skipped, report.exit_code) == (["journal-far-block"], False, 0)
    assert image.device.read(9000 * 1024, 4) == b"log "
    assert_sound(image)


def test_a_log_that_would_overwrite_the_journal_is_emptied():
    image = with_log(9000, volume().words(JOURNAL_INO)[9])
    old = image.device.read(9000 * 1024, 4)
    assert run(image, CheckOnly()).exit_code == 4
    report = run(image, Preen(), force=False)
    assert codes(report) == ["journal-log"]
    assert (report.exit_code, report.skipped) == (1, False)
    assert image.device.read(9000 * 1024, 4) == old
    assert (image.journal("s_start"), image.journal("s_sequence")) == (0, LATER.journal_sequence)
    assert_sound(image)


def test_a_log_that_holds_no_superblock_is_emptied():
    report = run(image := with_log(1))
    assert codes(report)[0] == "journal-log"
    assert report.exit_code == 1
    assert_sound(image)


def test_a_log_whose_superblock_cannot_be_used_is_followed_by_a_backup():
    image = volume()
    bad = bytearray(image.device.read(1024, 1024))
    SUPERBLOCK.view(bad)[0]["s_reserved_gdt_blocks"] = 9999
    for policy in (CheckOnly(), Yes()):
        image = with_log(1, content=bytes(bad))
        before = image.data
        report = run(image, policy, force=False)
        assert codes(report)[0] == "superblock-unusable"
        assert (report.replayed, report.gave_up) == (1, "")
        assert (image.data == before) is not policy.writes
    assert report.exit_code == 1
    assert image.journal("s_start") == 0
    assert_sound(image)


def test_preening_stops_at_a_log_whose_superblock_cannot_be_used():
    bad = bytearray(volume().device.read(1024, 1024))
    SUPERBLOCK.view(bad)[0]["s_reserved_gdt_blocks"] = 9999
    with pytest.raises(CorruptError, match="s_reserved_gdt_blocks"):
        run(with_log(1, content=bytes(bad)), Preen(), force=False)


def test_a_log_that_nobody_wants_emptied():
    image = with_log(1)
    before = image.data
    report = run(image, Ask(lambda finding: False))
    assert report.exit_code == 4
    assert report.gave_up
    after = image.data
    changed = [at for at in range(0, len(before), 1024) if before[at : at + 1024] != after[at : at + 1024]]
    assert changed == [1024]  # the state in the superblock
    assert needs_recovery(image)


def test_a_log_that_the_superblock_denies():
    image = dirty_volume()
    image.set_super(s_feature_incompat=image.super("s_feature_incompat") & ~RECOVER)
    assert run(image, CheckOnly()).exit_code == 4
    stopped = Volume(image.data)
    report = run(stopped, Preen())
    assert report.stopped is not None
    assert report.stopped.code == "journal-data"
    emptied = Volume(image.data)
    report = run(emptied, Ask(lambda finding: finding.code != "journal-data"))
    assert codes(report)[:2] == ["journal-data", "journal-reset"]
    assert "new" not in emptied.names()
    assert emptied.journal("s_start") == 0
    report = run(image)
    assert codes(report)[0] == "journal-data"
    assert (report.replayed, report.exit_code) == (1, 0)
    assert "new" in image.names()
    assert_sound(image)


# -- without the feature -------------------------------------------------------------------------------------------------


def without_feature(*, recover: bool = False) -> Volume:
    image = volume()
    image.set_super(s_feature_compat=image.super("s_feature_compat") & ~int(Compat.HAS_JOURNAL))
    if recover:
        image.set_super(s_feature_incompat=image.super("s_feature_incompat") | RECOVER)
    return image


def test_fields_of_a_journal_without_the_feature():
    report = run(image := without_feature(), Preen(), force=False)
    assert codes(report)[:2] == ["journal-not-a-feature", "journal-inode-unused"]
    assert (report.exit_code, report.skipped) == (1, False)
    assert image.super("s_journal_inum") == 0
    assert not any(image.words(JOURNAL_INO))
    assert_sound(image)


def test_the_feature_may_be_set_instead():
    image = without_feature()
    run(image, Ask(lambda finding: finding.code != "journal-not-a-feature"))
    assert image.superblock.has_journal
    assert_sound(image)


def test_recovery_without_a_journal():
    image = without_feature(recover=True)
    image.set_super(s_journal_inum=0)
    assert run(image, CheckOnly()).exit_code == 4
    refused = run(Volume(image.data), Ask(lambda finding: False))
    assert (refused.exit_code, bool(refused.gave_up)) == (4, True)
    report = run(image, Preen(), force=False)
    assert codes(report)[0] == "journal-recovery-without-journal"
    assert not needs_recovery(image)
    assert_sound(image)


def test_a_filesystem_without_a_journal():
    image = volume(journal=False)
    assert codes(run(image)) == []
    assert not image.superblock.has_journal


# -- the inode -----------------------------------------------------------------------------------------------------------

KEPT = ("i_size", "i_blocks", "i_block")
NO_COPY = {"s_jnl_backup_type": 0}
WRECKS = [
    {"i_mode": 0},
    {"i_mode": 0o40700},
    {"i_links_count": 0},
    {"i_size": 1023 * 1024},
    {"i_size": 1 << 31},
    {"i_block": 0},
    {"i_block": 7},
    {"i_block": 99_999_999},
]


@pytest.mark.parametrize("fields", WRECKS)
def test_an_inode_is_written_from_its_copy(fields):
    image = dirty_volume()
    words = image.words(JOURNAL_INO)
    image.set_inode(JOURNAL_INO, **fields)
    before = image.data
    looked = run(image, CheckOnly())
    assert (looked.replayed, looked.exit_code) == (1, 4)
    assert image.data == before
    report = run(image, Preen(), force=False)
    assert codes(report)[0] == "journal-inode-from-backup"
    assert (report.replayed, report.exit_code) == (1, 1)
    assert image.words(JOURNAL_INO) == words
    assert "new" in image.names()
    assert_sound(image)


@pytest.mark.parametrize(("fields", "policy"), [*((fields, Yes()) for fields in WRECKS), (WRECKS[0], Preen())])
def test_a_journal_without_a_copy_is_made_again(fields, policy):
    image = volume()
    image.set_super(**NO_COPY)
    image.set_inode(JOURNAL_INO, **fields)
    looked = run(image, CheckOnly())
    assert looked.exit_code == 4
    report = run(image, policy, force=False)
    assert "journal-inode" in codes(report)
    assert "journal-missing" in codes(report)
    assert report.exit_code == 1
    superblock = image.superblock
    assert superblock.has_journal
    assert superblock.journal_ino == JOURNAL_INO
    assert superblock.journal_backup[:15] == tuple(image.words(JOURNAL_INO))
    assert len(journal_blocks(image)) == 1024
    assert (image.journal("s_maxlen"), image.journal("s_start"), image.journal("s_first")) == (1024, 0, 1)
    assert image.journal("s_sequence") == LATER.journal_sequence
    assert all(not any(image.device.read(block * 1024, 1024)) for block in journal_blocks(image)[1:])
    assert image.super("s_jnl_backup_type", BACKUP) == 1
    assert_sound(image)
    with ext3.Filesystem.open(image.device, "r+", clock=clock) as fs:  # and it works
        fs.write_bytes("/more", b"data")
    assert_sound(image)


def test_a_journal_that_nobody_wants_dropped():
    image = volume()
    image.set_super(**NO_COPY)
    image.set_inode(JOURNAL_INO, i_mode=0)
    report = run(image, Ask(lambda finding: False))
    assert (report.exit_code, bool(report.gave_up)) == (4, True)
    assert image.superblock.has_journal


def test_a_journal_that_nobody_wants_again():
    image = volume()
    image.set_super(**NO_COPY)
    image.set_inode(JOURNAL_INO, i_mode=0)
    report = run(image, Ask(lambda finding: finding.code != "journal-missing"))
    assert report.exit_code == 4
    assert not image.superblock.has_journal


def test_no_room_for_a_new_journal():
    image = volume()
    free = image.super("s_free_blocks_count")
    with ext3.Filesystem.open(image.device, "r+", clock=clock) as fs:
        fs.write_bytes("/large", b"x" * ((free - 100) * 1024))
    image.set_super(**NO_COPY)
    # The blocks of the old journal become a file's, so that they are not free for a new one.
    journal = INODE_CORE.record(image.inode(JOURNAL_INO)[:128])
    with ext3.Filesystem.open(image.device) as fs:
        ino = fs.lookup("/f3")
    image.set_inode(ino, **{name: journal[name] for name in KEPT})
    image.set_inode(JOURNAL_INO, i_mode=0, i_links_count=0, i_block=0, i_blocks=0)
    report = run(image)
    assert "journal-no-room" in codes(report)
    assert report.exit_code == 4
    assert not image.superblock.has_journal
    assert not image.super("s_state") & STATE_VALID


def test_a_number_that_is_not_the_journals():
    for ino in (77, 12, 99_999):
        image = dirty_volume()
        image.set_super(s_journal_inum=ino)
        report = run(image, Preen(), force=False)
        assert codes(report)[0] == "journal-number"
        assert (report.replayed, report.exit_code) == (1, 1)
        assert image.super("s_journal_inum") == image.super("s_journal_inum", BACKUP) == JOURNAL_INO
        assert_sound(image)


def test_a_journal_whose_inode_table_is_lost_is_still_replayed():
    image = Volume(with_log(5000).data)
    image.device.write(BACKUP, bytes(2048))  # no backup
    image.set_group(0, bg_inode_table=99_999)
    stopped = Volume(image.data)
    report = run(stopped, Preen())
    assert report.stopped is not None
    assert report.stopped.code == "group-location"
    assert stopped.superblock.has_journal
    assert needs_recovery(stopped)
    report = run(image)
    assert report.replayed == 1
    assert codes(report).count("group-location") == 1
    assert image.device.read(5000 * 1024, 4) == b"log "
    assert_sound(image)


def test_the_copy_of_the_inode_is_brought_up_to_date():
    for fields in ({"s_jnl_blocks": 0}, {"s_jnl_backup_type": 0}):
        image = volume()
        image.set_super(**fields)
        report = run(image, Preen(), force=False)
        assert (codes(report), report.skipped, report.exit_code) == (["journal-inode-backup"], True, 0)
        assert image.superblock.journal_backup == volume().superblock.journal_backup
        assert image.super("s_jnl_backup_type") == image.super("s_jnl_backup_type", BACKUP) == 1
        assert_sound(image)


# -- the superblock of the journal ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"h_magic": 0},
        {"h_blocktype": 1},
        {"h_blocktype": 2},
        {"h_blocktype": 5},
        {"s_blocksize": 4096},
        {"s_maxlen": 1025},
        {"s_maxlen": 2},
    ],
)
def test_a_new_superblock(fields):
    for recover in (False, True):
        image = volume()
        image.set_journal(**fields)
        if recover:
            image.set_super(s_feature_incompat=image.super("s_feature_incompat") | RECOVER)
        assert run(image, CheckOnly()).exit_code == 4
        report = run(image, Preen(), force=False)
        assert (codes(report), report.exit_code, report.skipped) == (["journal-superblock"], 1, False)
        assert (image.journal("s_maxlen"), image.journal("s_sequence")) == (1024, LATER.journal_sequence)
        assert not needs_recovery(image)
        assert_sound(image)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"s_first": 0}, "journal-first-block"),
        ({"s_first": 1023}, "journal-first-block"),
        ({"s_nr_users": 2, "s_feature_incompat": 2}, "journal-version"),
    ],
)
def test_fields_that_are_no_reason_to_lose_the_log(fields, code):
    image = dirty_volume()
    image.set_journal(**fields)
    report = run(image, Preen(), force=False)
    assert (codes(report)[0], report.replayed, report.exit_code) == (code, 1, 0)
    assert image.journal("s_first") == 1
    assert "new" in image.names()
    assert_sound(image)


@pytest.mark.parametrize("fields", [{"s_first": 0}, {"s_first": 1023}, {"s_first": 9, "s_start": 3}])
def test_a_wrong_first_block_is_no_reason_to_lose_the_log(fields):
    image = volume()
    image.set_journal(**fields)
    image.set_super(s_feature_incompat=image.super("s_feature_incompat") | RECOVER)
    report = run(image, Preen(), force=False)
    assert (codes(report), report.exit_code) == (["journal-first-block"], 0)
    assert image.journal("s_first") == 1
    assert_sound(image)


@pytest.mark.parametrize("policy", [CheckOnly(), Yes(), Preen()])
def test_a_journal_with_several_users_loses_the_fields_of_version_2(policy):
    image = volume()
    image.set_journal(s_nr_users=2, s_feature_incompat=2)
    report = run(image, policy)
    assert (codes(report), report.exit_code) == (["journal-version"], 0)
    if policy.writes:
        assert (image.journal("s_nr_users"), image.journal("s_feature_incompat")) == (0, 0)
        assert_sound(image)


def test_a_start_outside_of_the_log():
    image = volume()
    image.set_journal(s_start=1024)
    report = run(Volume(image.data), Preen())
    assert report.stopped is not None
    assert report.stopped.code == "journal-start"
    assert codes(run(image)) == ["journal-start"]
    assert_sound(image)


def test_version_1_with_fields_of_version_2():
    image = volume()
    image.set_journal(h_blocktype=3, s_feature_incompat=7)
    report = run(image, Preen(), force=False)
    assert (codes(report), report.skipped) == (["journal-version"], True)
    assert (image.journal("h_blocktype"), image.journal("s_feature_incompat"), image.journal("s_nr_users")) == (3, 0, 0)
    assert_sound(image)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"s_feature_incompat": 2}, "journal_64bit"),
        ({"s_feature_incompat": 16}, "journal_checksum_v3"),
        ({"s_feature_incompat": 32}, "journal_fast_commit"),
        ({"h_blocktype": 6}, "journal_superblock_type_6"),
    ],
)
@pytest.mark.parametrize("policy", [CheckOnly(), Yes(), Preen()])
def test_journals_of_others_are_named(fields, name, policy):
    image = volume()
    image.set_journal(**fields)
    before = image.data
    with pytest.raises(UnsupportedError) as caught:
        run(image, policy)
    assert caught.value.features == (name,)
    assert image.data == before


@pytest.mark.parametrize("field", ["s_feature_incompat", "s_feature_ro_compat"])
def test_features_that_nobody_knows(field):
    image = volume()
    image.set_journal(**{field: 0x8000})
    for policy in (CheckOnly(), Yes()):
        with pytest.raises(UnsupportedError):
            run(image, policy)
    report = run(image, Preen())
    assert report.stopped is not None
    assert report.stopped.code == "journal-features"


def test_a_journal_on_another_device_is_named():
    for fields in ({"s_journal_dev": 0x801}, {"s_journal_uuid": b"j" * 16}):
        image = volume()
        image.set_super(s_journal_inum=0, **fields)
        before = image.data
        with pytest.raises(UnsupportedError) as caught:
            run(image)
        assert caught.value.features == ("external_journal",)
        assert image.data == before


# -- a journal with a name -----------------------------------------------------------------------------------------------


def visible(name: str = ".journal") -> Volume:
    """An image whose journal is a file, as tune2fs makes it where the filesystem is mounted."""
    image = volume()
    with ext3.Filesystem.open(image.device, "r+", clock=clock) as fs:
        fs.write_bytes(f"/{name}", b"")
        ino = fs.lookup(f"/{name}")
    raw = image.inode(JOURNAL_INO)
    image.device.write(image.inode_offset(ino), raw)
    image.device.write(image.inode_offset(JOURNAL_INO), bytes(len(raw)))
    image.set_super(s_journal_inum=ino)
    return image


@pytest.mark.parametrize("name", [".journal", "journal", ".journal.dat", "journal.dat"])
def test_a_visible_journal_is_hidden(name):
    image = visible(name)
    words = image.words(image.super("s_journal_inum"))
    report = run(image, Preen(), force=False)
    assert (codes(report), report.exit_code) == (["journal-visible"], 0)
    assert image.super("s_journal_inum") == image.super("s_journal_inum", BACKUP) == JOURNAL_INO
    assert image.words(JOURNAL_INO) == words
    assert name not in image.names()
    assert_sound(image)


def test_other_names_stay():
    image = visible("other")
    assert codes(run(image)) == []
    assert "other" in image.names()


def test_a_journal_with_two_names_stays():
    image = visible()
    image.set_inode(image.super("s_journal_inum"), i_links_count=2)
    assert "journal-visible" not in codes(run(image, Preen(), force=False))
    assert ".journal" in image.names()
