"""Options of copies into images and out of them, as cp has them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESERVE_ALL", "PRESERVE_ATTRIBUTES", "CopyOptions"]

PRESERVE_ATTRIBUTES = frozenset({"mode", "owner", "times"})
PRESERVE_ALL = PRESERVE_ATTRIBUTES | {"xattrs", "links"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """Options of a copy.

    ``links``: symlinks are copied as symlinks; ``recursive`` implies it. ``preserve``: a subset of PRESERVE_ALL. ``replace``
    False: existing files are kept. ``owner``, ``umask``: of new files whose owner and mode are not preserved.
    """

    recursive: bool = False
    links: bool = False
    preserve: frozenset[str] = frozenset()
    replace: bool = True
    owner: tuple[int, int] = (0, 0)
    umask: int = 0o022
