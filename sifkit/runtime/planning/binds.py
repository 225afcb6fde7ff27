"""Arguments of ``--bind``, ``--mount`` and ``--home``. Pure.

``SOURCE[:TARGET[:OPTIONS]]``, several with commas; a backslash before a comma or a colon makes it a part of the name. Options
are ``ro``, ``rw``, and for a SOURCE that is an image ``image-src=PATH`` in it and ``id=NUMBER`` of its partition. Empty values
and parts are skipped: scripts append to a list that may be empty. So is white space before a name, and around options. Source:
Apptainer 1.4.5, tried.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...errors import UsageError, show
from .options import FALSE, TRUE

if TYPE_CHECKING:
    from .options import RunOptions

__all__ = ["BindSpec", "parse_binds", "parse_home", "parse_mounts", "user_binds"]

IMAGE_OPTIONS = ("image-src", "id")
"""Options of binds from inside an image."""
OPTION_HINT = "ro, rw, image-src=PATH and id=NUMBER are the options"
LONGEST_ID = 10
"""Digits of the largest ID of an object."""


class BindSpec(NamedTuple):
    """File or directory ``source`` of the host, seen at ``target`` in the container; both absolute.

    ``image_source``: ``source`` is an image, and this a path in it, which begins with a slash. ``object_id``: its partition in
    a SIF; None: the first one for data. ``asks_to_write``: ``rw`` is given.
    """

    source: str
    target: str
    readonly: bool = False
    image_source: str = ""
    object_id: int | None = None
    asks_to_write: bool = False


def user_binds(options: RunOptions, cwd: str) -> tuple[BindSpec, ...]:
    """Return the binds of ``--bind`` and ``--mount``, in order. Raises UsageError."""
    return (*parse_binds(options.bind, cwd), *parse_mounts(options.mount, cwd))


def parse_binds(texts: Sequence[str], cwd: str, *, option: str = "--bind") -> tuple[BindSpec, ...]:
    """Parse the values of ``--bind``. ``cwd``: where relative sources start. Raises UsageError."""
    found: list[BindSpec] = []
    for text in texts:
        what = f"{option} {show(text)}"
        found += (_bind(part, cwd, what) for part in _parts(text, what) if part)
    return tuple(found)


def _parts(text: str, what: str) -> list[str]:
    """Split at commas; a part that is an option belongs to the bind before it. Raises UsageError for an option elsewhere."""
    found: list[str] = []
    for part in _split(text, ","):
        word = part.strip()
        has_options = bool(found) and len(_split(found[-1], ":")) > 2
        if _is_option(word):
            if not has_options:
                hint = f"options follow a second colon: SOURCE:TARGET:{word}"
                raise UsageError(f"{what}: the option {show(word)} belongs to no bind", hint=hint)
            found[-1] += f",{word}"
        elif has_options and word and not {"/", ":"} & set(word) and word not in (".", ".."):
            raise UsageError(f"{what}: no such option {show(word)}", hint=f"{OPTION_HINT}; a directory is ./{word}")
        else:
            found.append(part.lstrip())
    return found


def _is_option(word: str) -> bool:
    name, separator, _ = word.partition("=")
    return word in ("ro", "rw") or (bool(separator) and name in IMAGE_OPTIONS)


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
    given = [option.strip() for option in _split(rest[1], ",")] if len(rest) == 2 else []
    options = [option for option in given if option] or given
    of_image: dict[str, str] = {}
    for option in options:
        name, separator, value = option.partition("=")
        if separator and name in IMAGE_OPTIONS:
            of_image[name] = _unescaped(value)
        elif option not in ("ro", "rw"):
            raise UsageError(f"{what}: no such option {show(option) or 'as an empty one'}", hint=OPTION_HINT)
    source = _absolute(_unescaped(source), cwd)
    target = _unescaped(rest[0].lstrip()) if rest and rest[0] else source
    return _spec(source, target, readonly="ro" in options, asks_to_write="rw" in options, of_image=of_image, what=what)


def _spec(
    source: str,
    target: str,
    *,
    what: str,
    readonly: bool = False,
    asks_to_write: bool = False,
    of_image: Mapping[str, str] | None = None,
) -> BindSpec:
    if not target:
        raise UsageError(f"{what}: the target is empty", hint="the target is a path in the container")
    if not target.startswith("/"):
        raise UsageError(f"{what}: {show(target)} is not an absolute path", hint="the target is a path in the container")
    target = posixpath.normpath(target.replace("//", "/"))
    if target == "/":
        raise UsageError(f"{what}: the target is the root of the container", hint="give a path in the container")
    if not of_image:
        return BindSpec(source, target, readonly)
    number = of_image.get("id")
    if number is not None and not (number.isascii() and number.isdigit() and len(number) <= LONGEST_ID and int(number)):
        raise UsageError(f"{what}: {show(number) or 'an empty text'} is no ID of an object", hint="see: sifkit sif list IMAGE")
    path = "/" + of_image.get("image-src", "").lstrip("/")
    return BindSpec(source, target, readonly, path, None if number is None else int(number), asks_to_write)


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
    of_image: dict[str, str] = {}
    for part in row:
        key, _, value = part.partition("=")
        if key in IMAGE_OPTIONS:
            if not value:
                raise UsageError(f"{what}: {key} is empty", hint="image-src=/ is all of an image")
            of_image[key] = value
            continue
        name = _MOUNT_KEYS.get(key)
        if name is None:
            raise UsageError(f"{what}: no such key {show(key) or 'as an empty one'}", hint=_MOUNT_HINT)
        found[name] = value
    if found.get("type", "bind") != "bind":
        raise UsageError(f"{what}: only type=bind is known", hint=_MOUNT_HINT)
    for name in ("source", "destination"):
        if not found.get(name):
            raise UsageError(f"{what}: the {name} is missing", hint=_MOUNT_HINT)
    flag = found.get("ro", "false")
    if flag not in TRUE | FALSE | {""}:
        raise UsageError(f"{what}: ro is {show(flag)}, which is neither true nor false", hint="write ro alone")
    source = _absolute(found["source"], cwd)
    return _spec(source, found["destination"], readonly=flag not in FALSE, of_image=of_image, what=what)


_MOUNT_KEYS = {
    "type": "type",
    **dict.fromkeys(("source", "src"), "source"),
    **dict.fromkeys(("destination", "dst", "target"), "destination"),
    **dict.fromkeys(("ro", "readonly"), "ro"),
}
_MOUNT_HINT = "write type=bind,source=/a,destination=/b, with ,ro if it is only read; image-src=/PATH and id=2 are for images"


def parse_home(text: str, cwd: str) -> tuple[str, str]:
    """Parse the value of ``--home``; return the directory of the host and its path in the container. Raises UsageError."""
    source, *rest = _split(text, ":")
    if not source or len(rest) > 1:
        raise UsageError(f"--home {show(text)}: it is no SOURCE[:TARGET]", hint="write --home /data/me:/home/me")
    source = _absolute(_unescaped(source), cwd)
    spec = _spec(source, _unescaped(rest[0]) if rest else source, what=f"--home {show(text)}")
    return source, spec.target
