"""Environment of a command as it starts: by the shell of the container, without scripts, and without a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sifkit.errors import FormatError, UsageError
from sifkit.runtime.container.start import ENVIRONMENT_DIRECTORY, ContainerFacts, start_of
from sifkit.runtime.planning.environment import DEFAULT_PATH, EnvironmentRequest, parse_assignments, plan_environment
from sifkit.runtime.planning.run_plan import Command, ContainerEnvironment, Start
from sifkit.runtime.planning.shell_words import apply_assignments, parse_environment_file

SCRIPTS = {
    "01-base.sh": "#!/bin/sh\n# nothing\n",
    "90-environment.sh": 'export FOO=image\nexport EMPTY=\nexport PATH="/img/bin:$PATH"\nexport SEEN="$A-${HOST-unset}"\n',
    "99-base.sh": "export LD_LIBRARY_PATH=/.singularity.d/libs\n",
    "99-runtimevars.sh": "export PATH=/wrong\n",
    "99-zlast.sh": "export LATE=$A\n",
}
HOST = {
    "PATH": "/host/bin",
    "HOME": "/host/home",
    "LD_LIBRARY_PATH": "/host/lib",
    "FOO": "host",
    "EMPTY": "host",
    "HOST": "yes",
    "BLANK": "",
    "LINES": "a\nb'\"$(x)\n",
    "APPTAINER_DEBUG": "1",
    "SINGULARITYENV_A": "old",
    "APPTAINERENV_B": "$HOME/x",
    "APPTAINERENV_PREPEND_PATH": "/pre",
    "APPTAINERENV_APPEND_PATH": "/app",
    "http_proxy": "p",
}
EXEC = Command(action="exec", words=("/usr/bin/env", "-0"))
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


def planned(host: Mapping[str, str] = HOST, **more: object) -> tuple[ContainerEnvironment, tuple[str, ...]]:
    return plan_environment(EnvironmentRequest(host=host, image="/data/base.sif", home="/home/me", **more))  # type: ignore[arg-type]


def started(environment: ContainerEnvironment, scripts: Mapping[str, str], command: Command = EXEC, **facts: bool) -> Start:
    found = tuple((name, scripts[name].encode()) for name in sorted(scripts))
    return start_of(command, environment, ContainerFacts(scripts=found, **facts), cwd="/", program="sifkit exec")


def ran(start: Start, directory: Path, scripts: Mapping[str, str], shell: str = "sh") -> subprocess.CompletedProcess[bytes]:
    """Run what starts, with the scripts in ``directory`` instead of the container's."""
    for name, text in scripts.items():
        (directory / name).write_text(text)
    argv = [word.replace(ENVIRONMENT_DIRECTORY, str(directory)) for word in start.argv]
    argv[: argv.index("-c")] = [shutil.which(shell) or shell, *(["sh"] if shell == "busybox" else [])]
    return subprocess.run(argv, env=dict(start.environment), capture_output=True, cwd="/", check=False)


def environment_of(start: Start, directory: Path, scripts: Mapping[str, str], shell: str = "sh") -> dict[str, str]:
    done = ran(start, directory, scripts, shell)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    found = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)
    for own in ("_", "SHLVL", "OLDPWD"):  # of the shell
        found.pop(own, None)
    return found


WITH_SCRIPTS = {
    "FOO": "image",
    "SEEN": "-unset",
    "A": "old",
    "B": "/home/me/x",
    "HOST": "yes",
    "BLANK": "",
    "LINES": HOST["LINES"],
    "LATE": "old",
    "PATH": f"/pre:/img/bin:{DEFAULT_PATH}:/app",
    "LD_LIBRARY_PATH": "/.singularity.d/libs",
    "HOME": "/home/me",
    "PWD": "/",
    "USER_PATH": "/host/bin:/bin:/usr/bin:/sbin:/usr/sbin:/usr/local/bin:/usr/local/sbin",
    "http_proxy": "p",
    "PS1": "Apptainer> ",
    "PROMPT_COMMAND": 'PS1="Apptainer> "; unset PROMPT_COMMAND',
    "APPTAINER_APPNAME": "",
    "APPTAINER_COMMAND": "exec",
    "APPTAINER_CONTAINER": "/data/base.sif",
    "APPTAINER_NAME": "base.sif",
    "APPTAINER_BIND": "",
    "APPTAINER_ENVIRONMENT": "/.singularity.d/env/91-environment.sh",
    "SINGULARITY_CONTAINER": "/data/base.sif",
    "SINGULARITY_NAME": "base.sif",
    "SINGULARITY_BIND": "",
    "SINGULARITY_ENVIRONMENT": "/.singularity.d/env/91-environment.sh",
}
"""What Apptainer 1.4.5 gives, but for the order."""


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_of_the_image_are_read_by_its_shell(tmp_path: Path, shell: str) -> None:
    environment, notes = planned()
    assert not notes
    assert environment_of(started(environment, SCRIPTS), tmp_path, SCRIPTS, shell) == WITH_SCRIPTS


