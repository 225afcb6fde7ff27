"""The frame of the command line: help, suggestions, exit codes, signals, output, options as they reach the API."""

from __future__ import annotations

import importlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path
from uuid import UUID

import pytest

import sifkit
from ext3.errors import NoInodesError, NoSpaceError
from sifkit import atomic
from sifkit.atomic import AtomicFile
from sifkit.cli import completion, main
from sifkit.cli.root import root
from sifkit.cli.support.console import Console, name_fields
from sifkit.cli.support.image_path import group_by_image, split_image_path
from sifkit.cli.support.render import bar, escape, percent, rfc3339, short_size
from sifkit.errors import UsageError, counted, human, shell_quote
from sifkit.overlay.options import CreateOptions

ROOT = Path(__file__).parents[5]
VERBS = [node.path for node in completion.tree(root)]
CREATE = importlib.import_module("sifkit.overlay.creating.standalone")
"""The module; the package has a function of that name."""
UUID_TEXT = "01234567-89ab-cdef-0123-456789abcdef"


# Help


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_help_page_has_its_examples_first_and_is_not_wide(run, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(*verb, "--help")
    assert code == 0 and not err
    before, _, after = out.partition("\nExamples:\n")
    examples, _, options = after.partition("\n\n")
    assert examples and all(line.startswith("  ") and "sifkit" in line for line in examples.splitlines()), examples
    assert "\nArguments:" not in before and "\nOptions:" not in before
    assert max(map(len, (before + options).splitlines())) <= 80
    assert verb == () or (options.endswith("General options: sifkit -h\n") and "--nocolor" not in options)
    assert run("help", *verb)[1] == out
    assert run(*verb, "-h")[1] == out or verb in (("ls",), ("df",), ("du",), ("chmod",), ("chown",))


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_example_is_understood(monkeypatch, tmp_path, made, verb, capfd):
    """Each example's words parse: it fails, if at all, on files that are not there, never on usage."""
    monkeypatch.chdir(tmp_path)
    examples = dict(_commands(root))[verb].examples
    assert examples
    for example in examples:
        words = example.split("sifkit ", 1)[1].split("|")[0].split(">")[0].split(";")[0].split(")")[0]
        code = main(shlex.split(words))
        missing = 8 if "sif check" in example or " fsck " in example else 2 if words.startswith("diff") else 1
        if words.startswith(("exec", "run", "shell", "check")):  # usage errors have the same code
            missing = code if "no such file" in "".join(capfd.readouterr()).lower() else 1
        assert code in (0, missing), example


def _commands(group, path=()):
    yield path, group
    for entry in getattr(group, "verbs", ()):
        yield from _commands(group.get_command(None, entry.name), (*path, entry.name))


def test_general_options_are_explained_once(run):
    out = run("-h")[1]
    for option in (
        "--quiet",
        "--verbose",
        "--debug",
        "--nocolor",
        "--drop-signatures",
        "--keep-broken-signatures",
        "--require-lock",
    ):
        assert out.count(option) == 1
        assert option not in run("cp", "--help")[1] and option not in run("sif", "del", "--help")[1]
    assert run("help", "nope")[:2] == (2, "")


def test_the_first_line_says_where_to_start(run):
    out = run("-h")[1]
    assert out.startswith("start with: sifkit overlay create --size 500M --from-dir overlay/\n")
    assert [line for line in out.splitlines() if line in ("Make:", "Look:", "Host:")] == ["Make:", "Look:", "Host:"]


def test_no_arguments_shows_help_and_is_a_usage_error(run):
    for argv in ((), ("overlay",)):
        code, out, err = run(*argv)
        assert code == 2 and not out and "Usage: sifkit" in err


def test_version(run):
    wanted = sifkit.__version__
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    newest = next(line for line in lines if line.startswith("## ") and "unreleased" not in line)
    assert newest.removeprefix("## ").split()[0] == wanted.partition(".dev")[0]
    assert run("--version") == run("-V") == (0, f"sifkit {wanted}\n", "")


def test_importing_the_command_line_is_light():
    code = "import sys, sifkit.cli, sifkit.__main__; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT).stdout.decode().split()
    assert not {"numpy", "construct", "rich", "tqdm", "ext3", "typer"} & set(loaded)


def test_help_loads_nothing_heavy():
    code = "import sys, sifkit.cli as c; c.main(sys.argv[1:]); print(*{m.partition('.')[0] for m in sys.modules})"
    for words in (["-h"], ["overlay", "-h"], ["overlay", "create", "-h"], ["ls", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=True, cwd=ROOT)
        loaded = done.stdout.decode().splitlines()[-1].split()
        assert "sifkit" in loaded and not {"numpy", "construct", "rich", "tqdm", "pydantic"} & set(loaded)


# Options as they reach the API


def test_defaults(run, made):
    assert run("overlay", "create")[0] == 0
    assert made == [("overlay.img", CreateOptions())]


def test_every_option_arrives(run, made, tmp_path):
    globs = tmp_path / "globs"
    globs.write_text("# no\n*.o\n")
    code, *_ = run(
        "overlay", "create", "-s", "1.5G", "--no-sparse", "-F", "-d", "src", "--layout", "root", "--create-dir", "a/b",
        "--create-dir", "c", "--exclude", "*.pyc", "--exclude-from", globs, "-x", "--xattrs", "strict", "--skip-unreadable",
        "--allow-changed", "--owner", "70000:70001", "--upper-owner", "1:2", "--mode", "0644", "-N", "500K", "-i", "8K",
        "--profile", "conda", "-b", "4K", "-I", "128", "-m", "2.5", "-L", "lab", "-U", UUID_TEXT, "-J", "size=16",
        "--reproducible", "out.img",
    )  # fmt: skip
    assert code == 0
    wanted = CreateOptions(
        size=3 << 29,
        sparse=False,
        force=True,
        from_dir="src",
        layout="root",
        create_dirs=("a/b", "c"),
        exclude=("*.pyc", "*.o"),
        one_file_system=True,
        xattrs="strict",
        skip_unreadable=True,
        allow_changed=True,
        owner=(70000, 70001),
        upper_owner=(1, 2),
        mode=0o644,
        inodes=500_000,
        inode_ratio=8192,
        profile="conda",
        block_size=4096,
        inode_size=128,
        reserved_percent=2.5,
        label=b"lab",
        uuid=UUID(UUID_TEXT),
        journal_bytes=16 << 20,
        reproducible=True,
    )
    assert made == [("out.img", wanted)]


@pytest.mark.parametrize(
    ("argv", "environment", "field", "wanted"),
    [
        (["-f"], {}, "owner", (0, 0)),
        (["--no-journal"], {}, "journal", False),
        (["-s", "auto"], {}, "size", None),
        (["-s", "500"], {}, "size", 500 << 20),
        ([], {"APPTAINER_FAKEROOT": "1"}, "owner", (0, 0)),
        (["--owner", "5:6"], {"APPTAINER_FAKEROOT": "1"}, "owner", (5, 6)),
        ([], {"APPTAINER_SPARSE": "false"}, "sparse", False),
        (["-S"], {"APPTAINER_SPARSE": "0"}, "sparse", True),
        ([], {"SINGULARITY_SPARSE": "0"}, "sparse", False),
        ([], {"APPTAINER_SPARSE": "1", "SINGULARITY_SPARSE": "0"}, "sparse", True),
        ([], {"SOURCE_DATE_EPOCH": "1700000000"}, "source_date_epoch", 1_700_000_000),
        ([], {"SOURCE_DATE_EPOCH": ""}, "source_date_epoch", None),
    ],
)
def test_options_and_the_environment(run, made, monkeypatch, argv, environment, field, wanted):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, _, err = run("overlay", "create", *argv)
    assert code == 0
    assert getattr(made[0][1], field) == wanted
    old = [name for name in environment if name.startswith("SINGULARITY_") and f"APPTAINER_{name[12:]}" not in environment]
    assert ("warning: SINGULARITY_SPARSE is an old name" in err) == bool(old)


@pytest.mark.parametrize(("name", "value"), [("SOURCE_DATE_EPOCH", "yesterday"), ("APPTAINER_SPARSE", "maybe")])
def test_bad_variables_are_named(run, made, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    code, _, err = run("overlay", "create")
    assert (code, made) == (2, []) and f"{name}={value}" in err


def test_a_tar_from_standard_input(run, made, monkeypatch):
    class Pipe(io.BytesIO):
        buffer = property(lambda self: self)

    monkeypatch.setattr(sys, "stdin", Pipe(b"x"))
    assert run("overlay", "create", "--from-tar", "-")[0] == 0
    assert made[0][1].from_tar.read() == b"x"


# Results


WHERE = "the source goes below upper/: the container sees it at /\n"
RESULT = "o.img: 500 MiB, 50 MiB used, 1 entry (12 bytes), 13 of 128,016 inodes, 0.25 s\n"


def test_the_result_line_is_for_a_terminal(run, made, monkeypatch):
    assert run("overlay", "create", "-d", "x", "o.img") == (0, "", "a note\n")
    monkeypatch.setattr(Console, "err_is_terminal", True)
    code, out, err = run("overlay", "create", "-d", "x", "o.img")
    assert (code, out) == (0, "") and err.startswith(WHERE + "a note\n" + RESULT + "use it: ")
    assert run("overlay", "create", "-q", "-d", "x", "o.img") == (0, "", "")


def test_verbose_tells_more(run, made):
    err = run("overlay", "create", "-v", "-d", "x", "o.img")[2].splitlines()
    assert err[:3] == [
        "a note",
        "layout: upper, 1 entry copied, 2 entries excluded",
        f"geometry: blocks of 1 KiB, 62 groups, 128,016 inodes of 256 bytes, journal of 16 MiB, UUID {UUID_TEXT}",
    ]
    assert err[3].startswith("time: copy ") and err[4] + "\n" == RESULT
    assert run("-v", "overlay", "create", "-d", "x", "o.img")[2].count("\n") == 5


def test_the_next_step_is_told_on_a_terminal(run, made, monkeypatch):
    monkeypatch.setattr(Console, "err_is_terminal", True)
    assert run("overlay", "create", "my o.img")[2].endswith("use it: apptainer exec --overlay 'my o.img' IMAGE.sif CMD\n")


@pytest.mark.parametrize("argv", [("-q", "overlay", "create"), ("overlay", "-q", "create"), ("overlay", "create", "-q")])
def test_quiet_works_before_and_after_the_verb(run, made, argv):
    assert run(*argv) == (0, "", "")


# Failures


class Stuck(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "code", "kind", "says"),
    [
        (NoSpaceError("too small", needed_bytes=9, available_bytes=5, hint="give 9"), 1, "no-space", "too small; give 9"),
        (NoInodesError(needed=9, available=5, enough=16), 1, "no-inodes", "the content needs 9 inodes"),
        (FileNotFoundError(2, "No such file or directory", "a\nb"), 1, "not-found", "a\\nb: No such file"),
        (PermissionError(13, "Permission denied", b"x"), 1, "permission", "x: Permission denied"),
        (OSError(28, "No space left on device"), 1, "no-space", "No space left on device; free some space"),
        (MemoryError(), 1, "memory", "out of memory"),
        (Stuck("odd"), 1, "internal", "internal error: Stuck: odd"),
        (UsageError("no sense", hint="do this"), 2, "usage", "no sense; do this"),
    ],
)
def test_errors_are_one_line_or_one_object(run, monkeypatch, error, code, kind, says):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(CREATE, "create", fail)
    found, out, err = run("overlay", "create", "o.img")
    assert (found, out) == (code, "")
    assert err.startswith("sifkit overlay create: ") and says in err and err.count("\n") == 1
    found, out, err = run("overlay", "create", "--json", "o.img")
    assert (found, err) == (code, "")
    assert json.loads(out)["error"]["kind"] == kind
    assert "Traceback" in run("overlay", "create", "--debug", "o.img")[2]


def test_a_list_in_an_error_keeps_its_lines(run, monkeypatch):
    def fail(*_, **__):
        raise UsageError("two:\n  a\x07\n  b\n", hint="do this")

    monkeypatch.setattr(CREATE, "create", fail)
    assert run("overlay", "create")[2] == "sifkit overlay create: two:\n  a\\x07\n  b\ndo this\n"


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")
def test_a_signal_removes_the_temporary_file(run, monkeypatch, tmp_path, number, code):
    monkeypatch.setattr(atomic, "_open_unnamed", lambda directory: -1)  # a file that has a name all the time

    def create(path, options, *, progress=None):
        with AtomicFile(path) as file:
            assert os.path.exists(file.path)
            os.kill(os.getpid(), getattr(signal, number))
            pytest.fail("the signal did not arrive")

    monkeypatch.setattr(CREATE, "create", create)
    usual = signal.default_int_handler if number == "SIGINT" else signal.SIG_DFL
    before = signal.signal(getattr(signal, number), usual)  # nohup has SIGHUP ignored, and sifkit leaves it so
    try:
        found, out, err = run("overlay", "create", tmp_path / "o.img")
        assert signal.getsignal(getattr(signal, number)) is usual
    finally:
        signal.signal(getattr(signal, number), before)
    assert (found, out) == (code, "") and err.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="no such pipes there")
def test_a_broken_pipe_is_silent():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "sifkit", "completion", "bash"], stdout=write, stderr=subprocess.PIPE, cwd=ROOT, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_output_that_cannot_be_written_is_an_error():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sifkit", "completion", "bash"], stdout=full, stderr=subprocess.PIPE, cwd=ROOT, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"sifkit completion: standard output: No space left") and done.stderr.count(b"\n") == 1


