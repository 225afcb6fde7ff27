"""``sifkit exec``, ``run`` and ``shell`` beside the Apptainer that is installed.

Environment, user, mounts and exit codes are the same,
and what one writes to an overlay the other shows.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ext3
from sifkit.sif import SIF
from tests.support.containers import sif_of
from tests.support.plain_user import run_sifkit, user_directory
from tests.support.program_tree import write_program_tree
from tests.support.tools import NOBODY, assert_clean, find, requires_root, run
from tests.support.usr_container import write_squashfs_sif

pytestmark = [
    pytest.mark.slow,
    pytest.mark.compat,
    requires_root,
    pytest.mark.skipif(not find("apptainer") or not find("fuse2fs"), reason="Apptainer or fuse2fs is not installed"),
]

PLAIN = next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid >= 1000 and os.path.isdir(entry.pw_dir)), NOBODY)
"""A plain user with a home directory, which Apptainer wants."""
USERS = pytest.mark.parametrize("uid", [0, PLAIN], ids=["root", "user"])
BASE = ("file", "other", "gone/x", "again/old", "again/sub/low", "replaced/x", "deep/kept", "deep/low/old", "deep/low/er/old")
ENVIRONMENT = 'export FOO=image\nexport EMPTY=\nexport PATH="/img/bin:$PATH"\nexport LIST="a b"\n'
VARIABLES = {"FOO": "host", "EMPTY": "host", "OWN": "1", "TERM": "xterm", "SHELL": "/bin/sh", "http_proxy": "p"}


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """base.sif, with scripts for its environment, in a directory that every user can write to."""
    with user_directory(0) as folder:
        root = write_program_tree(folder / "root")
        for file in BASE:
            (root / "data" / file).parent.mkdir(parents=True, exist_ok=True)
            (root / "data" / file).write_text(f"{file}\n")
        for above, _, _ in os.walk(root / "data"):
            os.chmod(above, 0o777)  # the files are root's, and Apptainer's user may only then remove them
        scripts = root / ".singularity.d"
        (scripts / "env").mkdir(parents=True)
        (scripts / "env/90-environment.sh").write_text(ENVIRONMENT)
        base_script = (
            'export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"\nexport PS1="Apptainer> "\n'
        )
        (scripts / "env/99-base.sh").write_text(base_script)
        (scripts / "runscript").write_text('#!/bin/sh\necho run "$FOO" $#: "$@"\n')
        (scripts / "runscript").chmod(0o755)
        (root / "data/link").symlink_to("again")
        (root / "etc/localtime").symlink_to("/data/zone")
        (root / "data/zone").write_text("zone\n")
        (root / "etc/resolv.conf").symlink_to("../run/resolv.conf")
        write_squashfs_sif(folder / "base.sif", root)
        (folder / "base.sif").chmod(0o755)
        folder.chmod(0o777)
        yield folder / "base.sif"


def by_apptainer(uid: int, directory: Path, *words: str, stdin: str = "", **variables: str) -> tuple[int, str, str]:
    """Exit code, output and messages of ``apptainer WORDS``, started as ``run_sifkit`` starts sifkit."""
    done = subprocess.run(
        [find("apptainer") or "", *words],
        cwd=directory,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
            **variables,
        },
        input=stdin.encode(),
        capture_output=True,
        user=uid,
        group=uid,
        extra_groups=[],
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def lines_of(text: str) -> list[str]:
    """Lines in order of the alphabet, without the variable that only sifkit's interpreter needs."""
    return sorted(line for line in text.splitlines() if not line.startswith("PYTHONPATH="))


