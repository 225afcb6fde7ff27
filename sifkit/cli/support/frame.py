"""The frame every verb shares: options that work before and after the verb, help pages, groups that load a verb's module
only when it is called, usage errors with a suggestion.

``verb`` turns a function into a command; ``group`` makes a group of verbs from a table of names.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from ...errors import UsageError, show
from . import helptext
from .console import Console
from .values import closest

__all__ = ["Verb", "VerbCommand", "VerbGroup", "group", "verb"]

HELP_NAMES = ("-h", "--help")
GENERAL = helptext.GENERAL


@dataclass(frozen=True, slots=True)
class Verb:
    """One line of a group's table: the verb, the title it stands under, its module below ``sifkit.cli``, what it does, and
    whether it has verbs of its own."""

    name: str
    title: str
    module: str
    help: str
    group: bool = False


class VerbCommand(TyperCommand):
    """A verb, with its own help page."""

    examples: tuple[str, ...] = ()
    once: tuple[str, ...] = ()
    may_be_empty: tuple[str, ...] = ()

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        _take_as_given([option])
        return option

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _entered(ctx)
        if self.once:
            given = self.make_parser(ctx).parse_args(args=list(args))[2]
            for param in given:
                if param.name in self.once and given.count(param) > 1:
                    raise UsageError(f"{max(param.opts, key=len)} is given more than once", hint="only one can be taken")
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        return helptext.command_help(self, ctx.command_path, ctx.help_option_names, self.examples)


class VerbGroup(TyperGroup):
    """A group whose verbs are known by name; each one's module is imported when it is asked for."""

    verbs: tuple[Verb, ...] = ()
    examples: tuple[str, ...] = ()
    first: str = ""
    elsewhere: dict[str, str]

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        _take_as_given([option])
        return option

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _entered(ctx)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return [entry.name for entry in self.verbs]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        for entry in self.verbs:
            if entry.name == cmd_name:
                found = importlib.import_module(f"..{entry.module}", __package__).command
                found.name = cmd_name
                return found
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        found = self.get_command(ctx, args[0])
        if found is None:
            self.unknown(ctx, args[0])
        return args[0], found, args[1:]

    def unknown(self, ctx: Any, word: str) -> NoReturn:
        """Say where the verb lives, or which was meant."""
        path = ctx.command_path
        if word.startswith("-"):
            known = [name for param in self.params for name in (*param.opts, *param.secondary_opts)]
            meant = closest(word, known)
            what = f"no such option {show(word)}" + (f" (did you mean {meant}?)" if meant else "")
        else:
            from .suggest import explain

            what = explain(ctx.find_root().command, tuple(path.split(" ")[1:]), word, self.elsewhere)
        raise UsageError(what, hint=f"see {path} -h")

    def get_help(self, ctx: Any) -> str:
        titles: dict[str, list[tuple[str, str]]] = {}
        for entry in self.verbs:
            titles.setdefault(entry.title, []).append((entry.name, entry.help))
        return helptext.group_help(self, ctx.command_path, ctx.help_option_names, self.examples, titles, first=self.first)


def _entered(ctx: Any) -> None:
    """From here on errors are the verb's own."""
    console = ctx.find_root().obj
    if isinstance(console, Console):
        console.program = ctx.command_path


def _common_options(taken: str, *, before: bool) -> list[inspect.Parameter]:
    """-q -v -d --nocolor as parameters; a letter in ``taken`` means something else for the verb. ``before``: of a group, which
    takes --json for the verb that follows."""

    def option(name: str, kind: Any, default: object, *names: str, text: str, **more: Any) -> inspect.Parameter:
        free = [n for n in names if n.startswith("--") or n[1] not in taken]
        annotation = Annotated[kind, typer.Option(*free, help=text, rich_help_panel=GENERAL, **more)]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    json = [option("json_", bool, False, "--json", text="the report as JSON, of verbs that have one")] if before else []
    return [
        *json,
        option("quiet_", bool, False, "--quiet", "-q", text="only errors on stderr"),
        option("verbose_", int, 0, "--verbose", "-v", text="say more", count=True),
        option("debug_", bool, False, "--debug", "-d", text="on failure, show where in the program"),
        option("nocolor_", bool, False, "--nocolor", text="no colour (as NO_COLOR does)"),
    ]


