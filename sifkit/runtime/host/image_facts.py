"""Facts of the images of a run: their kinds, the layers in them, who owns them. Reads only heads of files, without numpy."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, TypeVar

from ext3 import hostio

from ...errors import FormatError, InputError, NotYetError, UsageError, shell_quote, show
from ...overlay.images.image_format import image_kind, read_head
from ..images.ext3_state import EXT_MAGIC, SUPERBLOCK, SUPERBLOCK_OFFSET, is_ext3, magic_of
from ..planning.request import DataImageFacts, ImageFacts, OverlayFacts, PathKind
from ..planning.run_plan import Layer, LayerKind, Upper

if TYPE_CHECKING:
    from ...sif import Descriptor
    from ...sif.descriptor_table import DescriptorTable
    from ..planning.overlay_arguments import RunOverlay

__all__ = ["data_image_facts", "image_facts", "kind_of", "overlay_facts", "why_unreachable", "with_owner"]

F = TypeVar("F", ImageFacts, OverlayFacts, DataImageFacts)

PULLED = ("docker://", "library://", "oras://", "shub://", "http://", "https://")
"""Beginnings of images that Apptainer fetches."""
BUILT = ("docker-daemon:", "docker-archive:", "oci:", "oci-archive:")
"""Beginnings of images that Apptainer converts."""
SIMILARITY = 0.8
"""Least similarity of the name of a missing file and the suggested one, from 0 to 1."""
TAR_MAGIC, TAR_MAGIC_OFFSET = b"ustar", 257


def kind_of(path: str) -> PathKind:
    """Return what a path of the host is, links followed."""
    try:
        return "directory" if stat.S_ISDIR(os.stat(path).st_mode) else "file"
    except (OSError, ValueError):
        return "missing"


def why_unreachable(path: str) -> str:
    """Return why nobody knows what a path is, such as a directory before it that may not be entered; empty if it is missing."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def image_facts(name: str) -> ImageFacts:
    """Return the facts of the image to run.

    Raises NotYetError and UsageError for what is no file, OSError, FormatError, and the errors of the SIF library.
    """
    _reject_uri(name)
    found = _found(name)
    path = os.path.abspath(name)
    is_writable = os.access(path, os.W_OK)
    if stat.S_ISDIR(found.st_mode):
        from .host_filesystems import has_mounts

        real = os.path.realpath(path)
        _reject_root(name, real)
        root = Layer(path=real, kind="directory", has_mounts=has_mounts(real), is_foreign=_is_foreign(found))
        return ImageFacts(path=path, real_path=real, kind="directory", root=root, is_writable=is_writable)
    kind = _file_kind(name)
    if kind == "sif":
        return _sif_facts(name, path, is_writable=is_writable)
    root = Layer(path=path, kind=kind)
    return ImageFacts(path=path, real_path=os.path.realpath(path), kind=kind, root=root, is_writable=is_writable)


