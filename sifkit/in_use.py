"""Users of an image: processes that lock it, loop devices over it and their mounts. Takes no lock and changes nothing.

An image is in use if another open file holds a byte-range lock (Apptainer locks the range of every ext3 image it opens), if
it backs a loop device, mounted or not, or if a FUSE server has it open. Without /proc and /sys these are not known.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Literal, NamedTuple

from ext3 import hostio
from ext3.hostio import HostPath

from .errors import IN_USE_HINT, ImageInUseError, show
from .file_locks import LockState, lock_state
from .lock_wait import retry_in_use

__all__ = [
    "ImageUse",
    "LockHolder",
    "LoopFiles",
    "Mount",
    "check_open_unused",
    "check_unused",
    "directory_use",
    "fuse_servers",
    "host_name",
    "image_use",
    "in_use_error",
]

MAX_DESCRIPTORS = 200_000
"""Open files of other processes examined at most, to find the holder of a lock."""
LOOP_GET_STATUS64 = 0x4C05
LOOP_INFO_BYTES = 232
"""ioctl of Linux (linux/loop.h) and the size of its struct loop_info64."""
LOCKS = "/proc/locks"
FUSE_DEVICE = os.path.realpath("/dev/fuse")
FUSE_PROGRAMS = frozenset({"fuse2fs", "squashfuse", "squashfuse_ll"})
"""Programs that serve images. After an unmount fuse2fs closes /dev/fuse first, and then writes what it still holds."""
LOOP_SECONDS = 1.0
"""Seconds for which ``LoopFiles`` keeps what it has read."""
DETACH_SECONDS = 1.0
"""Seconds for which a loop device that detaches itself may outlive its mount, while udev or another program looks at it."""


class LockHolder(NamedTuple):
    """Process that has the image open and locked; ``kind`` is "read" or "write"."""

    pid: int
    command: str
    kind: str


class Mount(NamedTuple):
    """Loop device over the image, and its mount point (None: attached, but not mounted as far as can be seen)."""

    device: str
    path: str | None
    read_only: bool


class ImageUse(NamedTuple):
    """Users of an image at this time. ``lock``: lock held by others; "unsupported": file locking is unavailable.

    ``servers``: processes that serve it by FUSE, if they were looked for; what they do with it is not known. ``place``: of
    whoever holds the lock, without ``holders``: a hidden process of this host, or another node; unknown without /proc/locks.
    """

    lock: LockState
    holders: tuple[LockHolder, ...] = ()
    mounts: tuple[Mount, ...] = ()
    servers: tuple[LockHolder, ...] = ()
    place: Literal["hidden", "other-node", "unknown"] = "unknown"

    @property
    def busy(self) -> bool:
        """True if a process reads or writes it."""
        return self.lock in ("read", "write") or bool(self.mounts) or bool(self.servers)

    @property
    def written(self) -> bool:
        """True if a process may change it at any moment."""
        return self.lock == "write" or any(not mount.read_only for mount in self.mounts)

    def describe(self) -> str:
        """Return the users as one line, as far as they can be seen; empty if it is unused."""
        parts = []
        if self.lock in ("read", "write"):
            parts.append(f"locked for {'writing' if self.lock == 'write' else 'reading'}{self._lock_holder()}")
        for mount in self.mounts:
            place = f"mounted at {show(mount.path)}" if mount.path is not None else f"attached to {mount.device}"
            parts.append(place + (" (read-only)" if mount.read_only else ""))
        if self.servers:
            parts.append("mounted by " + ", ".join(f"process {server.pid} ({server.command})" for server in self.servers))
        return "; ".join(parts)

    def _lock_holder(self) -> str:
        if self.holders:
            who = ", ".join(f"process {holder.pid} ({holder.command})" for holder in self.holders)
            return f" by {who} on {host_name()}"
        if self.place == "hidden":
            return f" by a process on {host_name()} that cannot be seen, such as another user's"
        if self.place == "other-node":
            return f"; no holder on this host ({host_name()}): another node has it"
        return ""


def image_use(path: HostPath, *, span: tuple[int, int] | None = None) -> ImageUse:
    """Return the users of the file at ``path``. Raises OSError if it cannot be opened for reading.

    ``span``: offset and size of a partition in bytes; locks outside it and loop devices with another offset are ignored.
    FUSE servers are not looked for.
    """
    name = os.fsdecode(path)
    fd = os.open(name, os.O_RDONLY | hostio.NO_WAIT)
    try:
        found = os.fstat(fd)
        offset, size = span or (0, 0)
        lock, pid = lock_state(fd, offset=offset, size=size) if stat.S_ISREG(found.st_mode) else ("none", None)
    finally:
        os.close(fd)
    holders: list[LockHolder] = []
    if lock in ("read", "write"):
        if pid is not None:
            holders.append(LockHolder(pid, _command(pid), lock))
        holders += (holder for holder in _lock_holders(name, found, span) if holder.pid != pid)
    place = _place_of_lock(found, span) if lock in ("read", "write") and not holders else "unknown"
    return ImageUse(lock, tuple(holders), _mounts(name, found, span), place=place)


def check_unused(
    path: HostPath,
    *,
    writers_only: bool = False,
    own_lock: bool = False,
    has_readers: bool = False,
    span: tuple[int, int] | None = None,
    shown: str = "",
) -> ImageUse:
    """Return the users of ``path``. Raises ImageInUseError if there are any (with ``writers_only``: that may write).

    Locks, loop devices and FUSE servers count. ``own_lock``: the caller holds the lock, so locks do not count. ``has_readers``:
    others have locked it for reading, as who has it mounted by fuse2fs, which opens it for writing all the same. ``span``: see
    ``image_use``; of FUSE servers those that may write count, since another partition may be the one that is served read-only.
    ``shown``: what to call it in the error.
    """
    name = os.fsdecode(path)

    def check() -> ImageUse:
        if own_lock:
            use = ImageUse("none", (), _mounts(name, os.stat(path), span))
        else:
            use = image_use(path) if span is None else image_use(path, span=span)
        used = use.written if writers_only else use.busy
        servers: tuple[LockHolder, ...] = ()
        if not used and not (has_readers and writers_only):
            servers = _other_servers(os.stat(path), writers_only=writers_only or span is not None)
        if used or servers:
            text = shown or (f"{show(name)} (its overlay)" if span else "")
            raise in_use_error(name, use._replace(servers=servers), shown=text)
        return use

    return retry_in_use(check)


def check_open_unused(fd: int, *, span: tuple[int, int], shown: str) -> None:
    """Raise ImageInUseError if a partition of the open file ``fd`` is in use; locks of ``fd`` itself do not count.

    ``span`` as for ``check_unused``. ``shown``: what to call the partition.
    """
    name = f"/proc/self/fd/{fd}"

    def check() -> None:
        found = os.fstat(fd)
        if lock_state(fd, offset=span[0], size=span[1])[0] in ("read", "write"):
            raise ImageInUseError(f"{shown} is in use by another process", hint=IN_USE_HINT, locked=True, may_pass=True)
        use = ImageUse("none", mounts=_mounts(name, found, span), servers=_other_servers(found, writers_only=True))
        if use.busy:
            raise ImageInUseError(f"{shown} is in use: {use.describe()}", hint=IN_USE_HINT)

    retry_in_use(check)


def directory_use(path: HostPath, found: os.stat_result) -> ImageUse:
    """Return the use of a directory that another process has locked, by flock(2). ``found``: what stat says of it."""
    holders = tuple(_lock_holders(os.fsdecode(path), found, None))
    return ImageUse("write", holders, place="unknown" if holders else _place_of_lock(found, None))


def _other_servers(found: os.stat_result, *, writers_only: bool) -> tuple[LockHolder, ...]:
    """Return the FUSE servers of a file other than this process (``writers_only``: that may write to it)."""
    servers = (server for server in fuse_servers(found) if server.pid != os.getpid())
    return tuple(server for server in servers if server.kind == "write" or not writers_only)


def in_use_error(name: str, use: ImageUse, *, shown: str = "") -> ImageInUseError:
    """Return the error for an image in use. ``shown``: what to call it."""
    return ImageInUseError(
        f"{shown or show(name)} is in use: {use.describe()}",
        path=name,
        hint=IN_USE_HINT,
        holders=tuple(f"{holder.pid} {holder.command}" for holder in (*use.holders, *use.servers)),
        may_pass=not (use.holders or use.mounts or use.servers),
    )


def fuse_servers(wanted: os.stat_result) -> Iterator[LockHolder]:
    """Iterate over the FUSE servers that have the file open: fuse2fs, squashfuse and the like take no lock.

    They are processes with the file and /dev/fuse open, or of FUSE_PROGRAMS. Other users' processes are only visible to root.
    """
    for pid, opened in _open_files():
        if FUSE_DEVICE not in opened.values() and _command(pid) not in FUSE_PROGRAMS:
            continue
        found = [fd for fd in opened if _is_file(pid, fd, wanted)]
        if found:
            yield LockHolder(pid, _command(pid), "write" if any(_is_writable(pid, fd) for fd in found) else "read")


class LoopFiles:
    """Files behind loop devices, read at most once a second: for commands that replace many files."""

    def __init__(self) -> None:
        self._read_at = -LOOP_SECONDS
        self._found: set[tuple[int, int]] = set()

    def holds(self, found: os.stat_result) -> bool:
        """Return True if a loop device is attached to this file."""
        now = time.monotonic()
        if now - self._read_at >= LOOP_SECONDS:
            self._found = set(_loop_identities())
            self._read_at = now
        return bool(self._found) and _identity(found) in self._found


def _loop_identities() -> Iterator[tuple[int, int]]:
    for entry, backing in _loop_devices():
        if (identity := _loop_file(f"/dev/{entry}")) is not None:
            yield identity
            continue
        with suppress(OSError):
            yield _identity(os.stat(backing))


def _loop_devices() -> Iterator[tuple[str, str]]:
    """Iterate over (name, backing file) of the loop devices in use."""
    if sys.platform != "linux":
        return
    with suppress(OSError):
        for entry in sorted(os.listdir("/sys/block")):
            if entry.startswith("loop"):
                with suppress(OSError):
                    yield entry, _line(f"/sys/block/{entry}/loop/backing_file")


def _lock_holders(name: str, wanted: os.stat_result, span: tuple[int, int] | None) -> Iterator[LockHolder]:
    """Iterate over the processes that lock the file (in ``span``), as the kernel lists locks in /proc/PID/fdinfo/FD.

    Other users' processes are only visible to root.
    """
    key = f":{wanted.st_ino} "
    base = os.path.basename(os.path.realpath(name))
    has_names = wanted.st_nlink > 1  # it may be open by another one
    for pid, fds in _processes(lambda text: has_names or os.path.basename(text).removesuffix(" (deleted)") == base):
        kinds = set()
        for fd in fds:
            if not _is_file(pid, fd, wanted):
                continue
            with suppress(OSError), open(f"/proc/{pid}/fdinfo/{fd}", encoding="utf-8", errors="replace") as info:
                locks = [line for line in info.read(65536).splitlines() if line.startswith("lock:") and key in line]
                locks = [line for line in locks if "LEASE" not in line and _overlaps(line, span)]
                kinds |= {"write" if " WRITE " in line else "read" for line in locks}
        if kinds:
            yield LockHolder(pid, _command(pid), "write" if "write" in kinds else "read")


def _place_of_lock(wanted: os.stat_result, span: tuple[int, int] | None) -> Literal["hidden", "other-node", "unknown"]:
    """Return where the holder of a lock is, of which no process can be seen.

    /proc/locks lists the locks that this kernel gave, also those of other users, by inode: device numbers there and of stat
    differ on some filesystems. Locks of other nodes are known to the server of a network filesystem only.
    """
    try:
        with open(LOCKS, encoding="utf-8", errors="replace") as table:
            lines = table.read().splitlines()
    except OSError:
        return "unknown"
    key = f":{wanted.st_ino} "
    lines = [line for line in lines if key in line and " -> " not in line and "LEASE" not in line]
    return "hidden" if any(_overlaps(line, span) for line in lines) else "other-node"


def host_name() -> str:
    """Return the name of this host."""
    return show(os.uname().nodename) if hasattr(os, "uname") else "this host"


def _processes(wanted: Callable[[str], bool]) -> Iterator[tuple[int, list[int]]]:
    """Iterate over the processes with open files whose paths are wanted, and these descriptors of them."""
    for pid, opened in _open_files():
        fds = [fd for fd, path in opened.items() if wanted(path)]
        if fds:
            yield pid, fds


def _open_files() -> Iterator[tuple[int, dict[int, str]]]:
    """Iterate over processes and the paths of their open files, by descriptor; over those of other users only as root."""
    if sys.platform != "linux":
        return
    examined = 0
    for pid in _numbers("/proc"):
        try:
            os.readlink(f"/proc/{pid}/exe")
        except OSError:  # its files cannot be seen either, or it is a thread of the kernel: large hosts have thousands
            continue
        opened = {}
        for fd in _numbers(f"/proc/{pid}/fd"):
            examined += 1
            if examined > MAX_DESCRIPTORS:
                return
            with suppress(OSError, UnicodeError):
                opened[fd] = os.readlink(f"/proc/{pid}/fd/{fd}")
        yield pid, opened


def _is_file(pid: int, fd: int, wanted: os.stat_result) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), wanted)
    return False


def _is_writable(pid: int, fd: int) -> bool:
    """Return True if the process may write through this descriptor."""
    with suppress(OSError), open(f"/proc/{pid}/fdinfo/{fd}", encoding="utf-8", errors="replace") as info:
        for line in info.read(4096).splitlines():
            if line.startswith("flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _overlaps(line: str, span: tuple[int, int] | None) -> bool:
    """Return True if a lock, as the kernel prints it ("... WRITE -1 00:29:1234 0 EOF", end inclusive), overlaps the span."""
    if span is None:
        return True
    first, last = line.split()[-2:]
    return int(first) < sum(span) and (last == "EOF" or int(last) >= span[0])


def _mounts(name: str, wanted: os.stat_result, span: tuple[int, int] | None) -> tuple[Mount, ...]:
    """Return the loop devices backed by the file and their mount points in all visible mount namespaces.

    With ``span`` only devices with its offset count: that of another partition may reach to the end of the file. Devices that
    are mounted nowhere and detach themselves get DETACH_SECONDS to do so.
    """
    deadline = time.monotonic() + DETACH_SECONDS
    while True:
        mounts = tuple(_loop_mounts(name, wanted, span))
        detaching = bool(mounts) and all(mount.path is None and _detaches_itself(mount.device) for mount in mounts)
        if not detaching or time.monotonic() >= deadline:
            return mounts
        time.sleep(0.02)


def _detaches_itself(device: str) -> bool:
    """Return True if a loop device is detached at its last close; also if it is gone."""
    try:
        return _line(f"/sys/block/{os.path.basename(device)}/loop/autoclear") == "1"
    except OSError:
        return True


def _loop_mounts(name: str, wanted: os.stat_result, span: tuple[int, int] | None) -> Iterator[Mount]:
    loops: dict[str, tuple[str, bool]] = {}
    for entry, backing in _loop_devices():
        with suppress(OSError):
            if span is not None and _line(f"/sys/block/{entry}/loop/offset") != str(span[0]):
                continue
            identity = _loop_file(f"/dev/{entry}")
            if _same_file(backing, name, wanted) if identity is None else identity == _identity(wanted):
                device = _line(f"/sys/block/{entry}/dev")
                loops[device] = (f"/dev/{entry}", _line(f"/sys/block/{entry}/ro") == "1")
    mount_points: dict[str, set[tuple[str, bool]]] = {device: set() for device in loops}
    if loops:
        for device, path, read_only in _mount_table():
            if device in mount_points:
                mount_points[device].add((path, read_only))
    for device, (node, read_only) in loops.items():
        if not mount_points[device]:
            yield Mount(node, None, read_only)
        for path, mount_read_only in sorted(mount_points[device]):
            yield Mount(node, path, read_only or mount_read_only)


def _mount_table() -> Iterator[tuple[str, str, bool]]:
    """Iterate over (major:minor, mount point, read-only) of every mount in every visible mount namespace."""
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
    """Return True if the path of a file behind a loop device leads to this file, as far as paths tell; see ``_loop_file``."""
    if backing == os.path.realpath(name):
        return True
    if os.path.basename(backing.removesuffix(" (deleted)")) != os.path.basename(os.path.realpath(name)):
        return False
    with suppress(OSError):
        return os.path.samestat(os.stat(backing), wanted)
    return False


def _loop_file(device: str) -> tuple[int, int] | None:
    """Return (device number, inode) of the file behind a loop device, None without permission to open the device.

    A path in /sys is only valid in the mount namespace where the file was opened.
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
    """Return what ``_loop_file`` returns for this file: the device number in the encoding of loop_info64."""
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
