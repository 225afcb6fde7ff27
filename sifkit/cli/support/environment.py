"""Environment variables of commands: those Apptainer has for the same thing, and SOURCE_DATE_EPOCH."""

from __future__ import annotations

import os

from . import values
from .console import Console

__all__ = ["runtime_flag", "source_date_epoch"]


def runtime_flag(name: str, console: Console, *, default: bool = False) -> bool:
    """APPTAINER_NAME, then SINGULARITY_NAME (with a warning), then ``default``."""
    current, old = f"APPTAINER_{name}", f"SINGULARITY_{name}"
    if current in os.environ:
        return values.truth(current, os.environ[current])
    if old in os.environ:
        console.warn(f"{old} is an old name; set {current} instead")
        return values.truth(old, os.environ[old])
    return default


def source_date_epoch() -> int | None:
    """Seconds since 1970 from SOURCE_DATE_EPOCH; None where it is not set or empty."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return values.epoch("SOURCE_DATE_EPOCH", text) if text else None
