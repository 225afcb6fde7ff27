"""Growing and shrinking of a filesystem: planned as a whole, then carried out step by step, safe against interruption.

import os, ext3

fd = os.open("overlay.img", os.O_RDWR)
device = ext3.FileDevice(fd)
ext3.resize.finish(device)  # one that was interrupted
ready = ext3.resize.prepare(device)
ext3.resize.apply(device, ready.plan(1 << 30), device_bytes=1 << 30)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .application import ResizeResult, apply
    from .interruption import is_unfinished
    from .move_plan import MinimumSize, minimum_size
    from .prepared import Prepared, prepare
    from .resize_plan import ResizePlan, plan
    from .unfinished import finish

__all__ = [
    "MinimumSize",
    "Prepared",
    "ResizePlan",
    "ResizeResult",
    "apply",
    "finish",
    "is_unfinished",
    "minimum_size",
    "plan",
    "prepare",
]

_HOME = {
    ".application": ("ResizeResult", "apply"),
    ".prepared": ("Prepared", "prepare"),
    ".interruption": ("is_unfinished",),
    ".move_plan": ("MinimumSize", "minimum_size"),
    ".resize_plan": ("ResizePlan", "plan"),
    ".unfinished": ("finish",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
