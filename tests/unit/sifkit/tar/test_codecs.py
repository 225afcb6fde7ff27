"""Packed archives: a stream that is cut, corrupt or holds something else is told from an archive that is."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path

import pytest
import zstandard

from sifkit.tar.codecs import PackingError, RawBytes, unpacked

from ..overlay.test_tar_source import END, PACKERS, SAMPLE, SKIPPABLE, Pipe, file, refused, scanned


def checked_zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def streamed_zstd(data: bytes) -> bytes:
    """As from a pipe: small blocks, no size in the header, a skippable frame before and a second frame behind."""
    first, second = zstandard.ZstdCompressor().compressobj(), zstandard.ZstdCompressor(level=1).compressobj()
    pieces = [SKIPPABLE]
    for at in range(0, len(data) // 2, 1000):
        pieces += (first.compress(data[at : min(at + 1000, len(data) // 2)]), first.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    return b"".join([*pieces, first.flush(), second.compress(data[len(data) // 2 :]), second.flush()])


PACKED = {**{name: PACKERS[name] for name in ("gzip", "xz", "bzip2", "zstd")}, "zstd checked": checked_zstd}
PACKED["zstd streamed"] = streamed_zstd


@pytest.mark.parametrize("packing", PACKED)
def test_packed_data_that_is_cut_or_corrupt(packing: str, tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(200_000)
    packed = PACKED[packing](file(b"noise", noise) + END)
    path = tmp_path / "layer"
    path.write_bytes(packed)
    with scanned(path) as got:
        assert got.data(b"/noise") == noise
    # In the middle, and behind the end of the archive, where only the packing's own end is missing.
    for end in (40, len(packed) // 3, len(packed) // 2, len(packed) - 9, len(packed) - 5, len(packed) - 1):
        path.write_bytes(packed[:end])
        error = refused(path)
        assert str(error).startswith(f"{path}: the {packing.split()[0]} stream is cut short (at byte ")
        assert error.hint == "fetch it again"
        stdin = Pipe(packed[:end])
        stdin.name = "<stdin>"
        error = refused(io.BufferedReader(stdin))
        assert str(error).startswith("standard input: ") and "send it again" in error.hint
    path.write_bytes(packed[:1000] + b"\xff" * 100 + packed[1100:])
    if packing not in ("zstd", "zstd streamed"):  # those have no checksum, and noise is packed as it is
        error = refused(path)
        assert f"the {packing.split()[0]} stream is corrupt: " in str(error) and error.hint == "fetch it again"


@pytest.mark.parametrize("packing", PACKED)
def test_a_whole_stream_of_a_cut_archive(packing: str) -> None:
    for archive in (SAMPLE[:1024], SAMPLE[:1200], SAMPLE[:4000]):
        error = refused(PACKED[packing](archive))
        assert "stream is whole, but the archive in it is truncated" in str(error) and "pack" in error.hint


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "nothing"), (b"rubbish" * 500, "something else"), (gzip.compress(SAMPLE), "gzip data"), (b"PK\3\4" * 500, "a zip")],
)
def test_packed_rubbish(packing: str, data: bytes, says: str) -> None:
    error = refused(PACKED[packing](data))
    assert f"is packed with {packing.split()[0]} and holds {says}" in str(error) and error.hint


def test_every_cut_of_zstd_frames_is_told() -> None:
    whole = streamed_zstd(SAMPLE)
    frames = [len(SKIPPABLE), len(whole)]
    for end in range(1, len(whole)):
        raw = RawBytes(b"", io.BytesIO(whole[:end]))  # type: ignore[arg-type]
        try:
            data = b"".join(unpacked("zstd", raw))
        except PackingError as error:
            assert "cut short" in str(error)
            continue
        # Between two frames, or in the first bytes of one, which could as well be garbage behind the last.
        assert data in (b"", SAMPLE[: len(SAMPLE) // 2]) and end not in frames[1:]
    assert b"".join(unpacked("zstd", RawBytes(whole[:5], io.BytesIO(whole[5:])))) == SAMPLE


def test_zstd_that_wants_too_much_memory() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    error = refused(packer.compress(SAMPLE) + packer.flush())
    assert "too much memory" in str(error) and "zstd -dc" in error.hint