def test_without_a_shell_assignments_are_read_here() -> None:
    environment, _ = planned()
    start = started(environment, SCRIPTS, shell=False)
    assert start.argv == EXEC.words
    assert dict(start.environment) == WITH_SCRIPTS
    assert not start.notes


def test_without_a_shell_other_lines_are_left_out_with_a_note() -> None:
    environment, _ = planned(host={})
    scripts = {"10-x.sh": "if true; then\nexport IN=1\nfi\nexport A=$(id)\nexport OUT=1\n"}
    start = started(environment, scripts, shell=False)
    assert start.environment["OUT"] == "1" and "IN" not in start.environment and "A" not in start.environment
    assert start.notes == ("the image has no /bin/sh; not understood in its environment scripts: 4 lines",)


def test_without_a_shell_the_usual_scripts_of_apptainer_are_no_note() -> None:
    environment, _ = planned(host={})
    usual = 'if [ -n "${X:-}" ]; then\nexport X\nfi\n'
    scripts = {"90-environment.sh": "export LD_LIBRARY_PATH=/own\n", "95-apps.sh": usual, "99-base.sh": usual}
    start = started(environment, scripts, shell=False)
    assert start.notes == () and start.environment["LD_LIBRARY_PATH"] == "/own:/.singularity.d/libs"
    assert started(environment, scripts, Command(action="exec", words=("x",), app="a"), shell=False).notes


def test_without_scripts_no_shell_is_started() -> None:
    environment, _ = planned(host={"PATH": "/x", "A": "1", "APPTAINERENV_C": "2"})
    start = started(environment, {})
    assert start.argv == EXEC.words
    assert start.environment["A"] == "1" and start.environment["C"] == "2" and start.environment["PATH"] == DEFAULT_PATH
    assert "LD_LIBRARY_PATH" not in start.environment


def test_the_hosts_libraries_are_found_with_nv(tmp_path: Path) -> None:
    environment, _ = planned(host={}, with_libraries=True)
    assert started(environment, {}).environment["LD_LIBRARY_PATH"] == "/.singularity.d/libs"
    scripts = {"10-x.sh": "export A=1"}
    assert environment_of(started(environment, scripts), tmp_path, scripts)["LD_LIBRARY_PATH"] == "/.singularity.d/libs"
    scripts = {"10-x.sh": "export LD_LIBRARY_PATH=/own"}
    found = environment_of(started(environment, scripts), tmp_path, scripts)
    assert found["LD_LIBRARY_PATH"] == "/own:/.singularity.d/libs"


@pytest.mark.parametrize("shell", SHELLS)
def test_values_are_evaluated_in_the_container_or_not(tmp_path: Path, shell: str) -> None:
    given = {"A": 'a "$HOME" $(echo sub) `echo tick` \\x \\$HOME \\', "C": "\\", "D": "$A"}
    environment, _ = planned(host={}, given=given)
    found = environment_of(started(environment, {}), tmp_path, {}, shell)
    assert found["A"] == 'a "/home/me" sub tick \\x $HOME \\'
    assert found["C"] == "\\" and found["D"] == found["A"]
    environment, _ = planned(host={}, given=given, no_eval=True)
    found = environment_of(started(environment, SCRIPTS), tmp_path, SCRIPTS, shell)
    assert {name: found[name] for name in given} == given


