"""Packing of a directory with a manifest: the image that was unpacked, byte for byte, or a new one."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ext3.hostio import HostPath

from ...errors import show
from ...host_space import full_host_errors
from ..errors import EditError, SIFError, SIFSourceError, SourceChangedError
from ..format.descriptor import DESCRIPTOR_BYTES, EMPTY_SLOT, USED_OFFSET, Descriptor
from ..format.header import HEADER_BYTES, GlobalHeader
from ..format.placement import (
    DEFAULT_CAPACITY,
    MAX_CAPACITY,
    MAX_OFFSET,
    align,
    check_alignment,
    default_alignment,
)
from ..format.types import Arch, DataType, PartType
from ..gaps import Span
from ..loading import SIF_IMAGES, NewFileStore, new_file
from ..payload import Advance, copy_in, open_source
from ..plan import plan_new
from ..select import matching, primary
from ..stamp import SIFStamp
from ..state import Notice, State, check_header, check_objects, notices
from .manifest import (
    GAP_KEYS,
    LAYOUT_KEYS,
    MANIFEST_KEYS,
    UNUSED_KEYS,
    JSONObject,
    ManifestError,
    header_fields,
    object_extra,
    object_fields,
)
from .unpacking import MANIFEST_NAME, MANIFEST_VERSION

__all__ = ["PackResult", "pack"]

MAX_MANIFEST_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
EXACT_KEYS = ("id", "slot", "offset", "size", "size_with_padding", "created", "modified")
OCI_TYPES = (DataType.OCI_ROOT_INDEX, DataType.OCI_BLOB)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackResult:
    """Result of ``pack``. ``exact``: the layout is that of the manifest; else objects were placed anew. ``warnings``: harmless
    problems of the image."""

    path: str
    size_bytes: int
    objects: int
    exact: bool
    warnings: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class _PackedFile:
    """File that goes into the image: an object or a gap."""

    entry: JSONObject
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class _PackPlan:
    """Header, table and files of the new image."""

    state: State
    pieces: tuple[tuple[int, _PackedFile], ...]
    """Offsets and files, by offset."""
    size: int
    exact: bool


def pack(
    directory: HostPath,
    path: HostPath,
    *,
    force: bool = False,
    stamp: SIFStamp | None = None,
    mode: int = 0o755,
    advance: Advance | None = None,
) -> PackResult:
    """Create the image ``path`` from ``directory`` and the manifest.json in it, atomically.

    If the manifest has a layout and the files have the sizes in it, the image is the one that was unpacked, byte for byte.
    Otherwise objects are placed one after the other; IDs and slots in the manifest are kept. ``stamp``: times and ID that the
    manifest does not give; ``mode``: before the umask. Only files in the directory are used. Raises ManifestError,
    SIFSourceError, TargetError, NotReplaceableError, StoreError.
    """
    root = os.fsdecode(directory)
    name = os.path.join(root, MANIFEST_NAME)
    with _naming_manifest(name):
        manifest = _read_manifest(name)
        items = [_item(root, table) for table in manifest.objects("objects")]
        if len(items) > MAX_CAPACITY:
            raise manifest.error("objects", f"{len(items)} objects, the maximum is {MAX_CAPACITY}")
        if _is_exact(manifest, items):
            plan = _plan_exact(root, manifest, items)
        else:
            plan = _plan_new_layout(manifest, items, stamp or SIFStamp.now())
    file = new_file(path, mode=mode, replace=force)
    with full_host_errors(file.target, plan.size), file:
        store = NewFileStore(file.fd)
        header = plan.state.header
        store.write(0, header.pack())
        tables = [(header.descriptors_offset, None)]
        pieces: list[tuple[int, _PackedFile | None]] = sorted([*tables, *plan.pieces], key=lambda piece: piece[0])
        for offset, item in pieces:
            if item is None:
                store.write(offset, plan.state.table)
                continue
            with open_source(item.path) as source:
                if copy_in(source, store, offset, advance=advance) != item.size:
                    raise SourceChangedError(f"{show(item.path)} changed while it was read", path=item.path)
        store.set_size(plan.size)
        file.commit(SIF_IMAGES if force else None)
    found = notices(plan.state, plan.size)
    return PackResult(path=file.target, size_bytes=plan.size, objects=len(items), exact=plan.exact, warnings=found)


@contextmanager
def _naming_manifest(path: str) -> Iterator[None]:
    """Add the manifest's path to errors of the block."""
    try:
        yield
    except ManifestError as error:
        error.set_path(path)
        raise


