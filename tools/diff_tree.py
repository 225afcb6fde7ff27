"""Is the tree in an ext3 image the tree it was made from? Every attribute is compared; one line per difference.

    python tools/diff_tree.py SOURCE IMAGE [--below upper] [--judge kernel|debugfs|sifkit] [--ignore atime,ctime]

exits 0 (same), 1 (different), 2 (trouble). The image is read by somebody who did not write it: the kernel (a read-only
loop mount, needs root), debugfs (no root) or this project's own reader. As a library: ``read_host`` before an image is made,
``read_kernel``, ``read_debugfs`` or ``read_sifkit`` after, ``compare``.

Reading a directory or a symlink changes its atime on the host: to compare atimes, take ``read_host`` before the image is made.
Times are compared to the nanosecond, holes at the granularity of the image's blocks, names and values as raw bytes.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Fact", "Facts", "Segments", "compare", "diff", "diff_kernel", "digest", "read_host", "read_kernel", "read_sifkit"]

Segments = list[tuple[int, int]]
"""[start, end) in bytes: where data lies; elsewhere are holes."""

ATTRIBUTES = ("mode", "uid", "gid", "mtime", "atime", "ctime")
IGNORABLE = (*ATTRIBUTES, "content", "holes", "links", "xattrs", "root", "devices")
CHUNK = 1 << 16

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@dataclass(slots=True)
class Fact:
    """What is known of one path. An attribute value given as an int is only known by its length (a judge's limit)."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    atime: int
    ctime: int
    size: int = 0
    links: int = 1
    identity: int = 0
    first_name: bytes = b""
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    digest: str = ""
    data: Segments = field(default_factory=list)
    xattrs: dict[bytes, bytes | int] = field(default_factory=dict)


Facts = dict[bytes, Fact]
"""By path below the tree's root, which itself is ``b""``."""


class TroubleError(Exception):
    """The comparison could not be made."""


def digest(read_at: Callable[[int, int], bytes], data: Segments, size: int) -> str:
    """A hash of a file's content that does not depend on where its holes are, without reading them.

    ``read_at(offset, length)`` gives zeros for holes; chunks that are all zero do not count.
    """
    state = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
    done = 0
    for start, end in data:
        position = max(done, start - start % CHUNK)
        while position < min(end, size):
            piece = read_at(position, min(CHUNK, size - position))
            if piece.count(0) != len(piece):
                state.update(position.to_bytes(8, "little") + piece)
            position += CHUNK
        done = max(done, position)
    return state.hexdigest()


def group_links(facts: Facts) -> None:
    """Give every hard-linked path the first name of its inode."""
    first: dict[int, bytes] = {}
    for path in sorted(facts):
        fact = facts[path]
        if fact.kind != "directory":
            fact.first_name = first.setdefault(fact.identity, path)


def _open_quietly(path: bytes, flags: int) -> int:
    """Open without touching the atime where that is allowed."""
    quiet = getattr(os, "O_NOATIME", 0)
    try:
        return os.open(path, flags | quiet | os.O_CLOEXEC)
    except PermissionError:
        return os.open(path, flags | os.O_CLOEXEC)


def _data_segments(fd: int, size: int) -> Segments:
    found: Segments = []
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            return [(0, size)]
        position = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, min(position, size)))
    return found


def _host_fact(path: bytes, *, contents: bool) -> Fact:
    status = os.lstat(path)
    kind = KINDS.get(stat.S_IFMT(status.st_mode), "unknown")
    target = b""
    if kind == "symlink":
        target = os.readlink(path)
        status = os.lstat(path)
    fact = Fact(
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        status.st_atime_ns,
        status.st_ctime_ns,
        size=0 if kind == "directory" else status.st_size,
        links=status.st_nlink,
        identity=status.st_ino,
        target=target,
    )
    if kind.endswith("device"):
        fact.device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    for name in _attribute_names(path):
        fact.xattrs[os.fsencode(name)] = os.getxattr(path, name, follow_symlinks=False)
    if kind == "file" and contents:
        fd = _open_quietly(path, os.O_RDONLY)
        try:
            fact.data = _data_segments(fd, fact.size)
            fact.digest = digest(lambda offset, length: os.pread(fd, length, offset), fact.data, fact.size)
        finally:
            os.close(fd)
    return fact


