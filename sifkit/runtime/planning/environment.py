"""Environment of a container: what passes from the host, what the user sets, what is always there. Pure.

The rules are Apptainer's (1.4.5, tried): the host's variables pass unless the image sets them; ``--env``, ``--env-file`` and
``APPTAINERENV_X`` are set over what the image sets; PATH, LD_LIBRARY_PATH and HOME of the host do not pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...errors import UsageError, show
from .run_plan import NO_VARIABLES, ContainerEnvironment

__all__ = [
    "DEFAULT_PATH",
    "LIBRARY_PATH",
    "EnvironmentRequest",
    "is_variable_name",
    "parse_assignments",
    "plan_environment",
]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIBRARY_PATH = "/.singularity.d/libs"
"""Directory of the host's libraries in a container (``--nv``)."""
PROMPT = "Apptainer> "
PREFIXES = ("APPTAINER", "SINGULARITY")
"""Prefixes of variables, the present one first."""
HOST_PATH_SUFFIX = "/bin:/usr/bin:/sbin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
KEPT_BY_CLEANENV = {"TERM", "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"}
"""Variables of the host that pass with ``--cleanenv``; of the proxies in capital letters too."""
KEPT_BY_CLEANENV |= {name.upper() for name in KEPT_BY_CLEANENV}
NOT_PASSED = {"HOME", "PATH", "LD_LIBRARY_PATH", "PWD"}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EnvironmentRequest(NamedTuple):
    """Sources of the environment.

    ``host``: the variables of the caller. ``given``: of ``--env``; ``from_files``: of ``--env-file``. ``image``: the image as
    Apptainer shows it, an absolute path. ``binds``: targets of the user's.
    """

    host: Mapping[str, str]
    given: Mapping[str, str] = NO_VARIABLES
    from_files: Mapping[str, str] = NO_VARIABLES
    cleanenv: bool = False
    no_eval: bool = False
    action: str = "exec"
    image: str = ""
    home: str = "/"
    binds: Sequence[str] = ()
    app: str = ""
    with_libraries: bool = False


def is_variable_name(text: str) -> bool:
    """Return True if a shell accepts ``text`` as the name of a variable."""
    return NAME.fullmatch(text) is not None


def parse_assignments(texts: Sequence[str]) -> dict[str, str]:
    """Parse the values of ``--env``: ``A=1,B=2``, a value with a comma as ``"A=x,y"``. Raises UsageError.

    Spaces before a name are skipped. A part without ``=`` after a comma belongs to the value before it if the whole has one
    assignment only: ``A=x,y``.
    """
    found: dict[str, str] = {}
    for text in texts:
        for part in _fields(text):
            name, equals, value = part.lstrip().partition("=")
            if not equals:
                raise UsageError(f"--env {show(text)}: {show(part) or 'an empty part'} is no NAME=VALUE", hint=_env_hint(text))
            if not is_variable_name(name):
                raise UsageError(f"--env {show(text)}: {show(name) or 'an empty text'} is not the name of a variable")
            found[name] = value
    return found


def _env_hint(text: str) -> str:
    return f"quote a value with commas: --env '\"{show(text)}\"'" if text.count("=") == 1 else "write --env A=1,B=2"