def compare(uid: int, base: Path, *words: str, stdin: str = "", **variables: str) -> list[str]:
    """Assert that both say the same and exit with the same code; return what they say."""
    given = {**VARIABLES, **variables}
    ours = run_sifkit(uid, base.parent, *words, stdin=stdin, **given)
    theirs = by_apptainer(uid, base.parent, *words, stdin=stdin, **given)
    # Apptainer kills itself by the signal that ended the command, a shell reports both alike
    code = theirs[0] if theirs[0] >= 0 else 128 - theirs[0]
    assert (ours[0], lines_of(ours[1])) == (code, lines_of(theirs[1])), (words, ours[2], theirs[2])
    return lines_of(ours[1])


ENVIRONMENTS: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    ((), {}),
    (("-e",), {"LANG": "de_DE.UTF-8", "APPTAINERENV_X": "1"}),
    (("-C",), {}),
    (("--env", "A=1,B=2", "--env", "FOO=mine", "--env", "LD_LIBRARY_PATH=/l"), {}),
    (("--env", 'A=$FOO $(echo x) "q" \\$FOO'), {}),
    (("--no-eval", "--env", "A=$FOO $(echo x) \\$FOO"), {"PROMPT_COMMAND": "echo $FOO"}),
    (("-B", "/opt:/mnt", "-B", "/srv:/srv:ro"), {"PROMPT_COMMAND": "echo $FOO"}),
    ((), {"APPTAINERENV_X": "1", "SINGULARITYENV_Y": "2", "APPTAINERENV_APPEND_PATH": "/a", "APPTAINERENV_PREPEND_PATH": "/p"}),
    (
        (),
        {
            "LD_LIBRARY_PATH": "/host",
            "APPTAINERENV_FOO": "q",
            "PS1": "host",
            "APPTAINER_BIND": "/srv",
            "SINGULARITY_BIND": "/opt",
        },
    ),
)


@USERS
def test_the_environment(uid: int, base: Path) -> None:
    for options, variables in ENVIRONMENTS:
        found = compare(uid, base, "exec", *options, "base.sif", "env", **variables)
        assert "APPTAINER_NAME=base.sif" in found
    assert compare(uid, base, "run", "base.sif", "a", "b c") == ["run image 2: a b c"]
    compare(uid, base, "shell", "base.sif", stdin="echo $SHELL $FOO $0; exit 5\n")


LOOK = """id; umask; pwd; ls -l /etc/localtime | { read mode rest; echo ${mode%.}; }
cat /etc/localtime /data/zone /etc/resolv.conf
cat /etc/hosts; while read -r a b c d target options e; do case $target in
/sys/*|/tmp/*|/proc/*|/dev/shm/*) ;; *) echo "$target";; esac; done </proc/self/mountinfo; cat /etc/passwd; echo ~; cat
ls -ld /tmp /var/tmp /dev/null /dev/ptmx /dev/fd | while read -r mode rest; do echo ${mode%.}; done"""
OPTIONS = (
    (),
    ("-c",),
    ("-C",),
    ("--no-home",),
    ("-p",),
    ("-B", "/opt:/mnt:ro", "-B", "/srv:/data/link/new", "-B", "/srv:/deep/er/new"),
    ("-S", "/scr"),
    ("--no-mount", "tmp,home,sys"),
    ("--no-mount", "bind-paths"),
    ("--cwd", "/data"),
    ("--writable-tmpfs",),
)


@USERS
def test_what_a_command_finds(uid: int, base: Path) -> None:
    for options in OPTIONS:
        found = compare(uid, base, "exec", *options, "base.sif", "sh", "-c", LOOK, stdin="from stdin\n")
        assert "from stdin" in found


CODES = (
    ("sh", "-c", "exit 9"),
    ("sh", "-c", "kill -9 $$"),
    ("sh", "-c", "kill -TERM $$"),
    ("no-such",),
    ("/no/such",),
    ("/etc/passwd",),
    ("/etc",),
    ("sh", "-c", "no-such"),
    ("sh", "-c", 'printf "%s\\n" "$@"', "x", "a b", "", "*", "--", "-x", "ü", "'"),
    ("sh", "-c", 'trap "echo got; exit 4" TERM; kill -TERM $PPID; sleep 1'),
)


