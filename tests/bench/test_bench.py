"""Benchmarks: run with ``pytest tests/bench --benchmark-enable``; without it each runs once, as a test.

No test asserts a time. tools/bench.py compares whole processes on large trees and prints ratios.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import ext3
from ext3.format.geometry import plan_geometry
from ext3.newfs.builder import TreeBuilder
from ext3.newfs.image import plan_tree
from ext3.newfs.plan import ImageOptions
from ext3.newfs.stamp import Stamp
from ext3.newfs.tree import Tree
from ext3.scan.host_directory import ScanOptions, host_times, scan_directory

from ..support import trees
from ..support.tools import assert_clean, require, run

pytestmark = pytest.mark.slow

MIB = 1 << 20


@pytest.fixture(scope="session")
def medium(sample_session: Path) -> Path:
    """5,000 small files, 500 directories, and a few files of a megabyte."""
    tree = sample_session / "medium"
    trees.many_directories(tree / "directories", 500)
    trees.small_files(tree / "wide", 5000, length=300)
    for number in range(8):
        (tree / f"large-{number}").write_bytes(trees.pattern(MIB, number))
    return tree


def scan(tree: Path) -> Tree:
    builder = TreeBuilder()
    status = os.stat(tree)
    builder.add(0, b"", status.st_mode, status.st_uid, status.st_gid, 0, host_times(status))
    return builder.finish(scan_directory(builder, os.fsencode(tree), 0, ScanOptions()))


@pytest.mark.benchmark(group="empty 500M")
def test_empty_by_mkfs(benchmark: BenchmarkFixture, scratch: Path) -> None:
    image = scratch / "image.img"

    def make() -> None:
        image.unlink(missing_ok=True)
        ext3.mkfs(image, 500 * MIB)

    benchmark(make)
    assert image.stat().st_size == 500 * MIB


@pytest.mark.benchmark(group="empty 500M")
def test_empty_by_mke2fs(benchmark: BenchmarkFixture, scratch: Path) -> None:
    require("mke2fs")
    image = scratch / "image.img"

    def make() -> None:
        image.unlink(missing_ok=True)
        run("mke2fs", "-q", "-F", "-t", "ext3", "-m", "0", image, "500M")

    benchmark(make)
    assert image.stat().st_size == 500 * MIB


@pytest.mark.benchmark(group="geometry")
def test_geometry_of_a_terabyte(benchmark: BenchmarkFixture) -> None:
    assert benchmark(plan_geometry, 1 << 40).groups == 8192


@pytest.mark.benchmark(group="medium tree")
def test_scan(benchmark: BenchmarkFixture, medium: Path) -> None:
    assert len(benchmark(scan, medium)) > 6000


@pytest.mark.benchmark(group="medium tree")
def test_plan(benchmark: BenchmarkFixture, medium: Path) -> None:
    tree = scan(medium)
    plan = benchmark(lambda: plan_tree(tree, ImageOptions(), Stamp.now()))
    assert plan.free_blocks > 0


@pytest.mark.benchmark(group="medium tree")
def test_scan_plan_and_emit(benchmark: BenchmarkFixture, medium: Path, scratch: Path) -> None:
    image = scratch / "image.img"

    def make() -> None:
        image.unlink(missing_ok=True)
        ext3.build_image(scan(medium), image)

    benchmark(make)
    assert image.stat().st_size >= 64 * MIB


@pytest.mark.benchmark(group="medium tree")
def test_mke2fs_on_it(benchmark: BenchmarkFixture, medium: Path, scratch: Path) -> None:
    require("mke2fs", "e2fsck")
    image = scratch / "image.img"

    def make() -> None:
        image.unlink(missing_ok=True)
        run("mke2fs", "-q", "-F", "-t", "ext3", "-m", "0", "-d", medium, image, "64M")

    benchmark.pedantic(make, rounds=2)  # type: ignore[no-untyped-call]
    assert_clean(image)
