"""Metadata of a container: labels, scripts, environment, help, definition file, apps; their JSON in Apptainer's form. Pure.

The form is that of ``apptainer inspect --json``, which Apptainer also stores in a SIF as the object ``inspect-metadata.json``:
``data.attributes`` with the keys below, empty ones left out, and ``type``. Go's encoder writes it: tabs, sorted maps, ``<``,
``>`` and ``&`` escaped.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from ...errors import FormatError

__all__ = ["APP_KEYS", "AppMetadata", "ContainerMetadata", "decode_text", "encode_text", "parse_labels", "parse_metadata"]

APP_KEYS = ("environment", "labels", "runscript", "test", "helpfile")
"""Attributes of an app, in the order in which they are written."""
_KEYS = (*APP_KEYS, "deffile", "startscript")
_MAPS = ("environment", "labels")
_SURROGATES = re.compile("[\ud800-\udfff]")
_GO_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(slots=True, kw_only=True)
class AppMetadata:
    """Attributes of a SCIF app. Text that is not UTF-8 has surrogates, see ``decode_text``; empty: there is none."""

    environment: dict[str, str] = field(default_factory=dict)
    """Scripts by path."""
    labels: dict[str, str] = field(default_factory=dict)
    runscript: str = ""
    test: str = ""
    helpfile: str = ""


@dataclass(slots=True, kw_only=True)
class ContainerMetadata(AppMetadata):
    """Attributes of a container, and those of its apps by name."""

    apps: dict[str, AppMetadata] = field(default_factory=dict)
    deffile: str = ""
    startscript: str = ""

    def json_text(self, *, head: dict[str, int | str] | None = None) -> str:
        """Return the JSON object as Apptainer prints it, without a newline at the end. ``head``: keys that come first."""
        attributes: dict[str, object] = {}
        if self.apps:
            attributes["apps"] = {name: _filled(self.apps[name], APP_KEYS) for name in _sorted(self.apps)}
        attributes |= _filled(self, _KEYS)
        fields = {**(head or {}), "data": {"attributes": attributes}, "type": "container"}
        text = json.dumps(fields, ensure_ascii=False, indent="\t")
        for character, escaped in _GO_ESCAPES.items():
            text = text.replace(character, escaped)
        return _SURROGATES.sub(r"\\ufffd", text)


def _filled(found: AppMetadata, keys: tuple[str, ...]) -> dict[str, object]:
    """Return the attributes that are not empty, with maps in order."""
    fields = {key: getattr(found, key) for key in keys if getattr(found, key)}
    for key in _MAPS:
        if key in fields:
            fields[key] = {name: fields[key][name] for name in _sorted(fields[key])}
    return fields


def _sorted(names: dict[str, str] | dict[str, AppMetadata]) -> list[str]:
    """Return the keys in byte order."""
    return sorted(names, key=encode_text)


def decode_text(raw: bytes) -> str:
    """Decode text of a container, in which bytes that are not UTF-8 become surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def encode_text(text: str) -> bytes:
    """Encode text as it was in the container."""
    return text.encode("utf-8", "surrogateescape")


def parse_metadata(raw: bytes) -> ContainerMetadata:
    """Parse the JSON object in ``raw``, which may be followed by other bytes. Unknown keys are ignored.

    Raises FormatError if it is not JSON, or if an attribute is of another type.
    """
    try:
        found, _ = json.JSONDecoder().raw_decode(_json_source(raw).lstrip())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it is not JSON: {_reason(error)}") from error
    attributes = _object(_object(found, "the object").get("data"), "data").get("attributes")
    fields = _object(attributes, "attributes")
    apps = _object(fields.get("apps"), "apps")
    return ContainerMetadata(
        apps={_clean(name): _app(value, f"apps.{name}") for name, value in apps.items()},
        environment=_texts(fields, "environment"),
        labels=_texts(fields, "labels"),
        runscript=_text(fields, "runscript"),
        test=_text(fields, "test"),
        helpfile=_text(fields, "helpfile"),
        deffile=_text(fields, "deffile"),
        startscript=_text(fields, "startscript"),
    )


def parse_labels(raw: bytes) -> tuple[dict[str, str], str]:
    """Parse a labels file. Return the labels and what is wrong, empty for nothing.

    Labels that are not text are empty, as Apptainer has them.
    """
    try:
        found = json.loads(_json_source(raw))
    except (ValueError, RecursionError) as error:
        return {}, f"it is not JSON: {_reason(error)}"
    if found is None:
        return {}, ""
    if not isinstance(found, dict):
        return {}, "it is not an object"
    labels = {_clean(name): _clean(value) if isinstance(value, str) else "" for name, value in found.items()}
    wrong = [name for name, value in found.items() if not isinstance(value, str)]
    return labels, f"the label {_clean(wrong[0])[:80]} is not text" if wrong else ""


def _json_source(raw: bytes) -> str:
    """Decode JSON as Go does: each byte that is not UTF-8 becomes the replacement character."""
    return _clean(decode_text(raw))


def _clean(text: str) -> str:
    """Return text with lone surrogates replaced: JSON can write them with escapes."""
    return _SURROGATES.sub("\ufffd", text)


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def _object(value: object, what: str) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FormatError(f"{_clean(what)[:80]} is not an object")
    return value


def _text(fields: dict[str, object], key: str) -> str:
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FormatError(f"{_clean(key)[:80]} is not text")
    return _clean(value)


def _texts(fields: dict[str, object], key: str) -> dict[str, str]:
    found = _object(fields.get(key), key)
    return {_clean(name): _text(found, name) for name in found}


def _app(value: object, what: str) -> AppMetadata:
    fields = _object(value, what)
    return AppMetadata(
        environment=_texts(fields, "environment"),
        labels=_texts(fields, "labels"),
        runscript=_text(fields, "runscript"),
        test=_text(fields, "test"),
        helpfile=_text(fields, "helpfile"),
    )
