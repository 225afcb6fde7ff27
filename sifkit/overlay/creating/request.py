"""Validation of a request to create an image.

Single values are checked against the limits of ext3 before the source is read; their combination, which needs numpy, against a
filesystem of that size before anything is written.

A UsageError names the option as on the command line (``--inode-size 100``), its valid values, and a value that would work.
Limits: Linux ``Documentation/filesystems/ext4``; e2fsprogs ``misc/mke2fs.c``; for the journal ``JBD2_MIN_JOURNAL_BLOCKS`` and
the largest of mke2fs.
"""

from __future__ import annotations

from dataclasses import replace

from ext3.constants import LABEL_MAX, MAX_JOURNAL_BLOCKS, MIN_BLOCK_SIZE, MIN_INODE_SIZE, MIN_JOURNAL_BLOCKS
from ext3.defaults import default_block_size, default_journal_blocks
from ext3.errors import GeometryError

from ...errors import UsageError, counted, show
from ..options import RESERVED_BLOCKS, CreateOptions
from .layout import split_directory_path, split_prefix

__all__ = ["BLOCK_SIZES", "check_request", "check_size", "data_limit", "default_size"]

MIB, TIB = 1 << 20, 1 << 40
BLOCK_SIZES = (1024, 2048, 4096)
DEFAULT_INODE_SIZE = 256
MAX_INODE_RATIO = 64 * MIB
MAX_RESERVED_PERCENT = 50
SMALLEST_BYTES = 64 * MIB
"""Size of an empty image, and minimum for one whose size follows from the source."""
EMPTY_IMAGE_BLOCKS = 20
"""Blocks of an empty image: root directory, lost+found, upper/, work/, the maps of the journal and of the resize inode."""
SIZES_TRIED = 1024
"""Sizes tried, in MiB, to name the smallest that works."""


def default_size(options: CreateOptions) -> int | None:
    """Return the size of the image if it does not follow from the source: as requested, or of an empty image."""
    if options.size is None and options.from_dir is None and options.from_tar is None:
        return SMALLEST_BYTES
    return options.size


def data_limit(options: CreateOptions) -> int:
    """Return how many bytes of data are too many for any image of this request."""
    size = default_size(options)
    return 2**32 * (options.block_size or max(BLOCK_SIZES)) if size is None else size


def check_request(options: CreateOptions) -> None:
    """Raise UsageError for options that exclude each other, and for values that no ext3 filesystem can have."""
    _check_source(options)
    _check_numbers(options)
    if options.prefix is not None:
        _check_prefix(options, options.prefix)
    for path in options.create_dirs:
        split_directory_path(path)
    size = default_size(options)
    _check_journal(options, options.block_size if size is None else options.block_size or default_block_size(size))


def _check_source(options: CreateOptions) -> None:
    if options.from_dir is not None and options.from_tar is not None:
        raise UsageError("--from-dir and --from-tar exclude each other", hint="give one source")
    if options.from_dir is None:
        given = {
            "--exclude": options.exclude,
            "--one-file-system": options.one_file_system,
            "--skip-unreadable": options.skip_unreadable,
        }
        for option, value in given.items():
            if value:
                raise UsageError(f"{option} is for --from-dir", hint="give --from-dir, or leave it out")
    if options.layout == "data" and options.create_dirs:
        raise UsageError("--create-dir needs an upper/, which --layout data does not make", hint="leave one of them out")
    if options.inodes is not None and options.inode_ratio is not None:
        raise UsageError("--inodes and --inode-ratio contradict each other", hint="give one of them")
    if options.journal_bytes is not None and not options.journal:
        raise UsageError("--no-journal and --journal contradict each other", hint="give one of them")


def _check_prefix(options: CreateOptions, prefix: str) -> None:
    split_prefix(prefix)
    if options.from_dir is None and options.from_tar is None:
        hint = "give --from-dir or --from-tar; --create-dir makes an empty directory"
        raise UsageError("--prefix says where a source goes, and there is none", hint=hint)
    if options.layout in ("root", "data"):
        hint = f"leave out --layout, or put the source at {show(prefix)} of its own directory"
        raise UsageError(f"--prefix goes below upper/, which --layout {options.layout} leaves to the source", hint=hint)


def _check_numbers(options: CreateOptions) -> None:
    block_size, inode_size, ratio = options.block_size, options.inode_size, options.inode_ratio
    if block_size is not None and block_size not in BLOCK_SIZES:
        raise UsageError(f"--block-size {block_size}: must be 1024, 2048 or 4096", hint="leave it out to get the default")
    if block_size is None:
        size = default_size(options)
        block_size = default_block_size(size) if size is not None else max(BLOCK_SIZES)
    if inode_size & (inode_size - 1) or not MIN_INODE_SIZE <= inode_size <= block_size:
        fitting = [str(MIN_INODE_SIZE << power) for power in range(6) if MIN_INODE_SIZE << power <= block_size]
        raise UsageError(
            f"--inode-size {inode_size}: must be {', '.join(fitting[:-1])} or {fitting[-1]}"
            + (f" (blocks have {block_size} bytes)" if inode_size > block_size else ""),
            hint="leave it out to get the default",
        )
    if ratio is not None and not MIN_BLOCK_SIZE <= ratio <= MAX_INODE_RATIO:
        raise UsageError(
            f"--inode-ratio {_plain(ratio)}: must be from {_plain(MIN_BLOCK_SIZE)} to {_plain(MAX_INODE_RATIO)} for one inode",
            hint="the default is 16K; fewer bytes give more inodes",
        )
    if options.inodes is not None and not 0 < options.inodes < 2**32:
        raise UsageError(f"--inodes {options.inodes}: must be from 1 to {2**32 - 1:,}", hint="leave it out to get the default")
    if options.reserved_percent is not None and not 0 <= options.reserved_percent <= MAX_RESERVED_PERCENT:
        raise UsageError(
            f"--reserved-percent {options.reserved_percent:g}: must be from 0 to {MAX_RESERVED_PERCENT}",
            hint="an overlay needs one block: leave it out",
        )
    if len(options.label) > LABEL_MAX:
        raise UsageError(f"--label: {len(options.label)} bytes; a label has at most {LABEL_MAX}", hint="choose a shorter one")


