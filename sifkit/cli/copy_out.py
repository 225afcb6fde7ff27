"""``sifkit cp`` out of an image, onto the host."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import SifkitError, UsageError, counted, show
from .support.copying import CopySettings, base_name, finish, partition_of, source_in_image
from .support.editing import Changes, Goal
from .support.image_path import place
from .support.progress import Reporter
from .support.reading import looking, on_host
from .support.render import shell_word

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

    from ..overlay.resolve import Resolver

__all__ = ["copy_out"]


def copy_out(
    changes: Changes, sources: Sequence[str], target: str, settings: CopySettings, bar: Reporter, *, force: bool
) -> int:
    """Copy to a path of the host; the exit code."""
    into_directory = not settings.exact and os.path.isdir(target)
    if len(sources) > 1 and not into_directory:
        reason = "Not a directory" if os.path.lexists(target) else "No such file or directory"
        raise SifkitError(f"target '{show(target)}': {reason}", path=target, hint="make the directory first")
    work = _CopyOut(changes, settings, bar, force=force)
    for source in sources:
        inside = place(source)
        if inside is None:
            raise UsageError(f"{show(source)} is not in an image, and neither is {show(target)}", hint="cp copies that")
        with looking(changes.console, inside[0], partition_of(inside[0], settings), upper=settings.change.upper) as view:
            resolver = view.resolver
            ino = source_in_image(changes, resolver, source, os.fsencode(inside[1]), settings)
            if ino is not None:
                name = base_name(inside[1])
                inside_target = into_directory and name not in (b"", b".", b"..")
                goal = os.path.join(os.fsencode(target), name) if inside_target else os.fsencode(target)
                work.copy(resolver, os.path.realpath(inside[0]), ino, show(source), goal)
    bar.tell_times(changes.console)
    return finish(changes, (place(sources[0]) or ("", ""))[0], work.bytes)


class _CopyOut:
    def __init__(self, changes: Changes, settings: CopySettings, bar: Reporter, *, force: bool) -> None:
        self.changes = changes
        self.settings = settings
        self.bar = bar
        self.force = force
        self.bytes = 0
        self._given: set[tuple[str, int, str]] = set()
        self._made: set[bytes] = set()
        self._links: dict[tuple[str, int], bytes] = {}

    def copy(self, resolver: Resolver, image: str, ino: int, shown: str, goal: bytes) -> None:
        """Copy one to the path ``goal``; trouble with it is told."""
        found = resolver.stat(ino)
        if found.is_dir and not self.settings.copy.recursive:
            self._refuse(f"-r not specified; omitting directory '{shown}'", goal, kind="is-a-directory", hint="give -r")
            return
        key = image, ino, shown.rstrip("/")
        if key in self._given:
            self.changes.console.warn(f"source {'directory' if found.is_dir else 'file'} '{shown}' specified more than once")
            return
        self._given.add(key)
        try:
            if found.is_dir:
                self._tree(resolver, image, found, shown, goal)
            else:
                self._file(resolver, image, found, shown, goal)
        except OSError as error:
            if hasattr(error, "kind"):
                raise
            noun = {stat.S_IFREG: "regular file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link"}
            word = f"create {noun.get(stat.S_IFMT(found.mode), 'special file')}"
            if error.errno == errno.ELOOP:
                word = "stat"
            text = f"cannot {word} '{show(goal)}': {error.strerror}"
            if found.is_dir and os.path.isdir(goal):  # it is there: something in it failed
                text = f"copying '{shown}' to '{show(goal)}': {error.strerror}"
            self._refuse(text, goal, kind="no-space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "target")

    def _refuse(self, text: str, goal: bytes, *, kind: str = "path", hint: str = "") -> None:
        self.changes.refuse(text, Goal("", goal, show(goal)), kind=kind, hint=hint)

    def _tree(self, resolver: Resolver, image: str, found: Stat, what: str, goal: bytes) -> None:
        from ..overlay.copy_out import copy_tree_out

        shown = show(goal)
        if os.path.lexists(goal) and not os.path.isdir(goal):
            text = f"cannot overwrite non-directory '{shown}' with directory '{what}'"
            self._refuse(text, goal, kind="not-a-directory")
            return
        made = copy_tree_out(
            resolver.filesystem, found.ino, goal, self.settings.copy, image_id=on_host(image), progress=self.bar
        )
        for path, why in made.problems:
            self._refuse(f"cannot copy '{what.rstrip('/')}/{show(path)}': {why}", goal)
        if made.specials_left:
            text = f"cannot create {counted(made.specials_left, 'device')} in '{shown}': Operation not permitted"
            self._refuse(text, goal, kind="permission", hint="only root may make them")
        self.changes.done += made.files + made.directories + made.symlinks + made.specials + made.links
        self.changes.console.detail(f"'{what}' -> '{shown}'")
        self.bytes += made.written_bytes

    def _file(self, resolver: Resolver, image: str, found: Stat, what: str, goal: bytes) -> None:
        from ..overlay.copy_out import copy_file_out

        shown, options = show(goal), self.settings.copy
        regular = stat.S_ISREG(found.mode)
        if not regular and not options.recursive and not (options.links and found.is_symlink):
            self._refuse(f"'{what}' is not a regular file", goal, hint="-r copies devices and fifos as such")
            return
        if not self._may_write(what, goal, image, regular=regular):
            return
        twin = self._links.get((image, found.ino)) if "links" in options.preserve else None
        if twin is not None:
            if os.path.lexists(goal):
                os.unlink(goal)
            os.link(twin, goal, follow_symlinks=False)
        else:
            self.bar.phase("copy", found.size, "bytes")
            self.bytes += copy_file_out(resolver.filesystem, found.ino, goal, options, advance=self.bar.advance).written_bytes
            self.bar.done()
        if found.links > 1:
            self._links[image, found.ino] = goal
        self._made.add(goal)
        self.changes.each(f"'{what}' -> '{shown}'")

    def _may_write(self, what: str, goal: bytes, image: str, *, regular: bool) -> bool:
        """Whether a file may be put there; why not is told. OSError where the path leads nowhere."""
        shown = show(goal)
        plain = goal.rstrip(b"/") or b"/"
        if plain != goal and not os.path.isdir(plain):
            if os.path.lexists(plain):
                self._refuse(f"cannot stat '{shown}': Not a directory", goal, kind="not-a-directory")
                return False
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), goal)
        if not os.path.lexists(goal):
            return True
        is_link = os.path.islink(goal)
        if os.path.isdir(goal) and not is_link:
            text = f"cannot overwrite directory '{shown}' with non-directory '{what}'"
            self._refuse(text, goal, kind="is-a-directory")
            return False
        if not self.settings.copy.replace:
            return False
        if os.path.exists(goal) and os.path.samefile(goal, image):
            hint = f"write {shell_word(os.fsdecode(goal))}:/ for a place in it"
            self._refuse(f"'{shown}' is the image itself, and not overwritten", goal, kind="exists", hint=hint)
            return False
        if not self.force and os.path.basename(goal) != os.path.basename(os.fsencode(what)) and _is_image(goal):
            hint = f"write {shell_word(os.fsdecode(goal))}:/ for a place in it, or -f to replace it"
            self._refuse(f"'{shown}' is an image, and not overwritten with '{what}'", goal, kind="exists", hint=hint)
            return False
        if goal in self._made:
            self._refuse(f"will not overwrite just-created '{shown}' with '{what}'", goal, kind="exists")
            return False
        if is_link and regular:
            try:
                os.stat(goal)
            except FileNotFoundError:
                self._refuse(f"not writing through dangling symlink '{shown}'", goal)
                return False
        if self.force and not os.access(goal, os.W_OK):
            os.unlink(goal)
        return True


def _is_image(path: bytes) -> bool:
    """Whether there is an image: then a ``:/`` was forgotten, rather than a file meant."""
    from ..overlay.image_format import file_format

    try:
        return os.path.isfile(path) and file_format(path) in ("ext", "sif", "squashfs")
    except OSError:
        return False
