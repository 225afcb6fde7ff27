"""Overlays: where container conventions (upper/, work/), SIF images and the ext3 library meet.

``create(path, options)`` makes one, see ``CreateOptions``; ``embed`` makes one inside a SIF; ``attach`` and ``detach`` move
one in and out; ``clone`` copies one; ``image_info`` tells about one. Nothing here prints or reads the environment. Names are
imported when they are first used: a command pays for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .attaching import attach as attach
    from .attaching import detach as detach
    from .cloning import clone as clone
    from .creating import create as create
    from .embedding import embed as embed
    from .info import ImageInfo as ImageInfo
    from .info import image_info as image_info
    from .options import CreateOptions as CreateOptions
    from .options import CreateResult as CreateResult
    from .options import Progress as Progress
    from .partition import EmbedOptions as EmbedOptions

_MODULE_OF = {
    "CreateOptions": ".options",
    "CreateResult": ".options",
    "EmbedOptions": ".partition",
    "ImageInfo": ".info",
    "Progress": ".options",
    "attach": ".attaching",
    "clone": ".cloning",
    "create": ".creating",
    "detach": ".attaching",
    "embed": ".embedding",
    "image_info": ".info",
}

__all__ = [
    "CreateOptions",
    "CreateResult",
    "EmbedOptions",
    "ImageInfo",
    "Progress",
    "attach",
    "clone",
    "create",
    "detach",
    "embed",
    "image_info",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
