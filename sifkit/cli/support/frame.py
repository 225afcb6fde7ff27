"""Frame of every verb: options before and after the verb, help pages, lazily loaded groups, usage errors with a suggestion.

``verb`` turns a function into a command; ``group`` makes a group of verbs from a table of names.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, NoReturn, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from ...errors import UsageError
from . import helptext
from .console import Console
from .suggest import unknown_option
from .waiting import WAIT_HELP, waiting

__all__ = ["GENERAL", "Verb", "VerbCommand", "VerbGroup", "group", "verb"]

HELP_NAMES = ("-h", "--help")
GENERAL = helptext.GENERAL


@dataclass(frozen=True, slots=True)
class Verb:
    """Verb of a group: name, help section, module below ``sifkit.cli``, one-line help. ``group``: it has verbs of its own."""

    name: str
    section: str
    module: str
    help: str
    group: bool = False


class VerbCommand(TyperCommand):
    """Command of one verb, with our help page."""

    examples: tuple[str, ...] = ()
    once: tuple[str, ...] = ()
    allow_empty: tuple[str, ...] = ()

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        _skip_conversion([option])
        return option

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _set_program(ctx)
        if self.once:
            given = self.make_parser(ctx).parse_args(args=list(args))[2]
            for param in given:
                if param.name in self.once and given.count(param) > 1:
                    raise UsageError(f"{max(param.opts, key=len)} is given more than once", hint="give it once")
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        return helptext.command_help(self, ctx.command_path, ctx.help_option_names, self.examples)


class VerbGroup(TyperGroup):
    """Group of verbs; a verb's module is imported when the verb is looked up."""

    verbs: tuple[Verb, ...] = ()
    examples: tuple[str, ...] = ()
    intro: str = ""
    shared: tuple[tuple[str, str], ...] = ()
    aliases: dict[str, str]

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        _skip_conversion([option])
        return option

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _set_program(ctx)
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
            self.reject_unknown(ctx, args[0])
        return args[0], found, args[1:]

    def reject_unknown(self, ctx: Any, word: str) -> NoReturn:
        """Raise UsageError for a verb or option the group does not have, with a suggestion."""
        path = ctx.command_path
        if word.startswith("-"):
            message = unknown_option(word, self.params)
        else:
            from .suggest import unknown_command

            message = unknown_command(ctx.find_root().command, tuple(path.split(" ")[1:]), word, self.aliases)
        raise UsageError(message, hint=f"see {path} -h")

    def get_help(self, ctx: Any) -> str:
        sections: dict[str, list[tuple[str, str]]] = {}
        for entry in self.verbs:
            sections.setdefault(entry.section, []).append((entry.name, entry.help))
        return helptext.group_help(
            self, ctx.command_path, ctx.help_option_names, self.examples, sections, intro=self.intro, shared=self.shared
        )


def _set_program(ctx: Any) -> None:
    """Report errors from here on as the verb's own."""
    console = ctx.find_root().obj
    if isinstance(console, Console):
        console.program = ctx.command_path


def _common_options(*, group: bool, locks: bool) -> list[inspect.Parameter]:
    """-q -v --debug --nocolor as parameters. A ``group`` also takes --json, for the verb that follows.

    A verb that ``locks`` an image also takes --wait.
    """

    def option(name: str, kind: Any, default: object, *names: str, text: str, **more: Any) -> inspect.Parameter:
        annotation = Annotated[kind, typer.Option(*names, help=text, rich_help_panel=GENERAL, **more)]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    json = [option("json_", bool, False, "--json", text="print reports as JSON")] if group else []
    wait = [option("wait_", str | None, None, "--wait", text=WAIT_HELP, metavar="SECONDS")] if locks else []
    return [
        *json,
        *wait,
        option("quiet_", bool, False, "--quiet", "-q", text="print only errors"),
        option("verbose_", int, 0, "--verbose", "-v", text="print more details", count=True),
        option("debug_", bool, False, "--debug", text="print a traceback on failure"),
        option("nocolor_", bool, False, "--nocolor", text="disable colors (also: NO_COLOR)"),
    ]


def _reject_empty(params: Sequence[Any], values: dict[str, Any], allow_empty: Sequence[str]) -> None:
    """Raise UsageError for empty names and values: they come from unset shell variables. An empty default may be repeated."""
    for param in params:
        value = values.get(param.name)
        for index, text in enumerate(value if isinstance(value, list | tuple) else [value]):
            if text != "" or param.default == "" or param.name in allow_empty:
                continue
            if param.param_type_name == "option":
                raise UsageError(f"{max(param.opts, key=len)} has an empty value", hint="give it one, or omit the option")
            words = (param.metavar or param.name.upper()).replace("[", "").replace("]", "").replace("...", "").split()
            raise UsageError(
                f"{words[min(index, len(words) - 1)]} is empty",
                hint="give one, or leave it out" if not param.required else "give one",
            )


