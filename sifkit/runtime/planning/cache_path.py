"""Path of the cache of unpacked images, from the environment of the caller. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

__all__ = ["CACHE_VARIABLES", "cache_path"]

CACHE_VARIABLES = ("APPTAINER_CACHEDIR", "SINGULARITY_CACHEDIR", "XDG_CACHE_HOME")
"""Directories of the caller's for what can be made again, the first that is set."""
NAME = "sifkit"


def cache_path(environment: Mapping[str, str], *, home: str, cwd: str) -> str:
    """Return the absolute path of the cache. ``home``: of the user database, for an environment without HOME."""
    for name in CACHE_VARIABLES:
        if environment.get(name):
            return posixpath.normpath(posixpath.join(cwd, environment[name], NAME))
    return posixpath.normpath(posixpath.join("/", environment.get("HOME") or home, ".cache", NAME))