@pytest.mark.parametrize(
    ("settings", "before"),
    [
        ({"host": {"PROMPT_COMMAND": "a $X `b`"}}, "a $X `b`"),
        ({"host": {"PROMPT_COMMAND": "a", "APPTAINERENV_PROMPT_COMMAND": "c $FOO"}, "cleanenv": True}, "c image"),
        ({"host": {"PROMPT_COMMAND": "a"}, "given": {"PROMPT_COMMAND": "$A"}, "no_eval": True}, "$A"),
        ({"host": {"PROMPT_COMMAND": "a"}, "cleanenv": True}, ""),
        ({"host": {"PROMPT_COMMAND": ""}}, ""),
    ],
)
def test_the_prompt_is_set_after_what_is_run_before_every_prompt(tmp_path: Path, settings: dict[str, Any], before: str) -> None:
    wanted = 'PS1="Apptainer> "; unset PROMPT_COMMAND'
    if before:
        wanted = f'{before}; PROMPT_COMMAND="${{PROMPT_COMMAND%%; PROMPT_COMMAND=*}}"; PS1="Apptainer> "'
    start = started(planned(**settings)[0], SCRIPTS)
    assert environment_of(start, tmp_path, SCRIPTS)["PROMPT_COMMAND"] == wanted
    assert started(planned(**settings)[0], SCRIPTS, shell=False).environment["PROMPT_COMMAND"] == wanted


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_that_change_the_shell_do_not_disturb(tmp_path: Path, shell: str) -> None:
    scripts = {"10-a.sh": "set -- other words\nset -u\nset -e\nset -f\nIFS=x\n", "20-b.sh": "export B=1\nreturn 0\n"}
    environment, _ = planned(host={"Q": "1"})
    start = started(environment, scripts, Command(action="exec", words=("sh", "-c", 'echo "$1" $B $Q', "me", "a  b")))
    assert ran(start, tmp_path, scripts, shell).stdout == b"a  b 1 1\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_variables_that_shells_set_themselves_pass(tmp_path: Path, shell: str) -> None:
    host = {
        "TERM": "xterm",
        "HOSTNAME": "node",
        "OSTYPE": "o",
        "SHELL": "/bin/zsh",
        "OLDPWD": "/old",
        "PS4": "+",
        "SHLVL": "3",
        "UID": str(os.getuid()),
    }
    start = started(planned(host=host)[0], {"10-a.sh": "export A=1\n"})
    done = ran(start, tmp_path, {"10-a.sh": "export A=1\n"}, shell)
    found = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)
    assert {name: found.get(name) for name in host} == host and done.stderr == b""


@pytest.mark.skipif("bash" not in SHELLS, reason="bash is not installed")
def test_scripts_are_read_by_bash_where_the_image_has_it(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("export MORE=1\n")
    scripts = {"10-a.sh": f"source {tmp_path}/more\n[[ x = x ]] && export A=1\nnames=(b c)\nexport B=${{names[0]}}\n"}
    scripts |= {"20-b.sh": "f() { :; }\nexport -f f\nif (\n", "30-c.sh": "export C=1\n"}
    start = started(planned(host={})[0], scripts, bash=True)
    assert start.argv[:3] == ("/bin/bash", "--norc", "-c")
    done = ran(start, tmp_path, scripts, "bash")
    assert done.returncode == 0 and b"10-a.sh" not in done.stderr
    assert {b"MORE=1", b"A=1", b"B=b", b"C=1"} <= set(done.stdout.split(b"\0"))


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_change_neither_the_working_directory_nor_remove_the_home(tmp_path: Path, shell: str) -> None:
    scripts = {"10-a.sh": "cd /usr\nunset HOME\n", "99-base.sh": "export A=1\n"}
    found = environment_of(started(planned(host={})[0], scripts), tmp_path, scripts, shell)
    assert (found["PWD"], found["HOME"]) == ("/", "/home/me")


@pytest.mark.parametrize("shell", SHELLS)
def test_large_environments_and_names_of_our_own(tmp_path: Path, shell: str) -> None:
    host = {f"SOME_VARIABLE_{number}": f"value {number}" for number in range(3000)} | {"_file": "f", "_S0": "s", "IFS": "x"}
    scripts = {"10-a.sh": "export _file=image\nSOME_VARIABLE_7=\n", "99-base.sh": "found=1"}
    environment, _ = planned(host=host, given={"A": "1"})
    found = environment_of(started(environment, scripts), tmp_path, scripts, shell)
    assert "IFS" not in found
    assert found["A"] == "1" and found["_file"] == "image" and found["_S0"] == "s" and "SOME_VARIABLE_7" not in found
    assert found["SOME_VARIABLE_2999"] == "value 2999" and not [name for name in found if name.startswith("_sifkit")]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("no-such", b"sifkit exec: no-such: executable file not found in $PATH\n"),
        ("/no/such", b"sifkit exec: /no/such: no such file in the container\n"),
        ("/etc/passwd", b"sifkit exec: /etc/passwd: permission denied\n"),
        ("/etc", b"sifkit exec: /etc: is a directory\n"),
        ("\x1b[2J\nno", b"sifkit exec: \\x1b[2J\\nno: executable file not found in $PATH\n"),
        ("/\x1b[2J\n", b"sifkit exec: /\\x1b[2J\\n: no such file in the container\n"),
    ],
)
def test_commands_that_cannot_start_exit_255(tmp_path: Path, word: str, message: bytes) -> None:
    environment, _ = planned(host={})
    done = ran(started(environment, SCRIPTS, Command(action="exec", words=(word,))), tmp_path, SCRIPTS)
    assert (done.returncode, done.stderr) == (255, message)


