"""Arguments of ``--bind``, ``--mount`` and ``--home``, and the mounts of binds. Pure.

``SOURCE[:TARGET[:OPTIONS]]``, several with commas; a backslash before a comma or a colon makes it a part of the name. Options
are ``ro``, ``rw``, and for a SOURCE that is an image ``image-src=PATH`` in it and ``id=NUMBER`` of its partition. Empty values
and parts are skipped: scripts append to a list that may be empty. So is white space before a name, and around options. Source:
Apptainer 1.4.5, tried.

What is left out is noted in a list of the caller's, ``notes``.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...errors import FormatError, UsageError, show
from .options import FALSE, TRUE
from .run_plan import DataImage, Layer, Mount

if TYPE_CHECKING:
    from .config import SiteConfig
    from .options import RunOptions
    from .request import RunRequest

__all__ = [
    "BindSpec",
    "has_devices",
    "is_below",
    "is_device_bind",
    "is_inside",
    "parse_binds",
    "parse_home",
    "parse_mounts",
    "site_bind_mounts",
    "user_bind_mounts",
    "user_binds",
]

IMAGE_OPTIONS = ("image-src", "id")
"""Options of binds from inside an image."""
OPTION_HINT = "ro, rw, image-src=PATH and id=NUMBER are the options"
LONGEST_ID = 10
"""Digits of the largest ID of an object."""
LOCAL_TIME = "/etc/localtime"
"""Symlink to the file of a zone in most images: followed, the mount would give that zone, which may be UTC, another time."""
CONTAINED_BINDS = ("/etc/localtime", "/etc/hosts")
"""Binds of the host that contained runs have, too, whatever the site binds."""
OWN_HOSTS = b"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
"""/etc/hosts of a contained run without a network."""


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
        found += (_parse_bind(part, cwd, what) for part in _parts(text, what) if part)
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


def _parse_bind(text: str, cwd: str, what: str) -> BindSpec:
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


def is_below(path: str, directory: str) -> bool:
    """Return True for a directory and what is in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def is_inside(path: str, directory: str) -> bool:
    """Return True for what is in a directory."""
    return path != directory and is_below(path, directory)


def has_devices(site: SiteConfig, skipped: frozenset[str]) -> bool:
    """Return True if a container has a /dev, the host's or one of its own."""
    return site.mount_dev != "no" and "dev" not in skipped


def is_device_bind(spec: BindSpec) -> bool:
    """Return True if a bind of the user shows a device of the host, or all of them, at the same path."""
    return not spec.image_source and spec.source == spec.target and is_below(spec.target, "/dev")


def site_bind_mounts(
    notes: list[str],
    request: RunRequest,
    site: SiteConfig,
    skipped: frozenset[str],
    *,
    has_network: bool,
    contained: bool,
) -> Iterator[Mount]:
    """Yield the binds of the site; one whose source is missing is left out, with a note if the site has asked for it.

    Contained runs have two files of the host only; without a network an own /etc/hosts.
    """
    for spec in _parse_site_binds(notes, CONTAINED_BINDS if contained else site.bind_path):
        if spec.target in skipped:
            continue
        if spec.image_source:
            notes.append(f"{show(spec.source)} of 'bind path' in {show(site.path)} is left out: sites bind no images")
        elif contained and not has_network and spec.target == "/etc/hosts":
            yield Mount(kind="bind", target=spec.target, content=OWN_HOSTS, mode=0o644, is_optional=True)
        elif request.kind_of(spec.source) != "missing":
            yield _bind_mount(spec, is_optional=True)
        elif site.path and not contained:
            reason = request.why_unreachable(spec.source) or "it is missing here"
            notes.append(f"{show(spec.source)} of 'bind path' in {show(site.path)} is left out: {reason}")


def _parse_site_binds(notes: list[str], texts: Sequence[str]) -> Iterator[BindSpec]:
    """Yield the binds of a site; one that is wrong is left out with a note, since the user cannot mend it."""
    for text in texts:
        try:
            yield from parse_binds([text], "/", option="bind path")
        except UsageError as error:
            notes.append(f"{error.message}; left out, tell the administrator")


def _bind_mount(spec: BindSpec, image: DataImage | None = None, *, is_optional: bool = False) -> Mount:
    return Mount(
        kind="bind",
        source=spec.source if image is None else "",
        image=image,
        image_source=spec.image_source,
        target=spec.target,
        readonly=spec.readonly or isinstance(image, Layer),
        hides_link=spec.target == LOCAL_TIME,
        is_optional=is_optional,
    )


def user_bind_mounts(
    notes: list[str],
    request: RunRequest,
    site: SiteConfig,
    skipped: frozenset[str],
    binds: Sequence[BindSpec],
    images: Mapping[BindSpec, DataImage],
) -> Iterator[Mount]:
    """Yield the binds of the user; of several at the same path the first counts. Raises FormatError for a missing source."""
    shown: dict[str, BindSpec] = {}
    for spec in binds:
        if not site.user_bind_control and not is_device_bind(spec):
            continue
        if first := shown.get(spec.target):
            if first != spec:
                notes.append(f"bind of {show(spec.source)} ignored: {show(first.source)} is at {show(spec.target)} already")
            continue
        shown[spec.target] = spec
        if spec.image_source:
            yield _bind_mount(spec, images[spec])
            continue
        if request.kind_of(spec.source) == "missing":
            reason = request.why_unreachable(spec.source) or "no such file or directory"
            raise FormatError(f"{show(spec.source)}: {reason}", path=spec.source, hint="it is the source of a bind")
        if not is_device_bind(spec):
            yield _bind_mount(spec)
        elif has_devices(site, skipped):  # they stay usable
            yield Mount(kind="bind", source=spec.source, target=spec.target, nodev=False, readonly=spec.readonly)
        else:
            reason = "--no-mount dev" if "dev" in skipped else f"'mount dev = no' in {show(site.path)}"
            notes.append(f"{show(spec.source)} is not shown: {reason}")
