"""Is somebody using this image, and may it be replaced? Looks only; takes no lock and changes nothing.

In use means: another open file holds a byte-range lock (Apptainer locks the range of every ext3 image it opens), or the
file is the backing of a loop device, mounted or not. What needs /proc and /sys is empty on systems without them.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from ext3 import hostio

from ..atomic import LockState, lock_state
from ..errors import FormatError, ImageInUseError, NotReplaceableError, NotYetError, show

__all__ = [
    "Holder",
    "Mount",
    "Use",
    "check_image",
    "check_replaceable",
    "check_unused",
    "file_format",
    "head_format",
    "image_kind",
    "image_use",
    "is_replaceable",
    "is_sif",
]

HostPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Format = Literal["empty", "ext", "sif", "squashfs", "unknown"]

MAX_DESCRIPTORS = 200_000
"""Open files of other processes looked at when the holder of a lock is searched."""
HEAD_BYTES = 2048
LOOP_GET_STATUS64 = 0x4C05
LOOP_INFO_BYTES = 232
"""ioctl of Linux (linux/loop.h) and the size of its struct loop_info64."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has the image open and locked; ``kind`` is "read" or "write"."""

    pid: int
    command: str
    kind: str


@dataclass(frozen=True, slots=True)
class Mount:
    """A loop device over the image, and where it is mounted (None: attached, but mounted nowhere that can be seen)."""

    device: str
    path: str | None
    read_only: bool


@dataclass(frozen=True, slots=True)
class Use:
    """Who uses an image now. ``lock`` is what others hold; "unsupported": this filesystem cannot tell."""

    lock: LockState
    holders: tuple[Holder, ...] = ()
    mounts: tuple[Mount, ...] = ()

    @property
    def busy(self) -> bool:
        """Somebody reads or writes it."""
        return self.lock in ("read", "write") or bool(self.mounts)

    @property
    def written(self) -> bool:
        """Somebody may change it at any moment."""
        return self.lock == "write" or any(not mount.read_only for mount in self.mounts)

    def describe(self) -> str:
        """One line: who, as far as can be seen; empty when unused."""
        parts = []
        if self.lock in ("read", "write"):
            who = ", ".join(f"process {holder.pid} ({holder.command})" for holder in self.holders)
            parts.append(f"locked for {'writing' if self.lock == 'write' else 'reading'}" + (f" by {who}" if who else ""))
        for mount in self.mounts:
            where = f"mounted at {show(mount.path)}" if mount.path is not None else f"attached to {mount.device}"
            parts.append(where + (" (read-only)" if mount.read_only else ""))
        return "; ".join(parts)


def image_use(path: HostPath, *, span: tuple[int, int] | None = None) -> Use:
    """Who uses the file at ``path`` now. Raises OSError where it cannot be opened for reading.

    ``span``: of a partition in it, offset and size in bytes: locks elsewhere do not count, nor do loop devices that begin
    elsewhere.
    """
    name = os.fsdecode(path)
    fd = os.open(name, os.O_RDONLY | hostio.NO_WAIT)
    try:
        found = os.fstat(fd)
        offset, size = span or (0, 0)
        lock, pid = lock_state(fd, offset=offset, size=size) if stat.S_ISREG(found.st_mode) else ("none", None)
    finally:
        os.close(fd)
    holders: list[Holder] = []
    if lock in ("read", "write"):
        if pid is not None:
            holders.append(Holder(pid, _command(pid), lock))
        holders += (holder for holder in _lock_holders(name, found, span) if holder.pid != pid)
    return Use(lock, tuple(holders), tuple(_mounts(name, found, span)))


def check_unused(path: HostPath, *, writers_only: bool = False, ours: bool = False, span: tuple[int, int] | None = None) -> Use:
    """The use of ``path``; raises ImageInUseError where it is in use (or, with ``writers_only``, may be written to).

    ``ours``: the lock on it is the caller's own, only mounts count. ``span``: as for ``image_use``.
    """
    use = image_use(path) if span is None else image_use(path, span=span)
    if ours:
        use = Use("none", (), use.mounts)
    if use.written if writers_only else use.busy:
        name = os.fsdecode(path)
        raise ImageInUseError(
            f"{show(name)}{' (its overlay)' if span else ''} is in use: {use.describe()}",
            path=name,
            hint="wait until it is free, or stop the container that uses it",
            holders=tuple(f"{holder.pid} {holder.command}" for holder in use.holders),
        )
    return use


def check_replaceable(path: HostPath) -> None:
    """Raise unless ``path`` may be replaced: an empty regular file or a whole ext2/ext3 image that nobody uses.

    NotReplaceableError says what it is instead; ImageInUseError who uses it. A path that does not exist is fine.
    """
    name = os.fsdecode(path)
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise NotReplaceableError(f"{show(name)} is not a regular file", path=name, hint="give the new image another name")
    try:
        what = file_format(name)
    except OSError as error:
        raise NotReplaceableError(
            f"{show(name)}: cannot read its type: {error.strerror}", path=name, hint="give the new image another name"
        ) from error
    if what not in ("empty", "ext"):
        known = {"sif": "a SIF image", "squashfs": "a squashfs image"}.get(what, "not an ext2 or ext3 image")
        raise NotReplaceableError(
            f"{show(name)} is {known}; --force replaces only ext3 images and empty files",
            path=name,
            hint="give the new image another name, or remove the file first",
        )
    check_unused(name)


