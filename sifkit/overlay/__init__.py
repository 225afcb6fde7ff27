"""Overlays: where container conventions (upper/, work/) and the ext3 library meet.

``create(path, options)`` makes one, see ``CreateOptions``; ``clone`` copies one; ``image_info`` tells about one. Nothing here
prints or reads the environment. Names are imported when they are first used: a command pays for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clone import clone as clone
    from .create import create as create
    from .info import ImageInfo as ImageInfo
    from .info import image_info as image_info
    from .options import CreateOptions as CreateOptions
    from .options import CreateResult as CreateResult
    from .options import Progress as Progress

__all__ = ["CreateOptions", "CreateResult", "ImageInfo", "Progress", "clone", "create", "image_info"]

_MODULE_OF = {
    "CreateOptions": ".options",
    "CreateResult": ".options",
    "ImageInfo": ".info",
    "Progress": ".options",
    "clone": ".clone",
    "create": ".create",
    "image_info": ".info",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
