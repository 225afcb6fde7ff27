"""Trees of files, whatever holds them: one interface to read them (``FileTree``), and what is written once on it.

``HostTree`` is a directory of the host, ``Subtree`` and ``UpperView`` are views of another tree, ``UnionTree`` is a view of
layers; ``extract``, ``copy_file_out`` and ``copy_tree_out`` create files on the host. Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .copy_out import CopyOutOptions as CopyOutOptions
    from .copy_out import copy_file_out as copy_file_out
    from .copy_out import copy_tree_out as copy_tree_out
    from .extracting import ExtractResult as ExtractResult
    from .extracting import extract as extract
    from .file_tree import FileTree as FileTree
    from .host_tree import HostTree as HostTree
    from .subtree import Subtree as Subtree
    from .union import UnionTree as UnionTree
    from .upper_view import UpperView as UpperView

_MODULE_OF = {
    "CopyOutOptions": ".copy_out",
    "ExtractResult": ".extracting",
    "FileTree": ".file_tree",
    "HostTree": ".host_tree",
    "Subtree": ".subtree",
    "UnionTree": ".union",
    "UpperView": ".upper_view",
    "copy_file_out": ".copy_out",
    "copy_tree_out": ".copy_out",
    "extract": ".extracting",
}

__all__ = [
    "CopyOutOptions",
    "ExtractResult",
    "FileTree",
    "HostTree",
    "Subtree",
    "UnionTree",
    "UpperView",
    "copy_file_out",
    "copy_tree_out",
    "extract",
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
