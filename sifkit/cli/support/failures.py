"""Exceptions as the user sees them: one line or one JSON object, and an exit code. Tracebacks only with --debug."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ...errors import ImageInUseError, InputError, SifkitError, UsageError, shell_quote, show
from ...vfs.errors import DamagedTreeError, TreePathError
from .console import JSON_SCHEMA, Console, Fields, name_fields

__all__ = ["errors_about", "name_holders", "report", "report_usage"]

ERROR_ATTRIBUTES = (
    "needed_bytes",
    "available_bytes",
    "content_bytes",
    "journal_bytes",
    "least",
    "needed",
    "available",
    "enough",
    "features",
    "holders",
    "ids",
    "field",
    "where",
    "committed",
)
"""Attributes of errors that JSON has beside the message."""

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
    "permission": "check its owner and permissions",
    "is-a-directory": "give a file",
    "not-a-directory": "check the path",
    "no-space": "free some space there",
}
_PATH_HINTS = {
    "not-found": "list files with: sifkit ls {}",
    "not-a-directory": "list files with: sifkit ls {}",
    "is-a-directory": "give a file (sifkit ls lists directories)",
    "path": "give a regular file (sifkit ls -l shows the type)",
}
"""Hints for a wrong path inside an image."""
_COMMAND_HINT = re.compile(r"sifkit (sif (list|check|compact)|overlay (resize|rebuild)( -N \S+| --size \S+)?)$")
"""Hint that ends in a command without the image's name."""


@contextmanager
def errors_about(image: str) -> Iterator[None]:
    """Name ``image`` in errors of the block that name no file, in hints that name a command, and its users in lock errors."""
    from ...sif import SIFError

    try:
        yield
    except SifkitError as error:
        if isinstance(error, SIFError) and not isinstance(error, UsageError):
            error.set_path(image)
        if _COMMAND_HINT.search(error.hint):
            error.hint += f" {shell_quote(image)}"
        if isinstance(error, ImageInUseError):
            name_holders(error, image)
        raise


def name_holders(error: ImageInUseError, image: str | None = None) -> None:
    """Add the processes that use the image (if the error names none) to a lock's error, as far as they can be seen."""
    image = os.fsdecode(error.path or image or "")
    if not error.locked or not image:
        return
    from ...in_use import image_use

    with suppress(OSError):
        use = image_use(image)
        holders = tuple(holder for holder in use.holders if holder.pid != os.getpid())
        error.holders = tuple(f"{holder.pid} {holder.command}" for holder in holders)
        if use.lock in ("read", "write") and (holders or not use.holders):
            error.append(f": {use._replace(holders=holders, mounts=()).describe()}")


def report(error: BaseException, console: Console) -> int:
    """Print why the command failed; return the exit code."""
    if console.debug:
        console.detail("")
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            console.detail(line)
    attributes: Fields = {}
    code = 1
    hint = ""
    path: bytes | str | None = None
    if isinstance(error, SifkitError) or (hasattr(error, "kind") and hasattr(error, "message")):
        known: Any = error
        kind, message, hint, path = known.kind, known.message, known.hint, known.path
        code = getattr(error, "exit_code", 1)
        if (
            path is None
            and console.image is not None
            and (not isinstance(error, SifkitError) or isinstance(error, TreePathError))
        ):
            path, message = console.image, f"{_place(console)}: {message}"
        if isinstance(error, InputError):
            kind = _KINDS.get(error.errno or 0, "io")
        subject = os.fsdecode(path or console.image or "")
        from .archive_names import is_archive_name

        if kind == "not-ext3" and is_archive_name(subject):
            hint = f"an archive: sifkit overlay create --from-tar {shell_quote(subject)} makes an overlay of it"
        if not hint and kind == "not-ext3" and "--offset" in console.image_options:
            hint = "check --offset: the superblock is looked for 1024 bytes after it"
        if not hint and console.command == "overlay create":
            from .hints import creation_hint

            hint = creation_hint(error)
        if not hint:
            hint = _image_hint(error, kind, subject, console)
        if not hint and kind == "io" and getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            from ext3.errors import Ext3Error

            hint = _HINTS["no-space"]
            undone = isinstance(error, Ext3Error) and not getattr(error, "committed", False)
            if undone and console.image is not None:
                trim = " ".join(["sifkit overlay trim", *console.image_options, shell_quote(console.image)])
                hint += f"; what the command wrote is given back by: {trim}"
        is_path = not isinstance(error, SifkitError) or isinstance(error, TreePathError)
        if not hint and kind in _PATH_HINTS and console.image is not None and is_path:
            hint = _PATH_HINTS[kind].format(" ".join(console.image_words))
        attributes = {
            name: getattr(error, name) for name in ERROR_ATTRIBUTES if isinstance(getattr(error, name, None), int | str | tuple)
        }
    elif isinstance(error, OSError):
        kind = _KINDS.get(error.errno or 0, "io")
        path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
        reason = error.strerror or str(error)
        message = f"{show(path) or repr(path)}: {reason}" if path is not None else reason
        hint = _HINTS.get(kind, "")
    elif isinstance(error, MemoryError):
        kind, message, hint = "memory", "out of memory", "free some memory, or use a host with more"
    else:
        kind, message = "internal", f"internal error: {type(error).__name__}: {error}"
        hint = "this is a bug; please report it with the output of --debug"
    if getattr(error, "errno", None) == errno.ENOENT and (gone := _deleted_directory()):
        hint = f"the current directory {show(gone)} was deleted; change to another one"
    _print_error(console, kind, message, hint=hint, path=path, attributes=attributes)
    return code


