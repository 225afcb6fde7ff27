"""Facts of a mounted container, and what is made of them: the start of the command, its passwd and group.

The files are an image's: paths are resolved below its root, and sizes and numbers are bounded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from ...errors import FormatError, show
from ..planning.run_plan import Command, Mount, RunPlan, Start
from .accounts import group_text, passwd_text
from .container_mounts import read_small_file
from .mount_points import resolve_below
from .start import ENVIRONMENT_DIRECTORY, RUNSCRIPT, ContainerFacts, start_of

__all__ = ["mounts_with_accounts", "read_container_facts", "start_in_container"]

MOST_SCRIPTS = 1000


def start_in_container(program: str, notify: Callable[[str], None]) -> Callable[[RunPlan, str], Start]:
    """Return the function that gives ``launch`` the command's words and environment. ``program``: for messages."""

    def start(plan: RunPlan, root: str) -> Start:
        facts = read_container_facts(plan.command, root)
        cwd = _working_directory(plan, root)
        found = start_of(plan.command, plan.environment, facts, cwd=_without_dots(root, cwd), program=program)
        if cwd != plan.cwd[0]:
            trouble = "cannot be entered" if _is_directory(root, plan.cwd[0]) else "is not in the container"
            notify(f"{show(plan.cwd[0])} {trouble}; the command starts in {show(cwd)}")
        temporary = plan.environment.passed.get("TMPDIR")
        if temporary and not _is_directory(root, temporary):
            shown = show(temporary)
            if os.path.isdir(temporary):  # this process still has the root of the host
                notify(f"TMPDIR is {shown}, which the container does not show; show it with -B {shown}")
            else:
                notify(f"TMPDIR is {shown}, which does not exist; programs that need it use /tmp or fail")
        for note in found.notes:
            notify(note)
        return found

    return start


def read_container_facts(command: Command, root: str) -> ContainerFacts:
    """Return the facts that decide how ``command`` starts in the container mounted at ``root``. Raises FormatError."""
    has_shell, has_bash = _is_executable(root, "/bin/sh"), _is_executable(root, "/bin/bash")
    app = f"/scif/apps/{command.app}" if command.app else ""
    runscript = f"{app}/scif/runscript" if app else RUNSCRIPT
    return ContainerFacts(
        shell=has_shell,
        bash=has_bash,
        scripts=tuple(_scripts(root, read=not (has_shell or has_bash))),
        runscript=runscript if _is_executable(root, runscript) else "",
        has_app=not app or _is_directory(root, app),
        has_asked_shell=bool(command.shell) and _is_executable(root, command.shell),
    )


def mounts_with_accounts(plan: RunPlan, root: str) -> tuple[Mount, ...]:
    """Return the mounts of a plan with the content of passwd and group, made of those in the container at ``root``."""
    makers = {"passwd": passwd_text, "group": group_text}
    return tuple(
        mount._replace(content=makers[mount.edit](read_small_file(root, mount.target) or b"", plan.account), edit="")
        if mount.edit
        else mount
        for mount in plan.mounts
    )


def _existing(root: str, path: str) -> bytes | None:
    """Return where a path of the container is on the host; None if it is missing."""
    try:
        found = resolve_below(os.fsencode(root), os.fsencode(path))
    except OSError:
        return None
    return None if found.missing else found.below(os.fsencode(root))


def _is_executable(root: str, path: str) -> bool:
    found = _existing(root, path)
    return found is not None and stat.S_ISREG(os.lstat(found).st_mode) and os.access(found, os.X_OK)


def _is_directory(root: str, path: str, *, entered: bool = False) -> bool:
    """Return True if ``path`` is a directory of the container; with ``entered``, one that the command can be in."""
    found = _existing(root, path)
    return found is not None and stat.S_ISDIR(os.lstat(found).st_mode) and (not entered or os.access(found, os.X_OK))


def _working_directory(plan: RunPlan, root: str) -> str:
    """Return the working directory that the command will have. Raises FormatError if it cannot be the one asked for."""
    found = next((path for path in plan.cwd if _is_directory(root, path, entered=True)), "/")
    if plan.is_cwd_required and found != plan.cwd[0]:
        trouble = "permission denied" if _is_directory(root, plan.cwd[0]) else "no such directory in the container"
        raise FormatError(f"--cwd {show(plan.cwd[0])}: {trouble}")
    return found


def _without_dots(root: str, path: str) -> str:
    """Return a directory of the container for PWD, where ``.`` and ``..`` are not allowed; links stay if there are none."""
    if not {".", ".."} & set(path.split("/")):
        return "/" + path.strip("/")
    return "/" + os.fsdecode(b"/".join(resolve_below(os.fsencode(root), os.fsencode(path)).existing))


def _scripts(root: str, *, read: bool) -> Iterator[tuple[str, bytes]]:
    """Yield names and, with ``read``, contents of the environment scripts, in the order in which a shell lists them."""
    directory = _existing(root, ENVIRONMENT_DIRECTORY)
    if directory is None:
        return
    try:
        listed = [os.fsdecode(name) for name in os.listdir(directory)]
    except OSError:
        return
    names = sorted(name for name in listed if name.endswith(".sh") and not name.startswith("."))
    if len(names) > MOST_SCRIPTS:
        raise FormatError(f"{ENVIRONMENT_DIRECTORY} in the container has more than {MOST_SCRIPTS:,} scripts")
    for name in names:
        yield name, (read_small_file(root, f"{ENVIRONMENT_DIRECTORY}/{name}") or b"") if read else b""
