"""Sample trees on the host: everything an ext3 image can hold, at the borders where its format changes.

What a host cannot do (device nodes without root, attributes on a filesystem that has none) is left out of the tree; a tree is
always judged against what is really there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "acl",
    "deep",
    "everything",
    "is_root",
    "many_directories",
    "set_times",
    "small_files",
    "wide",
]

YEAR_1960 = -315_619_200
YEAR_2040 = 2_208_988_800
YEAR_2300 = 10_413_792_000
UNDEFINED_ID = 0xFFFFFFFF
GIB = 1 << 30


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL in the form of the kernel's calls from (tag, permissions, id): version 2, then 8 bytes an entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ANY = UNDEFINED_ID
ACCESS_ACL = acl((0x01, 7, ANY), (0x02, 5, 1000), (0x04, 5, ANY), (0x08, 4, 70_000), (0x10, 5, ANY), (0x20, 4, ANY))
DEFAULT_ACL = acl((0x01, 7, ANY), (0x02, 7, 1001), (0x04, 5, ANY), (0x10, 7, ANY), (0x20, 0, ANY))


def set_xattr(path: Path | bytes, name: str, value: bytes) -> bool:
    """Set an attribute where the host's filesystem can; whether it could."""
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError:
        return False
    return True


def pattern(length: int, seed: int = 0) -> bytes:
    """Bytes that differ from block to block and hold no zero block."""
    unit = bytes((seed + i * 7 + (i >> 8)) % 255 + 1 for i in range(4099))
    return (unit * (length // len(unit) + 1))[:length]


def write_at(path: Path, *pieces: tuple[int, bytes], size: int | None = None) -> None:
    """A file with data at byte offsets, holes between, and a length."""
    with path.open("wb") as file:
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
        if size is not None:
            file.truncate(size)


def everything(root: Path, *, block_size: int = 1024, big: bool = True) -> Path:
    """One of each. ``big`` adds sparse files over 2 GiB; attributes fit an image with blocks of ``block_size`` bytes."""
    root.mkdir(parents=True, exist_ok=True)
    _files(root / "files", block_size, big)
    _names(root / "names")
    _links(root / "links")
    _special(root / "special")
    _modes(root / "modes")
    _attributes(root / "attributes", block_size)
    set_times(root)
    return root


def _files(top: Path, block: int, big: bool) -> None:
    top.mkdir()
    pointers = block // 4
    sizes = [0, 1, block - 1, block, block + 1, 11 * block, 12 * block, 12 * block + 1, 13 * block, (12 + pointers) * block]
    sizes += [(12 + pointers) * block + 1, (14 + pointers) * block]
    for size in sizes:
        (top / f"size-{size}").write_bytes(pattern(size, size % 251))
    page = 65536
    write_at(top / "hole-start", (page, pattern(page)))
    write_at(top / "hole-middle", (0, pattern(page)), (5 * page, pattern(3 * page, 1)))
    write_at(top / "hole-end", (0, pattern(page)), size=4 * page + 77)
    write_at(top / "only-hole", size=10 * page + 1)
    write_at(top / "many-holes", *[(page * 2 * i, pattern(4096, i)) for i in range(40)], size=page * 90)
    (top / "zeros").write_bytes(bytes(3 * page))
    beyond_double = (12 + pointers + pointers**2) * block
    if block == 1024:
        write_at(top / "beyond-double", (beyond_double - page, pattern(2 * page)), size=beyond_double + 3 * page)
    if big:
        write_at(top / "over-2G", (0, b"begin"), (2 * GIB - page, pattern(2 * page)), size=2 * GIB + 5 * page)
        write_at(top / "over-4G", (4 * GIB + 12345, b"far"), size=4 * GIB + 20000)


def _names(top: Path) -> None:
    top.mkdir()
    here = os.fsencode(top)
    names = [
        b"n" * 255,
        b"\xff\xfe not utf-8 \x80",
        b"new\nline",
        b"tab\tquote\"'\\",
        b" space ",
        b"-rf",
        b"\x01\x1b[31m",
        b"[/foo]",
    ]
    names += ["snow \N{SNOWMAN}".encode(), b"debugfs: stat <12>", b"\x7f" + b"\xc3\xa9" * 60, b"*", b"...", b".hidden"]
    for number, name in enumerate(names):
        with contextlib.suppress(OSError), open(here + b"/" + name, "wb") as file:
            file.write(b"%d" % number)
    inner = here + b"/" + b"d" * 255
    os.mkdir(inner)
    os.mkdir(inner + b"/" + b"e" * 255)
    for count in (3, 4, 5, 200):
        directory = top / f"entries-{count}"
        directory.mkdir()
        for i in range(count):
            (directory / f"file with a name of some length {i:05}").touch()


def _links(top: Path) -> None:
    top.mkdir()
    (top / "one").write_text("linked\n")
    for i in range(5):
        os.link(top / "one", top / f"one-{i}")
    (top / "below").mkdir()
    os.link(top / "one", top / "below" / "again")
    for length in (1, 58, 59, 60, 61, 500, 1023):
        os.symlink("t" * length, top / f"symlink-{length}")
    os.symlink(b'\xff\n"debugfs: stat <2>\n', os.fsencode(top) + b"/symlink-odd")
    os.symlink("../no/such", top / "dangling")
    os.link(top / "symlink-59", top / "symlink-59-again", follow_symlinks=False)
    os.link(top / "symlink-500", top / "below" / "symlink-500-again", follow_symlinks=False)


def _special(top: Path) -> None:
    top.mkdir()
    os.mkfifo(top / "fifo")
    os.link(top / "fifo", top / "fifo-again")
    here = os.open(top, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind(f"/proc/self/fd/{here}/socket")  # a path that fits sun_path wherever the tree is
        finally:
            os.close(here)
    if is_root():
        for number, (major, minor) in enumerate([(1, 3), (8, 1), (255, 255), (256, 0), (8, 256), (4095, 1048575), (0, 0)]):
            with contextlib.suppress(PermissionError):
                os.mknod(top / f"char-{number}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
                os.mknod(top / f"block-{number}", stat.S_IFBLK | 0o660, os.makedev(major, minor))


def _modes(top: Path) -> None:
    top.mkdir()
    for mode in (0o000, 0o444, 0o600, 0o755, 0o4755, 0o2755, 0o6711, 0o1777, 0o7777):
        (top / f"file-{mode:04o}").write_bytes(b"m")
        (top / f"directory-{mode:04o}").mkdir()
    if is_root():
        for owner in (1, 1000, 65535, 65536, 100_000, 4_000_000_000, UNDEFINED_ID - 1):
            path = top / f"owner-{owner}"
            path.write_bytes(b"o")
            os.chown(path, owner, (owner + 70_000) % (UNDEFINED_ID - 1))
    for mode in (0o444, 0o600, 0o755, 0o4755, 0o2755, 0o6711, 0o1777, 0o7777, 0o000):
        if mode & 0o400 or is_root():
            os.chmod(top / f"file-{mode:04o}", mode)
        if mode & 0o500 == 0o500 or is_root():
            os.chmod(top / f"directory-{mode:04o}", mode)


def _attributes(top: Path, block: int) -> None:
    top.mkdir()
    large = min(block - 150, 3500)
    plain = {
        "small": {"user.a": b"b"},
        "empty": {"user.empty": b""},
        "binary": {"user.bin": bytes(range(200))},
        "inode-full": {"user.x": b"f" * 68},
        "inode-over": {"user.x": b"f" * 69},
        "large": {"user.large": b"L" * large},
        "both": {"user.little": b"1234", "user.large": b"M" * large},
        "long-name": {"user." + "n" * 250: b"v"},
        "many": {f"user.n{i:02}": b"%d" % i for i in range(20)},
    }
    for name, attributes in plain.items():
        (top / name).write_bytes(b"x")
        for key, value in attributes.items():
            set_xattr(top / name, key, value)
    for i in range(30):
        (top / f"shared-{i}").write_bytes(b"s")
        set_xattr(top / f"shared-{i}", "user.shared", b"S" * 300)
    directory = top / "directory"
    directory.mkdir()
    set_xattr(directory, "user.on", b"directory")
    (top / "acl").write_bytes(b"x")
    (top / "acl-directory").mkdir()
    set_xattr(top / "acl", "system.posix_acl_access", ACCESS_ACL)
    set_xattr(top / "acl-directory", "system.posix_acl_access", ACCESS_ACL)
    set_xattr(top / "acl-directory", "system.posix_acl_default", DEFAULT_ACL)
    if is_root():
        os.symlink("a target that is no longer than fits", top / "symlink")
        set_xattr(top / "symlink", "trusted.on", b"symlink")
        os.symlink("s" * 60, top / "symlink-slow")
        set_xattr(top / "symlink-slow", "trusted.on", b"T" * 150)
        set_xattr(top / "small", "trusted.overlay.opaque", b"y")
        set_xattr(top / "small", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))


def _walk_up(root: Path) -> Iterator[bytes]:
    """All paths, children before their directory."""
    for directory, names, files in os.walk(os.fsencode(root), topdown=False):
        for name in files:
            yield directory + b"/" + name
        for name in names:
            if os.path.islink(directory + b"/" + name):
                yield directory + b"/" + name
        yield directory


def set_times(root: Path) -> None:
    """Distinct times with nanoseconds, over the range ext3 holds with 256-byte inodes; a host that holds less clamps them."""
    choices = [1_700_000_000, 0, 1, -1, YEAR_1960, YEAR_2040, YEAR_2300, 2**31 - 1, 2**31, 2**32, 2**32 + 5]
    for number, path in enumerate(_walk_up(root)):
        seconds = choices[number % len(choices)] + number // len(choices)
        modified = seconds * 10**9 + (number * 7_654_321) % 10**9
        os.utime(path, ns=(modified + 1, modified), follow_symlinks=False)


def small_files(root: Path, count: int, *, length: int = 20) -> Path:
    """``count`` files in one directory."""
    root.mkdir(parents=True)
    here = os.fsencode(root)
    for i in range(count):
        fd = os.open(here + b"/file_%06d" % i, os.O_WRONLY | os.O_CREAT, 0o644)
        if length:
            os.write(fd, (b"%d " % i * length)[:length])
        os.close(fd)
    return root


def wide(root: Path, count: int, *, longest: int = 64) -> Path:
    """One directory with ``count`` names (mostly links, which are quick to make) of all lengths up to ``longest``."""
    directory = root / "wide"
    small_files(directory, -(-count // 1000), length=3)
    here = os.fsencode(directory)
    made = -(-count // 1000)
    for i in range(made, count):
        os.link(here + b"/file_%06d" % (i % (-(-count // 1000))), here + b"/%d" % i + b"x" * (i * 13 % (longest - 4)))
    return root


def deep(root: Path, depth: int = 400) -> Path:
    """Directories in directories, with a file at the bottom."""
    root.mkdir(parents=True)
    for level in range(1, depth + 1):
        os.mkdir(os.fsencode(root) + b"/d" * level)
    with open(os.fsencode(root) + b"/d" * depth + b"/bottom", "wb") as file:
        file.write(b"here\n")
    return root


def many_directories(root: Path, count: int = 3000) -> Path:
    """``count`` directories side by side, each with a file."""
    root.mkdir(parents=True)
    for i in range(count):
        directory = os.fsencode(root) + b"/%05d" % i
        os.mkdir(directory)
        with open(directory + b"/one", "wb") as file:
            file.write(b"%d" % i)
    return root
