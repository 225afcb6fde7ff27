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

from ..planning.run_plan import DataImage, Layer
from .directory_layers import merged_count
from .unpacked_cache import ONE_RUN, UnpackedCache
from .unpacking import Notify, ProgressOf, unpack_alone, unpacked_root

__all__ = ["UnpackedLayers"]


class UnpackedLayers:
    """Directories of one run, whose images are open and locked. ``close`` removes what is not kept.

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
        count = merged_count(self._layers, joins=self._joins)
        if not count:
            return list(self._layers)
        merged, above = self._layers[:count], self._layers[count:]
        cache = UnpackedCache(self._cache_path)
        if all(layer.kind != "directory" for layer in merged):
            root = unpacked_root(cache, merged, self._open, self._notify, self._progress)
        else:
            key = f"{ONE_RUN}{os.urandom(8).hex()}"
            self._open.callback(cache.forget_lock, key)
            self._open.enter_context(cache.locked(key, self._notify))
            place = self._open.enter_context(cache.new_tree(key))
            root = unpack_alone(cache, merged, place, self._notify, self._progress)
        return [Layer(path=root, kind="directory"), *above]

    def add_image(self, image: DataImage) -> str:
        """Return the directory of a data image, which is read, unpacked. Raises as ``directories``."""
        assert isinstance(image, Layer)
        return unpacked_root(UnpackedCache(self._cache_path), [image], self._open, self._notify, self._progress)

    def close(self) -> None:
        with suppress(OSError):  # what is left is removed by the next run
            self._open.close()


def _silent() -> AbstractContextManager[Progress]:
    return nullcontext(Silent())
