"""``sifkit completion``: static scripts made from the command tree, so that pressing Tab starts no Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from .sif.codes import TABLES
from .support import values
from .support.console import Console
from .support.frame import VerbGroup, verb

__all__ = ["CommandNode", "command", "script", "tree"]

SHELLS = ("bash", "zsh", "fish")
FILE_WORDS = frozenset(("FILE", "DIR", "IMAGE", "NEW", "PATH", "SPEC", "LAYER"))


@dataclass(frozen=True, slots=True)
class Option:
    """Option of a command: spellings, whether it takes a value and which (``words``, or a file), help."""

    names: tuple[str, ...]
    takes_value: bool
    words: tuple[str, ...]
    files: bool
    directories: bool
    help: str


@dataclass(frozen=True, slots=True)
class CommandNode:
    """Verb or group: ``path`` without the program's name, its verbs (name, help), options, and words of its argument."""

    path: tuple[str, ...]
    verbs: tuple[tuple[str, str], ...]
    options: tuple[Option, ...]
    words: tuple[str, ...]


def tree(group: VerbGroup) -> list[CommandNode]:
    """Return the group and everything below it; loads the module of each verb."""
    return list(_nodes(group, ()))


def _nodes(node: Any, path: tuple[str, ...]) -> Iterator[CommandNode]:
    help_names = tuple(node.context_settings.get("help_option_names", ("--help",)))
    options = [_option(param) for param in node.params if param.param_type_name == "option" and not param.hidden]
    options.append(Option(help_names, False, (), False, False, "show help"))
    verbs = node.verbs if isinstance(node, VerbGroup) else ()
    arguments = [param.metavar or "" for param in node.params if param.param_type_name == "argument"]
    words = _choices(arguments[0]) if arguments else ()
    yield CommandNode(path, tuple((entry.name, entry.help) for entry in verbs), tuple(options), words)
    for entry in verbs:
        yield from _nodes(node.get_command(None, entry.name), (*path, entry.name))


def _option(param: Any) -> Option:
    metavar = param.metavar or ""
    takes_value = not param.is_flag and not param.count
    words = tuple(TABLES.get(metavar, ())) or _choices(metavar)
    return Option(
        (*param.opts, *param.secondary_opts),
        takes_value,
        words if takes_value else (),
        takes_value and not FILE_WORDS.isdisjoint(re.findall("[A-Z]+", metavar)),
        takes_value and metavar == "DIR",
        " ".join((param.help or "").split()),
    )


def _choices(metavar: str) -> tuple[str, ...]:
    """Return the words that may stand for a metavar: those in small letters."""
    return tuple(word for word in metavar.split("|") if re.fullmatch("[a-z0-9_]+", word))


def script(shell: str, nodes: list[CommandNode]) -> str:
    """Return the script for ``bash``, ``zsh`` or ``fish``."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](nodes)


def _quoted(text: str) -> str:
    """Quote a word for a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def _walked(node: CommandNode) -> list[str]:
    return [name for name, _ in node.verbs if name != "help"]


def _verb_walk(nodes: list[CommandNode], shift: str, first: str) -> list[str]:
    """Return shell lines that set ``verb`` from the words before the cursor; ``help`` takes the verbs that follow."""
    groups = [node for node in nodes if node.verbs]
    lines = [
        '  local verb="" index word',
        f"  for ((index = {first}; index < {shift}; index++)); do",
        "    word=${words[index]}",
    ]
    lines += ['    case "$verb/$word" in']
    for node in groups:
        for name in _walked(node):
            found = " ".join((*node.path, name))
            lines.append(f"      {_quoted(' '.join(node.path) + '/' + name)}) verb={_quoted(found)} ;;")
    return [*lines, "    esac", "  done"]