def _check_journal(options: CreateOptions, block_size: int | None) -> None:
    """Check the journal size; without a block size against the limits of all block sizes."""
    wanted = options.journal_bytes
    if wanted is None:
        return
    least = MIN_JOURNAL_BLOCKS * (block_size or min(BLOCK_SIZES))
    most = MAX_JOURNAL_BLOCKS * (block_size or max(BLOCK_SIZES))
    if not least <= wanted <= most:
        blocks = f" with blocks of {_plain(block_size)}" if block_size else ""
        raise UsageError(
            f"--journal size={_plain(wanted)}: must be from {_plain(least)} to {_plain(most)}{blocks}",
            hint="leave it out to get the default",
        )


def check_size(options: CreateOptions) -> None:
    """Raise UsageError if there is no filesystem of the requested size with the other values."""
    size = default_size(options)
    if size is None:
        return  # follows from the source
    block_size = options.block_size or default_block_size(size)
    if size // block_size >= 2**32:
        limit = _plain(2**32 * block_size)
        larger = "" if block_size == max(BLOCK_SIZES) else ", or leave out --block-size"
        raise UsageError(
            f"--size {_plain(size)}: ext3 with blocks of {_plain(block_size)} holds less than {limit}",
            hint="choose a smaller size" + larger,
        )
    if _fits(options, size):
        return
    if options.inodes is not None and _fits(replace(options, inodes=None), size):
        most = _most_inodes(options, size)
        raise UsageError(
            f"--inodes {options.inodes:,}: too many for {_plain(size)}, which holds at most {most:,}",
            hint="give fewer, or a larger --size",
        )
    if options.inode_ratio is not None and _fits(replace(options, inode_ratio=None), size):
        text = f"--inode-ratio {_plain(options.inode_ratio)}: the inodes leave no space in {_plain(size)}"
        raise UsageError(text, hint="give more bytes for one inode, or a larger --size")
    if options.inode_size > DEFAULT_INODE_SIZE and _fits(replace(options, inode_size=DEFAULT_INODE_SIZE), size):
        text = f"--inode-size {options.inode_size}: the inodes leave no space in {_plain(size)}"
        raise UsageError(text, hint=f"leave it out to get {DEFAULT_INODE_SIZE}, or give fewer with --inodes")
    if options.block_size is not None and _fits(replace(options, block_size=None), size) and size > TIB:
        text = f"--block-size {options.block_size}: too small for {_plain(size)}: there would be too many groups"
        raise UsageError(text, hint="leave it out to get the default")
    least = next((mib for mib in range(size // MIB + 1, size // MIB + SIZES_TRIED) if _fits(options, mib * MIB)), None)
    enough = f"at least --size {least}M" if least is not None else "a larger --size"
    if options.journal_bytes is not None and _fits(replace(options, journal_bytes=None), size):
        raise UsageError(
            f"--journal size={_plain(options.journal_bytes)}: takes more than half of an image of {_plain(size)}",
            hint=f"give a smaller journal, or {enough}",
        )
    if size > TIB:
        raise UsageError(f"--size {_plain(size)}: the inodes, blocks or journal do not fit", hint="leave out their options")
    raise UsageError(
        f"--size {_plain(size)}: too small for an ext3 image{' with a journal' if options.journal else ''}",
        hint=f"give {enough} with these options (a bare number is MiB)",
    )


def _fits(options: CreateOptions, size: int) -> bool:
    """Return True if there is an ext3 filesystem of ``size`` bytes with these options that holds its journal."""
    from ext3.format.geometry import plan_geometry

    try:
        geometry = plan_geometry(
            size,
            block_size=options.block_size,
            inode_size=options.inode_size,
            inodes=options.inodes,
            inode_ratio=options.inode_ratio,
            reserved_percent=options.reserved_percent or 0.0,
            reserved_blocks=RESERVED_BLOCKS if options.reserved_percent is None else None,
        )
    except GeometryError:
        return False
    if geometry.inodes >= 2**32:
        return False
    blocks = 0
    if options.journal and options.journal_bytes is None:
        blocks = default_journal_blocks(geometry.blocks)
        if not blocks:
            return False
    elif options.journal and options.journal_bytes is not None:
        blocks = options.journal_bytes // geometry.block_size
        if blocks > geometry.free_blocks // 2:
            return False
    return EMPTY_IMAGE_BLOCKS + blocks + -(-blocks // geometry.pointers_per_block) <= geometry.free_blocks


def _most_inodes(options: CreateOptions, size: int) -> int:
    """Return the largest number of inodes that fits, to about a thousandth."""
    low, high = 1, options.inodes or 1
    while high - low > max(1, low >> 10):
        middle = (low + high) // 2
        if _fits(replace(options, inodes=middle), size):
            low = middle
        else:
            high = middle
    return low


def _plain(size: int) -> str:
    """Return a size in the largest unit that is exact, so that a limit just missed does not look met."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and not size & ((1 << power) - 1):
            return f"{size >> power:,} {unit}"
    return counted(size, "byte")
