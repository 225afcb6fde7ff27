"""Content of files: blocks, holes, the rest in a fragment; which blocks are read for which bytes."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sifkit.squashfs.errors import CorruptSquashfsError
from sifkit.squashfs.file_data import MAX_RANGES, SEGMENT, BlockList
from sifkit.squashfs.source import FileWindow

from ....support.squashfs_data import DATA_START, HandMadeFile, MemorySource

BLOCK = 4096


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that compress a little, and differ everywhere."""
    numbers = random.Random(seed)
    return b"".join(b"%06d " % numbers.randrange(10**6) for _ in range(size // 7 + 1))[:size]


@st.composite
def files(draw: st.DrawFn) -> HandMadeFile:
    size = draw(st.integers(0, 9 * BLOCK))
    numbers = st.sets(st.integers(0, 9))
    return HandMadeFile(
        noise(size),
        holes=draw(numbers),
        stored=draw(numbers),
        fragment_at=draw(st.none() | st.integers(0, 40)) if 0 < size % BLOCK < BLOCK - 50 else None,
        fragment_stored=draw(st.booleans()),
        list_offset=draw(st.integers(0, 9000)),
    )


@settings(max_examples=80, deadline=None)
@given(files(), st.lists(st.tuples(st.integers(0, 10 * BLOCK), st.integers(0, 10 * BLOCK)), max_size=8))
def test_reads_give_the_content(made: HandMadeFile, reads: list[tuple[int, int]]) -> None:
    with made.open() as file:
        assert file.size == len(made.content)
        for offset, size in [*reads, (0, file.size), (file.size, 1), (0, 0)]:
            want = bytes(made.content[offset : offset + size])
            assert file.read_at(offset, size) == want
            buffer = bytearray(size)
            assert file.read_into(offset, buffer) == len(want)
            assert buffer[: len(want)] == want
        ranges = file.data_ranges()
        ends = [start + length for start, length in ranges]
        assert all(end < start for end, (start, _) in zip(ends, ranges[1:], strict=False))
        covered = bytearray(len(made.content))
        for start, length in ranges:
            assert length > 0
            covered[start : start + length] = made.content[start : start + length]
        assert covered == made.content
        assert file.has_holes == (0 in made.words)


def test_random_access_decompresses_the_blocks_it_touches_and_no_others() -> None:
    made = HandMadeFile(noise(20 * BLOCK + 100), fragment_at=7)
    source = MemorySource(made.image)
    file = made.open(source)
    file.read_at(0, 1)
    source.reads.clear()
    assert file.read_at(7 * BLOCK - 1, 2) == made.content[7 * BLOCK - 1 : 7 * BLOCK + 1]
    assert [at for at, _ in source.reads] == [made.starts[6], made.starts[7]]
    source.reads.clear()
    assert file.read_at(6 * BLOCK + 5, 1000) == made.content[6 * BLOCK + 5 :][:1000]
    assert source.reads == []
    assert file.read_at(20 * BLOCK + 3, 10) == made.content[20 * BLOCK + 3 :][:10]
    assert [at for at, _ in source.reads] == [made.fragment.start]
    source.reads.clear()
    assert file.read_at(8 * BLOCK, 10 * BLOCK) == made.content[8 * BLOCK : 18 * BLOCK]
    assert [at for at, _ in source.reads] == [made.starts[8]]


def test_threads_read_one_file_side_by_side() -> None:
    made = HandMadeFile(noise(40 * BLOCK + 100), holes=(3, 4), stored=(7,), fragment_at=5)
    file = made.open(cache_bytes=3 * BLOCK)
    wrong: list[tuple[int, int]] = []

    def read(seed: int) -> None:
        numbers = random.Random(seed)
        for _ in range(200):
            offset, size = numbers.randrange(41 * BLOCK), numbers.choice((10, 5000, 40_000))
            if file.read_at(offset, size) != made.content[offset : offset + size]:
                wrong.append((offset, size))

    threads = [threading.Thread(target=read, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_negative_offset_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="no byte -1"):
        HandMadeFile(b"abc").open().read_at(-1, 1)


@pytest.mark.parametrize("offset", (0, 1, 8190))
def test_block_list_of_several_segments(offset: int) -> None:
    """Its words lie across metadata blocks wherever the list begins."""
    count = 3 * SEGMENT + 5
    made = HandMadeFile(bytes(BLOCK * count), holes=set(range(count)) - {0, SEGMENT, 3 * SEGMENT + 4}, list_offset=offset)
    file = made.open()
    blocks = BlockList(file._reader.inodes.table, made.inode)
    order = [3 * SEGMENT + 4, 0, 2 * SEGMENT - 1, SEGMENT, 2 * SEGMENT, 1]
    for number in order:
        assert blocks.at(number) == (made.starts[number], made.words[number])
    assert [word for _, words, _ in blocks.segments() for word in words] == made.words
    assert file.data_ranges() == [(0, BLOCK), (SEGMENT * BLOCK, BLOCK), ((3 * SEGMENT + 4) * BLOCK, BLOCK)]


def test_more_ranges_than_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_RANGES > 1000
    monkeypatch.setattr("sifkit.squashfs.file_data.MAX_RANGES", 3)
    made = HandMadeFile(noise(20 * BLOCK), holes=range(1, 20, 2))
    ranges = made.open().data_ranges()
    assert ranges == [(0, BLOCK), (2 * BLOCK, BLOCK), (4 * BLOCK, BLOCK), (6 * BLOCK, 14 * BLOCK)]


@pytest.mark.parametrize("fragment_at", (None, 0, 9))
def test_uncompressed_data_is_in_ranges_of_the_host(tmp_path: Path, fragment_at: int | None) -> None:
    content = noise(6 * BLOCK + 77)
    made = HandMadeFile(content, holes=(2, 3), stored=range(9), fragment_at=fragment_at, fragment_stored=True)
    path = tmp_path / "image"
    path.write_bytes(b"before" + made.image)
    with path.open("rb") as file:
        fd = file.fileno()
        opened = made.open(FileWindow(fd, 6))
        ranges = opened.host_ranges()
        assert ranges is not None
        assert len(ranges) == (3 if fragment_at else 2)
        rebuilt = bytearray(len(content))
        for offset, source, at, length in ranges:
            assert source == fd
            rebuilt[offset : offset + length] = os.pread(fd, length, at)
        assert rebuilt == made.content


@pytest.mark.parametrize("options", ({}, {"stored": [0]}, {"stored": range(9), "fragment_at": 3}))
def test_compressed_data_is_in_no_ranges_of_the_host(tmp_path: Path, options: dict[str, object]) -> None:
    made = HandMadeFile(noise(2 * BLOCK + 5), **options)  # type: ignore[arg-type]
    path = tmp_path / "image"
    path.write_bytes(made.image)
    with path.open("rb") as file:
        assert made.open(FileWindow(file.fileno())).host_ranges() is None
    stored = HandMadeFile(noise(BLOCK), stored=range(9))
    assert stored.open().host_ranges() is None, "it is in memory"


def test_ranges_of_the_host_do_not_leave_the_image(tmp_path: Path) -> None:
    made = HandMadeFile(noise(2 * BLOCK), stored=range(9))
    path = tmp_path / "image"
    path.write_bytes(made.image + b"what others have in the same file" * 1000)
    made.inode = made.inode._replace(start_block=len(made.image) - 10)
    with path.open("rb") as file:
        opened = made.open(FileWindow(file.fileno()))
        assert opened.host_ranges() is None
        with pytest.raises(CorruptSquashfsError, match=r"data block at byte \d+: end is "):
            opened.read_at(0, 10)


def test_block_of_another_length_is_damage() -> None:
    made = HandMadeFile(noise(3 * BLOCK), stored=(1,))
    made.words[1] -= 1
    short = HandMadeFile(noise(3 * BLOCK), stored=(1,))
    short.image = short.image[: short.data_end] + _list_of(made.words)
    with pytest.raises(CorruptSquashfsError, match=f"at byte {short.starts[1]}: uncompressed size is 4095, want 4096"):
        short.open().read_at(BLOCK, 10)


def test_fragment_that_is_too_short_is_damage() -> None:
    made = HandMadeFile(noise(100), fragment_at=10)
    made.inode = made.inode._replace(fragment_offset=50)
    with pytest.raises(CorruptSquashfsError, match=f"at byte {DATA_START}: uncompressed size is 116, want at least 150"):
        made.open().read_at(0, 100)


def test_file_whose_rest_is_nowhere_is_damage() -> None:
    made = HandMadeFile(noise(100), fragment_at=10)
    made.inode = made.inode._replace(fragment_index=None)
    with pytest.raises(CorruptSquashfsError, match="inode 1: blocks is 0, want as many as its size needs"):
        made.open().read_at(0, 100)


def test_block_list_behind_the_end_of_its_table_is_damage() -> None:
    made = HandMadeFile(noise(3 * BLOCK))
    made.inode = made.inode._replace(block_count=10**9, size=10**9 * BLOCK)
    file = made.open()
    with pytest.raises(CorruptSquashfsError):
        file.read_at(10**11, 5)
    with pytest.raises(CorruptSquashfsError):
        file.data_ranges()


def _list_of(words: list[int]) -> bytes:
    raw = b"".join(word.to_bytes(4, "little") for word in words)
    return (len(raw) | 0x8000).to_bytes(2, "little") + raw