def _expanded(parameters: Sequence[inspect.Parameter]) -> tuple[list[inspect.Parameter], dict[str, type]]:
    """Parameters with each group (a dataclass) replaced by its fields; the groups by their parameters' names."""
    found: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    for parameter in parameters:
        kind = parameter.annotation
        if not is_dataclass(kind):
            found.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        assert isinstance(kind, type)
        groups[parameter.name] = kind
        hints = get_type_hints(kind, include_extras=True)
        found += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
            for f in fields(kind)
        ]
    return found, groups


def _with_common(function: Callable[..., Any], *, group: bool = False, locks: bool = False) -> Callable[..., Any]:
    """Wrap ``function(console, ...)`` into a callback that takes the common options too and stores them in the console."""
    signature = inspect.signature(function, eval_str=True)
    own, groups = _expanded([p for name, p in signature.parameters.items() if name != "console"])
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
        wait = values.pop("wait_", None)
        _reject_empty(ctx.command.params, values, getattr(ctx.command, "allow_empty", ()))
        if "json" in values:
            console.json = values["json"] = values["json"] or console.json_before
        elif console.json_before and not group:
            raise UsageError("--json is not supported by this command", hint="omit --json")
        for name, kind in groups.items():
            values[name] = kind(**{f.name: values.pop(f.name) for f in fields(kind)})
        with waiting(console, wait):
            return function(console, **values)

    callback.__doc__ = function.__doc__
    callback.__name__ = function.__name__
    callback.__annotations__ = {}
    vars(callback)["__signature__"] = signature.replace(parameters=[context, *own, *_common_options(group=group, locks=locks)])
    return callback


class _NoConversion:
    """Stand-in for typer's conversion of a parameter: ours are text, lists of text, flags and one counter."""

    @staticmethod
    def coerce(value: Any, **_: Any) -> Any:
        return value


def _skip_conversion(params: Sequence[Any]) -> None:
    """Turn off typer's conversion: newer releases load pydantic for it, which takes longer than a whole short command."""
    for param in params:
        if hasattr(param, "get_runtime_param"):
            param.get_runtime_param = _NoConversion


def _app() -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def verb(
    *,
    examples: Sequence[str],
    once: Sequence[str] = (),
    allow_empty: Sequence[str] = (),
    help_names: Sequence[str] = HELP_NAMES,
    kind: type[VerbCommand] = VerbCommand,
    locks: bool = False,
) -> Callable[[Callable[..., Any]], VerbCommand]:
    """Make a command of ``function(console, ...)``; its docstring is the help, its parameters are typer's.

    A parameter annotated with a dataclass of ``options`` becomes the options of its fields. ``once``: parameters that may not
    be repeated (of others the last value wins).
    ``allow_empty``: parameters that accept an empty text. ``kind``: the class of the command. ``locks``: it locks an image, and
    has --wait.
    """

    def decorate(function: Callable[..., Any]) -> VerbCommand:
        app = _app()
        settings = {"help_option_names": list(help_names)}
        app.command(cls=kind, context_settings=settings)(_with_common(function, locks=locks))
        made = get_command(app)
        assert isinstance(made, VerbCommand)
        _skip_conversion(made.params)
        made.examples, made.once, made.allow_empty = tuple(examples), tuple(once), tuple(allow_empty)
        return made

    return decorate


def group(
    *,
    verbs: Sequence[Verb],
    examples: Sequence[str],
    intro: str = "",
    shared: Sequence[tuple[str, str]] = (),
    aliases: dict[str, str] | None = None,
) -> Callable[[Callable[..., Any]], VerbGroup]:
    """Make a group of ``verbs``; ``function(console, ...)`` runs before the verb.

    ``intro``: first line of the help page. ``shared``: options of several verbs, with their help. ``aliases``: words of other
    tools and the verbs that do the same, as ``{"copy": "overlay clone"}``; see ``suggest.SYNONYMS``.
    """

    def decorate(function: Callable[..., Any]) -> VerbGroup:
        app = _app()
        settings = {"help_option_names": list(HELP_NAMES)}
        app.callback(cls=VerbGroup, context_settings=settings, no_args_is_help=True)(_with_common(function, group=True))
        made = get_command(app)
        assert isinstance(made, VerbGroup)
        _skip_conversion(made.params)
        made.verbs, made.examples, made.intro, made.aliases = tuple(verbs), tuple(examples), intro, aliases or {}
        made.shared = tuple(shared)
        return made

    return decorate
