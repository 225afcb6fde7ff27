"""Files of GPUs: the list of names and the cache of the dynamic linker."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from sifkit.errors import FormatError
from sifkit.runtime import gpu_files
from sifkit.runtime.gpu_files import find_gpu_files, list_paths, parse_library_cache, parse_library_list
from sifkit.runtime.request import GpuFiles
from tests.support.tools import find

PATHS = {"libcuda.so.1": "/lib/x/libcuda.so.1", "libcuda.so": "/lib/x/libcuda.so", "libc.so.6": "/lib/x/libc.so.6"}


def cache(paths: dict[str, str], *, old: bool = False) -> bytes:
    """A cache as glibc writes it, with the old format before it if asked for."""
    header = 48 + 24 * len(paths)
    entries, strings = b"", b""
    for name, path in paths.items():
        at = header + len(strings)
        entries += struct.pack("<i3IQ", 0x303, at, at + len(name) + 1, 0, 0)
        strings += f"{name}\0{path}\0".encode()
    new = b"glibc-ld.so.cache1.1" + struct.pack("<2I20x", len(paths), len(strings)) + entries + strings
    return (b"ld.so-1.7.0\0" + struct.pack("<I", 1) + bytes(12) + bytes(4) + new) if old else new


@pytest.mark.parametrize("old", [False, True])
def test_the_cache(old: bool) -> None:
    assert parse_library_cache(cache(PATHS, old=old)) == PATHS


def test_the_cache_of_this_host() -> None:
    ldconfig = find("ldconfig")
    if ldconfig is None or not os.path.exists("/etc/ld.so.cache"):
        pytest.skip("this host has no cache of libraries")
    printed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    paths = [line.split(" => ") for line in printed.splitlines() if " => " in line]
    found = parse_library_cache(Path("/etc/ld.so.cache").read_bytes())
    assert set(found.values()) <= {path for _, path in paths}
    assert found.keys() == {name.split()[0] for name, _ in paths}


@pytest.mark.parametrize("length", [0, 10, 47, 60, 120])
def test_a_cache_that_is_damaged(length: int) -> None:
    with pytest.raises(FormatError, match=r"/etc/ld\.so\.cache"):
        parse_library_cache(cache(PATHS)[:length])
    with pytest.raises(FormatError):
        parse_library_cache(b"glibc-ld.so.cache1.1" + struct.pack("<2I20x", 2**32 - 1, 0) + bytes(100))


def test_names_of_the_list() -> None:
    assert parse_library_list("# c\nlibcuda.so # d\n\nnvidia-smi\n") == ("libcuda.so", "nvidia-smi")
    assert list_paths("/opt/a/etc/apptainer/apptainer.conf")[0] == "/opt/a/etc/apptainer/nvliblist.conf"


def test_libraries_of_the_list_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_bytes(cache(PATHS))
    (tmp_path / "list").write_text("libcuda.so\nlibmissing.so\nsh\nno-such-program\n")
    monkeypatch.setattr(gpu_files, "CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu_files, "_devices", lambda: ["/dev/nvidia0"])
    found = find_gpu_files([str(tmp_path / "none"), str(tmp_path / "list")])
    assert found.libraries == ("/lib/x/libcuda.so", "/lib/x/libcuda.so.1")
    assert [os.path.basename(program) for program in found.programs] == ["sh"]
    monkeypatch.setattr(gpu_files, "CACHE", str(tmp_path / "none"))
    assert find_gpu_files([]).libraries == ()
    monkeypatch.setattr(gpu_files, "_devices", list)
    assert find_gpu_files([str(tmp_path / "list")]) == GpuFiles()
