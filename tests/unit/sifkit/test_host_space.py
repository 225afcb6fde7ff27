"""Errors of a full host: the file, how much it needs, how much was free before; errors of images pass."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from ext3.errors import DeviceError, NoSpaceError
from sifkit import host_space
from sifkit.errors import HostFullError, TargetError
from sifkit.host_space import full_host_errors
from sifkit.overlay import cloning
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from sifkit.sif.errors import StoreError

from ...support.commands import good

MIB = 1 << 20


def full(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@pytest.fixture
def filesystem(monkeypatch):
    found = SimpleNamespace(f_bavail=300, f_frsize=1024, f_files=100, f_favail=7)
    monkeypatch.setattr(os, "statvfs", lambda path: found, raising=False)
    return found


@pytest.mark.parametrize(
    "error",
    [
        full(errno.ENOSPC),
        DeviceError("writing at byte 1", error=full(errno.ENOSPC)),
        StoreError("writing byte 1", error=full(errno.ENOSPC)),
        TargetError("x: No space left on device", path="x", error=full(errno.ENOSPC)),
    ],
)
def test_no_space(filesystem, error):
    with pytest.raises(HostFullError) as caught, full_host_errors("d/x", lambda: 5 * MIB):
        filesystem.f_bavail = 0  # what is free now is what the half-written file has left
        raise error
    assert caught.value.message == "no space left for d/x: it needs up to 5 MiB and 300 KiB are free"
    assert (caught.value.needed_bytes, caught.value.available_bytes) == (5 * MIB, 300 << 10)
    assert caught.value.errno == errno.ENOSPC and caught.value.kind == "no-space" and caught.value.path == "d/x"


@pytest.mark.parametrize(
    ("code", "needed", "says"),
    [
        (errno.EDQUOT, 5 * MIB, "the disk quota does not allow x: it needs up to 5 MiB"),
        (errno.EFBIG, 5 * MIB, "x: its filesystem does not allow files of 5 MiB"),
        (errno.ENOSPC, 200 << 10, "no space left for x: it needs up to 200 KiB"),  # others write there, too
    ],
)
def test_other_ways_to_be_full(filesystem, code, needed, says):
    with pytest.raises(TargetError) as caught, full_host_errors("x", needed):
        raise full(code)
    assert caught.value.message == says and caught.value.errno == code


def test_no_inodes(filesystem):
    filesystem.f_favail = 0
    with pytest.raises(HostFullError, match=r"^no inodes left for x$"), full_host_errors("x", 5 * MIB):
        raise full(errno.ENOSPC)


@pytest.mark.parametrize(
    "error",
    [
        NoSpaceError("full", needed_bytes=2, available_bytes=1),
        full(errno.EIO),
        PermissionError(errno.EACCES, "no"),
        KeyError(),
    ],
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, full_host_errors("x", lambda: pytest.fail("not asked")):
        raise error
    assert caught.value is error


def test_a_system_that_does_not_say_what_is_free(monkeypatch):
    monkeypatch.delattr(os, "statvfs", raising=False)
    assert host_space.free_bytes(".") is None
    with pytest.raises(HostFullError, match=r"^no space left for x: it needs up to 1 byte$"), full_host_errors("x", 1):
        raise full(errno.ENOSPC)


def test_a_clone_on_a_full_disk(tmp_path, monkeypatch):
    """It said "No space left on device", of no file."""
    create(tmp_path / "a.img", CreateOptions(size=4 * MIB))

    def no_space(*_):
        raise full(errno.ENOSPC)

    monkeypatch.setattr(cloning, "copy_data", no_space)
    monkeypatch.setattr("ext3.hostio.clone_file", lambda source, target: False)
    with pytest.raises(HostFullError, match=r"^no space left for .*/b\.img: it needs up to "):
        cloning.clone(tmp_path / "a.img", tmp_path / "b.img")
    assert os.listdir(tmp_path) == ["a.img"]


@pytest.mark.parametrize("sparse", [False, True])
def test_the_size_of_an_archive_is_known(run, overlay, sparse):
    """An upper limit, and no more than the headers away."""
    from sifkit.overlay.oci_layer.layer_size import layer_size
    from sifkit.overlay.view.tree_opening import open_tree

    with open("hole", "wb") as file:
        file.seek(2 * MIB)
        file.write(os.urandom(100_000))
    os.mkdir("d")
    os.link("hole", "d/again")
    good(run, "cp", "-a", "hole", "d", "overlay.img:/upper", "-q")
    good(run, "overlay", "export", "overlay.img", "-o", "layer.tar", *(["--sparse"] if sparse else []), "-q")
    real = os.path.getsize("layer.tar")
    with open_tree("overlay.img", upper=True, whiteouts=True) as opened:
        assert real <= layer_size(opened.tree, sparse=sparse) <= real + 30_000