@pytest.mark.parametrize("shell", SHELLS)
def test_programs_that_the_shell_cannot_execute_exit_255(tmp_path: Path, shell: str) -> None:
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    environment, _ = planned(host={"BASH_VERSION": "5"})
    done = ran(started(environment, SCRIPTS, Command(action="exec", words=(str(program),))), tmp_path, SCRIPTS, shell)
    assert done.returncode == 255 and b"program" in done.stderr and b"shopt" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(b"sifkit exec: the interpreter or loader of the program is not in the")


def test_cleanenv_keeps_the_terminal_and_proxies() -> None:
    environment, _ = planned(host={**HOST, "TERM": "xterm", "NO_PROXY": "n"}, cleanenv=True)
    assert environment.passed == {"TERM": "xterm", "NO_PROXY": "n", "http_proxy": "p", "LANG": "C", "PS1": "Apptainer> "}
    assert environment.injected["A"] == "old"


def test_the_order_of_what_the_user_sets() -> None:
    host = {"APPTAINERENV_A": "variable", "APPTAINERENV_B": "variable", "APPTAINERENV_C": "variable", "SINGULARITYENV_C": "old"}
    environment, notes = planned(host=host, given={"A": "option"}, from_files={"A": "file", "B": "file"})
    assert [environment.injected[name] for name in "ABC"] == ["option", "file", "variable"]
    assert notes == ("SINGULARITYENV_C and APPTAINERENV_C differ; the latter is used",)


def test_home_is_not_a_variable() -> None:
    environment, notes = planned(host={"APPTAINERENV_HOME": "/x", "APPTAINERENV_1x": "y"})
    assert environment.fixed["HOME"] == "/home/me" and "HOME" not in environment.injected
    assert notes == (
        "APPTAINERENV_1x is ignored: no shell accepts the name",
        "HOME cannot be set as a variable; use --home",
    )


def test_the_app() -> None:
    environment, _ = planned(host={}, app="foo")
    assert environment.fixed["SINGULARITY_APPNAME"] == "foo"
    with pytest.raises(FormatError, match="the image has no app foo"):
        started(environment, {}, Command(action="run", app="foo"), has_app=False)
    facts = ContainerFacts(runscript="/scif/apps/foo/scif/runscript")
    start = start_of(Command(action="run", words=("a",), app="foo"), environment, facts, cwd="/", program="")
    assert start.argv == ("/scif/apps/foo/scif/runscript", "a")


def test_run_and_shell() -> None:
    environment, _ = planned(host={})

    def start(action: str, shell: str = "", **facts: object) -> Start:
        command = Command(action=action, words=("x",), shell=shell)  # type: ignore[arg-type]
        return start_of(command, environment, ContainerFacts(**facts), cwd="/", program="sifkit")  # type: ignore[arg-type]

    assert start("run", runscript="/.singularity.d/runscript").argv == ("/.singularity.d/runscript", "x")
    assert start("run").argv == ("/bin/sh", "x") and start("run").notes == ("the image has no runscript; /bin/sh is run",)
    assert start("shell").argv == ("/bin/sh", "x")
    assert start("shell", bash=True).argv == ("/bin/bash", "--norc", "x")
    assert start("shell", bash=True).environment["SHELL"] == "/bin/bash"
    assert start("shell", "/bin/zsh", has_asked_shell=True).argv == ("/bin/zsh", "x")
    assert start("shell", "/bin/zsh").notes == ("/bin/zsh cannot be executed in the container; another shell is used",)
    for command in (Command(action="run"), Command(action="shell")):
        with pytest.raises(FormatError, match="no shell"):
            start_of(command, environment, ContainerFacts(shell=False), cwd="/", program="")


