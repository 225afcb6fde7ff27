"""Selection of descriptors by ID, name and other fields: pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict, Unpack

from ..errors import show
from .errors import AmbiguousObjectError, ObjectNotFoundError
from .format.descriptor import Descriptor
from .format.types import PartType

__all__ = ["Criteria", "ObjectId", "by_id", "by_name", "id_of", "matching", "overlays", "primary"]


ObjectId = int | Descriptor
"""An object, named by its ID or by its descriptor."""


def id_of(wanted: ObjectId) -> int:
    """Return the ID that names an object. Raises TypeError."""
    if isinstance(wanted, Descriptor):
        return wanted.id
    if not isinstance(wanted, int) or isinstance(wanted, bool):
        raise TypeError(f"an object is named by its ID or its descriptor, not by {wanted!r}")
    return wanted


class Criteria(TypedDict, total=False):
    """Fields of descriptors to match; None matches all. ``group``, ``link``, ``link_group``: 0 means none."""

    data_type: int | None
    group: int | None
    part_type: int | None
    fs_type: int | None
    link: int | None
    link_group: int | None
    name: bytes | None


def matching(descriptors: Iterable[Descriptor], **criteria: Unpack[Criteria]) -> tuple[Descriptor, ...]:
    """Return the descriptors that match all criteria, in order."""
    wanted = [(field, value) for field, value in criteria.items() if value is not None]
    return tuple(
        descriptor for descriptor in descriptors if all(getattr(descriptor, field) == value for field, value in wanted)
    )


def by_id(descriptors: Iterable[Descriptor], wanted: int) -> Descriptor:
    """Return the object with this ID. Raises ObjectNotFoundError, AmbiguousObjectError (in damaged images)."""
    descriptors = tuple(descriptors)
    found = [descriptor for descriptor in descriptors if descriptor.id == wanted]
    if not found:
        raise ObjectNotFoundError(f"no object with ID {wanted}", hint=_ids_hint(descriptors))
    if len(found) > 1:
        raise AmbiguousObjectError(
            f"{len(found)} objects have the ID {wanted}",
            ids=tuple(descriptor.id for descriptor in found),
            hint="the image is damaged; check it with: sifkit sif check",
        )
    return found[0]


def by_name(descriptors: Iterable[Descriptor], name: bytes) -> Descriptor:
    """Return the object with this name. Raises ObjectNotFoundError, AmbiguousObjectError."""
    descriptors = tuple(descriptors)
    found = matching(descriptors, name=name)
    if not found:
        raise ObjectNotFoundError(f"no object named {show(name)}", hint=_ids_hint(descriptors))
    if len(found) > 1:
        ids = tuple(descriptor.id for descriptor in found)
        text = ", ".join(map(str, ids[:20])) + (", ..." if len(ids) > 20 else "")
        raise AmbiguousObjectError(f"{len(found)} objects are named {show(name)}: {text}", ids=ids, hint="give the id")
    return found[0]


def primary(descriptors: Iterable[Descriptor]) -> Descriptor | None:
    """Return the primary system partition, the container's root; the first one in a damaged image with several."""
    return next((d for d in descriptors if d.part_type == PartType.PRIMARY_SYSTEM), None)


def overlays(descriptors: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    """Return the overlay partitions of any group and filesystem."""
    return matching(descriptors, part_type=PartType.OVERLAY)


def _ids_hint(descriptors: tuple[Descriptor, ...]) -> str:
    if not descriptors:
        return "the image has no objects"
    ids = ", ".join(str(descriptor.id) for descriptor in descriptors[:20]) + (", ..." if len(descriptors) > 20 else "")
    return f"IDs: {ids}"
