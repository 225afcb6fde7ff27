"""Judgement of how a user can use an overlay with Apptainer, from what is known of the image, of its file and of the user.

The rules for a user without root, whose overlays are mounted by fuse2fs, were tried with Apptainer 1.4.5 and fuse2fs 1.47.4.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from .info import ImageInfo

__all__ = ["FileAccess", "Verdict", "judge"]

Mode = Literal["writable", "read-only", "no"]


@dataclass(frozen=True, slots=True)
class FileAccess:
    """User ID of the caller, and what the caller may do with the image file."""

    uid: int
    readable: bool
    writable: bool

    @classmethod
    def of(cls, path: str) -> FileAccess:
        """Return the access of this process to the file at ``path``."""
        uid = os.geteuid() if hasattr(os, "geteuid") else 0
        return cls(uid, os.access(path, os.R_OK), os.access(path, os.W_OK))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Judgement. ``mode``: writable, read-only (``:ro``), or not at all; ``reasons``: why not more than that."""

    mode: Mode
    reasons: tuple[str, ...] = ()


def judge(info: ImageInfo, access: FileAccess) -> Verdict:
    """Return how a user can use the image, as Apptainer decides it."""
    never = list(info.reasons)
    if not access.readable:
        never.append("you may not read the file")
    if not info.readable:
        never.append(f"its content cannot be read: {info.problem}")
    if access.uid and info.state == "errors":
        never.append("the filesystem is marked as damaged: fuse2fs refuses it until it is checked")
    if access.uid and info.state == "dirty" and not access.writable and not info.use.busy:
        never.append("its journal is not empty, and you may not write to the file to replay it")
    if info.readable and info.upper is None and (access.uid or not access.writable):
        never.append("there is no upper/")
    if info.use.written:
        never.append(f"it is in use: {info.use.describe()}")
    if never:
        return Verdict("no", tuple(never))
    no_writing = []
    if not access.writable:
        no_writing.append("you may not write to the file")
    if info.use.busy:
        no_writing.append(f"it is in use: {info.use.describe()}")
    if access.uid:
        for name, found in (("upper/", info.upper), ("work/", info.work)):
            if found is None:
                no_writing.append(f"there is no {name}")
            elif found.uid != access.uid:
                no_writing.append(f"{name} belongs to {found.uid}:{found.gid} and you are {access.uid} (--fakeroot can write)")
    return Verdict("read-only", tuple(no_writing)) if no_writing else Verdict("writable")
