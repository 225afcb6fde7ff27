"""Make an overlay: a source and options become an ext3 image that appears whole under its name, or not at all.

Steps: look at the target, scan the source into a tree, put upper/ and work/ around it, plan (all that can be refused is
refused here), write beside the target, check, rename.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

from ext3.build.image import plan_tree, write_image
from ext3.build.plan import ImageOptions, Plan
from ext3.build.progress import Progress, Silent
from ext3.build.scan import ScanOptions, host_times, scan_directory
from ext3.build.stamp import Stamp
from ext3.build.tree import Content, MemoryContent, Tree
from ext3.constants import S_IFREG
from ext3.device import FileDevice
from ext3.errors import DeviceError, SourceError
from ext3.geometry import default_inode_ratio

from ..atomic import AtomicFile
from ..errors import NotYetError, TargetError, UsageError, show
from .attributes import attribute_filter
from .exclude import path_filter
from .guards import check_replaceable, file_format
from .layout import ImageTree, RootFacts, choose_layout
from .options import CreateOptions, CreateResult, HostPath, Layout

__all__ = ["create"]

MIB = 1 << 20
SMALLEST_BYTES = 64 * MIB
SLACK = 0.25
FIXED_EPOCH = 315532800
"""1980-01-01 (as zip files have it): the time of what is made here under --reproducible, without SOURCE_DATE_EPOCH."""
NEVER = 1 << 62
PROFILES = {"default": None, "conda": 4096, "data": 1 << 20}
"""Bytes per inode of each profile; None: as mke2fs has it for the size."""
UNREADABLE_SHOWN = 20


def create(path: HostPath, options: CreateOptions, *, progress: Progress | None = None) -> CreateResult:
    """Make the overlay image ``path``.

    Raises TargetError and its kinds where the target cannot be made or replaced, UsageError and LayoutError for requests
    that make no sense, and what ``ext3.build`` raises: SourceError, XattrError, NoSpaceError, NoInodesError,
    GeometryError, DeviceError. Whatever is raised, the target is as it was and no temporary file is left.
    """
    began = time.monotonic()
    progress = progress or Silent()
    target = os.fsdecode(path)
    if options.from_dir is not None and options.from_tar is not None:
        raise UsageError("--from-dir and --from-tar exclude each other", hint="give one source")
    if options.from_dir is None and (options.exclude or options.one_file_system or options.skip_unreadable):
        raise UsageError("--exclude, -x and --skip-unreadable are for --from-dir", hint="name a directory, or leave them out")
    if not target:
        raise UsageError("the image has no name", hint="name a file, or leave it out for overlay.img")
    _check_target(target, options)
    with ExitStack() as stack:
        image, tree, layout, notes = _gather(target, options, progress, stack)
        stamp = _stamp(tree, image, options)
        image.set_made_times(tree, stamp)
        plan = plan_tree(tree, _image_options(options), stamp)
        notes += _notes(options, image, plan)
        _write(target, options, plan, progress)
    return _result(target, plan, layout, notes, time.monotonic() - began)


def _check_target(target: str, options: CreateOptions) -> None:
    """Refuse early what would be refused at the end."""
    directory = os.path.dirname(os.path.realpath(target)) or os.curdir
    if os.path.isdir(target) or target.endswith("/"):
        raise TargetError(f"{show(target)} is a directory", path=target, hint="name a file in it")
    if not os.path.isdir(directory):
        raise TargetError(f"the directory {show(directory)} does not exist", path=target, hint="make the directory first")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise TargetError(
            f"the directory {show(directory)} is not writable", path=target, hint="write the image to a directory of yours"
        )
    if not os.path.lexists(target):
        return
    if os.path.isfile(target) and file_format(target) == "sif":
        raise NotYetError(
            f"{show(target)} is a SIF image, and this release does not put overlays into SIF images",
            path=target,
            hint="make a separate image: sifkit overlay create overlay.img",
        )
    if not options.force:
        raise TargetError(f"{show(target)} exists", path=target, hint="give another name, or --force to replace it")
    check_replaceable(target)


def _gather(
    target: str, options: CreateOptions, progress: Progress, stack: ExitStack
) -> tuple[ImageTree, Tree, Layout, list[str]]:
    """The tree of the whole image, the layout taken, and what is to be said about the source."""
    image = ImageTree()
    content: Content
    if options.from_dir is not None:
        layout, content = _from_directory(image, target, options, progress)
    elif options.from_tar is not None:
        layout, content = _from_tar(image, target, options, progress, stack)
    else:
        layout = "data" if options.layout == "data" else "upper"
        image.made.append(image.start(layout, _own_facts()))
        content = MemoryContent()
        image.complete(layout, _own_facts())
    image.create_directories(options.create_dirs)
    notes = []
    if options.layout == "auto" and (options.from_dir is not None or options.from_tar is not None):
        notes.append(
            "the source is an overlay (upper/ at its top): it becomes the root of the image (--layout root)"
            if layout == "root"
            else "the source goes below upper/ (--layout upper): the container sees it at /"
        )
    builder = image.builder
    if builder.unreadable:
        listing = _unreadable(builder.unreadable)
        if not options.skip_unreadable:
            raise SourceError(
                builder.unreadable[0][0] if len(builder.unreadable) == 1 else os.fsencode(_source_name(options)),
                listing,
                hint="make them readable, --exclude them, or --skip-unreadable",
            )
        notes.append(f"left out: {listing}")
    if builder.left_out:
        total = sum(builder.left_out.values())
        kinds = ", ".join(f"{show(name)} ({count})" for name, count in sorted(builder.left_out.items()))
        if options.xattrs == "strict":
            raise SourceError(
                _source_name(options), f"{total} attributes would be lost: {kinds}", hint="--xattrs default leaves them out"
            )
        if options.xattrs != "none":
            notes.append(f"{total} extended attributes left out: {kinds}")
    tree = builder.finish(content)
    image.set_owners(tree, options.owner, options.upper_owner)
    return image, tree, layout, notes


def _source_name(options: CreateOptions) -> str:
    if options.from_dir is not None:
        return os.fsdecode(options.from_dir)
    if isinstance(options.from_tar, str | bytes | os.PathLike):
        return os.fsdecode(options.from_tar)
    return "the archive"


def _unreadable(found: list[tuple[bytes, str]]) -> str:
    """The list of what cannot be read: one line for one, else a line each."""
    if len(found) == 1:
        return f"cannot be read: {found[0][1]}"
    lines = [f"  {show(path)}: {reason}" for path, reason in found[:UNREADABLE_SHOWN]]
    if len(found) > UNREADABLE_SHOWN:
        lines.append(f"  and {len(found) - UNREADABLE_SHOWN} more")
    return f"{len(found)} files and directories cannot be read:\n" + "\n".join(lines) + "\n"


def _own_facts() -> RootFacts:
    uid, gid = (os.geteuid(), os.getegid()) if hasattr(os, "geteuid") else (0, 0)
    return RootFacts(0o040755, uid, gid, (0,) * 6)


def _from_directory(image: ImageTree, target: str, options: CreateOptions, progress: Progress) -> tuple[Layout, Content]:
    assert options.from_dir is not None
    source = os.fsencode(options.from_dir)
    try:
        found = os.stat(source)
        names = os.listdir(source)
    except OSError as error:
        hint = "--from-tar takes an archive" if error.errno == errno.ENOTDIR else ""
        raise SourceError(source, f"cannot be read: {error.strerror}", error=error, hint=hint) from error
    exclude = path_filter(options.exclude)
    temporary = _temporary_names(source, target)

    def excluded(path: bytes, is_directory: bool) -> bool:
        if temporary is not None and temporary.fullmatch(path):
            return True
        return exclude is not None and exclude(path, is_directory)

    never = _identities(target)
    top = [
        name for name in names if not excluded(name, False) and not (never and _identities(os.path.join(source, name)) & never)
    ]
    layout = choose_layout(options.layout, top, os.fsdecode(source))
    facts = RootFacts(found.st_mode, found.st_uid, found.st_gid, host_times(found))
    node = image.start(layout, facts)
    content = scan_directory(
        image.builder,
        source,
        node,
        ScanOptions(
            take_attribute=None if options.xattrs == "none" else attribute_filter(options.xattrs),
            exclude=excluded if exclude is not None or temporary is not None else None,
            never=never,
            one_file_system=options.one_file_system,
            skip_unreadable=options.skip_unreadable,
            allow_changed=options.allow_changed,
        ),
        progress,
    )
    image.complete(layout, facts)
    return layout, content


def _from_tar(
    image: ImageTree, target: str, options: CreateOptions, progress: Progress, stack: ExitStack
) -> tuple[Layout, Content]:
    assert options.from_tar is not None
    from ext3.build.tarball import read_tar  # with the codecs: only for archives

    progress.phase("read archive", None, "files")
    directory = os.path.dirname(os.path.realpath(target))
    try:
        found = stack.enter_context(
            read_tar(
                options.from_tar,
                xattr_filter=attribute_filter(options.xattrs),
                progress=progress.advance,
                spool_dir=directory,
            )
        )
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(_source_name(options), f"cannot be read: {error.strerror}", error=error) from error
    layout = choose_layout(options.layout, found.top_names, _source_name(options))
    own = _own_facts()
    top = found.root
    facts = (
        RootFacts(top.mode, top.uid, top.gid, top.times, found.root_xattrs)
        if top is not None
        else RootFacts(own.mode, own.uid, own.gid, own.times, found.root_xattrs)
    )
    node = image.start(layout, facts)
    if top is None:
        image.made.append(node)
    scan = stack.enter_context(found.add_to(image.builder, node))
    image.complete(layout, facts)
    return layout, scan.content


def _is_directory(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _identities(path: str | bytes) -> frozenset[tuple[int, int]]:
    """(st_dev, st_ino) of a path and of what it leads to; empty where there is nothing."""
    found = set()
    for look in (os.stat, os.lstat):
        try:
            status = look(path)
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def _temporary_names(source: bytes, target: str) -> re.Pattern[bytes] | None:
    """Temporary files of an earlier, killed run beside the target, where the target lies in the source."""
    directory, name = os.path.split(os.path.realpath(os.fsencode(target)))
    relative = os.path.relpath(directory, os.path.realpath(source))
    if relative.split(b"/")[0] == b"..":
        return None
    prefix = b"" if relative == b"." else re.escape(relative) + b"/"
    return re.compile(prefix + rb"\." + re.escape(name[:200]) + rb".*\.[0-9a-f]{6}\.tmp", re.DOTALL)


def _image_options(options: CreateOptions) -> ImageOptions:
    sourced = options.from_dir is not None or options.from_tar is not None
    size = options.size
    if size is None and not sourced:
        size = SMALLEST_BYTES
    ratio = options.inode_ratio
    if ratio is None and options.profile is not None:
        ratio = PROFILES[options.profile]
        if ratio is None and options.inodes is None:
            # The density of mke2fs, asked for by name: it is then not raised for the content.
            ratio = default_inode_ratio(size) if size is not None else None
    return ImageOptions(
        size=size,
        slack=SLACK,
        smallest=SMALLEST_BYTES,
        block_size=options.block_size,
        inode_size=options.inode_size,
        inodes=options.inodes,
        inode_ratio=ratio,
        reserved_percent=options.reserved_percent,
        journal_bytes=options.journal_bytes,
        journal=options.journal,
        label=options.label,
    )


def _stamp(tree: Tree, image: ImageTree, options: CreateOptions) -> Stamp:
    if options.source_date_epoch is None and not options.reproducible:
        return Stamp.now(options.uuid)
    seconds = options.source_date_epoch
    if seconds is None:
        # Times of files are the input's own. What is made here, the superblock too, gets a time that is surely past:
        # e2fsck complains of one in the future, and the newest file may be dated so.
        seconds = FIXED_EPOCH
        tree.clamp_times(NEVER)
    else:
        tree.clamp_times(seconds)
    facts = (options.size, options.block_size, options.inode_size, options.inodes, options.inode_ratio, options.label)
    return Stamp.derived(seconds, tree, *facts, identity=options.uuid)


def _notes(options: CreateOptions, image: ImageTree, plan: Plan) -> list[str]:
    notes = []
    needed, inodes = plan.demand.inodes, plan.geometry.inodes
    if 2 * needed > inodes:
        notes.append(
            f"the content takes {100 * needed // inodes} % of the {inodes:,} inodes: --profile conda, or -N, makes more"
        )
    elif options.inodes is None and options.inode_ratio is None and options.profile is None:
        usual = plan.geometry.size_bytes // default_inode_ratio(plan.geometry.size_bytes)
        if inodes > usual * 1.5:
            notes.append(f"{inodes:,} inodes instead of {usual:,}: twice what the content needs (-N chooses)")
    if image.upper is None:
        notes.append("there is no upper/: a container can use the image read-only, with data in it, but not write to it")
    if not options.journal:
        notes.append("no journal: Apptainer refuses such an image, and a crash can damage it")
    unset = options.owner is None and options.upper_owner is None
    if image.upper is not None and unset and plan.tree.nodes["uid"][image.upper] == 0:
        notes.append(
            "upper/ is owned by root: only root, or --fakeroot, can write to it in a container; --owner 1000:1000 (or"
            " --owner me) changes that"
        )
    return notes


def _write(target: str, options: CreateOptions, plan: Plan, progress: Progress) -> None:
    size = plan.geometry.size_bytes
    if options.size is not None:
        size = max(size, options.size)  # mke2fs too leaves the file as long as asked for
    with AtomicFile(target, mode=options.mode) as file:
        with _space_errors(target, plan, file.fd, None if options.sparse else size):
            os.ftruncate(file.fd, size)
            if not options.sparse:
                _allocate(file.fd, size)
            write_image(
                plan,
                FileDevice(file.fd, 0, size, zero_from=0),
                progress=progress,
                allow_changed=options.allow_changed,
            )
        if options.force:
            check_replaceable(target)
        file.commit(replace=options.force)


def _allocate(fd: int, size: int) -> None:
    """Give the whole file blocks on its filesystem."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    zeros = bytes(MIB)
    for start in range(0, size, MIB):
        os.pwrite(fd, zeros[: min(MIB, size - start)], start)


