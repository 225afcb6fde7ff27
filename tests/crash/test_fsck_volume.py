"""A check that is killed at any write leaves an image that a second one repairs, with nothing more lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import ext3
from ext3.constants import JOURNAL_INO, RESIZE_INO
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice
from ext3.fsck.policy import Policy, Preen, Yes

from ..support.crashes import Recording
from ..support.fsck_volumes import Volume, assert_sound, codes, dirty_volume, run, volume

BACKUP = 8193 * 1024


def no_journal() -> Volume:
    image = volume()
    image.set_super(s_jnl_backup_type=0)
    image.set_inode(JOURNAL_INO, i_mode=0)
    return image


def journal_from_copy() -> Volume:
    image = dirty_volume()
    image.set_inode(JOURNAL_INO, i_mode=0, i_block=0)
    return image


def resize_inode() -> Volume:
    image = volume()
    image.set_inode(RESIZE_INO, i_block=0)
    return image


def no_superblock() -> Volume:
    image = dirty_volume()
    image.device.write(1024, bytes(2048))
    return image


def backups() -> Volume:
    image = volume()
    image.set_super(BACKUP, s_feature_compat=0)
    return image


def places() -> Volume:
    image = dirty_volume()
    image.device.write(BACKUP, bytes(2048))
    image.set_group(1, bg_block_bitmap=99_999, bg_inode_bitmap=99_999)
    return image


CASES: dict[str, tuple[Callable[[], Volume], type[Policy]]] = {
    "log and orphans": (dirty_volume, Preen),
    "no journal": (no_journal, Preen),
    "journal from its copy": (journal_from_copy, Yes),
    "resize inode": (resize_inode, Yes),
    "no superblock": (no_superblock, Yes),
    "backups": (backups, Preen),
    "places": (places, Yes),
}


NAMES = [pytest.param(name, marks=[] if name in ("backups", "no journal") else [pytest.mark.slow]) for name in CASES]


@pytest.mark.parametrize("name", NAMES)
def test_a_kill_at_any_write(name):
    make, policy = CASES[name]
    damaged = make()
    device = RecordingDevice(MemoryDevice(damaged.data))
    report = run(device, policy(), force=policy is Yes)  # type: ignore[call-arg]
    assert report.exit_code in (0, 1)
    whole = _contents(device.device)
    recording = Recording(damaged.data, device.events, [], [])
    tried = 0
    for _, left in recording.cuts(7):
        image = MemoryDevice(left.read(0, left.size))
        again = run(image, Yes())
        assert again.exit_code in (0, 1), codes(again)
        assert_sound(image)
        assert _contents(image) == whole
        tried += 1
    assert tried > 4


def _contents(device: ext3.BlockDevice) -> dict[str, bytes]:
    with ext3.Filesystem.open(device) as fs:
        names = [entry.name.decode() for entry in fs.scandir(2) if entry.name != b"lost+found"]
        return {name: fs.read_bytes(f"/{name}") if fs.stat(f"/{name}").is_file else b"" for name in names}
