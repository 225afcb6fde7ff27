"""Layers of a run: which filesystems make up the root, which one is written to, and how they are joined. Pure.

The rules are Apptainer's (1.4.5, tried): the root is the lowest layer, then the overlays in the image, then those that are
given for reading, later ones higher; one is written to, and lies above all wherever it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...errors import FormatError, NotYetError, SifkitError, UsageError, shell_quote, show
from .config import SiteConfig
from .request import Caller, DataImageFacts, Fact, HostFacts, ImageFacts, OverlayFacts, RunRequest
from .run_plan import Layer, Upper, Way

ALSO_RUNS = {"amd64": "386", "arm64": "arm"}
"""Architectures whose programs run on another, too."""

__all__ = ["NoWayError", "PlannedLayers", "check_images", "choose_way", "plan_layers"]


class NoWayError(SifkitError):
    """Run that this host does not allow."""

    kind = "not-possible"


class PlannedLayers(NamedTuple):
    """Layers from the lowest up, and what is written to. ``is_root_writable``: the root itself."""

    layers: tuple[Layer, ...]
    upper: Upper | None
    is_root_writable: bool
    notes: tuple[str, ...]


def check_images(request: RunRequest, site: SiteConfig) -> None:
    """Raise FormatError for an image that cannot run here, UsageError for one of the run that the site does not allow."""
    image = request.image
    _check_image(image, request.caller)
    _check_limits(image.path, image.real_path, image, site)
    for overlay in request.overlays:
        _check_limits(overlay.name, overlay.path, overlay, site)
    for found in request.data_images.values():
        _check_limits(found.name, found.path, found, site)


def _check_image(image: ImageFacts, caller: Caller) -> None:
    name, machine = show(image.path), caller.machine
    if image.is_encrypted:
        raise FormatError(
            f"{name}: its root is encrypted", path=image.path, hint="run it with Apptainer, or build it unencrypted"
        )
    if image.architecture not in ("", machine, ALSO_RUNS.get(machine), *caller.emulated) and machine:
        hint = f"get the image for {machine}, or have the administrator set up qemu-user with binfmt_misc"
        raise FormatError(f"{name} is for {image.architecture}, this host is {machine}", path=image.path, hint=hint)


def _check_limits(name: str, real: str, image: ImageFacts | OverlayFacts | DataImageFacts, site: SiteConfig) -> None:
    """Raise UsageError for an image that the site does not allow. ``real``: its path without symlinks."""
    allowed = {
        "sif": site.allow_container_sif,
        "squashfs": site.allow_container_squashfs,
        "ext3": site.allow_container_extfs,
        "directory": site.allow_container_dir,
    }
    limits = (
        (
            allowed[image.kind],
            f"'allow container {'extfs' if image.kind == 'ext3' else image.kind.replace('ectory', '')} = no'",
        ),
        (not site.limit_container_owners or image.owner in site.limit_container_owners, "'limit container owners'"),
        (not site.limit_container_groups or image.group in site.limit_container_groups, "'limit container groups'"),
        (
            not site.limit_container_paths
            or any(f"{real}/".startswith(path.rstrip("/") + "/") for path in site.limit_container_paths),
            "'limit container paths'",
        ),
    )
    for holds, directive in limits:
        if not holds:
            raise UsageError(f"{show(name)}: this site does not allow it", hint=f"{directive} in {show(site.path)}")


def plan_layers(request: RunRequest, site: SiteConfig) -> PlannedLayers:
    """Return the layers of a run. Raises UsageError for options that contradict each other, FormatError for what is missing."""
    options, image = request.options, request.image
    notes: list[str] = []
    asked = options.writable_tmpfs and not options.writable
    tmpfs = asked or (options.compat and not options.writable and not _writers(request.overlays, []))
    if (request.overlays or tmpfs) and site.enable_overlay == "no":
        what = "overlays" if request.overlays else "--writable-tmpfs" if asked else "--compat"
        raise UsageError(f"this site does not allow {what}", hint=f"'enable overlay = no' in {show(site.path)}")
    if options.writable and options.writable_tmpfs:
        notes.append("--writable-tmpfs has no effect with --writable")
    if options.tmpfs_size and not tmpfs:
        raise UsageError("--tmpfs-size is for --writable-tmpfs", hint="add --writable-tmpfs, or leave it out")
    if options.writable and request.overlays:
        raise UsageError(
            "--writable and --overlay exclude each other",
            hint="an overlay is written to without --writable; to write to the one in the image, leave out --overlay",
        )
    writers = _writers(request.overlays, notes)
    if len(writers) > 1:
        names = ", ".join(show(one.name) for one in writers)
        raise UsageError(
            f"only one overlay can be written to, and there are {len(writers)}: {names}", hint="add :ro to the others"
        )
    _check_repeated(request.overlays, writers)
    if writers and asked:
        hint = f"write --overlay {shell_quote(writers[0].name)}:ro, or leave out --writable-tmpfs"
        raise UsageError("--writable-tmpfs and an overlay that is written to exclude each other", hint=hint)
    layers = [image.root, *image.overlays]
    upper: Upper | None = None
    root_is_writable = False
    if options.writable:
        upper, root_is_writable = _writable_image(image)
        if upper is not None and len(image.uppers) > 1:
            first = image.uppers[0].object_id
            notes.append(
                f"{show(image.path)} has {len(image.uppers)} overlays that can be written to: the highest is, object "
                f"{upper.object_id}; Apptainer writes to object {first}, and shows no other then"
            )
        if upper is not None and upper.object_id in image.signed:
            notes.append(f"{show(image.path)} is signed, and what is written to its overlay breaks the signature")
        layers = [layer for layer in layers if upper is None or (layer.path, layer.object_id) != (upper.path, upper.object_id)]
    layers += [layer for one in request.overlays if one not in writers for layer in one.layers]
    if writers:
        (writer,) = writers
        upper = writer.upper
        assert upper is not None
        layers += [layer for layer in writer.layers if (layer.path, layer.object_id) != (upper.path, upper.object_id)]
        if writer.filesystem:
            raise UsageError(
                f"{show(writer.name)} lies on {writer.filesystem}, where no overlay can be written to",
                hint=f"use an image: sifkit overlay create --size 1G {shell_quote(writer.name.rstrip('/') + '.img')}",
            )
    if tmpfs:
        upper = Upper(kind="tmpfs", size=_given_bytes(options.tmpfs_size) or site.memory_bytes(request.caller.uid))
    return PlannedLayers(tuple(layers), upper, root_is_writable, tuple(notes))


def _check_repeated(overlays: Sequence[OverlayFacts], writers: Sequence[OverlayFacts]) -> None:
    """Raise UsageError for an overlay that is given twice, unless it is an image that is only read."""
    seen: dict[str, OverlayFacts] = {}
    for one in overlays:
        before = seen.get(one.path)
        seen[one.path] = one
        if before is not None and (one.kind == "directory" or one in writers or before in writers):
            names = " and ".join(dict.fromkeys((show(before.name), show(one.name))))
            raise UsageError(f"one overlay is given twice: {names}", hint="leave out one of them")


def _given_bytes(text: str) -> int | None:
    """Return the size that ``--tmpfs-size`` asks for; None if it is not given. Raises UsageError."""
    if not text:
        return None
    from ...text_values import parse_size

    return parse_size("--tmpfs-size", text)


def _writers(overlays: Sequence[OverlayFacts], notes: list[str]) -> list[OverlayFacts]:
    """Return the overlays that are written to; note those that could only be read."""
    found = []
    for one in overlays:
        if one.read_only:
            continue
        if one.upper is None:
            notes.append(f"{show(one.name)} is a {one.kind} and is only read; write {show(one.name)}:ro")
        elif not one.is_writable:
            notes.append(f"{show(one.name)} is not writable for you and is only read")
        else:
            found.append(one)
    return found


def _writable_image(image: ImageFacts) -> tuple[Upper | None, bool]:
    """Return what ``--writable`` writes to: an overlay in the image, or (True) its root itself. Raises FormatError."""
    name = show(image.path)
    if not image.is_writable:
        raise FormatError(
            f"{name} is not writable for you", path=image.path, hint="leave out --writable, or use --writable-tmpfs"
        )
    if image.kind == "directory":
        return None, True
    if image.kind == "ext3":
        hint = "use --overlay, or copy it to a directory: sifkit extract"
        raise NotYetError(f"{name} is an ext3 image: writing to the root itself is not supported", path=image.path, hint=hint)
    if image.uppers:
        return image.uppers[-1], False
    hint = "leave out --writable and use --overlay or --writable-tmpfs"
    if image.kind == "sif":
        hint = f"add one with: sifkit overlay create --size 1G {shell_quote(image.path)}; or use --overlay or --writable-tmpfs"
    message = f"{name} has no overlay that can be written to"
    if image.unused_overlay:
        message += f": {image.unused_overlay}"
        hint = f"show the groups with: sifkit sif list {shell_quote(image.path)}; or use --overlay or --writable-tmpfs"
    raise FormatError(message, path=image.path, hint=hint)


def choose_way(request: RunRequest, planned: PlannedLayers, host: HostFacts) -> Way:
    """Return how the layers are joined. Raises NoWayError with the reason and what would work."""
    options = request.options
    if host.is_root and host.loop.works and not options.userns:
        return "root"
    if not host.user_namespace.works:
        what = "this host has no user namespaces for you"
        raise NoWayError(f"{what}: {host.user_namespace.reason}", hint=_namespace_hint(request, host.user_namespace))
    if not host.user_mount.works:
        what = "nothing can be mounted in a user namespace here"
        raise NoWayError(f"{what}: {host.user_mount.reason}", hint=_namespace_hint(request, host.user_mount))
    upper = planned.upper
    is_directory = len(planned.layers) == 1 and planned.layers[0].kind == "directory"
    if is_directory and upper is None:
        return "directory"
    if is_directory and upper is not None and upper.kind != "image" and host.overlay.works:
        (root,) = planned.layers
        if not root.has_mounts and not (root.is_foreign and host.fuse.works and host.fuse_upper.works):
            return "directory"
    if upper is None:
        return "view" if host.fuse.works else "unpacked"
    if not host.overlay.works:
        raise NoWayError(
            f"overlays cannot be written to on this host: {host.overlay.reason}",
            hint=_read_hint(upper, is_own=options.writable),
        )
    if host.fuse.works and host.fuse_upper.works:
        return "user"
    missing = host.fuse if not host.fuse.works else host.fuse_upper
    if upper.kind == "image":
        raise NoWayError(
            f"{show(upper.name)} cannot be written to on this host: {missing.reason}",
            hint=_read_hint(upper, is_own=options.writable),
        )
    return "unpacked"


def _namespace_hint(request: RunRequest, fact: Fact) -> str:
    """Return what to do without user namespaces, or without a use for them."""
    hint = f"ask the administrator for {fact.request}" if fact.request else "see: sifkit doctor"
    if request.repeat:
        import shlex

        command = " ".join(show(shlex.quote(word)) for word in request.repeat)
        hint += f"; with a setuid Apptainer: apptainer {command}"
    return hint


def _read_hint(upper: Upper, *, is_own: bool) -> str:
    """Return what to do where nothing can be written to. ``is_own``: it is the overlay in the image."""
    if not upper.path:
        return "leave out --writable-tmpfs"
    return "leave out --writable" if is_own else f"read it only: --overlay {shell_quote(upper.path)}:ro"
