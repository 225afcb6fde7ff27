"""``sifkit overlay info``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import counted, human, show
from ..support.console import Console, Fields, name_fields
from ..support.frame import verb
from ..support.options import JSONTable, Offset, Partition, byte_offset
from ..support.render import bar, local_time, part_cells, percent, print_pairs, rfc3339, stacked_bar
from ..support.results import partition_fields, partition_text
from ..support.values import choice

if TYPE_CHECKING:
    from ...overlay.info import DirectoryOwner, ImageInfo
    from ...overlay.usability import Verdict

__all__ = ["command"]


def _directory(found: DirectoryOwner | None, readable: bool) -> str:
    if found is None:
        return "none" if readable else "unknown"
    return f"{found.mode:04o}, owner {found.uid}:{found.gid}"


def _usage(used: int, total: int, text: str, console: Console) -> str:
    """Usage, with a bar on a terminal."""
    share = percent(used, total)
    return f"{bar(used, total, console)} {share}: {text}" if console.out_is_terminal else f"{text} ({share})"


def _space(info: ImageInfo, text: str, console: Console) -> str:
    """Usage of the space, with a bar of its parts on a terminal."""
    share = percent(info.used_bytes, info.size_bytes)
    if not console.out_is_terminal:
        return f"{text} ({share})"
    line = stacked_bar([size for _, size in _parts_of(info)], part_cells(console))
    return f"{line} {share}: {text}"


def _parts_of(info: ImageInfo) -> list[tuple[str, int]]:
    """Parts of the space: name and size in bytes."""
    journal = 0 if info.journal is None else info.journal.size_bytes
    reserved = min(info.reserved_bytes, info.free_bytes)
    if reserved <= info.block_size:  # one block keeps fuse2fs from taking 10 %
        reserved = 0
    return [
        ("content", max(0, info.used_bytes - info.metadata_bytes - journal)),
        ("metadata", info.metadata_bytes),
        ("journal", journal),
        ("reserved", reserved),
        ("free", info.free_bytes - reserved),
    ]


def _parts(info: ImageInfo, console: Console) -> str:
    """Sizes of the parts of the space, with the cells of the bar on a terminal; empty if they are not known."""
    if not info.metadata_bytes:
        return ""
    parts = _parts_of(info)
    if not console.out_is_terminal:
        return ", ".join(f"{name} {human(size)}" for name, size in parts if size)
    cells = part_cells(console)
    return "  ".join(f"{cell} {name} {human(size)}" for cell, (name, size) in zip(cells, parts[:-1], strict=False) if size)


def _rows(info: ImageInfo, verdict: Verdict, console: Console) -> list[tuple[str, str]]:
    on_disk = f"{human(info.allocated_bytes)} on disk"
    journal = "none"
    if info.journal is not None:
        size = f"{human(info.journal.size_bytes)}, " if info.journal.size_bytes else ""
        journal = size + ("not empty, will be replayed" if info.journal.dirty else "clean")
    used_by = info.use.describe() or "none"
    if info.use.lock == "unsupported":
        used_by += " (file locking is unavailable: other users may be missing)"
    space = f"{human(info.used_bytes)} used, {human(info.free_bytes)} free"
    if info.free_bytes - info.available_bytes > info.block_size:
        space += f" ({human(info.available_bytes)} without root)"
    inodes = f"{info.inodes_used:,} used, {info.inodes_free:,} free"
    geometry = f"of {human(info.block_size)}, in {counted(info.groups, 'group')}; inodes of {human(info.inode_size)}"
    where = [] if info.partition is None else [("partition", partition_text(info.partition))]
    rows = [
        ("image", show(info.path)),
        *where,
        ("file" if info.partition is None else "size", f"{human(info.file_bytes)}, {on_disk}"),
        ("space", _space(info, space, console)),
        *([("", line)] if (line := _parts(info, console)) else []),
        ("inodes", _usage(info.inodes_used, info.inodes, inodes, console)),
        ("blocks", geometry),
        ("label", show(info.label) or "none"),
        ("UUID", str(info.uuid)),
        ("features", " ".join(info.features)),
        ("state", info.state),
        ("journal", journal),
        ("check", _check(info)),
        ("upper/", _directory(info.upper, info.readable)),
        ("work/", _directory(info.work, info.readable)),
        ("used by", used_by),
    ]
    if console.verbose:
        reserved = f"{human(info.reserved_bytes)} for root"
        rows += [("reserved", reserved), ("mounts", f"{info.mount_count:,} since the last check")]
    times = [("created", info.created), ("modified", info.written), ("mounted", info.mounted)]
    rows += [(word, local_time(seconds * 10**9) if seconds else "never") for word, seconds in times]
    rows.append(("Apptainer", "accepted" if info.accepted else f"refused: {'; '.join(info.reasons)}"))
    rows.append(("for you", _usable(verdict)))
    if info.problem:
        rows.append(("content", f"unreadable: {info.problem}"))
    return rows + [("note", note) for note in info.notes]


def _check(info: ImageInfo) -> str:
    """What a check would begin with, as one line."""
    text = "unknown" if info.check is None else f"needed: {info.check}" if info.check else "not needed"
    return text + (f"; {counted(info.orphans, 'removed file')} to release" if info.orphans else "")


def _usable(verdict: Verdict) -> str:
    """Verdict as one line."""
    words = {"writable": "writable", "read-only": "read-only (:ro)", "no": "not usable"}
    return words[verdict.mode] + (f": {'; '.join(verdict.reasons)}" if verdict.reasons else "")


def _json_directory(found: DirectoryOwner | None) -> Fields | None:
    return None if found is None else {"mode": f"{found.mode:04o}", "uid": found.uid, "gid": found.gid}


def _fields(info: ImageInfo, verdict: Verdict) -> Fields:
    from ...in_use import host_name

    use = info.use

    def time(seconds: int) -> Any:
        return rfc3339(seconds * 10**9) if seconds else None

    return {
        "partition": partition_fields(info.partition),
        "file_bytes": info.file_bytes,
        "allocated_bytes": info.allocated_bytes,
        **name_fields("label", info.label),
        "uuid": str(info.uuid),
        "features": list(info.features),
        "block_bytes": info.block_size,
        "inode_bytes": info.inode_size,
        "groups": info.groups,
        "size_bytes": info.size_bytes,
        "used_bytes": info.used_bytes,
        "metadata_bytes": info.metadata_bytes,
        "free_bytes": info.free_bytes,
        "reserved_bytes": info.reserved_bytes,
        "available_bytes": info.available_bytes,
        "inodes": info.inodes,
        "inodes_used": info.inodes_used,
        "inodes_free": info.inodes_free,
        "state": info.state,
        "journal": None if info.journal is None else {"size_bytes": info.journal.size_bytes, "dirty": info.journal.dirty},
        "check": {"needed": None if info.check is None else bool(info.check), "reason": info.check or None},
        "orphans": info.orphans,
        "created": time(info.created),
        "written": time(info.written),
        "mounted": time(info.mounted),
        "mount_count": info.mount_count,
        "upper": _json_directory(info.upper),
        "work": _json_directory(info.work),
        "readable": info.readable,
        "problem": info.problem,
        "use": {
            "lock": use.lock,
            "host": host_name(),
            "other_node": use.place == "other-node",
            "holders": [{"pid": holder.pid, "command": holder.command, "lock": holder.kind} for holder in use.holders],
            "mounts": [
                {
                    "device": mount.device,
                    **(name_fields("path", mount.path) if mount.path else {"path": None}),
                    "read_only": mount.read_only,
                }
                for mount in use.mounts
            ],
        },
        "apptainer": {"accepts": info.accepted, "reasons": list(info.reasons)},
        "usable": {"mode": verdict.mode, "reasons": list(verdict.reasons)},
        "notes": list(info.notes),
    }


@verb(
    examples=[
        "sifkit overlay info overlay.img",
        "sifkit overlay info --json overlay.img | python3 -m json.tool",
        "sifkit overlay info image.sif",
        "sifkit -q overlay info --require writable overlay.img || echo cannot write to it",
    ]
)
def command(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="ext3 image, or SIF image with an overlay")],
    partition: Partition = None,
    offset: Offset = None,
    required: Annotated[
        str,
        typer.Option(
            "--require", metavar="usable|writable", help="exit 1 unless you can use it (read-only or not), or write to it"
        ),
    ] = "",
    json: JSONTable = False,
) -> int:
    """Show what an image is: size, space and inode usage, features, state, journal, label, UUID, owner of upper/ and work/, its
    current users, whether Apptainer accepts it, and how you can use it.

    The image is neither modified nor locked.
    """
    from ...overlay.info import image_info
    from ...overlay.usability import FileAccess, judge

    if required:
        choice("--require", required, ("usable", "writable"))
    console.image = image
    info = image_info(image, partition, offset=byte_offset(offset))
    verdict = judge(info, FileAccess.of(image))
    if json:
        console.emit(_fields(info, verdict), image=image)
    elif not (required and console.quiet):
        print_pairs(_rows(info, verdict, console), console)
    missing = verdict.mode == "no" if required == "usable" else bool(required) and verdict.mode != "writable"
    if missing and not json:
        console.error(f"{show(image)} is {_usable(verdict)}")
    return 1 if missing else 0
