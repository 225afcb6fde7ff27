"""Source of an overlay (a directory, an archive or nothing) as the tree of the whole image."""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from ext3.errors import Ext3Error, SourceError
from ext3.hostio import HostPath
from ext3.newfs.content import Content, MemoryContent
from ext3.progress import Progress
from ext3.scan.host_directory import ScanOptions, host_times, scan_directory

from ...errors import counted, show
from ...vfs.whiteouts import FUSE_LEFTOVER, OPAQUE_WHITEOUT, OPAQUE_XATTRS, is_opaque
from ..images.image_format import file_format
from ..options import CreateOptions, ImageLayout
from ..xattr_filter import xattr_predicate
from .exclude import path_filter
from .layout import ImageTree, RootAttributes, choose_layout, split_prefix
from .request import data_limit
from .source_warnings import source_warnings

if TYPE_CHECKING:
    from ext3.newfs.builder import TreeBuilder
    from ext3.newfs.tree import Tree

__all__ = ["ScannedSource", "scan_source"]

MAX_UNREADABLE_SHOWN = 20
_IMAGES = {"ext": "an ext3", "sif": "a SIF", "squashfs": "a squashfs"}


@dataclass(frozen=True, slots=True)
class ScannedSource:
    """Tree of an image with its source in it.

    ``entries``: names from the source; ``excluded``: names left out by ``--exclude`` (a directory counts once); ``notes``,
    ``warnings``: for the user.
    """

    image: ImageTree
    tree: Tree
    layout: ImageLayout
    entries: int
    excluded: int
    notes: list[str]
    warnings: list[str]


def scan_source(target: str, options: CreateOptions, progress: Progress, stack: ExitStack) -> ScannedSource:
    """Scan the source and add upper/ and work/. ``stack`` closes the source once the image is written.

    Raises LayoutError, SourceError, XattrError and UsageError for what cannot go in.
    """
    image = ImageTree()
    content: Content
    notes: list[str] = []
    excluded = _Tally()
    if options.from_dir is not None:
        layout, content = _from_directory(image, target, options, progress, excluded)
    elif options.from_tar is not None:
        layout, content, notes = _from_tar(image, target, options, progress, stack)
    else:
        layout = "data" if options.layout == "data" else "upper"
        image.created.append(image.add_root(layout, _default_attributes()))
        content = MemoryContent()
        image.add_missing(layout, _default_attributes())
    image.create_directories(options.create_dirs)
    notes += _notes(image, options, excluded.count)
    tree = image.builder.finish(content)
    image.set_owners(tree, options.owner, options.upper_owner)
    warnings = source_warnings(image, tree, layout, options.prefix)
    return ScannedSource(image, tree, layout, image.count_source_entries(tree), excluded.count, notes, warnings)


