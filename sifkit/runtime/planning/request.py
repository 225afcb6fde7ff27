"""Request of a run: what the user asked for, and the facts of the host and of the images that the plan depends on. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol

from .options import RunOptions
from .run_plan import NO_VARIABLES, Layer, Upper

__all__ = [
    "Caller",
    "DataImageFacts",
    "Fact",
    "GpuFiles",
    "GpuMaker",
    "HostFacts",
    "ImageFacts",
    "ImageKind",
    "OverlayFacts",
    "PathKind",
    "RunRequest",
]

ImageKind = Literal["sif", "squashfs", "ext3", "directory"]
PathKind = Literal["file", "directory", "missing"]
GpuMaker = Literal["Nvidia", "AMD"]


class Fact(Protocol):
    """Capability of the host: it works, or the reason why not, and what to ask the administrator for, if that is known."""

    @property
    def works(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    @property
    def request(self) -> str: ...


class HostFacts(Protocol):
    """Capabilities of the host.

    ``user_mount``: mounting in a user namespace. ``overlay``: overlayfs with ``userxattr`` there. ``fuse_upper``: overlayfs
    over FUSE, with changes of files of the lower layer. ``fuse_tmpfile``: with O_TMPFILE, too. ``tmpfs_upper``: with memory for
    all changes. ``loop``: loop devices, of root.
    """

    @property
    def is_root(self) -> bool: ...
    @property
    def loop(self) -> Fact: ...
    @property
    def user_namespace(self) -> Fact: ...
    @property
    def user_mount(self) -> Fact: ...
    @property
    def fuse(self) -> Fact: ...
    @property
    def overlay(self) -> Fact: ...
    @property
    def fuse_upper(self) -> Fact: ...
    @property
    def fuse_tmpfile(self) -> Fact: ...
    @property
    def tmpfs_upper(self) -> Fact: ...


class ImageFacts(NamedTuple):
    """Image that is run. ``path``: absolute. ``root``: its lowest layer.

    ``overlays``: layers of the overlays in a SIF that belong to the root, from the lowest up; ``uppers``: those of them that
    could be written to. ``unused_overlay``: why another one is not used, "" if there is none. ``signed``: IDs of the overlays
    that are signed, alone or with their group. ``architecture``: of a SIF, in the words of Go, empty if it says none.
    ``owner``, ``group``: names, of the file, where the site limits them. ``real_path``: ``path`` without symlinks.
    """

    path: str
    kind: ImageKind
    root: Layer
    real_path: str = ""
    overlays: tuple[Layer, ...] = ()
    uppers: tuple[Upper, ...] = ()
    unused_overlay: str = ""
    signed: frozenset[int] = frozenset()
    architecture: str = ""
    is_encrypted: bool = False
    is_writable: bool = True
    owner: str = ""
    group: str = ""


class OverlayFacts(NamedTuple):
    """Overlay that is given. ``name``: as typed.

    ``layers``: what it adds for reading. ``upper``: what is written to if it is not read-only; None: it can only be read.
    ``is_writable``: the caller may write to the file or directory. ``filesystem``: the kind of filesystem that a directory lies
    on, if no layer that is written to may lie there. ``path``: without symlinks. ``owner``, ``group``: as of ImageFacts.
    """

    name: str
    kind: ImageKind
    layers: tuple[Layer, ...]
    upper: Upper | None = None
    read_only: bool = False
    is_writable: bool = True
    filesystem: str = ""
    path: str = ""
    owner: str = ""
    group: str = ""


class DataImageFacts(NamedTuple):
    """Image that files and directories are bound from. ``name``: its path, absolute.

    ``layer``: the filesystem, of a SIF that in one of its partitions. ``is_signed``: that partition is, alone or with its
    group. ``is_writable``, ``path``, ``owner``, ``group``: as of OverlayFacts.
    """

    name: str
    kind: ImageKind
    layer: Layer
    is_signed: bool = False
    is_writable: bool = True
    path: str = ""
    owner: str = ""
    group: str = ""


class Caller(NamedTuple):
    """User who runs the command, as the user database of the host has him, and his process.

    ``cwd``: as his shell calls it, with symlinks; ``real_cwd``: without; both are empty if it was deleted. ``terminal``: device
    of his terminal, empty if he has none. ``machine``: his host's architecture, in the words of Go; ``emulated``: others whose
    programs an emulator runs there.
    """

    uid: int
    gid: int
    name: str
    group: str
    home: str
    cwd: str
    groups: tuple[tuple[int, str], ...] = ()
    gecos: str = ""
    shell: str = "/bin/sh"
    machine: str = ""
    emulated: tuple[str, ...] = ()
    real_cwd: str = ""
    terminal: str = ""
    environment: Mapping[str, str] = NO_VARIABLES


class GpuFiles(NamedTuple):
    """Files of the GPUs of a ``maker`` on the host, absolute paths. ``files``: others, shown at the same paths."""

    maker: GpuMaker
    devices: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def _always_missing(path: str) -> PathKind:
    return "missing"


def _no_reason(path: str) -> str:
    return ""


NO_IMAGES: Mapping[tuple[str, int | None], DataImageFacts] = {}


class RunRequest(NamedTuple):
    """Request of a run.

    ``data_images``: of binds, by source and ID of the object as these have them. ``env_files``: name and text of each
    ``--env-file``. ``kind_of``: what a path of the host is; ``why_unreachable``: why one that seems to be missing cannot be
    looked for, empty if it is missing. ``host_mounts``: mount points of the host, for sites that show them all.
    ``resolv_conf``: content of the host's. ``repeat``: words of the command line after the program's name, for a message that
    names Apptainer's.
    """

    action: Literal["exec", "run", "shell"]
    image: ImageFacts
    words: tuple[str, ...]
    options: RunOptions
    caller: Caller
    overlays: tuple[OverlayFacts, ...] = ()
    data_images: Mapping[tuple[str, int | None], DataImageFacts] = NO_IMAGES
    env_files: tuple[tuple[str, str], ...] = ()
    kind_of: Callable[[str], PathKind] = _always_missing
    why_unreachable: Callable[[str], str] = _no_reason
    host_mounts: tuple[str, ...] = ()
    resolv_conf: bytes | None = None
    gpus: tuple[GpuFiles, ...] = ()
    repeat: tuple[str, ...] = ()