def _attribute_names(path: bytes) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA):
            return []
        raise


def read_host(root: str | bytes | os.PathLike[str], *, contents: bool = True, exclude: Collection[bytes] = ()) -> Facts:
    """Every fact below a directory of this host; ``exclude`` are paths below it that are left out with all they hold."""
    top = os.fsencode(root)
    facts: Facts = {}
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        if path in exclude:
            continue
        full = top + b"/" + path if path else top
        fact = facts[path] = _host_fact(full, contents=contents)
        if fact.kind == "directory":
            fd = _open_quietly(full, os.O_RDONLY | os.O_DIRECTORY)
            try:
                names = [os.fsencode(name) for name in os.listdir(fd)]
            finally:
                os.close(fd)
            waiting.extend(path + b"/" + name if path else name for name in names)
    group_links(facts)
    return facts


def read_kernel(
    image: str | os.PathLike[str], *, below: str = "", offset: int = 0, contents: bool = True, exclude: Collection[bytes] = ()
) -> Facts:
    """Every fact as the kernel sees it: a read-only loop mount. Needs root; raises TroubleError where the mount fails."""
    with tempfile.TemporaryDirectory(prefix="diff-tree-") as point:
        options = "loop,ro,noatime" + (f",offset={offset}" if offset else "")
        done = subprocess.run(["mount", "-t", "ext3", "-o", options, image, point], capture_output=True, check=False)
        if done.returncode:
            raise TroubleError(f"cannot mount {os.fspath(image)}: {done.stderr.decode(errors='replace').strip()}")
        try:
            top = os.path.join(point, below.strip("/")) if below else point
            if not os.path.isdir(top):
                raise TroubleError(f"no directory {below} in {os.fspath(image)}")
            return read_host(top, contents=contents, exclude=exclude)
        finally:
            subprocess.run(["umount", point], check=True)


def read_sifkit(image: str | os.PathLike[str], *, below: str = "", offset: int = 0, exclude: Collection[bytes] = ()) -> Facts:
    """Every fact as this project's own reader sees it."""
    from ext3.read.filesystem import Filesystem

    facts: Facts = {}
    with Filesystem.open(image, offset=offset) as filesystem:
        block_size = filesystem.superblock.block_size
        top = filesystem.lookup("/" + below.strip("/"))
        waiting = [(b"", top)]
        while waiting:
            path, ino = waiting.pop()
            if path in exclude:
                continue
            status = filesystem.stat(ino)
            kind = KINDS.get(stat.S_IFMT(status.mode), "unknown")
            fact = facts[path] = Fact(
                kind,
                stat.S_IMODE(status.mode),
                status.uid,
                status.gid,
                status.mtime,
                status.atime,
                status.ctime,
                size=0 if kind == "directory" else status.size,
                links=status.links,
                identity=ino,
                xattrs=dict(filesystem.xattrs(ino)),
            )
            if kind == "symlink":
                fact.target = filesystem.readlink(ino)
            elif kind.endswith("device"):
                fact.device = (status.major, status.minor)
            elif kind == "file":
                fact.data = [
                    (first * block_size, min((first + count) * block_size, status.size))
                    for first, _, count in filesystem.data_extents(ino)
                ]
                with filesystem.open_file(ino) as file:

                    def read_at(position: int, length: int, file: object = file) -> bytes:
                        file.seek(position)  # type: ignore[attr-defined]
                        return file.read(length)  # type: ignore[attr-defined,no-any-return]

                    fact.digest = digest(read_at, fact.data, status.size)
            elif kind == "directory":
                waiting += [(path + b"/" + entry.name if path else entry.name, entry.ino) for entry in filesystem.scandir(ino)]
    group_links(facts)
    return facts