def _fields(text: str) -> list[str]:
    """Split a line of comma-separated values; one assignment alone may have commas in its value."""
    if "," not in text and '"' not in text:
        return [text]
    if text.count("=") == 1 and not text.startswith('"'):
        return [text]
    import csv

    try:
        (row,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as error:
        raise UsageError(f"--env {show(text)}: {error}", hint="write --env A=1 --env B=2") from error
    return row


def plan_environment(request: EnvironmentRequest) -> tuple[ContainerEnvironment, tuple[str, ...]]:
    """Return the environment and the notes on variables that are left out."""
    notes: list[str] = []
    injected = {**_prefixed_variables(request.host, notes), **request.from_files, **request.given}
    prepend_path, append_path = (injected.pop(name, "") for name in ("PREPEND_PATH", "APPEND_PATH"))
    for name in ("HOME", "PWD"):
        if injected.pop(name, None) is not None:
            option = "--home" if name == "HOME" else "--cwd"
            notes.append(f"{name} cannot be set as a variable; use {option}")
    injected["PROMPT_COMMAND"] = _prompt_command(request, injected)
    environment = ContainerEnvironment(
        fixed=_fixed_variables(request),
        injected=injected,
        passed={name: value for name, value in _passed_variables(request).items() if name not in injected},
        prepend_path=prepend_path,
        append_path=append_path,
        is_evaluated=not request.no_eval,
        with_libraries=request.with_libraries,
    )
    return environment, tuple(notes)


def _prompt_command(request: EnvironmentRequest, injected: Mapping[str, str]) -> str:
    """Return what bash runs before its first prompt: it sets the prompt, after what is run before every prompt."""

    def literal(text: str) -> str:
        return text if request.no_eval else text.replace("$", "\\$").replace("`", "\\`")

    prompt = f'PS1="{injected.get("PS1", PROMPT)}"'
    inherited = "" if request.cleanenv else literal(request.host.get("PROMPT_COMMAND", ""))
    before = injected.get("PROMPT_COMMAND") or inherited
    if not before:
        return f"{prompt}; unset PROMPT_COMMAND"
    remove = literal('PROMPT_COMMAND="${PROMPT_COMMAND%%; PROMPT_COMMAND=*}"')
    return f"{before}; {remove}; {prompt}"


def _prefixed_variables(host: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    """Return the variables set as APPTAINERENV_X or SINGULARITYENV_X."""
    found: dict[str, str] = {}
    for prefix in (f"{one}ENV_" for one in PREFIXES):
        for variable in sorted(host):
            name = variable.removeprefix(prefix)
            if not variable.startswith(prefix) or not name:
                continue
            if found.setdefault(name, host[variable]) != host[variable]:
                notes.append(f"{variable} and {PREFIXES[0]}ENV_{name} differ; the latter is used")
    for name in [name for name in found if not is_variable_name(name)]:
        notes.append(f"{PREFIXES[0]}ENV_{show(name)} is ignored: no shell accepts the name")
        del found[name]
    return found


def _fixed_variables(request: EnvironmentRequest) -> dict[str, str]:
    """Return the variables that every container has, with the twins of old names."""
    name = request.image.rstrip("/").rpartition("/")[2]
    both = {
        "BIND": ",".join(request.binds),
        "CONTAINER": request.image,
        "ENVIRONMENT": "/.singularity.d/env/91-environment.sh",
        "NAME": name,
    }
    if request.app:
        both["APPNAME"] = request.app
    if request.no_eval:
        both["NO_EVAL"] = "1"
    fixed = {f"{prefix}_{key}": value for key, value in both.items() for prefix in PREFIXES}
    fixed |= {
        "APPTAINER_APPNAME": request.app,
        "APPTAINER_COMMAND": request.action,
        "HOME": request.home,
        "PATH": DEFAULT_PATH,
        "PS1": PROMPT,
    }
    return fixed


def _passed_variables(request: EnvironmentRequest) -> dict[str, str]:
    """Return the variables of the host that the container gets where it sets none itself."""
    if request.cleanenv:
        kept = {name: value for name, value in request.host.items() if name in KEPT_BY_CLEANENV}
        return {**kept, "LANG": "C", "PS1": PROMPT}
    own = tuple(f"{prefix}{middle}" for prefix in PREFIXES for middle in ("_", "ENV_"))
    passed = {name: value for name, value in request.host.items() if name not in NOT_PASSED and not name.startswith(own)}
    passed["PS1"] = PROMPT  # again: bash drops it where it is not interactive
    if path := request.host.get("PATH"):
        passed["USER_PATH"] = f"{path}:{HOST_PATH_SUFFIX}"
    return passed
