"""ext3 images, made, read and changed in pure Python: no root, no mounting, no external program.

    import ext3

    ext3.mkfs("empty.img", 500 << 20)

    builder = ext3.TreeBuilder()
    ...
    ext3.build_image(builder.finish(content), "filled.img")

    with ext3.Filesystem.open("filled.img") as fs:
        print([entry.name for entry in fs.scandir("/")])

    with ext3.Filesystem.open("filled.img", "r+") as fs:
        etc = fs.path("/etc")
        etc.mkdir()
        (etc / "motd").write_text("changed through the image's own journal")

    with open("filled.img", "rb") as file:
        report = ext3.fsck.check(ext3.FileDevice(file.fileno()), ext3.CheckOnly())

Names are bytes; paths bytes, text or path objects; sizes bytes; times nanoseconds since 1970. Nothing here prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import fsck, resize
    from .device.base import BlockDevice, FileDevice, MemoryDevice
    from .edit.filesystem import WritableFilesystem
    from .errors import (
        CheckpointError,
        ContentChangedError,
        CorruptError,
        DeviceError,
        Ext3Error,
        GeometryError,
        JournalFullError,
        NeedsCheckError,
        NoFreeInodesError,
        NoInodesError,
        NoSpaceError,
        NotExt3Error,
        PathError,
        SourceError,
        TooSmallError,
        UnsupportedError,
        XattrError,
    )
    from .format.geometry import Geometry, plan_geometry
    from .fsck.context import CheckOptions
    from .fsck.finding import Finding, Report
    from .fsck.policy import Ask, CheckOnly, Preen, Yes
    from .newfs.builder import TreeBuilder
    from .newfs.content import Content, ContentFile, MemoryContent
    from .newfs.image import BuildResult, build_image, mkfs
    from .newfs.plan import ImageOptions
    from .newfs.stamp import Stamp
    from .newfs.tree import Tree
    from .read.filesystem import Entry, Filesystem, Stat
    from .read.path import Path
    from .scan.host_directory import ScanOptions, scan_directory

__version__ = "0.6.2"

__all__ = [
    "Ask",
    "BlockDevice",
    "BuildResult",
    "CheckOnly",
    "CheckOptions",
    "CheckpointError",
    "Content",
    "ContentChangedError",
    "ContentFile",
    "CorruptError",
    "DeviceError",
    "Entry",
    "Ext3Error",
    "FileDevice",
    "Filesystem",
    "Finding",
    "Geometry",
    "GeometryError",
    "ImageOptions",
    "JournalFullError",
    "MemoryContent",
    "MemoryDevice",
    "NeedsCheckError",
    "NoFreeInodesError",
    "NoInodesError",
    "NoSpaceError",
    "NotExt3Error",
    "Path",
    "PathError",
    "Preen",
    "Report",
    "ScanOptions",
    "SourceError",
    "Stamp",
    "Stat",
    "TooSmallError",
    "Tree",
    "TreeBuilder",
    "UnsupportedError",
    "WritableFilesystem",
    "XattrError",
    "Yes",
    "build_image",
    "fsck",
    "mkfs",
    "plan_geometry",
    "resize",
    "scan_directory",
]

# What is used brings its module with it: a reader need not load the writer, nor a directory's scan the tar reader.
_HOME = {
    ".newfs.builder": ("TreeBuilder",),
    ".newfs.content": (
        "Content",
        "ContentFile",
        "MemoryContent",
    ),
    ".newfs.image": (
        "BuildResult",
        "build_image",
        "mkfs",
    ),
    ".newfs.plan": ("ImageOptions",),
    ".scan.host_directory": (
        "ScanOptions",
        "scan_directory",
    ),
    ".fsck.context": ("CheckOptions",),
    ".fsck.finding": ("Finding", "Report"),
    ".fsck.policy": ("Ask", "CheckOnly", "Preen", "Yes"),
    ".newfs.stamp": ("Stamp",),
    ".newfs.tree": ("Tree",),
    ".device.base": (
        "BlockDevice",
        "FileDevice",
        "MemoryDevice",
    ),
    ".errors": (
        "CheckpointError",
        "ContentChangedError",
        "CorruptError",
        "DeviceError",
        "Ext3Error",
        "GeometryError",
        "JournalFullError",
        "NeedsCheckError",
        "NoFreeInodesError",
        "NoInodesError",
        "NoSpaceError",
        "NotExt3Error",
        "PathError",
        "SourceError",
        "TooSmallError",
        "UnsupportedError",
        "XattrError",
    ),
    ".read.filesystem": (
        "Entry",
        "Filesystem",
        "Stat",
    ),
    ".read.path": ("Path",),
    ".format.geometry": (
        "Geometry",
        "plan_geometry",
    ),
    ".edit.filesystem": ("WritableFilesystem",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name in ("fsck", "resize"):
        from importlib import import_module

        return import_module(f".{name}", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULE_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
