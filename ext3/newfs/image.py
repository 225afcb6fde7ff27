"""Creation of a filesystem: empty, or holding a tree."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from ..constants import LABEL_MAX, S_IFDIR
from ..defaults import default_block_size
from ..device.base import BlockDevice, PathOrFile, open_device
from ..errors import GeometryError
from ..format.geometry import Geometry
from ..progress import Progress, Silent
from .builder import TreeBuilder
from .content import MemoryContent
from .emit import emit
from .plan import ImageOptions, Plan, plan_image
from .stamp import Stamp
from .tree import Tree
from .verify import verify

__all__ = ["BuildResult", "build_image", "mkfs", "write_image"]


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Result of a build: geometry, UUID, free blocks and inodes."""

    geometry: Geometry
    uuid: UUID
    free_blocks: int
    free_inodes: int

    @property
    def free_bytes(self) -> int:
        return self.free_blocks * self.geometry.block_size


def mkfs(
    where: PathOrFile | BlockDevice,
    size: int,
    *,
    block_size: int | None = None,
    inode_size: int = 256,
    inodes: int | None = None,
    inode_ratio: int | None = None,
    reserved_percent: float = 0.0,
    reserved_blocks: int | None = None,
    label: bytes = b"",
    uuid: UUID | None = None,
    journal_blocks: int | None = None,
    journal: bool = True,
    stamp: Stamp | None = None,
    offset: int = 0,
) -> BuildResult:
    """Create an empty ext3 filesystem of ``size`` bytes, laid out as mke2fs does, with lost+found.

    ``where``: a path (created or overwritten in place) or a binary file object, in which the filesystem begins at byte
    ``offset``. ``reserved_percent``, ``reserved_blocks``: for root. ``inode_ratio``: bytes per inode. ``journal_blocks``: in
    blocks, None as mke2fs chooses. Raises GeometryError for numbers that make no filesystem, DeviceError, and OSError from
    opening.
    """
    stamp = stamp or Stamp.now(uuid)
    builder = TreeBuilder()
    times = (stamp.seconds,) * 3 + (0,) * 3
    builder.add(0, b"", S_IFDIR | 0o755, 0, 0, 0, times)
    journal_bytes = None
    if journal_blocks is not None:
        journal_bytes = journal_blocks * (block_size or default_block_size(size))
    options = ImageOptions(
        size=size,
        block_size=block_size,
        inode_size=inode_size,
        inodes=inodes,
        inode_ratio=inode_ratio,
        reserved_percent=reserved_percent,
        reserved_blocks=reserved_blocks,
        journal_bytes=journal_bytes,
        journal=journal,
        label=label,
    )
    return build_image(builder.finish(MemoryContent()), where, options=options, stamp=stamp, offset=offset)


def build_image(
    tree: Tree,
    where: PathOrFile | BlockDevice,
    *,
    options: ImageOptions | None = None,
    stamp: Stamp | None = None,
    offset: int = 0,
    progress: Progress | None = None,
    allow_changed: bool = False,
) -> BuildResult:
    """Create an ext3 filesystem that holds ``tree``, in ``where`` from byte ``offset`` on.

    Raised before the first byte is written: NoSpaceError, NoInodesError,
    GeometryError, SourceError, XattrError. While writing: DeviceError, SourceError, ContentChangedError. A path or file
    object is written in place, so an interruption leaves a partial image.
    """
    plan = plan_tree(tree, options or ImageOptions(), stamp or Stamp.now())
    with open_device(where, writable=True, offset=offset, size=plan.geometry.size_bytes) as device:
        write_image(plan, device, progress=progress, allow_changed=allow_changed)
    return result(plan)


def plan_tree(tree: Tree, options: ImageOptions, stamp: Stamp) -> Plan:
    """Plan an image of ``tree``; a lost+found that was added to it gets the stamp's time."""
    if len(options.label) > LABEL_MAX:
        raise GeometryError(f"the label has {len(options.label)} bytes; ext3 holds {LABEL_MAX}", field="label", most=LABEL_MAX)
    if tree.lost_found_made:
        for name in ("atime", "mtime", "ctime"):
            tree.nodes[name][tree.lost_found] = stamp.seconds
    return plan_image(tree, options, stamp)


def write_image(plan: Plan, device: BlockDevice, *, progress: Progress | None = None, allow_changed: bool = False) -> None:
    """Write a plan, read part of it back, and sync the device.

    Raises CorruptError if it does not read back as planned, DeviceError, SourceError, ContentChangedError.
    """
    progress = progress or Silent()
    tables = emit(plan, device, progress, allow_changed=allow_changed)
    progress.phase("verify", len(plan.tree), "files")
    verify(plan, device, tables)  # while write-back goes on
    progress.advance(len(plan.tree))
    progress.phase("sync", None, "bytes")
    device.sync()
    progress.done()


def result(plan: Plan) -> BuildResult:
    """Return the result of a plan that was written."""
    return BuildResult(plan.geometry, UUID(bytes=plan.stamp.uuid), plan.free_blocks, plan.free_inodes)
