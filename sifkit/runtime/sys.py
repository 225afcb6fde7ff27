"""System calls of Linux that the standard library does not have: mounts, namespaces, loop devices, process attributes.

Each raises OSError whose ``filename`` says what was tried. The standard library has ``unshare`` and ``setns`` since Python
3.12.
Sources: mount(2), umount2(2), pivot_root(2), unshare(2), setns(2), prctl(2), seccomp(2), keyctl(2), loop(4), proc(5),
user_namespaces(7); Linux ``include/uapi/linux/loop.h``, ``include/uapi/linux/if.h``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

__all__ = [
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "MNT_DETACH",
    "MS_BIND",
    "MS_MOVE",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_REMOUNT",
    "MS_SLAVE",
    "MS_UNBINDABLE",
    "StartMemory",
    "attach_loop",
    "bind",
    "bind_flags",
    "clear_dumpable",
    "drop_capabilities",
    "filesystem_magic",
    "fork",
    "join_new_keyring",
    "mount",
    "name_process",
    "pivot_root",
    "keep_exit_codes",
    "set_hostname",
    "set_interface_up",
    "set_no_new_privileges",
    "set_parent_death_signal",
    "set_seccomp_filter",
    "setns",
    "start_memory",
    "syncfs",
    "umount",
    "unshare",
    "write_id_maps",
    "write_memory",
]

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_MOVE, MS_REC = 32, 1024, 2048, 4096, 8192, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_RELATIME = 1 << 17, 1 << 18, 1 << 19, 1 << 21
MNT_DETACH = 2

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x0002_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000
CLONE_NEWPID, CLONE_NEWNET = 0x2000_0000, 0x4000_0000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 15, 22, 24, 38
MOST_CAPABILITIES = 64
_capability_header, _capability_sets = struct.Struct("=Ii"), bytes(24)
CAPABILITY_VERSION_3 = 0x2008_0522

START_FIELDS = slice(45, 49)
"""Fields arg_start, arg_end, env_start and env_end of /proc/PID/stat, counted from the one after the command's name."""

PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217, "armv7l": 218, "i686": 217}
"""Number of the system call, which the C library does not wrap, by machine."""
NARROW = {"aarch64": "armv7l", "armv8l": "armv7l", "armv6l": "armv7l", "x86_64": "i686", "i586": "i686"}
"""Machine whose system calls a program of 32 bits makes."""
SECCOMP = {"x86_64": 317, "aarch64": 277, "riscv64": 277, "ppc64le": 358, "s390x": 348, "armv7l": 383, "i686": 354}
"""The same of seccomp(2)."""
KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280, "armv7l": 311, "i686": 288}
"""The same of keyctl(2)."""
KEYCTL_JOIN_SESSION_KEYRING = 1
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1, 4
SECCOMP_MODE_FILTER = 2
BPF_INSTRUCTION_BYTES = 8

STATFS_BYTES = 256
"""More than a struct statfs has, whose first member is f_type."""

LOOP_CONTROL = "/dev/loop-control"
LOOP_MAJOR = 7
LOOP_SET_FD, LOOP_CLR_FD, LOOP_SET_STATUS64, LOOP_CONFIGURE, LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C04, 0x4C0A, 0x4C82
LO_FLAGS_READ_ONLY, LO_FLAGS_AUTOCLEAR = 1, 4
LOOP_ATTEMPTS = 64
"""Free devices asked for at most: another process may take each of them first."""
LOOP_PAUSE = 0.01
"""Seconds between attempts to set up a device that is in use at that moment."""
_loop_info = struct.Struct("<5Q4I64s64s32s2Q")
_loop_config_head, LOOP_CONFIG_RESERVED = struct.Struct("<II"), bytes(64)

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
_ifreq_flags = struct.Struct("<16sh22x")
"""struct ifreq of netdevice(7): name and flags."""

_STATVFS_FLAGS = {
    1: MS_RDONLY,
    2: MS_NOSUID,
    4: MS_NODEV,
    8: MS_NOEXEC,
    1024: MS_NOATIME,
    2048: MS_NODIRATIME,
    4096: MS_RELATIME,
}
"""Flags of statvfs(3), and what mount(2) calls them."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, tried: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), tried)


def _encoded(text: str | bytes | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(
    source: str | bytes | None, target: str | bytes, kind: str | None = None, flags: int = 0, options: str | bytes | None = None
) -> None:
    """Mount a filesystem of this ``kind``, or change a mount, according to ``flags``. ``options``: of the filesystem."""
    what = kind or ("bind" if flags & MS_BIND else f"flags {flags:#x}")
    tried = f"mount {what} {os.fsdecode(source or '-')} at {os.fsdecode(target)}"
    found = _libc.mount(_encoded(source), os.fsencode(target), _encoded(kind), ctypes.c_ulong(flags), _encoded(options))
    _check(found, f"{tried} ({os.fsdecode(options)})" if options else tried)


def umount(target: str | bytes, flags: int = 0) -> None:
    """Remove a mount. ``flags``: MNT_DETACH leaves it to those who use it."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {os.fsdecode(target)}")


