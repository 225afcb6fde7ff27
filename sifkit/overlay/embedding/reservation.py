"""Room for an overlay in a SIF image: what is refused, which signatures break, and the reservation, locked.

The new partition is the last object of the image, in the primary partition's group, where the runtimes look for it. It becomes
part of the image when it is whole; one that it replaces goes in the same commit.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from ...atomic import lock_range
from ...errors import show
from ...sif import (
    SIF,
    Arch,
    DataType,
    Descriptor,
    EditError,
    FSType,
    ImageFullError,
    PartitionMeta,
    PartType,
    Reservation,
)
from ...sif.format.descriptor import join_group
from ...sif.signatures import SIGNATURE_LIMIT, Signed, SignedError, broken, named, parse_signed, signatures
from ..target import EditedImage, lock_partition, no_locks

__all__ = [
    "EmbedOptions",
    "OnSignatures",
    "Place",
    "Settled",
    "find_place",
    "place_room",
    "settle_signatures",
]

OnSignatures = Literal["refuse", "drop", "keep"]
ENCRYPTED = {FSType.ENCRYPTED_SQUASHFS, FSType.GOCRYPTFS_SQUASHFS}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """How an overlay is put into a SIF. ``replace``: a writable overlay that is there goes in the same commit.
    ``on_signatures``: those that break make it fail, or are removed, or kept. ``require_lock``: no locks, no edit."""

    replace: bool = False
    on_signatures: OnSignatures = "refuse"
    require_lock: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where an overlay goes: its group and architecture, and what it replaces."""

    group: int
    arch: Arch
    old: Descriptor | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """The signatures an edit breaks: ids of those to be removed with it, and what to tell."""

    dropped: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=())


def find_place(sif: SIF, path: str, *, replace: bool) -> Place:
    """Where an overlay may go in an image. Raises EditError with the command that helps, ImageFullError."""
    image = show(path)
    root = sif.primary
    if root is not None and root.fs_type in ENCRYPTED:
        raise EditError(
            f"{image}: the root filesystem is encrypted, and the runtimes use no overlay inside such an image",
            hint=f"make a stand-alone one: sifkit overlay create overlay.img; apptainer exec --overlay overlay.img {image} CMD",
        )
    if sif.select(data_type=DataType.OCI_ROOT_INDEX):
        raise EditError(
            f"{image} is an OCI-SIF, which keeps its overlay as a layer",
            hint="make a stand-alone one: sifkit overlay create overlay.img",
        )
    writable = [overlay for overlay in sif.overlays if overlay.fs_type == FSType.EXT3]
    old = writable[0] if writable else None
    if old is not None and not replace:
        raise EditError(
            f"{image} has a writable overlay in it, object {old.id}, and one is in use at a time",
            hint=f"--replace puts the new one in its place; to keep it: sifkit overlay detach {image} -o FILE",
        )
    if len(writable) > 1:
        ids = " ".join(str(overlay.id) for overlay in writable[1:20])
        raise EditError(
            f"{image} has {len(writable)} writable overlays, and --replace puts one in the place of one",
            hint=f"remove those that nobody uses, for example: sifkit sif del {ids} {image}",
        )
    if old is None and len(sif) >= sif.capacity:
        raise ImageFullError(len(sif), sif.capacity, path=path)
    group = root.group if root is not None and root.group else 1
    notes = []
    if root is None:
        notes.append("the image has no primary partition, and without one the runtimes cannot use it")
    elif (old.group if old is not None else group) != root.group:
        of_root = f"group {root.group}" if root.group else "no group"
        notes.append(
            f"the overlay is in group {old.group if old is not None else group} and the primary partition in {of_root}: the"
            f" runtimes will not find it; sifkit sif update {root.id} --groupid changes that"
        )
    return Place(group, _arch(sif), old, tuple(notes))


def _arch(sif: SIF) -> Arch:
    """That of the primary partition, else the header's, else this host's."""
    for found in (sif.primary.arch if sif.primary else None, sif.header.arch):
        if isinstance(found, Arch) and found != Arch.UNKNOWN:
            return found
    host = Arch.of_machine(platform.machine())
    return host if host != Arch.UNKNOWN else Arch.AMD64


def settle_signatures(
    sif: SIF, path: str, edit: str, options: OnSignatures, *, old: Descriptor | None, adds: int = 0
) -> Settled:
    """The rule for signatures. ``adds``: an overlay comes in, into this group (0: none comes); ``old``: the one that goes, or
    gets other bytes where one comes. ``edit``: as messages say it. Raises SignedError under "refuse"."""
    if old is None:
        after, rewritten = _with_overlay(sif, adds), set[int]()
    elif adds:
        after, rewritten = list(sif), {old.id}
    else:
        after, rewritten = [descriptor for descriptor in sif if descriptor.id != old.id], set[int]()
    harmed = _broken(sif, after, rewritten)
    if not harmed:
        return Settled()
    if options == "refuse":
        error = SignedError.of(harmed, edit)
        error.path, error.message = path, f"{show(path)}: {error.message}"
        raise error
    if options == "keep":
        return Settled(notes=(f"{edit} breaks {named(harmed)}",))
    return Settled(tuple(signature.id for signature in harmed), (f"{edit} breaks {named(harmed)}, now removed",))


def _broken(sif: SIF, after: Sequence[Descriptor], rewritten: Collection[int]) -> tuple[Descriptor, ...]:
    found: dict[int, Signed] = {}
    for signature in signatures(sif):
        whole = signature.size <= SIGNATURE_LIMIT and signature.end <= sif.file_size
        found[signature.id] = parse_signed(sif.open_object(signature.id).read()) if whole else Signed()
    return broken(sif.descriptors, after, found, rewritten=rewritten)


def _with_overlay(sif: SIF, group: int) -> list[Descriptor]:
    """The descriptors with one more, as far as signatures care."""
    id = max((descriptor.id for descriptor in sif), default=0) + 1
    new = Descriptor(
        data_type=DataType.PARTITION,
        id=id,
        offset=0,
        size=0,
        size_with_padding=0,
        created=0,
        modified=0,
        group_id=join_group(group),
    )
    return [*sif, new]


@contextmanager
def place_room(
    edited: EditedImage, place: Place, size: int, *, drop: Iterable[int] = (), require_lock: bool = False
) -> Iterator[Reservation]:
    """``size`` bytes for the overlay, which read as zero and are locked as Apptainer locks a partition it writes to; at the end
    of the block it is in the image, and the objects ``drop`` are not, in one commit. Raises ImageInUseError where the old one
    is in use, and what ``SIF.reserve`` does."""
    sif, old = edited.sif, place.old
    if old is None:
        new = PartitionMeta(FSType.EXT3, PartType.OVERLAY, place.arch)
        reserved = sif.reserve(size, new, group=place.group, drop=drop)
    else:
        lock_partition(edited.fd, edited.path, old, write=True, require_lock=require_lock)
        meta = old.partition and replace(old.partition, fs_type=FSType.EXT3)
        reserved = sif.reserve_again(old.id, size, metadata=meta, drop=drop)
    with reserved as room:
        locked = lock_range(room.fd, write=True, offset=room.offset, size=size, path=edited.path)
        if require_lock and not locked:
            raise no_locks(edited.path)
        yield room
