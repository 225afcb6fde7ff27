"""Check of a SIF: its structure, the extents of its objects against the file's length, the filesystems in partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import show
from ...sif import CorruptSIFError, DataType, FSType, NotSIFError, PartType, Problem, TruncatedSIFError, describe
from ...sif.checking import check_state
from ...sif.format.header import HEADER_BYTES, GlobalHeader
from ...sif.format.placement import data_end
from ...sif.select import primary
from ...sif.state import load
from ...sif.store import CHUNK_BYTES, FileStore
from ..images.image_format import HEAD_BYTES
from .filesystem_check import Advance, Place, check_ext3, check_squashfs_part, image_kind_of
from .image_result import ImageProblem, ImageResult, PartResult

if TYPE_CHECKING:
    from ...sif import Descriptor
    from ...sif.state import State

__all__ = ["check_sif"]

MOST_PARTITIONS = 64
"""Most partitions that are checked; usual are two. Opening each takes time that grows with their number."""
_UNSOUND = (Problem.BAD_PLACE, Problem.OVERLAP, Problem.DUPLICATE_ID, Problem.ID_ZERO)
"""Problems with which content is not read: it might be the same bytes thousands of times, or of another object."""


def check_sif(fd: int, result: ImageResult, *, threads: int | None, advance: Advance) -> None:
    """Check the SIF in the file ``fd``. Raises StoreError if the file cannot be read."""
    store = FileStore(fd)
    state = _load(store, result)
    if state is None:
        return
    result.signatures = sum(descriptor.data_type == DataType.SIGNATURE for descriptor in state.descriptors)
    end = data_end(state.header, state.descriptors)
    whole = end <= store.size
    if not whole:
        result.add_truncation(end, store.size)
    incomplete = {descriptor.slot for descriptor in state.descriptors if descriptor.end > store.size}
    sound = True
    for finding in check_state(store, state, digests=whole):
        sound = sound and finding.problem not in _UNSOUND
        if finding.severity != "note" and finding.slot not in incomplete:  # that is in the truncation's line
            result.add(ImageProblem(str(finding.problem), show(finding.text), finding.severity, finding.id))
    partitions = sum(descriptor.data_type == DataType.PARTITION for descriptor in state.descriptors)
    if partitions > MOST_PARTITIONS:
        text = f"it has {partitions:,} partitions, and one with more than {MOST_PARTITIONS} is not read"
        result.add(ImageProblem("partitions", text))
    elif whole and sound:
        for descriptor in state.descriptors:
            _check_object(store, state, descriptor, result, threads=threads, advance=advance)


def _load(store: FileStore, result: ImageResult) -> State | None:
    """Read header and table; None if they are damaged or truncated, which is a problem then."""
    size = store.size
    if size < HEADER_BYTES:
        result.add_truncation(HEADER_BYTES, size, at_least=True)
        return None
    try:
        return load(store)
    except TruncatedSIFError:
        header = GlobalHeader.parse(store.read(0, HEADER_BYTES))
        result.add_truncation(max(header.table_end, header.data_offset + header.data_size), size)
    except (CorruptSIFError, NotSIFError) as error:
        result.add(ImageProblem(error.kind, show(error.message)))
    return None


def _check_object(
    store: FileStore, state: State, descriptor: Descriptor, result: ImageResult, *, threads: int | None, advance: Advance
) -> None:
    """Check the filesystem in a partition; read other objects to the end."""
    if descriptor.data_type != DataType.PARTITION:
        if descriptor.data_type != DataType.OCI_BLOB:  # read for its digest
            _read_through(store, descriptor, advance)
        return
    root = primary(state.descriptors)
    is_root = root is not None and root.slot == descriptor.slot
    role = "root" if is_root else "overlay" if descriptor.part_type == PartType.OVERLAY else "partition"
    place = Place(path=result.path, offset=descriptor.offset, size=descriptor.size, id=descriptor.id)
    part = PartResult("", id=descriptor.id, role=role)
    result.parts.append(part)
    kind = image_kind_of(store.read_some(descriptor.offset, min(HEAD_BYTES, descriptor.size)), descriptor.size)
    if kind == "squashfs":
        part.kind = kind
        if descriptor.fs_type == FSType.GOCRYPTFS_SQUASHFS:
            result.notes.append(f"the files in object {descriptor.id} are encrypted, and were read without decryption")
        check_squashfs_part(place, part, result, threads=threads, advance=advance)
    elif kind == "ext3":
        part.kind = kind
        check_ext3(place, part, result)
    else:
        part.kind = describe(descriptor.fs_type) if descriptor.fs_type is not None else "unknown"
        part.skipped = "encrypted, not checked" if descriptor.fs_type == FSType.ENCRYPTED_SQUASHFS else "not checked"
        _read_through(store, descriptor, advance)


def _read_through(store: FileStore, descriptor: Descriptor, advance: Advance) -> None:
    """Read all bytes of an object but its holes. Raises StoreError."""
    for start, size in store.data_spans(descriptor.offset, descriptor.size):
        for offset in range(start, start + size, CHUNK_BYTES):
            advance(len(store.read(offset, min(CHUNK_BYTES, start + size - offset))))
