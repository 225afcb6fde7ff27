"""Make an image of a directory and a manifest: the very bytes that were unpacked, or a new image of what a manifest lists."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from ...atomic import HostPath
from ...errors import show
from ..errors import EditError, SIFError, SourceChangedError, SourceError
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
from ..loading import NewFileStore, new_file
from ..payload import Advance, copy_in, open_source
from ..plan import plan_new
from ..select import matching, primary
from ..stamp import Stamp
from ..state import Notice, State, check_header, check_objects, notices
from .manifest import (
    GAP_KEYS,
    LAYOUT_KEYS,
    MANIFEST_KEYS,
    UNUSED_KEYS,
    ManifestError,
    Table,
    header_fields,
    object_extra,
    object_fields,
)
from .unpacking import MANIFEST_NAME, MANIFEST_VERSION

__all__ = ["PackResult", "pack"]

MOST_MANIFEST_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
EXACT_KEYS = ("id", "slot", "offset", "size", "size_with_padding", "created", "modified")
OCI_TYPES = (DataType.OCI_ROOT_INDEX, DataType.OCI_BLOB)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackResult:
    """An image that was made. ``exact``: every byte lies where the manifest says; else the objects were placed anew.
    ``warnings``: what is wrong with it as it was with the one that was unpacked, or by the manifest, and does no harm."""

    path: str
    size_bytes: int
    objects: int
    exact: bool
    warnings: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Item:
    """A file that goes into the image: of an object, or of what lies between them."""

    table: Table
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class _Plan:
    state: State
    pieces: tuple[tuple[int, _Item], ...]
    """Offset and file, by offset."""
    size: int
    exact: bool


def pack(
    directory: HostPath,
    path: HostPath,
    *,
    force: bool = False,
    stamp: Stamp | None = None,
    mode: int = 0o755,
    advance: Advance | None = None,
) -> PackResult:
    """Make the image ``path`` of ``directory`` and the manifest.json in it. It appears whole under its name, or not at all.

    Where the manifest gives every place and the files have the sizes it gives, the image is the one that was unpacked, byte for
    byte. Otherwise the objects are placed one behind the other; ids and places in the table stay where they are given.
    ``stamp`` is for the times and the identity that the manifest leaves out; ``mode`` is without the umask. Files are looked
    for in the directory only. Raises ManifestError, SourceError, TargetError, NotReplaceableError, StoreError.
    """
    root = os.fsdecode(directory)
    name = os.path.join(root, MANIFEST_NAME)
    with _named(name):
        manifest = _read_manifest(name)
        items = [_item(root, table) for table in manifest.tables("objects")]
        if len(items) > MAX_CAPACITY:
            raise manifest.wrong("objects", f"{len(items)} objects, and {MAX_CAPACITY} is the most")
        if _is_exact(manifest, items):
            plan = _plan_exact(root, manifest, items)
        else:
            plan = _plan_anew(manifest, items, stamp or Stamp.now())
    file = new_file(path, mode=mode, replace=force)
    with file:
        store = NewFileStore(file.fd)
        header = plan.state.header
        store.write(0, header.pack())
        tables = [(header.descriptors_offset, None)]
        pieces: list[tuple[int, _Item | None]] = sorted([*tables, *plan.pieces], key=lambda piece: piece[0])
        for offset, item in pieces:
            if item is None:
                store.write(offset, plan.state.table)
                continue
            with open_source(item.path) as source:
                if copy_in(source, store, offset, advance=advance) != item.size:
                    raise SourceChangedError(f"{show(item.path)} changed while it was read", path=item.path)
        store.set_size(plan.size)
        file.commit(force)
    found = notices(plan.state, plan.size)
    return PackResult(path=file.target, size_bytes=plan.size, objects=len(items), exact=plan.exact, warnings=found)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Say in which manifest it is wrong."""
    try:
        yield
    except ManifestError as error:
        if error.path is None:
            error.path = path
            error.message = f"{show(path)}: {error.message}"
        raise