class _Tally:
    """Count of what is excluded, kept by several threads."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            self.count += 1


def _notes(image: ImageTree, options: CreateOptions, excluded: int) -> list[str]:
    """Return notes about the source. Raises SourceError if something would be lost that must not be."""
    notes = []
    builder = image.builder
    if excluded:
        notes.append(f"{counted(excluded, 'entry', 'entries')} of the source excluded (a directory counts once)")
    if builder.unreadable:
        listing = _unreadable(builder.unreadable)
        if not options.skip_unreadable:
            alone = len(builder.unreadable) == 1
            it = "it" if alone else "them"
            raise SourceError(
                builder.unreadable[0][0] if alone else os.fsencode(_source_name(options)),
                listing,
                hint=f"make {it} readable, --exclude {it}, or --skip-unreadable",
            )
        notes.append(
            f"left out: {show(builder.unreadable[0][0])} {listing}" if len(builder.unreadable) == 1 else f"left out: {listing}"
        )
    left_out = builder.left_out
    harmful = sorted(left_out.counts.keys() - left_out.harmless)
    if harmful and options.xattrs == "strict":
        first = left_out.first
        kinds = ", ".join(f"{show(name)} ({left_out.counts[name]:,}, first {show(first[name])})" for name in harmful)
        raise SourceError(_source_name(options), f"would lose: {kinds}", hint="--xattrs default leaves them out")
    if left_out.counts and options.xattrs != "none":
        kinds = ", ".join(f"{show(name)} ({count:,})" for name, count in sorted(left_out.counts.items()))
        notes.append(f"left out, because the image cannot store or use them: {kinds}")
    if image.upper is not None and is_opaque(builder.xattrs.get(image.upper, {})):
        notes.append(
            "the top of upper/ is opaque: the kernel ignores that and shows the lower layers; only fuse-overlayfs hides them"
        )
    return notes + _notes_of_fuse_overlayfs(builder)


def _notes_of_fuse_overlayfs(builder: TreeBuilder) -> list[str]:
    """Return notes of what fuse-overlayfs left in a directory and the kernel takes for something else."""
    notes = []
    if OPAQUE_WHITEOUT in builder.names:
        marks = (node for node, name in enumerate(builder.names) if name == OPAQUE_WHITEOUT)
        parents = {builder.row(node)[3] for node in marks}
        count = sum(builder.xattrs.get(parent, {}).keys().isdisjoint(OPAQUE_XATTRS) for parent in parents)
        if count:
            what = counted(count, "directory is", "directories are")
            notes.append(f"{what} opaque by .wh..wh..opq, which the kernel ignores: it shows what lower layers have there")
    leftovers = sum(builder.names[node] == FUSE_LEFTOVER for node, device in builder.devices.items() if device == (0, 0))
    if leftovers:
        what = counted(leftovers, "device .wh..opq", "devices .wh..opq")
        notes.append(f"{what} of fuse-overlayfs: in an opaque directory the kernel lists that name, and nobody can remove it")
    return notes


def _source_name(options: CreateOptions) -> str:
    if options.from_dir is not None:
        return os.fsdecode(options.from_dir)
    if isinstance(options.from_tar, str | bytes | os.PathLike):
        return os.fsdecode(options.from_tar)
    return "the archive"


def _unreadable(found: list[tuple[bytes, str]]) -> str:
    """Return the list of unreadable files: one line for one, else a line each."""
    if len(found) == 1:
        return f"cannot be read: {found[0][1]}"
    lines = [f"  {show(path)}: {reason}" for path, reason in found[:MAX_UNREADABLE_SHOWN]]
    if len(found) > MAX_UNREADABLE_SHOWN:
        lines.append(f"  and {len(found) - MAX_UNREADABLE_SHOWN:,} more")
    return f"{len(found):,} files and directories cannot be read:\n" + "\n".join(lines) + "\n"


def _prefix(options: CreateOptions) -> list[bytes]:
    return [] if options.prefix is None else split_prefix(options.prefix)


def _default_attributes() -> RootAttributes:
    uid, gid = (os.geteuid(), os.getegid()) if hasattr(os, "geteuid") else (0, 0)
    return RootAttributes(0o040755, uid, gid, (0,) * 6)


def _from_directory(
    image: ImageTree,
    target: str,
    options: CreateOptions,
    progress: Progress,
    tally: _Tally,
) -> tuple[ImageLayout, Content]:
    assert options.from_dir is not None
    source = os.fsencode(options.from_dir)
    try:
        found = os.stat(source)
        names = os.listdir(source)
    except OSError as error:
        hints = {errno.ENOTDIR: "for an archive use --from-tar", errno.EACCES: "run as a user who can read it"}
        hint = hints.get(error.errno or 0, "")
        raise SourceError(source, error.strerror or str(error), error=error, hint=hint) from error
    exclude = path_filter(options.exclude)
    temporary = _temporary_names(source, target)

    def excluded(path: bytes, is_directory: bool) -> bool:
        if exclude is not None and exclude(path, is_directory):
            tally.add()
            return True
        return temporary is not None and temporary.fullmatch(path) is not None

    never = _identities(target)
    top = [
        name for name in names if not excluded(name, False) and not (never and _identities(os.path.join(source, name)) & never)
    ]
    tally.count = 0  # the scan will count the top again
    layout = choose_layout(options.layout, top, os.fsdecode(source), prefix=options.prefix)
    attributes = RootAttributes(found.st_mode, found.st_uid, found.st_gid, host_times(found))
    node = image.add_root(layout, attributes, _prefix(options))
    content = scan_directory(
        image.builder,
        source,
        node,
        ScanOptions(
            take_attribute=None if options.xattrs == "none" else xattr_predicate(options.xattrs),
            exclude=excluded if exclude is not None or temporary is not None else None,
            never=never,
            one_file_system=options.one_file_system,
            skip_unreadable=options.skip_unreadable,
            allow_changed=options.allow_changed,
        ),
        progress,
    )
    image.add_missing(layout, attributes)
    return layout, content


def _from_tar(
    image: ImageTree, target: str, options: CreateOptions, progress: Progress, stack: ExitStack
) -> tuple[ImageLayout, Content, list[str]]:
    """Add the archive. Return its notes, too."""
    assert options.from_tar is not None
    from .tar_source import read_tar  # with the codecs: only for archives

    _reject_image(options)
    progress.phase("read", _regular_size(options.from_tar), "bytes")
    directory = options.temporary_dir
    try:
        found = stack.enter_context(
            read_tar(
                options.from_tar,
                xattr_filter=xattr_predicate(options.xattrs),
                advance=progress.advance,
                spool_dir=os.fsdecode(directory or os.path.dirname(os.path.realpath(target))),
                data_limit=data_limit(options),
            )
        )
    except OSError as error:
        if isinstance(error, Ext3Error):
            raise
        raise SourceError(_source_name(options), error.strerror or str(error), error=error) from error
    layout = choose_layout(options.layout, found.top_names, _source_name(options), prefix=options.prefix)
    top = found.root
    attributes = top or replace(_default_attributes(), xattrs=found.root_xattrs)
    node = image.add_root(layout, attributes, _prefix(options))
    if top is None:
        image.created.append(node)
    progress.phase("scan", None, "files")
    scan = stack.enter_context(found.add_to(image.builder, node))
    progress.advance(scan.files)
    image.add_missing(layout, attributes)
    return layout, scan.content, list(scan.notes)


def _reject_image(options: CreateOptions) -> None:
    """Raise SourceError for a filesystem instead of an archive: its first KiB may be zeros, as an empty archive."""
    source = options.from_tar
    if isinstance(source, str | bytes | os.PathLike) and os.path.isfile(source) and os.access(source, os.R_OK):
        found = file_format(source)
        if found in _IMAGES:
            hint = "to copy an overlay image: sifkit overlay clone; to copy files between images: sifkit cp -a"
            raise SourceError(_source_name(options), f"is {_IMAGES[found]} image, not an archive", hint=hint)


def _regular_size(source: HostPath | IO[bytes]) -> int | None:
    """Return the size of an archive in a regular file, None for others."""
    try:
        found = os.stat(source) if isinstance(source, str | bytes | os.PathLike) else os.fstat(source.fileno())
    except (OSError, AttributeError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _identities(path: str | bytes) -> frozenset[tuple[int, int]]:
    """Return (st_dev, st_ino) of a path and of the file it leads to; nothing if it does not exist."""
    found = set()
    for look in (os.stat, os.lstat):
        try:
            status = look(path)
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def _temporary_names(source: bytes, target: str) -> re.Pattern[bytes] | None:
    """Return a pattern for temporary files of a killed run beside the target, if the target is in the source."""
    directory, name = os.path.split(os.path.realpath(os.fsencode(target)))
    relative = os.path.relpath(directory, os.path.realpath(source))
    if relative.split(b"/")[0] == b"..":
        return None
    prefix = b"" if relative == b"." else re.escape(relative) + b"/"
    return re.compile(prefix + rb"\." + re.escape(name[:200]) + rb".*\.[0-9a-f]{6}\.tmp", re.DOTALL)
