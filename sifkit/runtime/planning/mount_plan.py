"""Mounts of a run below the root of the container: the kernel's filesystems, directories of the host, binds. Pure.

The order and the rules are Apptainer's (1.4.5, tried): dev, binds of the site, proc, sys, home, temporary and scratch
directories, generated files, binds of the user from the highest target to the deepest, the working directory. What the user
asks for and would be hidden in that order comes later: a home directory in /tmp, home and scratch directories in binds.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...errors import FormatError, UsageError, show
from .binds import BindSpec, has_devices, is_below, is_device_bind, is_inside, parse_home, site_bind_mounts, user_bind_mounts
from .config import SiteConfig
from .environment import LIBRARY_PATH
from .request import RunRequest
from .run_plan import DataImage, Mount, Namespace

__all__ = ["NO_MOUNT_NAMES", "PlannedMounts", "plan_mounts", "skipped_mounts"]

NO_MOUNT_NAMES = ("proc", "sys", "dev", "devpts", "home", "tmp", "hostfs", "cwd", "bind-paths")
"""Words of ``--no-mount``; a path is a bind of the site."""
SYSTEM_DIRECTORIES = {"/", "/bin", "/etc", "/lib", "/lib64", "/mnt", "/opt", "/sbin", "/usr", "/var"}
"""Working directories that are not shown in the container, which has its own."""
VIRTUAL_DIRECTORIES = ("/dev", "/proc", "/sys")
CGROUPS = "/sys/fs/cgroup"


class PlannedMounts:
    """Mounts in order, and what they imply. ``home``: in the container. ``variables``: of its environment."""

    __slots__ = ("home", "mounts", "notes", "variables")

    def __init__(self) -> None:
        self.mounts: list[Mount] = []
        self.home = "/"
        self.notes: list[str] = []
        self.variables: dict[str, str] = {}

    def covers(self, path: str) -> bool:
        """Return True if a bind of the host already shows ``path`` at the same place."""
        return any(
            mount.kind == "bind" and mount.source == mount.target and is_below(path, mount.target) for mount in self.mounts
        )


def skipped_mounts(texts: Sequence[str]) -> frozenset[str]:
    """Parse the values of ``--no-mount``. Raises UsageError."""
    words = [word for text in texts for word in text.split(",")]
    for word in words:
        if word not in NO_MOUNT_NAMES and not word.startswith("/"):
            hint = f"known: {' '.join(NO_MOUNT_NAMES)}, or the path of a bind of the site"
            raise UsageError(f"--no-mount {show(word) or 'with an empty value'}: no such mount", hint=hint)
    return frozenset(words)


def plan_mounts(
    request: RunRequest,
    site: SiteConfig,
    namespaces: frozenset[Namespace],
    *,
    binds: Sequence[BindSpec],
    images: Mapping[BindSpec, DataImage],
    keeps_accounts: bool = False,
    is_root_writable: bool = False,
) -> PlannedMounts:
    """Return the mounts of a run. ``images``: data images of binds.

    ``keeps_accounts``: passwd and group are the image's, so that root can change them. ``is_root_writable``: the root is a
    directory that is written to itself. Raises UsageError, and FormatError for a source that is missing.
    """
    planned = PlannedMounts()
    options = request.options
    skipped = skipped_mounts(options.no_mount)
    contained = options.contain or options.containall or options.compat
    _forbid_user_mounts(planned, request, site, binds)
    planned.mounts += _devices(request, site, skipped, namespaces, contained=contained)
    if site.mount_hostfs and "hostfs" not in skipped and not contained:
        planned.mounts += (_host_mount(path) for path in request.host_mounts)
    if "bind-paths" not in skipped:
        has_network = "net" not in namespaces
        planned.mounts += site_bind_mounts(planned.notes, request, site, skipped, has_network=has_network, contained=contained)
    planned.mounts += _kernel(request, site, skipped, namespaces)
    before_home = len(planned.mounts)
    _add_home(planned, request, site, skipped, contained=contained)
    if site.mount_tmp and "tmp" not in skipped:
        temporary = tuple(_temporary(request, site, contained=contained))
        has_home = any(is_inside(planned.home, mount.target) for mount in temporary)
        position = before_home if has_home else len(planned.mounts)  # the later mount is the one that is seen
        planned.mounts[position:position] = temporary
    if is_root_writable:  # no mount points are made there: only what is asked for must succeed, as with Apptainer
        asked = planned.home if options.home or options.workdir else ""
        planned.mounts = [one if one.target == asked else one._replace(is_optional=True) for one in planned.mounts]
    scratch = tuple(_scratch(request, site, is_root_writable=is_root_writable)) if site.user_bind_control else ()
    planned.mounts += scratch
    planned.mounts += _files(request, site, namespaces, keeps_accounts=keeps_accounts)
    if options.fakeroot:
        from .apt_settings import apt_settings

        apt = apt_settings(request, is_root_writable=is_root_writable)
        planned.mounts += apt.mounts
        planned.variables |= dict(apt.variables)
        planned.notes += apt.notes
    if site.user_bind_control:
        planned.mounts += _libraries_and_programs(request)
    targets = [mount.target for mount in scratch] + ([planned.home] if options.home else [])
    _add_binds(planned, tuple(user_bind_mounts(planned.notes, request, site, skipped, binds, images)), targets)
    if not contained and "cwd" not in skipped and not options.cwd and request.caller.cwd:
        _add_working_directory(planned, request, site)
    return planned


def _forbid_user_mounts(planned: PlannedMounts, request: RunRequest, site: SiteConfig, binds: Sequence[BindSpec]) -> None:
    """Note what the user asks for on a site without user binds. Raises UsageError for a home directory of his choice."""
    if site.user_bind_control:
        return
    options = request.options
    reason = f"'user bind control = no' in {show(site.path)}"
    if options.home:
        raise UsageError("this site does not allow --home", hint=reason)
    asked = {
        "--bind": any(not is_device_bind(spec) for spec in binds),
        "--scratch": bool(options.scratch),
        "--workdir": bool(options.workdir),
        "libraries of the host": any(gpu.libraries or gpu.programs or gpu.files for gpu in request.gpus)
        or bool(options.containlibs),
    }
    names = [name for name, is_asked in asked.items() if is_asked]
    if names:
        planned.notes.append(f"this site does not allow {', '.join(names)} ({reason}); ignored")


def _add_working_directory(planned: PlannedMounts, request: RunRequest, site: SiteConfig) -> None:
    """Add the working directory of the caller, unless it is a system directory or a mount shows it already."""
    cwd = request.caller.cwd
    paths = {cwd, request.caller.real_cwd or cwd}  # a symlink to /usr must not replace the container's
    if paths & SYSTEM_DIRECTORIES or any(is_below(path, virtual) for path in paths for virtual in VIRTUAL_DIRECTORIES):
        return
    if planned.covers(cwd):
        return
    if not site.user_bind_control:
        planned.notes.append(
            f"this site does not allow to show the working directory ('user bind control = no' in {show(site.path)})"
        )
        return
    in_home = bool(request.options.home) and is_below(cwd, planned.home)
    planned.mounts.append(Mount(kind="bind", source=cwd, target=cwd, is_optional=True, make_in_bind=in_home))


def _host_mount(path: str) -> Mount:
    return Mount(kind="bind", source=path, target=path, is_optional=True)


def _devices(
    request: RunRequest, site: SiteConfig, skipped: frozenset[str], namespaces: frozenset[Namespace], *, contained: bool
) -> Iterable[Mount]:
    """Return the mounts of /dev: the host's, or a small one of its own."""
    if not has_devices(site, skipped):
        return ()
    if not contained and site.mount_dev != "minimal":
        return (Mount(kind="bind", source="/dev", target="/dev", nodev=False, is_optional=True),)
    from .device_mounts import own_devices

    return own_devices(request, site, skipped, namespaces)


