"""Layers of a run as directories of the host, for hosts without FUSE: images are unpacked into the cache.

The kernel's overlayfs joins directories by itself, but only with marks in its own form, and images keep none when they are
unpacked. So all layers from the root up to the highest image are merged into one tree, and the directories above are joined to
it. Trees of images alone are kept in the cache; one with a directory in it, which may change at any time, is made for one run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress

from ext3.progress import Progress, Silent

from ..vfs.whiteouts import OVERLAY_XATTR_PREFIXES, marks_removed_file
from .run_plan import Layer
from .unpacked_cache import UnpackedCache
from .unpacking import Notify, ProgressOf, unpack_alone, unpacked_root

__all__ = ["UnpackedLayers"]

FOLLOWED = ("user.overlay.opaque", "user.overlay.origin", "user.overlay.impure", "user.overlay.uuid")
"""Attributes of overlayfs that the kernel follows in a user namespace, or that change nothing."""
_PREFIXES = tuple(os.fsdecode(prefix) for prefix in OVERLAY_XATTR_PREFIXES)


class UnpackedLayers:
    """Directories of one run. ``close`` removes what is not kept, and ends the locks.

    ``cache_path``: where images are unpacked. ``joins``: the kernel can join directories.
    """

    def __init__(
        self, layers: Sequence[Layer], cache_path: str, notify: Notify, progress: ProgressOf | None, *, joins: bool = True
    ) -> None:
        self._layers = layers
        self._cache_path = cache_path
        self._notify = notify
        self._progress = progress or _silent
        self._joins = joins
        self._open = ExitStack()

    def directories(self) -> list[Layer]:
        """Return directories to be joined, the lowest first. Raises LaunchError, ImageInUseError and OSError."""
        count = self._merged_count()
        if not count:
            return list(self._layers)
        merged, above = self._layers[:count], self._layers[count:]
        if any(layer.kind == "ext3" for layer in merged):
            from .served_layers import lock_layers

            lock_layers(merged, self._open)
        cache = UnpackedCache(self._cache_path)
        if all(layer.kind != "directory" for layer in merged):
            root = unpacked_root(cache, merged, self._notify, self._progress)
        else:
            key = f"run-{os.urandom(8).hex()}"
            self._open.callback(cache.forget_lock, key)
            self._open.enter_context(cache.locked(key, self._notify))
            place = self._open.enter_context(cache.new_tree(key))
            root = unpack_alone(cache, merged, place, self._notify, self._progress)
        return [Layer(path=root, kind="directory"), *above]

    def close(self) -> None:
        with suppress(OSError):  # what is left is removed by the next run
            self._open.close()

    def _merged_count(self) -> int:
        """Return how many of the lowest layers are merged: 0, or up to the highest that the kernel cannot join."""
        if not self._joins:
            return 0 if len(self._layers) == 1 and self._layers[0].kind == "directory" else len(self._layers)
        for number in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[number]
            if layer.kind != "directory" or (number and _has_other_marks(f"{layer.path}/{layer.subdirectory}")):
                return number + 1
        return 0


def _silent() -> AbstractContextManager[Progress]:
    return nullcontext(Silent())


def _has_other_marks(top: str) -> bool:
    """Return True if a layer has marks that the kernel does not follow in a user namespace."""
    pending = [top]
    while pending:
        directory = pending.pop()
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                is_directory = entry.is_dir(follow_symlinks=False)
                if marks_removed_file(os.fsencode(entry.name)) or _has_other_xattrs(entry.path):
                    return True
                if is_directory:
                    pending.append(entry.path)
    return _has_other_xattrs(top)


def _has_other_xattrs(path: str) -> bool:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return False
    return any(name.startswith(_PREFIXES) and name not in FOLLOWED for name in names)
