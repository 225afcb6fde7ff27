"""Overlay images as containers use them: ext3 with upper/ and work/, in a file or a partition of a SIF image.

``create(path, options)`` creates one, see ``CreateOptions``; ``embed`` creates one inside a SIF; ``attach`` and ``detach`` move
one in and out; ``clone`` copies one; ``resize`` gives it another size, ``rebuild`` a fresh filesystem; ``image_info`` describes
one; ``open_for_check`` checks and repairs one, ``undo_check`` takes that back; ``normalize`` makes removed files stay removed
for every user, ``share`` makes one ready for others; ``scan_tar`` adds an archive to a tree. ``open_container`` opens what a
container sees, ``open_root`` its root. Nothing here prints or reads the environment. Names are imported on first use, so that a
command loads only what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checking import CheckPlace as CheckPlace
    from .checking import ImageCheck as ImageCheck
    from .checking import open_for_check as open_for_check
    from .checking import undo_check as undo_check
    from .cloning import clone as clone
    from .creating.standalone import create as create
    from .creating.tar_source import TarScan as TarScan
    from .creating.tar_source import scan_tar as scan_tar
    from .embedding.attaching import attach as attach
    from .embedding.attaching import detach as detach
    from .embedding.in_partition import embed as embed
    from .images.reservation import EmbedOptions as EmbedOptions
    from .info import ImageInfo as ImageInfo
    from .info import image_info as image_info
    from .marks.normalizing import NormalizeOptions as NormalizeOptions
    from .marks.normalizing import normalize as normalize
    from .marks.sharing import check_shared as check_shared
    from .marks.sharing import share as share
    from .options import CreateOptions as CreateOptions
    from .options import CreateResult as CreateResult
    from .options import Progress as Progress
    from .resizing.image_resize import resize as resize
    from .resizing.rebuilding import RebuildOptions as RebuildOptions
    from .resizing.rebuilding import rebuild as rebuild
    from .resizing.resize_request import ResizeOptions as ResizeOptions
    from .resizing.resize_request import ResizeTarget as ResizeTarget
    from .view.container import Container as Container
    from .view.container import ContainerLayer as ContainerLayer
    from .view.container import open_container as open_container
    from .view.container import open_root as open_root

_MODULE_OF = {
    "CheckPlace": ".checking",
    "Container": ".view.container",
    "ContainerLayer": ".view.container",
    "CreateOptions": ".options",
    "CreateResult": ".options",
    "EmbedOptions": ".images.reservation",
    "ImageCheck": ".checking",
    "ImageInfo": ".info",
    "NormalizeOptions": ".marks.normalizing",
    "Progress": ".options",
    "RebuildOptions": ".resizing.rebuilding",
    "ResizeOptions": ".resizing.resize_request",
    "ResizeTarget": ".resizing.resize_request",
    "TarScan": ".creating.tar_source",
    "attach": ".embedding.attaching",
    "check_shared": ".marks.sharing",
    "clone": ".cloning",
    "create": ".creating.standalone",
    "detach": ".embedding.attaching",
    "embed": ".embedding.in_partition",
    "image_info": ".info",
    "normalize": ".marks.normalizing",
    "open_container": ".view.container",
    "open_for_check": ".checking",
    "open_root": ".view.container",
    "rebuild": ".resizing.rebuilding",
    "resize": ".resizing.image_resize",
    "scan_tar": ".creating.tar_source",
    "share": ".marks.sharing",
    "undo_check": ".checking",
}

__all__ = [
    "CheckPlace",
    "Container",
    "ContainerLayer",
    "CreateOptions",
    "CreateResult",
    "EmbedOptions",
    "ImageCheck",
    "ImageInfo",
    "NormalizeOptions",
    "Progress",
    "RebuildOptions",
    "ResizeOptions",
    "ResizeTarget",
    "TarScan",
    "attach",
    "check_shared",
    "clone",
    "create",
    "detach",
    "embed",
    "image_info",
    "normalize",
    "open_container",
    "open_for_check",
    "open_root",
    "rebuild",
    "resize",
    "scan_tar",
    "share",
    "undo_check",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULE_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
