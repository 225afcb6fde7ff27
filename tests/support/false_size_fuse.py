"""FUSE server of one directory whose files have another content than their sizes say; run as a program by ``false_sizes``.

It speaks the protocol of ``/dev/fuse`` itself and mounts with mount(2), so it needs root and nothing else. Files are opened
with FOPEN_DIRECT_IO: the kernel then passes reads on, whatever the size. Source: Linux ``include/uapi/linux/fuse.h``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["FILES", "false_sizes"]

FILES = {
    b"large": (100, bytes(range(256)) * 12_000),
    b"little": (10, b"0123456789" * 50),
    b"none": (0, b"text\n"),
    b"too-much": (4096, b"short"),
    b"true": (5, b"exact"),
}
"""Name -> (reported size, content)."""
NAMES = sorted(FILES)
LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
OPENDIR, READDIR, RELEASEDIR, BATCH_FORGET = 27, 28, 29, 42
NO_REPLY = (FORGET, BATCH_FORGET)
DIRECT_IO = 1


@contextmanager
def false_sizes(point: Path) -> Iterator[Path]:
    """The directory, mounted at ``point``; PermissionError where that cannot be done."""
    point.mkdir()
    server = subprocess.Popen([sys.executable, __file__, point], stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        if server.stdout.readline() != b"mounted\n":
            raise PermissionError(errno.EPERM, "FUSE cannot be mounted here")
        yield point
    finally:
        if os.path.ismount(point):
            subprocess.run(["umount", point], check=False)
        for _ in range(100):
            if server.poll() is not None:
                break
            time.sleep(0.05)
        server.kill()
        server.wait()
        server.stdout.close()


def attributes(ino: int) -> bytes:
    size, mode, links = (0, 0o40755, 2) if ino == 1 else (FILES[NAMES[ino - 2]][0], 0o100644, 1)
    return struct.pack("<6Q10I", ino, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)


def entries(start: int) -> bytes:
    listed = b""
    rows = [(1, b".", 4), (1, b"..", 4), *((number, name, 8) for number, name in enumerate(NAMES, 2))]
    for position, (ino, name, kind) in enumerate(rows[start:], start + 1):
        entry = struct.pack("<QQII", ino, position, len(name), kind) + name
        listed += entry + bytes(-len(entry) % 8)
    return listed


def answer(operation: int, node: int, body: bytes) -> bytes | int:
    """The answer to a request, or an errno."""
    if operation == INIT:
        return struct.pack("<4I2HIIHH8I", 7, 31, 65536, 0, 0, 0, 1 << 17, 1, 0, 0, *(0,) * 8)
    if operation == LOOKUP:
        name = body.rstrip(b"\0")
        if name not in FILES:
            return errno.ENOENT
        ino = NAMES.index(name) + 2
        return struct.pack("<4Q2I", ino, 0, 1, 1, 0, 0) + attributes(ino)
    if operation == GETATTR:
        return struct.pack("<QII", 1, 0, 0) + attributes(node)
    if operation in (OPEN, OPENDIR):
        return struct.pack("<QII", 0, DIRECT_IO if operation == OPEN else 0, 0)
    if operation in (READ, READDIR):
        _, offset, size = struct.unpack("<QQI", body[:20])
        return entries(offset) if operation == READDIR else FILES[NAMES[node - 2]][1][offset : offset + size]
    if operation == STATFS:
        return struct.pack("<5Q4I24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0)
    return b"" if operation in (RELEASE, RELEASEDIR, FLUSH) else errno.ENOSYS


def serve(point: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"false-sizes", os.fsencode(point), b"fuse.false-sizes", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    print("mounted", flush=True)
    while True:
        try:
            request = os.read(device, 1 << 18)
        except OSError as error:
            if error.errno == errno.ENODEV:  # unmounted
                return
            raise
        _, operation, unique, node = struct.unpack("<IIQQ", request[:24])
        if operation in NO_REPLY:
            continue
        found = answer(operation, node, request[40:])
        number, data = (found, b"") if isinstance(found, int) else (0, found)
        os.write(device, struct.pack("<IiQ", 16 + len(data), -number, unique) + data)


if __name__ == "__main__":
    serve(sys.argv[1])
