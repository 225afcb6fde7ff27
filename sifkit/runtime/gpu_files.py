"""Files of Nvidia GPUs on the host: devices, libraries and programs, as nvliblist.conf names them. Linux only.

Libraries are looked up in the cache of the dynamic linker, /etc/ld.so.cache, as the linker does; no program is run. Source of
its format: glibc's dl-cache.h.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping

from ..errors import FormatError
from .request import GpuFiles

__all__ = ["find_gpu_files", "list_paths", "parse_library_cache", "parse_library_list"]

CACHE = "/etc/ld.so.cache"
LARGEST_CACHE = 64 << 20
MAGIC = b"glibc-ld.so.cache1.1"
HEADER = struct.Struct("<20s2I20x")
"""magic, number of libraries, bytes of the strings."""
ENTRY = struct.Struct("<i3IQ")
"""flags, offsets of the name and of the path from the magic, the lowest kernel, hardware."""
OLD_MAGIC = b"ld.so-1.7.0\0"
OLD_HEADER = struct.Struct("<12sI")
OLD_ENTRY_BYTES = 12
DEFAULT_LIST = """
nvidia-smi nvidia-debugdump nvidia-persistenced nvidia-cuda-mps-control nvidia-cuda-mps-server
libcuda.so libcudadebugger.so libEGL.so libEGL_nvidia.so libGLESv1_CM.so libGLESv1_CM_nvidia.so libGLESv2.so libGLESv2_nvidia.so
libGL.so libGLX.so libGLX_nvidia.so libglx.so libGLdispatch.so libOpenCL.so libOpenGL.so libnvcuvid.so libnvidia-cbl.so
libnvidia-cfg.so libnvidia-compiler.so libnvidia-eglcore.so libnvidia-egl-wayland.so libnvidia-encode.so libnvidia-fbc.so
libnvidia-glcore.so libnvidia-glsi.so libnvidia-glvkspirv.so libnvidia-gpucomp.so libnvidia-ifr.so libnvidia-ml.so
libnvidia-nvvm.so libnvidia-opencl.so libnvidia-opticalflow.so libnvidia-ptxjitcompiler.so libnvidia-rtcore.so libnvidia-tls.so
libnvidia-wfb.so libnvoptix.so libvdpau_nvidia.so
"""
"""Names where the site has no nvliblist.conf."""
PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_gpu_files(lists: Iterable[str]) -> GpuFiles:
    """Return the files of this host; none without a device. ``lists``: where nvliblist.conf may be."""
    devices = tuple(_devices())
    if not devices:
        return GpuFiles()
    names = parse_library_list(next((text for path in lists if (text := _text(path)) is not None), DEFAULT_LIST))
    try:
        with open(CACHE, "rb") as file:
            known = parse_library_cache(file.read(LARGEST_CACHE))
    except OSError:
        known = {}
    programs = [shutil.which(name, path=PROGRAM_PATH) for name in names if ".so" not in name]
    return GpuFiles(
        devices=devices,
        libraries=tuple(sorted(_libraries([name for name in names if ".so" in name], known))),
        programs=tuple(program for program in programs if program),
    )


def list_paths(config: str) -> tuple[str, ...]:
    """Return where nvliblist.conf may be: beside the site's configuration ``config`` (may be empty), then in /etc."""
    beside = [f"{os.path.dirname(config)}/nvliblist.conf"] if config else []
    return (*beside, "/etc/apptainer/nvliblist.conf", "/etc/singularity/nvliblist.conf")


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def _devices() -> Iterator[str]:
    """Yield the device files of GPUs."""
    try:
        names = sorted(os.listdir("/dev"))
    except OSError:
        return
    for name in names:
        if name.startswith("nvidia") or name == "dxg":  # dxg: Windows' subsystem for Linux
            yield f"/dev/{name}"


def parse_library_list(text: str) -> tuple[str, ...]:
    """Return the names in a nvliblist.conf: words, ``#`` begins a comment."""
    return tuple(word for line in text.splitlines() for word in line.partition("#")[0].split())


def _libraries(names: Iterable[str], known: Mapping[str, str]) -> set[str]:
    """Return the paths of libraries whose names, up to ``.so``, are listed."""
    wanted = {name.partition(".so")[0] for name in names}
    return {path for name, path in known.items() if name.partition(".so")[0] in wanted}


def parse_library_cache(raw: bytes) -> dict[str, str]:
    """Return the paths of the libraries in a cache by their names, the first of each. Raises FormatError."""
    start = 0
    if raw.startswith(OLD_MAGIC) and len(raw) >= OLD_HEADER.size:
        count = OLD_HEADER.unpack_from(raw)[1]
        start = -(-(OLD_HEADER.size + count * OLD_ENTRY_BYTES) // 8) * 8
    if len(raw) < start + HEADER.size or raw[start : start + len(MAGIC)] != MAGIC:
        raise FormatError(f"{CACHE} is of an unknown format", path=CACHE, hint="run ldconfig as root")
    count = HEADER.unpack_from(raw, start)[1]
    found: dict[str, str] = {}
    if start + HEADER.size + count * ENTRY.size > len(raw):
        raise FormatError(f"{CACHE} is truncated", path=CACHE, hint="run ldconfig as root")
    for number in range(count):
        _, name, path, _, _ = ENTRY.unpack_from(raw, start + HEADER.size + number * ENTRY.size)
        found.setdefault(_string(raw, start + name), _string(raw, start + path))
    return found


def _string(raw: bytes, offset: int) -> str:
    """Return the text at ``offset``, which a NUL ends. Raises FormatError."""
    end = raw.find(b"\0", offset)
    if end < 0:
        raise FormatError(f"{CACHE} is truncated", path=CACHE, hint="run ldconfig as root")
    return os.fsdecode(raw[offset:end])