@USERS
def test_exit_codes(uid: int, base: Path) -> None:
    for words in CODES:
        for options in ((), ("-p",)) if "$PPID" not in words[-1] else ((),):
            compare(uid, base, "exec", *options, "base.sif", *words)
    for options in (("-B", "/no/such"), ("--cwd", "/no/such"), ("-B", "/opt:/mnt:xx"), ("--overlay", "no-such.img")):
        compare(uid, base, "exec", *options, "base.sif", "true")
    compare(uid, base, "exec", "no-such.sif", "true")


SESSION = """
cd /data && rm file && rm -r gone && rm -r again && mkdir again && echo new >again/new && echo sub >again/sub-new
rm -r replaced && echo file >replaced && rm other && mkdir other && touch other/in && mkdir fresh && touch fresh/x
rm fresh/x; rm -r deep/low && mkdir -p deep/low/er && touch deep/low/er/new && echo more >>deep/kept
mkdir /opt/made && touch /opt/made/1
"""
SEEN = "cd /data && ls -RA . /opt && cat again/* replaced deep/kept"


@USERS
@pytest.mark.parametrize("kind", ["image", "directory", "embedded"])
def test_what_one_writes_the_other_shows(uid: int, base: Path, kind: str) -> None:
    seen = set()
    owners = set()
    for writer, reader in ((run_sifkit, by_apptainer), (by_apptainer, run_sifkit)):
        with user_directory(uid) as here:
            image, options, read_only = overlay_of(uid, here, base, kind)
            code, _, err = writer(uid, here, "exec", *options, image, "sh", "-c", SESSION)
            assert code == 0, err
            shown = {who(uid, here, "exec", *options, image, "sh", "-c", SEEN)[:2] for who in (writer, reader)}
            assert len(shown) == 1 and next(iter(shown))[0] == 0
            # again by the other, over what the first has done: removed directories that come back, and files in them
            code, _, err = reader(
                uid, here, "exec", *options, image, "sh", "-c", f"rm -r /data/again; mkdir /data/again\n{AGAIN}"
            )
            assert code == 0, err
            shown |= {who(uid, here, "exec", *options, image, "sh", "-c", SEEN)[:2] for who in (writer, reader)}
            ours = run_sifkit(uid, here, "exec", *read_only, image, "sh", "-c", SEEN)[:2]
            assert len(shown) == 2 and ours in shown
            if uid == 0:  # a plain user's Apptainer does not honour all marks of an overlay that is only read
                assert by_apptainer(uid, here, "exec", *read_only, image, "sh", "-c", SEEN)[:2] == ours
            seen.add(frozenset(shown))
            owners.add(frozenset(owners_of(here, kind)))
    assert len(seen) == 1
    assert owners == {frozenset({(uid, uid)})}


AGAIN = """
rm -r /data/again; mkdir /data/again; echo other >/data/again/sub-new; rm -r /data/other; echo other >/data/other
touch /opt/made/2; rm /opt/made/1
"""


