"""Quick start of ``exec``, ``run`` and ``shell``: their options parsed without typer, which takes longer to load.

Whatever is not plain is left to typer: help, unknown options, missing values. Both parsers use one table. Only this one knows
the spellings of Apptainer's ``--contain=false`` and ``-B=SPEC``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from .console import Console

if TYPE_CHECKING:
    from ...runtime.planning.options import RunOption, Value

__all__ = ["PlainArguments", "parse_plain", "quick_run"]

Action = Literal["exec", "run", "shell"]
VERBS: tuple[Action, ...] = ("exec", "run", "shell")
COMMON = {
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--debug": "debug",
    "--nocolor": "nocolor",
}
"""Flags that every verb has."""


class PlainArguments:
    """Arguments of a verb. ``values``: of its options, by their keys. ``common``: flags of every verb, as often as given."""

    __slots__ = ("common", "image", "values", "words")

    def __init__(self) -> None:
        self.image = ""
        self.words: tuple[str, ...] = ()
        self.values: dict[str, Value] = {}
        self.common: list[str] = []


def quick_run(args: Sequence[str], console: Console) -> int | None:
    """Run a container if the arguments are plain, and return the exit code; else return None."""
    action = next((verb for verb in VERBS if args and args[0] == verb), None)
    found = None if action is None else parse_plain(action, args[1:])
    if action is None or found is None:
        return None
    from .running import run_or_report

    console.program = f"sifkit {action}"
    console.arguments = tuple(args[1:])
    console.json = False  # --json among the words belongs to the command
    console.quiet |= "quiet" in found.common
    console.verbose += found.common.count("verbose")
    console.debug |= "debug" in found.common
    console.color &= "nocolor" not in found.common
    return run_or_report(console, action, found.image, found.words, found.values)


def parse_plain(action: Action, args: Sequence[str]) -> PlainArguments | None:
    """Parse the arguments of a verb; return None for what needs typer's help or messages."""
    from ...runtime.planning.options import FALSE, TRUE, options_for

    names: dict[str, RunOption] = {}
    for known in options_for(action):
        names |= {f"--{name}": known for name in (known.name, *known.other_names)}
        if known.letter:
            names[f"-{known.letter}"] = known
    found = PlainArguments()
    rest = list(args)
    while rest and len(rest[0]) > 1 and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if not word.startswith("--"):
            name, equals, value = word[:2], word[2:3], word[2:].removeprefix("=")
        option = names.get(name)
        if option is not None and option.kind != "flag":
            if not equals:
                if not rest:
                    return None
                value = rest.pop(0)
            if not value and not option.accepts_empty:
                return None
            _add(found.values, option, value)
        elif option is not None and equals == "=":
            if value not in TRUE | FALSE:
                return None
            found.values[option.key] = value in TRUE
        elif equals == "=" or (option is None and name not in COMMON):
            return None
        else:
            if option is None:
                found.common.append(COMMON[name])
            else:
                found.values[option.key] = True
            if equals:  # letters may follow each other
                rest.insert(0, f"-{value}")
    if not rest or not rest[0]:
        return None
    found.image, found.words = rest[0], tuple(rest[1:])
    return found


def _add(values: dict[str, Value], option: RunOption, text: str) -> None:
    """Add the value of an option; of one that may not be repeated the last counts. Empty values of others are left out."""
    if option.kind == "text":
        values[option.key] = text
    elif text:
        before = values.get(option.key, ())
        assert isinstance(before, tuple)
        values[option.key] = (*before, text)
