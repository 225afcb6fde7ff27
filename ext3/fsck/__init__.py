"""Check and repair of a filesystem: problems, policies, one module for each pass.

import ext3

with open("overlay.img", "rb") as file:
    report = ext3.fsck.check(ext3.FileDevice(file.fileno()), ext3.fsck.CheckOnly())
for finding in report.findings:
    print(finding.code, finding.message)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checking import check
    from .context import CheckOptions
    from .finding import Finding, Report
    from .policy import Ask, CheckOnly, Policy, Preen, Stopped, Yes
    from .problem import Place, PreenAnswer, Problem
    from .undo import UndoRecorder, UndoResult, put_back

__all__ = [
    "Ask",
    "CheckOnly",
    "CheckOptions",
    "Finding",
    "Place",
    "Policy",
    "PreenAnswer",
    "Preen",
    "Problem",
    "Report",
    "Stopped",
    "UndoRecorder",
    "UndoResult",
    "Yes",
    "check",
    "put_back",
]

_HOME = {
    ".checking": ("check",),
    ".context": ("CheckOptions",),
    ".finding": ("Finding", "Report"),
    ".policy": ("Ask", "CheckOnly", "Policy", "Preen", "Stopped", "Yes"),
    ".problem": ("Place", "PreenAnswer", "Problem"),
    ".undo": ("UndoRecorder", "UndoResult", "put_back"),
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
