"""An exception as the user sees it: one line, or one JSON object, and an exit code. A traceback only with --debug."""

from __future__ import annotations

import errno
import os
import re
from typing import Any

from ...errors import InputError, SifkitError, show
from .console import JSON_SCHEMA, Console, Fields, named
from .render import shell_word
from .values import closest

__all__ = ["Terminated", "report", "report_usage"]

FACTS = ("needed_bytes", "available_bytes", "needed", "available", "enough", "features", "holders", "ids", "field", "where")
"""Attributes of errors that JSON carries beside the message."""

_KINDS = {
    errno.ENOENT: "not-found",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EROFS: "permission",
    errno.ENOSPC: "no-space",
    errno.EDQUOT: "no-space",
    errno.EISDIR: "is-a-directory",
    errno.ENOTDIR: "not-a-directory",
    errno.EEXIST: "exists",
}


_HINTS = {
    "not-found": "check the name",
    "permission": "ask its owner, or work as a user who may",
    "is-a-directory": "name a file",
    "not-a-directory": "check the path",
    "no-space": "free some space there",
}
_INSIDE = {
    "not-found": "see what is there: sifkit ls {}",
    "not-a-directory": "see what is there: sifkit ls {}",
    "is-a-directory": "name a file (sifkit ls lists directories)",
    "path": "name a regular file (sifkit ls -l shows what it is)",
}
"""Hints where a path inside an image is wrong."""
_OF_IMAGES = {
    "corrupt": "the image is damaged; e2fsck -fn tells what is wrong with it",
    "not-ext3": "give a stand-alone ext3 image",
}
"""Hints where an image cannot be read and nothing better is known."""


class Terminated(BaseException):
    """A signal asked us to end; raised so that temporary files are removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def report(error: BaseException, console: Console) -> int:
    """Tell why the command failed; the exit code."""
    if console.debug:
        console.detail("")
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            console.detail(line)
    fields: Fields = {}
    code = 1
    hint = ""
    path: bytes | str | None = None
    if isinstance(error, SifkitError) or (hasattr(error, "kind") and hasattr(error, "message")):
        known: Any = error
        kind, message, hint, path = known.kind, known.message, known.hint, known.path
        code = getattr(error, "exit_code", 1)
        if path is None and console.image is not None and not isinstance(error, SifkitError):
            path, message = console.image, f"{show(console.image)}: {message}"
        if isinstance(error, InputError):
            kind = _KINDS.get(error.errno or 0, "io")
        if not hint and console.command == "overlay create":
            from .hints import creation_hint

            hint = creation_hint(error)
        if not hint:
            hint = _OF_IMAGES.get(kind, "")
        if not hint and kind in _INSIDE and console.image is not None and not isinstance(error, SifkitError):
            hint = _INSIDE[kind].format(" ".join([*console.image_options, shell_word(console.image)]))
        fields = {name: getattr(error, name) for name in FACTS if isinstance(getattr(error, name, None), int | str | tuple)}
    elif isinstance(error, OSError):
        kind = _KINDS.get(error.errno or 0, "io")
        path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
        reason = error.strerror or str(error)
        message = f"{show(path) or repr(path)}: {reason}" if path is not None else reason
        hint = _HINTS.get(kind, "")
    elif isinstance(error, MemoryError):
        kind, message, hint = "memory", "out of memory", "run it where more memory is free"
    else:
        kind, message = "internal", f"internal error: {type(error).__name__}: {error}"
        hint = "this is a bug; --debug shows where, please report it"
    _tell(console, kind, message, hint=hint, path=path, facts=fields)
    return code


def report_usage(error: Any, console: Console) -> int:
    """The same for what typer finds wrong with the arguments: option names, missing values."""
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else console.program
    console.program = path
    kind = type(error).__name__
    if kind == "NoArgsIsHelpError" and ctx is not None:
        console.quiet = False
        for line in ctx.get_help().splitlines():
            console.note(line)
        return 2
    if kind == "NoSuchOption":
        options = [name for param in ctx.command.params for name in (*param.opts, *param.secondary_opts)] if ctx else []
        meant = closest(error.option_name, [name for name in options if name.startswith("--")])
        message = f"no such option {show(error.option_name)}" + (f" (did you mean {meant}?)" if meant else "")
    elif kind == "MissingParameter" and getattr(error, "param", None) is not None:
        message = f"{error.param.metavar or error.param.name.upper()} is missing"
    else:
        message = error.format_message().strip().removesuffix(".")
        message = message[:1].lower() + message[1:]
        if found := re.fullmatch(r"got unexpected extra arguments?(?:\(s\))? \((.*)\)", message, re.DOTALL):
            message = f"too many arguments: {found[1]}"
    names = ctx.help_option_names if ctx is not None else ["-h"]
    _tell(console, "usage", message, hint=f"see {path} {min(names, key=len)}")
    return 2


def _tell(
    console: Console, kind: str, message: str, *, hint: str, path: bytes | str | None = None, facts: Fields | None = None
) -> None:
    if not console.json:
        joint = "\n" if "\n" in message else "; "  # a hint stands on its own line behind a list
        console.error(message.rstrip() + joint + hint if hint else message)
        return
    error: Fields = {
        "kind": kind,
        "message": "\n".join(show(line) for line in message.rstrip().split("\n")),
        "hint": show(hint),
    }
    if path is not None:
        error |= named("path", path)
    for key, value in (facts or {}).items():
        error[key] = list(value) if isinstance(value, tuple) else value
    console.emit_raw({"sifkit": JSON_SCHEMA, "command": console.command, "error": error})
