"""Files of GPUs: the list of names and the cache of the dynamic linker."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from sifkit.errors import FormatError
from sifkit.runtime.host import gpu_files
from sifkit.runtime.host.gpu_files import find_gpu_files, list_paths, parse_library_cache, parse_library_list
from tests.support.tools import find

PATHS = {"libcuda.so.1": "/lib/x/libcuda.so.1", "libcuda.so": "/lib/x/libcuda.so", "libc.so.6": "/lib/x/libc.so.6"}


def cache(*paths: tuple[str, str], old: bool = False) -> bytes:
    """A cache as glibc writes it, with the old format before it if asked for."""
    header = 48 + 24 * len(paths)
    entries, strings = b"", b""
    for name, path in paths:
        at = header + len(strings)
        entries += struct.pack("<i3IQ", 0x303, at, at + len(name) + 1, 0, 0)
        strings += f"{name}\0{path}\0".encode()
    new = b"glibc-ld.so.cache1.1" + struct.pack("<2I20x", len(paths), len(strings)) + entries + strings
    return (b"ld.so-1.7.0\0" + struct.pack("<I", 1) + bytes(12) + bytes(4) + new) if old else new


@pytest.mark.parametrize("old", [False, True])
def test_the_cache(old: bool) -> None:
    assert parse_library_cache(cache(*PATHS.items(), old=old)) == {name: [path] for name, path in PATHS.items()}


def test_the_cache_of_this_host() -> None:
    ldconfig = find("ldconfig")
    if ldconfig is None or not os.path.exists("/etc/ld.so.cache"):
        pytest.skip("this host has no cache of libraries")
    printed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    paths = [line.split(" => ") for line in printed.splitlines() if " => " in line]
    found = parse_library_cache(Path("/etc/ld.so.cache").read_bytes())
    assert {one for many in found.values() for one in many} == {path for _, path in paths}
    assert found.keys() == {name.split()[0] for name, _ in paths}


@pytest.mark.parametrize("length", [0, 10, 47, 60, 120])
def test_a_cache_that_is_damaged(length: int) -> None:
    with pytest.raises(FormatError, match=r"/etc/ld\.so\.cache"):
        parse_library_cache(cache(*PATHS.items())[:length])
    with pytest.raises(FormatError):
        parse_library_cache(b"glibc-ld.so.cache1.1" + struct.pack("<2I20x", 2**32 - 1, 0) + bytes(100))


def test_names_of_the_list() -> None:
    assert parse_library_list("# c\nlibcuda.so # d\n\nnvidia-smi\n") == ("libcuda.so", "nvidia-smi")
    assert list_paths("/opt/a/etc/apptainer/apptainer.conf", "x.conf")[0] == "/opt/a/etc/apptainer/x.conf"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site whose lists, cache of libraries and devices are files below its directory."""
    machine = Path("/proc/self/exe").read_bytes()[:20]
    other = machine[:18] + b"\xff\xff"
    for name, head in {
        "libcuda.so.1": machine,
        "libcuda.so": machine,
        "32/libcuda.so.1": other,
        "libother.so": other,
        "libamd.so.1.2": machine,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(head)
    (tmp_path / "libamd.so.1").symlink_to("libamd.so.1.2")
    (tmp_path / "libamd.so").symlink_to("libamd.so.1")
    (tmp_path / "libamdx.so").symlink_to("libamd.so.1.2")
    (tmp_path / "cache").write_bytes(
        cache(
            ("libcuda.so.1", f"{tmp_path}/32/libcuda.so.1"),
            *((name, f"{tmp_path}/{name}") for name in ("libcuda.so.1", "libcuda.so", "libother.so", "libcudart.so")),
        )
    )
    names = ("libcuda.so", "libother.so", "libmissing.so", "sh", "no-such", f"{tmp_path}/icd.json", "/missing/icd.json")
    (tmp_path / "nvliblist.conf").write_text("\n".join(names))
    (tmp_path / "rocmliblist.conf").write_text(f"{tmp_path}/libamd.so.1.2\n{tmp_path}/libother.so\n/missing/liba.so\n")
    (tmp_path / "icd.json").write_text("{}")
    (tmp_path / "socket").touch()
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer/libcuda.so.2").write_bytes(machine)
    monkeypatch.setattr(gpu_files, "NVIDIA_SOCKET", str(tmp_path / "socket"))
    monkeypatch.setattr(gpu_files, "OUTER_LIBRARIES", str(tmp_path / "outer"))
    (tmp_path / "rocm-smi").write_text("#!/bin/sh\n")
    (tmp_path / "rocm-smi").chmod(0o755)
    monkeypatch.setattr(gpu_files, "CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu_files, "ROCM_DEVICE", str(tmp_path / "kfd"))
    listed = {"/dev": ["dri", "dxg", "null", "nvidia0", "nvidiactl"], "/dev/dri": ["by-path", "card0", "renderD128"]}
    names = gpu_files._names
    monkeypatch.setattr(gpu_files, "_names", lambda directory: listed.get(directory) or names(directory))
    return tmp_path


def test_files_of_nvidia(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_gpu_files("Nvidia", f"{site}/apptainer.conf", "")
    assert found.devices == ("/dev/dxg", "/dev/nvidia0", "/dev/nvidiactl")
    assert found.libraries == (f"{site}/libcuda.so", f"{site}/libcuda.so.1", f"{site}/outer/libcuda.so.2")
    assert found.files == (f"{site}/icd.json", f"{site}/socket")
    assert [os.path.basename(program) for program in found.programs] == ["sh"]
    monkeypatch.setattr(gpu_files, "CACHE", str(site / "none"))
    assert find_gpu_files("Nvidia", f"{site}/apptainer.conf", "").libraries == (f"{site}/outer/libcuda.so.2",)


def test_files_of_amd(site: Path) -> None:
    found = find_gpu_files("AMD", f"{site}/apptainer.conf", "")
    assert found.devices == () and found.programs == ()
    assert found.libraries == tuple(f"{site}/{name}" for name in ("libamd.so", "libamd.so.1", "libamd.so.1.2"))
    (site / "rocmliblist.conf").unlink()
    (site / "kfd").touch()
    found = find_gpu_files("AMD", f"{site}/apptainer.conf", str(site))
    assert found.devices == (f"{site}/kfd", "/dev/dri/card0", "/dev/dri/renderD128")
    assert f"{site}/rocm-smi" in found.programs
