"""Files of GPUs on the host: devices, libraries and programs, as nvliblist.conf and rocmliblist.conf name them. Linux only.

Libraries are looked up in the cache of the dynamic linker, /etc/ld.so.cache, as the linker does; no program is run. Source of
its format: glibc's dl-cache.h.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...errors import FormatError
from ..planning.request import GpuFiles, GpuMaker

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
NVIDIA_LIST = """
nvidia-smi nvidia-debugdump nvidia-persistenced nvidia-cuda-mps-control nvidia-cuda-mps-server
libcuda.so libcudadebugger.so libEGL.so libEGL_installertest.so libEGL_nvidia.so libGLESv1_CM.so libGLESv1_CM_nvidia.so
libGLESv2.so libGLESv2_nvidia.so libGL.so libGLX.so libGLX_installertest.so libGLX_nvidia.so libglx.so libGLdispatch.so
libOpenCL.so libOpenGL.so libnvcuvid.so libnvidia-cbl.so libnvidia-cfg.so libnvidia-compiler.so libnvidia-eglcore.so
libnvidia-egl-wayland.so libnvidia-encode.so libnvidia-fatbinaryloader.so libnvidia-fbc.so libnvidia-glcore.so
libnvidia-glsi.so libnvidia-glvkspirv.so libnvidia-gpucomp.so libnvidia-gtk2.so libnvidia-gtk3.so libnvidia-ifr.so
libnvidia-ml.so libnvidia-nvvm.so libnvidia-opencl.so libnvidia-opticalflow.so libnvidia-ptxjitcompiler.so libnvidia-rtcore.so
libnvidia-tls.so libnvidia-wfb.so libnvoptix.so libvdpau_nvidia.so nvidia_drv.so tls_test_.so
/usr/share/glvnd/egl_vendor.d/10_nvidia.json /usr/share/vulkan/icd.d/nvidia_icd.json
/usr/share/vulkan/icd.d/nvidia_layers.json /usr/share/vulkan/implicit_layer.d/nvidia_layers.json
/usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json /usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json
/usr/share/nvidia/nvoptix.bin
"""
ROCM_LIST = """
rocm-smi rocminfo
libCXLActivityLogger.so libhc_am.so libmcwamp.so libmcwamp_cpu.so libmcwamp_hsa.so libdrm.so libdrm_amdgpu.so libnuma.so
libpci.so librocr_debug_agent64.so libamdcomgr64.so libamdocl64.so libcltrace.so libOpenCL.so
"""
PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NVIDIA_SOCKET = "/var/run/nvidia-persistenced/socket"
OUTER_LIBRARIES = "/.singularity.d/libs"
"""Libraries of GPUs where the host is a container itself."""
LISTS: Mapping[GpuMaker, tuple[str, str]] = {"Nvidia": ("nvliblist.conf", NVIDIA_LIST), "AMD": ("rocmliblist.conf", ROCM_LIST)}
"""Name of the list of a maker, and the names where the site has none."""
ROCM_DEVICE = "/dev/kfd"
"""Device without which no AMD GPU computes."""
ELF_HEADER = struct.Struct("<4s14xH")
"""magic, machine."""


def find_gpu_files(maker: GpuMaker, config: str, path: str) -> GpuFiles:
    """Return the files of this host. ``config``: the site's configuration, may be empty. ``path``: the caller's PATH.

    The libraries are found on hosts without a GPU, too: programs are built with them there.
    """
    name, default = LISTS[maker]
    names = parse_library_list(next((text for one in list_paths(config, name) if (text := _text(one)) is not None), default))
    try:
        with open(CACHE, "rb") as file:
            known = parse_library_cache(file.read(LARGEST_CACHE))
    except OSError:
        known = {}
    others = [one for one in names if ".so" not in one]
    programs = [shutil.which(one, path=f"{path}:{PROGRAM_PATH}") for one in others if "/" not in one]
    files = [*(one for one in others if one.startswith("/")), *([NVIDIA_SOCKET] if maker == "Nvidia" else [])]
    return GpuFiles(
        maker=maker,
        devices=tuple(_nvidia_devices() if maker == "Nvidia" else _rocm_devices()),
        libraries=tuple(sorted(_libraries([one for one in names if ".so" in one], known))),
        programs=tuple(program for program in programs if program),
        files=tuple(one for one in files if os.path.exists(one)),
    )


def list_paths(config: str, name: str) -> tuple[str, ...]:
    """Return where the list ``name`` may be: beside the site's configuration ``config`` (may be empty), then in /etc."""
    beside = [f"{os.path.dirname(config)}/{name}"] if config else []
    return (*beside, f"/etc/apptainer/{name}", f"/etc/singularity/{name}")


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _nvidia_devices() -> Iterator[str]:
    for name in _names("/dev"):
        if name.startswith("nvidia") or name == "dxg":  # dxg: Windows' subsystem for Linux
            yield f"/dev/{name}"


