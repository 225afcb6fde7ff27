"""Start of the command in a container: the words and the environment for execve, with the scripts of the image in between.

An image may have scripts in /.singularity.d/env that set variables. The shell of the container reads them in a script of ours,
which then sets the user's variables, passes on the host's, and becomes the command. It is bash where the image has it, since
Apptainer reads them with an interpreter of its own that knows bash's syntax, and many have ``source`` or arrays. Without such
scripts no shell is needed; if there are scripts but no shell, their plain assignments are read here. Pure.

The values go to the script as variables ``_sifkit_0``, ``_sifkit_1`` ..., so that no value needs quoting, and the script, which
is one argument of at most 128 KiB, stays small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...errors import FormatError, counted, show
from ..planning.environment import LIBRARY_PATH, is_variable_name
from ..planning.run_plan import Command, ContainerEnvironment, Start
from ..planning.shell_words import apply_assignments, expand, needs_evaluation

__all__ = ["ContainerFacts", "start_of"]

RUNSCRIPT = "/.singularity.d/runscript"
ENVIRONMENT_DIRECTORY = "/.singularity.d/env"
AFTER = "99-base.sh"
"""Script after which the user's variables are set. Apptainer puts it into every image; it adds the path of libraries."""
APPS = "95-apps.sh"
"""Script of Apptainer that sets the variables of an app, if there is one."""
HELD = "_sifkit_"
"""Prefix of the variables that hold values for the script."""
PREPENDED, APPENDED = f"{HELD}prepended", f"{HELD}appended"
"""Variables of the script with the user's additions to PATH."""
FAILED = 255
"""Exit code of a program that cannot be executed. The shell's own would be 126 or 127, which are a command's."""
SHELL_MADE = "HOSTNAME HOSTTYPE MACHTYPE OSTYPE OLDPWD PS2 PS4 SHELL SHLVL TERM"
"""Variables that shells set for themselves: kept, they would be taken for the image's, and the host's would not pass."""
READ_ONLY = ("EUID", "UID")
"""Variables that bash lets nobody set; those of the host are the same, but exported."""
NOT_EXECUTED = "the interpreter or loader of the program is not in the container, or is not for this processor"
"""Explanation of a shell's ``not found`` for a program that is there."""
OURS = "99-runtimevars.sh"
"""Script of the image that changes PATH as we do."""


class ContainerFacts(NamedTuple):
    """Facts of the root of the container. ``shell``: /bin/sh is there; ``bash``: /bin/bash.

    ``scripts``: names and contents of the environment scripts, in order. ``runscript``: of the container or of the app asked
    for, its path if it can be executed. ``has_app``: the app asked for is there. ``has_shell_asked``: the shell asked for is.
    """

    shell: bool = True
    bash: bool = False
    scripts: tuple[tuple[str, bytes], ...] = ()
    runscript: str = ""
    has_app: bool = True
    has_asked_shell: bool = False


def start_of(command: Command, environment: ContainerEnvironment, facts: ContainerFacts, *, cwd: str, program: str) -> Start:
    """Return how ``command`` starts. ``program``: for messages of the script. Raises FormatError."""
    words, notes = _command_words(command, facts)
    extra = {"SHELL": words[0]} if command.action == "shell" else {}
    fixed = {**environment.fixed, "PWD": cwd}
    given = (*environment.injected.values(), environment.prepend_path, environment.append_path)
    evaluated = environment.is_evaluated and any(needs_evaluation(value) for value in given)
    if (facts.shell or facts.bash) and (facts.scripts or evaluated):
        script, variables = _script(environment, extra, shown=show(words[0]))
        shell = ("/bin/bash", "--norc") if facts.bash else ("/bin/sh",)
        return Start((*shell, "-c", script, program, *words), {**variables, **fixed}, notes)
    variables = dict(fixed)
    if facts.scripts:
        usual = {AFTER} if command.app else {AFTER, APPS}
        before = [(name, text) for name, text in facts.scripts if name <= AFTER]
        ignored = sum(apply_assignments(text, variables) * (name not in usual) for name, text in before)
        _inject(environment, variables)
        after = [text for name, text in facts.scripts if name > AFTER and name != OURS]
        ignored += sum(apply_assignments(text, variables) for text in after)
        if ignored:
            notes = (*notes, f"the image has no /bin/sh; not understood in its environment scripts: {counted(ignored, 'line')}")
        if any(name == AFTER for name, _ in before):
            environment = environment._replace(with_libraries=True)
    else:
        _inject(environment, variables)
    _finish(environment, variables)
    return Start(words, {**variables, **extra}, notes)