def _image_hint(error: BaseException, kind: str, image: str, console: Console) -> str:
    """Return the hint for an image that cannot be read or changed as it is; empty for another error."""
    checks = console.command == "overlay fsck"
    options = [word for word in console.image_options if word != "--upper"] if image == console.image else []
    words = [*options, shell_quote(image)]
    if kind == "not-ext3":
        backup = getattr(error, "backup", None)
        if backup is None or checks:
            return "give a SIF, squashfs or ext3 image" if console.takes_any_image else "give a stand-alone ext3 image"
        place = " ".join(["-b", str(backup[0]), "-B", str(backup[1]), *words])
        return f"a copy of the superblock is in block {backup[0]}: sifkit overlay fsck -p {place} repairs it with that"
    if checks or not image:
        return ""
    if console.command == "overlay resize" and (kind in ("needs-check", "corrupt") or getattr(error, "needs_check", False)):
        left = isinstance(error, SifkitError)
        return f"first: sifkit overlay fsck {'-fy' if left else '-fp'} {' '.join(words)}{'' if left else ' (--fsck does it)'}"
    if kind == "needs-check":
        return f"repair it with: sifkit overlay fsck -fp {' '.join(words)}"
    if kind == "corrupt" or getattr(error, "needs_check", False):
        damaged = "" if isinstance(error, DamagedTreeError) else "the image is damaged; "
        if not console.is_ext3 and image == console.image:
            return f"{damaged}check it with: sifkit check {words[-1]}"
        return f"{damaged}check it with: sifkit overlay fsck -fn {' '.join(words)}"
    return ""


def _deleted_directory() -> str:
    """Return the name of the current directory if it was deleted, else an empty text."""
    try:
        os.getcwd()
    except FileNotFoundError:
        try:
            return os.readlink("/proc/self/cwd").removesuffix(" (deleted)")
        except OSError:
            return os.environ.get("PWD", ".")
    return ""


def _place(console: Console) -> str:
    """Return the image, and the path in it that is being read if there is one, as IMAGE:/PATH."""
    assert console.image is not None
    return show(console.image) + ("" if console.path is None else f":/{show(console.path.lstrip(b'/'))}")


def report_usage(error: Any, console: Console) -> int:
    """Print a usage error of typer's parser: unknown options, missing values; return the exit code."""
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
        from .suggest import unknown_option

        message = unknown_option(error.option_name, ctx.command.params if ctx is not None else [])
    elif kind == "MissingParameter" and getattr(error, "param", None) is not None:
        message = f"{error.param.metavar or error.param.name.upper()} is missing"
    else:
        message = error.format_message().strip().removesuffix(".")
        message = message[:1].lower() + message[1:]
        if found := re.fullmatch(r"got unexpected extra arguments?(?:\(s\))? \((.*)\)", message, re.DOTALL):
            message = f"too many arguments: {found[1]}"
    names = ctx.help_option_names if ctx is not None else ["--help"]
    _print_error(console, "usage", message, hint=f"see {path} {min(names, key=len)}")
    return 2


def _print_error(
    console: Console, kind: str, message: str, *, hint: str, path: bytes | str | None = None, attributes: Fields | None = None
) -> None:
    if not console.json:
        separator = "\n" if "\n" in message else "; "  # after a list the hint gets a line of its own
        console.error(message.rstrip() + separator + hint if hint else message)
        return
    error: Fields = {
        "kind": kind,
        "message": "\n".join(show(line) for line in message.rstrip().split("\n")),
        "hint": show(hint),
    }
    if path is not None:
        error |= name_fields("path", path)
    for key, value in (attributes or {}).items():
        error[key] = list(value) if isinstance(value, tuple) else value
    console.emit_raw({"sifkit": JSON_SCHEMA, "command": console.command, "error": error})
