"""``sifkit exec``, ``run`` and ``shell`` up to the plan: what is a word of whom, exit codes, errors of one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.cli.support.quick_run import parse_plain
from sifkit.runtime.planning.config import config_paths
from sifkit.runtime.planning.options import OPTIONS, with_variables

from ....support.tiny_squashfs import TINY_SQUASHFS, tiny_sif

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="containers run on Linux only")


@pytest.fixture
def image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("APPTAINER", "SINGULARITY"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("sifkit.runtime.host.probing.probe", lambda writes, fuse: _AnyHost())
    monkeypatch.setattr("sifkit.runtime.host.caller.config_paths", lambda *words: ())
    return tiny_sif(Path("image.sif"))


class _Works:
    works = True
    reason = ""


class _AnyHost:
    is_root = True
    loop = user_namespace = user_mount = fuse = overlay = fuse_upper = _Works()


def dry(run, *words: str, verb: str = "exec") -> tuple[list[str], str]:
    """Lines of a plan, and what stderr has."""
    code, out, err = run(verb, "--dry-run", *words)
    assert code == 0, err
    return out.splitlines(), err


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("env", "-e"), "exec env -e"),
        (("ls", "-l", "/"), "exec ls -l /"),
        (("prog", "--help", "--json", "-q", "--overlay", "x"), "exec prog --help --json -q --overlay x"),
        (("sh", "-c", "a b", ""), "exec sh -c 'a b' ''"),
        (("--", "ls"), "exec -- ls"),
        (("ls", "--", "x"), "exec ls -- x"),
    ],
)
def test_everything_after_the_image_is_the_command(run, image, words, command):
    lines, err = dry(run, "image.sif", *words)
    assert lines[-1] == f"command: {command}" and err == ""


def test_run_and_shell_need_no_words(run, image):
    assert dry(run, "image.sif", verb="run")[0][-1] == "command: run"
    assert dry(run, "-s", "/bin/zsh", "image.sif", "-x", verb="shell")[0][-1] == "command: shell -x"
    assert dry(run, "--app", "foo", "image.sif", "-x", verb="run")[0][-1] == "command: run of the app foo -x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dry-run", "image.sif"), "COMMAND is missing"),
        ((), "IMAGE is missing; see sifkit exec -h"),
        (("--overlai", "x", "image.sif", "ls"), "no such option --overlai (did you mean --overlay?)"),
        (("--bind",), "--bind' requires an argument"),
        (("missing.sif", "ls"), "missing.sif: no such file or directory\n"),
        (("docker://ubuntu:22.04", "ls"), "first: apptainer pull ubuntu.sif docker://ubuntu:22.04"),
        (("library://a/b/lolcow@sha256:0", "ls"), "first: apptainer pull lolcow.sif library://a/b/lolcow@sha256:0"),
        (("https://x.org/y.sif?a=b", "ls"), "first: apptainer pull y.sif 'https://x.org/y.sif?a=b'"),
        (("oci-archive:d/a.tar:t", "ls"), "images are not converted here; first: apptainer build a.sif oci-archive:d/a.tar:t"),
        (("docker-daemon:", "ls"), "first: apptainer build image.sif docker-daemon:"),
        (("Imagee.sif", "ls"), "Imagee.sif: no such file or directory; did you mean image.sif?"),
        (("empty", "ls"), "empty is empty; download or create it again"),
        (("a.tar", "ls"), "a.tar is an archive, not an image; if 'docker save' has made it: apptainer build a.sif"),
        (("instance://one", "ls"), "instance://one: instances are not supported in this release"),
        (("text", "ls"), "text is no SIF, squashfs or ext3 image\n"),
        (("--memory", "1G", "image.sif", "ls"), "--memory is not supported; limits need cgroups"),
        (("--fusemount", "x", "image.sif", "ls"), "--fusemount is not supported; FUSE programs are not started"),
        (("-o", "text:work:rw", "image.sif", "ls"), "the suffix :work:rw has no meaning; write text to write to it"),
        (
            ("-o", "none.img", "image.sif", "ls"),
            "directory; create it with: sifkit overlay create --size 1G none.img",
        ),
        (("-o", "none.img:ro", "image.sif", "ls"), "none.img: no such file or directory\n"),
        (("-o", "none/", "image.sif", "ls"), "directory; create it with: mkdir none/\n"),
        (("-o", "text", "image.sif", "ls"), "text is no SIF, squashfs or ext3 image"),
        (("-o", "image.sif", "image.sif", "ls"), "image.sif has no overlay"),
        (("--env", "A", "image.sif", "ls"), "--env A: A is no NAME=VALUE"),
        (("--env", "", "image.sif", "ls"), "--env has an empty value"),
        (("--home=", "image.sif", "ls"), "--home has an empty value"),
        (("--env-file", "none", "image.sif", "ls"), "--env-file none: No such file or directory"),
        (("--env-file", "text", "image.sif", "ls"), "text, line 1: it is no NAME=VALUE"),
        (("-B", "/no/such:/x", "image.sif", "ls"), "/no/such: no such file or directory; it is the source of a bind"),
        (("-w", "image.sif", "ls"), "has no overlay that can be written to"),
    ],
)
def test_failures_of_ours_exit_255(run, image, words, message):
    Path("text").write_text("text\n" * 1000)
    Path("empty").touch()
    Path("a.tar").write_bytes(bytes(257) + b"ustar\x0000")
    code, out, err = run("exec", *words)
    assert (code, out) == (255, "")
    assert message in err and err.startswith("sifkit exec: ") and err.count("\n") == 1


@pytest.mark.parametrize("verb", ["exec", "run", "shell"])
def test_help(run, image, verb):
    code, out, _ = run(verb, "--help")
    assert code == 0 and f"Usage: sifkit {verb} [OPTIONS] IMAGE" in out and "--overlay" in out
    assert "--fusemount" not in out and ("-s, --shell" in out) == (verb == "shell")


def test_variables_are_options(run, image, monkeypatch):
    monkeypatch.setenv("APPTAINER_BIND", "/etc:/mnt/e")
    monkeypatch.setenv("SINGULARITY_CWD", "/etc")
    monkeypatch.setenv("APPTAINER_UNSQUASH", "1")
    lines, err = dry(run, "image.sif", "ls")
    assert "mount: /mnt/e <- /etc" in lines and "directory: /etc" in lines
    assert err == "sifkit exec: warning: --unsquash has no effect: images are unpacked only where nothing else works\n"


def test_empty_values_of_options_are_none(run, image):
    names = [one.spelling for one in OPTIONS if one.accepts_empty and not one.only]
    assert {"--bind", "--overlay", "--cwd", "--memory"} < set(names)
    lines, err = dry(run, *(f"{name}=" for name in names), "-S", "", "-B", "/etc:/mnt/e", "image.sif", "ls")
    assert err == "" and lines == dry(run, "-B", "/etc:/mnt/e", "image.sif", "ls")[0]


def test_the_site_of_the_apptainer_in_the_path(run, image, monkeypatch):
    monkeypatch.setattr(
        "sifkit.runtime.host.caller.config_paths", lambda *words: [one for one in config_paths(*words) if one[:5] != "/etc/"]
    )
    site = Path("site")
    settings = site / os.uname().machine / "etc/apptainer"  # as in an installation without root
    settings.mkdir(parents=True)
    (settings / "apptainer.conf").write_text("mount hostfs = yes\nbind path = /etc:/mnt/e\nallow pid ns = no\n")
    (site / "bin").mkdir()
    (site / "bin/apptainer").touch(0o755)
    monkeypatch.setenv("PATH", f"{site.absolute()}/bin:/usr/bin:/bin")
    monkeypatch.setattr("sifkit.runtime.host.caller.MOUNTS", str(Path("mounts").absolute()))
    Path("mounts").write_text("1 0 8:1 / / rw - ext4 x rw\n2 1 8:2 / /opt rw - ext4 y rw\n")
    lines, err = dry(run, "-p", "image.sif", "ls")
    assert "mount: /opt <- /opt" in lines and "mount: /mnt/e <- /etc" in lines
    assert "this site does not allow PID namespaces ('allow pid ns = no' in " in err
    (settings / "apptainer.conf").unlink()
    (settings / "apptainer.conf").mkdir()
    code, _, err = run("exec", "image.sif", "ls")
    assert code == 255 and "apptainer.conf cannot be read; tell the administrator" in err


def test_the_caller_has_the_name_of_his_number_not_of_a_group(image, monkeypatch):
    from sifkit.runtime.host import caller

    monkeypatch.setattr(os, "getgroups", lambda: [0, 54321])
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    found = caller.current_caller({"HOME": "/h"})
    assert (found.uid, found.name, found.home) == (4321, "4321", "/h")
    assert (54321, "") not in found.groups and all(name for _, name in found.groups)
    assert found.real_cwd == os.getcwd()


def test_architectures_that_an_emulator_runs(run, image, monkeypatch):
    from sifkit.runtime.host import caller

    Path("binfmt").mkdir()
    for name, text in {
        "qemu-aarch64": "enabled\ninterpreter /usr/bin/qemu\nflags: OCF\n",
        "qemu-s390x": "enabled\nflags: OC\n",
        "qemu-riscv64": "disabled\nflags: F\n",
        "qemu-odd": "enabled\nflags: F\n",
        "python": "enabled\nflags: F\n",
    }.items():
        Path("binfmt", name).write_text(text)
    monkeypatch.setattr(caller, "BINFMT", "binfmt")
    assert caller.emulated_architectures() == ("arm64",)
    monkeypatch.setattr(caller, "BINFMT", "none")
    assert caller.emulated_architectures() == ()


def test_an_image_in_use_names_what_helps(run, image, monkeypatch):
    from sifkit.errors import ImageInUseError

    def in_use(*words):
        raise ImageInUseError("x is in use", hint="wait for it with --wait SECONDS")

    monkeypatch.setattr("sifkit.cli.support.running.run_container", in_use)
    code, _, err = run("exec", "image.sif", "ls")
    assert code == 255 and "--wait" not in err and "an overlay each" in err


def test_images_of_every_kind(run, image):
    Path("base.sqfs").write_bytes(TINY_SQUASHFS)
    Path("box").mkdir()
    Path("up").mkdir()
    Path("wk").mkdir()
    assert run("-q", "overlay", "create", "--size", "4M", "over.img")[0] == 0
    here = os.path.realpath(".")
    assert f"root: {here}/base.sqfs (squashfs)" in dry(run, "base.sqfs", "ls")[0]
    assert f"root: {here}/box (directory)" in dry(run, "box", "ls")[0]
    assert f"root: {here}/box (directory), written to" in dry(run, "-w", "box", "ls")[0]
    lines, _ = dry(run, "-o", "over.img", "-o", "base.sqfs:ro", "-o", "box:ro", "image.sif", "ls")
    assert f"written to: {here}/over.img (image), upper/ and work/ in it" in lines
    assert [line for line in lines if line.startswith("layer")] == [
        f"layer: {here}/base.sqfs (squashfs)",
        f"layer: {here}/box (directory)",
    ]
    lines, _ = dry(run, "-o", "over.img:ro", "-o", "up:wk:rw", "image.sif", "ls")
    assert f"layer: {here}/over.img (ext3), upper/ in it" in lines
    assert f"written to: {here} (directory), up/ and wk/ in it" in lines


def test_an_ext4_image_is_no_overlay(run, image):
    raw = bytearray(8 << 10)
    raw[1024 + 56 : 1024 + 58] = b"\x53\xef"
    raw[1024 + 92] = 4  # a journal
    raw[1024 + 96] = 0x42  # filetype, extents
    Path("ext4.img").write_bytes(raw)
    code, _, err = run("exec", "-o", "ext4.img", "image.sif", "ls")
    assert code == 255 and "ext4.img is ext2 or ext4, not ext3" in err


PLAIN = [
    ("image.sif", "ls", "-l"),
    ("-e", "image.sif", "ls"),
    ("-ce", "-B", "/etc:/x", "-B/srv", "--bind=/opt", "image.sif", "env", "-e", "--json", ""),
    ("-qvv", "--debug", "-H", "/tmp", "--home=/opt", "--", "image.sif", "--", "x"),
    ("-eH/tmp", "--pwd", "/etc", "--nocolor", "image.sif"),
    ("-o", "a.img:ro", "--overlay=b.img", "-S", "a,b", "--env", "A=b=c", "image.sif", "x"),
    ("--env", "-x", "-", "-e"),
    ("-S", "", "--bind=", "-B", "/a", "--cwd", "/a", "--cwd=", "x"),
]


@pytest.mark.parametrize("words", PLAIN)
def test_both_parsers_read_the_same(image, monkeypatch, words):
    seen = []
    monkeypatch.setattr("sifkit.cli.support.running.run_container", lambda console, *rest: seen.append((console, rest)) or 0)
    assert main(["exec", *words]) == 0
    monkeypatch.setattr("sifkit.cli.support.quick_run.parse_plain", lambda action, args: None)
    assert main(["exec", *words]) == 0
    (quick, one), (slow, other) = seen
    given = {key: value for key, value in other[3].items() if value not in (False, None, ())}
    assert one == (*other[:3], given)
    for name in ("quiet", "verbose", "debug", "color", "program", "arguments", "json"):
        assert getattr(quick, name) == getattr(slow, name), name


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-h",),
        ("--help", "image.sif"),
        ("-e",),
        ("-B",),
        ("--home=", "x"),
        ("--nv=yes", "x"),
        ("--nv=", "x"),
        ("--quiet=1", "x"),
        ("", "x"),
        ("-Z", "x"),
    ],
)
def test_what_is_not_plain_is_left_to_typer(words):
    assert parse_plain("exec", words) is None
    assert parse_plain("exec", ("-s", "x", "image.sif")) is None and parse_plain("shell", ("-s", "x", "image.sif")) is not None


def test_spellings_of_apptainer():
    """Go's parser takes a value of a flag after ``=``, and drops that sign after a letter."""
    found = parse_plain("exec", ("--contain=true", "-e=0", "-qB=/a:/b=c", "-B/d", "--env=A=1", "image.sif", "-c=true"))
    assert found.values == {"contain": True, "cleanenv": False, "bind": ("/a:/b=c", "/d"), "env": ("A=1",)}
    assert found.common == ["quiet"] and found.words == ("-c=true",)
    assert with_variables(found.values, {"APPTAINER_CLEANENV": "1"}, "exec")[0]["cleanenv"] is False


def test_facts_load_neither_numpy_nor_construct(image):
    import subprocess

    code = (
        "import sys; from sifkit.cli import main; code = main(['exec', '--help']);"
        "from sifkit.runtime.host.image_facts import image_facts, overlay_facts; image_facts('image.sif');"
        "from sifkit.runtime.host.caller import current_caller; current_caller({});"
        "from sifkit.runtime.planning import planner as plan; from sifkit.runtime.container import container_facts;"
        "print(code, sorted({'numpy', 'construct', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stderr == "0 []\n"


def test_a_start_reads_few_files(image):
    """On a cluster each module is a file of a network filesystem, and a thousand tasks start at once."""
    import subprocess

    code = (
        "import sys; before = set(sys.modules); from sifkit.cli import main; main(['exec', '--dry-run', 'image.sif', 'ls']);"
        "from sifkit.runtime import launch; from sifkit.runtime.container import container_facts;"
        "print(len(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stderr.splitlines()[-1]) < 150
