"""``cp`` into an image: from the host, from other images, or from the image itself.

All sources are listed and counted first, so that a lack of space is found before anything is written; the copy goes by those
lists.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ...errors import SifkitError, UsageError, shell_quote, show
from ...vfs.copy_outcome import CopyError, CopyOutcome, CopyWarning
from ...vfs.errors import TreePathError, path_error, reason_of
from ...vfs.file_tree import FileTree
from ...vfs.host_tree import HostContent, HostTree
from ...vfs.resolve import ResolvedPath, Resolver, is_dir, is_symlink
from ..edit.upper_edit import OverlayEditor, outside_upper_warning
from ..images.change_watch import ChangeWatch
from ..images.image_format import is_sif
from ..view.tree_opening import open_tree
from .copier import Copier
from .copy_options import CopyOptions
from .copy_source import CopySource
from .copy_space import SpaceEstimate

if TYPE_CHECKING:
    from ..images.opening import OpenedImage
    from ..options import Progress

__all__ = ["CopyArgument", "CopyIn"]


@dataclass(frozen=True, slots=True)
class CopyArgument:
    """File named by the user: ``path`` in ``image``, or a path of the host (``image`` is None). ``shown``: for messages.

    ``offset``: byte of the image's file where its filesystem begins, None for a whole file.
    """

    image: str | None
    path: bytes
    shown: str
    offset: int | None = None

    @property
    def name(self) -> bytes:
        """Name of its copy in a directory; b".", b".." and b"" are none."""
        return self.path.rstrip(b"/").rpartition(b"/")[2]


@dataclass(frozen=True, slots=True)
class _Found:
    """Source that exists, and the argument that named it. ``is_dir``: the slash after a target may follow it."""

    argument: CopyArgument
    source: CopySource[Any]
    is_dir: bool


class CopyIn:
    """Copy of ``sources`` to ``target``, an argument with an image; a context manager, which closes the images it opens.

    ``partition``: of those images that are SIF images. ``upper``: paths in images are below their upper/. ``exact``: the target
    is never a directory to copy into. ``follow``: symlinks named as sources. ``allow_changed``: do not look whether an image is
    changed while it is copied from. ``overlays``: those given for the target's image, for hints. Call ``prepare`` with the
    editor of the target's image before any change, then take the outcomes of ``run``. ``bytes``: data copied so far.
    """

    def __init__(
        self,
        sources: Sequence[CopyArgument],
        target: CopyArgument,
        options: CopyOptions,
        *,
        progress: Progress,
        partition: str | None = None,
        upper: bool = False,
        exact: bool = False,
        follow: bool = False,
        allow_changed: bool = False,
        overlays: Sequence[str] = (),
    ) -> None:
        assert target.image is not None
        self.bytes = 0
        self._sources = sources
        self._target = target
        self._image = target.image
        self._options = options
        self._progress = progress
        self._partition = partition
        self._upper = upper
        self._exact = exact
        self._overlays = overlays
        self._follow = follow
        self._watches: list[tuple[str, ChangeWatch]] | None = None if allow_changed else []
        """Of the images to copy from, unless they may change."""
        self._stack = ExitStack()
        self._trees: dict[str, FileTree[Any]] = {}
        self._host = HostTree(os.sep)
        self._found: list[_Found] = []
        self._outcomes: list[CopyOutcome] = []
        """Of the preparation."""
        self._directory: ResolvedPath[int] | None = None
        self._data_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def prepare(self, editor: OverlayEditor) -> None:
        """Find and list the sources. Raises CopySpaceError if there is no room for them, and errors of opening images."""
        reason = ""
        if not self._exact:
            self._directory, reason = editor.find_directory(self._target.path)
        if len(self._sources) > 1 and self._directory is None:
            text = f"target '{self._target.shown}': {reason}"
            self._outcomes.append(CopyError(text, kind="not-a-directory", path=self._target.shown))
            return
        space = SpaceEstimate(editor, self._options, self._progress)
        self._progress.phase("scan", None, "files")
        for argument in self._sources:
            try:
                found = self._find(editor, argument)
            except CopyError as error:
                self._outcomes.append(error)
                continue
            self._found.append(found)
            with suppress(TreePathError):  # reported by the copy
                space.add(found.source, self._destination(editor, found).node)
        self._progress.done()
        space.check(self._edited(editor))
        self._data_bytes = space.data_bytes

    def _find(self, editor: OverlayEditor, argument: CopyArgument) -> _Found:
        """Find a source. Raises CopyError if there is none."""
        if argument.image is None:
            return self._find_on_host(argument)
        tree = self._open(editor, argument.image, argument.offset)
        try:
            node = Resolver(tree).lookup(argument.path, follow=self._follow)
            found = tree.stat(node)
        except OSError as error:
            text = f"cannot stat '{argument.shown}': {reason_of(error)}"
            kind, hint = getattr(error, "kind", "source"), getattr(error, "hint", "")
            raise CopyError(text, kind=kind, path=argument.shown, hint=hint) from error
        source = CopySource(tree, node, found, argument.shown)
        if is_symlink(found) and tree is editor.tree:
            with suppress(TreePathError):
                source.link_target = editor.resolve(argument.path, follow=True).node
        return _Found(argument, source, is_dir(found))

    def _find_on_host(self, argument: CopyArgument) -> _Found:
        path = argument.path
        plain = path.rstrip(b"/") or b"/"
        try:
            found = os.stat(path) if self._follow else os.lstat(path)
            followed = self._follow or (path != plain and os.path.islink(plain))
            tree = self._host_tree(plain, stat.S_IFMT(found.st_mode), followed)
            source = CopySource(tree, plain, tree.stat(plain), argument.shown)
        except OSError as error:
            kind = "not-found" if isinstance(error, FileNotFoundError) else "source"
            raise CopyError(f"cannot stat '{argument.shown}': {error.strerror}", kind=kind, path=path) from error
        return _Found(argument, source, stat.S_ISDIR(found.st_mode) or (followed and is_dir(source.stat)))

    def _host_tree(self, path: bytes, form: int, followed: bool) -> HostTree:
        """Return a tree with the file at ``path``, of which only the content is copied if it is special and there is no -r."""
        if not self._options.recursive and form not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            return HostContent(path)
        return HostTree(path) if followed else self._host

    def _open(self, editor: OverlayEditor, image: str, offset: int | None) -> FileTree[Any]:
        """Open an image to copy from, which may be the target's."""
        if image not in self._trees:
            if os.path.samefile(image, self._image):
                self._trees[image] = editor.tree
            elif os.path.samefile(image, self._edited(editor)):
                hint = f"for a file that the container sees, write {show(self._image)}:/PATH"
                raise UsageError(f"{show(image)} is the overlay that the copy changes", hint=hint)
            else:
                partition = self._partition if is_sif(image) else None
                try:
                    opened = self._stack.enter_context(open_tree(image, partition, offset=offset, upper=self._upper))
                except SifkitError as error:
                    error.set_path(image)
                    raise
                self._trees[image] = opened.tree
                for found in opened.images:
                    self._watch(found)
        return self._trees[image]

    def _edited(self, editor: OverlayEditor) -> str:
        """Return the file that is changed: of a container an overlay above the target's image."""
        return self._image if editor.path is None else editor.path

    def _watch(self, image: OpenedImage) -> None:
        """Warn if another process may write to an image that is copied from, or if its journal cannot be read."""
        if self._watches is not None:
            watch = image.watch()
            users = watch.users()
            if users.busy:
                text = f"{show(image.path)} is in use: {users.describe()}; what is copied may not fit together"
                self._outcomes.append(CopyWarning(text))
            else:  # one warning is enough
                self._watches.append((image.path, watch))
        if image.journal_problem is not None:
            text = f"cannot read its journal, what is copied may be out of date: {image.journal_problem}"
            self._outcomes.append(CopyWarning(f"{show(image.path)}: {text}"))

    def _destination(self, editor: OverlayEditor, found: _Found) -> ResolvedPath[int]:
        """Resolve the destination of a copy. A slash after the target asks for a directory. Raises TreePathError."""
        target = self._target.path
        if self._directory is not None:
            name = found.argument.name
            return self._directory if name in (b"", b".", b"..") else editor.child(self._directory, name)
        resolved = editor.resolve(target.rstrip(b"/") or b"/", follow=False)
        leads_to_directory = found.is_dir if resolved.node is None else editor.stat(resolved.node).is_dir
        if target.endswith(b"/") and not leads_to_directory:
            raise path_error(target, errno.ENOTDIR)
        return resolved

    def run(self, editor: OverlayEditor) -> Iterator[CopyOutcome]:
        """Copy the sources; the copy goes on as the outcomes are taken."""
        yield from self._outcomes
        copier = Copier(
            editor,
            self._options,
            image=show(self._image),
            progress=self._progress,
            image_id=_identity(self._edited(editor)),
        )
        self._progress.phase("copy", self._data_bytes, "bytes")
        for found in self._found:
            try:
                resolved = self._destination(editor, found)
            except TreePathError as error:
                noun = "directory" if found.is_dir else "regular file"
                exists = self._target_exists(editor)
                made = copier.copy_error(error, self._target.path, noun, exists=exists)
                if not exists and not made.hint:
                    made.hint = self._directory_hint(editor)
                yield made
                continue
            if resolved.node is None and (warning := outside_upper_warning(editor, self._image, resolved)):
                yield CopyWarning(warning)
            yield from copier.copy(found.source, resolved)
            self.bytes = copier.bytes
        self._progress.done()
        for image, watch in self._watches or ():
            if watch.changed():
                yield CopyWarning(f"{show(image)} changed while it was read; what was copied may not fit together")

    def _directory_hint(self, editor: OverlayEditor) -> str:
        """Hint for a target whose directory does not exist. A new directory belongs below /upper."""
        path = self._target.path
        directory = path.rstrip(b"/") if path.endswith(b"/") else os.path.dirname(path)
        top = directory.strip(b"/").partition(b"/")[0]
        try:
            outside = top not in (b"upper", b"work") and editor.resolve(b"/" + top, follow=False).node is None
        except TreePathError:
            return ""
        if outside and not editor.upper:
            hint = "what a container sees is below /upper; create the directory there: "
            directory = b"/upper/" + directory.lstrip(b"/")
        else:
            hint = "create the directory first: "
        option = "--upper " if editor.guesses_lower else ""
        overlays = "".join(f"--overlay {shell_quote(path)} " for path in self._overlays)
        return f"{hint}sifkit mkdir -p {option}{overlays}{shell_quote(f'{self._image}:{os.fsdecode(directory)}')}"

    def _target_exists(self, editor: OverlayEditor) -> bool:
        try:
            return editor.resolve(self._target.path.rstrip(b"/") or b"/", follow=False).node is not None
        except TreePathError:
            return False


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
