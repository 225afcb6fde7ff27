"""Single files and directories are read and changed without numpy, which takes longer to load than most of that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ...support.sessions import empty_image

SCRIPT = """
import shutil
import sys
import ext3
from ext3.edit.inode_filesystem import InodeFilesystem

with ext3.Filesystem.open(sys.argv[1], "r+") as fs:
    top = fs.mkdir_at(fs.root, b"d")
    for number in range(200):  # an index, whose leaves split
        ino = fs.create_at(top, b"a name of some length %d" % number)
    fs.write_at(ino, 0, bytes(range(256)) * 400)
    fs.write_at(ino, 5_000_000, b"behind a hole")
    assert fs.read_at(ino, 0, 512) == bytes(range(256)) * 2
    fs.set_attributes(ino, size=50_000)
    fs.set_xattr(ino, b"user.name", b"value")
    fs.rename_at(top, b"a name of some length 199", fs.root, b"file")
    fs.unlink_at(top, b"a name of some length 7")
    fs.sync()
    assert len(fs.list_directory(top).entries) == 200
    assert fs.find_name(top, b"a name of some length 7") is None
    assert fs.statfs().free_inodes == fs.superblock.free_inodes
    assert len(next(fs.scan_many([fs.root])).rows) == 3
with ext3.Filesystem.open(sys.argv[1]) as fs:
    assert fs.stat("/file").size == 50_000 and fs.read_bytes("/file")[:256] == bytes(range(256))
    assert fs.xattrs("/file") == {b"user.name": b"value"}
    assert len(list(fs.scandir("/d"))) == 198
    assert [row.name for row in next(fs.scan_many([fs.root])).rows] == [b"d", b"file", b"lost+found"]
    assert next(fs.load_many([fs.lookup("/file")], limit=0)).xattrs
with InodeFilesystem.open_for_changes(sys.argv[1], late_checkpoint=True) as fs:
    fs.create_at(fs.root, b"logged")
    fs.sync()
    shutil.copyfile(sys.argv[1], sys.argv[2])
with ext3.Filesystem.open(sys.argv[2]) as fs:  # through its log
    assert fs.needs_recovery and fs.lookup("/logged")
with ext3.Filesystem.open(sys.argv[2], "r+") as fs:  # which is replayed
    assert fs.lookup("/logged")
loaded = [name for name in sys.modules if name.partition(".")[0] == "numpy"]
assert not loaded, loaded
"""


def test_files_are_read_and_changed(tmp_path: Path) -> None:
    image = tmp_path / "image"
    device = empty_image()
    image.write_bytes(bytes(device.read(0, device.size)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", SCRIPT, image, tmp_path / "copy"], check=True, env=environment)
