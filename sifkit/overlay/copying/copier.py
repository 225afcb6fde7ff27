"""Copies into an image: from the host, from another image, or from the image itself. The rules are those of coreutils' cp.

A directory is merged into an existing one; an existing file keeps its inode and gets the new content. An error that concerns
one file is an outcome, and the file is skipped; one that concerns all (no space, a damaged image) is raised.

A new file gets its name last: content, owner, mode, times and xattrs are set before, on an inode without a name. Wherever a
copy is interrupted, a name leads to the whole file, or does not exist. A directory is created with its owner, mode and xattrs;
its times are set when it is filled.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from ext3.errors import NoFreeInodesError, NoSpaceError, PathError, SourceError, XattrError
from ext3.read.filesystem import Stat as InodeStat

from ...errors import show
from ...vfs.copy_outcome import Copied, CopyError, CopyOutcome, CopyWarning
from ...vfs.errors import TreePathError, bad_mode_error, reason_of
from ...vfs.file_tree import UNKNOWN, Row, file_type_of
from ...vfs.host_tree import HostFile, HostStream
from ...vfs.resolve import ResolvedPath
from ...vfs.whiteouts import is_whiteout
from ..edit.upper_edit import OverlayEditor
from .copied_attributes import copy_attributes
from .copy_options import CopyOptions
from .copy_source import CopySource
from .source_file import SourceFile, source_errors

if TYPE_CHECKING:
    from ..options import Progress

__all__ = ["Copier"]

N = TypeVar("N")
TIMES = frozenset({"times"})
EXACT = frozenset({"owner", "mode"})
"""With these preserved, nothing that a new file inherits from its directory stays: group, set-group-ID bit, ACLs."""
NOUNS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
}

_FileError = CopyError | PathError | TreePathError | XattrError
"""Errors that concern one file."""


@dataclass(slots=True)
class _DirectoryCopy(Generic[N]):
    """Directory that is being copied. ``ino``: the copy; ``remaining``: entries to copy, the next one last.

    ``problem``: why its attributes could not all be set, to report when it is filled.
    """

    file: SourceFile[N]
    ino: int
    target: ResolvedPath[int]
    remaining: list[Row[N]]
    problem: _FileError | None


class Copier:
    """Copier of files into one image.

    ``image``: its name in messages. ``image_id``: its device and inode on the host; it is not copied into itself.
    """

    def __init__(
        self,
        editor: OverlayEditor,
        options: CopyOptions,
        *,
        image: str,
        progress: Progress,
        image_id: tuple[int, int] | None = None,
    ) -> None:
        self.editor = editor
        self.options = options
        self.bytes = 0
        """Bytes of data copied."""
        self._image = image
        self._progress = progress
        self._image_id = image_id
        self._noun = "regular file"
        self._link_target: int | None = None
        self._links: dict[tuple[int, int, int], int] = {}
        """Copies of files with several names."""
        self._new_directories: set[int] = set()
        self._early = options.preserve - TIMES if options.preserve >= EXACT else frozenset[str]()
        """Attributes that a directory gets before it is filled; the others would change what is created in it."""
        self._arguments: set[tuple[tuple[int, int, int], str]] = set()
        self._argument_targets: set[tuple[int, bytes]] = set()
        """Sources named by the caller, and where they were copied to."""

    def _name(self, path: bytes) -> str:
        """Return a path of the image as messages show it."""
        return f"{self._image}:{show(path)}"

    def copy(self, source: CopySource[N], target: ResolvedPath[int]) -> Iterator[CopyOutcome]:
        """Copy ``source`` to ``target``; the outcomes come as they happen, and the copy goes on as they are taken.

        Errors that end the copy are raised.
        """
        pending: list[_DirectoryCopy[N]] = []
        self._link_target = source.link_target
        top = SourceFile(source.tree, source.node, source.stat, source.label, b"")
        yield from self._try(self._copy_one(source, top, target, pending), target)
        self._link_target = None
        while pending:
            current = pending[-1]
            if not current.remaining:
                pending.pop()
                yield from self._try(self._finish_directory(current), current.target)
                continue
            row = current.remaining.pop()
            into = self.editor.child(current.target, row.name)
            yield from self._try(self._copy_row(source, current, row, into, pending), into)

    def _try(self, work: Iterator[CopyOutcome], target: ResolvedPath[int]) -> Iterator[CopyOutcome]:
        """Yield the outcomes of ``work``, and an error that concerns one file as the last."""
        try:
            yield from work
        except CopyError as error:
            yield error
        except (PathError, TreePathError, XattrError) as error:
            yield self.copy_error(error, target.path)

    def copy_error(
        self, error: PathError | TreePathError | XattrError, path: bytes, noun: str = "", *, exists: bool = False
    ) -> CopyError:
        """Return the error, in cp's words, of a copy that cannot be created at ``path``.

        ``noun``: the kind of file to create; ``exists``: there is a file at ``path``.
        """
        goal = self._name(path)
        if isinstance(error, XattrError):
            text = f"setting attributes of '{goal}': {error}"
        else:
            plain = error.errno not in (None, errno.EINVAL)
            what = "stat" if exists or error.errno == errno.ELOOP else f"create {noun or self._noun}"
            text = f"cannot {what} '{goal}': {os.strerror(error.errno or 0) if plain else error.reason}"
        return CopyError(text, kind=error.kind, path=path, hint=error.hint)

    def _copy_row(
        self,
        source: CopySource[N],
        directory: _DirectoryCopy[N],
        row: Row[N],
        target: ResolvedPath[int],
        pending: list[_DirectoryCopy[N]],
    ) -> Iterator[CopyOutcome]:
        above = directory.file
        label = f"{above.label.rstrip('/')}/{show(row.name)}"
        with source_errors("cannot stat", label):
            found = source.tree.stat(row.node) if row.stat is None else row.stat
            if isinstance(found, OSError):
                raise found
        path = above.path + b"/" + row.name if above.path else row.name
        file = SourceFile(source.tree, row.node, found, label, path, row.may_have_xattrs)
        yield from self._copy_one(source, file, target, pending)

    def _copy_one(
        self, source: CopySource[N], file: SourceFile[N], target: ResolvedPath[int], pending: list[_DirectoryCopy[N]]
    ) -> Iterator[CopyOutcome]:
        label, form = file.label, file.form
        if file_type_of(file.stat.mode) == UNKNOWN:
            error = bad_mode_error(file.stat.mode)
            raise CopyError(f"error reading '{label}': {error.reason}", kind=error.kind, path=label)
        self._noun = NOUNS.get(form, "special file")
        if form == stat.S_IFDIR and not self.options.recursive:
            text = f"-r not specified; omitting directory '{label}'"
            raise CopyError(text, kind="is-a-directory", path=label, hint="give -r")
        if (file.stat.dev, file.stat.ino) == self._image_id:
            yield CopyWarning(f"'{label}' is the image itself and is not copied")
            return
        if not pending:
            argument = file.identity, label.rstrip("/")
            if argument in self._arguments:
                kind = "directory" if form == stat.S_IFDIR else "file"
                yield CopyWarning(f"source {kind} '{label}' specified more than once")
                return
            self._arguments.add(argument)
        existing = None if target.node is None else self.editor.stat(target.node)
        goal = self._name(target.path)
        if existing is not None and self._is_same(file, existing):
            raise CopyError(f"'{label}' and '{goal}' are the same file", path=target.path)
        if existing is not None and form != stat.S_IFDIR:
            if not self.options.replace:
                return
            if existing.is_dir:
                text = f"cannot overwrite directory '{goal}' with non-directory '{label}'"
                raise CopyError(text, kind="is-a-directory", path=target.path)
        if existing is not None and not existing.is_dir:
            if not pending and target.location in self._argument_targets:
                raise CopyError(f"will not overwrite just-created '{goal}' with '{label}'", kind="exists", path=target.path)
            if form == stat.S_IFDIR:
                text = f"cannot overwrite non-directory '{goal}' with directory '{label}'"
                raise CopyError(text, kind="not-a-directory", path=target.path)
        if not pending:
            self._argument_targets.add(target.location)
        if form == stat.S_IFDIR:
            yield from self._directory(source, file, existing, target, pending)
            return
        self._file(file, target)
        yield Copied(label, goal)

    def _is_ours(self, file: SourceFile[N]) -> bool:
        """Return True for a file of the image that is copied to."""
        return file.tree is self.editor.tree

    def _is_same(self, file: SourceFile[N], existing: InodeStat) -> bool:
        if not self._is_ours(file):
            return False
        node = self._link_target if file.form == stat.S_IFLNK and not existing.is_symlink else file.node
        return isinstance(node, int) and self.editor.is_same(node, existing.ino)

    def _directory(
        self,
        source: CopySource[N],
        file: SourceFile[N],
        existing: InodeStat | None,
        target: ResolvedPath[int],
        pending: list[_DirectoryCopy[N]],
    ) -> Iterator[CopyOutcome]:
        label, goal = file.label, self._name(target.path)
        # A directory is not copied into itself; through a symlink the copy itself would be met.
        if self._is_ours(file) and (file.node in target.ancestors or file.node in self._new_directories):
            raise CopyError(f"cannot copy a directory, '{label}', into itself, '{goal}'", path=target.path)
        problem = source.problems.pop(file.path, None)
        rows = source.rows.pop(file.path, None)
        if rows is None and problem is not None:  # it may not be entered
            raise CopyError(f"'{label}': {reason_of(problem)}", kind=getattr(problem, "kind", "source"), path=label)
        set_early = partial(self._try_attributes, file, self._early)
        if existing is not None:
            ino = self.editor.copy_up(existing.ino)
            failed = self.editor.filesystem.atomically(partial(set_early, ino))
            yield Copied(label, goal, 0)
        else:
            ino, failed = self._make_directory(file.stat.mode, target, set_early)
            self._new_directories.add(ino)
            yield Copied(label, goal)
        created = ResolvedPath(target.path, target.parent, target.name, ino, target.ancestors)
        pending.append(_DirectoryCopy(file, ino, created, list(reversed(rows or ())), failed))
        if problem is not None:
            with source_errors("cannot access", label):
                raise problem

    def _make_directory(
        self, mode: int, target: ResolvedPath[int], set_early: Callable[[int], _FileError | None]
    ) -> tuple[int, _FileError | None]:
        """Create a directory in one operation. Return its inode, and what ``set_early`` does.

        As cp does it, write permissions that a default ACL took away are added again.
        """
        (uid, gid), umask = self.options.owner, self.options.umask
        problem: _FileError | None = None

        def finish(ino: int) -> None:
            nonlocal problem
            made, writable = self.editor.stat(ino).mode, mode & 0o022 & ~umask
            if writable & ~made:
                self.editor.filesystem.chmod(ino, made | writable)
            problem = set_early(ino)

        ino = self.editor.make_directory(target, mode & 0o1755, uid=uid, gid=gid, umask=umask, finish=finish)
        return ino, problem

    def _finish_directory(self, directory: _DirectoryCopy[N]) -> Iterator[CopyOutcome]:
        self._set_attributes(directory.file, self.options.preserve - self._early, directory.ino)
        if directory.problem is not None:
            raise directory.problem
        yield from ()

    def _file(self, file: SourceFile[N], target: ResolvedPath[int]) -> None:
        """Copy a file that is not a directory."""
        filesystem, options = self.editor.filesystem, self.options
        form, label = file.form, file.label
        linked = self._links.get(file.identity) if "links" in options.preserve and file.stat.links > 1 else None
        old = None if target.node is None else self.editor.stat(target.node)
        if old is not None and old.is_symlink and form == stat.S_IFREG and linked is None:
            target = self._follow_link(target)
            assert target.node is not None
            old = self.editor.stat(target.node)
            if self._is_same(file, old):  # it would be truncated before it is read
                raise CopyError(f"'{label}' and '{self._name(target.path)}' are the same file", path=target.path)
        if form != stat.S_IFREG and not options.recursive and not (options.links and form == stat.S_IFLNK):
            hint = "-r copies devices and fifos as such"
            raise CopyError(f"'{label}' is not a regular file", path=label, hint=hint)
        keeps = old is not None and stat.S_ISREG(old.mode) and form == stat.S_IFREG
        keeps = keeps and old is not None and not ("links" in options.preserve and old.links > 1)
        is_lower = old is not None and self.editor.upper_inode(old.ino) is None
        if keeps and old is not None and linked is None and not is_lower:
            self._copy_data(file, old.ino)
            self.editor.take_content(old.ino)
            self._remember_link(file, old.ino)
            self._set_attributes(file, options.preserve, old.ino)
            return
        if linked is not None and linked == target.node:
            return
        if linked is not None:
            self._noun = "hard link"
            self.editor.replace(target, partial(filesystem.link_at, linked, *self.editor.location(target)))
            return
        if self.editor.upper and is_whiteout(file.stat):
            text = f"cannot create special file '{self._name(target.path)}': Operation not permitted"
            hint = "a character device 0, 0 is a whiteout there; without --upper it is an ordinary device"
            raise CopyError(text, kind="permission", path=target.path, hint=hint)
        self.editor.check_visible(target)  # before its content is copied
        ino, problem = self._make(file, target, old.ino if keeps and is_lower and old is not None else None)
        self._remember_link(file, ino)
        if problem is not None:
            raise problem

    def _make(self, file: SourceFile[N], target: ResolvedPath[int], lower: int | None = None) -> tuple[int, _FileError | None]:
        """Create a file that is not a directory, whole before it has its name, in the place of an existing one.

        ``lower``: the file of a lower layer whose attributes it keeps. Return its inode, and why its attributes could not all
        be set.
        """
        filesystem = self.editor.filesystem
        parent, name = self.editor.location(target)
        create = self._create_call(file, parent)
        try:
            ino = create()
        except (NoFreeInodesError, NoSpaceError):
            if target.node is None or self.editor.upper_inode(target.node) is None:
                raise
            filesystem.unlink_at(parent, name)  # there is no room for both
            target = target._replace(node=None)
            ino = create()
        try:
            if lower is not None:
                self.editor.take_attributes(lower, ino)
            if file.form == stat.S_IFREG:
                self._copy_data(file, ino)
            problem = self._try_attributes(file, self.options.preserve, ino)
            give_name = filesystem.name_at if lower is None else self.editor.name_copy
            self.editor.replace(target, partial(give_name, ino, parent, name))
        finally:
            filesystem.release(ino)
        return ino, problem

    def _create_call(self, file: SourceFile[N], parent: int) -> Callable[[], int]:
        """Return the call that creates the copy of a file, without a name and content."""
        (uid, gid), umask = self.options.owner, self.options.umask
        link = None
        if file.form == stat.S_IFLNK:
            with source_errors("cannot read symbolic link", file.label):
                link = file.tree.readlink(file.node)
        mode = file.form | file.stat.mode & (0o777 if file.form == stat.S_IFREG else 0o7777)
        device = file.stat.major, file.stat.minor
        create = self.editor.filesystem.create_nameless
        return partial(create, parent, mode, target=link, rdev=device, uid=uid, gid=gid, umask=umask)

    def _copy_data(self, file: SourceFile[N], ino: int) -> None:
        with source_errors("cannot open", file.label, " for reading"):
            opened = file.tree.open_file(file.node)
        with opened:
            source = HostStream(opened.fd) if isinstance(opened, HostFile) and not opened.is_sized else opened
            try:
                self.editor.filesystem.write_from(ino, source, advance=self._advance)
            except SourceError as error:
                text = f"error reading '{file.label}': {error.reason}"
                raise CopyError(text, kind=error.kind, path=file.label, hint=error.hint) from error

    def _follow_link(self, target: ResolvedPath[int]) -> ResolvedPath[int]:
        """Resolve a symlink in the image: regular files are written through it."""
        found = self.editor.resolve(target.path, follow=True)
        if found.node is None:
            raise CopyError(f"not writing through dangling symlink '{self._name(target.path)}'", path=target.path)
        if self.editor.stat(found.node).is_dir:
            raise CopyError(f"cannot overwrite directory '{self._name(target.path)}'", kind="is-a-directory", path=target.path)
        return found

    def _remember_link(self, file: SourceFile[N], ino: int) -> None:
        if file.stat.links > 1:
            self._links[file.identity] = ino

    def _try_attributes(self, file: SourceFile[N], preserve: frozenset[str], ino: int) -> _FileError | None:
        """Set attributes as ``_set_attributes`` does; return an error that concerns this file alone."""
        try:
            self._set_attributes(file, preserve, ino)
        except (CopyError, PathError, TreePathError, XattrError) as error:
            return error
        return None

    def _set_attributes(self, file: SourceFile[N], preserve: frozenset[str], ino: int) -> None:
        """Set those of owner, mode, times and xattrs that are in ``preserve``."""
        copy_attributes(self.editor.filesystem, file, ino, preserve=preserve, upper=self.editor.upper)

    def _advance(self, count: int) -> None:
        self.bytes += count
        self._progress.advance(count)