def _rocm_devices() -> Iterator[str]:
    if not os.path.exists(ROCM_DEVICE):
        return
    yield ROCM_DEVICE
    for name in _names("/dev/dri"):
        if name.startswith(("card", "render")):
            yield f"/dev/dri/{name}"


def parse_library_list(text: str) -> tuple[str, ...]:
    """Return the names in a list: words, ``#`` begins a comment."""
    return tuple(word for line in text.splitlines() for word in line.partition("#")[0].split())


def _libraries(names: Iterable[str], known: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the paths of libraries whose names begin with listed ones, and those of listed paths with their symlinks.

    Those of another machine, such as 32-bit ones, are left out.
    """
    machine = _machine("/proc/self/exe")
    wanted = tuple(name for name in names if not name.startswith("/"))
    outer = {name: [f"{OUTER_LIBRARIES}/{name}"] for name in _names(OUTER_LIBRARIES)}
    found = set()
    for name, paths in {**known, **outer}.items():
        if name.startswith(wanted):
            found |= set([path for path in paths if _machine(path) == machine][:1])
    for path in names:
        if path.startswith("/") and _machine(path) == machine:
            found |= {path, *_symlinks(path)}
    return found


def _symlinks(path: str) -> Iterator[str]:
    """Yield the symlinks to a library beside it: ``libx.so`` and ``libx.so.1`` of ``libx.so.1.2``."""
    directory, name = os.path.split(path)
    real = os.path.realpath(path)
    for other in _names(directory):
        link = f"{directory}/{other}"
        if other != name and other.startswith(f"{name.partition('.so')[0]}.so") and os.path.realpath(link) == real:
            yield link


def _machine(path: str) -> int | None:
    """Return the machine of an ELF file; None for another file."""
    try:
        with open(path, "rb") as file:
            head = file.read(ELF_HEADER.size)
    except OSError:
        return None
    if len(head) < ELF_HEADER.size or not head.startswith(b"\x7fELF"):
        return None
    return int(ELF_HEADER.unpack(head)[1]) + (head[4] << 16)  # and 32 or 64 bits


def parse_library_cache(raw: bytes) -> dict[str, list[str]]:
    """Return the paths of the libraries in a cache by their names, in the linker's order. Raises FormatError."""
    start = 0
    if raw.startswith(OLD_MAGIC) and len(raw) >= OLD_HEADER.size:
        count = OLD_HEADER.unpack_from(raw)[1]
        start = -(-(OLD_HEADER.size + count * OLD_ENTRY_BYTES) // 8) * 8
    if len(raw) < start + HEADER.size or raw[start : start + len(MAGIC)] != MAGIC:
        raise FormatError(f"{CACHE} is of an unknown format", path=CACHE, hint="run ldconfig as root")
    count = HEADER.unpack_from(raw, start)[1]
    found: dict[str, list[str]] = {}
    if start + HEADER.size + count * ENTRY.size > len(raw):
        raise FormatError(f"{CACHE} is truncated", path=CACHE, hint="run ldconfig as root")
    for number in range(count):
        _, name, path, _, _ = ENTRY.unpack_from(raw, start + HEADER.size + number * ENTRY.size)
        found.setdefault(_string(raw, start + name), []).append(_string(raw, start + path))
    return found


def _string(raw: bytes, offset: int) -> str:
    """Return the text at ``offset``, which a NUL ends. Raises FormatError."""
    end = raw.find(b"\0", offset)
    if end < 0:
        raise FormatError(f"{CACHE} is truncated", path=CACHE, hint="run ldconfig as root")
    return os.fsdecode(raw[offset:end])
