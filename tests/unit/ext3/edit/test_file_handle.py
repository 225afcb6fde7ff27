"""File handles: reading and writing anywhere, holes, files deleted while they are open, copies from streams."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

import ext3
from ext3 import hostio
from ext3.device.base import MemoryDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.edit.inode_cache import Node

from ....support.sessions import clock, errno_of


def test_content(fs: WritableFilesystem) -> None:
    fs.create("/f")
    with fs.open_file("/f", "r+") as file:
        model = bytearray()
        for offset, length in ((0, 10), (5, 2000), (100_000, 3), (1024, 1024), (99_990, 20), (700_000, 5000)):
            data = bytes((offset + at) % 255 + 1 for at in range(length))
            file.seek(offset)
            assert file.write(data) == length
            model.extend(bytes(max(0, offset + length - len(model))))
            model[offset : offset + length] = data
            assert fs.read_bytes("/f") == model
        for size in (690_000, 100_001, 5000, 6000, 0, 100):
            file.truncate(size)
            del model[size:]
            model.extend(bytes(size - len(model)))
            assert fs.read_bytes("/f") == model
        file.seek(-50, io.SEEK_END)
        assert file.read(100) == bytes(50)
        assert file.read(100) == b""
    with pytest.raises(ValueError, match="closed"):
        file.read()
    with fs.open_file("/f") as file, pytest.raises(io.UnsupportedOperation):
        file.write(b"x")


def test_holes(fs: WritableFilesystem) -> None:
    fs.write_bytes("/f", b"x" * 300_000)
    used = fs.stat("/f").blocks
    fs.punch_hole("/f", 1000, 100_000)
    model = b"x" * 1000 + bytes(100_000) + b"x" * 199_000
    assert fs.read_bytes("/f") == model
    assert fs.stat("/f").blocks < used - 190
    fs.punch_hole("/f", 10, 5)
    fs.punch_hole("/f", 299_999, 10**12)
    assert fs.read_bytes("/f") == model[:10] + bytes(5) + model[15:299_999] + b"\0"
    fs.punch_hole("/f", 0, 10**12)
    assert (fs.stat("/f").size, fs.stat("/f").blocks) == (300_000, 0)


def test_what_lay_behind_the_end_is_not_seen(fs: WritableFilesystem) -> None:
    """A file that grows reads as zeros there, whatever its last block held."""
    fs.write_bytes("/f", b"x" * 100)
    block = fs.data_extents("/f")[0][1]
    fs._session.write_data(block, b"x" * 100 + b"garbage")
    fs.truncate("/f", 500)
    assert fs.read_bytes("/f") == b"x" * 100 + bytes(400)
    fs.truncate("/f", 100)
    fs._session.write_data(block, b"x" * 100 + b"garbage")
    with fs.open_file("/f", "r+") as file:
        file.write_at(3000, b"y")
    assert fs.read_bytes("/f") == b"x" * 100 + bytes(2900) + b"y"


def test_deleted_while_open(fs: WritableFilesystem) -> None:
    fs.write_bytes("/f", b"content")
    free = fs.superblock.free_inodes
    one, two = fs.open_file("/f", "r+"), fs.open_file("/f")
    fs.unlink("/f")
    assert fs.superblock.last_orphan == one.ino
    fs.sync()
    one.write_at(7, b" and more")
    assert two.read() == b"content and more"
    one.close()
    assert two.read_at(0, 7) == b"content"
    assert errno_of(lambda: fs.link(two.ino, "/again")) == errno.ENOENT
    two.close()
    assert fs.superblock.last_orphan == 0
    assert fs.superblock.free_inodes == free + 1


def test_several_deleted_while_open(fs: WritableFilesystem, device: MemoryDevice) -> None:
    """The list of orphans runs through inodes that are written themselves, and given up in any order."""
    handles = []
    for number in range(4):
        fs.create(f"/{number}")
        handles.append(fs.open_file(f"/{number}", "r+"))
        fs.unlink(f"/{number}")
    for order in (1, 2, 3, 0):
        for handle in handles:
            if not handle.closed:
                handle.write(b"x" * 2000)
        handles[order].close()
        fs.sync()
        with ext3.Filesystem.open(MemoryDevice(bytes(device.data)), "r+", clock=clock) as recovered:
            assert recovered.superblock.free_inodes == fs.superblock.free_inodes + 4 - sum(h.closed for h in handles)
    assert fs.superblock.last_orphan == 0


def test_an_attribute_block_counts_among_the_blocks(fs: WritableFilesystem) -> None:
    with fs.open_file(fs.create("/f"), "r+") as file:
        file.write(b"x" * 1024)
        fs.set_xattr("/f", b"user.a", bytes(500))
        file.write(b"x" * 1024)
        assert fs.stat("/f").blocks == 6
        fs.remove_xattr("/f", b"user.a")
        file.write(b"x" * 1024)
        assert fs.stat("/f").blocks == 6


def test_a_failing_unlink_of_an_open_file_keeps_it(fs: WritableFilesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that is undone after the file became an orphan must not cost the file."""
    fs.write_bytes("/f", b"kept")
    fs.write_bytes("/g", b"g")
    handle = fs.open_file("/f")

    drop_unlinked = fs._nodes.drop_unlinked

    def fail(node: Node) -> None:
        drop_unlinked(node)
        raise ext3.DeviceError("fails")

    with monkeypatch.context() as patched:
        patched.setattr(fs._nodes, "drop_unlinked", fail)
        with pytest.raises(ext3.DeviceError):
            fs.rename("/g", "/f")
    handle.close()
    assert fs.read_bytes("/f") == b"kept"
    assert fs.read_bytes("/g") == b"g"


