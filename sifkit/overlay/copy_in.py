"""Copies into an image: from the host, from another image, or from the image itself. The rules are those of coreutils' cp.

A directory is merged into an existing one; an existing file keeps its inode and gets the new content. An error that concerns
one file is reported and the file is skipped; one that concerns all (no space, a damaged image) ends the copy.

A new file gets its name last: content, owner, mode, times and xattrs are set before, on an inode without a name. Wherever a
copy is interrupted, a name leads to the whole file, or does not exist. A directory is created with its owner, mode and xattrs;
its times are set when it is filled.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeGuard, TypeVar

from ext3.errors import Ext3Error, NoFreeInodesError, NoSpaceError, PathError, SourceError, XattrError
from ext3.read.filesystem import Stat

from ..errors import SifkitError, show
from ..vfs.errors import TreePathError
from ..vfs.resolve import ResolvedPath
from .copy_source import CopySource, HostSource, ImageSource, SourceStat
from .upper_edit import OverlayEditor
from .xattr_filter import ACLS

if TYPE_CHECKING:
    from .options import Progress

__all__ = ["PRESERVE_ALL", "PRESERVE_ATTRIBUTES", "Copier", "CopyError", "CopyOptions"]

N = TypeVar("N")
MAX_DEPTH = 2048
PRESERVE_ATTRIBUTES = frozenset({"mode", "owner", "times"})
PRESERVE_ALL = PRESERVE_ATTRIBUTES | {"xattrs", "links"}
TIMES = frozenset({"times"})
EXACT = frozenset({"owner", "mode"})
"""With these preserved, nothing that a new file inherits from its directory stays: group, set-group-ID bit, ACLs."""
NOUNS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
}


class CopyError(SifkitError):
    """Error that concerns one file, which is not copied; ``kind`` is that of its cause."""

    def __init__(self, message: str, *, kind: str = "path", path: bytes | str | None = None, hint: str = "") -> None:
        super().__init__(message, path=path, hint=hint)
        self.kind = kind


_FileError = CopyError | PathError | TreePathError | XattrError
"""Errors that concern one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """Options of a copy, as cp has them.

    ``links``: symlinks are copied as symlinks; ``recursive`` implies it. ``preserve``: a subset of PRESERVE_ALL. ``replace``
    False: existing files are kept. ``owner``, ``umask``: of new files whose owner and mode are not preserved.
    """

    recursive: bool = False
    links: bool = False
    preserve: frozenset[str] = frozenset()
    replace: bool = True
    owner: tuple[int, int] = (0, 0)
    umask: int = 0o022


@dataclass(slots=True)
class _DirectoryCopy(Generic[N]):
    """Directory that is being copied. ``label``: its name in messages; ``ino``: the copy; ``remaining``: entries to copy.

    ``problem``: why its attributes could not all be set, to report when it is filled.
    """

    node: N
    label: str
    stat: SourceStat
    ino: int
    target: ResolvedPath[int]
    remaining: list[tuple[bytes, N]]
    problem: _FileError | None


