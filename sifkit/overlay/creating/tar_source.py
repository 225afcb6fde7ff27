"""Tar archive as the source of a tree: an OCI layer, or any other archive.

The archive is read once, forwards, and its members are merged (see ``layer_merge``) before they are added to the tree. File
data is not unpacked: the content returned reads it from the archive, or from a spool if it is compressed or piped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from ext3.newfs.builder import TreeBuilder

from ...errors import show
from ...tar.errors import ArchiveError
from ...tar.members import read_members
from ...tar.stream import Archive, ArchiveSource, SpoolDirectory, open_archive
from .archive_content import ArchiveContent
from .archive_errors import source_error
from .layer_merge import LayerMerge
from .layout import RootAttributes

__all__ = ["MergedArchive", "TarScan", "read_tar", "scan_tar"]

PROGRESS_STEP = 256


class ImageArchiveError(ArchiveError):
    """Archive of a container image: layers inside an archive, not files. ``format``: "docker save" or "OCI layout"."""

    def __init__(self, path: bytes, format: str) -> None:
        transport = "docker-archive" if format == "docker save" else "oci-archive"
        hint = f"unpack it and give a layer, or make a container of it: apptainer build NAME.sif {transport}:{show(path)}"
        super().__init__(path, f"this is a container image ({format}), not the files of one", hint=hint)
        self.format = format


@dataclass(frozen=True, slots=True)
class TarScan:
    """Result of adding an archive to a tree. Close the content, or leave the context, when the image is written.

    ``root`` is None without an entry for the top; ``root_xattrs`` are the top's attributes in any case (a layer may make it
    opaque without an entry). ``files`` counts names added, ``data_bytes`` the lengths of files. ``notes``: for the user.
    """

    content: ArchiveContent
    root: RootAttributes | None
    root_xattrs: dict[bytes, bytes]
    files: int
    data_bytes: int
    notes: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.content.close()


def scan_tar(
    builder: TreeBuilder,
    root: int,
    source: ArchiveSource,
    *,
    xattr_filter: Callable[[bytes], bool],
    progress: Callable[[int], None] | None = None,
    spool_dir: SpoolDirectory | None = None,
    data_limit: int | None = None,
) -> TarScan:
    """Add the entries of a tar archive below ``root``, a directory node of ``builder`` that was added already.

    ``source``: a path, or a binary file object (kept open until the content is closed, and not closed by it). Attributes
    that ``xattr_filter`` refuses, and members that are no files, are counted in ``builder.left_out``. ``progress`` is called
    with the number of members read since the last call. ``spool_dir``: for the data of a packed or piped archive, of which
    there may be at most ``data_limit`` bytes. The caller applies ``TarScan.root`` and closes the content.
    Raises SourceError with the archive's name, the member and the byte; its cause is an ArchiveError with the same values.
    Raises NoSpaceError for too much data.
    """
    with read_tar(source, xattr_filter=xattr_filter, progress=progress, spool_dir=spool_dir, data_limit=data_limit) as found:
        return found.add_to(builder, root)


def read_tar(
    source: ArchiveSource,
    *,
    xattr_filter: Callable[[bytes], bool],
    progress: Callable[[int], None] | None = None,
    advance: Callable[[int], None] | None = None,
    spool_dir: SpoolDirectory | None = None,
    data_limit: int | None = None,
) -> MergedArchive:
    """Read and merge an archive, for a caller who needs the names at its top before choosing where it goes.

    ``advance`` is told how many bytes of the archive, as it is packed, are read. Other arguments and errors: see ``scan_tar``.
    """
    try:
        archive = open_archive(source, spool_dir=spool_dir, data_limit=data_limit, advance=advance)
        return _read(archive, xattr_filter, progress or _ignore)
    except ArchiveError as error:
        raise source_error(error) from error


def _read(archive: Archive, xattr_filter: Callable[[bytes], bool], progress: Callable[[int], None]) -> MergedArchive:
    try:
        merge = LayerMerge(archive, xattr_filter)
        count = 0
        for count, member in enumerate(read_members(archive), 1):
            merge.add(member)
            if count % PROGRESS_STEP == 0:
                progress(PROGRESS_STEP)
        if merge.image_format:
            raise ImageArchiveError(archive.path, merge.image_format)
        content = ArchiveContent(archive.finish())
    except BaseException:
        archive.close()
        raise
    if count % PROGRESS_STEP:
        progress(count % PROGRESS_STEP)
    return MergedArchive(merge, content)


def _ignore(count: int) -> None:
    """Report no progress."""


class MergedArchive:
    """Archive that was read and is not yet part of a tree. Leaving its context closes the content, unless it was added."""

    def __init__(self, merge: LayerMerge, content: ArchiveContent) -> None:
        self._merge = merge
        self._content = content
        self._added = False

    @property
    def top_names(self) -> set[bytes]:
        """Names at the top of the archive."""
        return self._merge.top_names

    @property
    def root(self) -> RootAttributes | None:
        """Attributes of the top; None if the archive has no entry for it."""
        return self._merge.root

    @property
    def root_xattrs(self) -> dict[bytes, bytes]:
        """Extended attributes of the top in any case: a layer may make it opaque without an entry."""
        return self._merge.root_xattrs

    def add_to(self, builder: TreeBuilder, root: int) -> TarScan:
        """Add everything below ``root``; the content is the caller's to close from then on."""
        files, data_bytes = self._merge.add_to(builder, root, self._content)
        builder.left_out.merge(self._merge.left_out)
        self._added = True
        notes = tuple(self._merge.notes)
        return TarScan(self._content, self.root, self.root_xattrs, files, data_bytes, notes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._added:
            self._content.close()
