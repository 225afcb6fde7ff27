"""Pass 1: what it finds in inodes, what preening does about each fault, and that the screen agrees with the check of one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import ext3
from ext3.constants import S_IFDIR
from ext3.device.base import MemoryDevice
from ext3.errors import DeviceError
from ext3.fsck.context import Context
from ext3.fsck.inodes import InodePass
from ext3.fsck.policy import Ask, CheckOnly, Preen, Stopped, Yes
from ext3.fsck.problem import PreenAnswer
from ext3.fsck.problems import inodes as problems
from tests.support.fsck_images import Image, context_of
from tests.support.fsck_inodes import BLOCK, STAMP, attribute, codes, pass_1, repair, sample
from tests.support.inode_faults import BAD, CASES, damaged, fields

COUNT = "inode-blocks-count"


def facts(context: Context) -> dict[str, Any]:
    census = context.census
    return {
        "mode": census.mode.tolist(),
        "links": census.links.tolist(),
        "used": np.flatnonzero(census.used).tolist(),
        "shared": np.flatnonzero(census.shared).tolist(),
        "rows": [column.tolist() for column in context.directory_blocks.columns()],
        "bad": context.bad_inodes,
        "indexed": context.indexed,
        "attributes": context.attribute_blocks,
        "corrected": context.corrected,
        "large": context.large_file,
        "found": sorted(str(finding) for finding in context.report.findings),
        "blocks": context.storage.blocks,
    }


@pytest.mark.parametrize("name", CASES)
def test_found(name):
    context = pass_1(damaged(name), CheckOnly())
    assert codes(context) == CASES[name][1]
    if name in BAD:
        assert damaged(name)[BAD[name]] in context.bad_inodes


@pytest.mark.parametrize("name", CASES)
def test_repaired(name):
    """A second run of the whole check finds nothing."""
    report = repair(damaged(name))
    assert report.exit_code == (0 if not report.corrected else 1)
    assert set(CASES[name][1]) <= set(codes(report)) or name == "resize inode is a fifo"


@pytest.mark.parametrize("name", CASES)
def test_screen_agrees(name):
    """What the screen calls sound, the check of single inodes leaves as it is."""
    image = damaged(name)
    assert facts(pass_1(image)) == facts(pass_1(image, screen=False))


@pytest.mark.parametrize("name", CASES)
def test_preening(name):
    """Preening stops at the first fault that needs a decision, and repairs what is before it."""
    table = {problem.code: problem for problem in vars(problems).values() if isinstance(problem, problems.Problem)}
    wanted = [table[code].preen for code in CASES[name][1]]
    if PreenAnswer.STOP in wanted:
        with pytest.raises(Stopped):
            pass_1(damaged(name), Preen())
        return
    context = pass_1(damaged(name), Preen())
    assert codes(context) == CASES[name][1]
    assert context.report.corrected == wanted.count(PreenAnswer.REPAIR)


@pytest.mark.parametrize("name", CASES)
def test_refused(name):
    """Without repairs the pass goes on, and changes nothing."""
    image = damaged(name)
    context = pass_1(image, Ask(lambda finding: False))
    assert not context.storage.pending
    assert set(CASES[name][1]) <= set(codes(context))


def test_sound_image_has_no_findings():
    context = pass_1(sample(), CheckOnly())
    assert not context.report.findings
    assert not context.storage.pending
    image = sample()
    assert context.census.mode[image["char"]] & 0o170000 == 0o020000
    assert context.census.links[image["dir"]] == 2
    ino, logical, block = context.directory_blocks.columns()
    assert (block[ino == image["dir"]] != 0).all()
    assert logical[ino == image["dir"]].tolist() == list(range(int((ino == image["dir"]).sum())))
    assert context.indexed == ({image["dir"]} if image.core(image["dir"])["i_flags"] & 0x1000 else set())


def test_used_blocks_are_those_of_the_bitmaps():
    for journal in (False, True):
        image = sample(journal=journal)
        context = pass_1(image)
        for group in range(image.superblock.groups_count):
            first = image.superblock.geometry.first_block(group)
            count = image.superblock.geometry.block_count(group)
            bitmap = image.block(int(image.groups["bg_block_bitmap"][group]))
            bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")[:count]
            assert np.array_equal(bits.astype(bool), context.census.used[first : first + count])


def test_low_times_of_the_filesystem_make_low_dtimes_plausible():
    image = damaged("rest of an orphan list")
    image.set_super(s_mkfs_time=100)
    assert codes(pass_1(image)) == ["inode-set-dtime"]


def test_fields_after_the_repair():
    image = damaged("extra size odd")
    repair(image)
    assert image.extra(image["empty"])["i_extra_isize"] == 36
    image = damaged("extra size too large")
    repair(image)
    assert image.extra(image["small"])["i_extra_isize"] == 32
    image = damaged("epoch of atime")
    repair(image)
    assert image.extra(image["small"])["i_atime_extra"] & 3 == 0
    image = damaged("directory with another mode")
    repair(image)
    assert image.core(image["dir"])["i_mode"] == S_IFDIR | 0o755


@pytest.mark.parametrize("name", ["blocks of a short symlink", "blocks of a long symlink"])
def test_symlinks_with_wrong_blocks_keep_their_target(name):
    image = damaged(name)
    repair(image)
    assert image.core(image["short"])["i_block"].tobytes()[:7] == b"target\0"
    assert image.block(int(image.core(image["long"])["i_block"][0]))[:201] == b"t" * 200 + b"\0"


def test_large_files():
    image = sample()
    assert not pass_1(image).large_file
    fields("small", i_size=1 << 31)(image)
    assert pass_1(image).large_file
    assert pass_1(image, screen=False).large_file


def test_hurd_has_fragments_where_others_have_high_blocks():
    image = sample()
    image.set_super(s_creator_os=1)
    image.set_inode(image["small"], i_blocks=77, i_file_acl_high=5)
    context = pass_1(image)
    assert not context.report.findings
    assert not context.bad_inodes
    image.set_inode(image["small"], i_blocks_high=1)
    assert pass_1(image).bad_inodes == {image["small"]}


def test_inodes_of_128_bytes_and_revision_0():
    device = MemoryDevice(4 << 20)
    ext3.mkfs(device, 4 << 20, inode_size=128, journal=False, stamp=STAMP)
    with ext3.Filesystem.open(device, "r+") as fs:
        fs.write_bytes("/file", b"x" * 3000)
    image = Image(device.data)
    assert not pass_1(image).report.findings
    assert not pass_1(image, screen=False).report.findings


class Unreadable:
    """Device of which a block cannot be read until it is written."""

    def __init__(self, base: Any, block: int) -> None:
        self._base = base
        self._bad = range(block * BLOCK, (block + 1) * BLOCK)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def read(self, offset: int, size: int) -> bytes:
        if offset < self._bad.stop and offset + size > self._bad.start:
            raise DeviceError("read error")
        return self._base.read(offset, size)


def test_unreadable_table_block():
    """The inodes of that block are lost, all others are kept."""
    image = sample()
    context = context_of(image, Yes())
    table = int(image.groups["bg_inode_table"][1])
    context.storage.base = Unreadable(context.storage.base, table)
    context.storage._overlay.device = context.storage.base
    InodePass(context).run()
    assert codes(context) == ["inode-table-unreadable"]
    assert context.census.mode[image["small"]]


def test_unreadable_pointer_block():
    image = sample()
    context = context_of(image, Yes())
    block = int(image.core(image["large"])["i_block"][12])
    context.storage.base = Unreadable(context.storage.base, block)
    context.storage._overlay.device = context.storage.base
    InodePass(context).run()
    assert codes(context) == ["pointer-block-unreadable", COUNT]
    assert context.census.mode[image["small"]]


@pytest.mark.parametrize("seed", range(40))
def test_screen_agrees_on_random_damage(seed):
    rng = random.Random(seed)
    image = sample()
    names = [*image.numbers]
    for _ in range(rng.randrange(1, 5)):
        row = image.core(image[rng.choice(names)])
        field = rng.choice([name for name in row.dtype.names if name != "i_block"])
        bits = row.dtype[field].itemsize * 8
        if rng.random() < 0.4:
            row["i_block"][rng.randrange(15)] = rng.choice([rng.randrange(21_000), rng.getrandbits(32), 0])
        else:
            row[field] = int(row[field]) ^ 1 << rng.randrange(bits)
        if rng.random() < 0.3:
            ino = image[rng.choice(names)]
            image.set_area(ino, attribute(b"name", rng.randrange(100), rng.randrange(30), number=rng.randrange(2)))
    assert facts(pass_1(image)) == facts(pass_1(image, screen=False))