def test_values_of_env() -> None:
    assert parse_assignments([" A=1, B=2", "C=x=y", "D=a,b", '"E=x,y",F=']) == {
        "A": "1",
        "B": "2",
        "C": "x=y",
        "D": "a,b",
        "E": "x,y",
        "F": "",
    }
    for wrong in ("A", "=x", "A=1,B=2,C", "1x=2", "a.b=1", 'A="x,y",B=2', "A=1\n,B=2"):
        with pytest.raises(UsageError, match="--env"):
            parse_assignments([wrong])


FILE = r"""# comment
A=1
export B="two words"   # why
C='single $A'
D=$A/x
E="${A}y"
G=$HOME
J=
K="a
b"
L=${NOPE:-def}${NOPE-}
M='it'"s"\ x
export A
N="\$A \" \x"
O=~/o; P=~  export Q="~" R=a~ # several in a line
S=$O;
"""


def test_environment_file() -> None:
    found = parse_environment_file(FILE, "file", {"HOME": "/h"})
    assert found == {
        "A": "1",
        "B": "two words",
        "C": "single $A",
        "D": "1/x",
        "E": "1y",
        "G": "/h",
        "J": "",
        "K": "a\nb",
        "L": "def",
        "M": "its x",
        "N": '$A " \\x',
        "O": "/h/o",
        "P": "/h",
        "Q": "~",
        "R": "a~",
        "S": "/h/o",
    }


def test_lines_of_an_environment_file_may_end_as_those_of_windows() -> None:
    assert parse_environment_file('A=1\r\nB="2"\r\nC="3\r\n4"', "file", {}) == {"A": "1", "B": "2", "C": "3\n4"}


@pytest.mark.parametrize(
    "line",
    [
        "F=un quoted",
        "F=1 G=2 command",
        "H=$(echo sub)",
        "I=`id`",
        "Q='open",
        'Q="open',
        "X=${Y/a/b}",
        "A=1&",
        "N=a\0b",
        "N='\0'",
        "N=\\\0",
        "N=${U:-\0}",
    ],
)
def test_lines_of_an_environment_file_that_need_a_shell(line: str) -> None:
    with pytest.raises(FormatError, match="file, line 2: ") as failed:
        parse_environment_file(f"A=1\n{line}\nLATER=1\n", "file", {})
    assert "LATER" not in str(failed.value)


@pytest.mark.parametrize("scripts", [{}, {"99-base.sh": "export PATH=/image"}])
@pytest.mark.parametrize("shell", [True, False])
@pytest.mark.parametrize("no_eval", [True, False])
def test_additions_to_the_path(scripts: dict[str, str], shell: bool, no_eval: bool, tmp_path: Path) -> None:
    given = {"PREPEND_PATH": "$HOME/bin", "APPEND_PATH": "/last"}
    environment, _ = planned({"APPTAINERENV_PREPEND_PATH": "/other"}, given=given, no_eval=no_eval)
    start = started(environment, scripts, shell=shell)
    found = [f"{name}={value}" for name, value in start.environment.items()]
    if "-c" in start.argv:
        found = ran(start, tmp_path, scripts).stdout.decode().split("\0")
    middle = "/image" if scripts else DEFAULT_PATH
    assert f"PATH={'$HOME' if no_eval else '/home/me'}/bin:{middle}:/last" in found
    assert not [one for one in found if one.startswith(("PREPEND_PATH", "APPEND_PATH", "_sifkit"))]


def test_values_that_grow_without_bound_are_left_out() -> None:
    text = "A=xxxxxxxx\n" + "A=$A$A\n" * 60
    variables: dict[str, str] = {}
    assert apply_assignments(text.encode(), variables) > 0
    assert len(variables["A"]) <= 128 << 10