def show(path: bytes) -> str:
    """A path on one line, whatever is in it."""
    text = repr(path)[2:-1] if path else "."
    return text.replace("\\'", "'")


def disk_acl(value: bytes) -> bytes:
    """A POSIX ACL as the kernel's calls give it, in its form on an ext3 disk (Linux fs/ext4/acl.h): ids only where named."""
    if len(value) < 4 or value[:4] != b"\2\0\0\0":
        return value
    entries = [value[start : start + 8] for start in range(4, len(value), 8)]
    return b"\1\0\0\0" + b"".join(entry if entry[0] in (0x02, 0x08) else entry[:4] for entry in entries)


def _same_xattr(name: bytes, want: bytes | int, got: bytes | int) -> bool:
    if isinstance(want, bytes) and name.startswith(b"system.posix_acl_"):
        want = disk_acl(want)
        got = disk_acl(got) if isinstance(got, bytes) else got
    if isinstance(got, int):
        return len(want) == got if isinstance(want, bytes) else want == got
    return want == got


def _blocks(data: Segments, size: int, block_size: int) -> Segments:
    """The data map in whole blocks, neighbours joined."""
    joined: Segments = []
    for start, end in data:
        first, last = start // block_size, -(-min(end, size) // block_size)
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        elif last > first:
            joined.append((first, last))
    return joined


def _time(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09}"


def _differences(path: bytes, want: Fact, got: Fact, ignore: Collection[str], block_size: int) -> Iterable[str]:
    if want.kind != got.kind:
        yield f"type {got.kind}, want {want.kind}"
        return
    for name in ATTRIBUTES:
        if name in ignore or (path == b"" and "root" in ignore):
            continue
        left, right = getattr(want, name), getattr(got, name)
        if left != right:
            text = oct if name == "mode" else (_time if name.endswith("time") else str)
            yield f"{name} {text(right)}, want {text(left)}"
    if want.size != got.size:
        yield f"size {got.size}, want {want.size}"
    if want.target != got.target:
        yield f"target {show(got.target)}, want {show(want.target)}"
    if want.device != got.device and "devices" not in ignore:
        yield f"device {got.device}, want {want.device}"
    if want.digest != got.digest and "content" not in ignore:
        yield "content differs"
    if "holes" not in ignore and want.kind == "file":
        left, right = (_blocks(fact.data, fact.size, block_size) for fact in (want, got))
        if left != right:
            yield f"data in blocks {right[:8]}, want {left[:8]}"
    if "links" not in ignore and want.first_name != got.first_name:
        yield f"hard link of {show(got.first_name)}, want {show(want.first_name)}"
    if "xattrs" not in ignore and not (path == b"" and "root" in ignore):
        for key in sorted(want.xattrs.keys() | got.xattrs.keys()):
            if key not in got.xattrs:
                yield f"attribute {show(key)} is missing"
            elif key not in want.xattrs:
                yield f"attribute {show(key)} is new"
            elif not _same_xattr(key, want.xattrs[key], got.xattrs[key]):
                yield f"attribute {show(key)} is {got.xattrs[key]!r}, want {want.xattrs[key]!r}"