def _kernel(
    request: RunRequest, site: SiteConfig, skipped: frozenset[str], namespaces: frozenset[Namespace]
) -> Iterator[Mount]:
    """Yield /proc and /sys: new ones where PIDs or the network are the container's own, which the host's would not show.

    In a user namespace the kernel allows new ones in these cases only.
    """
    if site.mount_proc and "proc" not in skipped:
        if "pid" in namespaces:
            yield Mount(kind="proc", target="/proc", noexec=True)
        else:
            yield Mount(kind="bind", source="/proc", target="/proc", is_optional=True)
    if site.mount_sys and "sys" not in skipped:
        if "net" in namespaces:
            yield Mount(kind="sysfs", target="/sys", is_optional=True)
            if request.kind_of(CGROUPS) == "directory":
                yield Mount(kind="bind", source=CGROUPS, target=CGROUPS, is_optional=True)
        else:
            yield Mount(kind="bind", source="/sys", target="/sys", is_optional=True)


def _add_binds(planned: PlannedMounts, binds: Sequence[Mount], targets: Sequence[str]) -> None:
    """Add the binds of the user so that what lies in another is mounted after it, as are the mounts at ``targets``."""
    inside = [
        mount
        for mount in planned.mounts
        if mount.target in targets and any(is_inside(mount.target, bind.target) for bind in binds)
    ]
    planned.mounts = [mount for mount in planned.mounts if mount not in inside]
    planned.mounts += sorted((*inside, *binds), key=lambda mount: mount.target.count("/"))


