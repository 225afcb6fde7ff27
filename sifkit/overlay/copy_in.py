"""Copies into an image: from the host, from another image, or from the image itself. The rules are those of coreutils' cp.

A directory is merged into one of the same name; a file that is there gets the new content and stays the same file. Trouble
with one file is told and left out; what concerns all (no space, a damaged image) ends the copy.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeGuard, TypeVar

from ext3.errors import Ext3Error, PathError, SourceError, XattrError
from ext3.read.filesystem import Stat

from ..errors import SifkitError, show
from .copy_source import FileFacts, HostSource, ImageSource, Source
from .resolve import ResolvedPath
from .upper_edit import OverlayEditor
from .xattr_filter import ACLS

if TYPE_CHECKING:
    from .options import Progress

__all__ = ["PRESERVE_ALL", "PRESERVE_FACTS", "Copier", "CopyError", "CopyOptions"]

H = TypeVar("H")
MOST_DEEP = 2048
PRESERVE_FACTS = frozenset({"mode", "owner", "times"})
PRESERVE_ALL = PRESERVE_FACTS | {"xattrs", "links"}
NOUNS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
}


class CopyError(SifkitError):
    """One file that is not copied; ``kind`` as the error behind it has it."""

    def __init__(self, message: str, *, kind: str = "path", path: bytes | str | None = None, hint: str = "") -> None:
        super().__init__(message, path=path, hint=hint)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """``links``: symbolic links are copied as such, with ``recursive`` always. ``preserve``: any of PRESERVE_ALL. ``replace``
    False: files that are there stay. ``owner``, ``umask``: of new files whose owner and mode are not preserved."""

    recursive: bool = False
    links: bool = False
    preserve: frozenset[str] = frozenset()
    replace: bool = True
    owner: tuple[int, int] = (0, 0)
    umask: int = 0o022


Pending = list[tuple[H, str, FileFacts, int, list[tuple[bytes, H]], ResolvedPath]]
"""Directories on the way: handle, name to show, facts, inode of the copy, what is still to be copied, where it goes."""


class Copier:
    """Copies to one image. ``listed`` is told of each copy, ``trouble`` of what was left out, ``warn`` of what needs no copy.

    ``own``: device and inode of the image on the host, which is not copied into itself.
    """

    def __init__(
        self,
        editor: OverlayEditor,
        options: CopyOptions,
        *,
        name: Callable[[bytes], str],
        listed: Callable[[str, str], None],
        trouble: Callable[[SifkitError], None],
        warn: Callable[[str], None],
        progress: Progress,
        own: tuple[int, int] | None = None,
    ) -> None:
        self.editor = editor
        self.options = options
        self.files = self.bytes = 0
        """Names made or given new content, and bytes of their data."""
        self._name = name
        self._listed = listed
        self._trouble = trouble
        self._warn = warn
        self._progress = progress
        self._own = own
        self._noun = "regular file"
        self._leads_to: int | None = None
        self._links: dict[tuple[int, tuple[int, int]], int] = {}
        self._made: set[int] = set()
        """Directories that were made."""
        self._entered: set[tuple[int, int]] = set()
        self._given: set[tuple[int, tuple[int, int], str]] = set()
        self._named: set[tuple[int, bytes]] = set()
        """What was given on the command line, and where that went."""

    def copy(self, source: Source[H], handle: H, shown: str, spot: ResolvedPath, *, leads_to: int | None = None) -> None:
        """Copy to a place. Raises what ends all copying; the rest goes to ``trouble``.

        ``leads_to``: in the same image, the file a symbolic link that is copied as such leads to.
        """
        pending: Pending[H] = []
        self._leads_to = leads_to
        self._entered.clear()
        self._try(partial(self._one, source, handle, shown, spot, pending), spot)
        self._leads_to = None
        while pending:
            above, above_shown, facts, ino, rest, place = pending[-1]
            if not rest:
                pending.pop()
                self._try(partial(self._dress, source, above, above_shown, ino, facts), place)
                continue
            name, below = rest.pop()
            into = self.editor.child(place, name)
            self._try(partial(self._one, source, below, f"{above_shown.rstrip('/')}/{show(name)}", into, pending), into)

    def _try(self, work: Callable[[], None], spot: ResolvedPath) -> None:
        try:
            work()
        except CopyError as error:
            self._trouble(error)
        except (PathError, XattrError) as error:
            self._trouble(self.refused(error, spot.path))

    def refused(self, error: PathError | XattrError, path: bytes, noun: str = "", *, there: bool = False) -> CopyError:
        """What is told of a copy that cannot be made at ``path``. ``noun``: of what kind it is; ``there``: something is."""
        goal = self._name(path)
        if isinstance(error, XattrError):
            text = f"setting attributes of '{goal}': {error}"
        else:
            plain = error.errno not in (None, errno.EINVAL)
            what = "stat" if there or error.errno == errno.ELOOP else f"create {noun or self._noun}"
            why = error.message.removeprefix(f"{show(error.path or b'')}: ")
            text = f"cannot {what} '{goal}': {os.strerror(error.errno or 0) if plain else why}"
        return CopyError(text, kind=error.kind, path=path, hint=error.hint)

    def _one(self, source: Source[H], handle: H, shown: str, spot: ResolvedPath, pending: Pending[H]) -> None:
        with _reading("cannot stat", shown):
            facts = source.facts(handle)
        form = stat.S_IFMT(facts.mode)
        self._noun = NOUNS.get(form, "special file")
        if form == stat.S_IFDIR and not self.options.recursive:
            text = f"-r not specified; omitting directory '{shown}'"
            raise CopyError(text, kind="is-a-directory", path=shown, hint="give -r")
        if isinstance(source, HostSource) and facts.key == self._own:
            self._warn(f"'{shown}' is the image itself, and not copied")
            return
        if not pending and self._given_before(source, facts, shown):
            return
        there = None if spot.ino is None else self.editor.stat(spot.ino)
        goal = self._name(spot.path)
        if there is not None and self._is_same(source, facts, there):
            raise CopyError(f"'{shown}' and '{goal}' are the same file", path=spot.path)
        if there is not None and form != stat.S_IFDIR:
            if not self.options.replace:
                return
            if there.is_dir:
                text = f"cannot overwrite directory '{goal}' with non-directory '{shown}'"
                raise CopyError(text, kind="is-a-directory", path=spot.path)
        if there is not None and not there.is_dir:
            if not pending and spot.location in self._named:
                raise CopyError(f"will not overwrite just-created '{goal}' with '{shown}'", kind="exists", path=spot.path)
            if form == stat.S_IFDIR:
                text = f"cannot overwrite non-directory '{goal}' with directory '{shown}'"
                raise CopyError(text, kind="not-a-directory", path=spot.path)
        if not pending:
            self._named.add(spot.location)
        if form == stat.S_IFDIR:
            self._directory(source, handle, facts, there, shown, spot, pending)
            return
        self._file(source, handle, facts, spot, shown)
        self.files += 1
        self._listed(shown, goal)

    def _given_before(self, source: Source[H], facts: FileFacts, shown: str) -> bool:
        key = id(source), facts.key, shown.rstrip("/")
        if key not in self._given:
            self._given.add(key)
            return False
        kind = "directory" if stat.S_ISDIR(facts.mode) else "file"
        self._warn(f"source {kind} '{shown}' specified more than once")
        return True

    def _is_ours(self, source: Source[H]) -> TypeGuard[ImageSource]:
        return isinstance(source, ImageSource) and source.filesystem is self.editor.filesystem

    def _is_same(self, source: Source[H], facts: FileFacts, there: Stat) -> bool:
        if not self._is_ours(source):
            return False
        if stat.S_ISLNK(facts.mode) and not there.is_symlink:
            return self._leads_to == there.ino
        return facts.key[1] == there.ino

    def _directory(
        self,
        source: Source[H],
        handle: H,
        facts: FileFacts,
        there: Stat | None,
        shown: str,
        spot: ResolvedPath,
        pending: Pending[H],
    ) -> None:
        goal = self._name(spot.path)
        # A directory is not copied into itself; one that was just made is met where that was tried through a link.
        if self._is_ours(source) and (facts.key[1] in spot.ancestors or facts.key[1] in self._made):
            raise CopyError(f"cannot copy a directory, '{shown}', into itself, '{goal}'", path=spot.path)
        if len(pending) >= MOST_DEEP:
            raise CopyError(f"'{shown}': directories are nested deeper than {MOST_DEEP}", path=shown)
        if isinstance(source, ImageSource):
            if facts.key in self._entered:
                raise CopyError(f"'{shown}': the image is damaged: this directory is in it twice", kind="corrupt", path=shown)
            self._entered.add(facts.key)
        if there is not None:
            ino = there.ino
        else:
            ino = self._make_directory(facts.mode, spot)
            self._made.add(ino)
            self.files += 1
        self._listed(shown, goal)
        made = ResolvedPath(spot.path, spot.parent, spot.name, ino, spot.ancestors)
        pending.append((handle, shown, facts, ino, [], made))
        with _reading("cannot access", shown):
            pending[-1][4].extend(reversed(source.below(handle)))

    def _make_directory(self, mode: int, spot: ResolvedPath) -> int:
        """A new directory. As cp does it, what others may write is added to what a default ACL made of the rest."""
        (uid, gid), umask = self.options.owner, self.options.umask
        ino = self.editor.make_directory(spot, mode & 0o1755, uid=uid, gid=gid, umask=umask)
        made, writable = self.editor.stat(ino).mode, mode & 0o022 & ~umask
        if writable & ~made:
            self.editor.filesystem.chmod(ino, made | writable)
        return ino

    def _file(self, source: Source[H], handle: H, facts: FileFacts, spot: ResolvedPath, shown: str) -> None:
        filesystem, options = self.editor.filesystem, self.options
        form = stat.S_IFMT(facts.mode)
        key = id(source), facts.key
        twin = self._links.get(key) if "links" in options.preserve and facts.links > 1 else None
        old = None if spot.ino is None else self.editor.stat(spot.ino)
        if old is not None and old.is_symlink and form == stat.S_IFREG and twin is None:
            spot = self._through(spot)
            assert spot.ino is not None
            old = self.editor.stat(spot.ino)
            if self._is_same(source, facts, old):  # it would be emptied before it is read
                raise CopyError(f"'{shown}' and '{self._name(spot.path)}' are the same file", path=spot.path)
        if form != stat.S_IFREG and not options.recursive and not (options.links and form == stat.S_IFLNK):
            hint = "-r copies devices and fifos as what they are"
            raise CopyError(f"'{shown}' is not a regular file", path=shown, hint=hint)
        keeps = old is not None and stat.S_ISREG(old.mode) and form == stat.S_IFREG
        if keeps and old is not None and twin is None and not ("links" in options.preserve and old.links > 1):
            self._fill(source, handle, old.ino, shown)
            self._finish(source, handle, shown, old.ino, facts)
            return
        if twin is not None and twin == spot.ino:
            return
        if spot.ino is not None:
            filesystem.unlink_at(*spot.location)
        with self.editor.replacing_whiteouts(spot):
            if twin is not None:
                self._noun = "hard link"
                filesystem.link_at(twin, *spot.location)
                return
            ino = self._make(source, handle, facts, spot, shown)
        self._finish(source, handle, shown, ino, facts)

    def _make(self, source: Source[H], handle: H, facts: FileFacts, spot: ResolvedPath, shown: str) -> int:
        """A new file that is no directory; its inode."""
        filesystem, (uid, gid) = self.editor.filesystem, self.options.owner
        form = stat.S_IFMT(facts.mode)
        umask = self.options.umask
        mode = form | facts.mode & (0o777 if form == stat.S_IFREG else 0o7777)
        if form == stat.S_IFLNK:
            with _reading("cannot read symbolic link", shown):
                target = source.target(handle)
            return filesystem.symlink_at(target, *spot.location, uid=uid, gid=gid)
        if form != stat.S_IFREG:
            return filesystem.mknod_at(*spot.location, mode, rdev=facts.rdev, uid=uid, gid=gid, umask=umask)
        ino = filesystem.create_nameless(spot.parent, mode, uid=uid, gid=gid, umask=umask)
        try:
            self._fill(source, handle, ino, shown)
            filesystem.name_at(ino, *spot.location)
        finally:
            filesystem.release(ino)
        return ino

    def _fill(self, source: Source[H], handle: H, ino: int, shown: str) -> None:
        with _reading("cannot open", shown, " for reading", (SourceError,)):  # a PathError is about the copy
            source.fill(handle, self.editor.filesystem, ino, self._advance)

    def _through(self, spot: ResolvedPath) -> ResolvedPath:
        """Where a link in the image leads, for a file is written through it."""
        found = self.editor.resolve(spot.path, follow=True)
        if found.ino is None:
            raise CopyError(f"not writing through dangling symlink '{self._name(spot.path)}'", path=spot.path)
        if self.editor.stat(found.ino).is_dir:
            raise CopyError(f"cannot overwrite directory '{self._name(spot.path)}'", kind="is-a-directory", path=spot.path)
        return found

    def _finish(self, source: Source[H], handle: H, shown: str, ino: int, facts: FileFacts) -> None:
        if facts.links > 1:
            self._links[id(source), facts.key] = ino
        self._dress(source, handle, shown, ino, facts)

    def _dress(self, source: Source[H], handle: H, shown: str, ino: int, facts: FileFacts) -> None:
        """Owner, mode, attributes and times, in this order: each of them may change those before it."""
        filesystem, preserve = self.editor.filesystem, self.options.preserve
        if "owner" in preserve:
            filesystem.chown(ino, facts.uid, facts.gid)
        if "mode" in preserve and not stat.S_ISLNK(facts.mode):
            filesystem.chmod(ino, stat.S_IMODE(facts.mode))
        if "mode" in preserve or "xattrs" in preserve:
            with _reading("cannot read the attributes of", shown):
                found = source.xattrs(handle)
            for name, value in found.items():
                if "xattrs" in preserve or name in ACLS:
                    filesystem.set_xattr(ino, name, value)
            if "mode" in preserve and not stat.S_ISLNK(facts.mode):
                for name in ACLS - found.keys():  # it came from the directory
                    filesystem.remove_xattr(ino, name)
        if "times" in preserve:
            filesystem.utimens(ino, facts.atime, facts.mtime)

    def _advance(self, count: int) -> None:
        self.bytes += count
        self._progress.advance(count)


@contextmanager
def _reading(
    what: str, shown: str, more: str = "", kinds: tuple[type[Ext3Error], ...] = (PathError, SourceError)
) -> Iterator[None]:
    """Errors of a source become those of one file; what concerns all of them stays what it is."""
    try:
        yield
    except kinds as error:
        text = f"error reading '{shown}': {error.message.removeprefix('the source: ')}"
        raise CopyError(text, kind=error.kind, path=shown, hint=error.hint) from error
    except Ext3Error:
        raise
    except OSError as error:
        if error.errno in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        kind = "not-found" if isinstance(error, FileNotFoundError) else "source"
        raise CopyError(f"{what} '{shown}'{more}: {error.strerror or error}", kind=kind, path=shown) from error
