"""Help pages: plain text made from a command's parameters, with examples first and options in sections.

Options of all verbs are explained once, in the help of ``sifkit``.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["command_help", "group_help"]

GENERAL = "General"
OPTION_COLUMN = 30
Rows = list[tuple[str, str]]


def _width() -> int:
    return max(60, min(shutil.get_terminal_size().columns, 110))


def _section(title: str, rows: Sequence[tuple[str, str]], column: int, width: int) -> Iterable[str]:
    yield ""
    yield f"{title}:"
    for left, right in rows:
        lines = textwrap.wrap(right, width - column - 2, break_long_words=False, break_on_hyphens=False) or [""]
        head = f"  {left}"
        if len(head) > column:
            yield head
        else:
            yield f"{head:<{column}}  {lines.pop(0)}".rstrip()
        for line in lines:
            yield f"{'':<{column}}  {line}"


def _option_row(param: Any) -> tuple[str, str]:
    names = sorted(param.opts, key=len)
    left = ("    " if len(names[0]) > 2 else "") + ", ".join(names)
    if param.secondary_opts:
        left += " / " + ", ".join(param.secondary_opts)
    if not param.is_flag and not param.count and param.metavar:
        left += f" {param.metavar}"
    default = param.default
    shown = "" if param.is_flag or param.count or default in (None, "", (), []) else f" [default: {default}]"
    repeat = " (may be repeated)" if param.multiple else ""
    return left, f"{param.help or ''}{repeat}{shown}"


def _option_sections(params: Sequence[Any], width: int) -> Iterable[str]:
    """Yield the lines of a verb's own options."""
    sections: dict[str, Rows] = {}
    for param in params:
        if param.param_type_name == "option" and not param.hidden and param.rich_help_panel != GENERAL:
            sections.setdefault(param.rich_help_panel or "Options", []).append(_option_row(param))
    for title, rows in sections.items():
        yield from _section(title, rows, OPTION_COLUMN, width)


def _general_options(params: Sequence[Any], help_names: Sequence[str]) -> Rows:
    rows = [_option_row(param) for param in params if param.param_type_name == "option" and param.rich_help_panel == GENERAL]
    names = sorted(help_names, key=len)
    return [*rows, (("    " if len(names[0]) > 2 else "") + ", ".join(names), "show this help")]


def _usage_of(params: Sequence[Any]) -> str:
    pieces = ["[OPTIONS]"]
    for param in params:
        if param.param_type_name == "argument":
            name = param.metavar or param.name.upper()
            many = "..." if param.nargs == -1 and not name.endswith("...") and " " not in name else ""
            pieces.append(f"{name}{many}" if param.required else f"[{name}{many}]")
    return " ".join(pieces)


def command_help(command: Any, path: str, help_names: Sequence[str], examples: Sequence[str]) -> str:
    """Help page of a verb; ``path`` is the command as typed."""
    width = _width()
    lines = [f"Usage: {path} {_usage_of(command.params)}", ""]
    for paragraph in (command.help or "").split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), width, break_on_hyphens=False), ""]
    lines.pop()
    lines += _examples(examples)
    arguments = [(param.metavar or param.name.upper(), param.help or "") for param in command.params if _has_help(param)]
    if arguments:
        lines += _section("Arguments", arguments, OPTION_COLUMN, width)
    lines += _option_sections(command.params, width)
    lines += ["", f"General options: {path.split(' ', maxsplit=1)[0]} -h"]
    return "\n".join(lines)


def _has_help(param: Any) -> bool:
    return bool(param.param_type_name == "argument" and getattr(param, "help", None))


def _examples(examples: Sequence[str]) -> Iterable[str]:
    yield ""
    yield "Examples:"
    for example in examples:
        yield f"  {example}"


def group_help(
    group: Any,
    path: str,
    help_names: Sequence[str],
    examples: Sequence[str],
    sections: dict[str, Rows],
    *,
    intro: str = "",
    shared: Sequence[tuple[str, str]] = (),
) -> str:
    """Help page of a group of verbs; ``sections``: title -> (name, one-line help); ``shared``: options of several verbs."""
    width = _width()
    lines = [intro, ""] if intro else []
    lines += [f"Usage: {path} [OPTIONS] COMMAND ...", ""]
    lines += textwrap.wrap(" ".join((group.help or "").split()), width, break_on_hyphens=False)
    lines += _examples(examples)
    column = 2 + max(len(name) for rows in sections.values() for name, _ in rows)
    for title, rows in sections.items():
        lines += _section(title, rows, column, width)
    if shared:  # the root of all verbs
        lines += _section(GENERAL, _general_options(group.params, help_names), OPTION_COLUMN, width)
        lines += _section("After the command, where an image is locked or changed", shared, OPTION_COLUMN, width)
    else:
        lines += ["", f"General options: {path.split(' ', maxsplit=1)[0]} -h"]
    return "\n".join(lines)
