"""Resizes of small images in memory: filled images, recordings, and judges of what an interruption leaves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import ext3
from ext3.device.base import BlockDevice, MemoryDevice, data_ranges
from ext3.device.copy_on_write import CopyOnWriteDevice, Event, RecordingDevice, play
from ext3.edit.filesystem import WritableFilesystem
from ext3.format.group_desc_columns import read_group_columns
from ext3.resize import ResizePlan

from .recorded_edits import state
from .sessions import clock
from .tools import run

__all__ = [
    "aged_image",
    "cuts",
    "fill",
    "findings_of",
    "judge_by_e2fsck",
    "judge_cut",
    "late_journal",
    "made_by_mke2fs",
    "record_resize",
    "resize",
    "write_out",
]


SAFE = ("block-bitmap", "group-free-blocks", "free-blocks", "journal-inode-backup")
"""Findings that an interruption may leave: blocks that belong to nobody, and an old copy of the journal's inode."""


def fill(fs: WritableFilesystem, seed: int, *, files: int = 60, largest: int = 60_000) -> None:
    """Fill an image with directories, an indexed one among them, files with and without holes, links, symlinks, attributes."""
    generator = random.Random(seed)
    fs.mkdir("/many")
    directories = [b""]
    for number in range(files // 6):
        parent = generator.choice(directories)
        directories.append(parent + b"/d%d" % number)
        fs.mkdir(directories[-1])
    for number in range(files):
        path = generator.choice(directories) + b"/f%d" % number
        fs.write_bytes(path, generator.randbytes(generator.choice([0, 10, 3000, largest])))
        fs.write_bytes(b"/many/%d-" % number + b"n" * 80, b"x" * number)
        if number % 7 == 0:
            fs.set_xattr(path, b"user.large", generator.randbytes(600))
        if number % 9 == 0:
            fs.link(path, b"/many/link%d" % number)
        if number % 11 == 0:
            fs.symlink(b"t" * (20 if number % 2 else 300), path + b".link")
        if number % 13 == 0:
            handle = fs.open_file(path, "r+")
            handle.write_at(900_000, b"behind a hole" * 300)
            handle.close()


def aged_image(
    size: int, *, block_size: int = 1024, inode_size: int = 256, journal: bool = True, seed: int = 1, files: int = 60
) -> MemoryDevice:
    """Return an image in which half of what was written is deleted again, and more is written."""
    from .sessions import empty_image

    device = empty_image(size, block_size=block_size, inode_size=inode_size, journal=journal)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fill(fs, seed, files=files)
        fs.sync()
        generator = random.Random(seed)
        for path, entry in list(fs.walk("/")):
            if entry.file_type == ext3.constants.FileType.REGULAR and generator.random() < 0.5:
                fs.unlink(path)
        fs.sync()
        fs.mkdir("/second")
        for number in range(files // 4):
            fs.write_bytes(b"/second/%d" % number, generator.randbytes(generator.choice([100, 90_000])))
    return device


def resize(device: BlockDevice, size: int) -> ResizePlan:
    """Resize an image, the device with it. Return the plan."""
    plan = ext3.resize.prepare(device).plan(size)
    ext3.resize.apply(device, plan, device_bytes=size, clock=clock)
    return plan


def findings_of(device: BlockDevice) -> list[str]:
    """What our own check finds."""
    report = ext3.fsck.check(device, ext3.CheckOnly(), options=ext3.CheckOptions(force=True))
    return [f"{finding.code}: {finding.message}" for finding in report.findings]


def record_resize(device: MemoryDevice, size: int) -> tuple[bytes, list[Event]]:
    """Resize an image. Return its bytes before, and what happened to it."""
    before = bytes(device.data)
    recorded = RecordingDevice(device)
    resize(recorded, size)
    return before, recorded.events


def cuts(before: bytes, events: list[Event], seed: int) -> Iterator[tuple[str, CopyOnWriteDevice]]:
    """Yield (description, what is left) after each event, and with the last write torn or some of the loose ones lost."""
    generator = random.Random(seed)
    base = MemoryDevice(before)
    done = CopyOnWriteDevice(base)
    last_sync = 0
    for end, event in enumerate(events, 1):
        if event.kind == "sync":
            last_sync = end
            continue
        loose = events[last_sync:end]
        synced = play(base, events[:last_sync]) if len(loose) > 1 or event.size > 512 else None
        done = play(done, [event]) if end % 50 else play(base, events[:end])
        yield f"{end}: {event.kind}", play(done, [])
        if event.kind == "write" and event.size > 512 and synced is not None and (len(loose) == 1 or generator.random() < 0.5):
            sectors = -(-event.size // 512)
            torn = sorted(generator.sample(range(sectors), generator.randrange(1, sectors)))
            yield f"{end}: torn", play(synced, loose, torn=torn)
        elif len(loose) > 1 and synced is not None:
            kept = [some for some in loose if some.kind == "size" or generator.random() < 0.5]
            if all(some.kind != "size" for some in kept):
                generator.shuffle(kept)
            yield f"{end}: reordered", play(synced, kept)


def judge_cut(left: CopyOnWriteDevice, states: set[str]) -> tuple[int, bool]:
    """Judge what an interruption left by our own tools: opened for writing, and finished, it is sound, with the same content.

    Return its blocks, and whether it has a resize inode, after that.
    """
    dirty = ext3.format.superblock.read_superblock(left).needs_recovery
    with ext3.Filesystem.open(left, "r+", clock=clock):
        pass
    ext3.resize.finish(left, clock=clock)
    found = findings_of(left)
    assert not [text for text in found if not text.startswith(SAFE)], found
    assert not [text for text in found if text.startswith("block-bitmap") and "+" in text], found
    assert backups_are_current(left)
    if found:  # the replay of a journal hides what says so, and there is no backup to say it
        assert dirty
        assert not ext3.format.superblock.read_superblock(left).geometry.backup_groups
        report = ext3.fsck.check(left, ext3.Preen(), options=ext3.CheckOptions(force=True))
        assert report.stopped is None
        assert not findings_of(left)
    assert state(left) in states
    superblock = ext3.format.superblock.read_superblock(left)
    assert superblock.size_bytes <= left.size
    return superblock.blocks_count, superblock.geometry.resize_inode


def backups_are_current(device: BlockDevice) -> bool:
    """Whether all backups of the superblock, and of the descriptors, say what the primary ones say."""
    superblock = ext3.format.superblock.read_superblock(device)
    geometry, size = superblock.geometry, superblock.block_size
    groups = read_group_columns(device, superblock)
    for group in geometry.backup_groups:
        copy = ext3.format.superblock.read_superblock(device, block=geometry.first_block(group), block_size=size)
        if copy.geometry != geometry or copy.group_number != group:
            return False
        if group in geometry.leading_backup_groups and geometry.leading_descriptor_blocks == geometry.descriptor_blocks:
            found = read_group_columns(device, superblock, copy=group)
            if any((found[name] != groups[name]).any() for name in ext3.format.group_desc.LOCATIONS):
                return False
    return True


def write_out(device: BlockDevice, path: Path) -> None:
    """Write an image to a file, without its holes."""
    with path.open("wb") as file:
        file.truncate(device.size)
        for start, length in data_ranges(device, 0, device.size):
            for at in range(start, start + length, 1 << 16):
                piece = device.read(at, min(1 << 16, start + length - at))
                if piece.count(0) < len(piece):
                    file.seek(at)
                    file.write(piece)


def judge_by_e2fsck(left: BlockDevice, path: Path) -> str:
    """Let e2fsck preen what an interruption left, which must be enough. Return the digest of its content afterwards."""
    write_out(left, path)
    run("e2fsck", "-p", "-f", path, ok=(0, 1))
    done = run("e2fsck", "-fn", path, ok=range(256))
    text = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
    assert not done.returncode and "Fix?" not in text and "wrong" not in text, text
    with path.open("rb") as file:
        return state(ext3.FileDevice(file.fileno()))


def made_by_mke2fs(path: Path, options: list[str], size: int) -> MemoryDevice:
    """Return an image of mke2fs, with a small journal and with files of ours."""
    with path.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-J", "size=4" if "4096" in options else "size=1", *options, path)
    device = MemoryDevice(path.read_bytes())
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fill(fs, 1, files=30)
    return device


def late_journal(path: Path, size: int) -> MemoryDevice:
    """Return an image whose journal lies behind its middle, and whose files before it."""
    with path.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024", path)
    device = MemoryDevice(path.read_bytes())
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fill(fs, 3, files=30)
        fs.write_bytes("/space", bytes(8 << 20))
        fs.write_bytes("/more", b"m" * (5 << 20))
    path.write_bytes(device.data)
    run("tune2fs", "-J", "size=1", path)
    device = MemoryDevice(path.read_bytes())
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.unlink("/space")
        fs.truncate("/more", 100_000)
    return device
