"""Arguments of ``--bind``, ``--mount`` and ``--home``. Pure.

``SOURCE[:TARGET[:OPTIONS]]``, several with commas; a backslash before a comma or a colon makes it a part of the name. Options
are ``ro`` and ``rw``. Empty values and parts are skipped: scripts append to a list that may be empty. Source: Apptainer 1.4.5,
tried.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import NamedTuple

from ...errors import NotYetError, UsageError, show

__all__ = ["BindSpec", "parse_binds", "parse_home", "parse_mounts"]

IMAGE_OPTIONS = ("image-src", "id")
"""Options of binds from inside an image."""


class BindSpec(NamedTuple):
    """File or directory ``source`` of the host, seen at ``target`` in the container; both absolute."""

    source: str
    target: str
    readonly: bool = False


def parse_binds(texts: Sequence[str], cwd: str, *, option: str = "--bind") -> tuple[BindSpec, ...]:
    """Parse the values of ``--bind``. ``cwd``: where relative sources start. Raises UsageError."""
    return tuple(_bind(part, cwd, f"{option} {show(text)}") for text in texts for part in _parts(text) if part)


def _parts(text: str) -> list[str]:
    """Split at commas; a part that is an option belongs to the bind before it."""
    found: list[str] = []
    for part in _split(text, ","):
        if found and part.partition("=")[0] in ("ro", "rw", *IMAGE_OPTIONS) and _split(found[-1], ":")[2:]:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator that has no backslash before it; the backslashes stay."""
    found = [""]
    escaped = False
    for character in text:
        if character == separator and not escaped:
            found.append("")
        else:
            found[-1] += character
        escaped = character == "\\" and not escaped
    return found


def _unescaped(text: str) -> str:
    return text.replace("\\:", ":").replace("\\,", ",")


def _bind(text: str, cwd: str, what: str) -> BindSpec:
    source, *rest = _split(text, ":")
    if not source:
        raise UsageError(f"{what}: the source is empty", hint="write SOURCE[:TARGET[:ro]]")
    if len(rest) > 2:
        raise UsageError(f"{what}: {show(text)} has too many colons", hint="write SOURCE[:TARGET[:ro]]; \\: for one in a name")
    options = rest[1].split(",") if len(rest) == 2 else []
    for option in options:
        if option.partition("=")[0] in IMAGE_OPTIONS:
            raise NotYetError(f"{what}: binds from images are not supported", hint="use --overlay, or sifkit extract")
        if option not in ("ro", "rw"):
            raise UsageError(f"{what}: no such option {show(option) or 'as an empty one'}", hint="ro and rw are the options")
    source = _absolute(_unescaped(source), cwd)
    target = _unescaped(rest[0]) if rest and rest[0] else source
    return _spec(source, target, readonly="ro" in options, what=what)


def _spec(source: str, target: str, *, readonly: bool, what: str) -> BindSpec:
    if not target.startswith("/"):
        raise UsageError(f"{what}: {show(target)} is not an absolute path", hint="the target is a path in the container")
    target = posixpath.normpath(target.replace("//", "/"))
    if target == "/":
        raise UsageError(f"{what}: the target is the root of the container", hint="give a path in the container")
    return BindSpec(source, target, readonly)


def _absolute(path: str, cwd: str) -> str:
    return posixpath.normpath(posixpath.join(cwd, path)).replace("//", "/")


def parse_mounts(texts: Sequence[str], cwd: str) -> tuple[BindSpec, ...]:
    """Parse the values of ``--mount``: ``type=bind,source=/a,destination=/b,ro``, a line each; ``type`` may be missing.

    Raises UsageError.
    """
    return tuple(_mount(line, cwd) for text in texts for line in text.split("\n") if line)


def _mount(text: str, cwd: str) -> BindSpec:
    import csv

    what = f"--mount {show(text)}"
    try:
        (row,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as error:
        raise UsageError(f"{what}: it is not one line of values with commas", hint=_MOUNT_HINT) from error
    found: dict[str, str] = {}
    for part in row:
        key, _, value = part.partition("=")
        name = _MOUNT_KEYS.get(key)
        if key in IMAGE_OPTIONS:
            raise NotYetError(f"{what}: mounts from images are not supported", hint="use --overlay, or sifkit extract")
        if name is None:
            raise UsageError(f"{what}: no such key {show(key) or 'as an empty one'}", hint=_MOUNT_HINT)
        found[name] = value
    if found.get("type", "bind") != "bind":
        raise UsageError(f"{what}: only type=bind is known", hint=_MOUNT_HINT)
    for name in ("source", "destination"):
        if not found.get(name):
            raise UsageError(f"{what}: the {name} is missing", hint=_MOUNT_HINT)
    readonly = found.get("ro", "no") in ("", "true", "1")
    return _spec(_absolute(found["source"], cwd), found["destination"], readonly=readonly, what=what)


_MOUNT_KEYS = {
    "type": "type",
    **dict.fromkeys(("source", "src"), "source"),
    **dict.fromkeys(("destination", "dst", "target"), "destination"),
    **dict.fromkeys(("ro", "readonly"), "ro"),
}
_MOUNT_HINT = "write type=bind,source=/a,destination=/b or with ,ro"


def parse_home(text: str, cwd: str) -> tuple[str, str]:
    """Parse the value of ``--home``; return the directory of the host and its path in the container. Raises UsageError."""
    source, *rest = _split(text, ":")
    if not source or len(rest) > 1:
        raise UsageError(f"--home {show(text)}: it is no SOURCE[:TARGET]", hint="write --home /data/me:/home/me")
    source = _absolute(_unescaped(source), cwd)
    spec = _spec(source, _unescaped(rest[0]) if rest else source, readonly=False, what=f"--home {show(text)}")
    return source, spec.target
