"""Requests that make no sense: exit 2, the option by name, what it may be, and nothing scanned or written."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ext3
from sifkit.cli import main
from sifkit.errors import UsageError
from sifkit.overlay.creating.request import check_request, check_size
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions

M, G, T = 1 << 20, 1 << 30, 1 << 40


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["-b", "512"], "--block-size 512: must be 1024, 2048 or 4096;"),
        (["-b", "8K"], "--block-size 8192: must be 1024, 2048 or 4096;"),
        (["-I", "100"], "--inode-size 100: must be 128, 256, 512 or 1024;"),
        (["-I", "64"], "--inode-size 64: must be 128, 256, 512 or 1024;"),
        (["-I", "2048"], "--inode-size 2048: must be 128, 256, 512 or 1024 (blocks have 1024 bytes);"),
        (["-s", "1G", "-I", "8192"], "--inode-size 8192: must be 128, 256, 512, 1024, 2048 or 4096 (blocks have 4096 bytes);"),
        (["-i", "1"], "--inode-ratio 1 byte: must be from 1 KiB to 64 MiB"),
        (["-i", "100M"], "--inode-ratio 100 MiB: must be from 1 KiB to 64 MiB"),
        (["-m", "51"], "--reserved-percent 51: must be from 0 to 50;"),
        (["-N", "0"], "--inodes 0: must be from 1 to 4,294,967,295;"),
        (["-N", "4000M"], "--inodes 4,000,000,000: too many for 64 MiB, which holds at most "),
        (["-N", "100", "-i", "4096"], "--inodes and --inode-ratio contradict each other;"),
        (["-J", "size=1T"], "--journal size=1 TiB: must be from 1 MiB to 10,000 MiB with blocks of 1 KiB;"),
        (["-J", "size=1K"], "--journal size=1 KiB: must be from 1 MiB to 10,000 MiB with blocks of 1 KiB;"),
        (["-J", "size=2M", "-b", "4096"], "--journal size=2 MiB: must be from 4 MiB to 40,000 MiB with blocks of 4 KiB;"),
        (["-J", "size=1T", "-d", "src"], "--journal size=1 TiB: must be from 1 MiB to 40,000 MiB;"),
        (["-J", "size=8M", "-s", "4M"], "--journal size=8 MiB: takes more than half of an image of 4 MiB;"),
        (["-i", "1024", "-I", "1024"], "--inode-ratio 1 KiB: the inodes leave no space in 64 MiB;"),
        (["-b", "4096", "-I", "4096"], "--inode-size 4096: the inodes leave no space in 64 MiB;"),
        (["-s", "15T", "-N", "4294967295"], "--inodes 4,294,967,295: too many for 15 TiB, which holds at most "),
        (["-s", "3T", "-b", "1024"], "--block-size 1024: too small for 3 TiB: there would be too many groups;"),
        (["-s", "3T", "-b", "1024", "-I", "1024", "-N", "4G"], "--size 3 TiB: the inodes, blocks or journal do not fit;"),
        (["-J", "size=4M", "--no-journal"], "--no-journal and --journal contradict each other;"),
        (["-s", "1"], "--size 1 MiB: too small for an ext3 image with a journal; give at least --size 2M"),
        (["-s", "2M", "-b", "4K"], "--size 2 MiB: too small for an ext3 image with a journal; give at least --size 8M"),
        (["-s", "1K", "--no-journal"], "--size 1 KiB: too small for an ext3 image; give at least --size 1M"),
        (["-s", "100T"], "--size 100 TiB: ext3 with blocks of 4 KiB holds less than 16 TiB; choose a smaller size"),
        (["-s", "5T", "-b", "1K"], "--size 5 TiB: ext3 with blocks of 1 KiB holds less than 4 TiB; choose a smaller size, or"),
        (["--create-dir", "a/" + "x" * 256], "--create-dir xxxxxxxxxxxxxxxxxxxx...: a name of 256 bytes; ext3 allows 255;"),
        (["--create-dir", "a/../b"], "--create-dir a/../b: .. is not supported;"),
        (["--create-dir", "/"], "--create-dir /: names no directory;"),
        (["--create-dir", "x", "--layout", "data"], "--create-dir needs an upper/"),
        (["--exclude", "x"], "--exclude is for --from-dir;"),
        (["-x"], "--one-file-system is for --from-dir;"),
        (["--skip-unreadable", "--from-tar", "x"], "--skip-unreadable is for --from-dir;"),
        (["-d", "x", "--from-tar", "y"], "--from-dir and --from-tar exclude each other;"),
    ],
)
def test_usage_errors_of_create(capfd, tmp_path, monkeypatch, argv, says):
    monkeypatch.chdir(tmp_path)
    assert main(["overlay", "create", *argv]) == 2
    found = capfd.readouterr()
    assert found.out == "" and found.err.startswith(f"sifkit overlay create: {says}") and found.err.count("\n") == 1
    assert "; " in found.err.partition(says)[2] or says.endswith((";", "M", "choose a smaller size", "or")), "no hint"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "inodes", "inode_size"),
    [
        ({"inodes": 100, "profile": "conda"}, 128, 256),
        ({"inode_ratio": 8192, "profile": "conda"}, 8192, 256),
        ({"inode_size": 512}, 16384, 512),
        ({"inode_size": 1024}, 16384, 1024),
        ({"inode_size": 4096, "block_size": 4096, "inode_ratio": 65536}, 1024, 4096),
        ({"inode_size": 128}, 16384, 128),
    ],
)
def test_what_is_taken_is_made(tmp_path, options, inodes, inode_size):
    made = create(tmp_path / "o.img", CreateOptions(create_dirs=("opt/" + "x" * 255,), **options))
    assert (made.inodes, made.inode_size) == (inodes, inode_size)
    with ext3.Filesystem.open(tmp_path / "o.img") as fs:
        assert fs.stat(b"/upper/opt/" + b"x" * 255).is_dir and fs.superblock.inode_size == inode_size


def test_the_largest_count_named_is_taken():
    with pytest.raises(UsageError) as caught:
        check_size(CreateOptions(size=64 * M, inodes=1 << 31))
    most = int(str(caught.value).rpartition(" ")[2].replace(",", ""))
    check_size(CreateOptions(size=64 * M, inodes=most))
    with pytest.raises(UsageError):
        check_size(CreateOptions(size=64 * M, inodes=most + most // 500))


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({}, "--size"),
        ({"block_size": 4096}, "--size"),
        ({"block_size": 4096, "journal": False}, "--size"),
        ({"journal_bytes": 8 * M}, "--journal"),
        ({"inode_ratio": 1024}, "--size"),
        ({"inodes": 100, "inode_size": 512}, "--size"),
    ],
)
def test_the_smallest_size_named_is_taken(tmp_path, options, option):
    small = 32 << 10 if not options.get("journal", True) else 2 * M if option == "--journal" else M
    with pytest.raises(UsageError, match=option) as caught:
        check_size(CreateOptions(size=small, **options))
    size = int(caught.value.hint.partition("--size ")[2].partition("M")[0]) * M
    create(tmp_path / "o.img", CreateOptions(size=size, **options))
    if size > M:
        with pytest.raises(UsageError):
            check_size(CreateOptions(size=size - M, **options))


def test_a_large_journal_with_a_size_from_the_content(tmp_path):
    (tmp_path / "source").mkdir()
    made = create(tmp_path / "o.img", CreateOptions(from_dir=tmp_path / "source", journal_bytes=300 * M))
    assert (made.journal_bytes, made.block_size) == (300 * M, 4096)


numbers = st.integers(0, 70) | st.sampled_from([127, 128, 256, 1024, 4096, 65536, M, 64 * M, G, T, 2**32, 2**62])


@given(
    size=st.none() | st.integers(1, 40 * M) | st.sampled_from([512 * M, G, 3 * T, 16 * T - 4096, 16 * T, 2**62]),
    block_size=st.none() | st.sampled_from([1024, 2048, 4096]) | numbers,
    inode_size=st.sampled_from([128, 256, 512, 1024, 2048, 4096]) | numbers,
    inodes=st.none() | numbers,
    inode_ratio=st.none() | numbers,
    journal_bytes=st.none() | numbers | st.integers(1, 100).map(lambda count: count * M),
    reserved_percent=st.sampled_from([0.0, 5.0, 50.0, 51.0, -1.0, float("nan")]),
    from_dir=st.none() | st.just("src"),
)
def test_any_numbers_pass_or_are_a_usage_error(from_dir, **numbers_given):
    try:
        check_request(CreateOptions(from_dir=from_dir, **numbers_given))
        check_size(CreateOptions(from_dir=from_dir, **numbers_given))
    except UsageError as error:
        assert error.message.startswith("--") and error.hint and "\n" not in error.message