def _bash(nodes: list[CommandNode]) -> str:
    lines = ['# bash completion of sifkit; load it with: eval "$(sifkit completion bash)"', "_sifkit() {"]
    lines += ['  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} list="" words=("${COMP_WORDS[@]}")']
    lines += _verb_walk(nodes, "COMP_CWORD", "1")
    lines += ["  COMPREPLY=()", '  case "$verb $prev" in']
    for node in nodes:
        for option in node.options:
            if option.takes_value:
                pattern = "|".join(_quoted(f"{' '.join(node.path)} {name}") for name in option.names)
                if option.words:
                    action = f'COMPREPLY=($(compgen -W {_quoted(" ".join(option.words))} -- "$cur"))'
                elif option.directories:
                    action = 'compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur")'
                elif option.files:
                    action = 'compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur")'
                else:
                    action = ":"
                lines.append(f"    {pattern}) {action}; return ;;")
    lines += ["  esac", '  case "$verb" in']
    for node in nodes:
        words = [name for name, _ in node.verbs] + list(node.words)
        options = [name for option in node.options for name in option.names]
        lines.append(f"    {_quoted(' '.join(node.path))})")
        lines.append(
            f"      if [[ $cur == -* ]]; then list={_quoted(' '.join(options))}; else list={_quoted(' '.join(words))}; fi ;;"
        )
    lines += ["  esac", '  if [[ -n $list ]]; then COMPREPLY=($(compgen -W "$list" -- "$cur")); return; fi']
    lines += ["  compopt -o filenames 2>/dev/null", '  mapfile -t COMPREPLY < <(compgen -f -- "$cur")', "}"]
    return "\n".join([*lines, "complete -F _sifkit sifkit", ""])


def _zsh(nodes: list[CommandNode]) -> str:
    def described(name: str, text: str) -> str:
        return _quoted(name.replace(":", "\\:") + ":" + text)

    lines = ["#compdef sifkit", '# zsh completion of sifkit; load it with: eval "$(sifkit completion zsh)"', "_sifkit() {"]
    lines += ["  emulate -L zsh", "  local -a list"]
    lines += _verb_walk(nodes, "CURRENT", "2")
    lines += ['  case "$verb ${words[CURRENT-1]}" in']
    for node in nodes:
        for option in node.options:
            if option.takes_value:
                pattern = "|".join(_quoted(f"{' '.join(node.path)} {name}") for name in option.names)
                if option.words:
                    action = f"compadd -- {' '.join(map(_quoted, option.words))}"
                else:
                    action = "_files -/" if option.directories else "_files" if option.files else "_message value"
                lines.append(f"    {pattern}) {action}; return ;;")
    lines += ["  esac", '  case "$verb" in']
    for node in nodes:
        options = [described(name, option.help) for option in node.options for name in option.names]
        words = [described(name, text) for name, text in (*node.verbs, *((word, "") for word in node.words))]
        lines.append(f"    {_quoted(' '.join(node.path))})")
        lines.append(
            f"      if [[ ${{words[CURRENT]}} == -* ]]; then list=({' '.join(options)}); else list=({' '.join(words)}); fi ;;"
        )
    lines += ["  esac", "  if (( ${#list} )); then _describe 'sifkit' list; else _files; fi", "}"]
    lines += ['if [[ ${funcstack[1]} == _sifkit ]]; then _sifkit "$@"; else compdef _sifkit sifkit; fi', ""]
    return "\n".join(lines)


def _fish(nodes: list[CommandNode]) -> str:
    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    lines = ["# fish completion of sifkit; load it with: sifkit completion fish | source"]
    lines += [
        "function __sifkit_verb",
        "  set -l verb ''",
        "  for word in (commandline -opc)[2..-1]",
        '    switch "$verb/$word"',
    ]
    for node in nodes:
        for name in _walked(node):
            lines.append(f"      case {quoted(' '.join(node.path) + '/' + name)}")
            lines.append(f"        set verb {quoted(' '.join((*node.path, name)))}")
    lines += ["    end", "  end", '  test "$verb" = "$argv[1]"', "end"]
    for node in nodes:
        head = f"complete -c sifkit -n {quoted('__sifkit_verb ' + quoted(' '.join(node.path)))}"
        if node.verbs or node.words:
            lines += [f"{head} -f"]
        for name, text in (*node.verbs, *((word, "") for word in node.words)):
            lines.append(f"{head} -a {quoted(name)} -d {quoted(text)}")
        for option in node.options:
            names = " ".join(f"-l {quoted(n[2:])}" if n.startswith("--") else f"-s {quoted(n[1:])}" for n in option.names)
            value = ""
            if option.takes_value:
                value = " -r" if option.files else f" -x -a {quoted(' '.join(option.words))}" if option.words else " -x"
            lines.append(f"{head} {names}{value} -d {quoted(option.help)}")
    return "\n".join([*lines, ""])


@verb(
    examples=[
        'eval "$(sifkit completion bash)"',
        "sifkit completion zsh > ~/.zfunc/_sifkit",
        "sifkit completion fish > ~/.config/fish/completions/sifkit.fish",
    ]
)
def command(
    console: Console, shell: Annotated[str, typer.Argument(metavar="|".join(SHELLS), help="shell to print the script for")]
) -> None:
    """Print a shell completion script."""
    from .root import root

    console.write(script(values.choice("SHELL", shell, SHELLS), tree(root)).encode())
