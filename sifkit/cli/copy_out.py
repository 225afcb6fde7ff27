"""``sifkit cp`` out of an image, onto the host."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import SifkitError, UsageError, counted, shell_quote, show
from .support.copying import CopySettings, base_name, find_source, finish_copy, partition_of
from .support.editing import EditBatch
from .support.image_path import ImagePath, split_image_path
from .support.progress import Reporter
from .support.reading import host_identity, open_for_reading

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

    from ..vfs.resolve import Resolver

__all__ = ["copy_out"]


def copy_out(
    batch: EditBatch, sources: Sequence[str], target: str, settings: CopySettings, bar: Reporter, *, force: bool
) -> int:
    """Copy to a path on the host; return the exit code."""
    into_directory = not settings.exact and os.path.isdir(target)
    if len(sources) > 1 and not into_directory:
        reason = "Not a directory" if os.path.lexists(target) else "No such file or directory"
        raise SifkitError(f"target '{show(target)}': {reason}", path=target, hint="create the directory first")
    work = _CopyOut(batch, settings, bar, force=force)
    for source in sources:
        inside = split_image_path(source)
        if inside is None:
            raise UsageError(f"neither {show(source)} nor {show(target)} is in an image", hint="copy host files with cp")
        partition = partition_of(inside[0], settings)
        with open_for_reading(batch.console, inside[0], partition, upper=settings.flags.upper) as view:
            resolver = view.resolver
            ino = find_source(batch, resolver, source, os.fsencode(inside[1]), settings)
            if ino is not None:
                name = base_name(inside[1])
                inside_target = into_directory and name not in (b"", b".", b"..")
                destination = os.path.join(os.fsencode(target), name) if inside_target else os.fsencode(target)
                work.copy(resolver, os.path.realpath(inside[0]), ino, show(source), destination)
    bar.print_times(batch.console)
    return finish_copy(batch, (split_image_path(sources[0]) or ("", ""))[0], work.bytes)


class _CopyOut:
    def __init__(self, batch: EditBatch, settings: CopySettings, bar: Reporter, *, force: bool) -> None:
        self.batch = batch
        self.settings = settings
        self.bar = bar
        self.force = force
        self.bytes = 0
        self._given: set[tuple[str, int, str]] = set()
        self._made: set[bytes] = set()
        self._links: dict[tuple[str, int], bytes] = {}

    def copy(self, resolver: Resolver, image: str, ino: int, shown: str, destination: bytes) -> None:
        """Copy one file to the path ``destination``; errors are recorded."""
        found = resolver.stat(ino)
        if found.is_dir and not self.settings.copy.recursive:
            self._refuse(f"-r not specified; omitting directory '{shown}'", destination, kind="is-a-directory", hint="give -r")
            return
        key = image, ino, shown.rstrip("/")
        if key in self._given:
            self.batch.console.warn(f"source {'directory' if found.is_dir else 'file'} '{shown}' specified more than once")
            return
        self._given.add(key)
        try:
            if found.is_dir:
                self._tree(resolver, image, found, shown, destination)
            else:
                self._file(resolver, image, found, shown, destination)
        except OSError as error:
            if hasattr(error, "kind"):
                raise
            noun = {stat.S_IFREG: "regular file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link"}
            word = f"create {noun.get(stat.S_IFMT(found.mode), 'special file')}"
            if error.errno == errno.ELOOP:
                word = "stat"
            text = f"cannot {word} '{show(destination)}': {error.strerror}"
            if found.is_dir and os.path.isdir(destination):  # it exists: something below it failed
                text = f"copying '{shown}' to '{show(destination)}': {error.strerror}"
            self._refuse(text, destination, kind="no-space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "target")

    def _refuse(self, text: str, destination: bytes, *, kind: str = "path", hint: str = "") -> None:
        self.batch.refuse(text, ImagePath("", destination, show(destination)), kind=kind, hint=hint)

    def _tree(self, resolver: Resolver, image: str, found: Stat, what: str, destination: bytes) -> None:
        from ..overlay.copy_out import copy_tree_out

        shown = show(destination)
        if os.path.lexists(destination) and not os.path.isdir(destination):
            text = f"cannot overwrite non-directory '{shown}' with directory '{what}'"
            self._refuse(text, destination, kind="not-a-directory")
            return
        made = copy_tree_out(
            resolver.filesystem, found.ino, destination, self.settings.copy, image_id=host_identity(image), progress=self.bar
        )
        for path, why in made.problems:
            self._refuse(f"cannot copy '{what.rstrip('/')}/{show(path)}': {why}", destination)
        if made.specials_left:
            text = f"cannot create {counted(made.specials_left, 'device')} in '{shown}': Operation not permitted"
            self._refuse(text, destination, kind="permission", hint="only root can create devices")
        self.batch.done += made.files + made.directories + made.symlinks + made.specials + made.links
        self.batch.console.detail(f"'{what}' -> '{shown}'")
        self.bytes += made.written_bytes

    def _file(self, resolver: Resolver, image: str, found: Stat, what: str, destination: bytes) -> None:
        from ..overlay.copy_out import copy_file_out

        shown, options = show(destination), self.settings.copy
        regular = stat.S_ISREG(found.mode)
        if not regular and not options.recursive and not (options.links and found.is_symlink):
            self._refuse(f"'{what}' is not a regular file", destination, hint="-r copies devices and FIFOs as such")
            return
        if not self._may_write(what, destination, image, regular=regular):
            return
        first = self._links.get((image, found.ino)) if "links" in options.preserve else None
        if first is not None:
            if os.path.lexists(destination):
                os.unlink(destination)
            os.link(first, destination, follow_symlinks=False)
        else:
            self.bar.phase("copy", found.size, "bytes")
            self.bytes += copy_file_out(
                resolver.filesystem, found.ino, destination, options, advance=self.bar.advance
            ).written_bytes
            self.bar.done()
        if found.links > 1:
            self._links[image, found.ino] = destination
        self._made.add(destination)
        self.batch.count(f"'{what}' -> '{shown}'")

    def _may_write(self, what: str, destination: bytes, image: str, *, regular: bool) -> bool:
        """Return True if a file may be written there, else record the error. Raises OSError for a bad path."""
        shown = show(destination)
        plain = destination.rstrip(b"/") or b"/"
        if plain != destination and not os.path.isdir(plain):
            if os.path.lexists(plain):
                self._refuse(f"cannot stat '{shown}': Not a directory", destination, kind="not-a-directory")
                return False
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), destination)
        if not os.path.lexists(destination):
            return True
        is_link = os.path.islink(destination)
        if os.path.isdir(destination) and not is_link:
            text = f"cannot overwrite directory '{shown}' with non-directory '{what}'"
            self._refuse(text, destination, kind="is-a-directory")
            return False
        if not self.settings.copy.replace:
            return False
        if os.path.exists(destination) and os.path.samefile(destination, image):
            hint = f"write {shell_quote(os.fsdecode(destination))}:/ to copy into it"
            self._refuse(f"will not overwrite '{shown}': it is the source image", destination, kind="exists", hint=hint)
            return False
        if not self.force and os.path.basename(destination) != os.path.basename(os.fsencode(what)) and _is_image(destination):
            hint = f"write {shell_quote(os.fsdecode(destination))}:/ to copy into it, or give -f to replace it"
            self._refuse(f"will not overwrite image '{shown}' with '{what}'", destination, kind="exists", hint=hint)
            return False
        if destination in self._made:
            self._refuse(f"will not overwrite just-created '{shown}' with '{what}'", destination, kind="exists")
            return False
        if is_link and regular:
            try:
                os.stat(destination)
            except FileNotFoundError:
                self._refuse(f"not writing through dangling symlink '{shown}'", destination)
                return False
        if self.force and not os.access(destination, os.W_OK):
            os.unlink(destination)
        return True


def _is_image(path: bytes) -> bool:
    """Return True if a file is an image, so that ``:/`` was probably forgotten."""
    from ..overlay.image_format import file_format

    try:
        return os.path.isfile(path) and file_format(path) in ("ext", "sif", "squashfs")
    except OSError:
        return False
