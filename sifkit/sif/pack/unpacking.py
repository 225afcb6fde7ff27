"""Unpacking of an image: a file for every object, and a manifest to make the same bytes again."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ext3 import hostio
from ext3.hostio import HostPath

from ...atomic import AtomicFile, new_file_mode
from ...errors import TargetError, show
from ...host_space import full_host_errors
from ...in_use import LoopFiles
from ...output_path import check_output_directory
from ...replacing import ANY_FILE
from ..format.descriptor import DESCRIPTOR_BYTES, EMPTY_SLOT, USED_OFFSET, Descriptor
from ..format.types import DataType
from ..gaps import first_nonzero, unowned_spans
from ..image import SIF
from ..object_io import check_inside
from ..payload import Advance, copy_out
from ..sniff import HEAD_BYTES, filesystem_name
from ..state import State
from ..store import Store
from .manifest import describe_header, describe_object

__all__ = ["MANIFEST_NAME", "MANIFEST_VERSION", "safe_name", "unpack"]

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1
NAME_CHARACTERS = 80
_UNSAFE = r"[^A-Za-z0-9._+-]+"
_SUFFIXES = {
    DataType.DEFFILE: ".def",
    DataType.ENVVAR: ".sh",
    DataType.LABELS: ".json",
    DataType.GENERIC_JSON: ".json",
    DataType.SIGNATURE: ".sig",
    DataType.OCI_ROOT_INDEX: ".json",
    DataType.PARTITION: ".img",
}


def unpack(sif: SIF, directory: HostPath, *, force: bool = False, advance: Advance | None = None) -> str:
    """Write every object of an open image to a file in ``directory``, and the manifest; return the manifest's path.

    The directory is created, but not its parents. It must be empty, unless ``force`` is given: then files of the same names
    are replaced, and others stay. File names are made from IDs and the safe part of the objects' names. Gaps that are not zero
    are written to files of their own; holes are preserved. ``advance``: called with the number of bytes written. Raises
    TargetError, TruncatedSIFError (before anything is written), StoreError.
    """
    import json

    store, state = sif._open_store, sif._state
    for descriptor in state.descriptors:
        check_inside(descriptor, store)
    out = _OutputDirectory(os.fsdecode(directory), force, store.fd)
    out.remove(MANIFEST_NAME)  # a manifest of another image, whose files may be replaced
    try:
        with full_host_errors(out.path, sum(one.size for one in state.descriptors), directory=out.path):
            manifest = _unpack(store, state, out, advance)
        out.sync()
        text = json.dumps(manifest, indent=2, ensure_ascii=True)
        with AtomicFile(os.path.join(out.path, MANIFEST_NAME), new_file_mode(0o666)) as file:
            hostio.write_all(file.fd, f"{text}\n".encode())
            file.commit()
    except BaseException:
        out.undo()
        raise
    return os.path.join(out.path, MANIFEST_NAME)


def safe_name(descriptor: Descriptor, head: bytes = b"") -> str:
    """Return a file name for an object: its ID, and the safe part of its name."""
    name = re.sub(_UNSAFE, "_", descriptor.name.decode("utf-8", "replace")).strip("._-")[:NAME_CHARACTERS]
    if name:
        return f"{descriptor.id}-{name}"
    data_type = descriptor.data_type
    if not isinstance(data_type, DataType):
        return f"{descriptor.id}-object.bin"
    suffix = _SUFFIXES.get(data_type, ".bin")
    if data_type == DataType.PARTITION and filesystem_name(head) == "squashfs":
        suffix = ".squashfs"
    return f"{descriptor.id}-{data_type.word}{suffix}"


@dataclass(slots=True)
class _OutputDirectory:
    """Output directory of ``unpack``; files that were written are removed if it fails."""

    path: str
    force: bool
    image: int | None
    """Descriptor of the image, which may lie in the directory."""
    loops: LoopFiles = field(default_factory=LoopFiles)
    made: bool = False
    written: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_output_directory(self.path)
        try:
            os.mkdir(self.path)
            self.made = True
        except FileExistsError:
            pass
        except OSError as error:
            hint = "create its parent directory first" if error.errno == errno.ENOENT else ""
            text = f"{show(self.path)}: {error.strerror}"
            raise TargetError(text, path=self.path, hint=hint, error=error) from error
        try:
            full = not self.made and bool(os.listdir(self.path))
        except OSError as error:
            raise TargetError(f"{show(self.path)}: {error.strerror}", path=self.path, error=error) from error
        if full and not self.force:
            hint = "give another one, or --force to write into it"
            raise TargetError(f"the directory {show(self.path)} is not empty", path=self.path, hint=hint)

    @contextmanager
    def new_file(self, name: str) -> Iterator[int]:
        """Create a file, open for writing, replacing an existing one; ``sync`` syncs it."""
        self.remove(name)
        path = os.path.join(self.path, name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | hostio.NO_FOLLOW, 0o666)
        except OSError as error:
            raise TargetError(f"{show(path)}: {error.strerror}", path=path, error=error) from error
        self.written.append(path)
        try:
            yield fd
        finally:
            os.close(fd)

    def remove(self, name: str) -> None:
        """Remove an existing file; without ``force`` there is none."""
        path = os.path.join(self.path, name)
        try:
            if not (self.force and os.path.lexists(path)):
                return
            if self.image is not None and os.path.samestat(os.lstat(path), os.fstat(self.image)):
                raise TargetError(f"{show(path)} is the image itself", path=path, hint="give another directory")
            ANY_FILE.check_name(path, loops=self.loops)
            os.unlink(path)
        except TargetError:
            raise
        except OSError as error:
            text, hint = f"{show(path)}: {error.strerror}", "give another directory"
            raise TargetError(text, path=path, hint=hint, error=error) from error

    def sync(self) -> None:
        """Sync all files that were written, at the end: by then the kernel has written most of them."""
        for path in self.written:
            try:
                fd = os.open(path, os.O_RDWR | hostio.NO_FOLLOW)
                try:
                    hostio.sync(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                raise TargetError(f"{show(path)}: {error.strerror}", path=path, error=error) from error

    def undo(self) -> None:
        """Remove what was written."""
        for path in self.written:
            with suppress(OSError):
                os.unlink(path)
        if self.made:
            with suppress(OSError):
                os.rmdir(self.path)


def _unpack(store: Store, state: State, out: _OutputDirectory, advance: Advance | None) -> dict[str, Any]:
    objects = []
    taken: set[str] = set()
    for descriptor in state.descriptors:
        name = safe_name(descriptor, store.read_some(descriptor.offset, min(HEAD_BYTES, descriptor.size)))
        if name in taken:
            name = f"{descriptor.id}-{descriptor.slot}-object.bin"  # a damaged image with a duplicate ID
        taken.add(name)
        _write_span(store, descriptor, out, name, advance)
        used = state.table[descriptor.slot * DESCRIPTOR_BYTES + USED_OFFSET]
        objects.append({"file": name, **describe_object(descriptor), **({"used": used} if used != 1 else {})})
    gaps = []
    for begin, size in unowned_spans(state.header, state.descriptors, store.size):
        if first_nonzero(store, begin, size) is not None:
            name = f"gap-{begin}.bin"
            _write_span(store, _span(begin, size), out, name, advance)
            gaps.append({"file": name, "offset": begin, "size": size})
    slots = state.used_slots
    unused = [
        {"slot": slot, "hex": state.slot_bytes(slot).hex()}
        for slot in range(state.header.descriptors_total)
        if slot not in slots and state.slot_bytes(slot) != EMPTY_SLOT
    ]
    return {
        "sifkit_manifest": MANIFEST_VERSION,
        "header": describe_header(state.header),
        "objects": objects,
        "layout": {"size": store.size, "gaps": gaps, "unused": unused},
    }


def _span(begin: int, size: int) -> Descriptor:
    return Descriptor(data_type=0, id=0, offset=begin, size=size, size_with_padding=size, created=0, modified=0)


def _write_span(store: Store, descriptor: Descriptor, out: _OutputDirectory, name: str, advance: Advance | None) -> None:
    with out.new_file(name) as fd:
        copy_out(store, descriptor, fd, advance=advance)
