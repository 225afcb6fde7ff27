"""``sifkit overlay info``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import counted, human, show
from ..support.console import Console, Fields, named
from ..support.embedding import Partition, partition_fields, partition_text
from ..support.frame import verb
from ..support.render import bar, pairs, percent, stamp, utc

if TYPE_CHECKING:
    from ...overlay.info import DirectoryOwner, ImageInfo

__all__ = ["command"]


def _directory(found: DirectoryOwner | None, readable: bool) -> str:
    if found is None:
        return "none" if readable else "not known"
    return f"{found.mode:04o}, owner {found.uid}:{found.gid}"


def _full(used: int, total: int, text: str, console: Console) -> str:
    """How full: with a bar on a terminal."""
    share = percent(used, total)
    return f"{bar(used, total, console)} {share}: {text}" if console.out_is_terminal else f"{text} ({share})"


def _rows(info: ImageInfo, console: Console) -> list[tuple[str, str]]:
    on_disk = f" ({human(info.allocated_bytes)} on disk)" if info.allocated_bytes < info.file_bytes else ""
    journal = "none"
    if info.journal is not None:
        size = f"{human(info.journal.size_bytes)}, " if info.journal.size_bytes else ""
        journal = size + ("not empty: it holds changes that are not in place yet" if info.journal.dirty else "clean")
    used_by = info.use.describe() or "nobody"
    if info.use.lock == "unsupported":
        used_by += " (this filesystem has no locks: others may use it unseen)"
    space = f"{human(info.used_bytes)} used, {human(info.free_bytes)} free"
    inodes = f"{info.inodes_used:,} used, {info.inodes_free:,} free"
    geometry = f"of {human(info.block_size)}, in {counted(info.groups, 'group')}; inodes of {human(info.inode_size)}"
    where = [] if info.partition is None else [("partition", partition_text(info.partition))]
    rows = [
        ("image", show(info.path)),
        *where,
        ("file" if info.partition is None else "on disk", human(info.file_bytes) + on_disk),
        ("space", _full(info.used_bytes, info.size_bytes, space, console)),
        ("inodes", _full(info.inodes_used, info.inodes, inodes, console)),
        ("blocks", geometry),
        ("label", show(info.label) or "none"),
        ("UUID", str(info.uuid)),
        ("features", " ".join(info.features)),
        ("state", info.state),
        ("journal", journal),
        ("upper/", _directory(info.upper, info.readable)),
        ("work/", _directory(info.work, info.readable)),
        ("used by", used_by),
    ]
    if console.verbose:
        reserved = f"{human(info.reserved_bytes)} for root"
        rows += [("reserved", reserved), ("mounts", f"{info.mount_count:,} since it was last checked")]
    times = [("made", info.created), ("written", info.written), ("mounted", info.mounted)]
    rows += [(word, stamp(seconds * 10**9) if seconds else "never") for word, seconds in times]
    rows.append(("Apptainer", "accepts it" if info.accepted else f"refuses it: {'; '.join(info.reasons)}"))
    if info.problem:
        rows.append(("content", f"cannot be read: {info.problem}"))
    return rows + [("note", note) for note in info.notes]


def _json_directory(found: DirectoryOwner | None) -> Fields | None:
    return None if found is None else {"mode": f"{found.mode:04o}", "uid": found.uid, "gid": found.gid}


def _fields(info: ImageInfo) -> Fields:
    use = info.use

    def when(seconds: int) -> Any:
        return utc(seconds * 10**9) if seconds else None

    return {
        "partition": partition_fields(info.partition),
        "file_bytes": info.file_bytes,
        "allocated_bytes": info.allocated_bytes,
        **named("label", info.label),
        "uuid": str(info.uuid),
        "features": list(info.features),
        "block_bytes": info.block_size,
        "inode_bytes": info.inode_size,
        "groups": info.groups,
        "size_bytes": info.size_bytes,
        "used_bytes": info.used_bytes,
        "free_bytes": info.free_bytes,
        "reserved_bytes": info.reserved_bytes,
        "inodes": info.inodes,
        "inodes_used": info.inodes_used,
        "inodes_free": info.inodes_free,
        "state": info.state,
        "journal": None if info.journal is None else {"size_bytes": info.journal.size_bytes, "dirty": info.journal.dirty},
        "created": when(info.created),
        "written": when(info.written),
        "mounted": when(info.mounted),
        "mount_count": info.mount_count,
        "upper": _json_directory(info.upper),
        "work": _json_directory(info.work),
        "readable": info.readable,
        "problem": info.problem,
        "use": {
            "lock": use.lock,
            "holders": [{"pid": holder.pid, "command": holder.command, "lock": holder.kind} for holder in use.holders],
            "mounts": [
                {
                    "device": mount.device,
                    **(named("path", mount.path) if mount.path else {"path": None}),
                    "read_only": mount.read_only,
                }
                for mount in use.mounts
            ],
        },
        "apptainer": {"accepts": info.accepted, "reasons": list(info.reasons)},
        "notes": list(info.notes),
    }


@verb(
    examples=[
        "sifkit overlay info overlay.img",
        "sifkit overlay info --json overlay.img | python3 -m json.tool",
        "sifkit overlay info image.sif",
    ]
)
def command(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="an ext3 image, or a SIF image with an overlay in it")],
    partition: Partition = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object instead of the table")] = False,
) -> None:
    """Tell what an image is: features, size, state, journal, label, UUID, how full it is in bytes and inodes, the owner of
    upper/ and work/, who uses it now, and whether Apptainer will accept it.

    The image is only read, and not locked.
    """
    from ...overlay.info import image_info

    console.image = image
    info = image_info(image, partition)
    if json:
        console.emit(_fields(info), image=image)
    else:
        pairs(_rows(info, console), console)
