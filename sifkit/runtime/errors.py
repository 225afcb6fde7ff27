"""Errors of running containers. The exit code of all of them is 255, as Apptainer's."""

from __future__ import annotations

import errno
import os

from ..errors import SifkitError, show

__all__ = ["LaunchError", "failed_call", "unmounted", "unwritten"]


class LaunchError(SifkitError):
    """Container that cannot be started, or whose end went wrong."""

    kind = "launch"
    exit_code = 255


def failed_call(what: str, error: OSError, *, hint: str = "") -> LaunchError:
    """Return the error of a step of the start, ``what``, in which a system call failed."""
    reason = error.strerror or str(error)
    tried = f" ({show(os.fsdecode(error.filename))})" if isinstance(error.filename, str | bytes) else ""
    return LaunchError(f"{what}: {reason}{tried}", hint=hint)


def unmounted(name: str, error: OSError, *, hint: str = "") -> LaunchError:
    """Return the error of what cannot be mounted. ``name``: of it, for messages.

    Devices and places of the session, which the call names, are not what the user knows it by.
    """
    return LaunchError(f"{name} cannot be mounted: {error.strerror}", hint=hint)


def unwritten(name: str, error: OSError | None = None, *, check: str = "") -> LaunchError:
    """Return the error of an image whose last changes are not on storage.

    ``error``: the first one that says so. ``check``: command that checks the image, where lack of space is not the reason.
    """
    reason = "" if error is None else f": {error.strerror}"
    hint = "see whether its disk has free space; what was synced before is there"
    if check and error is not None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
        hint = f"check it with: {check}"
    return LaunchError(f"{show(name)}: the last changes could not be written{reason}", hint=hint)
