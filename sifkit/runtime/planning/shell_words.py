"""Assignments in the syntax of the shell, read without one: ``--env-file`` and environment scripts of images. Pure.

Understood are comments, ``NAME=VALUE``, ``export NAME=VALUE``, several of them in a line, ``export NAME``, quotes, backslashes,
``~``, ``$NAME``, ``${NAME}``, ``${NAME:-TEXT}`` and ``${NAME-TEXT}``. Commands are never run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...errors import FormatError, show

__all__ = ["apply_assignments", "expand", "needs_evaluation", "parse_environment_file"]

ASSIGNMENT = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=")
EXPORT = re.compile(r"[ \t]*export(?:[ \t]+[A-Za-z_][A-Za-z0-9_]*)+[ \t]*(?:#.*)?")
VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?-)([^${}`\\]*))?\})")
ESCAPED_OR_VARIABLE = re.compile(VARIABLE.pattern + r"|\\[$`]")
HOME = re.compile(r"~(?=[/ \t\n;]|$)")
END = " \t\n;"
LONGEST = 128 << 10
"""Bytes of the longest variable that Linux passes to a program."""


class _NotUnderstood(Exception):
    """Text that needs a shell."""


def needs_evaluation(text: str) -> bool:
    """Return True if a shell would replace something in ``text`` between double quotes."""
    return "$" in text or "`" in text


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return ``text`` with the variables in it replaced, ``\\$`` by ``$``; what needs a shell stays as it is."""

    def value(found: re.Match[str]) -> str:
        return found[0][1:] if found[0].startswith("\\") else _value(found, variables)

    return ESCAPED_OR_VARIABLE.sub(value, text)


def parse_environment_file(text: str, name: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the assignments of an ``--env-file``. ``variables``: those its values may use. Raises FormatError.

    Lines may end as those of Windows, with a carriage return, which is no part of a value.
    """
    text = text.replace("\r\n", "\n")
    known = dict(variables)
    found: dict[str, str] = {}
    position, number = 0, 1
    while position < len(text):
        end = _line_end(text, position)
        line = text[position:end].strip()
        after = end + 1
        if line and not line.startswith("#") and not EXPORT.fullmatch(line):
            try:
                read, after = _line(text, position, known)
            except _NotUnderstood as error:
                hint = "put a value with spaces between quotes; commands are not run"
                raise FormatError(f"{show(name)}, line {number}: {error}", path=name, hint=hint) from error
            found |= read
            known |= read
        number += text.count("\n", position, after)
        position = after
    return found


def apply_assignments(raw: bytes, variables: dict[str, str]) -> int:
    """Apply the assignments of a script to ``variables``; return the number of lines that were not understood.

    Blocks (``if``, ``for``, functions) are not understood, with all their lines.
    """
    text = raw.decode("utf-8", "surrogateescape")
    ignored = 0
    depth = 0
    position = 0
    while position < len(text):
        end = _line_end(text, position)
        line = text[position:end].strip()
        words = line.split()
        if not line or line.startswith("#") or (depth == 0 and EXPORT.fullmatch(line)):
            position = end + 1
            continue
        if words[0] in ("if", "case", "for", "while", "until", "{") or line.endswith("{"):
            depth += 1
        closes = words[-1].rstrip(";") in ("fi", "esac", "done", "}")
        try:
            if depth:
                raise _NotUnderstood
            read, position = _line(text, position, variables)
            variables |= read
        except _NotUnderstood:
            ignored += 1
            position = end + 1
        if closes and depth:
            depth -= 1
    return ignored


def _line_end(text: str, position: int) -> int:
    """Return the position of the newline that ends the line, or of the end of the text."""
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _line(text: str, position: int, variables: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """Read the assignments of the line at ``position``; return them and the position after it. Raises _NotUnderstood."""
    found: dict[str, str] = {}
    while True:
        start = ASSIGNMENT.match(text, position)
        if start is None:
            rest = text[position : _line_end(text, position)].strip(" \t")
            raise _NotUnderstood(f"{show(rest[:40])} after the value" if found else "it is no NAME=VALUE")
        found[start[1]], position = _word(text, start.end(), {**variables, **found})
        end = _line_end(text, position)
        rest = text[position:end].lstrip(" \t;")
        if not rest or rest.startswith("#"):
            return found, end + 1
        position = end - len(rest)


def _word(text: str, position: int, variables: Mapping[str, str]) -> tuple[str, int]:
    """Read the word of the shell at ``position``; return its value and the position after it. Raises _NotUnderstood."""
    found: list[str] = []
    quoted = False
    length = 0
    if HOME.match(text, position):
        found.append(variables.get("HOME", "~"))
        position += 1
    while position < len(text):
        character = text[position]
        if not quoted and character in END:
            break
        if character == "'" and not quoted:
            end = text.find("'", position + 1)
            if end < 0:
                raise _NotUnderstood("a quote is not closed")
            found.append(text[position + 1 : end])
            position = end + 1
        elif character == '"':
            quoted = not quoted
            position += 1
        elif character == "\\":
            following = text[position + 1 : position + 2]
            keeps = quoted and following not in ('"', "\\", "$", "`", "\n")
            found.append("" if following == "\n" else character + following if keeps else following)
            position += 2
        elif character == "$":
            variable = VARIABLE.match(text, position)
            if variable is not None:
                found.append(_value(variable, variables))
                position = variable.end()
            elif text[position + 1 : position + 2] in ("", " ", '"', "\n"):
                found.append(character)
                position += 1
            else:
                shown = text[position : min(position + 20, _line_end(text, position))]
                raise _NotUnderstood(f"{show(shown)} needs a shell")
        elif character == "`" or (not quoted and character in "&|<>()"):
            raise _NotUnderstood(f"{show(character)} needs a shell")
        else:
            found.append(character)
            position += 1
        length += len(found[-1]) if found else 0
        if length > LONGEST:
            raise _NotUnderstood("the value is too long")
    if quoted:
        raise _NotUnderstood("a quote is not closed")
    value = "".join(found)
    if "\0" in value:
        raise _NotUnderstood("the value has a NUL byte")
    return value, position


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    """Return the value of a variable that ``VARIABLE`` matched, or the text for one that is missing."""
    name = found[1] or found[2]
    value = variables.get(name)
    if found[3] == ":-":
        return value or found[4]
    if found[3] == "-":
        return found[4] if value is None else value
    return value or ""
