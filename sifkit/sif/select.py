"""Choosing descriptors by what they are: pure functions over sequences of them."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import show
from .errors import AmbiguousObjectError, ObjectNotFoundError
from .format.descriptor import Descriptor
from .format.types import PartType

__all__ = ["by_id", "by_name", "matching", "overlays", "primary"]


def matching(
    descriptors: Iterable[Descriptor],
    *,
    data_type: int | None = None,
    group: int | None = None,
    part_type: int | None = None,
    fs_type: int | None = None,
    link: int | None = None,
    link_group: int | None = None,
    name: bytes | None = None,
) -> tuple[Descriptor, ...]:
    """Those for which everything given holds, in the order they came. ``group``, ``link``, ``link_group``: 0 means none."""
    return tuple(
        descriptor
        for descriptor in descriptors
        if (data_type is None or descriptor.data_type == data_type)
        and (group is None or descriptor.group == group)
        and (part_type is None or descriptor.part_type == part_type)
        and (fs_type is None or descriptor.fs_type == fs_type)
        and (link is None or descriptor.link == link)
        and (link_group is None or descriptor.link_group == link_group)
        and (name is None or descriptor.name == name)
    )


def by_id(descriptors: Iterable[Descriptor], wanted: int) -> Descriptor:
    """The one object with this id. Raises ObjectNotFoundError, AmbiguousObjectError (damaged images only)."""
    descriptors = tuple(descriptors)
    found = [descriptor for descriptor in descriptors if descriptor.id == wanted]
    if not found:
        raise ObjectNotFoundError(f"no object has the id {wanted}", hint=_ids_hint(descriptors))
    if len(found) > 1:
        raise AmbiguousObjectError(
            f"{len(found)} objects have the id {wanted}",
            ids=tuple(descriptor.id for descriptor in found),
            hint="the image is damaged; look at it with: sifkit sif check",
        )
    return found[0]


def by_name(descriptors: Iterable[Descriptor], name: bytes) -> Descriptor:
    """The one object of this name. Raises ObjectNotFoundError, AmbiguousObjectError."""
    descriptors = tuple(descriptors)
    found = matching(descriptors, name=name)
    if not found:
        raise ObjectNotFoundError(f"no object is named {show(name)}", hint=_ids_hint(descriptors))
    if len(found) > 1:
        ids = tuple(descriptor.id for descriptor in found)
        text = ", ".join(map(str, ids[:20])) + (", ..." if len(ids) > 20 else "")
        raise AmbiguousObjectError(f"{len(found)} objects are named {show(name)}: {text}", ids=ids, hint="give the id")
    return found[0]


def primary(descriptors: Iterable[Descriptor]) -> Descriptor | None:
    """The primary system partition: the container's root; the first where a damaged image has several."""
    return next((d for d in descriptors if d.part_type == PartType.PRIMARY_SYSTEM), None)


def overlays(descriptors: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    """The overlay partitions, whatever their group and filesystem."""
    return matching(descriptors, part_type=PartType.OVERLAY)


def _ids_hint(descriptors: tuple[Descriptor, ...]) -> str:
    if not descriptors:
        return "the image holds no objects"
    ids = ", ".join(str(descriptor.id) for descriptor in descriptors[:20]) + (", ..." if len(descriptors) > 20 else "")
    return f"there are: {ids}"
