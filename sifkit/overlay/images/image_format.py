"""Format of an image file, recognised by its first bytes: ext2/ext3, SIF or squashfs."""

from __future__ import annotations

import os
import stat
from typing import Literal

from ext3.hostio import HostPath

from ...errors import FormatError, NotYetError, show

__all__ = [
    "HEAD_BYTES",
    "check_standalone",
    "file_format",
    "head_format",
    "image_kind",
    "is_container_image",
    "is_image",
    "is_sif",
    "read_head",
]

Format = Literal["empty", "ext", "sif", "squashfs", "unknown"]
HEAD_BYTES = 2048
"""Bytes from the start of a file that tell its format."""


def file_format(path: HostPath) -> Format:
    """Return the format of a regular file, from its first 2 KiB. Raises OSError.

    "ext" is ext2 or ext3: a filesystem with features of ext4 is "unknown".
    """
    return head_format(read_head(path), os.stat(path).st_size)


def read_head(path: HostPath, size: int = HEAD_BYTES) -> bytes:
    """Return the first bytes of a file. Raises OSError, which names it."""
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError as error:  # where opening fails, it does already
        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error


def head_format(head: bytes, size: int) -> Format:
    """Return the format of a file of ``size`` bytes that begins with ``head``, its first 2 KiB."""
    if not size:
        return "empty"
    if other := _other_format(head):
        return other
    if len(head) < HEAD_BYTES:
        return "unknown"
    from ext3.constants import EXT3_INCOMPAT, EXT3_MAGIC, EXT3_RO_COMPAT, SUPERBLOCK_OFFSET
    from ext3.format.schema import SUPERBLOCK

    fields = SUPERBLOCK.record(head[SUPERBLOCK_OFFSET:])
    if fields["s_magic"] != EXT3_MAGIC or fields["s_log_block_size"] > 6 or fields["s_rev_level"] > 1:
        return "unknown"
    incompat, ro_compat = fields["s_feature_incompat"], fields["s_feature_ro_compat"]
    unknown_features = incompat & ~int(EXT3_INCOMPAT) or ro_compat & ~int(EXT3_RO_COMPAT)
    # The magic alone may be a coincidence: the counts must be plausible too.
    plausible = fields["s_inodes_count"] and fields["s_blocks_count"] > 0 and fields["s_first_data_block"] <= 1
    return "ext" if plausible and not unknown_features else "unknown"


def image_kind(path: HostPath) -> Literal["sif", "squashfs"] | None:
    """Return "sif" or "squashfs", None for any other image; opening it will show whether it is ext3.

    Raises FileNotFoundError and other OSErrors, FormatError if ``path`` is neither a regular file nor a block device.
    """
    name = os.fsdecode(path)
    found = os.stat(name)
    if stat.S_ISDIR(found.st_mode):
        hint = f"create an image from it with: sifkit overlay create --from-dir {show(name)}"
        raise FormatError(f"{show(name)} is a directory, not an image", path=name, hint=hint)
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISBLK(found.st_mode):
        raise FormatError(f"{show(name)} is neither a regular file nor a block device", path=name, hint="give an image file")
    return _other_format(read_head(name, 64))


def is_image(path: HostPath) -> bool:
    """Return True if ``path`` is a file that begins as a SIF, squashfs or ext3 image, False also if it cannot be read."""
    try:
        return os.path.isfile(path) and file_format(path) not in ("empty", "unknown")
    except OSError:
        return False


def is_sif(path: HostPath) -> bool:
    """Return True if ``path`` is a SIF image, False also if it cannot be read."""
    try:
        return os.path.isfile(path) and image_kind(path) == "sif"
    except OSError:
        return False


def is_container_image(path: HostPath) -> bool:
    """Return True if ``path`` is a file that only the root of a container is: a SIF or a squashfs."""
    try:
        return os.path.isfile(path) and image_kind(path) is not None
    except OSError:
        return False


def check_standalone(path: HostPath, *, offset: int | None = None) -> None:
    """Raise if ``path`` is no stand-alone image: NotYetError for a SIF, FormatError for squashfs, errors of ``image_kind``.

    ``offset``: the image begins there, so that the format at the beginning of the file does not matter unless it is SIF.
    """
    name = os.fsdecode(path)
    kind = image_kind(name)
    if kind == "sif":
        raise NotYetError(
            f"{show(name)} is a SIF image; this command needs a stand-alone ext3 image",
            path=name,
            hint=f"copy its overlay to a file with: sifkit overlay detach --keep {show(name)}",
        )
    if kind == "squashfs" and offset is None:
        raise FormatError(f"{show(name)} is a squashfs image, not ext3", path=name, hint="give a stand-alone ext3 image")


def _other_format(head: bytes) -> Literal["sif", "squashfs"] | None:
    if b"SIF_MAGIC\0" in head[:64]:  # after the launch script (SIF header: launch[32], magic[10])
        return "sif"
    return "squashfs" if head[:4] in (b"hsqs", b"sqsh") else None