def _read_manifest(path: str) -> Table:
    import json

    try:
        with open(path, "rb") as file:
            raw = file.read(MOST_MANIFEST_BYTES + 1)
    except OSError as error:
        hint = "name a directory that an image was unpacked to, or write a manifest.json"
        raise SourceError(f"{show(path)}: {error.strerror}", path=path, hint=hint, error=error) from error
    if len(raw) > MOST_MANIFEST_BYTES:
        raise ManifestError("", f"it has more than {MOST_MANIFEST_BYTES} bytes")
    try:
        value = json.loads(raw, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ManifestError(f"line {error.lineno}", f"this is no JSON: {error.msg}") from error
    except ManifestError:
        raise
    except (ValueError, RecursionError) as error:
        raise ManifestError("", "this is no JSON that can be read") from error
    table = Table(value, "")
    table.only(MANIFEST_KEYS, "the manifest")
    if "sifkit_manifest" in table and table.integer("sifkit_manifest", (0, MAX_OFFSET)) != MANIFEST_VERSION:
        raise ManifestError("sifkit_manifest", f"only version {MANIFEST_VERSION} is known", hint="use a newer sifkit")
    if "objects" not in table:
        raise table.wrong("objects", "this is missing")
    return table


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that is there twice nobody knows which is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        shown = show(twice.encode("utf-8", "backslashreplace"))[:80]
        raise ManifestError("", f"the key {shown} is twice in one object", hint="leave one of them")
    return found


def _item(root: str, table: Table) -> _Item:
    """The file an entry names: a regular one, in the directory or below it, also after following links."""
    name = table.text("file")
    if not name:
        raise table.wrong("file", "this is empty")
    try:
        path = os.path.join(root, name)
        real, inside = os.path.realpath(path), os.path.realpath(root)
        found = os.stat(path)
    except FileNotFoundError as error:
        raise table.wrong("file", f"{show(name)} is not in the directory") from error
    except (OSError, ValueError) as error:
        raise table.wrong("file", f"{show(name)} cannot be read") from error
    if os.path.isabs(name) or not (real == inside or real.startswith(os.path.join(inside, ""))):
        raise table.wrong("file", f"{show(name)} is outside of the directory", hint="put the file into the directory")
    if not stat.S_ISREG(found.st_mode):
        raise table.wrong("file", f"{show(name)} is no regular file")
    return _Item(table, path, found.st_size)


def _is_exact(manifest: Table, items: list[_Item]) -> bool:
    if "layout" not in manifest or "header" not in manifest:
        return False
    for item in items:
        if any(key not in item.table for key in EXACT_KEYS) or item.table.values["size"] != item.size:
            return False
    return True


def _plan_exact(root: str, manifest: Table, items: list[_Item]) -> _Plan:
    given = header_fields(Table(manifest.values["header"], "header"))
    wanted = set(GlobalHeader.__slots__)
    if missing := sorted(wanted - set(given)):
        raise ManifestError("header", f"{missing[0]} is missing", hint="leave the layout out to have the image placed anew")
    header = GlobalHeader(**given)
    layout = Table(manifest.values["layout"], "layout")
    layout.only(LAYOUT_KEYS, "the layout")
    size = layout.integer("size", (HEADER_BYTES, MAX_OFFSET))
    total = header.descriptors_total
    if total > MAX_CAPACITY:
        raise ManifestError("header, descriptors_total", f"{total} descriptors, and {MAX_CAPACITY} is the most")
    slots: dict[int, bytes] = {}
    for item in items:
        descriptor = _descriptor(item, object_fields(item.table))
        record = bytearray(descriptor.pack())
        if "used" in item.table:
            record[USED_OFFSET] = item.table.integer("used", (1, 255))
        _put(slots, item.table, total, bytes(record))
    for entry in layout.tables("unused"):
        entry.only(UNUSED_KEYS, "an unused descriptor")
        try:
            raw = bytes.fromhex(entry.text("hex"))
        except ValueError as error:
            raise entry.wrong("hex", "this is not hexadecimal") from error
        if len(raw) != DESCRIPTOR_BYTES or raw[USED_OFFSET]:
            raise entry.wrong("hex", f"want the {DESCRIPTOR_BYTES} bytes of an unused descriptor")
        _put(slots, entry, total, raw)
    state = State.of(header, b"".join(slots.get(slot, EMPTY_SLOT) for slot in range(total)))
    _check(state, size)
    pieces = [(item.table.integer("offset", (0, MAX_OFFSET)), item) for item in items if item.size]
    for entry in layout.tables("gaps"):
        entry.only(GAP_KEYS, "a gap")
        gap = _item(root, entry)
        if entry.integer("size", (0, MAX_OFFSET)) != gap.size:
            raise entry.wrong("size", f"the file has {gap.size} bytes")
        pieces.append((entry.integer("offset", (0, MAX_OFFSET)), gap))
    pieces.sort(key=lambda piece: piece[0])
    _check_disjoint(header, pieces, size)
    return _Plan(state, tuple(pieces), size, True)


def _put(slots: dict[int, bytes], table: Table, total: int, record: bytes) -> None:
    slot = table.integer("slot", (0, max(0, total - 1)))
    if slot in slots or slot >= total:
        raise table.wrong("slot", f"the place {slot} is taken, or is none of {total}")
    slots[slot] = record


def _check_disjoint(header: GlobalHeader, pieces: list[tuple[int, _Item]], size: int) -> None:
    spans: list[tuple[Span, str]] = [((0, HEADER_BYTES), "header")]
    spans.append(((header.descriptors_offset, header.table_bytes), "the table of descriptors"))
    spans += [((offset, item.size), item.table.where) for offset, item in pieces if item.size]
    position, before = 0, ""
    for (begin, length), where in sorted(spans):
        if begin < position:
            raise ManifestError(where, f"byte {begin} belongs to {before}")
        if begin + length > size:
            raise ManifestError(where, f"it ends at byte {begin + length}, the image at {size}")
        position, before = begin + length, where


def _check(state: State, size: int) -> None:
    try:
        check_header(state.header, size)
        check_objects(state)
    except SIFError as error:
        raise ManifestError("layout", error.message, hint="leave the layout out to have the image placed anew") from error


def _descriptor(item: _Item, fields: dict[str, Any]) -> Descriptor:
    data_type = fields["data_type"]
    needs_digest = data_type in OCI_TYPES and not {"digest", "digest_hex", "extra_hex"} & set(item.table.values)
    extra = object_extra(item.table, data_type, _digest(item.path) if needs_digest else "")
    return Descriptor(**{"slot": -1, **fields, "extra": extra})


def _digest(path: str) -> str:
    hasher = sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()


def _plan_anew(manifest: Table, items: list[_Item], stamp: Stamp) -> _Plan:
    given = header_fields(Table(manifest.values["header"], "header")) if "header" in manifest else {}
    places = [item.table.integer("slot", (0, MAX_CAPACITY - 1)) if "slot" in item.table else None for item in items]
    least = max([len(items), *(place + 1 for place in places if place is not None)])
    capacity = given.get("descriptors_total", max(DEFAULT_CAPACITY, least))
    if not max(1, least) <= capacity <= MAX_CAPACITY:
        raise ManifestError("header, descriptors_total", f"{capacity}, want {max(1, least)} to {MAX_CAPACITY}")
    try:
        header = plan_new(stamp, launch=given.get("launch", b""), capacity=capacity, arch=Arch.UNKNOWN)
    except EditError as error:
        raise ManifestError("header", error.message, hint=error.hint) from error
    header = replace(header, **{key: given[key] for key in ("id", "created", "modified") if key in given})
    free = iter(sorted(set(range(capacity)) - set(places)))
    slots: dict[int, bytes] = {}
    pieces = []
    position = header.data_offset
    for item, place in _in_order(items, places):
        slot = next(free) if place is None else place
        if slot in slots:
            raise item.table.wrong("slot", f"the place {slot} is taken")
        fields = object_fields(item.table)
        space = default_alignment(fields["data_type"])
        if "alignment" in item.table:
            try:
                space = check_alignment(item.table.integer("alignment", (0, MAX_OFFSET)))
            except EditError as error:
                raise item.table.wrong("alignment", error.message) from error
        offset = align(position, space)
        if offset + item.size > MAX_OFFSET:
            raise item.table.wrong("file", "it does not fit the image")
        fields |= {"offset": offset, "size": item.size, "size_with_padding": offset - position + item.size}
        for key, value in (("id", slot + 1), ("created", header.created), ("modified", header.created)):
            fields.setdefault(key, value)
        slots[slot] = _descriptor(item, fields).pack()
        pieces.append((offset, item))
        position = offset + item.size
    state = State.of(header, b"".join(slots.get(slot, EMPTY_SLOT) for slot in range(capacity)))
    _check_objects_anew(state)
    root = primary(state.descriptors)
    header = replace(
        header,
        arch=root.arch if root and root.arch is not None else given.get("arch", Arch.UNKNOWN),
        descriptors_free=capacity - len(items),
        data_size=position - header.data_offset,
    )
    state = replace(state, header=header)
    _check(state, position)
    return _Plan(state, tuple((offset, item) for offset, item in pieces if item.size), position, False)


def _in_order(items: list[_Item], places: list[int | None]) -> list[tuple[_Item, int | None]]:
    """As the data lay in the image they come from, where all say so; else as they are listed."""
    pairs = list(zip(items, places, strict=True))
    if all("offset" in item.table for item in items):
        pairs.sort(key=lambda pair: pair[0].table.integer("offset", (0, MAX_OFFSET)))
    return pairs


def _check_objects_anew(state: State) -> None:
    seen: set[int] = set()
    for descriptor in state.descriptors:
        if descriptor.id in seen or not descriptor.id:
            raise ManifestError("objects", f"the id {descriptor.id} is there twice" if descriptor.id else "an id is 0")
        seen.add(descriptor.id)
    for descriptor in state.descriptors:
        if descriptor.link and descriptor.link not in seen:
            raise ManifestError("objects", f"object {descriptor.id} is linked to object {descriptor.link}, which is not listed")
    primaries = matching(state.descriptors, part_type=PartType.PRIMARY_SYSTEM)
    if len(primaries) > 1:
        raise ManifestError("objects", f"{len(primaries)} partitions are primary, and one may be")