def _add_home(
    planned: PlannedMounts, request: RunRequest, site: SiteConfig, skipped: frozenset[str], *, contained: bool
) -> None:
    """Add the home directory and set where it is. One that the host lacks is an empty one in memory, as with Apptainer.

    Raises UsageError, and FormatError for one that was asked for and cannot be used.
    """
    options = request.options
    source = request.caller.home if request.caller.home.startswith("/") else "/"
    target = "/root" if options.fakeroot else source
    if options.home:
        source, target = parse_home(options.home, request.caller.cwd)
        if request.kind_of(source) == "file" and not options.no_home:
            raise FormatError(f"{show(source)} is no directory", path=source, hint="it is the source of --home")
    planned.home = target
    if options.no_home or "home" in skipped or not (site.mount_home or options.home):
        return
    if target == "/" or (not options.home and target in SYSTEM_DIRECTORIES):  # such as /bin of the user sync
        planned.notes.append(f"the home directory {show(target)} cannot be shown in a container")
    elif contained and not options.home and options.workdir and site.user_bind_control:
        source = posixpath.join(_workdir(request), "home")
        planned.mounts.append(Mount(kind="bind", source=source, target=target, make_source=True, mode=0o700))
    elif contained and not options.home:
        planned.mounts.append(Mount(kind="tmpfs", target=target, size=site.memory_bytes(request.caller.uid)))
    elif request.kind_of(source) == "missing":
        reason = request.why_unreachable(source)
        if reason and options.home:
            raise FormatError(f"{show(source)}: {reason}", path=source, hint="it is the source of --home")
        what = f"cannot be reached ({reason})" if reason else "is missing on this host"
        planned.notes.append(f"the home directory {show(source)} {what}; an empty one in memory is shown")
        planned.mounts.append(Mount(kind="tmpfs", target=target, size=site.memory_bytes(request.caller.uid)))
    else:
        planned.mounts.append(Mount(kind="bind", source=source, target=target, is_optional=not options.home))


def _workdir(request: RunRequest) -> str:
    """Return the directory of ``--workdir``, absolute. Raises FormatError."""
    path = posixpath.normpath(posixpath.join(request.caller.cwd, request.options.workdir))
    if reason := request.why_unreachable(path):
        raise FormatError(f"--workdir {show(path)}: {reason}", path=path)
    if request.kind_of(path) == "file":
        raise FormatError(f"--workdir {show(path)}: not a directory", path=path)
    if request.kind_of(path) != "directory":
        raise FormatError(f"--workdir {show(path)}: no such directory", path=path, hint=f"create it with: mkdir {show(path)}")
    return path


