"""Planner of a run: request, facts of the host and configuration of the site in, plan out. Pure.

All that can be refused is refused here, before anything is mounted.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence

from ...errors import UsageError, show
from .binds import BindSpec, user_binds
from .config import SiteConfig
from .environment import EnvironmentRequest, parse_assignments, plan_environment
from .layer_plan import PlannedLayers, check_images, choose_way, plan_layers
from .mount_plan import PlannedMounts, plan_mounts
from .options import RunOptions
from .request import GpuMaker, HostFacts, RunRequest
from .run_plan import Account, Command, ContainerEnvironment, DataImage, Layer, Namespace, RunPlan, Upper, Way
from .shell_words import parse_environment_file

__all__ = ["gpu_makers", "plan_run"]

HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
LONGEST_HOSTNAME = 64
USUAL_UMASK = 0o022


def plan_run(request: RunRequest, host: HostFacts, site: SiteConfig) -> RunPlan:
    """Return the plan of a run.

    Raises UsageError for options that contradict each other or the site, FormatError for images and files, NoWayError if the
    host does not allow it.
    """
    _check(request, host)
    check_images(request, site)
    layers = plan_layers(request, site)
    way = choose_way(request, layers, host)
    root_notes: tuple[str, ...] = ()
    if way == "root" and request.options.fakeroot:
        request = request._replace(options=request.options._replace(fakeroot=False))
        root_notes = ("--fakeroot has no effect: you are root; for a user namespace write -u -f",)
    options = request.options
    namespaces, namespace_notes = _namespaces(options, site, way)
    binds = user_binds(options, request.caller.cwd)
    images, image_notes = _data_images(request, binds if site.user_bind_control else (), layers, way, host)
    upper = layers.upper
    if upper is not None and upper.kind == "image" and way == "user":
        upper = upper._replace(has_tmpfile=host.fuse_tmpfile.works)
    writes = upper is not None or layers.is_root_writable
    mounts = plan_mounts(
        request,
        site,
        namespaces,
        binds=binds,
        images=images,
        keeps_accounts=writes and (way == "root" or options.fakeroot or request.caller.uid == 0),
        is_root_writable=layers.is_root_writable,
    )
    environment, environment_notes = _environment(request, mounts, binds)
    drops_capabilities, capability_notes = _drops_capabilities(request, site)
    cwd, cwd_required, cwd_notes = _working_directory(request, mounts.home)
    return RunPlan(
        way=way,
        layers=layers.layers,
        upper=upper,
        is_root_writable=layers.is_root_writable,
        images=tuple(dict.fromkeys(images.values())),
        serves_images=host.fuse.works if images else True,
        mounts=tuple(mounts.mounts),
        command=Command(action=request.action, words=request.words, app=options.app, shell=options.shell),
        environment=environment,
        cwd=cwd,
        is_cwd_required=cwd_required,
        home=mounts.home,
        account=_account(request, mounts.home),
        namespaces=namespaces,
        fakeroot=options.fakeroot,
        drops_capabilities=drops_capabilities,
        hostname=options.hostname if options.hostname and "uts" in namespaces else None,
        umask=USUAL_UMASK if options.no_umask or options.compat else None,
        has_init=not (options.no_init or options.compat),
        cache=_cache(request) if way == "unpacked" or (images and way != "root" and not host.fuse.works) else "",
        joins_directories=_joins_directories(way, layers.layers, host),
        notes=(
            *layers.notes,
            *root_notes,
            *_memory_notes(way, upper, host),
            *image_notes,
            *namespace_notes,
            *capability_notes,
            *mounts.notes,
            *cwd_notes,
            *environment_notes,
            *_gpu_notes(request),
        ),
    )


def _data_images(
    request: RunRequest, binds: Sequence[BindSpec], layers: PlannedLayers, way: Way, host: HostFacts
) -> tuple[Mapping[BindSpec, DataImage], tuple[str, ...]]:
    """Return the data images of binds, and notes, as ``plan_data_images`` does."""
    if not any(spec.image_source for spec in binds):
        return {}, ()
    from .data_images import plan_data_images

    return plan_data_images(request, binds, layers, way, host)


def _cache(request: RunRequest) -> str:
    """Return the cache of unpacked images."""
    from .cache_path import cache_path

    return cache_path(request.caller.environment, home=request.caller.home, cwd=request.caller.cwd)


def _check(request: RunRequest, host: HostFacts) -> None:
    """Raise UsageError for options that cannot be carried out, whatever the images are."""
    options = request.options
    if request.action == "exec" and not request.words:
        raise UsageError("COMMAND is missing", hint="write: sifkit exec IMAGE COMMAND, or sifkit shell IMAGE")
    if request.action == "exec" and not request.words[0]:
        raise UsageError("COMMAND is empty", hint="a variable without a value may have been meant")
    if options.network not in ("", "none"):
        raise UsageError(f"--network {show(options.network)}: networks are not set up", hint="none is supported")
    if options.net and not options.network:
        raise UsageError("--net would set up a network, which is not supported", hint="for no network: --network none")
    if options.hostname and (len(options.hostname) > LONGEST_HOSTNAME or not HOSTNAME.fullmatch(options.hostname)):
        raise UsageError(f"--hostname {show(options.hostname)}: not a host name")
    if options.keep_privs and request.caller.uid != 0:
        raise UsageError("--keep-privs is for root", hint="leave it out")
    if options.pid and options.no_pid:
        raise UsageError("--pid and --no-pid exclude each other", hint="leave out one of them")
    if options.app and ("/" in options.app or options.app in (".", "..")):
        raise UsageError(
            f"--app {show(options.app)}: not the name of an app", hint="list them: sifkit inspect --list-apps IMAGE"
        )


def _namespaces(options: RunOptions, site: SiteConfig, way: Way) -> tuple[frozenset[Namespace], tuple[str, ...]]:
    """Return the namespaces that the command gets beside its own mounts, and notes on those the site does not allow.

    Raises UsageError if the user namespace is one of them.
    """
    contained = options.containall or options.compat
    found: set[Namespace] = set()
    if way != "root":
        found.add("user")
    if (options.pid or contained) and not options.no_pid:
        found.add("pid")
    if options.ipc or contained:
        found.add("ipc")
    if options.uts or options.hostname:
        found.add("uts")
    if options.network:
        found.add("net")
    allowed = {"user": site.allow_user_ns, "pid": site.allow_pid_ns, "ipc": site.allow_ipc_ns, "uts": site.allow_uts_ns}
    forbidden = {name for name in found if not allowed.get(name, True)}
    if "user" in forbidden:
        raise UsageError("this site does not allow user namespaces", hint=f"'allow user ns = no' in {show(site.path)}")
    notes = (
        f"this site does not allow {name.upper()} namespaces ('allow {name} ns = no' in {show(site.path)}): the host's is used"
        for name in sorted(forbidden)
    )
    return frozenset(found - forbidden), tuple(notes)


def _drops_capabilities(request: RunRequest, site: SiteConfig) -> tuple[bool, tuple[str, ...]]:
    """Return whether the command gets no capabilities, as a plain user or by the choice of root or the site, and notes."""
    options = request.options
    if options.fakeroot:
        return False, ()
    if options.no_privs or request.caller.uid != 0:
        return True, ()
    if site.root_default_capabilities == "full" or options.keep_privs:
        return False, ()
    if site.root_default_capabilities == "no":
        return True, ()
    reason = f"'root default capabilities = file' in {show(site.path)}, and capability.json is not read"
    return True, (f"root has no capabilities here: {reason}",)


def _joins_directories(way: Way, layers: Sequence[Layer], host: HostFacts) -> bool:
    """Return True if the kernel can join directories, where that matters: it takes time to find out."""
    if way == "directory" and layers[0].has_mounts:
        return False
    matters = way in ("unpacked", "directory") or (way != "root" and any(layer.kind == "directory" for layer in layers))
    return not matters or host.overlay.works


def _environment(
    request: RunRequest, mounts: PlannedMounts, binds: tuple[BindSpec, ...]
) -> tuple[ContainerEnvironment, tuple[str, ...]]:
    options, caller = request.options, request.caller
    from_files: dict[str, str] = {}
    for name, text in request.env_files:
        from_files |= parse_environment_file(text, name, {**caller.environment, **from_files})
    environment, notes = plan_environment(
        EnvironmentRequest(
            host=caller.environment,
            given=parse_assignments(options.env),
            from_files=from_files,
            cleanenv=options.cleanenv or options.containall or options.compat,
            no_eval=options.no_eval or options.compat,
            action=request.action,
            image=request.image.path,
            home=mounts.home,
            binds=[one.target for one in binds],
            app=options.app,
            with_libraries=any(gpu.libraries for gpu in request.gpus) or bool(options.containlibs),
        )
    )
    more = {name: value for name, value in mounts.variables.items() if name not in environment.injected}
    return environment._replace(passed={**environment.passed, **more}), notes


def _account(request: RunRequest, home: str) -> Account:
    caller = request.caller
    if request.options.fakeroot:
        return Account(uid=0, gid=0, name="root", group="root", home=home)
    return Account(
        uid=caller.uid,
        gid=caller.gid,
        name=caller.name,
        group=caller.group,
        home=home,
        shell=caller.shell,
        gecos=caller.gecos,
        groups=caller.groups,
    )


def _working_directory(request: RunRequest, home: str) -> tuple[tuple[str, ...], bool, tuple[str, ...]]:
    """Return the working directories to try, whether it must be the first, and notes."""
    options = request.options
    if options.cwd:
        return (posixpath.join("/", options.cwd),), True, ()
    if options.contain or options.containall or options.compat:
        return (home,), False, ()
    if not request.caller.cwd:
        return (home,), False, (f"the working directory was deleted; the command starts in {show(home)}",)
    return (request.caller.cwd, home), False, ()


def gpu_makers(options: RunOptions, site: SiteConfig) -> tuple[GpuMaker, ...]:
    """Return the makers of the GPUs that are shown."""
    found: dict[GpuMaker, bool] = {
        "Nvidia": (options.nv or site.always_use_nv) and not options.no_nv,
        "AMD": (options.rocm or site.always_use_rocm) and not options.no_rocm,
    }
    return tuple(maker for maker, is_shown in found.items() if is_shown)


def _memory_notes(way: Way, upper: Upper | None, host: HostFacts) -> tuple[str, ...]:
    if way == "root" or upper is None or upper.kind != "tmpfs" or host.tmpfs_upper.works:
        return ()
    reason = host.tmpfs_upper.reason
    return (f"a directory that is removed from the image cannot be made again in memory: {reason}",)


def _gpu_notes(request: RunRequest) -> Iterator[str]:
    """Yield notes on GPUs that the user asks for and the host has not."""
    asked = {"Nvidia": ("--nv", request.options.nv), "AMD": ("--rocm", request.options.rocm)}
    for gpu in request.gpus:
        option, is_asked = asked[gpu.maker]
        if is_asked and not gpu.devices:
            yield f"{option}: no {gpu.maker} GPU is found on this host"