# Places, names, numbers


def test_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("o.img").touch()
    assert split_image_path("o.img:/a:/b") == ("o.img", "/a:/b")
    assert split_image_path("./o.img:/a") is None
    assert split_image_path("none.img:/a") is None
    assert split_image_path("o.img") is None
    assert group_by_image(["o.img"], default=["/"]) == [("o.img", [b"/"])]
    assert group_by_image(["o.img", "x", "y"]) == [("o.img", [b"x", b"y"])]
    assert group_by_image(["o.img:/x", "o.img:/y"]) == [("o.img", [b"/x", b"/y"])]
    with pytest.raises(UsageError):
        group_by_image(["o.img:/x", "y"])
    with pytest.raises(UsageError):
        group_by_image(["o.img"])
    with pytest.raises(FileNotFoundError):
        group_by_image(["none.img:/a"])
    Path("o.img:").mkdir()
    Path("o.img:/a").touch()
    assert split_image_path("o.img:/a") is None


def test_names_for_a_terminal():
    assert escape(b"a b\n\x1b[0m\xff\\\xc3\xa9\xe2\x80\xae") == "a\\ b\\n\\033[0m\\377\\\\\u00e9\\342\\200\\256"


def test_names_in_json():
    assert name_fields("name", b"caf\xc3\xa9") == {"name": "caf\u00e9"}
    assert name_fields("name", b"\xff") == {"name": "\ufffd", "name_b64": "/w=="}


