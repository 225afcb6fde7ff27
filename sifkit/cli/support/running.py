"""Run of a container for the command line: facts gathered, plan made, printed or carried out."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from ...errors import ImageInUseError, InputError, NotYetError, UsageError, human, show
from .console import Console

if TYPE_CHECKING:
    from ...runtime.planning.config import SiteConfig
    from ...runtime.planning.options import RunOptions, Value
    from ...runtime.planning.overlay_arguments import RunOverlay
    from ...runtime.planning.request import RunRequest
    from ...runtime.planning.run_plan import RunPlan
    from .progress import Reporter

__all__ = ["FAILED", "run_container", "run_or_report"]

LARGEST_ENV_FILE = 16 << 20
COERCED = "LC_CTYPE"
"""Variable that Python sets for itself in the locale C (PEP 538)."""
FAILED = 255
"""Exit code of every failure of ours."""
IN_USE_HINT = "runs at the same time need an overlay each, or share an image that all of them only read (:ro, in a bind ro)"


def run_or_report(
    console: Console, action: Literal["exec", "run", "shell"], image: str, words: tuple[str, ...], values: Mapping[str, Value]
) -> int:
    """Run a container as ``run_container`` does; an error is printed, and the exit code is 255."""
    try:
        return run_container(console, action, image, words, values)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except ImageInUseError as error:
        from .failures import report

        error.hint = IN_USE_HINT
        report(error, console)
        return FAILED
    except Exception as error:  # noqa: BLE001 - all errors become text here
        from .failures import report

        report(error, console)
        return FAILED


def run_container(
    console: Console, action: Literal["exec", "run", "shell"], image: str, words: tuple[str, ...], values: Mapping[str, Value]
) -> int:
    """Run a command in the container ``image``; return the exit code. ``values``: of the options, by their keys."""
    if not sys.platform.startswith("linux"):
        raise NotYetError("containers run on Linux only", hint="sifkit ls, cat and extract look into them here")
    from ...runtime.host.caller import load_site_config
    from ...runtime.host.probing import probe
    from ...runtime.planning.options import RunOptions, check_options, no_effect_notes, with_variables
    from ...runtime.planning.planner import plan_run

    found, notes = with_variables(values, os.environ, action)
    check_options(found, action)
    options = RunOptions.of(found)
    site = load_site_config(os.environ)
    request = _request(console, action, image, words, options, site)
    writes = (
        options.writable
        or options.writable_tmpfs
        or options.compat
        or any(not text.endswith(":ro") for text in options.overlay)
    )
    kinds = {request.image.kind, *(one.kind for one in request.overlays), *(one.kind for one in request.data_images.values())}
    fuse = kinds != {"directory"}
    plan = plan_run(request, probe(writes=writes, fuse=fuse), site)
    for note in (*notes, *no_effect_notes(found, action), *plan.notes):
        console.warn(note)
    if options.dry_run:
        from ...runtime.planning.plan_text import plan_lines

        for line in plan_lines(plan):
            console.line(line)
        return 0
    return _launched(console, plan)


def _request(
    console: Console,
    action: Literal["exec", "run", "shell"],
    image: str,
    words: tuple[str, ...],
    options: RunOptions,
    site: SiteConfig,
) -> RunRequest:
    """Gather the facts of a run."""
    from ...runtime.host.caller import current_caller, emulated_architectures, read_host_mounts, read_resolv_conf
    from ...runtime.host.image_facts import data_image_facts, image_facts, kind_of, overlay_facts, why_unreachable, with_owner
    from ...runtime.planning.binds import user_binds
    from ...runtime.planning.planner import gpu_makers
    from ...runtime.planning.request import GpuFiles, RunRequest

    found = image_facts(image)
    caller = current_caller(_inherited_variables(console))
    if found.architecture not in ("", caller.machine):
        caller = caller._replace(emulated=emulated_architectures())
    overlays: tuple[RunOverlay, ...] = ()
    if options.overlay:
        from ...runtime.planning.overlay_arguments import parse_run_overlays

        overlays = parse_run_overlays(options.overlay, kind_of)
    given = tuple(overlay_facts(one) for one in overlays)
    binds = user_binds(options, caller.cwd) if site.user_bind_control else ()
    named = dict.fromkeys((spec.source, spec.object_id) for spec in binds if spec.image_source)
    data_images = {one: data_image_facts(*one) for one in named}
    if site.limit_container_owners or site.limit_container_groups:
        found, given = with_owner(found), tuple(map(with_owner, given))
        data_images = {one: with_owner(facts) for one, facts in data_images.items()}
    gpus: tuple[GpuFiles, ...] = ()
    if makers := gpu_makers(options, site):
        from ...runtime.host.gpu_files import find_gpu_files

        gpus = tuple(find_gpu_files(maker, site.path, caller.environment.get("PATH", "")) for maker in makers)
    return RunRequest(
        action=action,
        image=found,
        words=words,
        options=options,
        caller=caller,
        overlays=given,
        data_images=data_images,
        env_files=tuple((name, _read_env_file(name)) for text in options.env_file for name in text.split(",")),
        kind_of=kind_of,
        why_unreachable=why_unreachable,
        resolv_conf=read_resolv_conf(),
        host_mounts=read_host_mounts() if site.mount_hostfs else (),
        gpus=gpus,
        repeat=(action, *console.arguments),
    )


def _inherited_variables(console: Console) -> dict[str, str]:
    """Return the environment as the caller gave it: without what this process or Python has added."""
    added = set(console.added_variables)
    try:
        with open("/proc/self/environ", "rb") as file:
            names = {entry.partition(b"=")[0] for entry in file.read().split(b"\0")}
        added |= {COERCED} - {os.fsdecode(name) for name in names}
    except OSError:
        pass  # without /proc it cannot be told
    return {name: value for name, value in os.environ.items() if name not in added}


def _read_env_file(name: str) -> str:
    """Return the text of an ``--env-file``. Raises InputError."""
    try:
        with open(name, "rb") as file:
            raw = file.read(LARGEST_ENV_FILE + 1)
    except OSError as error:
        raise InputError(f"--env-file {show(name)}: {error.strerror}", path=name, error=error) from error
    if len(raw) > LARGEST_ENV_FILE:
        raise UsageError(f"--env-file {show(name)} has more than {human(LARGEST_ENV_FILE)}")
    return raw.decode("utf-8", "surrogateescape")


def _launched(console: Console, plan: RunPlan) -> int:
    """Carry out a plan; return the exit code of its command."""
    from ...runtime.container.container_facts import start_in_container
    from ...runtime.launch import launch

    def progress() -> Reporter:
        from .progress import reporter

        return reporter("auto", console)

    start_of = start_in_container(console.program, console.warn)
    return launch(plan, start_of=start_of, notify=console.warn, progress=progress)
