"""Compressed archives: which of the stream and the archive in it is cut, corrupt or something else."""

from __future__ import annotations

import gzip
import io
import random
import sys
from pathlib import Path

import pytest
import zstandard

from sifkit.tar.codecs import CompressionError, PeekedFile, compression_of, decompressed
from sifkit.tar.errors import CompressedStreamError, NotTarError, TruncatedArchiveError
from tests.support.read_tar import read_tar, tar_error
from tests.support.tar_samples import END, PACKERS, SAMPLE, SKIPPABLE, Pipe, file


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
def test_compressed_data_that_is_cut_or_corrupt(packing: str, tmp_path: Path) -> None:
    codec = packing.split()[0]
    noise = random.Random(1).randbytes(200_000)
    packed = PACKED[packing](file(b"noise", noise) + END)
    path = tmp_path / "layer"
    path.write_bytes(packed)
    with read_tar(path) as got:
        assert got.data(b"noise") == noise
    # In the middle, and behind the end of the archive, where only the stream's own end is missing.
    for end in (40, len(packed) // 3, len(packed) // 2, len(packed) - 9, len(packed) - 5, len(packed) - 1):
        path.write_bytes(packed[:end])
        error = tar_error(path)
        assert isinstance(error, CompressedStreamError)
        assert (error.problem, error.compression) == ("truncated", codec)
        assert str(error).startswith(f"{path}: the {codec} stream is cut short (at byte ")
        stdin = Pipe(packed[:end])
        stdin.name = "<stdin>"
        error = tar_error(io.BufferedReader(stdin))
        assert isinstance(error, CompressedStreamError)
        assert error.problem == "truncated" and error.path == b"standard input"
    path.write_bytes(packed[:1000] + b"\xff" * 100 + packed[1100:])
    if packing not in ("zstd", "zstd streamed"):  # those have no checksum, and noise is packed as it is
        error = tar_error(path)
        assert isinstance(error, CompressedStreamError)
        assert error.problem == "corrupt" and f"the {codec} stream is corrupt: " in str(error)


@pytest.mark.parametrize("packing", PACKED)
def test_a_whole_stream_of_a_cut_archive(packing: str) -> None:
    for archive in (SAMPLE[:1200], SAMPLE[:4000]):
        error = tar_error(PACKED[packing](archive))
        assert isinstance(error, TruncatedArchiveError) and error.compression == packing.split()[0]
        assert "stream is whole, but the archive in it is truncated" in str(error)


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "nothing"), (b"rubbish" * 500, "something else"), (gzip.compress(SAMPLE), "gzip data"), (b"PK\3\4" * 500, "a zip")],
)
def test_compressed_rubbish(packing: str, data: bytes, says: str) -> None:
    error = tar_error(PACKED[packing](data))
    assert isinstance(error, NotTarError)
    assert f"is packed with {packing.split()[0]} and holds {says}" in str(error)


def test_every_cut_of_zstd_frames_is_an_error() -> None:
    whole = streamed_zstd(SAMPLE)
    frames = [len(SKIPPABLE), len(whole)]
    for end in range(1, len(whole)):
        source = PeekedFile(b"", io.BytesIO(whole[:end]))
        try:
            data = b"".join(decompressed("zstd", source))
        except CompressionError as error:
            assert "cut short" in str(error) and error.problem == "truncated"
            continue
        # Between two frames, or in the first bytes of one, which could as well be garbage behind the last.
        assert data in (b"", SAMPLE[: len(SAMPLE) // 2]) and end not in frames[1:]
    assert b"".join(decompressed("zstd", PeekedFile(whole[:5], io.BytesIO(whole[5:])))) == SAMPLE


def test_zstd_that_wants_too_much_memory() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    error = tar_error(packer.compress(SAMPLE) + packer.flush())
    assert isinstance(error, CompressedStreamError)
    assert error.problem == "memory" and error.offset is None and "too much memory" in str(error)


def test_zstd_without_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zstandard.compress(SAMPLE)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    error = tar_error(packed)
    assert isinstance(error, CompressedStreamError)
    assert str(error) == "archive: unpacking zstd needs the Python module zstandard" and error.problem == "module"


@pytest.mark.parametrize("packing", PACKED)
def test_the_first_bytes_say_which_it_is(packing: str) -> None:
    assert compression_of(PACKED[packing](SAMPLE)[:512]) == packing.split()[0]
    assert compression_of(SAMPLE) == compression_of(b"") == ""
