"""Inspection of containers: labels, scripts, environment, help, definition file and apps, without running anything.

A SIF that Apptainer built has them in the object ``inspect-metadata.json``, and its definition file in another. Elsewhere they
are read from the files in ``/.singularity.d`` and ``/scif/apps/NAME/scif`` of the root, whose symlinks never lead out of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ext3.hostio import HostPath

from ...errors import FormatError, SifkitError, human, show
from ...vfs.errors import TreePathError
from ...vfs.file_tree import DIRECTORY, REGULAR, FileTree, file_type_of
from ...vfs.resolve import Resolver
from ..images.image_format import is_sif
from .container import open_root
from .container_metadata import (
    APP_KEYS,
    AppMetadata,
    ContainerMetadata,
    decode_text,
    encode_text,
    parse_labels,
    parse_metadata,
)

if TYPE_CHECKING:
    from ...sif import SIF, Descriptor

__all__ = [
    "EVERYTHING",
    "InspectRequest",
    "Inspection",
    "MetadataSizeError",
    "UnknownAppError",
    "inspect_image",
    "inspect_tree",
]

N = TypeVar("N")
METADATA_NAME = b"inspect-metadata.json"
FILE_LIMIT = 16 << 20
"""Limit in bytes of one file or object; usual are some KiB."""
TOTAL_LIMIT = 64 << 20
"""Limit in bytes of all files of a container together."""
MOST_NAMES = 1000
"""Most apps, and most scripts of the environment of a container or an app."""
READ_BYTES = 1 << 20
_DIRECTORY = b"/.singularity.d"
_APPS = b"/scif/apps"
_ENVIRONMENT = (b"10-docker*.sh", b"9*-environment.sh")
_APP_ENVIRONMENT = (b"9*-environment.sh",)
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_DEFFILES = (b"Singularity", b"Apptainer")
"""Names of the definition file; Apptainer 1.4 still reads the first."""


class UnknownAppError(SifkitError):
    """App that a container does not have."""

    kind = "not-found"


class MetadataSizeError(FormatError):
    """Metadata that are larger than the limit for memory."""

    kind = "too-large"

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"{what}: {human(size)} of metadata, more than the limit of {human(limit)}")
        self.size_bytes = size
        self.limit_bytes = limit


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectRequest:
    """Selection to show. ``list_apps``: the names of apps. ``app``: show that app's attributes, "" for the container's.

    ``everything``: all of the container and of all apps; the others do not matter then.
    """

    labels: bool = False
    deffile: bool = False
    runscript: bool = False
    startscript: bool = False
    test: bool = False
    environment: bool = False
    helpfile: bool = False
    list_apps: bool = False
    app: str = ""
    everything: bool = False

    def wants(self, key: str) -> bool:
        """Return True if the attribute ``key`` is to be shown."""
        return self.everything or bool(getattr(self, key))


EVERYTHING = InspectRequest(everything=True)


@dataclass(slots=True)
class Inspection:
    """Result: what was asked for, and problems that were met, a line each."""

    metadata: ContainerMetadata = field(default_factory=ContainerMetadata)
    warnings: list[str] = field(default_factory=list)


def inspect_image(path: HostPath, request: InspectRequest) -> Inspection:
    """Inspect the container in a SIF, a squashfs or ext3 image, or a directory of the host.

    Raises UnknownAppError, FormatError for a file of another format or metadata that are too large, and the errors of opening
    and reading the image.
    """
    name = os.fsdecode(path)
    try:
        if is_sif(name):
            from ...sif import SIF

            with SIF.open(name) as sif:
                return _inspect_sif(sif, name, request)
        with open_root(name) as tree:
            return inspect_tree(tree, request)
    except SifkitError as error:
        # Paths in errors of a tree are paths in the container; the caller names the image.
        if not isinstance(error, TreePathError):
            error.set_path(name)
        raise


def _inspect_sif(sif: SIF, name: str, request: InspectRequest) -> Inspection:
    from ...sif import DataType

    deffile = next((found for found in sif if found.data_type == DataType.DEFFILE), None)
    stored = next((found for found in sif if found.name == METADATA_NAME and found.data_type != DataType.PARTITION), None)
    found = Inspection()
    metadata: ContainerMetadata | None = None
    if stored is not None:
        raw = _read_object(sif, stored)
        try:
            metadata = parse_metadata(raw)
        except FormatError as error:
            found.warnings.append(f"object {stored.id}, {show(METADATA_NAME)}: {error.message}; the root is read instead")
    if metadata is not None:
        found.metadata = _selected(metadata, request)
    elif deffile is None or request != InspectRequest(deffile=True):
        with open_root(name) as tree:
            read = inspect_tree(tree, request)
        found.metadata = read.metadata
        found.warnings += read.warnings
    if request.wants("deffile") and deffile is not None and (metadata is None or not metadata.deffile):
        found.metadata.deffile = decode_text(_read_object(sif, deffile))
    return found


def _read_object(sif: SIF, descriptor: Descriptor) -> bytes:
    if descriptor.size > FILE_LIMIT:
        raise MetadataSizeError(f"object {descriptor.id}", descriptor.size, FILE_LIMIT)
    return sif.read(descriptor.id)


def _selected(metadata: ContainerMetadata, request: InspectRequest) -> ContainerMetadata:
    """Return the attributes that are asked for. A list of apps has all their attributes, as Apptainer has it."""
    if request.everything:
        return metadata
    found = ContainerMetadata(deffile=metadata.deffile if request.deffile else "")
    if request.list_apps:
        found.apps = dict(metadata.apps)
    if not request.app:
        _copy(metadata, found, request)
        if request.startscript:
            found.startscript = metadata.startscript
        return found
    source = metadata.apps.get(request.app)
    if source is None:
        raise _unknown_app(request.app, metadata.apps)
    if not request.list_apps and any(map(request.wants, (*APP_KEYS, "startscript"))):  # an app has none, but is named
        found.apps[request.app] = AppMetadata()
        _copy(source, found.apps[request.app], request)
    return found


def _copy(source: AppMetadata, target: AppMetadata, request: InspectRequest) -> None:
    for key in filter(request.wants, APP_KEYS):
        setattr(target, key, getattr(source, key))


def _unknown_app(name: str, known: Iterable[str]) -> UnknownAppError:
    names = sorted(known)
    some = ", ".join(map(show, names[:20])) + (", ..." if len(names) > 20 else "")
    hint = f"its apps are: {some}" if names else "it has no apps"
    return UnknownAppError(f"there is no app {show(name)}", hint=hint)


def inspect_tree(tree: FileTree[Any], request: InspectRequest) -> Inspection:
    """Inspect the container whose root is ``tree``, from its files. Raises as ``inspect_image``."""
    reader = _TreeReader(tree)
    found = Inspection(warnings=reader.warnings)
    target = found.metadata
    if request.everything or request.list_apps or request.app:
        target.apps = {name: AppMetadata() for name in reader.app_names()}
    if request.app and not request.everything:
        if request.app not in target.apps:
            raise _unknown_app(request.app, target.apps)
        if not request.list_apps:
            target.apps = {request.app: AppMetadata()}
        chosen = [request.app]
    else:
        chosen = list(target.apps) if request.everything else []
        reader.read_attributes(_DIRECTORY, _ENVIRONMENT, target, request)
        if request.wants("startscript"):
            target.startscript = reader.text(_DIRECTORY + b"/startscript")
    for name in chosen:
        place = b"%b/%b/scif" % (_APPS, encode_text(name))
        reader.read_attributes(place, _APP_ENVIRONMENT, target.apps[name], request)
    if request.everything or (request.deffile and not request.app):  # an app has none
        texts = (reader.text(b"%b/%b" % (_DIRECTORY, name)) for name in _DEFFILES)
        target.deffile = next(filter(None, texts), "")
    return found


class _TreeReader(Generic[N]):
    """Reader of the metadata files in a tree, which reads a limited number of bytes."""

    def __init__(self, tree: FileTree[N]) -> None:
        self.warnings: list[str] = []
        self._tree = tree
        self._resolver = Resolver(tree)
        self._left = TOTAL_LIMIT

    def app_names(self) -> list[str]:
        """Return the names of the apps: directories with a directory ``scif`` in them."""
        names = [name for name in self._names(_APPS) if not name.startswith(b".")]
        return [decode_text(name) for name in names if self._find(b"%b/%b/scif" % (_APPS, name), wanted=DIRECTORY) is not None]

    def read_attributes(
        self, place: bytes, environment: tuple[bytes, ...], target: AppMetadata, request: InspectRequest
    ) -> None:
        """Read the attributes of a container or an app, whose files are in ``place``. ``environment``: patterns of names."""
        if request.wants("labels"):
            self._read_labels(place + b"/labels.json", target)
        if request.wants("runscript"):
            target.runscript = self.text(place + b"/runscript")
        if request.wants("test"):
            target.test = self.text(place + b"/test")
        if request.wants("helpfile"):
            target.helpfile = self.text(place + b"/runscript.help")
        if request.wants("environment"):
            above = place + b"/env"
            names = [name for name in self._names(above) if any(fnmatchcase(name, pattern) for pattern in environment)]
            for name in names:
                path = b"%b/%b" % (above, name)
                if (raw := self._read(path)) is not None:
                    target.environment[decode_text(path)] = decode_text(raw).rstrip("\n")

    def _read_labels(self, path: bytes, target: AppMetadata) -> None:
        if (raw := self._read(path)) is not None:
            target.labels, problem = parse_labels(raw)
            if problem:
                self.warnings.append(f"{show(path)}: {problem}")

    def text(self, path: bytes) -> str:
        """Return the text of a regular file without newlines at the end; empty if there is none."""
        return decode_text(self._read(path) or b"").rstrip("\n")

    def _read(self, path: bytes) -> bytes | None:
        node = self._find(path, wanted=REGULAR)
        if node is None:
            return None
        with self._tree.open_file(node) as file:
            if file.size > FILE_LIMIT:
                raise MetadataSizeError(show(path), file.size, FILE_LIMIT)
            if file.size > self._left:
                raise MetadataSizeError("the metadata", TOTAL_LIMIT - self._left + file.size, TOTAL_LIMIT)
            self._left -= file.size
            pieces = [file.read_at(offset, READ_BYTES) for offset in range(0, file.size, READ_BYTES)]
        return b"".join(pieces)

    def _find(self, path: bytes, *, wanted: int) -> N | None:
        """Return the file that a path leads to; None if there is none, or one of another type than ``wanted``."""
        try:
            node = self._resolver.resolve(path).node
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise
        return node if node is not None and file_type_of(self._tree.stat(node).mode) == wanted else None

    def _names(self, path: bytes) -> list[bytes]:
        """Return the names in a directory; none if there is no such directory."""
        node = self._find(path, wanted=DIRECTORY)
        if node is None:
            return []
        for listing in self._tree.scan_many([node], stats=False):
            if listing.problem is not None:
                raise listing.problem
            if len(listing.rows) > MOST_NAMES:
                raise FormatError(f"{show(path)} has {len(listing.rows):,} names, more than {MOST_NAMES:,}")
            return [row.name for row in listing.rows]
        return []