def _read_manifest(path: str) -> JSONObject:
    import json

    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        hint = "give the output directory of sifkit sif unpack, or write a manifest.json"
        raise SIFSourceError(f"{show(path)}: {error.strerror}", path=path, hint=hint, error=error) from error
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ManifestError("", f"more than {MAX_MANIFEST_BYTES} bytes")
    try:
        value = json.loads(raw, object_pairs_hook=_reject_duplicates)
    except json.JSONDecodeError as error:
        raise ManifestError(f"line {error.lineno}", f"invalid JSON: {error.msg}") from error
    except ManifestError:
        raise
    except (ValueError, RecursionError) as error:
        raise ManifestError("", "invalid JSON") from error
    table = JSONObject(value, "")
    table.check_keys(MANIFEST_KEYS, "the manifest")
    if "sifkit_manifest" in table and table.integer("sifkit_manifest", (0, MAX_OFFSET)) != MANIFEST_VERSION:
        raise ManifestError("sifkit_manifest", f"only version {MANIFEST_VERSION} is supported", hint="use a newer sifkit")
    if "objects" not in table:
        raise table.error("objects", "missing")
    return table


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object. Raises ManifestError for duplicate keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        duplicate = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        shown = show(duplicate.encode("utf-8", "backslashreplace"))[:80]
        raise ManifestError("", f"duplicate key {shown} in one object", hint="remove one of them")
    return found


def _item(root: str, table: JSONObject) -> _PackedFile:
    """Return the file of an entry: a regular file in the directory or below it, also after following links."""
    name = table.text("file")
    if not name:
        raise table.error("file", "empty")
    try:
        path = os.path.join(root, name)
        real, inside = os.path.realpath(path), os.path.realpath(root)
        found = os.stat(path)
    except FileNotFoundError as error:
        raise table.error("file", f"{show(name)} is not in the directory") from error
    except (OSError, ValueError) as error:
        raise table.error("file", f"{show(name)} cannot be read") from error
    if os.path.isabs(name) or not (real == inside or real.startswith(os.path.join(inside, ""))):
        raise table.error("file", f"{show(name)} is outside the directory", hint="copy the file into the directory")
    if not stat.S_ISREG(found.st_mode):
        raise table.error("file", f"{show(name)} is not a regular file")
    return _PackedFile(table, path, found.st_size)


def _is_exact(manifest: JSONObject, items: list[_PackedFile]) -> bool:
    if "layout" not in manifest or "header" not in manifest:
        return False
    for item in items:
        if any(key not in item.entry for key in EXACT_KEYS) or item.entry.values["size"] != item.size:
            return False
    return True


def _plan_exact(root: str, manifest: JSONObject, items: list[_PackedFile]) -> _PackPlan:
    given = header_fields(JSONObject(manifest.values["header"], "header"))
    wanted = set(GlobalHeader._fields)
    if missing := sorted(wanted - set(given)):
        name = missing[0].removesuffix("_bytes")
        raise ManifestError("header", f"{name} is missing", hint="remove the layout to have the objects placed anew")
    header = GlobalHeader(**given)
    layout = JSONObject(manifest.values["layout"], "layout")
    layout.check_keys(LAYOUT_KEYS, "the layout")
    size = layout.integer("size", (HEADER_BYTES, MAX_OFFSET))
    total = header.descriptors_total
    if total > MAX_CAPACITY:
        raise ManifestError("header, descriptors_total", f"{total} descriptors, the maximum is {MAX_CAPACITY}")
    slots: dict[int, bytes] = {}
    for item in items:
        descriptor = _descriptor(item, object_fields(item.entry))
        record = bytearray(descriptor.pack())
        if "used" in item.entry:
            record[USED_OFFSET] = item.entry.integer("used", (1, 255))
        _set_slot(slots, item.entry, total, bytes(record))
    for entry in layout.objects("unused"):
        entry.check_keys(UNUSED_KEYS, "an unused descriptor")
        try:
            raw = bytes.fromhex(entry.text("hex"))
        except ValueError as error:
            raise entry.error("hex", "not hexadecimal") from error
        if len(raw) != DESCRIPTOR_BYTES or raw[USED_OFFSET]:
            raise entry.error("hex", f"expected the {DESCRIPTOR_BYTES} bytes of an unused descriptor")
        _set_slot(slots, entry, total, raw)
    state = State.of(header, b"".join(slots.get(slot, EMPTY_SLOT) for slot in range(total)))
    _check_state(state, size)
    pieces = [(item.entry.integer("offset", (0, MAX_OFFSET)), item) for item in items if item.size]
    for entry in layout.objects("gaps"):
        entry.check_keys(GAP_KEYS, "a gap")
        gap = _item(root, entry)
        if entry.integer("size", (0, MAX_OFFSET)) != gap.size:
            raise entry.error("size", f"the file has {gap.size} bytes")
        pieces.append((entry.integer("offset", (0, MAX_OFFSET)), gap))
    pieces.sort(key=lambda piece: piece[0])
    _check_disjoint(header, pieces, size)
    return _PackPlan(state, tuple(pieces), size, True)


def _set_slot(slots: dict[int, bytes], table: JSONObject, total: int, record: bytes) -> None:
    slot = table.integer("slot", (0, max(0, total - 1)))
    if slot in slots or slot >= total:
        raise table.error("slot", f"slot {slot} is used twice, or not one of {total}")
    slots[slot] = record


