"""Kills at every write of repairs of pass 1 and 1B to 1D: a second check ends where the first would have, and loses nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.policy import Yes
from tests.support.fsck_inodes import LATER, Inodes, attribute, repair, sample
from tests.support.later_inodes import to_extents, to_inline

NAMES = ("small", "large", "other", "empty", "attr1", "attr2")


def shared(image: Inodes) -> None:
    image.core(image["small"])["i_block"][12] = image.core(image["large"])["i_block"][12]
    image.core(image["other"])["i_block"][3] = image.core(image["small"])["i_block"][1]


def data_for_pointers(image: Inodes) -> None:
    block = int(image.core(image["other"])["i_block"][1])
    image.set_block(block, b"\xff\xff\xff\x7f" + bytes(1000))
    image.core(image["small"])["i_block"][12] = block


def extents(image: Inodes) -> None:
    to_extents(image, "large", node=image.free_block())
    to_extents(image, "small")


def inline(image: Inodes) -> None:
    to_inline(image, "empty", bytes(range(100)), others=attribute(b"a", 0, 0))


def metadata(image: Inodes) -> None:
    image.set_group(1, bg_block_bitmap=0, bg_inode_bitmap=0)
    image.core(image["other"])["i_block"][2] = int(image.groups["bg_inode_table"][0])


def contents(image: Inodes) -> dict[str, bytes]:
    return {name: image.read(name) for name in NAMES if name in image.numbers}


@pytest.mark.parametrize("damage", [shared, data_for_pointers, extents, inline, metadata])
def test_kill(damage: Callable[[Inodes], None]):
    image = sample()
    damage(image)
    before = MemoryDevice(image.data)
    recorded = RecordingDevice(image.device)
    check(recorded, Yes(), options=CheckOptions(force=True), stamp=LATER)
    want = contents(Inodes(image.data))
    assert set(want) == set(NAMES)
    writes = [at for at, event in enumerate(recorded.events) if event.kind != "sync"]
    assert len(writes) > 3
    for count in writes:
        for torn in ((), (0,)):
            events = list(itertools.islice(recorded.events, count + 1))
            device = play(before, events, torn=torn if events[-1].kind == "write" else ())
            again = Inodes(device.read(0, device.size))
            repair(again)
            assert contents(Inodes(again.data)) == want, (damage.__name__, count, torn)
