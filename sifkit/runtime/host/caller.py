"""Caller of a run: his entry in the user database and his process; the configuration of his site. Linux only.

Read before any namespace is made: the user database may be a network service.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import suppress
from errno import EACCES

from ...errors import FormatError, InputError, show
from ..container.programs import find_program
from ..planning.config import SiteConfig, config_paths, parse_config
from ..planning.request import Caller

__all__ = ["current_caller", "emulated_architectures", "load_site_config", "read_host_mounts", "read_resolv_conf"]

LARGEST_FILE = 1 << 20
BINFMT = "/proc/sys/fs/binfmt_misc"
MOUNTS = "/proc/self/mountinfo"


def current_caller(environment: Mapping[str, str]) -> Caller:
    """Return the caller."""
    from ...sif.format.types import Arch

    uid, gid = os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwuid(uid)
        name, home, gecos, shell = entry.pw_name, entry.pw_dir, entry.pw_gecos, entry.pw_shell
    except KeyError:
        name, home, gecos, shell = str(uid), environment.get("HOME") or "/", "", ""
    cwd = _real_directory()
    groups = ((number, _group_name(number)) for number in os.getgroups())
    return Caller(
        uid=uid,
        gid=gid,
        name=name,
        group=_group_name(gid) or str(gid),
        home=home or "/",
        cwd=_working_directory(environment, cwd),
        real_cwd=cwd,
        terminal=_terminal(),
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


def _real_directory() -> str:
    """Return the working directory without links; empty if it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _working_directory(environment: Mapping[str, str], cwd: str) -> str:
    """Return the working directory ``cwd`` as the shell calls it, with its links, if that is right."""
    shown = environment.get("PWD", "")
    try:
        if cwd and shown.startswith("/") and "/../" not in f"{shown}/" and os.path.samefile(shown, cwd):
            return os.path.normpath(shown)
    except OSError:
        pass
    return cwd


def _terminal() -> str:
    """Return the device of the terminal that is stdin, stdout or stderr; empty if none is."""
    for fd in range(3):
        with suppress(OSError):
            return os.ttyname(fd)
    return ""


def emulated_architectures() -> tuple[str, ...]:
    """Return the architectures, in the words of Go, whose programs qemu-user runs here.

    Only emulators that the kernel has opened beforehand (flag F) work in a container, which does not have them.
    """
    from ...sif.format.types import Arch

    try:
        names = sorted(os.listdir(BINFMT))
    except OSError:
        return ()
    found = []
    for name in names:
        lines = (_text(f"{BINFMT}/{name}") or "").splitlines() if name.startswith("qemu-") else []
        flags = next((line.partition(":")[2] for line in lines if line.startswith("flags:")), "")
        if lines and lines[0] == "enabled" and "F" in flags:
            found.append(Arch.of_machine(name.removeprefix("qemu-")).word)
    return tuple(word for word in found if word != Arch.UNKNOWN.word)


def read_host_mounts() -> tuple[str, ...]:
    """Return the mount points of the host that a site may show. Raises OSError without /proc."""
    from .host_mounts import parse_host_mounts

    with open(MOUNTS, "rb") as file:
        return parse_host_mounts(file.read())


def load_site_config(environment: Mapping[str, str]) -> SiteConfig:
    """Read the configuration of the site; without one the defaults hold.

    Raises FormatError for a value that is not valid, and InputError if there is one that cannot be read.
    """
    for path in config_paths(_runtimes(environment.get("PATH", "")), os.uname().machine):
        text = _text(path)
        if text is None and os.path.exists(path):
            reason = PermissionError(EACCES, os.strerror(EACCES))
            raise InputError(f"{show(path)} cannot be read", path=path, error=reason, hint="tell the administrator")
        if text is not None:
            found = parse_config(text, path)
            limits = tuple(os.path.realpath(one) for one in found.limit_container_paths)
            return found._replace(limit_container_paths=limits) if limits else found
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
