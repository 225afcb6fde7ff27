"""Probe of the host: what it allows for running containers, tried and not guessed, each with the reason if it does not work.

What needs a namespace is tried in a forked process, in mounts of its own, and never with files of the user.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

from .. import sys

if TYPE_CHECKING:
    from ..fuse.server import Server

__all__ = ["PLACES", "Host", "HostFact", "Report", "failure", "probe", "run_probe", "tried"]

INITIAL_USER_NAMESPACE = 0xEFFF_FFFD
"""Inode in /proc of the user namespace that the system starts with: PROC_USER_INIT_INO of Linux."""
PLACES = ("/mnt", "/srv", "/media", "/sys")
"""Directories to mount on for a try, which needs none of them: the first that exists."""
LOOP_CONTROL, FUSE_DEVICE = "/dev/loop-control", "/dev/fuse"
REPORT_BYTES = 65_536
CAP_SYS_ADMIN = 1 << 21

_SYSCTL = "/proc/sys/"
_RESTRICTIONS = (
    ("user/max_user_namespaces", "0", "user namespaces are switched off", "sysctl user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "user namespaces are for root only", "sysctl kernel.unprivileged_userns_clone=1"),
)
"""Settings that forbid user namespaces: file, value, what it means, and what to ask the administrator for."""
_APPARMOR = "kernel/apparmor_restrict_unprivileged_userns"
_APPARMOR_REASON = "AppArmor allows user namespaces only to programs with a profile for them"
_APPARMOR_REQUEST = (
    "an AppArmor profile of a sifkit that root has installed: "
    "abi <abi/4.0>, profile sifkit /opt/sifkit/bin/sifkit flags=(unconfined) { userns, }"
)
"""AppArmor finds the profile of a script by the path of the script, not of its interpreter."""


class HostFact(NamedTuple):
    """Capability of the host: it ``works``, the ``reason`` if not and the ``request`` for the administrator (may be empty)."""

    works: bool
    reason: str = ""
    request: str = ""


Report = dict[str, HostFact]


class Host:
    """Facts of this host for this user. Each is found out when it is first asked for.

    ``writes``: writable layers will be asked for; all is tried in one process then. ``fuse``: images will have to be served,
    not directories alone, for which FUSE is not tried unless it is asked for.
    """

    def __init__(self, *, writes: bool = True, fuse: bool = True) -> None:
        self._writes = writes
        self._fuse = fuse

    @property
    def is_root(self) -> bool:
        return os.geteuid() == 0

    @cached_property
    def loop(self) -> HostFact:
        """Loop devices, by which root mounts images. Not tried here, but in ``root_probe``."""
        if not self.is_root:
            return HostFact(False, "loop devices are for root only")
        if not _is_initial_user_namespace():
            return HostFact(False, "root of a user namespace mounts no images")
        if not _may_mount():
            return HostFact(False, "root may not mount here", "the capability SYS_ADMIN, as of docker run --privileged")
        try:
            os.close(os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return HostFact(False, f"{LOOP_CONTROL}: {error.strerror}", "modprobe loop")
        return HostFact(True)

    @property
    def user_namespace(self) -> HostFact:
        return self._user_facts["user_namespace"]

    @property
    def user_mount(self) -> HostFact:
        """Mounts in a user namespace."""
        return self._user_facts["user_mount"]

    @property
    def fuse(self) -> HostFact:
        """Mounts of FUSE in a user namespace."""
        return (self._user_facts if self._fuse else self._writing_facts)["fuse"]

    @property
    def overlay(self) -> HostFact:
        """Writable mounts of overlayfs in a user namespace."""
        return (self._writing_facts if self._fuse else self._user_facts)["overlay"]

    @property
    def fuse_upper(self) -> HostFact:
        """Overlayfs with both layers served by FUSE, with files of the lower one modified, renamed and removed."""
        return self._writing_facts["fuse_upper"]

    @property
    def fuse_tmpfile(self) -> HostFact:
        """Files without a name (O_TMPFILE) in overlayfs with its upper layer served by FUSE."""
        return self._writing_facts["fuse_tmpfile"]

    @property
    def tmpfs_upper(self) -> HostFact:
        """Overlayfs with its upper layer in memory, with a removed directory of the lower layer made again."""
        return (self._writing_facts if self._fuse else self._user_facts)["tmpfs_upper"]

    @cached_property
    def _user_facts(self) -> dict[str, HostFact]:
        if not self._fuse:
            return _probe_user(writes=True, fuse=False)
        return self._writing_facts if self._writes else _probe_user(writes=False)

    @cached_property
    def _writing_facts(self) -> dict[str, HostFact]:
        return _probe_user(writes=True)


def probe(*, writes: bool = True, fuse: bool = True) -> Host:
    """Return the facts of this host; see ``Host``."""
    return Host(writes=writes, fuse=fuse)


def _probe_user(*, writes: bool, fuse: bool = True) -> dict[str, HostFact]:
    """Find out what this user may do in a user namespace."""
    if fuse:
        from ..fuse import mounting  # here, since the run needs it as well: a forked process would load it for itself

        del mounting
    if writes and fuse:
        from ...vfs import host_tree
        from ..fuse import tree_backend, writable_server

        del host_tree, tree_backend, writable_server
    names = ("user_namespace", "user_mount", *(("fuse",) if fuse else ()))
    names += ("overlay", "tmpfs_upper", *(("fuse_upper", "fuse_tmpfile") if fuse else ())) if writes else ()
    return run_probe(partial(_try_all, writes=writes, fuse=fuse), names)


def run_probe(attempt: Callable[[Report], None], names: tuple[str, ...]) -> dict[str, HostFact]:
    """Run ``attempt`` in a forked process; return what it reports. Names without a report depend on one that failed."""
    sys.keep_exit_codes()
    report, answer = os.pipe2(os.O_CLOEXEC)
    pid = sys.fork()
    if pid == 0:
        found: Report = {}
        try:
            os.close(report)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)  # the process ends with all it has mounted, wherever it is
            sys.set_parent_death_signal()
            attempt(found)
        except Exception as error:  # noqa: BLE001 - a fact like others: it does not work
            missing = next((name for name in names if name not in found), names[-1])
            found[missing] = failure(error, "")
        finally:
            with suppress(OSError):
                os.write(answer, "\n".join(_packed(name, fact) for name, fact in found.items()).encode())
            os._exit(0)
    os.close(answer)
    with open(report, "rb") as file:
        raw = file.read(REPORT_BYTES)
    os.waitpid(pid, 0)
    lines = [line.split("\0") for line in raw.decode().split("\n") if line]
    facts = {name: HostFact(works == "yes", reason, request) for name, works, reason, request in lines}
    last = HostFact(False, "the probe has ended without an answer")
    for name in names:
        last = facts.setdefault(name, HostFact(False, last.reason, last.request))
    return facts


def _packed(name: str, fact: HostFact) -> str:
    reason, request = (text.encode("utf-8", "replace").decode().replace("\n", " ") for text in (fact.reason, fact.request))
    return "\0".join([name, "yes" if fact.works else "no", reason, request])


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    sys.unshare(sys.CLONE_NEWUSER | sys.CLONE_NEWNS)
    sys.write_id_maps(uid, gid, inner_uid=0, inner_gid=0)
    sys.set_parent_death_signal()  # new capabilities have cleared it


def _try_all(found: Report, *, writes: bool, fuse: bool) -> None:
    try:
        _enter_user_namespace()
    except OSError as error:
        found["user_namespace"] = HostFact(False, *_why_no_namespace(error))
        return
    found["user_namespace"] = HostFact(True)
    place = next(filter(os.path.isdir, PLACES))
    try:
        sys.mount(None, "/", None, sys.MS_REC | sys.MS_SLAVE)
        sys.mount("sifkit", place, "tmpfs", sys.MS_NOSUID | sys.MS_NODEV, "mode=755,size=1m")
    except OSError as error:
        found["user_mount"] = HostFact(False, *_why_no_mount(error))
        return
    found["user_mount"] = HostFact(True)
    if fuse:
        point = f"{place}/fuse"
        os.mkdir(point)
        found["fuse"] = tried(partial(_try_fuse, point), _fuse_request())
    if not writes:
        return
    for name in ("low", "low/directory", "all"):
        os.mkdir(f"{place}/{name}")
    with open(f"{place}/low/file", "xb") as file:
        file.write(b"lower\n")
    if _has_user_xattrs(place):
        found["tmpfs_upper"] = HostFact(True)
    else:
        found["tmpfs_upper"] = HostFact(False, "tmpfs has no xattrs of users before Linux 6.6", "Linux 6.6 or later")
    if fuse and found["fuse"].works:
        try:
            found["fuse_tmpfile"] = _try_overlay_on_fuse(place, has_tmpfile=True)
            found["fuse_upper"] = HostFact(True)
        except OSError as error:
            found["fuse_tmpfile"] = failure(error, "")
            found["fuse_upper"] = tried(partial(_try_overlay_on_fuse, place, has_tmpfile=False), "a newer kernel")
        if found["fuse_upper"].works:  # with layers of any other kind it works, too
            found["overlay"] = HostFact(True)
            return
    elif fuse:
        found["fuse_upper"] = found["fuse_tmpfile"] = HostFact(False, found["fuse"].reason)
    found["overlay"] = tried(partial(_change_lower_files, f"{place}/low", place, "direct"), "Linux 5.11 or later")
    if not found["overlay"].works:
        found["tmpfs_upper"] = HostFact(False, found["overlay"].reason)
        if fuse:
            found["fuse_upper"] = found["fuse_tmpfile"] = found["tmpfs_upper"]


def tried(attempt: Callable[[], object], request: str) -> HostFact:
    """Return whether ``attempt`` works; ``request``: what to ask for if it raises OSError."""
    try:
        attempt()
    except OSError as error:
        return failure(error, request)
    return HostFact(True)


def failure(error: Exception, request: str) -> HostFact:
    """Return the fact that something does not work, and why."""
    if not isinstance(error, OSError):
        return HostFact(False, repr(error), request)
    text = error.strerror or str(error)
    return HostFact(False, f"{error.filename}: {text}" if error.filename else text, request)


def _try_fuse(point: str) -> None:
    from ..fuse.mounting import mount_fuse

    os.close(mount_fuse(point, name="sifkit-probe", read_only=True))
    sys.umount(point, sys.MNT_DETACH)


def _fuse_request() -> str:
    """Return what to ask for if FUSE cannot be mounted."""
    from ..kernel_filesystems import is_loaded

    if not os.path.exists(FUSE_DEVICE) and is_loaded("fuse"):
        return f"{FUSE_DEVICE}, which this host has: in a container, start that with -B {FUSE_DEVICE} or --device {FUSE_DEVICE}"
    return f"chmod 666 {FUSE_DEVICE}, or modprobe fuse"


def _change_lower_files(lower: str, place: str, name: str) -> HostFact:
    """Mount overlayfs, and modify, rename and remove what is in its lower layer; return whether it has O_TMPFILE.

    Raises OSError. ``name``: a new directory for the upper layer. On a filesystem without xattrs no directory is made where one
    was removed: that needs a mark, which the layers of users have where they can.
    """
    point, upper = f"{place}/all", f"{place}/{name}"
    if not os.path.isdir(upper):
        os.mkdir(upper)
    for path in (f"{upper}/up", f"{upper}/work"):
        os.mkdir(path)
    options = f"lowerdir={lower},upperdir={upper}/up,workdir={upper}/work,userxattr"
    sys.mount("overlay", point, "overlay", 0, options)
    try:
        with open(f"{point}/file", "ab") as file:
            file.write(b"more\n")
        # a modified file was made without a name where the upper layer can do that; on FUSE it is stale then when it is looked
        # up again, as here, before the change "ovl: use linked upper dentry in copy-up tmpfile" (Linux 7.2, 6.18.44)
        with suppress(FileExistsError):
            os.close(os.open(f"{point}/file", os.O_CREAT | os.O_EXCL))
        os.rename(f"{point}/file", f"{point}/renamed")
        with open(f"{point}/renamed", "rb") as file:
            if file.read() != b"lower\nmore\n":
                raise OSError(errno.EIO, "a changed file has other content", point)
        os.unlink(f"{point}/renamed")
        os.rmdir(f"{point}/directory")
        left = []
        if _has_user_xattrs(upper):
            os.mkdir(f"{point}/directory")
            left = ["directory"]
        if os.listdir(point) != left:
            raise OSError(errno.EIO, "removed files are still there", point)
        return tried(lambda: os.close(os.open(point, os.O_TMPFILE | os.O_WRONLY)), "")
    finally:
        sys.umount(point, sys.MNT_DETACH)


def _has_user_xattrs(directory: str) -> bool:
    try:
        os.setxattr(directory, "user.sifkit", b"")
    except OSError:
        return False
    return True


def _try_overlay_on_fuse(place: str, *, has_tmpfile: bool) -> HostFact:
    """Try overlayfs with both layers served by FUSE, as those of a plain user with an overlay image are. Raises OSError.

    ``has_tmpfile``: the upper layer has files without a name. Return whether overlayfs has them.
    """
    from ...vfs.host_tree import HostTree
    from ..fuse.memory_backend import MemoryBackend
    from ..fuse.server import Server
    from ..fuse.tree_backend import TreeBackend
    from ..fuse.writable_server import WritableServer

    with (
        _served(f"{place}/fuse", lambda fd: Server(fd, TreeBackend(HostTree(f"{place}/low"))), read_only=True) as lower,
        _served(
            f"{place}/upper", lambda fd: WritableServer(fd, MemoryBackend((0, 0), has_tmpfile=has_tmpfile)), read_only=False
        ),
    ):
        return _change_lower_files(lower, place, "upper")


@contextmanager
def _served(point: str, make: Callable[[int], Server], *, read_only: bool) -> Iterator[str]:
    """Serve a mount in a forked process during the ``with`` block; give the directory."""
    from ..fuse.mounting import mount_fuse, serve_in_child

    os.makedirs(point, exist_ok=True)
    fd = mount_fuse(point, name="sifkit-probe", read_only=read_only)
    try:
        server = serve_in_child(lambda: make(fd), before=sys.set_parent_death_signal)
    except OSError:
        sys.umount(point, sys.MNT_DETACH)  # the next try is to fail for its own reason
        raise
    finally:
        os.close(fd)  # held here, it would let the mount wait for ever for a server that has died
    try:
        yield point
    finally:
        sys.umount(point, sys.MNT_DETACH)
        server.wait()


def _why_no_namespace(error: OSError) -> tuple[str, str]:
    for name, value, reason, request in _RESTRICTIONS:
        if _setting(name) == value:
            return reason, request
    if _is_by_apparmor(error):  # the namespace is made, and nobody can be mapped into it
        return _APPARMOR_REASON, _APPARMOR_REQUEST
    return f"{error.filename}: {error.strerror}", "user namespaces for plain users"


def _why_no_mount(error: OSError) -> tuple[str, str]:
    if _is_by_apparmor(error):
        return _APPARMOR_REASON, _APPARMOR_REQUEST
    return f"{error.filename}: {error.strerror}", "mounts in user namespaces (a container around this one may forbid them)"


def _is_by_apparmor(error: OSError) -> bool:
    return error.errno in (errno.EACCES, errno.EPERM) and _setting(_APPARMOR) == "1"


def _is_initial_user_namespace() -> bool:
    try:
        return os.stat("/proc/self/ns/user").st_ino == INITIAL_USER_NAMESPACE
    except OSError:
        return True  # the mount will tell


def _may_mount() -> bool:
    """Return True if this process has the capability for mounts, which root in a container lacks."""
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
            line = next(line for line in file if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return True  # the mount will tell
    return bool(int(line.partition(":")[2], 16) & CAP_SYS_ADMIN)


def _setting(name: str) -> str:
    try:
        with open(_SYSCTL + name, encoding="utf-8") as file:
            return file.read(64).strip()
    except OSError:
        return ""
