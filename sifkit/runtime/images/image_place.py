"""Place of an ext3 filesystem: its name in messages, and the commands that help with it."""

from __future__ import annotations

import os
from typing import NamedTuple

from ...errors import shell_quote, show
from ..planning.run_plan import Layer, Upper

__all__ = ["ImagePlace", "replaced_note"]


class ImagePlace(NamedTuple):
    """Filesystem of ``size`` bytes at ``offset`` of the file at ``path``; in a SIF that of an object."""

    path: str
    offset: int
    size: int
    object_id: int | None = None

    @classmethod
    def of(cls, image: Layer | Upper, fd: int = -1) -> ImagePlace:
        """Return the place of the filesystem of a layer. ``fd``: its file; without it the size may be unknown (0)."""
        size = image.size
        if size is None:
            size = 0 if fd < 0 else os.lseek(fd, 0, os.SEEK_END) - image.offset
        return cls(path=image.path, offset=image.offset, size=size, object_id=image.object_id)

    @property
    def name(self) -> str:
        """Name for messages."""
        return show(self.path if self.object_id is None else f"{self.path}, object {self.object_id}")

    def fsck(self, flags: str = "") -> str:
        """Command that checks it. ``flags``: options of sifkit overlay fsck."""
        partition = "" if self.object_id is None else f" --partition {self.object_id}"
        return f"sifkit overlay fsck{flags and ' ' + flags}{partition} {shell_quote(self.path)}"

    def resize(self, size: str) -> str:
        """Command that gives it another size."""
        partition = "" if self.object_id is None else f" --partition {self.object_id}"
        return f"sifkit overlay resize{partition} {shell_quote(self.path)} --size {size}"


def replaced_note(name: str) -> str:
    """Return the note on a layer whose marks were replaced."""
    return f"{name}: marks of removed files that fuse-overlayfs left were replaced by the kernel's"
