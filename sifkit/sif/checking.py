"""Check of a SIF image, which it does not modify.

Checked are the invariants that the reference library's writers keep, what runtimes demand of partitions, and that no bytes of
deleted objects are left in the file. Memory is bounded, and holes are not read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256

from ext3.hostio import HostPath

from ..errors import counted, human, show
from .descriptor_table import open_image_file
from .errors import CorruptSIFError, NotSIFError, SIFError, TruncatedSIFError
from .finding import Finding, Problem, Severity
from .format.descriptor import DESCRIPTOR_BYTES, EMPTY_SLOT, MAX_GROUP, USED_OFFSET, Descriptor, join_group
from .format.header import HEADER_BYTES, MAX_LAUNCH_BYTES, GlobalHeader
from .format.metadata import OCIMeta
from .format.placement import MAX_OFFSET, data_end, home_of_table
from .format.types import Arch, Code, DataType, FSType, PartType, describe
from .fuse2fs import is_misplaced_superblock
from .gaps import first_nonzero, unowned_spans
from .image import SIF
from .select import matching, primary
from .sniff import HEAD_BYTES, FilesystemName, filesystem_name
from .state import (
    INTERRUPTED_EDIT,
    State,
    check_objects,
    data_size_text,
    free_count_text,
    load,
    table_size_text,
    truncated_arch,
    unused_slot_text,
)
from .store import CHUNK_BYTES, FileStore, Store

__all__ = ["check", "check_file", "check_state"]

_FILESYSTEMS: dict[int, tuple[FilesystemName, ...]] = {
    FSType.SQUASHFS: ("squashfs",),
    FSType.EXT3: ("ext3", "ext2"),
    FSType.ENCRYPTED_SQUASHFS: ("luks",),
    FSType.GOCRYPTFS_SQUASHFS: ("squashfs",),
}
"""Filesystems that partitions of these types may hold; others may hold anything."""


def check(sif: SIF, *, digests: bool = False) -> Iterator[Finding]:
    """Yield the findings in an open image, header first. ``digests``: verify the digests of OCI objects.

    Problems that opening for writing repairs are not found in an image opened so. Raises StoreError.
    """
    return check_state(sif._open_store, sif._state, digests=digests)


def check_file(path: HostPath, *, digests: bool = False) -> Iterator[Finding]:
    """Yield the findings in a file, also in one that ``SIF.open`` refuses, in which nothing is repairable.

    Raises OSError, FormatError for what cannot be an image (a directory), StoreError.
    """
    name = os.fsdecode(path)
    fd = open_image_file(name, writable=False)
    try:
        yield from _check_store(FileStore(fd), digests)
    finally:
        os.close(fd)


def _check_store(store: Store, digests: bool) -> Iterator[Finding]:
    try:
        state = load(store)
    except NotSIFError as error:
        yield Finding(problem=Problem.NOT_SIF, severity="error", text=error.message)
    except CorruptSIFError as error:
        text = f"cannot open the image: {error.message}"
        yield Finding(
            problem=Problem.UNREADABLE, severity="error", text=text, field=error.field, got=error.got, want=error.want
        )
    except TruncatedSIFError as error:
        yield Finding(problem=Problem.TRUNCATED, severity="error", text=f"cannot open the image: {error.message}")
    else:
        yield from check_state(store, state, digests=digests)


def check_state(store: Store, state: State, *, digests: bool = False) -> Iterator[Finding]:
    """Yield the findings in a state, which may be too corrupt for ``SIF.open``."""
    try:
        check_objects(state)
        sound = True
    except SIFError:
        sound = False
    # With overlapping objects the same bytes would be read thousands of times.
    for finding in _all_findings(store, state, digests and sound):
        yield finding if sound else finding.without_repair()


def _all_findings(store: Store, state: State, digests: bool) -> Iterator[Finding]:
    size = store.size
    yield from _header_findings(store, state)
    yield from _slot_findings(state)
    yield from _place_findings(state, size)
    yield from _identity_findings(state.descriptors)
    root = primary(state.descriptors)
    for descriptor in state.descriptors:
        yield from _code_findings(descriptor, state.header, root)
        yield from _partition_findings(store, descriptor, root, size)
        if isinstance(descriptor.metadata, OCIMeta):
            yield from _digest_findings(store, descriptor, descriptor.metadata, digests and descriptor.end <= size)
    yield from _overlay_findings(state.descriptors, root)
    yield from _gap_findings(store, state, size)


def _header_findings(store: Store, state: State) -> Iterator[Finding]:
    header, descriptors = state.header, state.descriptors
    if header.table_in_data and home_of_table(header, descriptors) is not None:
        yield _of_image(Problem.INTERRUPTED_EDIT, "warning", INTERRUPTED_EDIT, repairable=True)
    if len(header.launch) > MAX_LAUNCH_BYTES:
        text = "the launch script is not NUL-terminated"
        yield _of_image(Problem.LAUNCH_SCRIPT, "warning", text, field="LaunchScript")
    free = header.descriptors_total - len(descriptors)
    if header.descriptors_free != free:
        text = free_count_text(header, free)
        yield _of_image(Problem.FREE_COUNT, "error", text, "DescriptorsFree", header.descriptors_free, free, repairable=True)
    want = data_end(header, descriptors) - header.data_offset
    if header.data_size != want:
        small = header.data_size < want
        text = data_size_text(header, want) + small * "; adding an object may overwrite data"
        severity: Severity = "error" if small else "warning"
        yield _of_image(Problem.DATA_SIZE, severity, text, "DataSize", header.data_size, want, repairable=True)
    if header.descriptors_size != header.table_bytes:
        # Either the count or the size may be wrong. If nothing follows the table, it is the size.
        objects = [d.offset for d in descriptors if d.size > 0 and d.offset >= header.table_end]
        end = min([header.descriptors_offset + header.descriptors_size, store.size, *objects])
        hidden = first_nonzero(store, header.table_end, end - header.table_end) is not None
        text = table_size_text(header) + hidden * "; there may be hidden descriptors"
        yield _of_image(
            Problem.TABLE_SIZE,
            "error" if hidden else "warning",
            text,
            "DescriptorsSize",
            header.descriptors_size,
            header.table_bytes,
            repairable=not hidden,
        )
    primaries = matching(descriptors, part_type=PartType.PRIMARY_SYSTEM)
    if len(primaries) > 1:
        ids = ", ".join(str(descriptor.id) for descriptor in primaries[:20])
        yield _of_image(Problem.SEVERAL_PRIMARIES, "error", f"{len(primaries)} primary partitions: objects {ids}")
    arch = primaries[0].arch if primaries else Arch.UNKNOWN
    if header.arch != arch and not isinstance(arch, bytes):
        text = f"the header's architecture is {describe(header.arch)}, " + (
            f"the primary partition's is {describe(arch or Arch.UNKNOWN)}" if primaries else "and there is no primary partition"
        )
        yield _of_image(
            Problem.HEADER_ARCH,
            "error" if primaries else "note",
            text,
            "Arch",
            describe(header.arch),
            describe(arch or Arch.UNKNOWN),
            repairable=bool(primaries),
        )


def _slot_findings(state: State) -> Iterator[Finding]:
    used = state.used_slots
    for slot in range(state.header.descriptors_total):
        if slot not in used and state.slot_bytes(slot) != EMPTY_SLOT:
            text = f"{unused_slot_text(slot)}: left by an interrupted edit"
            yield Finding(problem=Problem.UNUSED_SLOT, severity="warning", text=text, slot=slot, repairable=True)
    for descriptor in state.descriptors:
        byte = state.table[descriptor.slot * DESCRIPTOR_BYTES + USED_OFFSET]
        if byte != 1:
            yield _of(descriptor, Problem.USED_BYTE, "note", f"its Used byte is {byte}", "Used", byte, 1)


def _place_findings(state: State, size: int) -> Iterator[Finding]:
    header = state.header
    table = (header.descriptors_offset, header.table_end)
    reach: Descriptor | None = None
    for descriptor in sorted(state.descriptors, key=lambda d: (d.offset, d.end)):
        if descriptor.size < 0:
            yield _of(descriptor, Problem.BAD_PLACE, "error", "its size is negative", "Size", descriptor.size, "0 or more")
            continue
        if not 0 <= descriptor.offset <= MAX_OFFSET - descriptor.size:
            text = "its offset is out of range"
            yield _of(descriptor, Problem.BAD_PLACE, "error", text, "Offset", descriptor.offset, "an offset in the file")
            continue
        if not descriptor.size:
            continue
        if descriptor.offset < HEADER_BYTES or (descriptor.offset < table[1] and descriptor.end > table[0]):
            what = "header" if descriptor.offset < HEADER_BYTES else "descriptor table"
            yield _of(descriptor, Problem.OVERLAP, "error", f"it overlaps the {what}", "Offset", descriptor.offset)
        elif descriptor.offset < header.data_offset:
            text = f"it begins at byte {descriptor.offset}, before the data at {header.data_offset}"
            yield _of(descriptor, Problem.OUTSIDE_DATA, "warning", text, "Offset", descriptor.offset, header.data_offset)
        if reach is not None and descriptor.offset < reach.end:
            text = f"it begins at byte {descriptor.offset}, inside object {reach.id}, which ends at {reach.end}"
            yield _of(descriptor, Problem.OVERLAP, "error", text, "Offset", descriptor.offset, reach.end)
        if descriptor.end > size:
            text = f"it ends at byte {descriptor.end}, the file at byte {size}"
            yield _of(descriptor, Problem.TRUNCATED, "error", text, "Size", descriptor.size)
        if reach is None or descriptor.end > reach.end:
            reach = descriptor


def _identity_findings(descriptors: tuple[Descriptor, ...]) -> Iterator[Finding]:
    groups = {descriptor.group for descriptor in descriptors}
    ids = Counter(descriptor.id for descriptor in descriptors)
    for number, count in ids.items():
        if count > 1:
            text = f"{count} objects have the ID {number}"
            yield Finding(problem=Problem.DUPLICATE_ID, severity="error", text=text, id=number, field="ID", got=number)
    for descriptor in descriptors:
        if not descriptor.id:
            yield _of(descriptor, Problem.ID_ZERO, "error", f"descriptor {descriptor.slot + 1} has the ID 0", "ID", 0)
        if descriptor.group_id != join_group(descriptor.group):
            text = f"group {descriptor.group} is stored as {descriptor.group_id:#x}"
            wanted = join_group(descriptor.group)
            yield _of(descriptor, Problem.GROUP, "warning", text, "GroupID", descriptor.group_id, wanted, repairable=True)
        if descriptor.link and descriptor.link not in ids:
            text = f"it is linked to object {descriptor.link}, which does not exist"
            yield _of(descriptor, Problem.LINK, "warning", text, "LinkedID", descriptor.linked_id)
        if descriptor.link_group and descriptor.link_group not in groups:
            text = f"it is linked to group {descriptor.link_group}, which is empty"
            yield _of(descriptor, Problem.LINK, "warning", text, "LinkedID", descriptor.linked_id)
        if descriptor.linked_id not in (descriptor.link, descriptor.link_group | ~MAX_GROUP & 0xFFFFFFFF):
            text = f"the link to object {descriptor.link} is stored as {descriptor.linked_id:#x}"
            yield _of(descriptor, Problem.LINK, "warning", text, "LinkedID", descriptor.linked_id, descriptor.link)
        if descriptor.size >= 0 and descriptor.size_with_padding < descriptor.size:
            text = f"its size with padding, {descriptor.size_with_padding}, is less than its size, {descriptor.size}"
            got, want = descriptor.size_with_padding, f"at least {descriptor.size}"
            yield _of(descriptor, Problem.PADDING, "warning", text, "SizeWithPadding", got, want, repairable=True)


def _code_findings(descriptor: Descriptor, header: GlobalHeader, root: Descriptor | None) -> Iterator[Finding]:
    if not isinstance(descriptor.data_type, DataType):
        text = f"its type is {describe(descriptor.data_type)}"
        yield _of(descriptor, Problem.UNKNOWN_CODE, "warning", text, "DataType", int(descriptor.data_type))
    metadata = descriptor.metadata
    if metadata is None or isinstance(metadata, OCIMeta):
        return
    empty = not descriptor.extra and descriptor.data_type == DataType.CRYPTO_MESSAGE  # as siftool adds them
    for field in metadata._fields:
        value = getattr(metadata, field)
        unknown = isinstance(value, bytes) if field == "arch" else isinstance(value, int) and not isinstance(value, Code)
        if field == "arch" and isinstance(value, bytes) and (intended := truncated_arch(descriptor, header, root)):
            text = f"its architecture is the truncated name {show(value)}, not the code of {intended.word}"
            yield _of(
                descriptor, Problem.PARTITION_ARCH, "error", text, "Arch", describe(value), intended.word, repairable=True
            )
        elif field != "entity" and unknown and not empty:
            text = f"its {field.replace('_', ' ')} is {describe(value)}"
            yield _of(descriptor, Problem.UNKNOWN_CODE, "warning", text, field, describe(value))


def _partition_findings(store: Store, descriptor: Descriptor, root: Descriptor | None, size: int) -> Iterator[Finding]:
    meta = descriptor.partition
    if meta is None:
        return
    overlay = meta.part_type == PartType.OVERLAY
    if overlay and root is not None and descriptor.group != root.group:
        text = (
            f"it is an overlay in group {descriptor.group}; runtimes look in group {root.group} only, the primary partition's"
        )
        yield _of(descriptor, Problem.OVERLAY_GROUP, "warning", text, "GroupID", descriptor.group, root.group)
    wanted = _FILESYSTEMS.get(meta.fs_type, ())
    if not wanted or not 0 <= descriptor.offset < size or descriptor.size < 0:
        return
    found = filesystem_name(store.read_some(descriptor.offset, min(HEAD_BYTES, descriptor.size)))
    declared = describe(meta.fs_type)
    if found not in wanted:
        text = f"it is declared as {declared}, but holds {found or 'an unknown filesystem'}"
        yield _of(descriptor, Problem.FILESYSTEM, "error", text, "FSType", found or "unknown", declared)
    elif overlay and found == "ext2":
        text = "it is an overlay without a journal, which runtimes refuse"
        yield _of(descriptor, Problem.FILESYSTEM, "warning", text, "FSType", found, declared)


def _overlay_findings(descriptors: tuple[Descriptor, ...], root: Descriptor | None) -> Iterator[Finding]:
    if root is None:
        return
    writable = matching(descriptors, part_type=PartType.OVERLAY, fs_type=FSType.EXT3, group=root.group)
    for descriptor in writable[1:]:
        text = f"it is a second writable overlay; runtimes use the first, object {writable[0].id}"
        yield _of(descriptor, Problem.SEVERAL_OVERLAYS, "note", text)


def _digest_findings(store: Store, descriptor: Descriptor, meta: OCIMeta, read: bool) -> Iterator[Finding]:
    if not meta.valid:
        text = f"its digest is not a SHA-256 digest: {show(meta.digest[:80])}"
        yield _of(descriptor, Problem.NO_DIGEST, "error", text, "Digest", show(meta.digest[:80]), "sha256:...")
        return
    if not read or descriptor.size < 0 or descriptor.offset < 0:
        return
    hasher = sha256()
    for offset in range(descriptor.offset, descriptor.end, CHUNK_BYTES):
        hasher.update(store.read(offset, min(CHUNK_BYTES, descriptor.end - offset)))
    got = f"sha256:{hasher.hexdigest()}"
    want = meta.digest.decode("ascii")
    if got != want:
        yield _of(descriptor, Problem.DIGEST_MISMATCH, "error", f"its content has the digest {got}", "Digest", got, want)


def _gap_findings(store: Store, state: State, size: int) -> Iterator[Finding]:
    header = state.header
    end = max(data_end(header, state.descriptors), HEADER_BYTES)
    home = home_of_table(header, state.descriptors) if header.table_in_data else None
    for begin, length in unowned_spans(header, state.descriptors, min(size, end)):
        found = first_nonzero(store, begin, length)
        if found is None or (home is not None and begin <= home < begin + length):
            continue  # zero, or the old table during an edit
        if is_misplaced_superblock(store, begin, length):
            text = f"fuse2fs wrote fields of an overlay's superblock at byte {found}, where they harm nothing"
            yield _of_image(Problem.MISPLACED_SUPERBLOCK, "note", text, offset=begin, size=length, repairable=True)
            continue
        hidden = begin == header.table_end and header.descriptors_size > header.table_bytes
        what = f"and {'is' if length == 1 else 'are'} not zero, first at byte {found}: probably of a removed object"
        text = f"{_unowned_text(length, f'at byte {begin}')} {what}"
        yield _of_image(Problem.STALE_BYTES, "warning", text, offset=begin, size=length, repairable=not hidden)
    if size > end:
        text = f"{_unowned_text(size - end, 'after the last object')}: an interrupted addition, or appended data"
        yield _of_image(Problem.TRAILING_BYTES, "warning", text, offset=end, size=size - end, repairable=True)


def _unowned_text(size: int, where: str) -> str:
    """Text for bytes that belong to no object."""
    about = "" if size < 1024 else f" ({human(size)})"
    return f"{counted(size, 'byte')}{about} {where} {'belongs' if size == 1 else 'belong'} to no object"


def _of_image(
    problem: Problem,
    severity: Severity,
    text: str,
    field: str = "",
    got: object = None,
    want: object = None,
    *,
    offset: int = 0,
    size: int = 0,
    repairable: bool = False,
) -> Finding:
    return Finding(
        problem=problem,
        severity=severity,
        text=text,
        field=field,
        got=got,
        want=want,
        offset=offset,
        size=size,
        repairable=repairable,
    )


def _of(
    descriptor: Descriptor,
    problem: Problem,
    severity: Severity,
    text: str,
    field: str = "",
    got: object = None,
    want: object = None,
    *,
    repairable: bool = False,
) -> Finding:
    return Finding(
        problem=problem,
        severity=severity,
        text=f"object {descriptor.id}: {text}",
        id=descriptor.id,
        slot=descriptor.slot,
        field=field,
        got=got,
        want=want,
        offset=max(0, descriptor.offset),
        size=max(0, descriptor.size),
        repairable=repairable,
    )
