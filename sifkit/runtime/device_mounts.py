"""Mounts of /dev in a container: the host's, or a small one of its own with the devices that every program needs. Pure.

The devices and their order are Apptainer's (1.4.5, tried).
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import show
from .binds import BindSpec
from .config import SiteConfig
from .request import RunRequest
from .run_plan import Mount, Namespace

__all__ = ["device_bind", "has_own_devices", "is_device_bind", "plan_devices"]

DEVICES = ("tty", "null", "zero", "random", "urandom")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
CONSOLE = "/dev/console"
OWN_BYTES = 1 << 20
"""Size of an own /dev, which holds mount points and links."""


def has_devices(site: SiteConfig, skipped: frozenset[str]) -> bool:
    """Return True if the container gets a /dev."""
    return site.mount_dev != "no" and "dev" not in skipped


def has_own_devices(site: SiteConfig, *, contained: bool) -> bool:
    """Return True if the /dev of a container is not the host's."""
    return contained or site.mount_dev == "minimal"


def plan_devices(
    request: RunRequest, site: SiteConfig, skipped: frozenset[str], namespaces: frozenset[Namespace], *, contained: bool
) -> Iterator[Mount]:
    """Yield the mounts of /dev."""
    if not has_devices(site, skipped):
        return
    if not has_own_devices(site, contained=contained):
        yield Mount(kind="bind", source="/dev", target="/dev", nodev=False, is_optional=True)
        return
    yield Mount(kind="tmpfs", target="/dev", nodev=False, size=OWN_BYTES)
    yield Mount(kind="tmpfs", target="/dev/shm", mode=0o1777)  # as large as the host's: MPI and data loaders need much
    if "ipc" in namespaces:
        yield Mount(kind="mqueue", target="/dev/mqueue", is_optional=True)
    if site.mount_devpts and "devpts" not in skipped:
        group = "" if "user" in namespaces else ",gid=5"
        data = f"newinstance,ptmxmode=0666,mode=0620{group}"
        yield Mount(kind="devpts", target="/dev/pts", nodev=False, noexec=True, data=data)
        yield Mount(kind="symlink", source="/dev/pts/ptmx", target="/dev/ptmx")
    if request.caller.terminal:  # it is not in the new /dev/pts, and ttyname(3) finds it here
        yield _device(request.caller.terminal, CONSOLE)
    for name in DEVICES:
        yield _device(f"/dev/{name}", f"/dev/{name}")
    for name, text in LINKS.items():
        yield Mount(kind="symlink", source=text, target=f"/dev/{name}")
    for device in dict.fromkeys(device for gpu in request.gpus for device in gpu.devices):
        yield _device(device, device)


def _device(source: str, target: str) -> Mount:
    return Mount(kind="bind", source=source, target=target, nodev=False, is_optional=True)


def is_device_bind(spec: BindSpec) -> bool:
    """Return True if a bind of the user shows a device of the host, or all of them, at the same path."""
    return spec.source == spec.target and (spec.target == "/dev" or spec.target.startswith("/dev/"))


def device_bind(spec: BindSpec, site: SiteConfig, skipped: frozenset[str]) -> Mount | str:
    """Return the mount of a bind of devices, which stay usable, or the note on why there is none."""
    if not has_devices(site, skipped):
        reason = "--no-mount dev" if "dev" in skipped else f"'mount dev = no' in {show(site.path)}"
        return f"{show(spec.source)} is not shown: {reason}"
    return Mount(kind="bind", source=spec.source, target=spec.target, nodev=False, readonly=spec.readonly)
