"""Decompressors of squashfs: whole blocks, limits, damage, missing packages."""

from __future__ import annotations

import errno
import lzma
import random
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Callable

import deflate
import lz4.block
import pytest
import zstandard
from lzallright import LZOCompressor

from sifkit.squashfs.codecs import COMPRESSORS, decompressor
from sifkit.squashfs.errors import CorruptSquashfsError, MissingCodecError, UnsupportedSquashfsError

GZIP, LZMA, LZO, XZ, LZ4, ZSTD = range(1, 7)
BLOCK = 1 << 17


def as_mksquashfs_lzma(data: bytes) -> bytes:
    """An lzma stream with both its size and a marker of its end."""
    stream = lzma.compress(data, lzma.FORMAT_ALONE)
    return stream[:5] + len(data).to_bytes(8, "little") + stream[13:]


def xz_with_filter(data: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "dict_size": BLOCK}]
    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


COMPRESS: dict[int, Callable[[bytes], bytes]] = {
    GZIP: zlib.compress,
    LZMA: as_mksquashfs_lzma,
    LZO: lambda data: LZOCompressor().compress(data),
    XZ: xz_with_filter,
    LZ4: lambda data: lz4.block.compress(data, store_size=False),
    ZSTD: zstandard.compress,
}
EACH = pytest.mark.parametrize("number", COMPRESS, ids=COMPRESSORS.values())
CHECKED = pytest.mark.parametrize("number", (GZIP, XZ), ids=("gzip", "xz"))
"""Compressors whose data has a checksum."""


def text(size: int) -> bytes:
    numbers = random.Random(size)
    return b" ".join(b"%d" % numbers.randrange(5000) for _ in range(size // 3 + 1))[:size]


@EACH
@pytest.mark.parametrize("size", (1, 4096, BLOCK))
def test_block_is_decompressed_from_bytes_and_from_a_view(number: int, size: int) -> None:
    data = text(size)
    stored = COMPRESS[number](data)
    found = decompressor(number)(stored, BLOCK)
    assert type(found) is bytes and found == data
    assert decompressor(number)(memoryview(b"..." + stored)[3:], size) == data


@EACH
def test_block_larger_than_the_limit_is_damage(number: int) -> None:
    stored = COMPRESS[number](text(5000))
    with pytest.raises(CorruptSquashfsError) as caught:
        decompressor(number)(stored, 4999)
    assert caught.value.errno == errno.EUCLEAN
    assert len(decompressor(number)(stored, 5000)) == 5000


@EACH
def test_truncated_block_is_damage_wherever_it_is_cut(number: int) -> None:
    inflate = decompressor(number)
    data = text(900)
    stored = COMPRESS[number](data)
    for size in range(len(stored)):
        try:
            found = inflate(stored[:size], BLOCK)
        except CorruptSquashfsError:
            continue
        if number == LZ4:  # a block is any sequence of tokens: what is missing is missing from the end
            assert len(found) < len(data)
        else:  # the marker of the end is not needed: the header has the size
            assert number == LZMA and found == data


@CHECKED
def test_every_changed_bit_is_found_where_there_is_a_checksum(number: int) -> None:
    inflate = decompressor(number)
    data = text(200)
    stored = COMPRESS[number](data)
    for bit in range(8 * len(stored)):
        changed = bytearray(stored)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert inflate(bytes(changed), BLOCK) == data  # a bit without a meaning
        except CorruptSquashfsError:
            continue


@EACH
def test_random_changes_give_data_or_a_typed_error(number: int) -> None:
    inflate = decompressor(number)
    stored = COMPRESS[number](text(600))
    numbers = random.Random(number)
    for _ in range(400):
        changed = bytearray(stored)
        for _ in range(numbers.randrange(1, 4)):
            changed[numbers.randrange(len(changed))] = numbers.randrange(256)
        try:
            assert len(inflate(bytes(changed), 4096)) <= 4096
        except CorruptSquashfsError as error:
            assert str(error)


@EACH
@pytest.mark.parametrize("data", (b"", b"\0", b"\xff" * 64), ids=("empty", "zero", "ones"))
def test_what_is_no_stream_is_damage(number: int, data: bytes) -> None:
    if number == LZ4 and data == b"\0":  # the token of no literals and no match
        assert decompressor(number)(data, BLOCK) == b""
        return
    with pytest.raises(CorruptSquashfsError):
        decompressor(number)(data, BLOCK)


@pytest.mark.parametrize("number", (GZIP, XZ, LZMA, LZ4, ZSTD), ids=("gzip", "xz", "lzma", "lz4", "zstd"))
def test_a_block_that_expands_without_end_takes_no_more_memory_than_the_limit(number: int) -> None:
    stored = COMPRESS[number](bytes(16 << 20))
    inflate = decompressor(number)
    with pytest.raises(CorruptSquashfsError):
        inflate(stored, BLOCK)
    tracemalloc.start()
    with pytest.raises(CorruptSquashfsError):
        inflate(stored, BLOCK)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * BLOCK


def test_zstd_frame_that_claims_a_huge_size_is_refused_before_it_is_allocated() -> None:
    frame = b"\x28\xb5\x2f\xfd\xe0" + (1 << 50).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(CorruptSquashfsError, match="uncompressed size"):
        decompressor(ZSTD)(frame, BLOCK)


def test_xz_dictionary_of_gigabytes_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3, "nice_len": 4}]
    small = lzma.compress(b"a", lzma.FORMAT_XZ, filters=[{**filters[0], "dict_size": 1 << 16}])
    at = small.index(0x21, 12) + 2  # identifier and size of the properties of lzma2, then the dictionary's size
    head = bytearray(small[12:24])
    head[at - 12] = 36  # 1 GiB
    head[8:12] = zlib.crc32(head[:8]).to_bytes(4, "little")
    with pytest.raises(CorruptSquashfsError):
        decompressor(XZ)(small[:12] + bytes(head) + small[24:], BLOCK)


@EACH
def test_threads_share_one_decompressor(number: int) -> None:
    inflate = decompressor(number)
    blocks = [text(size) for size in range(20000, 20040)]
    stored = [COMPRESS[number](data) for data in blocks]
    wrong = []

    def work() -> None:
        wrong.extend(data for data, packed in zip(blocks, stored, strict=True) if inflate(packed, BLOCK) != data)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_gzip_is_the_same_with_and_without_libdeflate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert deflate.zlib_decompress
    fast = decompressor(GZIP)
    monkeypatch.setitem(sys.modules, "deflate", None)
    plain = decompressor(GZIP)
    assert fast is not plain
    for data in (text(BLOCK), bytes(BLOCK), b"x"):
        for level in (0, 1, 9):
            stored = zlib.compress(data, level)
            assert fast(stored, BLOCK) == plain(stored, BLOCK) == data


@pytest.mark.parametrize(("number", "module"), ((LZO, "lzallright"), (LZ4, "lz4.block"), (ZSTD, "zstandard")))
def test_missing_package_names_the_extra(number: int, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingCodecError) as caught:
        decompressor(number)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert caught.value.message == f"{COMPRESSORS[number]} needs the Python package {module.partition('.')[0]}"
    assert caught.value.hint == "pip install 'sifkit[codecs]'"


@pytest.mark.parametrize("number", (0, 7, 65535))
def test_unknown_compressor_is_unsupported(number: int) -> None:
    with pytest.raises(UnsupportedSquashfsError, match=f"compressor {number} is not supported"):
        decompressor(number)
