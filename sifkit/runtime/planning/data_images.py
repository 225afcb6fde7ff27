"""Data images of a run: those that binds show files and directories of. Which are read, and which written to. Pure.

As with Apptainer (1.4.5, tried) an ext3 image is written to unless its bind is read-only. An image of several binds is mounted
once; it is written to if one of them may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...errors import UsageError, shell_quote, show
from .binds import BindSpec
from .layer_plan import NoWayError, PlannedLayers
from .request import DataImageFacts, HostFacts, RunRequest
from .run_plan import DataImage, Layer, Upper, Way

__all__ = ["first_binds", "plan_data_images"]


def first_binds(binds: Sequence[BindSpec]) -> Iterator[BindSpec]:
    """Yield the binds that count: of several at the same path the first."""
    targets: set[str] = set()
    for spec in binds:
        if spec.target not in targets:
            targets.add(spec.target)
            yield spec


def plan_data_images(
    request: RunRequest, binds: Sequence[BindSpec], planned: PlannedLayers, way: Way, host: HostFacts
) -> tuple[Mapping[BindSpec, DataImage], tuple[str, ...]]:
    """Return the data images of binds, and notes. ``planned``: the layers of the root.

    Raises UsageError for an image that the root needs as well, and NoWayError for one that cannot be written to here.
    """
    found = {spec: request.data_images[spec.source, spec.object_id] for spec in first_binds(binds) if spec.image_source}
    notes: dict[str, None] = {}
    written: dict[Layer, DataImageFacts] = {}
    for spec, image in found.items():
        if spec.object_id is not None and image.kind != "sif":
            notes[f"id={spec.object_id} has no effect: {show(image.name)} is a {image.kind} image"] = None
        if spec.asks_to_write and not spec.readonly and image.layer.kind == "squashfs":
            notes[f"{show(image.layer.name)} is a squashfs and is only read"] = None
        if spec.readonly or image.layer.kind != "ext3":
            continue
        if image.is_writable:
            written[image.layer] = image
        else:
            notes[f"{show(image.name)} is not writable for you and is only read"] = None
    for image in written.values():
        if image.is_signed:
            notes[f"{show(image.name)} is signed, and what is written to it breaks the signature"] = None
        if way != "root" and not host.fuse.works:
            raise NoWayError(
                f"{show(image.layer.name)} cannot be written to on this host: {host.fuse.reason}",
                hint="read it only: add ro to its bind",
            )
    for image in found.values():
        _check_unused(request, image, planned, is_written=image.layer in written)
    return {spec: _data_image(image.layer, written) for spec, image in found.items()}, tuple(notes)


def _data_image(layer: Layer, written: Mapping[Layer, object]) -> DataImage:
    if layer not in written:
        return layer
    return Upper(
        kind="image", path=layer.path, offset=layer.offset, size=layer.size, object_id=layer.object_id, upper="", work=""
    )


def _check_unused(request: RunRequest, image: DataImageFacts, planned: PlannedLayers, *, is_written: bool) -> None:
    """Raise UsageError for an image that would be written to twice, or read while it is written to."""

    def is_same(other: DataImage) -> bool:
        path = request.image.real_path if other.path == request.image.path else other.path
        return (path, other.object_id) == (image.layer.path, image.layer.object_id)

    name = show(image.layer.name)
    if planned.upper is not None and is_same(planned.upper):
        raise UsageError(
            f"{name} is written to by the container's root, and cannot be bound from",
            hint=f"leave out one of them, or read both: --overlay {shell_quote(image.name)}:ro, and ro in the bind",
        )
    if is_written and any(is_same(layer) for layer in planned.layers):
        raise UsageError(f"{name} is a layer of the container's root, and cannot be written to", hint="add ro to its bind")
