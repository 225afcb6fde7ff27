"""Check of a whole image: every table, inode, directory, block and fragment is read, and has to agree with the others.

It finds what makes a part of the image unreadable, and disagreements that readers do not notice. Checksums are the codecs' own:
gzip and xz have them, the others not, and blocks stored uncompressed have none; bytes changed there look like other data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .block_threads import MAX_THREADS, usable_processors
from .check_data import check_data
from .check_report import CheckReport, Severity, SquashfsProblem, SquashfsProblemCode
from .check_tables import check_exports, check_tables
from .check_tree import check_tree
from .reader import Reader

__all__ = ["CheckedSquashfs", "SquashfsProblem", "SquashfsProblemCode", "check_squashfs"]

SECTOR, PADDING = 512, 4096
"""Bytes that a block device has multiples of; to multiples of the other images are padded by the tools that make them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedSquashfs:
    """Numbers of what was read. ``inodes``: those reached from the root, of which ``directories`` and ``files`` (regular ones).
    ``blocks``: of data, fragments included."""

    inodes: int
    directories: int
    files: int
    blocks: int
    errors: int
    warnings: int


def check_squashfs(
    reader: Reader,
    *,
    on_problem: Callable[[SquashfsProblem], None],
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> CheckedSquashfs:
    """Check an image that could be opened. What is wrong goes to ``on_problem``, and the check goes on.

    ``progress`` is called with the bytes of the image read since its last call; together they are about its ``bytes_used``.
    Neither is called by two threads at once. ``threads`` None: as many as there are processors, four at most. Memory grows with
    the number of inodes (about 20 bytes each), not with their content.
    """
    report = CheckReport(on_problem, progress or _ignore)
    _check_padding(reader, report)
    tables = check_tables(reader, report)
    tree = check_tree(reader, tables, report)
    check_exports(reader, tree.references, report)
    threads = min(MAX_THREADS, usable_processors()) if threads is None else threads
    blocks = check_data(reader, tree, report, threads=threads, data_start=tables.data_start)
    return CheckedSquashfs(
        inodes=tree.inodes,
        directories=tree.directories,
        files=tree.files,
        blocks=blocks,
        errors=report.errors,
        warnings=report.warnings,
    )


def _check_padding(reader: Reader, report: CheckReport) -> None:
    """Find an image that was cut behind its last byte, in the zeros that make it whole sectors: the kernel reads no others."""
    used, size = reader.superblock.bytes_used, reader.source.size
    padded = -(-used // PADDING) * PADDING
    if used < size < padded and size % SECTOR:
        whole = size // SECTOR * SECTOR
        fails = whole < used
        text = f"the image ends at byte {size}, inside a sector" + ": the kernel cannot mount it" * fails
        severity: Severity = "error" if fails else "warning"
        report.add(SquashfsProblem(SquashfsProblemCode.TRUNCATED, text, offset=size, severity=severity))


def _ignore(_: int) -> None:
    pass
