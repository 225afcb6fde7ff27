"""Console: verbosity of a run, and the only writes to standard output and standard error.

stdout carries data, as bytes; stderr carries notes, results and errors, one line each. The module loads nothing heavy.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from ...errors import OutputError, shell_quote, show

if TYPE_CHECKING:
    import json

__all__ = ["JSON_SCHEMA", "Console", "Fields", "name_fields"]

Fields = dict[str, Any]
"""JSON object."""

JSON_SCHEMA = 1
JSON_ESCAPES = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Control characters that JSON may have in strings as they are: DEL, and those of which terminals know a few, as CSI."""
CLOSED = "write error: Bad file descriptor"
"""Message where standard output is closed, as coreutils has it."""


def name_fields(key: str, name: bytes | str) -> Fields:
    """Name as JSON: text under ``key``, and the exact bytes under ``key_b64`` if they are not UTF-8."""
    raw = name if isinstance(name, bytes) else os.fsencode(name)
    try:
        return {key: raw.decode("utf-8")}
    except UnicodeDecodeError:
        import base64

        return {key: raw.decode("utf-8", "replace"), f"{key}_b64": base64.b64encode(raw).decode("ascii")}


class Console:
    """Verbosity, color and JSON mode of one run. ``program`` is the command as typed: ``sifkit overlay create``."""

    def __init__(self) -> None:
        self.program = "sifkit"
        self.image: str | None = None
        """Image the verb works on; errors without a path of their own are about it."""
        self.path: bytes | None = None
        """Path in it that is being read, if there is one: such errors are about this file."""
        self.image_options: tuple[str, ...] = ()
        """Options that open the same view of the image (``--partition``, ``--upper``), for hints."""
        self.is_ext3 = True
        """False if what was opened is another filesystem, or several: ``sifkit check`` checks it, not fsck."""
        self.takes_any_image = False
        """True if the verb reads SIF, squashfs and ext3 alike."""
        self.overlays: tuple[str, ...] = ()
        """Values of ``--overlay``, of verbs that look into containers or change them."""
        self.layer: str | None = None
        """Overlay that is changed, of a container."""
        self.arguments: tuple[str, ...] = ()
        """Words after the verb, of verbs that run a command."""
        self.added_variables: tuple[str, ...] = ()
        """Variables that this process has added to its environment, which a command that it runs must not see."""
        self.quiet = False
        self.verbose = 0
        self.debug = False
        self.json = False
        """Print errors as JSON objects on stdout; set as soon as --json is seen among the arguments."""
        self.json_before = False
        """True if --json was given before the verb."""
        self.color = not os.environ.get("NO_COLOR") and not any(
            os.environ.get(f"{prefix}_NOCOLOR", "") not in ("", "0", "false") for prefix in ("APPTAINER", "SINGULARITY")
        )
        self._warned: set[str] = set()
        self._terminal: tuple[Any, bool] = (None, False)
        """Last stdout and whether it is a terminal, cached: ``ls`` needs it for every name."""

    @property
    def command(self) -> str:
        """Verb without the program's name, as in JSON: ``overlay create``."""
        return self.program.partition(" ")[2]

    @property
    def image_words(self) -> list[str]:
        """Words of a command that opens the same view of the image, for a shell: its options and its name."""
        overlays = [word for path in self.overlays for word in ("--overlay", shell_quote(path))]
        return [*self.image_options, *overlays, *([] if self.image is None else [shell_quote(self.image)])]

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
        """True if stdout can show more than ASCII."""
        return _is_unicode(sys.stdout)

    @property
    def err_is_unicode(self) -> bool:
        return _is_unicode(sys.stderr)

    def write(self, data: bytes) -> None:
        """Write data to stdout, unchanged. Raises BrokenPipeError, OutputError."""
        if sys.stdout is None:  # closed by the parent process
            raise OutputError(CLOSED)
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

    @property
    def binary_output(self) -> IO[bytes]:
        """Standard output, for bytes. Raises OutputError if it is closed."""
        if sys.stdout is None:
            raise OutputError(CLOSED)
        return sys.stdout.buffer

    def line(self, text: str) -> None:
        """Write a line of text to stdout; characters the encoding lacks are escaped."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        if self.out_is_terminal and not self.out_is_unicode:
            encoding = "ascii"
        self.write(text.encode(encoding, "backslashreplace") + b"\n")

    def flush(self) -> None:
        """Pass on what was written to stdout, so that a long run shows its lines as they come. Raises as ``write``."""
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror}") from error

    def emit(self, fields: Fields, *, image: bytes | str | None = None) -> None:
        """Write a JSON object to stdout, with the keys that every report begins with."""
        head: Fields = {"sifkit": JSON_SCHEMA, "command": self.command}
        if image is not None:
            head |= name_fields("image", image)
        self.emit_raw(head | fields)

    def emit_raw(self, fields: Fields) -> None:
        """Write a JSON object to stdout as it is."""
        self.write_json(_json_encoder().encode(fields))

    def write_json(self, text: str) -> None:
        """Write JSON to stdout; on a terminal the control characters that JSON leaves in strings are escaped."""
        if self.out_is_terminal:
            text = text.translate(JSON_ESCAPES)
        self.write(text.encode("utf-8", "replace") + b"\n")

    def note(self, text: str) -> None:
        """Print a line for the user; -q hides it."""
        if not self.quiet:
            self._print(text)

    def result(self, text: str) -> None:
        """Print the result line, on a terminal or with -v."""
        if self.verbose or self.debug or self.err_is_terminal:
            self.note(text)

    def warn(self, text: str) -> None:
        """Print a warning; repeated ones are printed once."""
        if text not in self._warned:
            self._warned.add(text)
            self.note(f"{self.program}: warning: {text}")

    def detail(self, text: str) -> None:
        """Print a line with -v only."""
        if self.verbose or self.debug:
            self._print(text)

    def error(self, text: str) -> None:
        """Print the error line; nothing hides it."""
        self._print(f"{self.program}: {text}")

    def ask(self, text: str) -> None:
        """Print a part of a question, without a newline of its own; nothing hides it."""
        self._write_error(text)

    def _print(self, text: str) -> None:
        self._write_error(text.removesuffix("\n") + "\n")

    def _write_error(self, text: str) -> None:
        # Text may contain names from images and hosts: no control character but our own newlines may reach a terminal.
        try:
            encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
            shown = "\n".join(show(line) for line in text.split("\n"))
            sys.stderr.write(shown.encode(encoding, "backslashreplace").decode(encoding))
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass  # stderr is gone; the exit code is left


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
    """Return True if a stream shows Unicode: by its encoding and the locale, as Python writes UTF-8 under LC_ALL=C too."""
    try:
        "\u2588".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    locale = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "")
    return locale not in ("C", "POSIX")