def syncfs(fd: int) -> None:
    """Bring a filesystem to storage, which has the open file ``fd``. Raises also what failed before, since it was opened."""
    _check(_libc.syncfs(fd), "syncfs")


def bind_flags(target: str | bytes) -> int:
    """Return the flags of a mount that a remount must repeat: in a user namespace those of the host are locked."""
    found = os.statvfs(target).f_flag
    return sum(flag for bit, flag in _STATVFS_FLAGS.items() if found & bit)


def bind(source: str | bytes, target: str | bytes, *, flags: int = 0, recursive: bool = False) -> None:
    """Mount a file or directory at another path. ``flags``: such as MS_RDONLY, for this mount alone, not those below it."""
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))
    if flags:
        mount(None, target, None, MS_BIND | MS_REMOUNT | flags | bind_flags(target))


def pivot_root(new_root: str | bytes, put_old: str | bytes) -> None:
    """Make ``new_root`` the root directory, and mount the old one at ``put_old``."""
    number = _system_call("pivot_root", PIVOT_ROOT)
    _check(_libc.syscall(ctypes.c_long(number), os.fsencode(new_root), os.fsencode(put_old)), "pivot_root")


def _system_call(name: str, numbers: Mapping[str, int]) -> int:
    """Return the number of a system call on this machine. Raises OSError (ENOSYS) if it is not known."""
    machine = os.uname().machine
    if struct.calcsize("P") == 4:  # a program of 32 bits; the kernel may have 64
        machine = NARROW.get(machine, machine)
    number = numbers.get(machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), f"{name} on {machine}")
    return number


def join_new_keyring() -> None:
    """Give this process an empty session keyring, instead of the one with keys of its session, such as Kerberos tickets."""
    number, operation = _system_call("keyctl", KEYCTL), ctypes.c_long(KEYCTL_JOIN_SESSION_KEYRING)
    if _libc.syscall(ctypes.c_long(number), operation, None) < 0:
        _check(-1, "keyctl")


def fork() -> int:
    """Fork this process, as ``os.fork`` does."""
    try:
        return os.fork()
    except BlockingIOError as error:
        raise OSError(error.errno, "too many processes; see ulimit -u and the limits of your job", "fork") from None


def unshare(flags: int) -> None:
    """Move this process into new namespaces. CLONE_NEWUSER needs a process with a single thread."""
    tried = f"unshare {flags:#x}"
    if (result := _libc.unshare(flags)) != 0 and ctypes.get_errno() == errno.ENOSPC:
        raise OSError(errno.ENOSPC, "too many namespaces; see /proc/sys/user/max_*_namespaces", tried)
    _check(result, tried)


def setns(fd: int, flags: int = 0) -> None:
    """Move this process into the namespace that ``fd`` is open on."""
    _check(_libc.setns(fd, flags), f"setns {flags:#x}")


def filesystem_magic(path: str) -> int:
    """Return the number of the kind of filesystem that ``path`` lies on: f_type of statfs(2), see linux/magic.h."""
    found = ctypes.create_string_buffer(STATFS_BYTES)
    _check(_libc.statfs(os.fsencode(path), found), f"statfs {path}")
    width = 4 if os.uname().machine in ("s390", "s390x") else ctypes.sizeof(ctypes.c_long)
    return int.from_bytes(found.raw[:width], sys.byteorder) & 0xFFFF_FFFF


def set_hostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    raw = os.fsencode(name)
    _check(_libc.sethostname(raw, ctypes.c_size_t(len(raw))), "sethostname")


def set_interface_up(name: str) -> None:
    """Switch a network interface of this network namespace on, with the addresses that it has."""
    import socket  # costs time at the start, which only runs without a network have

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        found = fcntl.ioctl(handle, SIOCGIFFLAGS, _ifreq_flags.pack(name.encode(), 0))
        flags = _ifreq_flags.unpack(found)[1] | IFF_UP
        fcntl.ioctl(handle, SIOCSIFFLAGS, _ifreq_flags.pack(name.encode(), flags))


def set_parent_death_signal(number: int = signal.SIGKILL) -> None:
    """Let the kernel send a signal to this process when the thread that forked it ends. A fork does not inherit this."""
    _prctl(PR_SET_PDEATHSIG, int(number), "PDEATHSIG")


def keep_exit_codes() -> None:
    """Have the kernel keep the exit codes of children, also if this process was started with SIGCHLD ignored."""
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def clear_dumpable() -> None:
    """Keep root of a user namespace from tracing this process: from its memory, and from what /proc has of it.

    A process that was executed before the namespace was made belongs to the namespace outside.
    """
    _prctl(PR_SET_DUMPABLE, 0, "DUMPABLE")


