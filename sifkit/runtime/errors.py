"""Errors of running containers. The exit code of all of them is 255, as Apptainer's."""

from __future__ import annotations

import os

from ..errors import SifkitError, show

__all__ = ["LaunchError", "failed_call"]


class LaunchError(SifkitError):
    """Container that cannot be started, or whose end went wrong."""

    kind = "launch"
    exit_code = 255


def failed_call(what: str, error: OSError, *, hint: str = "") -> LaunchError:
    """Return the error of a step of the start, ``what``, in which a system call failed."""
    reason = error.strerror or str(error)
    tried = f" ({show(os.fsdecode(error.filename))})" if isinstance(error.filename, str | bytes) else ""
    return LaunchError(f"{what}: {reason}{tried}", hint=hint)