def _check_given(params: Sequence[Any], values: dict[str, Any], may_be_empty: Sequence[str]) -> None:
    """Refuse empty names and values: they come from shell variables that are not set. Where empty is the default, it may be."""
    for param in params:
        value = values.get(param.name)
        for index, text in enumerate(value if isinstance(value, list | tuple) else [value]):
            if text != "" or param.default == "" or param.name in may_be_empty:
                continue
            if param.param_type_name == "option":
                raise UsageError(f"{max(param.opts, key=len)} has an empty value", hint="give it one, or leave the option out")
            words = (param.metavar or param.name.upper()).replace("[", "").replace("]", "").replace("...", "").split()
            raise UsageError(f"{words[min(index, len(words) - 1)]} is empty", hint="give a name")


def _with_common(function: Callable[..., Any], taken: str = "", *, before: bool = False) -> Callable[..., Any]:
    """``function(console, ...)`` as a callback that takes the common options too and puts them into the console."""
    signature = inspect.signature(function, eval_str=True)
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, p in signature.parameters.items() if name != "console"]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    def callback(**values: Any) -> Any:
        ctx = values.pop("ctx")
        console: Console = ctx.find_root().obj
        console.program = ctx.command_path
        console.quiet |= values.pop("quiet_")
        console.verbose += values.pop("verbose_")
        console.debug |= values.pop("debug_")
        console.color &= not values.pop("nocolor_")
        console.json_before |= values.pop("json_", False)
        _check_given(ctx.command.params, values, getattr(ctx.command, "may_be_empty", ()))
        if "json" in values:
            console.json = values["json"] = values["json"] or console.json_before
        elif console.json_before and not before:
            raise UsageError("it has no report for --json", hint="leave --json out")
        return function(console, **values)

    callback.__doc__ = function.__doc__
    callback.__name__ = function.__name__
    callback.__annotations__ = {}
    vars(callback)["__signature__"] = signature.replace(parameters=[context, *own, *_common_options(taken, before=before)])
    return callback


class _AsGiven:
    """Takes the place of typer's conversion of one parameter: ours are text, lists of text, flags and one counter."""

    @staticmethod
    def coerce(value: Any, **_: Any) -> Any:
        return value


def _take_as_given(params: Sequence[Any]) -> None:
    """Newer releases of typer load pydantic to convert a value, which takes longer than all else a short command does."""
    for param in params:
        if hasattr(param, "get_runtime_param"):
            param.get_runtime_param = _AsGiven


def _app() -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def verb(
    *,
    examples: Sequence[str],
    taken: str = "",
    once: Sequence[str] = (),
    may_be_empty: Sequence[str] = (),
    help_names: Sequence[str] = HELP_NAMES,
    kind: type[VerbCommand] = VerbCommand,
) -> Callable[[Callable[..., Any]], VerbCommand]:
    """Make a command of ``function(console, ...)``; its docstring is the help, its parameters are typer's.

    ``taken``: letters of common options that the verb uses itself. ``once``: parameters of which the last does not simply win
    where an option is repeated, for the others would be missed. ``may_be_empty``: parameters that take an empty text. ``kind``:
    of command, where its failures end otherwise.
    """

    def decorate(function: Callable[..., Any]) -> VerbCommand:
        app = _app()
        settings = {"help_option_names": list(help_names)}
        app.command(cls=kind, context_settings=settings)(_with_common(function, taken))
        made = get_command(app)
        assert isinstance(made, VerbCommand)
        _take_as_given(made.params)
        made.examples, made.once, made.may_be_empty = tuple(examples), tuple(once), tuple(may_be_empty)
        return made

    return decorate


def group(
    *, verbs: Sequence[Verb], examples: Sequence[str], first: str = "", elsewhere: dict[str, str] | None = None
) -> Callable[[Callable[..., Any]], VerbGroup]:
    """Make a group of ``verbs``; ``function(console, ...)`` runs before the verb.

    ``elsewhere``: what words of other tools mean in this group, as ``{"copy": "overlay clone"}``; see ``elsewhere.WORDS``.
    """

    def decorate(function: Callable[..., Any]) -> VerbGroup:
        app = _app()
        settings = {"help_option_names": list(HELP_NAMES)}
        app.callback(cls=VerbGroup, context_settings=settings, no_args_is_help=True)(_with_common(function, before=True))
        made = get_command(app)
        assert isinstance(made, VerbGroup)
        _take_as_given(made.params)
        made.verbs, made.examples, made.first, made.elsewhere = tuple(verbs), tuple(examples), first, elsewhere or {}
        return made

    return decorate
