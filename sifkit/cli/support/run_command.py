"""Verbs that run a command in a container: ``exec``, ``run`` and ``shell``. Their options come from a table.

Everything after IMAGE belongs to the command. The exit code is the command's; every failure of ours has 255.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from ...errors import UsageError
from ...runtime.planning.options import RunOption, Value, options_for
from .console import Console
from .failures import report, report_usage
from .frame import VerbCommand, verb
from .running import FAILED, run_or_report

__all__ = ["RunCommand", "run_verb"]

CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""Usage error of typer's parser, which has no public name there."""
Action = Literal["exec", "run", "shell"]


class RunCommand(VerbCommand):
    """Command whose failures have the code 255, and whose options end at the first argument."""

    allow_interspersed_args = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        console: Console = ctx.find_root().obj
        console.json = False  # --json among the words belongs to the command
        console.arguments = tuple(args)
        try:
            return super().parse_args(ctx, args)
        except CLICK_ERROR as error:
            report_usage(error, console)
            raise typer.Exit(FAILED) from error
        except (typer.Exit, BrokenPipeError, KeyboardInterrupt):
            raise
        except Exception as error:
            report(error, console)
            raise typer.Exit(FAILED) from error

    def invoke(self, ctx: Any) -> Any:
        console: Console = ctx.find_root().obj
        try:
            return super().invoke(ctx)
        except UsageError as error:
            report(error, console)
            raise typer.Exit(FAILED) from error


def run_verb(action: Action, *, doc: str, examples: Sequence[str], words: str, words_help: str) -> VerbCommand:
    """Make the command of one verb. ``doc``: its help. ``words``, ``words_help``: of the words after IMAGE."""

    def function(console: Console, **values: Any) -> int:
        image, given = values.pop("image"), tuple(values.pop("words") or ())
        found: dict[str, Value] = {
            key: tuple(one for one in value if one) if isinstance(value, list | tuple) else value
            for key, value in values.items()
            if value not in (None, False)
        }
        return run_or_report(console, action, image, given, found)

    function.__doc__ = doc
    vars(function)["__signature__"] = inspect.Signature(
        [
            inspect.Parameter("console", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Console),
            _argument(
                "image", str, inspect.Parameter.empty, metavar="IMAGE", help="SIF, squashfs or ext3 image, or a directory"
            ),
            _argument("words", list[str] | None, None, metavar=words, help=words_help),
            *(_parameter(option) for option in options_for(action)),
        ]
    )
    empty = (option.key for option in options_for(action) if option.accepts_empty)
    return verb(examples=examples, kind=RunCommand, allow_empty=("words", *empty))(function)


def _argument(name: str, kind: Any, default: object, **settings: Any) -> inspect.Parameter:
    annotation = Annotated[kind, typer.Argument(**settings)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parameter(option: RunOption) -> inspect.Parameter:
    """Return an option of the table as a parameter of typer's."""
    names = [option.spelling, *(f"--{name}" for name in option.other_names), *([f"-{option.letter}"] if option.letter else [])]
    kinds: dict[str, tuple[Any, object]] = {"flag": (bool, False), "text": (str | None, None), "list": (list[str] | None, None)}
    kind, default = kinds[option.kind]
    settings = typer.Option(
        *names, help=option.help, metavar=option.metavar or None, rich_help_panel=option.section, hidden=option.hidden
    )
    return inspect.Parameter(option.key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, settings])
