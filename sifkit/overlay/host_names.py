"""Users and groups of the host by name."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["group_id", "user_id"]

CACHED_NAMES = 4096


@lru_cache(CACHED_NAMES)  # a directory service may take a while for each
def user_id(name: str) -> int | None:
    """Return the uid of a user; None if there is none of this name, or if the system has no users."""
    try:
        import pwd

        return pwd.getpwnam(name).pw_uid
    except (ImportError, KeyError, ValueError):
        return None


@lru_cache(CACHED_NAMES)
def group_id(name: str) -> int | None:
    """Return the gid of a group; None if there is none of this name, or if the system has no groups."""
    try:
        import grp

        return grp.getgrnam(name).gr_gid
    except (ImportError, KeyError, ValueError):
        return None
