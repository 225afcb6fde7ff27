"""Reservation of a partition for an overlay in a SIF image, after checks of the image and of its signatures.

The new partition is the last object of the image, in the group of the primary partition, where the runtimes look for it. It
becomes part of the image once it is complete; an overlay that it replaces is deleted in the same commit.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from ...errors import show
from ...file_locks import lock_range
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
from ...sif.signatures import (
    SIGNATURE_LIMIT,
    Coverage,
    SignedError,
    broken_signatures,
    parse_coverage,
    signature_text,
    signatures,
)
from .sif_partition import EditedSif, lock_partition, no_locks_error

__all__ = [
    "EmbedOptions",
    "OnSignatures",
    "OverlaySlot",
    "SignatureDecision",
    "apply_signature_policy",
    "find_slot",
    "reserve_partition",
]

OnSignatures = Literal["refuse", "drop", "keep"]
ENCRYPTED = {FSType.ENCRYPTED_SQUASHFS, FSType.GOCRYPTFS_SQUASHFS}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """Options of putting an overlay into a SIF.

    ``replace``: replace an existing writable overlay in the same commit. ``on_signatures``: refuse to break signatures, drop or
    keep those that break. ``require_lock``: fail if file locking is unavailable.
    """

    replace: bool = False
    on_signatures: OnSignatures = "refuse"
    require_lock: bool = False


@dataclass(frozen=True, slots=True)
class OverlaySlot:
    """Group and architecture of an overlay in a SIF, and the partition it replaces."""

    group: int
    arch: Arch
    old: Descriptor | None = None
    notes: tuple[str, ...] = ()

    @property
    def edit(self) -> str:
        """Edit of the SIF, for messages."""
        return "adding an overlay" if self.old is None else "replacing the overlay"


@dataclass(frozen=True, slots=True)
class SignatureDecision:
    """Decision about signatures that an edit breaks: IDs of those to remove with it, and notes for the user."""

    dropped: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=())


def find_slot(sif: SIF, path: str, *, replace: bool) -> OverlaySlot:
    """Return the slot for a new overlay. Raises EditError, ImageFullError."""
    image = show(path)
    root = sif.primary
    if root is not None and root.fs_type in ENCRYPTED:
        raise EditError(
            f"{image}: the root filesystem is encrypted, and the runtimes ignore an overlay inside such an image",
            path=path,
            hint=f"make a stand-alone one: sifkit overlay create overlay.img; apptainer exec --overlay overlay.img {image} CMD",
        )
    if sif.select(data_type=DataType.OCI_ROOT_INDEX):
        raise EditError(
            f"{image} is an OCI-SIF, which keeps its overlay as a layer",
            path=path,
            hint="make a stand-alone one: sifkit overlay create overlay.img",
        )
    writable = [overlay for overlay in sif.overlays if overlay.fs_type == FSType.EXT3]
    old = writable[0] if writable else None
    if old is not None and not replace:
        raise EditError(
            f"{image} has a writable overlay, object {old.id}, and only one can be used at a time",
            path=path,
            hint=f"--replace replaces it; to keep it, first: sifkit overlay detach {image} -o FILE",
        )
    if len(writable) > 1:
        ids = " ".join(str(overlay.id) for overlay in writable[1:20])
        raise EditError(
            f"{image} has {len(writable)} writable overlays, and --replace replaces only one",
            path=path,
            hint=f"first delete the unused ones, for example: sifkit sif del {ids} {image}",
        )
    if old is None and len(sif) >= sif.capacity:
        raise ImageFullError(len(sif), sif.capacity, path=path)
    group = old.group if old is not None else root.group if root is not None and root.group else 1
    notes = []
    if root is None:
        notes.append("the image has no primary partition, without which the runtimes cannot use it")
    elif group != root.group:
        of_root = f"group {root.group}" if root.group else "no group"
        notes.append(
            f"the overlay is in group {group} and the primary partition in {of_root}: the"
            f" runtimes will not find it; change it with: sifkit sif update {root.id} {image} --group {group}"
        )
    return OverlaySlot(group, _arch(sif), old, tuple(notes))


def _arch(sif: SIF) -> Arch:
    """Return the architecture of the primary partition, else of the header, else of this host."""
    for found in (sif.primary.arch if sif.primary else None, sif.header.arch):
        if isinstance(found, Arch) and found != Arch.UNKNOWN:
            return found
    host = Arch.of_machine(platform.machine())
    return host if host != Arch.UNKNOWN else Arch.AMD64


def apply_signature_policy(
    sif: SIF, path: str, edit: str, policy: OnSignatures, *, old: Descriptor | None, group: int = 0
) -> SignatureDecision:
    """Decide about the signatures that an edit breaks. Raises SignedError if ``policy`` is "refuse".

    ``group``: group of the overlay that is added (0: none is added). ``old``: the overlay that is removed, or rewritten if one
    is added. ``edit``: the edit, for messages.
    """
    if old is None:
        after, rewritten = _with_overlay(sif, group), set[int]()
    elif group:
        after, rewritten = list(sif), {old.id}
    else:
        after, rewritten = [descriptor for descriptor in sif if descriptor.id != old.id], set[int]()
    affected = _broken_signatures(sif, after, rewritten)
    if not affected:
        return SignatureDecision()
    if policy == "refuse":
        error = SignedError.of(affected, edit)
        error.set_path(path)
        raise error
    if policy == "keep":
        return SignatureDecision(notes=(f"{edit} breaks {signature_text(affected)}",))
    dropped = tuple(signature.id for signature in affected)
    return SignatureDecision(dropped, (f"{edit} breaks {signature_text(affected)}, now removed",))


def _broken_signatures(sif: SIF, after: Sequence[Descriptor], rewritten: Collection[int]) -> tuple[Descriptor, ...]:
    found: dict[int, Coverage] = {}
    for signature in signatures(sif):
        whole = signature.size <= SIGNATURE_LIMIT and signature.end <= sif.file_size
        found[signature.id] = parse_coverage(sif.open_object(signature.id).read()) if whole else Coverage()
    return broken_signatures(sif.descriptors, after, found, rewritten=rewritten)


def _with_overlay(sif: SIF, group: int) -> list[Descriptor]:
    """Return the descriptors with one more, as far as it matters to signatures."""
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
def reserve_partition(
    edited: EditedSif,
    slot: OverlaySlot,
    size: int,
    *,
    drop: Iterable[int] = (),
    require_lock: bool = False,
    old_locked: bool = False,
) -> Iterator[Reservation]:
    """Reserve ``size`` zero bytes for the overlay, locked as Apptainer locks a partition it writes to.

    The end of the block commits the partition and the deletion of the objects ``drop`` at once. ``old_locked``: the old
    overlay is locked already. Raises ImageInUseError if the
    old overlay is in use, and what ``SIF.reserve`` does.
    """
    sif, old = edited.sif, slot.old
    if old is None:
        new = PartitionMeta(FSType.EXT3, PartType.OVERLAY, slot.arch)
        reserved = sif.reserve(size, new, group=slot.group, drop=drop)
    else:
        if not old_locked:
            lock_partition(edited.fd, edited.path, old, write=True, require_lock=require_lock)
        meta = old.partition and old.partition._replace(fs_type=FSType.EXT3)
        reserved = sif.reserve_again(old.id, size, metadata=meta, drop=drop)
    with reserved as reservation:
        locked = lock_range(reservation.fd, write=True, offset=reservation.offset, size=size, path=edited.path)
        if require_lock and not locked:
            raise no_locks_error(edited.path)
        yield reservation
