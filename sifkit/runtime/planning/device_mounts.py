"""Mounts of a small /dev of a container's own, with the devices that every program needs. Pure.

The devices and their order are Apptainer's (1.4.5, tried).
"""

from __future__ import annotations

from collections.abc import Iterator

from .config import SiteConfig
from .request import RunRequest
from .run_plan import Mount, Namespace

__all__ = ["own_devices"]

DEVICES = ("tty", "null", "zero", "random", "urandom")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
CONSOLE = "/dev/console"
OWN_BYTES = 1 << 20
"""Size of an own /dev, which holds mount points and links."""


def own_devices(
    request: RunRequest, site: SiteConfig, skipped: frozenset[str], namespaces: frozenset[Namespace]
) -> Iterator[Mount]:
    """Yield the mounts of a /dev that is not the host's."""
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