def _temporary(request: RunRequest, site: SiteConfig, *, contained: bool) -> Iterator[Mount]:
    """Yield /tmp and /var/tmp. Where an image has one directory for both, by a link, it is the host's /tmp."""
    for target, name in (("/tmp", "tmp"), ("/var/tmp", "var_tmp")):
        if not contained:
            mount = Mount(kind="bind", source=target, target=target, is_optional=True)
        elif request.options.workdir and site.user_bind_control:
            source = posixpath.join(_workdir(request), name)
            mount = Mount(kind="bind", source=source, target=target, make_source=True, mode=0o1777)
        else:
            mount = Mount(kind="tmpfs", target=target, mode=0o1777, size=site.memory_bytes(request.caller.uid))
        yield mount._replace(hides_mount=target != "/var/tmp")


def _scratch(request: RunRequest, site: SiteConfig, *, is_root_writable: bool) -> Iterator[Mount]:
    """Yield the directories of ``--scratch``. Raises UsageError.

    For a root that is written to, no mount points are made for those in memory, as with Apptainer, not in /tmp either.
    """
    for path in (part for text in request.options.scratch for part in text.split(",")):
        target = posixpath.normpath(posixpath.join("/", path))
        if not path or target == "/":
            raise UsageError(f"--scratch {show(path) or 'with an empty value'}: it is no path below the root of the container")
        if request.options.workdir:
            source = posixpath.join(_workdir(request), "scratch", target.lstrip("/"))
            yield Mount(kind="bind", source=source, target=target, make_source=True, mode=0o700)
        else:
            size = site.memory_bytes(request.caller.uid)
            yield Mount(kind="tmpfs", target=target, size=size, make_target=not is_root_writable)


def _files(request: RunRequest, site: SiteConfig, namespaces: frozenset[Namespace], *, keeps_accounts: bool) -> Iterator[Mount]:
    """Yield the generated files. passwd and group are made of the container's own."""
    options = request.options
    content = request.resolv_conf
    if options.dns:
        content = _name_servers(options.dns)
    if site.config_resolv_conf and content is not None:
        yield Mount(kind="bind", target="/etc/resolv.conf", content=content, mode=0o644, is_optional=True)
    if options.hostname and "uts" in namespaces:
        hostname = f"{options.hostname}\n".encode()
        yield Mount(kind="bind", target="/etc/hostname", content=hostname, mode=0o644, is_optional=True)
    if site.config_passwd and not keeps_accounts:
        yield Mount(kind="bind", target="/etc/passwd", edit="passwd", mode=0o644, is_optional=True)
    if site.config_group and not keeps_accounts:
        yield Mount(kind="bind", target="/etc/group", edit="group", mode=0o644, is_optional=True)


def _name_servers(text: str) -> bytes:
    """Return a resolv.conf with the addresses of ``--dns``. Raises UsageError."""
    import ipaddress

    lines = []
    for part in text.split(","):
        try:
            lines.append(f"nameserver {ipaddress.ip_address(part.strip())}\n")
        except ValueError as error:
            raise UsageError(f"--dns {show(text)}: {show(part) or 'an empty part'} is no IP address") from error
    return "".join(lines).encode()


def _libraries_and_programs(request: RunRequest) -> Iterator[Mount]:
    """Yield the libraries and programs of GPUs, and the libraries that the caller names, read-only.

    Raises FormatError for one that he names and that is missing.
    """
    named = [
        posixpath.join(request.caller.cwd, path) for text in request.options.containlibs for path in text.split(",") if path
    ]
    for path in named:
        if request.kind_of(path) == "missing":
            reason = request.why_unreachable(path) or "no such file or directory"
            raise FormatError(f"{show(path)}: {reason}", path=path, hint="it is one of --containlibs")
    for source in dict.fromkeys([*(path for gpu in request.gpus for path in gpu.libraries), *named]):
        target = f"{LIBRARY_PATH}/{posixpath.basename(source)}"
        yield Mount(kind="bind", source=source, target=target, readonly=True, is_optional=True)
    for source in dict.fromkeys(path for gpu in request.gpus for path in gpu.programs):
        target = f"/usr/bin/{posixpath.basename(source)}"
        yield Mount(kind="bind", source=source, target=target, readonly=True, is_optional=True)
    for source in dict.fromkeys(path for gpu in request.gpus for path in gpu.files):
        yield Mount(kind="bind", source=source, target=source, readonly=True, is_optional=True)
