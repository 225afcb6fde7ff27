"""Caller of a run: his entry in the user database and his process; the configuration of his site. Linux only.

Read before any namespace is made: the user database may be a network service.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import suppress

from ..errors import FormatError, show
from .config import SiteConfig, config_paths, parse_config
from .container_process import find_program
from .request import Caller

__all__ = ["current_caller", "load_site_config", "read_resolv_conf"]

LARGEST_FILE = 1 << 20


def current_caller(environment: Mapping[str, str]) -> Caller:
    """Return the caller. Raises FileNotFoundError if his working directory was deleted."""
    from ..sif import Arch

    uid, gid = os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwuid(uid)
        name, home, gecos, shell = entry.pw_name, entry.pw_dir, entry.pw_gecos, entry.pw_shell
    except KeyError:
        name, home, gecos, shell = str(uid), environment.get("HOME") or "/", "", ""
    groups = ((number, _group_name(number)) for number in os.getgroups())
    return Caller(
        uid=uid,
        gid=gid,
        name=name,
        group=_group_name(gid) or str(gid),
        home=home or "/",
        cwd=_working_directory(environment),
        groups=tuple(one for one in groups if one[1]),
        gecos=gecos,
        shell=shell or "/bin/sh",
        machine=Arch.of_machine(os.uname().machine).word,
        environment=dict(environment),
    )


def _group_name(number: int) -> str:
    """Return the name of a group; empty if it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return ""


def _working_directory(environment: Mapping[str, str]) -> str:
    """Return the working directory as the shell calls it, with its links, if that is right."""
    cwd = os.getcwd()
    shown = environment.get("PWD", "")
    try:
        if shown.startswith("/") and "/../" not in f"{shown}/" and os.path.samefile(shown, cwd):
            return os.path.normpath(shown)
    except OSError:
        pass
    return cwd


def load_site_config(environment: Mapping[str, str]) -> SiteConfig:
    """Read the configuration of the site; without one the defaults hold. Raises FormatError for a value that is not valid."""
    for path in config_paths(_runtimes(environment.get("PATH", ""))):
        text = _text(path)
        if text is not None:
            return parse_config(text, path)
    return SiteConfig()


def _runtimes(path: str) -> Iterator[str]:
    """Yield the real paths of Apptainer and Singularity in the PATH, which are looked for when they are asked for."""
    for name in ("apptainer", "singularity"):
        with suppress(OSError):
            yield os.path.realpath(find_program(name, path))


def _text(path: str) -> str | None:
    """Return the text of a file; None if it is missing or not readable. Raises FormatError if it is absurdly large."""
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError:
        return None
    if len(raw) > LARGEST_FILE:
        raise FormatError(f"{show(path)} has more than 1 MiB", path=path)
    return raw.decode("utf-8", "surrogateescape")


def read_resolv_conf() -> bytes | None:
    """Return the host's resolv.conf; None if there is none."""
    text = _text("/etc/resolv.conf")
    return None if text is None else text.encode("utf-8", "surrogateescape")