def set_no_new_privileges() -> None:
    """Take from set-id files and file capabilities their effect, for this process and all that it starts."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1, "NO_NEW_PRIVS")


def drop_capabilities() -> None:
    """Take all capabilities from this process and from all that it starts, root or not."""
    for number in range(MOST_CAPABILITIES):
        try:
            _prctl(PR_CAPBSET_DROP, number, "CAPBSET_DROP")
        except OSError as error:
            if error.errno == errno.EINVAL:  # past the last one
                break
            raise
    _check(_libc.capset(_capability_header.pack(CAPABILITY_VERSION_3, 0), _capability_sets), "capset")


def _prctl(option: int, value: int, name: str) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), f"prctl {name}")


class StartMemory(NamedTuple):
    """Memory with the words and the variables that this process was started with: address and size in bytes.

    The kernel shows them from there in /proc, also of a process that was forked and is another program for whoever looks.
    """

    words: tuple[int, int]
    variables: tuple[int, int]


def start_memory() -> StartMemory:
    """Return where words and variables are. Raises OSError without /proc."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()[START_FIELDS]
    words, words_end, variables, variables_end = (int(field) for field in fields)
    return StartMemory((words, words_end - words), (variables, variables_end - variables))


def name_process(name: str, place: tuple[int, int], words: bytes = b"") -> None:
    """Show this process as ``name``, of at most 15 bytes, with ``words`` after it, each ended by NUL, as far as there is room.

    ``place``: where the words are that it was started with.
    """
    raw = ctypes.create_string_buffer(name.encode())
    _prctl(PR_SET_NAME, ctypes.addressof(raw), "NAME")
    address, size = place
    if size:
        shown = (name.encode() + b"\0" + words)[: size - 1]  # without a NUL at the end the kernel would show variables, too
        write_memory(address, shown.ljust(size, b"\0"))


def write_memory(address: int, data: bytes) -> None:
    """Overwrite memory of this process. The address must be right."""
    ctypes.memmove(address, data, len(data))


def set_seccomp_filter(program: bytes) -> None:
    """Let a BPF program decide on the system calls of this process and all that it starts. Needs no_new_privileges.

    It protects from nothing, so that the kernel need not slow the process down against speculation (Linux 4.17 to 5.15).
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    fprog = _SockFprog(len(program) // BPF_INSTRUCTION_BYTES, ctypes.addressof(instructions))
    number = SECCOMP.get(os.uname().machine)
    if number is not None:
        arguments = ctypes.c_ulong(SECCOMP_SET_MODE_FILTER), ctypes.c_ulong(SECCOMP_FILTER_FLAG_SPEC_ALLOW)
        if _libc.syscall(ctypes.c_long(number), *arguments, ctypes.byref(fprog)) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):  # older kernels have no such flag
            _check(-1, "seccomp filter")
    zero = ctypes.c_ulong(0)
    mode = ctypes.c_ulong(SECCOMP_MODE_FILTER)
    _check(_libc.prctl(PR_SET_SECCOMP, mode, ctypes.byref(fprog), zero, zero), "prctl SECCOMP")


class _SockFprog(ctypes.Structure):
    """``struct sock_fprog``: number of instructions, and where they are."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def write_id_maps(uid: int, gid: int, *, inner_uid: int, inner_gid: int) -> None:
    """Map one user and one group of the host into the user namespace that this process has just made."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inner_uid} {uid} 1"),
        ("gid_map", f"{inner_gid} {gid} 1"),
    ):
        path = f"/proc/self/{name}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error


def attach_loop(fd: int, *, offset: int = 0, size: int = 0, read_only: bool = False) -> tuple[int, str]:
    """Attach bytes of the open file ``fd`` to a free loop device; return the device's descriptor and path.

    ``size``: 0 is to the end. The device frees itself when its last user ends: keep the descriptor open until it is mounted.
    """
    control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(LOOP_ATTEMPTS):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            path = f"/dev/loop{number}"
            if not os.path.exists(path):  # a container's /dev may not have it yet
                os.mknod(path, 0o60600, os.makedev(LOOP_MAJOR, number))
            device = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
            try:
                _configure(device, fd, offset, size, read_only)
            except OSError as error:
                os.close(device)
                if error.errno == errno.EBUSY:  # taken by another process meanwhile
                    continue
                raise OSError(error.errno, error.strerror, f"attach {path}") from error
            return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device", LOOP_CONTROL)


def _configure(device: int, fd: int, offset: int, size: int, read_only: bool) -> None:
    """Set file, offset and size of a loop device: in one call, or two before Linux 5.8."""
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if read_only else 0)
    info = _loop_info.pack(0, 0, 0, offset, size, 0, 0, 0, flags, b"sifkit", b"", b"", 0, 0)
    try:
        fcntl.ioctl(device, LOOP_CONFIGURE, _loop_config_head.pack(fd, 0) + info + LOOP_CONFIG_RESERVED)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
        _configure_in_steps(device, fd, info)


def _configure_in_steps(device: int, fd: int, info: bytes) -> None:
    fcntl.ioctl(device, LOOP_SET_FD, fd)
    for attempt in range(LOOP_ATTEMPTS):
        try:
            fcntl.ioctl(device, LOOP_SET_STATUS64, info)
        except OSError as error:
            if error.errno == errno.EAGAIN and attempt < LOOP_ATTEMPTS - 1:  # udev reads the device
                time.sleep(LOOP_PAUSE)
                continue
            fcntl.ioctl(device, LOOP_CLR_FD, 0)
            raise
        return