class Copier:
    """Copies files into one image.

    ``name`` renders a path of the image for messages. ``on_copied`` gets source and target of each copy, ``on_error`` the
    files that were not copied, ``on_warning`` what needs no copy. ``image_id``: device and inode of the image on the
    host, which is not copied into itself.
    """

    def __init__(
        self,
        editor: OverlayEditor,
        options: CopyOptions,
        *,
        name: Callable[[bytes], str],
        on_copied: Callable[[str, str], None],
        on_error: Callable[[SifkitError], None],
        on_warning: Callable[[str], None],
        progress: Progress,
        image_id: tuple[int, int] | None = None,
    ) -> None:
        self.editor = editor
        self.options = options
        self.files = self.bytes = 0
        """Names created or given new content, and bytes of data copied."""
        self._name = name
        self._on_copied = on_copied
        self._on_error = on_error
        self._on_warning = on_warning
        self._progress = progress
        self._image_id = image_id
        self._noun = "regular file"
        self._link_target: int | None = None
        self._links: dict[tuple[int, tuple[int, int]], int] = {}
        """Copies of files with several names."""
        self._new_directories: set[int] = set()
        self._early = options.preserve - TIMES if options.preserve >= EXACT else frozenset[str]()
        """Attributes that a directory gets before it is filled; the others would change what is created in it."""
        self._entered: set[tuple[int, int]] = set()
        """Source directories of the current copy, to detect loops."""
        self._arguments: set[tuple[int, tuple[int, int], str]] = set()
        self._argument_targets: set[tuple[int, bytes]] = set()
        """Sources named by the caller, and where they were copied to."""

    def copy(
        self, source: CopySource[N], node: N, label: str, target: ResolvedPath[int], *, link_target: int | None = None
    ) -> None:
        """Copy ``node`` to ``target``. Errors of single files go to ``on_error``; those that end the copy are raised.

        ``link_target``: in the same image, the inode that a symlink to be copied as a symlink leads to.
        """
        pending: list[_DirectoryCopy[N]] = []
        self._link_target = link_target
        self._entered.clear()
        self._try(partial(self._copy_one, source, node, label, target, pending), target)
        self._link_target = None
        while pending:
            current = pending[-1]
            if not current.remaining:
                pending.pop()
                self._try(partial(self._finish_directory, source, current), current.target)
                continue
            name, child = current.remaining.pop()
            into = self.editor.child(current.target, name)
            child_label = f"{current.label.rstrip('/')}/{show(name)}"
            self._try(partial(self._copy_one, source, child, child_label, into, pending), into)

    def _try(self, work: Callable[[], None], target: ResolvedPath[int]) -> None:
        try:
            work()
        except CopyError as error:
            self._on_error(error)
        except (PathError, TreePathError, XattrError) as error:
            self._on_error(self.copy_error(error, target.path))

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

    def _copy_one(
        self, source: CopySource[N], node: N, label: str, target: ResolvedPath[int], pending: list[_DirectoryCopy[N]]
    ) -> None:
        with _source_errors("cannot stat", label):
            st = source.stat(node)
        form = stat.S_IFMT(st.mode)
        self._noun = NOUNS.get(form, "special file")
        if form == stat.S_IFDIR and not self.options.recursive:
            text = f"-r not specified; omitting directory '{label}'"
            raise CopyError(text, kind="is-a-directory", path=label, hint="give -r")
        if isinstance(source, HostSource) and st.identity == self._image_id:
            self._on_warning(f"'{label}' is the image itself and is not copied")
            return
        if not pending and self._is_repeated(source, st, label):
            return
        existing = None if target.node is None else self.editor.stat(target.node)
        goal = self._name(target.path)
        if existing is not None and self._is_same(source, st, existing):
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
            self._directory(source, node, st, existing, label, target, pending)
            return
        self._file(source, node, st, target, label)
        self.files += 1
        self._on_copied(label, goal)

    def _is_repeated(self, source: CopySource[N], st: SourceStat, label: str) -> bool:
        key = id(source), st.identity, label.rstrip("/")
        if key not in self._arguments:
            self._arguments.add(key)
            return False
        kind = "directory" if stat.S_ISDIR(st.mode) else "file"
        self._on_warning(f"source {kind} '{label}' specified more than once")
        return True

    def _is_ours(self, source: CopySource[N]) -> TypeGuard[ImageSource]:
        return isinstance(source, ImageSource) and source.filesystem is self.editor.filesystem

    def _is_same(self, source: CopySource[N], st: SourceStat, existing: Stat) -> bool:
        if not self._is_ours(source):
            return False
        if stat.S_ISLNK(st.mode) and not existing.is_symlink:
            return self._link_target == existing.ino
        return st.identity[1] == existing.ino

    def _directory(
        self,
        source: CopySource[N],
        node: N,
        st: SourceStat,
        existing: Stat | None,
        label: str,
        target: ResolvedPath[int],
        pending: list[_DirectoryCopy[N]],
    ) -> None:
        goal = self._name(target.path)
        # A directory is not copied into itself; through a symlink the copy itself would be met.
        if self._is_ours(source) and (st.identity[1] in target.ancestors or st.identity[1] in self._new_directories):
            raise CopyError(f"cannot copy a directory, '{label}', into itself, '{goal}'", path=target.path)
        if len(pending) >= MAX_DEPTH:
            raise CopyError(f"'{label}': directories are nested deeper than {MAX_DEPTH}", path=label)
        if isinstance(source, ImageSource):
            if st.identity in self._entered:
                raise CopyError(f"'{label}': the image is damaged: this directory is in it twice", kind="corrupt", path=label)
            self._entered.add(st.identity)
        set_early = partial(self._try_attributes, source, node, label, st, self._early)
        if existing is not None:
            ino = existing.ino
            problem = self.editor.filesystem.atomically(partial(set_early, ino))
        else:
            ino, problem = self._make_directory(st.mode, target, set_early)
            self._new_directories.add(ino)
            self.files += 1
        self._on_copied(label, goal)
        created = ResolvedPath(target.path, target.parent, target.name, ino, target.ancestors)
        directory = _DirectoryCopy(node, label, st, ino, created, [], problem)
        pending.append(directory)
        with _source_errors("cannot access", label):
            directory.remaining.extend(reversed(source.entries(node)))

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

    def _finish_directory(self, source: CopySource[N], directory: _DirectoryCopy[N]) -> None:
        late = self.options.preserve - self._early
        self._set_attributes(source, directory.node, directory.label, directory.stat, late, directory.ino)
        if directory.problem is not None:
            raise directory.problem

    def _file(self, source: CopySource[N], node: N, st: SourceStat, target: ResolvedPath[int], label: str) -> None:
        filesystem, options = self.editor.filesystem, self.options
        form = stat.S_IFMT(st.mode)
        key = id(source), st.identity
        linked = self._links.get(key) if "links" in options.preserve and st.links > 1 else None
        old = None if target.node is None else self.editor.stat(target.node)
        if old is not None and old.is_symlink and form == stat.S_IFREG and linked is None:
            target = self._follow_link(target)
            assert target.node is not None
            old = self.editor.stat(target.node)
            if self._is_same(source, st, old):  # it would be truncated before it is read
                raise CopyError(f"'{label}' and '{self._name(target.path)}' are the same file", path=target.path)
        if form != stat.S_IFREG and not options.recursive and not (options.links and form == stat.S_IFLNK):
            hint = "-r copies devices and fifos as such"
            raise CopyError(f"'{label}' is not a regular file", path=label, hint=hint)
        keeps = old is not None and stat.S_ISREG(old.mode) and form == stat.S_IFREG
        if keeps and old is not None and linked is None and not ("links" in options.preserve and old.links > 1):
            self._copy_data(source, node, old.ino, label)
            self._remember_link(source, st, old.ino)
            self._set_attributes(source, node, label, st, options.preserve, old.ino)
            return
        if linked is not None and linked == target.node:
            return
        if linked is not None:
            self._noun = "hard link"
            self.editor.replace(target, partial(filesystem.link_at, linked, *target.location))
            return
        self.editor.check_visible(target)  # before its content is copied
        ino, problem = self._make(source, node, st, target, label)
        self._remember_link(source, st, ino)
        if problem is not None:
            raise problem

    def _make(
        self, source: CopySource[N], node: N, st: SourceStat, target: ResolvedPath[int], label: str
    ) -> tuple[int, _FileError | None]:
        """Create a file that is not a directory, whole before it has its name, in the place of an existing one.

        Return its inode, and why its attributes could not all be set.
        """
        filesystem = self.editor.filesystem
        create = self._create_call(source, node, st, target.parent, label)
        try:
            ino = create()
        except (NoFreeInodesError, NoSpaceError):
            if target.node is None:
                raise
            filesystem.unlink_at(*target.location)  # there is no room for both
            target = replace(target, node=None)
            ino = create()
        try:
            if stat.S_ISREG(st.mode):
                self._copy_data(source, node, ino, label)
            problem = self._try_attributes(source, node, label, st, self.options.preserve, ino)
            self.editor.replace(target, partial(filesystem.name_at, ino, *target.location))
        finally:
            filesystem.release(ino)
        return ino, problem

    def _create_call(self, source: CopySource[N], node: N, st: SourceStat, parent: int, label: str) -> Callable[[], int]:
        """Return the call that creates the copy of a file, without a name and content."""
        (uid, gid), umask = self.options.owner, self.options.umask
        form = stat.S_IFMT(st.mode)
        link = None
        if form == stat.S_IFLNK:
            with _source_errors("cannot read symbolic link", label):
                link = source.readlink(node)
        mode = form | st.mode & (0o777 if form == stat.S_IFREG else 0o7777)
        create = self.editor.filesystem.create_nameless
        return partial(create, parent, mode, target=link, rdev=st.rdev, uid=uid, gid=gid, umask=umask)

    def _copy_data(self, source: CopySource[N], node: N, ino: int, label: str) -> None:
        with _source_errors("cannot open", label, " for reading", (SourceError,)):  # a PathError concerns the copy
            source.copy_data(node, self.editor.filesystem, ino, self._advance)

    def _follow_link(self, target: ResolvedPath[int]) -> ResolvedPath[int]:
        """Resolve a symlink in the image: regular files are written through it."""
        found = self.editor.resolve(target.path, follow=True)
        if found.node is None:
            raise CopyError(f"not writing through dangling symlink '{self._name(target.path)}'", path=target.path)
        if self.editor.stat(found.node).is_dir:
            raise CopyError(f"cannot overwrite directory '{self._name(target.path)}'", kind="is-a-directory", path=target.path)
        return found

    def _remember_link(self, source: CopySource[N], st: SourceStat, ino: int) -> None:
        if st.links > 1:
            self._links[id(source), st.identity] = ino

    def _try_attributes(
        self, source: CopySource[N], node: N, label: str, st: SourceStat, preserve: frozenset[str], ino: int
    ) -> _FileError | None:
        """Set attributes as ``_set_attributes`` does; return an error that concerns this file alone."""
        try:
            self._set_attributes(source, node, label, st, preserve, ino)
        except (CopyError, PathError, TreePathError, XattrError) as error:
            return error
        return None

    def _set_attributes(
        self, source: CopySource[N], node: N, label: str, st: SourceStat, preserve: frozenset[str], ino: int
    ) -> None:
        """Set those of owner, mode, times and xattrs that are in ``preserve``.

        Xattrs follow the owner: a new one clears the file capability. Inherited ACLs are removed if the mode is preserved.
        """
        filesystem = self.editor.filesystem
        exact_mode = "mode" in preserve and not stat.S_ISLNK(st.mode)
        given = {"uid": st.uid, "gid": st.gid} if "owner" in preserve else {}
        if exact_mode:
            given["mode"] = stat.S_IMODE(st.mode)
        if "times" in preserve:
            given |= {"atime": st.atime, "mtime": st.mtime}
        if given:
            filesystem.set_attributes(ino, **given)
        if "mode" not in preserve and "xattrs" not in preserve:
            return
        with _source_errors("cannot read the attributes of", label):
            found = source.xattrs(node)
        if exact_mode:
            for name in ACLS & filesystem.xattrs(ino).keys() - found.keys():
                filesystem.remove_xattr(ino, name)
        for name, value in found.items():
            if "xattrs" in preserve or name in ACLS:
                filesystem.set_xattr(ino, name, value)

    def _advance(self, count: int) -> None:
        self.bytes += count
        self._progress.advance(count)


@contextmanager
def _source_errors(
    what: str, label: str, more: str = "", kinds: tuple[type[Ext3Error], ...] = (PathError, SourceError)
) -> Iterator[None]:
    """Turn errors of reading a source into CopyError, except those that concern every file."""
    try:
        yield
    except kinds as error:
        text = f"error reading '{label}': {error.reason if isinstance(error, SourceError) else error.message}"
        raise CopyError(text, kind=error.kind, path=label, hint=error.hint) from error
    except Ext3Error:
        raise
    except OSError as error:
        if error.errno in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        kind = "not-found" if isinstance(error, FileNotFoundError) else "source"
        raise CopyError(f"{what} '{label}'{more}: {error.strerror or error}", kind=kind, path=label) from error
