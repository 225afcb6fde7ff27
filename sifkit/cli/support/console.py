"""Console: how loud this run is, and the only places where text leaves the program.

stdout carries data, as bytes; stderr carries notes, results and errors, one line each. Nothing here is imported from the
packages below, and nothing heavy.
"""

from __future__ import annotations

import base64
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from ...errors import OutputError, show

if TYPE_CHECKING:
    import json

__all__ = ["Console", "Fields", "named"]

Fields = dict[str, Any]
"""A JSON object."""

JSON_SCHEMA = 1


def named(key: str, name: bytes | str) -> Fields:
    """A name as JSON: text under ``key``, and the exact bytes under ``key_b64`` where they are not UTF-8."""
    raw = name if isinstance(name, bytes) else os.fsencode(name)
    try:
        return {key: raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {key: raw.decode("utf-8", "replace"), f"{key}_b64": base64.b64encode(raw).decode("ascii")}


class Console:
    """Verbosity, colour and JSON mode of one run. ``program`` is the command as typed: ``sifkit overlay create``."""

    def __init__(self) -> None:
        self.program = "sifkit"
        self.image: str | None = None
        """The image that is worked on: what an error concerns that names no file itself."""
        self.image_options: tuple[str, ...] = ()
        """How it is looked at, as words for the command line."""
        self.quiet = False
        self.verbose = 0
        self.debug = False
        self.json = False
        """Errors are JSON objects on stdout; set as soon as --json is seen among the arguments."""
        self.json_before = False
        """--json stood before the verb."""
        self.color = not os.environ.get("NO_COLOR") and not any(
            os.environ.get(f"{prefix}_NOCOLOR", "") not in ("", "0", "false") for prefix in ("APPTAINER", "SINGULARITY")
        )
        self._warned: set[str] = set()
        self._terminal: tuple[Any, bool] = (None, False)
        """The last stdout that was asked whether it is a terminal, and its answer: it is wanted for each of very many names."""

    @property
    def command(self) -> str:
        """The verb alone, as JSON names it: ``overlay create``."""
        return self.program.partition(" ")[2]

    @property
    def out_is_terminal(self) -> bool:
        if self._terminal[0] is not sys.stdout:
            self._terminal = (sys.stdout, _is_terminal(sys.stdout))
        return self._terminal[1]

    @property
    def err_is_terminal(self) -> bool:
        return _is_terminal(sys.stderr)

    @property
    def out_is_unicode(self) -> bool:
        """Whether stdout shows more than ASCII."""
        return _is_unicode(sys.stdout)

    @property
    def err_is_unicode(self) -> bool:
        return _is_unicode(sys.stderr)

    def write(self, data: bytes) -> None:
        """Data to stdout, unchanged. BrokenPipeError and other OSErrors are the caller's caller's: main() ends on them."""
        if sys.stdout is None:  # closed by whoever started us
            raise BrokenPipeError
        buffer = getattr(sys.stdout, "buffer", None)
        try:
            if buffer is None:
                sys.stdout.write(data.decode("utf-8", "surrogateescape"))
            else:
                buffer.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror}") from error

    def line(self, text: str) -> None:
        """A line of text to stdout; what the encoding cannot hold is escaped."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        if self.out_is_terminal and not self.out_is_unicode:
            encoding = "ascii"
        self.write(text.encode(encoding, "backslashreplace") + b"\n")

    def emit(self, fields: Fields, *, image: bytes | str | None = None) -> None:
        """One JSON object on stdout, with the head every object has."""
        head: Fields = {"sifkit": JSON_SCHEMA, "command": self.command}
        if image is not None:
            head |= named("image", image)
        self.emit_raw(head | fields)

    def emit_raw(self, fields: Fields) -> None:
        self.write(_json_encoder().encode(fields).encode("utf-8", "replace") + b"\n")

    def note(self, text: str) -> None:
        """A line a person should see; -q hides it."""
        if not self.quiet:
            self._tell(text)

    def result(self, text: str) -> None:
        """The line that says what was made: for a person, on a terminal or with -v."""
        if self.verbose or self.debug or self.err_is_terminal:
            self.note(text)

    def warn(self, text: str) -> None:
        """A note that something is not as it should be; the same one is told once."""
        if text not in self._warned:
            self._warned.add(text)
            self.note(f"{self.program}: warning: {text}")

    def detail(self, text: str) -> None:
        """A line for -v."""
        if self.verbose or self.debug:
            self._tell(text)

    def error(self, text: str) -> None:
        """The line that says why it failed; nothing hides it."""
        self._tell(f"{self.program}: {text}")

    def _tell(self, text: str) -> None:
        # Text may carry names from images and hosts: no control character but our own line ends reaches a terminal.
        try:
            encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
            for line in text.removesuffix("\n").split("\n"):
                sys.stderr.write(show(line).encode(encoding, "backslashreplace").decode(encoding) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass  # nobody listens any more; the exit code still tells


@cache
def _json_encoder() -> json.JSONEncoder:
    import json

    return json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _is_unicode(stream: Any) -> bool:
    """By the stream's encoding, and the locale: under LC_ALL=C Python writes UTF-8, which the terminal does not expect."""
    try:
        "\u2588".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    locale = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "")
    return locale not in ("C", "POSIX")