@pytest.mark.parametrize("way", ["kernel", "no copy_file_range", "no copy in the kernel"])
def test_write_from(fs: WritableFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "no copy_file_range":
        monkeypatch.setattr(hostio, "copy_range", lambda *_: 0)
    if way == "no copy in the kernel":
        monkeypatch.setattr(hostio, "kernel_copy", lambda *_: 0)
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.write(b"begin" * 1000)
        file.seek(1 << 20)
        file.write(b"end")
        file.truncate(3 << 20)
    told: list[int] = []
    fs.create("/f")
    with source.open("rb") as file:
        assert fs.write_from("/f", file, advance=told.append) == 3 << 20
    assert fs.read_bytes("/f") == source.read_bytes()
    assert 5000 <= sum(told) <= 3 << 20
    if os.stat(source).st_blocks * 512 < 1 << 20:
        assert fs.stat("/f").blocks * 512 < 1 << 20
    assert fs.write_from("/f", io.BytesIO(b"stream")) == 6
    assert fs.read_bytes("/f") == b"stream"
    with source.open("wb") as file:
        file.write(b"x" * (9 << 20))
    with source.open("rb") as file, pytest.raises(ext3.NoSpaceError):
        fs.write_from("/f", file)
    assert fs.read_bytes("/f") == b"stream"


def test_interrupted_copies(fs: WritableFilesystem, tmp_path: Path) -> None:
    """Ctrl-C in the middle leaves no part of a file behind."""
    (tmp_path / "large").write_bytes(os.urandom(3 << 20))

    class Stop:
        def phase(self, name: str, total: int | None, unit: str) -> None: ...
        def done(self) -> None: ...
        def advance(self, count: int) -> None:
            raise KeyboardInterrupt

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError(errno.EIO, "unreadable")
            return super().read(size)

    fs.write_bytes("/f", b"old")
    with (tmp_path / "large").open("rb") as file, pytest.raises(KeyboardInterrupt):
        fs.write_from("/f", file, advance=Stop().advance)
    assert fs.stat("/f").size == 0
    with pytest.raises(OSError, match="unreadable"):
        fs.write_from("/f", Source(bytes(2 << 20)))
    assert (fs.stat("/f").size, fs.stat("/f").blocks) == (0, 0)