def test_numbers():
    assert [human(n) for n in (0, 1, 1023, 1536, 500 << 20, 3 << 40)] == [
        "0 bytes",
        "1 byte",
        "1023 bytes",
        "1.5 KiB",
        "500 MiB",
        "3 TiB",
    ]
    assert [human(n) for n in ((1 << 20) - 1, (1 << 30) - 1, 10 << 60)] == ["1 MiB", "1 GiB", "10240 PiB"]
    assert [counted(n, "file") for n in (0, 1, 2, 4000)] == ["0 files", "1 file", "2 files", "4,000 files"]
    assert counted(2, "entry", "entries") == "2 entries"
    assert [shell_quote(name) for name in ("a.img", "a b", "-x")] == ["a.img", "'a b'", "./-x"]
    assert [short_size(n) for n in (0, 1023, 1024, 1025, 10 << 10, (10 << 10) + 1, (1 << 20) - 1, 5 << 40)] == [
        "0", "1023", "1.0K", "1.1K", "10K", "11K", "1.0M", "5.0T",
    ]  # fmt: skip
    assert rfc3339(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"
    assert rfc3339(-1) == "1969-12-31T23:59:59.999999999Z"


@pytest.mark.parametrize(
    ("encoding", "variables", "plain"),
    [
        ("ascii", {}, True),
        ("utf-8", {"LC_ALL": "C"}, True),
        ("utf-8", {"LC_ALL": "", "LC_CTYPE": "", "LANG": "POSIX"}, True),
        ("utf-8", {"LC_ALL": "C.UTF-8", "LANG": "C"}, False),
        ("utf-8", {"LC_ALL": "", "LC_CTYPE": "de_DE.UTF-8", "LANG": "C"}, False),
        ("no such", {"LC_ALL": "C.UTF-8"}, True),
    ],
)
def test_bars_and_names_fall_back_to_ascii(monkeypatch, encoding, variables, plain):
    stream = types.SimpleNamespace(encoding=encoding, isatty=lambda: True)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    console = Console()
    assert (console.out_is_unicode, console.err_is_unicode) == (not plain, not plain)
    assert bar(1, 2, console, width=4) == ("##.." if plain else "\u2588\u2588\u2591\u2591")
    assert bar(5, 0, console, width=4) == ("...." if plain else "\u2591" * 4)
    assert escape("\u00e9".encode(), unicode=console.out_is_unicode) == ("\\303\\251" if plain else "\u00e9")


def test_shares():
    assert [percent(*pair) for pair in ((0, 5), (1, 1000), (1, 2), (9, 9), (12, 9), (1, 0))] == [
        "0 %", "<1 %", "50 %", "100 %", "100 %", "0 %",
    ]  # fmt: skip


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_parse(run, tmp_path, shell):
    code, out, err = run("completion", shell)
    assert (code, err) == (0, "")
    for word in ("create", "--from-dir", "--no-sparse", "conda"):
        assert word in out or (shell == "fish" and word[2:] in out)
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(out)
        subprocess.run([shell, "-n", str(script)], check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["sifkit", ""], {entry.name for entry in root.verbs}),
        (["sifkit", "-q", "ov"], {"overlay"}),
        (
            ["sifkit", "overlay", ""],
            {
                "create",
                "info",
                "clone",
                "attach",
                "detach",
                "export",
                "tune",
                "trim",
                "chown",
                "fsck",
                "undo",
                "resize",
                "rebuild",
                "normalize",
                "share",
            },
        ),
        (["sifkit", "overlay", "create", "--layout", "u"], {"upper"}),
        (["sifkit", "overlay", "create", "--lay"], {"--layout"}),
        (["sifkit", "completion", ""], {"bash", "zsh", "fish"}),
        (["sifkit", "overlay", "create", "-d", ""], {"a dir"}),
        (["sifkit", "ls", ""], {"a dir", "it's.img"}),
        (["sifkit", "check", ""], {"a dir", "it's.img"}),
        (["sifkit", "extract", "it"], {"it's.img"}),
        (["sifkit", "exec", "--overlay", "it"], {"it's.img"}),
        (["sifkit", "overlay", "export", "-o", "a"], {"a dir"}),
        (["sifkit", "overlay", "info", "--partition", ""], {"overlay", "root"}),
        (["sifkit", "help", "overlay", "inf"], {"info"}),
    ],
)
def test_bash_completes(run, tmp_path, words, wanted):
    script = tmp_path / "script"
    script.write_text(run("completion", "bash")[1])
    work = tmp_path / "work"
    (work / "a dir").mkdir(parents=True)
    (work / "it's.img").touch()
    line = f'source "{script}"; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _sifkit; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", line, "-", *words], capture_output=True, check=True, cwd=work)
    assert set(done.stdout.decode().splitlines()) == wanted and done.stderr == b""