def _command_words(command: Command, facts: ContainerFacts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words of the command that runs, and notes."""
    if command.app and not facts.has_app:
        raise FormatError(f"the image has no app {show(command.app)}", hint="its apps: sifkit inspect --list-apps IMAGE")
    if command.action == "exec":
        return command.words, ()
    if command.action == "shell":
        if command.shell and facts.has_asked_shell:
            return (command.shell, *command.words), ()
        notes = (f"{show(command.shell)} cannot be executed in the container; another shell is used",) if command.shell else ()
        if facts.bash:
            return ("/bin/bash", "--norc", *command.words), notes
        if not facts.shell:
            raise FormatError("the container has no shell", hint="run a program of it: sifkit exec IMAGE PROGRAM")
        return ("/bin/sh", *command.words), notes
    if facts.runscript:
        return (facts.runscript, *command.words), ()
    if command.app:
        raise FormatError(f"the app {show(command.app)} has no runscript", hint="run a program: sifkit exec --app ...")
    if not facts.shell:
        raise FormatError("the container has no runscript and no shell", hint="run a program of it: sifkit exec IMAGE PROGRAM")
    return ("/bin/sh", *command.words), ("the image has no runscript; /bin/sh is run",)


def _inject(environment: ContainerEnvironment, variables: dict[str, str]) -> None:
    """Set the user's variables."""
    for name, value in environment.injected.items():
        variables[name] = expand(value, variables) if environment.is_evaluated else value


def _finish(environment: ContainerEnvironment, variables: dict[str, str]) -> None:
    """Pass on the host's variables, and change the paths."""
    for name, value in environment.passed.items():
        if name not in variables:
            variables[name] = value
        elif not variables[name]:
            del variables[name]
    before, after = (
        expand(value, variables) if environment.is_evaluated else value
        for value in (environment.prepend_path, environment.append_path)
    )
    parts = (before, variables.get("PATH", ""), after)
    variables["PATH"] = ":".join(part for part in parts if part)
    libraries = [part for part in (variables.get("LD_LIBRARY_PATH"),) if part]
    if (libraries or environment.with_libraries) and LIBRARY_PATH not in ":".join(libraries).split(":"):
        variables["LD_LIBRARY_PATH"] = ":".join([*libraries, LIBRARY_PATH])


def _script(environment: ContainerEnvironment, extra: Mapping[str, str], *, shown: str) -> tuple[str, dict[str, str]]:
    """Return the script for the shell of the container, and the variables with its values.

    ``shown``: the program of the command, for messages.
    """
    variables: dict[str, str] = {}

    def value_of(text: str) -> str:
        """Put a value into a variable and return its name."""
        name = f"{HELD}{len(variables)}"
        variables[name] = text
        return name

    def assignment(name: str, value: str) -> str:
        if environment.is_evaluated and needs_evaluation(value):
            return f'{name}="{_in_double_quotes(value)}"'
        return f'{name}="${value_of(value)}"'

    inject = [f"export {assignment(name, value)}" for name, value in environment.injected.items()]
    inject += [assignment(PREPENDED, environment.prepend_path), assignment(APPENDED, environment.append_path)]
    final = [f'export {name}="${value_of(value)}"' for name, value in extra.items()]
    named = value_of(shown)
    held, first = " ".join(variables), len(variables)
    passed = [name for name in environment.passed if is_variable_name(name)]
    final += [f"export {name}" for name in READ_ONLY if name in passed]
    for name in passed:
        value_of(environment.passed[name])
    # exported functions of bash: only a shell that knows such names keeps them
    others = {name: value for name, value in environment.passed.items() if not is_variable_name(name)}
    script = f"""\
unset {SHELL_MADE}
_sifkit_home=$HOME
_sifkit_pwd=$PWD
_sifkit_source() {{ . "$_sifkit_file"; }}
_sifkit_inject() {{
{chr(10).join(inject)}
:
}}
_sifkit_found=
for _sifkit_file in {ENVIRONMENT_DIRECTORY}/*.sh; do
if [ -f "$_sifkit_file" ] && [ -r "$_sifkit_file" ]; then
case $_sifkit_file in */{OURS}) continue;; esac
_sifkit_source
case $_sifkit_file in */{AFTER}) _sifkit_inject; _sifkit_found=1;; esac
fi
done
[ -n "$_sifkit_found" ] || _sifkit_inject
[ "$PWD" = "$_sifkit_pwd" ] || cd "$_sifkit_pwd" && unset OLDPWD
export HOME="${{HOME-$_sifkit_home}}"
_sifkit_n={first}
for _sifkit_name in {" ".join(passed)}; do
eval "case \\${{$_sifkit_name+x}}\\${{$_sifkit_name-}} in
'') export $_sifkit_name=\\"\\${HELD}$_sifkit_n\\";;
x) unset $_sifkit_name;;
esac
unset {HELD}$_sifkit_n"
_sifkit_n=$((_sifkit_n + 1))
done
{chr(10).join(final)}
PATH="${{{PREPENDED}:+${PREPENDED}:}}${{PATH-}}${{{APPENDED}:+:${APPENDED}}}"
export PATH
case ":${{LD_LIBRARY_PATH-}}:" in
::) {f"export LD_LIBRARY_PATH={LIBRARY_PATH}" if environment.with_libraries else ":"};;
*:{LIBRARY_PATH}:*) ;;
*) export LD_LIBRARY_PATH="$LD_LIBRARY_PATH:{LIBRARY_PATH}";;
esac
_sifkit_find() {{
case $1 in
*/*) [ -e "$1" ] || {{ printf '%s: %s: no such file in the container\\n' "$0" "${named}" >&2; exit 255; }}
[ ! -d "$1" ] || {{ printf '%s: %s: is a directory\\n' "$0" "${named}" >&2; exit 255; }}
[ -f "$1" ] && [ -x "$1" ] || {{ printf '%s: %s: permission denied\\n' "$0" "${named}" >&2; exit 255; }}
return;;
esac
IFS=:
set -f
for _sifkit_file in $PATH; do
if [ -f "${{_sifkit_file:-.}}/$1" ] && [ -x "${{_sifkit_file:-.}}/$1" ]; then return; fi
done
printf '%s: %s: executable file not found in $PATH\\n' "$0" "${named}" >&2
exit 255
}}
_sifkit_find "$@"
unset _sifkit_file _sifkit_found _sifkit_home _sifkit_pwd _sifkit_n _sifkit_name {PREPENDED} {APPENDED} {held}
trap 'printf "%s\n" "$0: {NOT_EXECUTED}" >&2; exit {FAILED}' 0
if [ -n "${{BASH_VERSINFO-}}" ]; then
shopt -s execfail
SHLVL=$((${{SHLVL:-0}} + 1)) # which exec takes off again
fi
exec "$@"
exit {FAILED}
"""
    return script, {**others, **variables}


def _in_double_quotes(text: str) -> str:
    """Return text for use between double quotes: ``$`` and backquotes work, after a backslash they stand for themselves."""
    found: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        following = text[position + 1 : position + 2]
        if character == "\\" and following and following in "$`":
            found.append(character + following)
            position += 1
        elif character in '\\"':
            found.append("\\" + character)
        else:
            found.append(character)
        position += 1
    return "".join(found)