def overlay_of(uid: int, here: Path, base: Path, kind: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Make an overlay; return the image, the options that write to it, and those that only read it."""
    if kind == "directory":
        (here / "over").mkdir()
        os.chown(here / "over", uid, uid)
        return str(base), ("--overlay", "over"), ("--overlay", "over:ro")
    assert run_sifkit(uid, here, "-q", "overlay", "create", "--size", "32M", "over.img")[0] == 0
    if kind == "image":
        return str(base), ("--overlay", "over.img"), ("--overlay", "over.img:ro")
    with SIF.open(base) as sif:
        assert sif.primary is not None
        (here / "root.sqfs").write_bytes(sif.read(sif.primary.id))
    image = sif_of(here / "own.sif", here / "root.sqfs", here / "over.img")
    image.chmod(0o755)
    os.chown(image, uid, uid)
    return "own.sif", ("--writable",), ()


def owners_of(here: Path, kind: str) -> set[tuple[int, int]]:
    """Owners of the new files on disk. The image is clean."""
    if kind == "directory":
        return {(found.st_uid, found.st_gid) for found in ((here / "over/upper" / path).stat() for path in NEW)}
    image = here / "over.img"
    if kind == "embedded":
        with SIF.open(here / "own.sif") as sif:
            image.write_bytes(sif.read(sif.overlays[0].id))
    assert_clean(image)
    with ext3.Filesystem.open(image) as filesystem:
        return {(found.uid, found.gid) for found in (filesystem.stat(f"/upper/{path}") for path in NEW)}


NEW = ("data/replaced", "data/fresh", "opt/made/2", "data/again/sub-new")


def test_fakeroot_stores_files_of_root(base: Path) -> None:
    for writer, reader in ((run_sifkit, by_apptainer), (by_apptainer, run_sifkit)):
        with user_directory(PLAIN) as here:
            _, options, _ = overlay_of(PLAIN, here, base, "image")
            words = ("exec", "-f", *options, str(base), "sh", "-c")
            code, out, err = writer(PLAIN, here, *words, f"id -u{SESSION}{AGAIN}")
            assert (code, out) == (0, "0\n"), err
            assert owners_of(here, "image") == {(0, 0)}
            shown = {who(PLAIN, here, *words, SEEN)[:2] for who in (writer, reader)}
            assert len(shown) == 1 and next(iter(shown))[0] == 0


def test_a_terminal(base: Path) -> None:
    """Both leave the terminal as it was, and the command has it: a shell with a prompt, which Ctrl-C does not end."""
    import pty

    for program in ([find("apptainer") or ""], [run("which", "python3").stdout.decode().strip(), "-m", "sifkit"]):
        pid, fd = pty.fork()
        if pid == 0:
            os.chdir(base.parent)
            os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
            os.execvp(program[0], [*program, "shell", "base.sif"])
        os.write(fd, b"sleep 5\n")
        text = b""
        while b"Apptainer>" not in text:
            text += os.read(fd, 4096)
        os.write(fd, b"\x03")
        os.write(fd, b"tty; exit 3\n")
        try:
            while data := os.read(fd, 4096):
                text += data
        except OSError:  # the terminal has no process any more
            pass
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 3, text
        os.close(fd)


@USERS
def test_binds_from_images(uid: int, base: Path) -> None:
    source = base.parent / f"data-{uid}"
    (source / "set").mkdir(parents=True)
    (source / "set/file").write_text("data\n")
    (source / "link").symlink_to("set")
    run("chown", "-R", f"{uid}:{uid}", source)
    squashfs, image = f"{source}.sqfs", f"{source}.img"
    run("mksquashfs", source, squashfs, "-noappend", "-quiet", "-no-progress")
    run("mke2fs", "-q", "-t", "ext3", "-E", f"root_owner={uid}:{uid}", "-d", source, image, "4M")
    os.chown(image, uid, uid)
    binds = ("-B", f"{squashfs}:/read:image-src=/link,id=7", "-B", f"{image}:/written:image-src=/set")
    script = "cat /read/file /written/file; touch /read/x 2>/dev/null || echo read-only; echo x >/written/new; ls /written"
    found = compare(uid, base, "exec", *binds, "base.sif", "sh", "-c", script)
    assert found == ["data", "data", "file", "new", "read-only"]
    assert_clean(Path(image))
    for options in ("image-src=/missing", "image-src=/,id=0"):
        assert compare(uid, base, "exec", "-B", f"{squashfs}:/read:{options}", "base.sif", "true") == []
    mount = f"type=bind,source={image},dst=/only,image-src=/set/file,ro"
    script = "cat /only; echo $APPTAINER_BIND; echo x >/only || echo read-only"
    assert compare(uid, base, "exec", "--mount", mount, "base.sif", "sh", "-c", script) == ["/only", "data", "read-only"]