def with_owner(facts: F) -> F:
    """Return the facts of an image with the names of its owner and group; numbers for those without.

    Few sites ask for them, and the user database may be a network service.
    """
    found = os.stat(facts.path)
    owner, group = str(found.st_uid), str(found.st_gid)
    with suppress(KeyError):
        owner = pwd.getpwuid(found.st_uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(found.st_gid).gr_name
    return facts._replace(owner=owner, group=group)


def _reject_uri(name: str) -> None:
    """Raise for an image that is not a file of this host."""
    if name.startswith("instance://"):
        hint = f"for those of Apptainer: apptainer exec {shell_quote(name)} ..."
        raise NotYetError(f"{show(name)}: instances are not supported in this release", hint=hint)
    if not name.startswith((*PULLED, *BUILT)) or os.path.lexists(name):
        return
    verb, reason = ("pull", "fetched") if name.startswith(PULLED) else ("build", "converted")
    hint = f"first: apptainer {verb} {shell_quote(_file_name(name))} {shell_quote(name)}"
    raise UsageError(f"{show(name)}: images are not {reason} here", hint=hint)


def _file_name(uri: str) -> str:
    """Return a name for the file of an image: ``ubuntu.sif`` for ``docker://library/ubuntu:24.04``."""
    last = uri.partition(":")[2].rstrip("/").rpartition("/")[2]
    for separator in "?@:":
        last = last.partition(separator)[0]
    return (last.removesuffix(".sif").removesuffix(".tar") or "image") + ".sif"


def _reject_root(name: str, path: str) -> None:
    """Raise UsageError for the root of this host as an image or overlay. ``path``: without symlinks."""
    if path == "/":
        raise UsageError(f"{show(name)} is the root of this host", hint="a variable without a value may have been meant")


def _found(name: str) -> os.stat_result:
    """Return what is known of an image's file or directory. Raises InputError if it is missing, and other OSErrors."""
    try:
        found = os.stat(name)
    except FileNotFoundError as error:
        directory, last = os.path.split(name)
        hint = ""
        with suppress(OSError):
            from difflib import get_close_matches

            names = {one.lower(): one for one in os.listdir(directory or ".")}
            if near := get_close_matches(last.lower(), names, n=1, cutoff=SIMILARITY):
                hint = f"did you mean {shell_quote(os.path.join(directory, names[near[0]]))}?"
        raise InputError(f"{show(name)}: no such file or directory", path=name, error=error, hint=hint) from error
    if stat.S_ISDIR(found.st_mode) and not os.access(name, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
    return found


def _is_foreign(found: os.stat_result) -> bool:
    """Return True for the directory of another user than the caller, who is not root."""
    return os.geteuid() not in (0, found.st_uid)


def _file_kind(name: str) -> Literal["sif", "squashfs", "ext3"]:
    """Return what an image file is. Raises FormatError for another one."""
    kind = image_kind(name)
    if kind is not None:
        return kind
    head = read_head(name, SUPERBLOCK_OFFSET + SUPERBLOCK.size)
    if not is_ext3(head):
        raise FormatError(f"{show(name)} {_other_kind(head)}", path=name, hint=_other_hint(head, name))
    return "ext3"


def _other_kind(head: bytes) -> str:
    """Return what a file is that no container can be made of."""
    if not head:
        return "is empty"
    if magic_of(head) == EXT_MAGIC:
        return "is ext2 or ext4, not ext3"
    if head[TAR_MAGIC_OFFSET:].startswith(TAR_MAGIC):
        return "is an archive, not an image"
    return "is no SIF, squashfs or ext3 image"


def _other_hint(head: bytes, name: str) -> str:
    if not head:
        return "download or create it again"
    if head[TAR_MAGIC_OFFSET:].startswith(TAR_MAGIC):
        built = f"apptainer build {shell_quote(_file_name(f':{name}'))} {shell_quote(f'docker-archive:{name}')}"
        return f"if 'docker save' has made it: {built}"
    return ""


def _sif_facts(name: str, path: str, *, is_writable: bool) -> ImageFacts:
    from ...overlay.images.sif_partition import open_sif, overlays_of, select_partition, unused_overlay_of
    from ...sif.format.types import Arch, FSType

    with open_sif(name) as (sif, fd):
        root = select_partition(sif, "root", name)
        encrypted = root.fs_type in (FSType.ENCRYPTED_SQUASHFS, FSType.GOCRYPTFS_SQUASHFS)
        kind: LayerKind = "squashfs" if encrypted else _partition_kind(sif, fd, root, name)
        found = [(one, _partition_kind(sif, fd, one, name)) for one in overlays_of(sif, root)]
        architecture = root.arch.word if isinstance(root.arch, Arch) and root.arch.word != Arch.UNKNOWN.word else ""
        return ImageFacts(
            path=path,
            real_path=os.path.realpath(path),
            kind="sif",
            root=_partition_layer(path, root, kind),
            overlays=tuple(_overlay_layer(path, one, kind) for one, kind in found),
            uppers=tuple(_partition_upper(path, one) for one, kind in found if kind == "ext3"),
            unused_overlay=unused_overlay_of(sif),
            signed=frozenset(one.id for one, _ in found if _is_signed(sif, one)),
            architecture=architecture,
            is_encrypted=encrypted,
            is_writable=is_writable,
        )


def _is_signed(sif: DescriptorTable, found: Descriptor) -> bool:
    """Return True if an object is signed, alone or with its group."""
    from ...sif.format.types import DataType

    return any(
        one.data_type == DataType.SIGNATURE and (one.link_group, one.link) in ((found.group, 0), (0, found.id)) for one in sif
    )


def data_image_facts(name: str, object_id: int | None) -> DataImageFacts:
    """Return the facts of an image that is bound from. ``object_id``: its partition in a SIF; None: the first one for data.

    Raises as ``image_facts``.
    """
    found = _found(name)
    path = os.path.realpath(name)
    if stat.S_ISDIR(found.st_mode):
        hint = "a directory of the host is bound without image-src and id"
        raise FormatError(f"{show(name)} is a directory, not an image", path=name, hint=hint)
    is_writable = os.access(path, os.W_OK)
    kind = _file_kind(name)
    if kind == "sif":
        return _sif_data_facts(name, path, object_id)._replace(is_writable=is_writable)
    return DataImageFacts(name=name, kind=kind, layer=Layer(path=path, kind=kind), is_writable=is_writable, path=path)


def _sif_data_facts(name: str, path: str, object_id: int | None) -> DataImageFacts:
    from ...overlay.images.sif_partition import open_sif, select_partition
    from ...sif.errors import SIFError
    from ...sif.format.types import PartType

    with open_sif(name) as (sif, fd):
        if object_id is not None:
            try:
                found = select_partition(sif, str(object_id), name)
            except SIFError as error:
                error.set_path(name)
                raise
        else:
            partitions = [one for one in sif if one.part_type == PartType.DATA]
            if not partitions:
                hint = f"choose another one with id=NUMBER: sifkit sif list {shell_quote(name)}"
                raise FormatError(f"{show(name)} has no data partition", path=name, hint=hint)
            found = partitions[0]
        layer = _partition_layer(path, found, _partition_kind(sif, fd, found, name))
        return DataImageFacts(name=name, kind="sif", layer=layer, is_signed=_is_signed(sif, found), path=path)


def _partition_kind(sif: DescriptorTable, fd: int, found: Descriptor, name: str) -> Literal["squashfs", "ext3"]:
    """Return the filesystem of a partition. Raises FormatError for another, and for one that the file does not hold whole."""
    from ...overlay.images.sif_partition import partition_format

    head = hostio.read_at(fd, found.offset, min(SUPERBLOCK_OFFSET + SUPERBLOCK.size, found.size))
    return "ext3" if is_ext3(head) and found.end <= sif.file_size else partition_format(sif, fd, found, name)


def _partition_layer(path: str, found: Descriptor, kind: LayerKind) -> Layer:
    return Layer(path=path, kind=kind, offset=found.offset, size=found.size, object_id=found.id)


def _overlay_layer(path: str, found: Descriptor, kind: LayerKind) -> Layer:
    return Layer(
        path=path,
        kind=kind,
        offset=found.offset,
        size=found.size,
        object_id=found.id,
        subdirectory="upper" if kind == "ext3" else "",
        has_marks=True,
    )


def _partition_upper(path: str, found: Descriptor) -> Upper:
    return Upper(kind="image", path=path, offset=found.offset, size=found.size, object_id=found.id)


def overlay_facts(argument: RunOverlay) -> OverlayFacts:
    """Return the facts of an overlay that is given. Raises as ``image_facts``."""
    name = argument.path
    try:
        found = _found(name)
    except InputError as error:
        if not error.hint and not argument.read_only:
            command = "mkdir" if name.endswith("/") else "sifkit overlay create --size 1G"
            error.hint = f"create it with: {command} {shell_quote(name)}"
        raise
    path = os.path.realpath(name)
    return _overlay_layers(argument, path, found)._replace(path=path)


def _overlay_layers(argument: RunOverlay, path: str, found: os.stat_result) -> OverlayFacts:
    """Return what an overlay adds. ``path``: of the file or directory, without symlinks; ``found``: what is known of it."""
    name = argument.path
    if stat.S_ISDIR(found.st_mode):
        return _directory_facts(argument, path)
    is_writable = os.access(path, os.W_OK)
    kind = _file_kind(name)
    if kind == "sif":
        return _sif_overlay_facts(argument, path, is_writable=is_writable)
    if kind == "squashfs":
        layer = Layer(path=path, kind=kind, has_marks=True)
        return OverlayFacts(name=name, kind=kind, layers=(layer,), read_only=argument.read_only)
    layer = Layer(path=path, kind=kind, subdirectory="upper", has_marks=True)
    return OverlayFacts(
        name=name,
        kind=kind,
        layers=(layer,),
        upper=Upper(kind="image", path=path),
        read_only=argument.read_only,
        is_writable=is_writable,
    )


def _directory_facts(argument: RunOverlay, path: str) -> OverlayFacts:
    from .host_filesystems import has_mounts, no_upper_filesystem

    _reject_root(argument.path, path)
    upper = Upper(kind="directory", path=path)
    subdirectory = "upper" if os.path.isdir(f"{path}/upper") and not argument.work else ""
    if argument.work:
        work = os.path.realpath(argument.work)
        _check_work(argument, path, work)
        above = os.path.commonpath([path, work])
        upper = Upper(kind="directory", path=above, upper=os.path.relpath(path, above), work=os.path.relpath(work, above))
    is_writable = _takes_changes(upper)
    layer = Layer(
        path=path,
        kind="directory",
        subdirectory=subdirectory,
        has_marks=True,
        has_mounts=has_mounts(path),
        is_foreign=_is_foreign(os.stat(f"{path}/{subdirectory}")),
    )
    return OverlayFacts(
        name=argument.path,
        kind="directory",
        layers=() if argument.work and is_writable else (layer,),
        upper=upper,
        read_only=argument.read_only,
        is_writable=is_writable,
        filesystem=no_upper_filesystem(path),
    )


def _takes_changes(upper: Upper) -> bool:
    """Return True if the caller may write to both directories of a layer, or make those that are missing.

    Another file or a symlink in their place is left to the launch, which refuses it by its name.
    """
    for name in (upper.upper, upper.work):
        path = f"{upper.path}/{name}"
        is_there = os.path.lexists(path)
        if is_there and not stat.S_ISDIR(os.lstat(path).st_mode):
            continue
        if not os.access(path if is_there else upper.path, os.W_OK | os.X_OK):
            return False
    work = f"{upper.path}/{upper.work}"
    try:  # overlayfs empties what it has made there the last time, which another user may not, but the owner removes it
        makers = os.lstat(f"{work}/work").st_uid, os.lstat(work).st_uid
    except OSError:
        return True
    return os.geteuid() in (0, *makers)


def _check_work(argument: RunOverlay, upper: str, work: str) -> None:
    """Raise UsageError for directories that overlayfs does not join."""
    name = f"--overlay {show(argument.path)}:{show(argument.work)}"
    if upper == work or upper.startswith(f"{work}/") or work.startswith(f"{upper}/"):
        raise UsageError(f"{name}: one directory is in the other", hint="upper and work are two directories side by side")
    if os.stat(upper).st_dev != os.stat(work).st_dev or _mount_of(upper) != _mount_of(work):
        raise UsageError(f"{name}: the directories are on different filesystems", hint="put them side by side")


def _mount_of(path: str) -> str:
    """Return the number of the mount that a path is in; an empty text without /proc."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as file:
            return next((line for line in file if line.startswith("mnt_id:")), "")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _sif_overlay_facts(argument: RunOverlay, path: str, *, is_writable: bool) -> OverlayFacts:
    from ...overlay.images.sif_partition import open_sif, overlays_of

    name = argument.path
    with open_sif(name) as (sif, fd):
        root = sif.primary
        overlays = sif.overlays if root is None else overlays_of(sif, root)
        if not overlays:
            hint = f"list its objects with: sifkit sif list {shell_quote(name)}"
            raise FormatError(f"{show(name)} has no overlay", path=name, hint=hint)
        found = [(one, _partition_kind(sif, fd, one, name)) for one in overlays]
        uppers = [_partition_upper(path, one) for one, kind in found if kind == "ext3"]
        return OverlayFacts(
            name=name,
            kind="sif",
            layers=tuple(_overlay_layer(path, one, kind) for one, kind in found),
            upper=uppers[-1] if uppers else None,
            read_only=argument.read_only,
            is_writable=is_writable,
        )
