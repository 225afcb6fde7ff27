"""Options and result of ``create``. No logic; nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Literal
from uuid import UUID

from ext3.hostio import HostPath
from ext3.progress import Progress

__all__ = ["RESERVED_BLOCKS", "CreateOptions", "CreateResult", "ImageLayout", "Profile", "Progress", "XattrPolicy"]

RESERVED_BLOCKS = 1
"""Blocks reserved for root by default. fuse2fs, with which Apptainer mounts an overlay without root, takes none for 10 % of the
image, which a user then cannot write (tried with 1.47)."""
ImageLayout = Literal["auto", "root", "upper", "data"]
Profile = Literal["default", "conda", "data"]
XattrPolicy = Literal["default", "all", "none", "strict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOptions:
    """Options of a new overlay. Sizes are in bytes; None chooses a value.

    ``size`` None: the content plus 25 %, at least 64 MiB. ``layout``: the place of the source in the image: ``root`` (its
    root), ``upper`` (below upper/), ``data`` (its root, without adding upper/ and work/), ``auto`` (root if the source has an
    upper/). ``prefix``: the path in the container where the source goes; None: ``/``, with warnings if it would hide what is
    there. ``owner``: of every entry; ``upper_owner``: of upper/, work/ and the directories above a ``prefix`` only.
    ``source_date_epoch`` (seconds) makes the image reproducible; ``reproducible`` does so with a fixed time.
    ``reserved_percent`` None: RESERVED_BLOCKS. ``inodes`` and ``inode_ratio`` override ``profile`` and exclude each other.
    ``temporary_dir``: for the data of a packed or piped archive while it is read; None: beside the image.
    """

    size: int | None = None
    from_dir: HostPath | None = None
    from_tar: HostPath | IO[bytes] | None = None
    layout: ImageLayout = "auto"
    prefix: str | None = None
    create_dirs: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None
    upper_owner: tuple[int, int] | None = None
    sparse: bool = True
    mode: int = 0o600
    force: bool = False
    xattrs: XattrPolicy = "default"
    exclude: tuple[str, ...] = ()
    one_file_system: bool = False
    skip_unreadable: bool = False
    allow_changed: bool = False
    temporary_dir: HostPath | None = None
    inodes: int | None = None
    inode_ratio: int | None = None
    profile: Profile | None = None
    block_size: int | None = None
    inode_size: int = 256
    reserved_percent: float | None = None
    label: bytes = b""
    uuid: UUID | None = None
    journal_bytes: int | None = None
    journal: bool = True
    source_date_epoch: int | None = None
    reproducible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateResult:
    """Result of creating an overlay.

    ``files``: names copied from the source; ``content_bytes``: sizes of its files; ``excluded``: names left out by ``exclude``
    (a directory counts once); ``notes`` and ``warnings``: for the user. A warning is about a source that a container will not
    have as it was meant.
    """

    path: str
    size_bytes: int
    block_size: int
    inodes: int
    inodes_used: int
    used_bytes: int
    free_bytes: int
    files: int
    content_bytes: int
    layout: ImageLayout
    seconds: float
    uuid: UUID
    label: bytes
    inode_size: int = 256
    groups: int = 1
    journal_bytes: int = 0
    excluded: int = 0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
