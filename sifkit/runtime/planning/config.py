"""Configuration of a site: what apptainer.conf says of binds, mounts and images that may run. Pure.

The defaults are those of Apptainer 1.4.5. Directives that do not concern us are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ...errors import FormatError, show

__all__ = ["SiteConfig", "config_paths", "parse_config"]

MIB = 1 << 20


class SiteConfig(NamedTuple):
    """Directives of apptainer.conf, by their names with ``_`` for spaces. ``path``: the file, empty for the defaults.

    ``mount_dev``: "yes", "no" or "minimal". ``root_default_capabilities``: "full", "no" or "file". ``enable_overlay``: "yes",
    "no", "try" or "driver". ``sessiondir_max_size``: MiB. ``bind_path``: as for ``--bind``.
    """

    path: str = ""
    allow_user_ns: bool = True
    allow_pid_ns: bool = True
    allow_ipc_ns: bool = True
    allow_uts_ns: bool = True
    config_passwd: bool = True
    config_group: bool = True
    config_resolv_conf: bool = True
    mount_proc: bool = True
    mount_sys: bool = True
    mount_dev: str = "yes"
    mount_devpts: bool = True
    mount_home: bool = True
    mount_tmp: bool = True
    mount_hostfs: bool = False
    bind_path: tuple[str, ...] = ("/etc/localtime", "/etc/hosts")
    user_bind_control: bool = True
    enable_overlay: str = "yes"
    enable_underlay: str = "yes"
    mount_slave: bool = True
    sessiondir_max_size: int = 64
    limit_container_owners: tuple[str, ...] = ()
    limit_container_groups: tuple[str, ...] = ()
    limit_container_paths: tuple[str, ...] = ()
    allow_container_sif: bool = True
    allow_container_encrypted: bool = True
    allow_container_squashfs: bool = True
    allow_container_extfs: bool = True
    allow_container_dir: bool = True
    always_use_nv: bool = False
    always_use_rocm: bool = False
    root_default_capabilities: str = "full"

    def memory_bytes(self, uid: int) -> int | None:
        """Size of a filesystem in memory that a run gets: plain users are limited, root is not (None)."""
        return None if uid == 0 else self.sessiondir_max_size * MIB


WORDS: Mapping[str, tuple[str, ...]] = {
    "mount_dev": ("yes", "no", "minimal"),
    "enable_overlay": ("yes", "no", "try", "driver"),
    "enable_underlay": ("yes", "no", "preferred"),
    "root_default_capabilities": ("full", "file", "no"),
}
"""Values of directives that are words."""
ABSENT = "NULL"
"""Value of the ``limit container`` directives that stands for none."""


def parse_config(text: str, path: str) -> SiteConfig:
    """Parse a configuration file. Raises FormatError with the line of a value that is not valid.

    ``bind path`` and the ``limit`` directives may be repeated and have several values with commas; of others the last counts.
    """
    names = set(SiteConfig._fields) - {"path"}
    defaults = SiteConfig()
    values: dict[str, object] = {}
    lists: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        key, equals, value = line.partition("=")
        name, value = "_".join(key.split()), value.strip()
        if line.lstrip().startswith("#") or not equals or name not in names:
            continue
        default = getattr(defaults, name)
        try:
            if isinstance(default, tuple):
                lists.setdefault(name, []).extend(part for one in value.split(",") if (part := one.strip()) not in ("", ABSENT))
            elif value:
                values[name] = _value(name, value, default)
        except ValueError as error:
            wanted = f"{show(' '.join(key.split()))} = {show(value)[:80]}: {error}"
            raise FormatError(f"{show(path)}, line {number}: {wanted}", path=path, hint="tell the administrator") from error
    found: dict[str, object] = {name: tuple(parts) for name, parts in lists.items()}
    return SiteConfig(path=path, **values, **found)  # type: ignore[arg-type]


def _value(name: str, text: str, default: object) -> object:
    """Return the value of a directive. Raises ValueError."""
    if isinstance(default, bool):
        if text not in ("yes", "no"):
            raise ValueError("it must be yes or no")
        return text == "yes"
    if isinstance(default, int):
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise ValueError("it must be a number")
        return int(text)
    if text not in WORDS[name]:
        raise ValueError(f"it must be one of {', '.join(WORDS[name])}")
    return text


def config_paths(programs: Iterable[str], machine: str) -> Iterator[str]:
    """Yield where a configuration may be; the first that exists counts.

    ``programs``: real paths of ``apptainer`` and ``singularity`` in the caller's PATH; one in /opt/x/bin has its file in
    /opt/x/etc, one that a plain user has installed in /opt/x/MACHINE/etc. ``machine``: as the kernel calls it.
    """
    yield "/etc/apptainer/apptainer.conf"
    yield "/etc/singularity/singularity.conf"
    for program in programs:
        prefix, _, folder = program.rpartition("/")[0].rpartition("/")
        if folder == "bin":
            for place in (prefix, f"{prefix}/{machine}"):
                yield from (f"{place}/etc/{name}/{name}.conf" for name in ("apptainer", "singularity"))
