"""ext3 images, made and read in pure Python: no root, no mounting, no external program.

    import ext3

    ext3.mkfs("empty.img", 500 << 20)

    builder = ext3.TreeBuilder()
    ...
    ext3.build_image(builder.finish(content), "filled.img")

    with ext3.Filesystem.open("filled.img") as fs:
        print([entry.name for entry in fs.scandir("/")])

Names are bytes, sizes bytes, times whole seconds with nanoseconds beside them. Nothing here prints.
"""

from __future__ import annotations

from .build.image import BuildResult, build_image, mkfs
from .build.plan import ImageOptions
from .build.scan import ScanOptions, scan_directory
from .build.stamp import Stamp
from .build.tarball import scan_tar
from .build.tree import Content, ContentFile, MemoryContent, Tree, TreeBuilder
from .device import BlockDevice, FileDevice, MemoryDevice
from .errors import (
    ContentChangedError,
    CorruptError,
    DeviceError,
    Ext3Error,
    GeometryError,
    NoInodesError,
    NoSpaceError,
    NotExt3Error,
    PathError,
    SourceError,
    UnsupportedError,
    XattrError,
)
from .filesystem import Entry, Filesystem, Stat
from .geometry import Geometry, plan_geometry

__all__ = [
    "BlockDevice",
    "BuildResult",
    "Content",
    "ContentChangedError",
    "ContentFile",
    "CorruptError",
    "DeviceError",
    "Entry",
    "Ext3Error",
    "FileDevice",
    "Filesystem",
    "Geometry",
    "GeometryError",
    "ImageOptions",
    "MemoryContent",
    "MemoryDevice",
    "NoInodesError",
    "NoSpaceError",
    "NotExt3Error",
    "PathError",
    "ScanOptions",
    "SourceError",
    "Stamp",
    "Stat",
    "Tree",
    "TreeBuilder",
    "UnsupportedError",
    "XattrError",
    "build_image",
    "mkfs",
    "plan_geometry",
    "scan_directory",
    "scan_tar",
]
