"""What ``overlay create`` takes and gives back. No logic, and nothing heavy is imported here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, Literal, Protocol
from uuid import UUID

__all__ = ["CreateOptions", "CreateResult", "ImageLayout", "Profile", "Progress", "XattrPolicy"]

ImageLayout = Literal["auto", "root", "upper", "data"]
Profile = Literal["default", "conda", "data"]
XattrPolicy = Literal["default", "all", "none", "strict"]
HostPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOptions:
    """One overlay to be made. Sizes are bytes; None means: choose.

    ``size`` None is the content plus 25 %, at least 64 MiB. ``layout`` says where the source lies in the image: ``root``
    (its root), ``upper`` (below upper/), ``data`` (its root, and no upper/ and work/ are added), ``auto`` (looks).
    ``owner`` is for every entry, ``upper_owner`` for upper/ and work/ only. ``source_date_epoch`` (seconds) makes the
    result reproducible, as ``reproducible`` does with a time of its own. ``inodes`` wins over ``profile``, as ``inode_ratio``
    does; with each other they are refused.
    """

    size: int | None = None
    from_dir: HostPath | None = None
    from_tar: HostPath | IO[bytes] | None = None
    layout: ImageLayout = "auto"
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
    inodes: int | None = None
    inode_ratio: int | None = None
    profile: Profile | None = None
    block_size: int | None = None
    inode_size: int = 256
    reserved_percent: float = 0.0
    label: bytes = b""
    uuid: UUID | None = None
    journal_bytes: int | None = None
    journal: bool = True
    source_date_epoch: int | None = None
    reproducible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateResult:
    """One overlay that was made. ``files`` counts the source's names taken in, ``content_bytes`` their data, ``excluded`` what
    ``exclude`` kept out (a directory counts once); ``notes`` are lines a person should see."""

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


class Progress(Protocol):
    """Told how far the work is. ``total`` None: not known."""

    def phase(self, name: str, total: int | None, unit: Literal["files", "bytes"]) -> None: ...

    def advance(self, count: int) -> None: ...

    def done(self) -> None: ...
