"""Environment variables: those Apptainer has for the same options, SOURCE_DATE_EPOCH and TMPDIR."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import values
from .console import Console

if TYPE_CHECKING:
    from ...sif import SIFStamp

__all__ = ["runtime_flag", "sif_stamp", "source_date_epoch", "temporary_dir"]


def runtime_flag(name: str, console: Console, *, default: bool = False) -> bool:
    """Value of APPTAINER_NAME, else of SINGULARITY_NAME (with a warning), else ``default``."""
    current, old = f"APPTAINER_{name}", f"SINGULARITY_{name}"
    if current in os.environ:
        return values.boolean(current, os.environ[current])
    if old in os.environ:
        console.warn(f"{old} is an old name; set {current} instead")
        return values.boolean(old, os.environ[old])
    return default


def source_date_epoch() -> int | None:
    """Value of SOURCE_DATE_EPOCH in seconds since 1970; None if it is unset or empty."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return values.epoch("SOURCE_DATE_EPOCH", text) if text else None


def temporary_dir() -> str | None:
    """Value of TMPDIR; None if it is unset or empty."""
    return os.environ.get("TMPDIR") or None


def sif_stamp(deterministic: bool) -> SIFStamp | None:
    """Timestamps of an edited SIF image: none if ``deterministic``, else SOURCE_DATE_EPOCH; None for the present time."""
    from ...sif import SIFStamp

    if deterministic:
        return SIFStamp.deterministic()
    seconds = source_date_epoch()
    return None if seconds is None else SIFStamp.at(seconds)
