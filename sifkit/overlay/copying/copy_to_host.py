"""Copies out of images, onto the host. The rules are those of coreutils' cp.

An error that concerns one file is an outcome and the file is skipped; one that concerns all is raised.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import HostFullError, ImageInUseError, TargetError, counted, shell_quote, show
from ...host_space import full_host_errors
from ...output_path import check_sticky_owner, descriptor_number, resolve_output
from ...replacing import ANY_FILE
from ...vfs.copy_out import CopyOutOptions, copy_file_out, copy_tree_out
from ...vfs.copy_outcome import Copied, CopyError, CopyOutcome, CopyWarning
from ...vfs.errors import reason_of
from ...vfs.file_tree import FileTree, Stat
from ...vfs.host_writer import create_over
from ...vfs.resolve import is_dir, is_symlink
from ..images.image_format import file_format
from .copy_options import CopyOptions

if TYPE_CHECKING:
    from ..options import Progress

__all__ = ["HostCopier"]

N = TypeVar("N")
NOUNS = {stat.S_IFREG: "regular file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link"}


class HostCopier:
    """Copier of files from images to paths of the host.

    ``force``: remove files that cannot be opened, and replace images. ``bytes``: data written so far.
    """

    def __init__(self, options: CopyOptions, *, force: bool, progress: Progress) -> None:
        self.bytes = 0
        self._options = options
        self._force = force
        self._progress = progress
        self._given: set[tuple[str, Any, str]] = set()
        self._made: set[bytes] = set()
        self._links: dict[tuple[str, int, int], bytes] = {}
        """First copies of files with several names."""

    def copy(self, tree: FileTree[N], node: N, image: str, shown: str, destination: bytes) -> Iterator[CopyOutcome]:
        """Copy a file or directory of the tree in ``image``, which messages call ``shown``, to the path ``destination``."""
        found = tree.stat(node)
        if is_dir(found) and not self._options.recursive:
            text = f"-r not specified; omitting directory '{shown}'"
            yield CopyError(text, kind="is-a-directory", path=destination, hint="give -r")
            return
        image = os.path.realpath(image)
        key = image, node, shown.rstrip("/")
        if key in self._given:
            yield CopyWarning(f"source {'directory' if is_dir(found) else 'file'} '{shown}' specified more than once")
            return
        self._given.add(key)
        try:
            yield from (self._tree if is_dir(found) else self._file)(tree, node, image, found, shown, destination)
        except HostFullError as error:
            yield CopyError(error.message, kind=error.kind, path=destination, hint=error.hint)
        except OSError as error:
            kind = getattr(error, "kind", None)
            if kind is not None:  # of the image
                hint = getattr(error, "hint", "")
                yield CopyError(f"error reading '{shown}': {reason_of(error)}", kind=kind, path=destination, hint=hint)
            else:
                yield _host_error(error, found, shown, destination)

    def _tree(
        self, tree: FileTree[N], node: N, image: str, found: Stat, what: str, destination: bytes
    ) -> Iterator[CopyOutcome]:
        shown = show(destination)
        if os.path.lexists(destination) and not os.path.isdir(destination):
            text = f"cannot overwrite non-directory '{shown}' with directory '{what}'"
            yield CopyError(text, kind="not-a-directory", path=destination)
            return
        host = os.stat(image)
        made = copy_tree_out(
            tree, node, destination, self._out_options, image_ids={(host.st_dev, host.st_ino)}, progress=self._progress
        )
        self.bytes += made.written_bytes
        for path, why in made.problems:
            yield CopyError(f"cannot copy '{what.rstrip('/')}/{show(path.lstrip(b'/'))}': {why}", path=destination)
        if made.specials_left:
            text = f"cannot create {counted(made.specials_left, 'device')} in '{shown}': Operation not permitted"
            yield CopyError(text, kind="permission", path=destination, hint="only root can create devices")
        yield Copied(what, shown, made.files + made.directories + made.symlinks + made.specials + made.links)

    @property
    def _out_options(self) -> CopyOutOptions:
        return CopyOutOptions(preserve=self._options.preserve, umask=self._options.umask)

    def _file(
        self, tree: FileTree[N], node: N, image: str, found: Stat, what: str, destination: bytes
    ) -> Iterator[CopyOutcome]:
        regular = stat.S_ISREG(found.mode)
        if not regular and not self._options.recursive and not (self._options.links and is_symlink(found)):
            text = f"'{what}' is not a regular file"
            yield CopyError(text, path=destination, hint="-r copies devices and FIFOs as such")
            return
        refused = self._refusal(what, destination, image, regular=regular)
        if refused is not None:
            yield refused
            return
        if os.path.lexists(destination) and not self._options.replace:
            return
        identity = image, found.dev, found.ino
        first = self._links.get(identity) if "links" in self._options.preserve else None
        problems: list[tuple[bytes, str]] = []
        with ExitStack() as held:
            try:
                target = held.enter_context(self._existing(destination, replaced=not regular or first is not None))
            except (TargetError, ImageInUseError) as error:
                text = f"will not overwrite '{show(destination)}' with '{what}': {error.message}"
                yield CopyError(text, kind=error.kind, path=destination)
                return
            if first is not None:
                _link(first, target)
            else:
                self._progress.phase("copy", found.size, "bytes")
                try:
                    with full_host_errors(os.fsdecode(destination), found.blocks * 512, size=found.size):
                        made = copy_file_out(tree, node, target, self._out_options, advance=self._progress.advance)
                except TargetError as error:
                    yield CopyError(error.message, kind=error.kind, path=destination, hint=error.hint)
                    return
                self.bytes += made.written_bytes
                self._progress.done()
                problems = made.problems
        for _, why in problems:
            yield CopyError(f"'{what}': {why}", kind="corrupt", path=destination)
        if found.links > 1:
            self._links[identity] = destination
        self._made.add(destination)
        yield Copied(what, show(destination))

    @contextmanager
    def _existing(self, destination: bytes, *, replaced: bool) -> Iterator[bytes]:
        """Check the file that is there, if any, and keep it from being used until the end of the block, which writes to it.

        Yields the name to write to: that of the file that was checked, where symbolic links lead to it. The file is removed
        first if it cannot be written to and the copier may remove it. ``replaced``: the block gives its name to a new file.
        Raises TargetError and ImageInUseError if it may not be removed or written to.
        """
        if not os.path.lexists(destination):
            yield destination
            return
        if replaced or (self._force and not os.access(destination, os.W_OK)):
            ANY_FILE.check_name(destination, shown="it")
            if not replaced:
                os.unlink(destination)
            yield destination
            return
        if descriptor_number(destination) is not None:
            name = os.fsdecode(destination)
        else:
            name = resolve_output(destination)
            if not os.path.isfile(name):
                check_sticky_owner(name)
        with ANY_FILE.hold(name, shown="it") if os.path.isfile(name) else nullcontext():  # devices and FIFOs are written into
            yield os.fsencode(name)

    def _refusal(self, what: str, destination: bytes, image: str, *, regular: bool) -> CopyError | None:
        """Return why a file may not be written there, None if it may. Raises OSError for a bad path."""
        shown = show(destination)
        plain = destination.rstrip(b"/") or b"/"
        if plain != destination and not os.path.isdir(plain):
            if os.path.lexists(plain):
                return CopyError(f"cannot stat '{shown}': Not a directory", kind="not-a-directory", path=destination)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), destination)
        if not os.path.lexists(destination):
            return None
        is_link = os.path.islink(destination)
        if os.path.isdir(destination) and not is_link:
            text = f"cannot overwrite directory '{shown}' with non-directory '{what}'"
            return CopyError(text, kind="is-a-directory", path=destination)
        if not self._options.replace:
            return None
        if os.path.exists(destination) and os.path.samefile(destination, image):
            text = f"will not overwrite '{shown}': it is the source image"
            return CopyError(text, kind="exists", path=destination, hint=_into(destination))
        same_name = os.path.basename(destination) == os.path.basename(os.fsencode(what))
        if not self._force and not same_name and _is_image(destination):
            hint = f"{_into(destination)}, or give -f to replace it"
            return CopyError(f"will not overwrite image '{shown}' with '{what}'", kind="exists", path=destination, hint=hint)
        if destination in self._made:
            text = f"will not overwrite just-created '{shown}' with '{what}'"
            return CopyError(text, kind="exists", path=destination)
        if is_link and regular and not os.path.exists(destination):
            return CopyError(f"not writing through dangling symlink '{shown}'", path=destination)
        return None


def _link(first: bytes, destination: bytes) -> None:
    """Create a hard link to the file ``first``, which replaces one that is there."""

    def create(name: bytes) -> None:
        os.link(first, name, follow_symlinks=False)

    try:
        create(destination)
    except FileExistsError:
        create_over(destination, create)


def _into(destination: bytes) -> str:
    """Return the hint for a target that is an image: ``:/`` was probably forgotten."""
    return f"write {shell_quote(os.fsdecode(destination))}:/ to copy into it"


def _host_error(error: OSError, found: Stat, shown: str, destination: bytes) -> CopyError:
    """Return the error of the host, in cp's words."""
    word = f"create {NOUNS.get(stat.S_IFMT(found.mode), 'special file')}"
    if error.errno == errno.ELOOP:
        word = "stat"
    text = f"cannot {word} '{show(destination)}': {error.strerror}"
    if is_dir(found) and os.path.isdir(destination):  # it exists: something below it failed
        text = f"copying '{shown}' to '{show(destination)}': {error.strerror}"
    kind = "no-space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "target"
    return CopyError(text, kind=kind, path=destination)


def _is_image(path: bytes) -> bool:
    """Return True if a file is an image, so that ``:/`` was probably forgotten."""
    try:
        return os.path.isfile(path) and file_format(path) in ("ext", "sif", "squashfs")
    except OSError:
        return False
