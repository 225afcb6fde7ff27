"""Manifest of an unpacked image: a JSON file with the file and the descriptor of every object.

``unpack`` writes everything that is needed to make the same bytes again. A manifest written by hand needs little:

    {"objects": [{"type": "deffile", "file": "image.def"},
                 {"type": "partition", "fs": "squashfs", "part": "primsys", "arch": "amd64", "file": "root.squashfs"}]}

Codes are words (or siftool's numbers, as text); ``*_code`` is an unknown code as on disk. Bytes that are not UTF-8 are in
``*_hex``. docs/json.md lists all keys; unknown ones are refused, as they may be misspelt. The module does no I/O; errors are
ManifestErrors with their location.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, TypeVar
from uuid import UUID

from ...errors import show
from ..errors import SIFError, UnknownCodeError
from ..format.descriptor import MAX_GROUP, NAME_BYTES, Descriptor, join_group, join_link
from ..format.header import GlobalHeader
from ..format.metadata import (
    EXTRA_BYTES,
    CryptoMeta,
    Metadata,
    OCIMeta,
    PartitionMeta,
    SBOMMeta,
    SignatureMeta,
    metadata_kind,
)
from ..format.schema import GLOBAL_HEADER
from ..format.types import (
    Arch,
    Code,
    DataType,
    FormatType,
    FSType,
    HashType,
    MessageType,
    PartType,
    SBOMFormat,
    arch_from_bytes,
)

__all__ = [
    "GAP_KEYS",
    "LAYOUT_KEYS",
    "MANIFEST_KEYS",
    "UNUSED_KEYS",
    "ManifestError",
    "JSONObject",
    "describe_header",
    "describe_object",
    "header_fields",
    "object_extra",
    "object_fields",
]

C = TypeVar("C", bound=Code)

INT64 = (-(1 << 63), (1 << 63) - 1)
SIZES = (0, INT64[1])
UINT32 = (0, (1 << 32) - 1)
NAMES: dict[str, tuple[str, type[Code]]] = {
    "fs_type": ("fs", FSType),
    "part_type": ("part", PartType),
    "hash_type": ("hash", HashType),
    "format_type": ("format", FormatType),
    "message_type": ("message", MessageType),
    "sbom_format": ("sbom", SBOMFormat),
}
"""Key in the manifest and enumeration, by field of the metadata."""
HEADER_NUMBERS = {
    "created": INT64,
    "modified": INT64,
    "descriptors_free": INT64,
    "descriptors_total": SIZES,
    "descriptors_offset": SIZES,
    "descriptors_size": SIZES,
    "data_offset": SIZES,
    "data_size": SIZES,
}
OBJECT_NUMBERS = {
    "offset": SIZES,
    "size": SIZES,
    "size_with_padding": INT64,
    "created": INT64,
    "modified": INT64,
    "uid": INT64,
    "gid": INT64,
}
MANIFEST_KEYS = frozenset({"sifkit_manifest", "header", "objects", "layout"})
LAYOUT_KEYS = frozenset({"size", "gaps", "unused"})
GAP_KEYS = frozenset({"file", "offset", "size"})
UNUSED_KEYS = frozenset({"slot", "hex"})
HEADER_KEYS = frozenset({"launch", "launch_hex", "id", "arch", "arch_hex", *HEADER_NUMBERS})
OBJECT_KEYS = frozenset(
    {"file", "type", "type_code", "id", "slot", "name", "name_hex", "group", "group_id", "link", "link_group", "linked_id"}
    | {"extra_hex", "used", "alignment", *OBJECT_NUMBERS}
)
METADATA_KEYS: dict[type[Metadata], frozenset[str]] = {
    PartitionMeta: frozenset({"fs", "fs_code", "part", "part_code", "arch", "arch_hex"}),
    SignatureMeta: frozenset({"hash", "hash_code", "entity_hex"}),
    CryptoMeta: frozenset({"format", "format_code", "message", "message_code"}),
    SBOMMeta: frozenset({"sbom", "sbom_code"}),
    OCIMeta: frozenset({"digest", "digest_hex"}),
}
"""Keys of an object besides OBJECT_KEYS, by its type."""


class ManifestError(SIFError, ValueError):
    """Invalid manifest; ``where`` is the location in it, "" for the whole."""

    kind = "manifest"

    def __init__(self, where: str, message: str, *, path: str | bytes | None = None, hint: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message, path=path, hint=hint or "fix the manifest")
        self.where = where


class JSONObject:
    """JSON object of the manifest and its location, "" for the outermost. Getters raise ManifestError for a value of the wrong
    type or out of range."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise ManifestError(where, "not a JSON object")
        self.values: Mapping[str, Any] = value
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def location(self, key: str) -> str:
        """Return the location of ``key``, for messages."""
        return f"{self.where}, {key}" if self.where else key

    def error(self, key: str, message: str, *, hint: str = "") -> ManifestError:
        """Return an error at ``key``."""
        return ManifestError(self.location(key), message, hint=hint)

    def check_keys(self, keys: Set[str], what: str) -> None:
        """Raise ManifestError for a key that is not in ``keys``; ``what``: the noun they belong to."""
        for key in self.values:
            if key not in keys:
                from difflib import get_close_matches

                shown = show(key.encode("utf-8", "backslashreplace"))[:80]
                similar = get_close_matches(key[:80], sorted(keys), 1)
                raise self.error(
                    shown, f"{what} has no such key", hint=f"did you mean {similar[0]}?" if similar else "remove it"
                )

    def exclusive(self, key: str, other: str) -> bool:
        """Return True if ``other`` is given instead of ``key``. Raises ManifestError if both are."""
        if key in self and other in self:
            raise self.error(key, f"{key} and {other} exclude each other", hint="give one of them")
        return other in self

    def integer(self, key: str, limits: tuple[int, int]) -> int:
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not limits[0] <= value <= limits[1]:
            raise self.error(key, f"expected a number from {limits[0]} to {limits[1]}")
        return value

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self.error(key, "expected text" if key in self else "missing")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.error(key, "invalid text") from error
        return value

    def octets(self, key: str, most: int) -> bytes:
        """Return the bytes of ``key`` (text) or of ``key`` + ``_hex``; empty if neither is given."""
        if self.exclusive(key, f"{key}_hex"):
            key = f"{key}_hex"
            text = self.text(key)
            try:
                raw = bytes.fromhex(text)
            except ValueError as error:
                raise self.error(key, "not hexadecimal") from error
        else:
            raw = self.text(key).encode() if key in self else b""
        if len(raw) > most:
            raise self.error(key, f"{len(raw)} bytes, the maximum is {most}")
        return raw

    def objects(self, key: str) -> list[JSONObject]:
        value = self.values.get(key, [])
        if not isinstance(value, list):
            raise self.error(key, "expected a list")
        return [JSONObject(item, self.location(f"{key}[{number}]")) for number, item in enumerate(value)]

    def code(self, key: str, kind: type[C]) -> C | int:
        """Return the code of ``key`` (a word), or the number in ``key`` + ``_code``."""
        if self.exclusive(key, f"{key}_code"):
            return self.integer(f"{key}_code", (-(1 << 31), (1 << 31) - 1))
        try:
            return kind.parse(self.text(key))
        except UnknownCodeError as error:
            raise self.error(key, error.message, hint=error.hint) from error

    def arch(self, default: Arch | bytes | None = None) -> Arch | bytes:
        if self.exclusive("arch", "arch_hex"):
            raw = self.octets("arch", 3)
            if len(raw) != 3:
                raise self.error("arch_hex", "expected 3 bytes")
            return arch_from_bytes(raw)
        if "arch" not in self and default is not None:
            return default
        if self.values.get("arch") == Arch.UNKNOWN.word:
            return Arch.UNKNOWN
        found = self.code("arch", Arch)
        return found if isinstance(found, Arch) else Arch.UNKNOWN