def _check_disjoint(header: GlobalHeader, pieces: list[tuple[int, _PackedFile]], size: int) -> None:
    spans: list[tuple[Span, str]] = [((0, HEADER_BYTES), "the header")]
    spans.append(((header.descriptors_offset, header.table_bytes), "the descriptor table"))
    spans += [((offset, item.size), item.entry.where) for offset, item in pieces if item.size]
    position, before = 0, ""
    for (begin, length), where in sorted(spans):
        if begin < position:
            raise ManifestError(where, f"it overlaps {before} at byte {begin}")
        if begin + length > size:
            raise ManifestError(where, f"it ends at byte {begin + length}, the image at byte {size}")
        position, before = begin + length, where


def _check_state(state: State, size: int) -> None:
    try:
        check_header(state.header, size)
        check_objects(state)
    except SIFError as error:
        raise ManifestError("layout", error.message, hint="remove the layout to have the objects placed anew") from error


def _descriptor(item: _PackedFile, fields: dict[str, Any]) -> Descriptor:
    data_type = fields["data_type"]
    needs_digest = data_type in OCI_TYPES and not {"digest", "digest_hex", "extra_hex"} & set(item.entry.values)
    extra = object_extra(item.entry, data_type, _digest(item.path) if needs_digest else "")
    return Descriptor(**{"slot": -1, **fields, "extra": extra})


def _digest(path: str) -> str:
    hasher = sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()


def _plan_new_layout(manifest: JSONObject, items: list[_PackedFile], stamp: SIFStamp) -> _PackPlan:
    given = header_fields(JSONObject(manifest.values["header"], "header")) if "header" in manifest else {}
    places = [item.entry.integer("slot", (0, MAX_CAPACITY - 1)) if "slot" in item.entry else None for item in items]
    least = max([len(items), *(place + 1 for place in places if place is not None)])
    capacity = given.get("descriptors_total", max(DEFAULT_CAPACITY, least))
    if not max(1, least) <= capacity <= MAX_CAPACITY:
        raise ManifestError("header, descriptors_total", f"{capacity}, expected {max(1, least)} to {MAX_CAPACITY}")
    try:
        header = plan_new(stamp, launch=given.get("launch", b""), capacity=capacity, arch=Arch.UNKNOWN)
    except EditError as error:
        raise ManifestError("header", error.message, hint=error.hint) from error
    header = header._replace(**{key: given[key] for key in ("id_bytes", "created", "modified") if key in given})
    free = iter(sorted(set(range(capacity)) - set(places)))
    slots: dict[int, bytes] = {}
    pieces = []
    position = header.data_offset
    for item, place in _data_order(items, places):
        slot = next(free) if place is None else place
        if slot in slots:
            raise item.entry.error("slot", f"slot {slot} is used twice")
        fields = object_fields(item.entry)
        space = default_alignment(fields["data_type"])
        if "alignment" in item.entry:
            try:
                space = check_alignment(item.entry.integer("alignment", (0, MAX_OFFSET)))
            except EditError as error:
                raise item.entry.error("alignment", error.message) from error
        offset = align(position, space)
        if offset + item.size > MAX_OFFSET:
            raise item.entry.error("file", "the image would be too large")
        fields |= {"offset": offset, "size": item.size, "size_with_padding": offset - position + item.size}
        for key, value in (("id", slot + 1), ("created", header.created), ("modified", header.created)):
            fields.setdefault(key, value)
        slots[slot] = _descriptor(item, fields).pack()
        pieces.append((offset, item))
        position = offset + item.size
    state = State.of(header, b"".join(slots.get(slot, EMPTY_SLOT) for slot in range(capacity)))
    _check_new_objects(state)
    root = primary(state.descriptors)
    header = header._replace(
        arch=root.arch if root and root.arch is not None else given.get("arch", Arch.UNKNOWN),
        descriptors_free=capacity - len(items),
        data_size=position - header.data_offset,
    )
    state = state._replace(header=header)
    _check_state(state, position)
    return _PackPlan(state, tuple((offset, item) for offset, item in pieces if item.size), position, False)


def _data_order(items: list[_PackedFile], places: list[int | None]) -> list[tuple[_PackedFile, int | None]]:
    """Return the files in the order of their offsets if all have one, else as listed."""
    pairs = list(zip(items, places, strict=True))
    if all("offset" in item.entry for item in items):
        pairs.sort(key=lambda pair: pair[0].entry.integer("offset", (0, MAX_OFFSET)))
    return pairs


def _check_new_objects(state: State) -> None:
    seen: set[int] = set()
    for descriptor in state.descriptors:
        if descriptor.id in seen or not descriptor.id:
            raise ManifestError("objects", f"duplicate id {descriptor.id}" if descriptor.id else "the id 0 is invalid")
        seen.add(descriptor.id)
    for descriptor in state.descriptors:
        if descriptor.link and descriptor.link not in seen:
            raise ManifestError("objects", f"object {descriptor.id} is linked to object {descriptor.link}, which is not listed")
    primaries = matching(state.descriptors, part_type=PartType.PRIMARY_SYSTEM)
    if len(primaries) > 1:
        raise ManifestError("objects", f"{len(primaries)} primary partitions, the maximum is 1")