def is_replaceable(path: HostPath) -> bool:
    """Whether ``check_replaceable`` passes."""
    try:
        check_replaceable(path)
    except (NotReplaceableError, ImageInUseError):
        return False
    return True


def file_format(path: HostPath) -> Format:
    """What a regular file holds, told by its first 2 KiB (and, for ext2/ext3, whether the superblock fits the file).

    "ext" is ext2 or ext3 only: a filesystem with ext4's features is "unknown" here. Raises OSError.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return head_format(file.read(HEAD_BYTES), size)


def head_format(head: bytes, size: int) -> Format:
    """``file_format`` of the first 2 KiB of a file of ``size`` bytes."""
    if not size:
        return "empty"
    if foreign := _foreign(head):
        return foreign
    if len(head) < HEAD_BYTES:
        return "unknown"
    from ext3.constants import EXT3_INCOMPAT, EXT3_MAGIC, EXT3_RO_COMPAT, SUPERBLOCK_OFFSET
    from ext3.format.schema import SUPERBLOCK

    fields = SUPERBLOCK.record(head[SUPERBLOCK_OFFSET:])
    if fields["s_magic"] != EXT3_MAGIC or fields["s_log_block_size"] > 6 or fields["s_rev_level"] > 1:
        return "unknown"
    strange = fields["s_feature_incompat"] & ~int(EXT3_INCOMPAT) or fields["s_feature_ro_compat"] & ~int(EXT3_RO_COMPAT)
    # A number that happens to stand at the magic's place does not make a filesystem: the counts must be plausible too.
    plausible = fields["s_inodes_count"] and fields["s_blocks_count"] > 0 and fields["s_first_data_block"] <= 1
    return "ext" if plausible and not strange else "unknown"


def _lock_holders(name: str, wanted: os.stat_result, span: tuple[int, int] | None) -> Iterator[Holder]:
    """Processes whose open files carry a lock on the file (in ``span``): the kernel lists locks in /proc/PID/fdinfo/FD.

    Only processes one may look into are seen: one's own, or all as root.
    """
    if sys.platform != "linux":
        return
    base = os.path.basename(os.path.realpath(name))
    key = f":{wanted.st_ino} "
    looked = 0
    for pid in _numbers("/proc"):
        kinds = set()
        for fd in _numbers(f"/proc/{pid}/fd"):
            looked += 1
            if looked > MAX_DESCRIPTORS:
                return
            link = f"/proc/{pid}/fd/{fd}"
            with suppress(OSError, UnicodeError):
                if os.path.basename(os.readlink(link)).removesuffix(" (deleted)") != base:
                    continue
                if not os.path.samestat(os.stat(link), wanted):
                    continue
                with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii", errors="replace") as info:
                    locks = [line for line in info.read(65536).splitlines() if line.startswith("lock:") and key in line]
                locks = [line for line in locks if "LEASE" not in line and _overlaps(line, span)]
                kinds |= {"write" if " WRITE " in line else "read" for line in locks}
        if kinds:
            yield Holder(pid, _command(pid), "write" if "write" in kinds else "read")


def _overlaps(line: str, span: tuple[int, int] | None) -> bool:
    """Whether a lock, as the kernel prints it ("... WRITE -1 00:29:1234 0 EOF", the last byte included), touches the span."""
    if span is None:
        return True
    first, last = line.split()[-2:]
    return int(first) < sum(span) and (last == "EOF" or int(last) >= span[0])


def _mounts(name: str, wanted: os.stat_result, span: tuple[int, int] | None) -> Iterator[Mount]:
    """Loop devices backed by the file, with the places each is mounted at in any mount namespace one may see.

    Of a span only those that begin where it does: the one of another partition may reach to the end of the file.
    """
    if sys.platform != "linux":
        return
    loops: dict[str, tuple[str, bool]] = {}
    with suppress(OSError):
        for entry in sorted(os.listdir("/sys/block")):
            if entry.startswith("loop"):
                with suppress(OSError):
                    backing = _line(f"/sys/block/{entry}/loop/backing_file")
                    if span is not None and _line(f"/sys/block/{entry}/loop/offset") != str(span[0]):
                        continue
                    if _same_file(backing, name, wanted) or _loop_file(f"/dev/{entry}") == _identity(wanted):
                        device = _line(f"/sys/block/{entry}/dev")
                        loops[device] = (f"/dev/{entry}", _line(f"/sys/block/{entry}/ro") == "1")
    places: dict[str, set[tuple[str, bool]]] = {device: set() for device in loops}
    if loops:
        for device, path, read_only in _mount_table():
            if device in places:
                places[device].add((path, read_only))
    for device, (node, read_only) in loops.items():
        if not places[device]:
            yield Mount(node, None, read_only)
        for path, place_read_only in sorted(places[device]):
            yield Mount(node, path, read_only or place_read_only)


def _mount_table() -> Iterator[tuple[str, str, bool]]:
    """(major:minor, mount point, read-only) of every mount in every mount namespace, each namespace read once."""
    seen = set()
    for pid in [os.getpid(), *_numbers("/proc")]:
        with suppress(OSError):
            try:
                namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            except PermissionError:
                namespace = str(pid)
            if namespace in seen:
                continue
            with open(f"/proc/{pid}/mountinfo", "rb") as table:
                lines = table.read().splitlines()
            seen.add(namespace)
            for line in lines:
                # "36 35 7:0 / /mnt rw,noatime shared:1 - ext3 /dev/loop0 rw": the last field is the filesystem's own state
                fields = line.split(b" ")
                if len(fields) >= 9:
                    path = fields[4].replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\012", b"\n")
                    path = path.replace(b"\\134", b"\\")
                    yield fields[2].decode("ascii", "replace"), os.fsdecode(path), fields[-1].split(b",")[0] == b"ro"


def _same_file(backing: str, name: str, wanted: os.stat_result) -> bool:
    if backing == os.path.realpath(name):
        return True
    if os.path.basename(backing.removesuffix(" (deleted)")) != os.path.basename(os.path.realpath(name)):
        return False
    with suppress(OSError):
        return os.path.samestat(os.stat(backing), wanted)
    return False


def _loop_file(device: str) -> tuple[int, int] | None:
    """(device number, inode) of the file behind a loop device, asked of the device itself: a path is only right in the mount
    namespace it was opened in. None where one may not open it.
    """
    import fcntl

    status = bytearray(LOOP_INFO_BYTES)
    try:
        fd = os.open(device, os.O_RDONLY | hostio.NO_WAIT)
    except OSError:
        return None
    try:
        fcntl.ioctl(fd, LOOP_GET_STATUS64, status)
    except OSError:
        return None
    finally:
        os.close(fd)
    numbers = struct.unpack_from("=QQ", status)  # loop_info64: lo_device, lo_inode
    return numbers[0], numbers[1]


def _identity(found: os.stat_result) -> tuple[int, int]:
    """What ``_loop_file`` gives for this file; the device number as the kernel encodes it for programs."""
    major, minor = os.major(found.st_dev), os.minor(found.st_dev)
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12, found.st_ino


def _numbers(directory: str) -> list[int]:
    try:
        return sorted(int(entry) for entry in os.listdir(directory) if entry.isdigit())
    except OSError:
        return []


def _line(path: str) -> str:
    with open(path, "rb") as file:
        return os.fsdecode(file.read(8192)).rstrip("\n")


def _command(pid: int) -> str:
    try:
        return show(_line(f"/proc/{pid}/comm"))
    except OSError:
        return "?"


def image_kind(path: HostPath) -> Literal["sif", "squashfs"] | None:
    """What is in an image file, None for anything else: whether that is ext3 shows when it is opened.

    Raises FileNotFoundError and other OSErrors, FormatError for what is neither a regular file nor a block device.
    """
    name = os.fsdecode(path)
    found = os.stat(name)
    if stat.S_ISDIR(found.st_mode):
        hint = f"create an image from it with: sifkit overlay create --from-dir {show(name)}"
        raise FormatError(f"{show(name)} is a directory, not an image", path=name, hint=hint)
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISBLK(found.st_mode):
        raise FormatError(f"{show(name)} is neither a regular file nor a block device", path=name, hint="give an image file")
    with open(name, "rb") as file:
        return _foreign(file.read(64))


def is_sif(path: HostPath) -> bool:
    """Whether a SIF image is at ``path``; False where nothing can be read there."""
    try:
        return os.path.isfile(path) and image_kind(path) == "sif"
    except OSError:
        return False


def check_image(path: HostPath) -> None:
    """Raise unless ``path`` can be opened as a stand-alone overlay image: neither SIF nor squashfs.

    Raises NotYetError for a SIF, and what ``image_kind`` does.
    """
    name = os.fsdecode(path)
    what = image_kind(name)
    if what == "sif":
        raise NotYetError(
            f"{show(name)} is a SIF image; this command needs a stand-alone ext3 image",
            path=name,
            hint=f"copy its overlay to a file with: sifkit overlay detach --keep {show(name)}",
        )
    if what == "squashfs":
        raise FormatError(f"{show(name)} is a squashfs image, not ext3", path=name, hint="give a stand-alone ext3 image")


def _foreign(head: bytes) -> Literal["sif", "squashfs"] | None:
    if b"SIF_MAGIC\0" in head[:64]:  # behind a launch script of 32 bytes (SIF header: launch[32], magic[10])
        return "sif"
    return "squashfs" if head[:4] in (b"hsqs", b"sqsh") else None