def compare(want: Facts, got: Facts, *, ignore: Collection[str] = (), block_size: int = 1024) -> list[str]:
    """One line per difference, by path. ``got`` is the image's tree; its lost+found does not count."""
    unknown = set(ignore) - set(IGNORABLE)
    if unknown:
        raise ValueError(f"cannot ignore {', '.join(sorted(unknown))}; known: {', '.join(IGNORABLE)}")
    found = []
    names: dict[int, int] = {}
    for fact in got.values():
        names[fact.identity] = names.get(fact.identity, 0) + 1
    for path in sorted(want.keys() | got.keys()):
        if path not in want:
            if path != b"lost+found":
                found.append(f"{show(path)}: only in the image")
        elif path not in got:
            found.append(f"{show(path)}: missing")
        else:
            fact = got[path]
            found += [f"{show(path)}: {text}" for text in _differences(path, want[path], fact, ignore, block_size)]
            if "links" not in ignore and fact.kind != "directory" and fact.links != names[fact.identity]:
                found.append(f"{show(path)}: link count {fact.links}, and {names[fact.identity]} names")
    return found


def image_block_size(image: str | os.PathLike[str], offset: int = 0) -> int:
    """Bytes per block, from the superblock at byte 1024 (s_magic at 0x38, s_log_block_size at 0x18)."""
    with open(image, "rb") as file:
        file.seek(offset + 1024)
        superblock = file.read(1024)
    log = int.from_bytes(superblock[0x18:0x1C], "little")
    if superblock[0x38:0x3A] != b"\x53\xef" or log > 6:
        raise TroubleError(f"{os.fspath(image)}: no ext3 superblock")
    return 1024 << log


def diff(
    source: str | os.PathLike[str] | Facts,
    image: str | os.PathLike[str],
    *,
    judge: str = "kernel",
    below: str = "",
    offset: int = 0,
    ignore: Collection[str] = (),
    exclude: Collection[bytes] = (),
) -> list[str]:
    """Differences between a host directory (or what ``read_host`` said of it) and the tree in an image; empty: the same."""
    block_size = image_block_size(image, offset)
    want = source if isinstance(source, dict) else read_host(source, exclude=exclude)
    if judge == "kernel":
        got = read_kernel(image, below=below, offset=offset, exclude=exclude)
    elif judge == "debugfs":
        from .debugfs_tree import read_debugfs

        got = read_debugfs(image, below=below, offset=offset, exclude=exclude)
    elif judge == "sifkit":
        got = read_sifkit(image, below=below, offset=offset, exclude=exclude)
    else:
        raise ValueError(f"no judge {judge!r}")
    return compare(want, got, ignore=ignore, block_size=block_size)


def diff_kernel(
    source: str | os.PathLike[str] | Facts,
    image: str | os.PathLike[str],
    *,
    below: str = "",
    offset: int = 0,
    ignore: Collection[str] = (),
) -> list[str]:
    """``diff`` with the kernel as judge."""
    return diff(source, image, judge="kernel", below=below, offset=offset, ignore=ignore)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="diff_tree", description="compare a directory with the tree in an ext3 image")
    parser.add_argument("source", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--offset", type=int, default=0, help="byte at which the filesystem begins in IMAGE")
    parser.add_argument("--below", default="", metavar="PATH", help="directory of the image that SOURCE went to, e.g. upper")
    parser.add_argument(
        "--judge", choices=["kernel", "debugfs", "sifkit"], default="kernel" if os.geteuid() == 0 else "debugfs"
    )
    parser.add_argument("--ignore", default="", metavar="A,B", help=f"any of {','.join(IGNORABLE)}")
    parser.add_argument("--exclude", action="append", default=[], metavar="PATH", help="path below SOURCE that does not count")
    options = parser.parse_args(argv)
    ignore = [word for word in options.ignore.split(",") if word]
    if set(ignore) - set(IGNORABLE):
        parser.error(f"--ignore knows {', '.join(IGNORABLE)}")
    try:
        found = diff(
            options.source,
            options.image,
            judge=options.judge,
            below=options.below,
            offset=options.offset,
            ignore=ignore,
            exclude=[os.fsencode(path) for path in options.exclude],
        )
    except (OSError, TroubleError) as error:
        print(f"diff_tree: {error}", file=sys.stderr)
        return 2
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    # Run as a script: the same modules as for an import, so that there is one class of each name.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tools.diff_tree import main as run

    sys.exit(run())
