"""Headers and objects as JSON and as rows of tables."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ...errors import human, show
from ..support.console import Console, Fields, name_fields

if TYPE_CHECKING:
    from ...sif import SIF, Descriptor, GlobalHeader, Notice

__all__ = [
    "exact",
    "group_text",
    "header_fields",
    "header_rows",
    "link_text",
    "object_fields",
    "object_rows",
    "print_table",
    "time_fields",
    "time_text",
    "warning_fields",
]

FIRST, LAST = -62135596800, 253402300799
"""First and last second of the years 1 to 9999, which can be written as a date."""


def _date(seconds: int) -> datetime | None:
    if not FIRST <= seconds <= LAST:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def time_text(seconds: int) -> str:
    """Time in UTC to the second; the first second of year 1 stands for none."""
    date = _date(seconds)
    if date is None:
        return f"invalid ({seconds} seconds since 1970)"
    return "none" if seconds == FIRST else f"{date.replace(tzinfo=None).isoformat(sep=' ')} UTC"


def time_fields(key: str, seconds: int) -> Fields:
    """Time as JSON: null for none and for an invalid date, and the seconds since 1970 as in the file."""
    date = _date(seconds)
    text = None if date is None or seconds == FIRST else f"{date.replace(tzinfo=None).isoformat()}.000000000Z"
    return {key: text, f"{key}_unix": seconds}


def exact(size: int) -> str:
    """Size as text, in units and in bytes."""
    text = human(size)
    return text if size < 1024 else f"{text} ({size:,} bytes)"


def group_text(descriptor: Descriptor) -> str:
    return str(descriptor.group) if descriptor.group else "none"


def link_text(descriptor: Descriptor) -> str:
    """Link as siftool prints it: an object ID, or a group number followed by (G)."""
    if descriptor.link_group:
        return f"{descriptor.link_group} (G)"
    return str(descriptor.link) if descriptor.link else "none"


def object_fields(descriptor: Descriptor) -> Fields:
    """Descriptor as JSON."""
    from ...sif import word_of

    return {
        "id": descriptor.id,
        "slot": descriptor.slot,
        "data_type": word_of(descriptor.data_type),
        "data_type_code": int(descriptor.data_type),
        "type": descriptor.type_text,
        **name_fields("name", descriptor.name),
        "group": descriptor.group or None,
        "link": descriptor.link or None,
        "link_group": descriptor.link_group or None,
        "offset_bytes": descriptor.offset,
        "end_bytes": descriptor.end,
        "size_bytes": descriptor.size,
        "padded_bytes": descriptor.size_with_padding,
        **time_fields("created", descriptor.created),
        **time_fields("modified", descriptor.modified),
        "uid": descriptor.uid,
        "gid": descriptor.gid,
        **_metadata_fields(descriptor),
    }


def _metadata_fields(descriptor: Descriptor) -> Fields:
    from ...sif import CryptoMeta, OCIMeta, PartitionMeta, SBOMMeta, SignatureMeta, word_of

    meta = descriptor.metadata
    if isinstance(meta, PartitionMeta):
        filesystem, use, arch = word_of(meta.fs_type), word_of(meta.part_type), word_of(meta.arch)
        return {"partition": {"filesystem": filesystem, "type": use, "arch": arch}}
    if isinstance(meta, SignatureMeta):
        return {"signature": {"hash": word_of(meta.hash_type), "fingerprint": meta.fingerprint.hex() or None}}
    if isinstance(meta, CryptoMeta):
        return {"crypto": {"format": word_of(meta.format_type), "message": word_of(meta.message_type)}}
    if isinstance(meta, SBOMMeta):
        return {"sbom": {"format": word_of(meta.sbom_format)}}
    if isinstance(meta, OCIMeta):
        return {"oci": {"digest": show(meta.digest)}}
    return {}


def object_rows(descriptor: Descriptor) -> list[tuple[str, str]]:
    """Descriptor as rows of a two-column table."""
    from ...sif import CryptoMeta, OCIMeta, PartitionMeta, SBOMMeta, SignatureMeta, describe

    meta = descriptor.metadata
    rows = [
        ("id", str(descriptor.id)),
        ("type", describe(descriptor.data_type)),
        ("name", show(descriptor.name) or "none"),
    ]
    if isinstance(meta, PartitionMeta):
        rows += [("filesystem", describe(meta.fs_type)), ("partition", _partition_type(describe(meta.part_type)))]
        rows += [("architecture", describe(meta.arch))]
    elif isinstance(meta, SignatureMeta):
        rows += [("hash", describe(meta.hash_type)), ("signed by", meta.fingerprint.hex().upper() or "no fingerprint")]
    elif isinstance(meta, CryptoMeta):
        rows += [("format", describe(meta.format_type)), ("message", describe(meta.message_type))]
    elif isinstance(meta, SBOMMeta):
        rows.append(("format", describe(meta.sbom_format)))
    elif isinstance(meta, OCIMeta):
        rows.append(("digest", show(meta.digest) or "none"))
    padding = descriptor.size_with_padding - descriptor.size
    return [
        *rows,
        ("group", group_text(descriptor)),
        ("link", link_text(descriptor)),
        ("size", exact(descriptor.size)),
        (
            "offset",
            f"{descriptor.offset} to {descriptor.end}" + (f", {padding} bytes of padding before it" if padding > 0 else ""),
        ),
        ("created", time_text(descriptor.created)),
        ("modified", time_text(descriptor.modified)),
        *([("owner", f"{descriptor.uid}:{descriptor.gid}")] if descriptor.uid or descriptor.gid else []),
    ]


def _partition_type(text: str) -> str:
    return "primary System" if text == "*System" else text


def header_fields(sif: SIF) -> Fields:
    """Global header as JSON."""
    from ...sif import word_of

    header = sif.header
    return {
        "version": "01",
        **name_fields("launch", header.launch),
        "arch": word_of(header.arch),
        "id": str(header.id),
        **time_fields("created", header.created),
        **time_fields("modified", header.modified),
        "deterministic": header.deterministic,
        "objects": len(sif),
        "descriptors_free": header.descriptors_free,
        "descriptors_total": header.descriptors_total,
        "descriptors_offset_bytes": header.descriptors_offset,
        "descriptors_size_bytes": header.descriptors_size,
        "data_offset_bytes": header.data_offset,
        "data_size_bytes": header.data_size,
        "file_bytes": sif.file_size,
    }


def header_rows(sif: SIF) -> list[tuple[str, str]]:
    """Global header as rows of a two-column table."""
    from ...sif import describe

    header: GlobalHeader = sif.header
    launch = header.launch.removesuffix(b"\n")
    return [
        ("launch", show(launch) or "none"),
        ("version", "01"),
        ("architecture", describe(header.arch)),
        ("id", str(header.id) if header.id.int else "none"),
        ("created", time_text(header.created)),
        ("modified", time_text(header.modified)),
        ("objects", f"{len(sif)} of {header.descriptors_total}, {header.descriptors_free} free"),
        ("table", f"{exact(header.descriptors_size)} at byte {header.descriptors_offset}"),
        ("data", f"{exact(header.data_size)} at byte {header.data_offset}"),
        ("file", exact(sif.file_size)),
    ]


def warning_fields(notices: Iterable[Notice]) -> Fields:
    """Warnings as JSON."""
    return {"warnings": [{"kind": notice.kind, "message": notice.message, "id": notice.id} for notice in notices]}


def _fitted(head: Sequence[str], rows: Sequence[Sequence[str]], columns: int, mark: str) -> list[list[str]]:
    """Return the rows with texts of the last column cut, where lines would be longer than ``columns``; at least 8 are left."""
    others = sum(max(len(row[column]) for row in [head, *rows]) + 2 for column in range(len(head) - 1))
    left = max(8, columns - others)
    return [[*row[:-1], row[-1] if len(row[-1]) <= left else row[-1][: left - 1] + mark] for row in rows]


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], console: Console, *, right: Sequence[int] = ()) -> None:
    """Print an aligned table, on a terminal with a bold heading. ``right``: right-aligned columns.

    On a terminal the last column is cut to fit its width; lines are never wrapped.
    """
    if console.out_is_terminal:
        rows = _fitted(head, rows, shutil.get_terminal_size().columns, "\u2026" if console.out_is_unicode else "~")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for number, row in enumerate([head, *rows]):
        cells = (f"{c:>{w}}" if i in right else f"{c:<{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        line = "  ".join(cells).rstrip()
        bold = number == 0 and console.out_is_terminal and console.color
        console.line(f"\x1b[1m{line}\x1b[0m" if bold else line)