def _octets(key: str, raw: bytes) -> dict[str, str]:
    try:
        return {key: raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{key}_hex": raw.hex()}


def _coded(key: str, code: int | bytes) -> dict[str, Any]:
    if isinstance(code, bytes):
        return {f"{key}_hex": code.hex()}
    if isinstance(code, Code):
        return {key: code.word}
    return {f"{key}_code": int(code)}


def describe_header(header: GlobalHeader) -> dict[str, Any]:
    """Return the manifest's entry for the header."""
    fields: dict[str, Any] = {**_octets("launch", header.launch), "id": str(header.id), **_coded("arch", header.arch)}
    return fields | {name: getattr(header, name) for name in HEADER_NUMBERS}


def header_fields(table: JSONObject) -> dict[str, Any]:
    """Parse the entry of the header into fields of GlobalHeader; keys that are not given are missing."""
    table.check_keys(HEADER_KEYS, "the header")
    most = GLOBAL_HEADER.offset_of("Magic")
    fields: dict[str, Any] = {}
    if "launch" in table or "launch_hex" in table:
        fields["launch"] = table.octets("launch", most).rstrip(b"\0")
    if "id" in table:
        try:
            fields["id_bytes"] = UUID(table.text("id")).bytes
        except ValueError as error:
            raise table.error("id", "not a UUID") from error
    if "arch" in table or "arch_hex" in table:
        fields["arch"] = table.arch()
    return fields | {name: table.integer(name, limits) for name, limits in HEADER_NUMBERS.items() if name in table}


def describe_object(descriptor: Descriptor) -> dict[str, Any]:
    """Return the manifest's entry for an object, without its file."""
    fields: dict[str, Any] = {"id": descriptor.id, "slot": descriptor.slot, **_coded("type", descriptor.data_type)}
    fields |= _octets("name", descriptor.name) if descriptor.name else {}
    if descriptor.group_id == join_group(descriptor.group):
        fields |= {"group": descriptor.group} if descriptor.group else {}
    else:
        fields["group_id"] = descriptor.group_id
    if descriptor.linked_id == join_link(descriptor.link, descriptor.link_group):
        links = {"link": descriptor.link, "link_group": descriptor.link_group}
        fields |= {key: value for key, value in links.items() if value}
    else:
        fields["linked_id"] = descriptor.linked_id
    metadata = descriptor.metadata
    more = descriptor.extra != (metadata.pack_onto(b"").rstrip(b"\0") if metadata else b"")
    if metadata is not None and not (
        more and isinstance(metadata, OCIMeta)
    ):  # bytes after a digest are in extra_hex, with the digest
        fields |= _describe_metadata(metadata)
    if more:
        fields["extra_hex"] = descriptor.extra.hex()
    return fields | {name: getattr(descriptor, name) for name in OBJECT_NUMBERS}


def _describe_metadata(metadata: Metadata) -> dict[str, Any]:
    if isinstance(metadata, OCIMeta):
        return _octets("digest", metadata.digest)
    fields: dict[str, Any] = {}
    for field in metadata._fields:
        value = getattr(metadata, field)
        if field == "entity":
            fields |= {"entity_hex": value.hex()} if value else {}
        elif field == "arch":
            fields |= _coded("arch", value)
        else:
            fields |= _coded(NAMES[field][0], value)
    return fields


def object_fields(table: JSONObject) -> dict[str, Any]:
    """Parse the entry of an object into fields of Descriptor; keys that are not given are missing, except type, group and
    link."""
    data_type = table.code("type", DataType)
    kind = metadata_kind(data_type)
    what = f"a {data_type.word}" if isinstance(data_type, DataType) else "an object of this type"
    table.check_keys(OBJECT_KEYS | (METADATA_KEYS[kind] if kind else frozenset()), what)
    fields: dict[str, Any] = {"data_type": data_type, "name": table.octets("name", NAME_BYTES).rstrip(b"\0")}
    groups = {key: table.integer(key, (0, MAX_GROUP)) if key in table else 0 for key in ("group", "link", "link_group")}
    if groups["link"] and groups["link_group"]:
        raise table.error("link", "an object is linked to an object or to a group, not to both")
    whole_group = table.exclusive("group", "group_id")
    fields["group_id"] = table.integer("group_id", UINT32) if whole_group else join_group(groups["group"])
    whole_link = table.exclusive("link", "linked_id")
    whole_link |= table.exclusive("link_group", "linked_id")
    link = table.integer("linked_id", UINT32) if whole_link else join_link(groups["link"], groups["link_group"])
    fields["linked_id"] = link
    if "id" in table:
        fields["id"] = table.integer("id", UINT32)
    return fields | {name: table.integer(name, limits) for name, limits in OBJECT_NUMBERS.items() if name in table}


def object_extra(table: JSONObject, data_type: int, digest: str) -> bytes:
    """Return the Extra bytes of an object. ``digest``: hexadecimal digest of its data, for OCI objects without one."""
    extra = table.octets("extra", EXTRA_BYTES)
    metadata = _metadata(table, metadata_kind(data_type), digest, given="extra_hex" in table)
    return (metadata.pack_onto(extra) if metadata else extra).rstrip(b"\0")


def _metadata(table: JSONObject, kind: type[Metadata] | None, digest: str, *, given: bool) -> Metadata | None:
    """Parse the metadata; None if there is none, or ``extra_hex`` has it."""
    if kind is PartitionMeta and not (given and "fs" not in table and "fs_code" not in table):
        return PartitionMeta(table.code("fs", FSType), table.code("part", PartType), table.arch())
    if kind is SignatureMeta and not (given and "hash" not in table and "hash_code" not in table):
        return SignatureMeta(table.code("hash", HashType), table.octets("entity", 256).rstrip(b"\0"))
    if kind is CryptoMeta and ("format" in table or "format_code" in table):
        return CryptoMeta(table.code("format", FormatType), table.code("message", MessageType))
    if kind is SBOMMeta and not (given and "sbom" not in table and "sbom_code" not in table):
        return SBOMMeta(table.code("sbom", SBOMFormat))
    if kind is OCIMeta and ("digest" in table or "digest_hex" in table or not given):
        known = "digest" in table or "digest_hex" in table
        raw = table.octets("digest", EXTRA_BYTES) if known else f"sha256:{digest}".encode()
        return OCIMeta(raw)
    return None