@contextmanager
def _space_errors(target: str, plan: Plan, fd: int, allocated: int | None) -> Iterator[None]:
    """Say how much was needed where the host's filesystem is full or limits the size of files.

    ``allocated``: bytes the whole file was to have blocks for; None where only what is used has some.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if isinstance(error, DeviceError | SourceError):
                raise
            raise TargetError(f"{show(target)}: {error.strerror}", path=target, error=error) from error
        needed = allocated or (plan.geometry.blocks - plan.free_blocks) * plan.geometry.block_size
        if error.errno == errno.EFBIG:
            raise TargetError(
                f"{show(target)}: files of {plan.geometry.size_bytes:,} bytes are too large for its filesystem",
                path=target,
                hint="choose a smaller --size, or another filesystem",
                error=error,
            ) from error
        free = _free_bytes(os.path.dirname(os.path.realpath(target)), fd)
        raise TargetError(
            f"no space left for {show(target)}: it needs up to {needed:,} bytes"
            + (f" and {free:,} are free" if free is not None else ""),
            path=target,
            hint="free some space, or write it to another filesystem",
            error=error,
        ) from error


def _free_bytes(directory: str, fd: int) -> int | None:
    """What is free in ``directory`` once the file ``fd``, which is given up, is gone."""
    if not hasattr(os, "statvfs"):
        return None
    try:
        status = os.statvfs(directory)
        given_up = os.fstat(fd).st_blocks * 512
    except OSError:
        return None
    return status.f_bavail * status.f_frsize + given_up


def _result(target: str, plan: Plan, layout: Layout, notes: list[str], seconds: float) -> CreateResult:
    geometry = plan.geometry
    free = plan.free_blocks * geometry.block_size
    regular = plan.tree.is_kind(S_IFREG)
    return CreateResult(
        path=target,
        size_bytes=geometry.size_bytes,
        block_size=geometry.block_size,
        inodes=geometry.inodes,
        inodes_used=plan.demand.inodes,
        used_bytes=geometry.size_bytes - free,
        free_bytes=free,
        files=len(plan.tree) - 1 - int(plan.tree.lost_found_made) + len(plan.tree.extra_links),
        content_bytes=int(plan.tree.nodes["size"][regular].sum()),
        layout=layout,
        seconds=seconds,
        uuid=UUID(bytes=plan.stamp.uuid),
        label=plan.options.label,
        notes=tuple(notes),
    )
