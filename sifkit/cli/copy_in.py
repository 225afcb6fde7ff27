"""``sifkit cp`` into an image: from the host, from other images, or from the image itself.

All sources are scanned first, so that a lack of space is found before anything is written.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import SifkitError, show
from .support.copying import CopySettings, base_name, find_source, finish_copy, partition_of
from .support.destination import entry_in, target_directory
from .support.editing import EditBatch, open_for_editing, warn_outside
from .support.failures import errors_about
from .support.image_path import ImagePath, split_image_path
from .support.options import EditFlags
from .support.progress import Reporter
from .support.reading import host_identity, open_for_reading

if TYPE_CHECKING:
    from ..overlay.copy_in import Copier
    from ..overlay.copy_source import CopySource, HostSource, ImageSource
    from ..overlay.upper_edit import OverlayEditor
    from ..vfs.resolve import ResolvedPath, Resolver

__all__ = ["copy_in"]


@dataclass(frozen=True, slots=True)
class _SourceArgument:
    """Source of a copy. ``base``: name of the copy in a directory; ``link_target``: see ``Copier.copy``."""

    source: CopySource[Any]
    handle: Any
    shown: str
    base: bytes
    is_dir: bool
    link_target: int | None = None


def copy_in(batch: EditBatch, sources: Sequence[str], target: ImagePath, settings: CopySettings, bar: Reporter) -> int:
    """Copy to IMAGE:/PATH; return the exit code."""
    with ExitStack() as stack:
        work = _CopyIn(batch, sources, target, settings, bar, stack)
        flags = _flags(sources, target, settings)
        with open_for_editing(batch.console, target.image, flags, check=work.prepare) as editor:
            written = work.copy(editor)
    bar.print_times(batch.console)
    return finish_copy(batch, target.image, written)


def _flags(sources: Sequence[str], target: ImagePath, settings: CopySettings) -> EditFlags:
    """Return the flags for the target: of several images, --partition is for those that are SIF images."""
    images = [found[0] for found in map(split_image_path, sources) if found is not None]
    partition = partition_of(target.image, settings)
    if partition is None and not any(partition_of(image, settings) for image in images):
        return settings.flags  # without a SIF image --partition is refused
    return replace(settings.flags, partition=partition)


class _CopyIn:
    def __init__(
        self,
        batch: EditBatch,
        sources: Sequence[str],
        target: ImagePath,
        settings: CopySettings,
        bar: Reporter,
        stack: ExitStack,
    ) -> None:
        self.batch = batch
        self.sources = sources
        self.target = target
        self.settings = settings
        self.bar = bar
        self.stack = stack
        self.found: list[_SourceArgument] = []
        self.directory: ResolvedPath[int] | None = None
        self.data_bytes = 0
        self._images: dict[str, ImageSource] = {}
        self._host: HostSource | None = None

    # Before the copy

    def prepare(self, editor: OverlayEditor) -> None:
        """Find the sources and check that there is room for them. Raises CopySpaceError."""
        from ..overlay.copy_space import SpaceEstimate
        from ..vfs.errors import TreePathError

        target, sources = self.target, self.sources
        self.directory, reason = (None, "") if self.settings.exact else target_directory(editor, target)
        if len(sources) > 1 and self.directory is None:
            self.batch.refuse(f"target '{target.shown}': {reason}", target, kind="not-a-directory")
            return
        room = SpaceEstimate(editor, self.settings.copy, self.bar)
        self.bar.phase("scan", None, "files")
        for source in sources:
            found = self._find(editor, source)
            if found is None:
                continue
            self.found.append(found)
            with suppress(TreePathError):  # reported by the copy
                room.add(found.source, found.handle, self._destination(editor, found)[0].node)
        self.bar.done()
        room.check(show(target.image))
        self.data_bytes = room.data_bytes
        self.batch.console.image = target.image

    def _find(self, editor: OverlayEditor, source: str) -> _SourceArgument | None:
        """Find a source; None, with the error recorded, if there is none."""
        inside = split_image_path(source)
        if inside is None:
            return self._find_on_host(source)
        found = self._image(editor, inside[0])
        path = os.fsencode(inside[1])
        ino = find_source(self.batch, found.resolver, source, path, self.settings)
        if ino is None:
            return None
        status = found.filesystem.stat(ino)
        link_target = _link_target(editor, path) if status.is_symlink and found.resolver is editor else None
        return _SourceArgument(found, ino, show(source), base_name(inside[1]), status.is_dir, link_target)

    def _find_on_host(self, source: str) -> _SourceArgument | None:
        from ..overlay.copy_source import HostSource

        self._host = self._host or HostSource()
        host = os.fsencode(source)
        try:
            found = os.stat(host) if self.settings.follow else os.lstat(host)
            plain = host.rstrip(b"/") or b"/"
            followed = self.settings.follow or (host != plain and os.path.islink(plain))
            handle = os.path.realpath(host) if followed else plain
        except OSError as error:
            failure = SifkitError(f"cannot stat '{show(source)}': {error.strerror}", path=source)
            failure.kind = "not-found" if isinstance(error, FileNotFoundError) else "source"
            self.batch.fail(failure)
            return None
        is_dir = stat.S_ISDIR(found.st_mode) or (followed and os.path.isdir(handle))
        return _SourceArgument(self._host, handle, show(source), base_name(source), is_dir)

    def _image(self, editor: OverlayEditor, image: str) -> ImageSource:
        """Open an image to copy from, which may be the target's."""
        from ..overlay.copy_source import ImageSource
        from ..vfs.resolve import Resolver

        if image not in self._images:
            resolver: Resolver[int] = editor
            filesystem: Any = editor.filesystem
            if not os.path.samefile(image, self.target.image):
                with errors_about(image):
                    partition = partition_of(image, self.settings)
                    upper = self.settings.flags.upper
                    opened = self.stack.enter_context(open_for_reading(self.batch.console, image, partition, upper=upper))
                resolver = Resolver(opened.tree)
                filesystem = opened.image.tree if opened.image is not None else None
            self._images[image] = ImageSource(resolver, filesystem)
        return self._images[image]

    def _destination(self, editor: OverlayEditor, source: _SourceArgument) -> tuple[ResolvedPath[int], ImagePath]:
        """Resolve the destination of a copy. A slash after the target asks for a directory. Raises TreePathError."""
        from ..vfs.errors import path_error

        target = self.target
        if self.directory is not None:
            if source.base in (b"", b".", b".."):
                return self.directory, target
            return entry_in(editor, self.directory, target, source.base)
        resolved = editor.resolve(target.path.rstrip(b"/") or b"/", follow=False)
        is_dir = source.is_dir if resolved.node is None else editor.stat(resolved.node).is_dir
        if target.path.endswith(b"/") and not is_dir:
            raise path_error(target.path, errno.ENOTDIR)
        return resolved, target

    # The copy

    def copy(self, editor: OverlayEditor) -> int:
        """Copy the sources; return the bytes of data written."""
        from ..vfs.errors import TreePathError

        copier = self._copier(editor)
        self.bar.phase("copy", self.data_bytes, "bytes")
        for found in self.found:
            try:
                resolved, destination = self._destination(editor, found)
            except TreePathError as error:
                there = self._target_exists(editor)
                noun = "directory" if found.is_dir else "regular file"
                self.batch.fail(copier.copy_error(error, self.target.path, noun, exists=there))
                continue
            if resolved.node is None:
                warn_outside(self.batch.console, editor, resolved, destination)
            copier.copy(found.source, found.handle, found.shown, resolved, link_target=found.link_target)
        self.bar.done()
        return copier.bytes

    def _target_exists(self, editor: OverlayEditor) -> bool:
        from ..vfs.errors import TreePathError

        try:
            return editor.resolve(self.target.path.rstrip(b"/") or b"/", follow=False).node is not None
        except TreePathError:
            return False

    def _copier(self, editor: OverlayEditor) -> Copier:
        from ..overlay.copy_in import Copier

        batch, image = self.batch, show(self.target.image)

        def name(path: bytes) -> str:
            return f"{image}:{show(path)}"

        return Copier(
            editor,
            self.settings.copy,
            name=name,
            on_copied=lambda old, new: batch.count(f"'{old}' -> '{new}'"),
            on_error=batch.fail,
            on_warning=batch.console.warn,
            progress=self.bar,
            image_id=host_identity(self.target.image),
        )


def _link_target(resolver: Resolver[int], path: bytes) -> int | None:
    from ..vfs.errors import TreePathError

    try:
        return resolver.resolve(path, follow=True).node
    except TreePathError:
        return None
