"""``sifkit cp`` into an image: from the host, from other images, or from the image itself.

All sources are looked at first: how much they need is held against what the image has before anything is written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import SifkitError, show
from .mv import directory_at, into
from .support.copying import CopySettings, base_name, finish, partition_of, source_in_image
from .support.editing import ChangeOptions, Changes, Goal, changing, warn_outside
from .support.image_path import place
from .support.progress import Reporter
from .support.reading import looking, on_host

if TYPE_CHECKING:
    from ..overlay.copy_in import Copier
    from ..overlay.copy_source import CopySource, HostSource, ImageSource
    from ..overlay.resolve import ResolvedPath, Resolver
    from ..overlay.upper_edit import OverlayEditor

__all__ = ["copy_in"]


@dataclass(frozen=True, slots=True)
class _Job:
    """One source. ``base``: the name its copy gets in a directory; ``leads_to``: see ``Copier.copy``."""

    source: CopySource[Any]
    handle: Any
    shown: str
    base: bytes
    is_dir: bool
    leads_to: int | None = None


def copy_in(changes: Changes, sources: Sequence[str], target: Goal, settings: CopySettings, bar: Reporter) -> int:
    """Copy to IMAGE:/PATH; the exit code."""
    with ExitStack() as stack:
        work = _CopyIn(changes, sources, target, settings, bar, stack)
        with changing(changes.console, target.image, _change(sources, target, settings), check=work.prepare) as editor:
            written = work.copy(editor)
    bar.tell_times(changes.console)
    return finish(changes, target.image, written)


def _change(sources: Sequence[str], target: Goal, settings: CopySettings) -> ChangeOptions:
    """How the target is opened: of several images, --partition is for those that are SIF images."""
    images = [found[0] for found in map(place, sources) if found is not None]
    partition = partition_of(target.image, settings)
    if partition is None and not any(partition_of(image, settings) for image in images):
        return settings.change  # where none is, --partition is refused
    return replace(settings.change, partition=partition)


class _CopyIn:
    def __init__(
        self,
        changes: Changes,
        sources: Sequence[str],
        target: Goal,
        settings: CopySettings,
        bar: Reporter,
        stack: ExitStack,
    ) -> None:
        self.changes = changes
        self.sources = sources
        self.target = target
        self.settings = settings
        self.bar = bar
        self.stack = stack
        self.jobs: list[_Job] = []
        self.directory: ResolvedPath | None = None
        self.data_bytes = 0
        self._images: dict[str, ImageSource] = {}
        self._host: HostSource | None = None

    # Before anything is written

    def prepare(self, editor: OverlayEditor) -> None:
        """Find the sources, and see whether there is room for them. CopySpaceError."""
        from ext3.errors import PathError

        from ..overlay.copy_space import SpaceEstimate

        target, sources = self.target, self.sources
        self.directory, reason = (None, "") if self.settings.exact else directory_at(editor, target)
        if len(sources) > 1 and self.directory is None:
            self.changes.refuse(f"target '{target.shown}': {reason}", target, kind="not-a-directory")
            return
        room = SpaceEstimate(editor, self.settings.copy, self.bar)
        self.bar.phase("scan", None, "files")
        for source in sources:
            job = self._find(editor, source)
            if job is None:
                continue
            self.jobs.append(job)
            with suppress(PathError):  # it is told when it is copied
                room.add(job.source, job.handle, self._place(editor, job)[0].ino)
        self.bar.done()
        room.check(show(target.image))
        self.data_bytes = room.data_bytes
        self.changes.console.image = target.image

    def _find(self, editor: OverlayEditor, source: str) -> _Job | None:
        """A source; None where there is none, which is told."""
        inside = place(source)
        if inside is None:
            return self._find_on_host(source)
        found = self._image(editor, inside[0])
        path = os.fsencode(inside[1])
        ino = source_in_image(self.changes, found.resolver, source, path, self.settings)
        if ino is None:
            return None
        facts = found.resolver.stat(ino)
        leads_to = _leads_to(editor, path) if facts.is_symlink and found.resolver is editor else None
        return _Job(found, ino, show(source), base_name(inside[1]), facts.is_dir, leads_to)

    def _find_on_host(self, source: str) -> _Job | None:
        from ..overlay.copy_source import HostSource

        self._host = self._host or HostSource()
        host = os.fsencode(source)
        try:
            found = os.stat(host) if self.settings.follow else os.lstat(host)
            plain = host.rstrip(b"/") or b"/"
            followed = self.settings.follow or (host != plain and os.path.islink(plain))
            handle = os.path.realpath(host) if followed else plain
        except OSError as error:
            told = SifkitError(f"cannot stat '{show(source)}': {error.strerror}", path=source)
            told.kind = "not-found" if isinstance(error, FileNotFoundError) else "source"
            self.changes.fail(told)
            return None
        is_dir = stat.S_ISDIR(found.st_mode) or (followed and os.path.isdir(handle))
        return _Job(self._host, handle, show(source), base_name(source), is_dir)

    def _image(self, editor: OverlayEditor, image: str) -> ImageSource:
        """An image that is copied from; the one that is changed, too."""
        from ..overlay.copy_source import ImageSource
        from .sif.session import concerning

        if image not in self._images:
            resolver: Resolver = editor
            if not os.path.samefile(image, self.target.image):
                with concerning(image):
                    partition = partition_of(image, self.settings)
                    view = self.stack.enter_context(
                        looking(self.changes.console, image, partition, upper=self.settings.change.upper)
                    )
                resolver = view.resolver
            self._images[image] = ImageSource(resolver)
        return self._images[image]

    def _place(self, editor: OverlayEditor, job: _Job) -> tuple[ResolvedPath, Goal]:
        """Where the copy goes. A slash behind the target asks for a directory. PathError."""
        from ext3.errors import PathNotDirectoryError

        target = self.target
        if self.directory is not None:
            if job.base in (b"", b".", b".."):
                return self.directory, target
            return into(editor, self.directory, target, job.base)
        spot = editor.resolve(target.path.rstrip(b"/") or b"/", follow=False)
        is_dir = job.is_dir if spot.ino is None else editor.stat(spot.ino).is_dir
        if target.path.endswith(b"/") and not is_dir:
            raise PathNotDirectoryError(target.path, "Not a directory")
        return spot, target

    # The copy itself

    def copy(self, editor: OverlayEditor) -> int:
        """Bytes of data that were written."""
        from ext3.errors import PathError

        copier = self._copier(editor)
        self.bar.phase("copy", self.data_bytes, "bytes")
        for job in self.jobs:
            try:
                spot, goal = self._place(editor, job)
            except PathError as error:
                there = self._target_is_there(editor)
                noun = "directory" if job.is_dir else "regular file"
                self.changes.fail(copier.copy_error(error, self.target.path, noun, exists=there))
                continue
            if spot.ino is None:
                warn_outside(self.changes.console, editor, spot, goal)
            copier.copy(job.source, job.handle, job.shown, spot, link_target=job.leads_to)
        self.bar.done()
        return copier.bytes

    def _target_is_there(self, editor: OverlayEditor) -> bool:
        from ext3.errors import PathError

        try:
            return editor.resolve(self.target.path.rstrip(b"/") or b"/", follow=False).ino is not None
        except PathError:
            return False

    def _copier(self, editor: OverlayEditor) -> Copier:
        from ..overlay.copy_in import Copier

        changes, image = self.changes, show(self.target.image)

        def name(path: bytes) -> str:
            return f"{image}:{show(path)}"

        return Copier(
            editor,
            self.settings.copy,
            name=name,
            on_copied=lambda old, new: changes.each(f"'{old}' -> '{new}'"),
            on_error=changes.fail,
            on_warning=changes.console.warn,
            progress=self.bar,
            image_id=on_host(self.target.image),
        )


def _leads_to(resolver: Resolver, path: bytes) -> int | None:
    from ext3.errors import PathError

    try:
        return resolver.resolve(path, follow=True).ino
    except PathError:
        return None
