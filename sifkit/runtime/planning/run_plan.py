"""Plan of a run: layers, mounts, command and environment of a container, ready to be carried out. Pure data.

The values of a run are named tuples: sixty dataclasses would take 30 ms of each start to make.

Paths are text as ``os.fsdecode`` gives it; those of the host are absolute. ``plan.plan_run`` makes the plan, ``launch`` carries
it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

__all__ = [
    "Account",
    "Command",
    "ContainerEnvironment",
    "DataImage",
    "Layer",
    "LayerKind",
    "NO_VARIABLES",
    "Mount",
    "MountKind",
    "Namespace",
    "RunPlan",
    "Start",
    "Upper",
    "Way",
]

Way = Literal["root", "user", "view", "unpacked", "directory"]
"""Way in which the root of the container is made.

"root": loop devices and mounts of the kernel. "user": FUSE servers in a user namespace, joined by the kernel's overlayfs.
"view": one FUSE server of all layers, read-only. "unpacked": images unpacked into a cache, without FUSE. "directory": a
directory of the host alone, in a user namespace.
"""
LayerKind = Literal["squashfs", "ext3", "directory"]
MountKind = Literal["bind", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "symlink"]
Namespace = Literal["user", "pid", "ipc", "uts", "net"]
NO_VARIABLES: Mapping[str, str] = {}


class Layer(NamedTuple):
    """Layer of the root: a directory ``subdirectory`` (empty: the whole) of a filesystem or of a directory of the host.

    ``offset``, ``size``: window of the filesystem in the file, in bytes; ``size`` None: up to its end. ``object_id``: its
    object in a SIF. ``has_marks``: its filesystem may hold marks of overlayfs: it is an overlay, not the root. ``has_mounts``:
    other filesystems are mounted in the directory. ``is_foreign``: a directory of another user, whose files nobody else may
    change copies of, unless they are shown as his.
    """

    path: str
    kind: LayerKind
    offset: int = 0
    size: int | None = None
    object_id: int | None = None
    subdirectory: str = ""
    has_marks: bool = False
    has_mounts: bool = False
    is_foreign: bool = False

    @property
    def name(self) -> str:
        """Name for messages."""
        return self.path if self.object_id is None else f"{self.path}, object {self.object_id}"


class Upper(NamedTuple):
    """Layer that is written to.

    "image": an ext3 filesystem, whose ``upper`` and ``work`` are made if they are missing; "directory": of the host, likewise;
    "tmpfs": memory of at most ``size`` bytes. ``offset``, ``size``, ``object_id`` of an image: as in ``Layer``.
    ``upper``, ``work``: names below ``path``; both are empty for a data image, which is no layer: it is bound from.
    ``has_tmpfile``: overlayfs can make files without a name there (O_TMPFILE), which matters where FUSE serves an image.
    """

    kind: Literal["image", "directory", "tmpfs"]
    path: str = ""
    offset: int = 0
    size: int | None = None
    object_id: int | None = None
    upper: str = "upper"
    work: str = "work"
    has_tmpfile: bool = False

    @property
    def is_layer(self) -> bool:
        """Return False for a data image."""
        return bool(self.work)

    @property
    def name(self) -> str:
        """Name for messages."""
        return self.path if self.object_id is None else f"{self.path}, object {self.object_id}"


DataImage = Layer | Upper
"""Filesystem of an image that files and directories are bound from: read, or written to as a whole."""


class Mount(NamedTuple):
    """Mount below the root of the container, made in the order of the plan.

    "bind": ``source`` of the host, a file or a directory, or ``image_source``, a path in a data image, ``image``, of which
    ``source`` is the place where it is mounted, and ``is_directory`` what it is there, when that is known; "symlink": a link at
    ``target`` with the text ``source``, which is no mount but belongs into the tmpfs mounted before it. ``content``: the text
    of a generated file that is bound instead of ``source``. ``edit``: the content is the container's own file with entries of
    the account. ``make_source``: a missing directory is made, with ``mode``. ``make_target``: a missing target is made in the
    session's layer, or in what is mounted before it; False: nowhere. ``hides_link``: a symlink at the target is not followed
    but hidden by a mount point in that layer; where it is still seen, there is no mount. ``needs``: directory that the
    container must have; without it the mount is left out. ``hides_mount``: False if it is left out where a directory is mounted
    at its target already. ``is_optional``: a failure is a note and not the end. ``make_in_bind``: a target that is missing in a
    directory of the host bound before it is made there, although the mount is optional. ``size``: of a tmpfs, in bytes.
    ``data``: options of the filesystem.
    """

    kind: MountKind
    target: str
    source: str = ""
    readonly: bool = False
    recursive: bool = True
    nosuid: bool = True
    nodev: bool = True
    noexec: bool = False
    make_source: bool = False
    make_target: bool = True
    hides_link: bool = False
    hides_mount: bool = True
    needs: str = ""
    is_optional: bool = False
    make_in_bind: bool = False
    content: bytes | None = None
    edit: Literal["", "passwd", "group"] = ""
    mode: int = 0o755
    size: int | None = None
    data: str = ""
    image: DataImage | None = None
    image_source: str = ""
    is_directory: bool | None = None


class Command(NamedTuple):
    """Program that is started: of ``exec`` the words, of ``run`` the runscript with them, of ``shell`` a shell.

    ``app``: a SCIF app whose environment and scripts are used. ``shell``: the shell asked for.
    """

    action: Literal["exec", "run", "shell"]
    words: tuple[str, ...] = ()
    app: str = ""
    shell: str = ""


class ContainerEnvironment(NamedTuple):
    """Environment of the command, in the order in which it is made.

    ``fixed``: there while the scripts of the image are read, and after them. ``injected``: set after the scripts, over what
    they set. ``passed``: of the host, set where the scripts set nothing. ``prepend_path``, ``append_path``: added to PATH.
    ``is_evaluated``: ``$NAME`` in injected values is replaced. ``with_libraries``: the host's libraries belong to
    LD_LIBRARY_PATH.
    """

    fixed: Mapping[str, str] = NO_VARIABLES
    injected: Mapping[str, str] = NO_VARIABLES
    passed: Mapping[str, str] = NO_VARIABLES
    prepend_path: str = ""
    append_path: str = ""
    is_evaluated: bool = True
    with_libraries: bool = False


class Account(NamedTuple):
    """User in the container, for the entries in its passwd and group. ``uid``, ``gid``: as seen inside."""

    uid: int
    gid: int
    name: str
    group: str
    home: str
    shell: str = "/bin/sh"
    gecos: str = ""
    groups: tuple[tuple[int, str], ...] = ()


class RunPlan(NamedTuple):
    """Plan of a run.

    ``layers``: from the root, the lowest, up. ``upper``: the layer above them that is written to; None: the root is read-only.
    ``is_root_writable``: the root is a directory that is written to itself. ``images``: data images, those of ``mounts``;
    ``serves_images``: by FUSE, if the kernel does not mount them; else they are unpacked. ``mounts``: in order. ``cwd``:
    working directories, the first that exists is used, else ``/``; ``is_cwd_required``: else the run fails. ``account``: who
    the command runs as. ``umask``: None keeps the
    caller's. ``has_init``: the first process of a new pid namespace is ours.
    ``fakeroot``: the user is mapped to root, and changes of owners and users seem to succeed.
    ``drops_capabilities``: root is left without any. ``cache``: directory for unpacked images, if the way needs one.
    ``joins_directories``: the kernel's overlayfs works in a user namespace. ``notes``: printed before the start.
    """

    way: Way
    layers: tuple[Layer, ...]
    upper: Upper | None
    mounts: tuple[Mount, ...]
    command: Command
    environment: ContainerEnvironment
    cwd: tuple[str, ...]
    home: str
    account: Account
    is_root_writable: bool = False
    images: tuple[DataImage, ...] = ()
    serves_images: bool = True
    is_cwd_required: bool = False
    namespaces: frozenset[Namespace] = frozenset()
    fakeroot: bool = False
    drops_capabilities: bool = False
    hostname: str | None = None
    umask: int | None = None
    has_init: bool = True
    no_new_privileges: bool = True
    cache: str = ""
    joins_directories: bool = True
    notes: tuple[str, ...] = ()


class Start(NamedTuple):
    """Words and environment of the first process. ``argv[0]`` without a slash is searched in its PATH."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    notes: tuple[str, ...] = ()
