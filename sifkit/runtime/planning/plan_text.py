"""Plan of a run as text, for ``--dry-run``. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ...errors import counted, human, show
from .run_plan import DataImage, Layer, Mount, RunPlan, Upper

__all__ = ["plan_lines"]

WAYS = {
    "root": "as root: loop devices and mounts of the kernel",
    "user": "in a user namespace: FUSE for the images, overlayfs of the kernel",
    "view": "in a user namespace: FUSE for all layers, read-only",
    "unpacked": "in a user namespace, without FUSE: images unpacked into",
    "directory": "in a user namespace: the directory itself",
}


def plan_lines(plan: RunPlan) -> Iterator[str]:
    """Yield the lines of a plan, each ``what: value``."""
    yield f"way: {WAYS[plan.way]}{f' {show(plan.cache)}' if plan.way == 'unpacked' else ''}"
    for number, layer in enumerate(plan.layers):
        written = ", written to" if plan.is_root_writable and not number else ""
        yield f"{'layer' if number else 'root'}: {_layer(layer)}{written}"
    yield f"written to: {_upper(plan.upper)}" if plan.upper is not None else "written to: nothing in the container's root"
    for image in plan.images:
        yield f"data image: {_data_image(plan, image)}"
    for mount in plan.mounts:
        yield f"mount: {_mount(mount)}"
    names = " ".join(sorted(plan.namespaces - {"user"})) or "those of the host"
    yield f"namespaces: mounts of its own, others: {names}{', user' if 'user' in plan.namespaces else ''}"
    yield f"not isolated: {', '.join(_shared_with_host(plan)) or 'nothing'}"
    account = plan.account
    yield f"user: {show(account.name)} ({account.uid}:{account.gid}), home {show(plan.home)}"
    if plan.fakeroot:
        yield "fakeroot: changes of owners and users succeed, and change nothing"
    if plan.drops_capabilities:
        yield "capabilities: none"
    yield f"directory: {show(plan.cwd[0])}"
    environment = plan.environment
    yield f"environment: {counted(len(environment.passed), 'variable')} of the host, where the image sets none"
    for name, value in sorted({**environment.fixed, **environment.injected}.items()):
        yield f"variable: {show(name)}={show(value)}"
    if plan.hostname is not None:
        yield f"host name: {show(plan.hostname)}"
    words = " ".join(show(shlex.quote(word)) for word in plan.command.words)
    app = f" of the app {show(plan.command.app)}" if plan.command.app else ""
    yield f"command: {plan.command.action}{app} {words}".rstrip()


def _shared_with_host(plan: RunPlan) -> Iterator[str]:
    """Yield what the command can do on the host, or sees of it."""
    if plan.way == "root" and not plan.drops_capabilities:
        yield "root's capabilities"
    if any(mount.kind == "bind" and mount.source == mount.target == "/dev" for mount in plan.mounts):
        yield "devices"
    if any(mount.source == mount.target == "/sys" for mount in plan.mounts):
        yield "/sys"
    for namespace, what in (("pid", "processes"), ("ipc", "shared memory"), ("net", "network")):
        if namespace not in plan.namespaces:
            yield what


def _layer(layer: Layer) -> str:
    place = f", from byte {layer.offset:,}" if layer.offset else ""
    inside = f", {show(layer.subdirectory)}/ in it" if layer.subdirectory else ""
    return f"{show(layer.name)} ({layer.kind}{place}){inside}"


def _upper(upper: Upper) -> str:
    if upper.kind == "tmpfs":
        return f"memory, at most {human(upper.size)}" if upper.size is not None else "memory"
    return f"{show(upper.name)} ({upper.kind}), {show(upper.upper)}/ and {show(upper.work)}/ in it"


def _data_image(plan: RunPlan, image: DataImage) -> str:
    if isinstance(image, Upper):
        return f"{show(image.name)} (ext3), written to"
    is_unpacked = plan.way != "root" and not plan.serves_images
    return f"{_layer(image)}, {f'unpacked into {show(plan.cache)}' if is_unpacked else 'read'}"


def _mount(mount: Mount) -> str:
    what: str = mount.kind
    if mount.edit:
        what = "the container's own with an entry of the user"
    elif mount.content is not None:
        what = "generated file"
    elif mount.image is not None:
        what = f"{show(mount.image_source)} in {show(mount.image.name)}"
    elif mount.source:
        what = show(mount.source) if mount.kind == "bind" else f"link to {show(mount.source)}"
    size = f", at most {human(mount.size)}" if mount.size is not None else ""
    return f"{show(mount.target)} <- {what}{size}{', read-only' if mount.readonly else ''}"
