"""--prefix: the source at a path of the container, and warnings about sources that a container will not have as meant."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import time
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import ext3
from sifkit.errors import LayoutError, UsageError
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions, CreateResult

from .....support.commands import Run, good

HIDES = " would be at / of the container and hide its own, such as /bin -> usr/bin (FATAL: failed to open /bin/sh): "
NO_ENVIRONMENT = "--prefix PATH, like /opt/env, puts the source elsewhere; --prefix / says that it is meant"


def make(target: Path, **options: Any) -> CreateResult:
    return create(target, CreateOptions(**options))


def listing(image: Path) -> dict[str, ext3.Stat]:
    with ext3.Filesystem.open(image) as fs:
        return {os.fsdecode(path).strip("/"): fs.stat(entry.ino) for path, entry in fs.walk()}


def environment(top: Path, made_for: str, *, kind: str = "venv", scripts: str = "#!{}/bin/python3.11\n") -> Path:
    """Small environment whose scripts and records name ``made_for``."""
    (top / "bin").mkdir(parents=True)
    (top / "lib/python3.11").mkdir(parents=True)
    (top / "bin/python3.11").write_bytes(b"\x7fELF")
    (top / "bin/python3").symlink_to("python3.11")
    (top / "bin/activate").write_text("# This file must be used with source\n")
    if scripts:
        (top / "bin/pip").write_text(scripts.format(made_for) + "import pip\n")
    if kind == "venv":
        (top / "pyvenv.cfg").write_text(
            f"home = /usr/bin\nversion = 3.11.2\ncommand = /usr/bin/python3.11 -m venv {made_for}\n"
        )
    else:
        (top / "conda-meta").mkdir()
        (top / "conda-meta/python-3.11.json").write_text("{}")
        (top / "conda-meta/history").write_text(
            f"==> 2026-01-01 00:00:00 <==\n# cmd: /opt/conda/bin/conda create -p {made_for} python\n# conda version: 24.1.0\n"
        )
    return top


def packed(source: Path) -> io.BytesIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(source, ".")
    data.seek(0)
    return data


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    (top / "share").mkdir(parents=True)
    (top / "share/file").write_bytes(b"content")
    top.chmod(0o750)
    os.utime(top, ns=(10**18, 10**18))
    return top


@pytest.mark.parametrize("tar", [False, True])
@pytest.mark.parametrize("prefix", ["/opt/a/b", "opt//a/./b/"])
def test_the_source_goes_to_the_prefix(tmp_path: Path, source: Path, tar: bool, prefix: str) -> None:
    where = {"from_tar": packed(source)} if tar else {"from_dir": source}
    result = make(tmp_path / "o.img", prefix=prefix, source_date_epoch=1_700_000_000, **where)
    facts = listing(tmp_path / "o.img")
    below = {"upper/opt", "upper/opt/a", "upper/opt/a/b", "upper/opt/a/b/share", "upper/opt/a/b/share/file"}
    assert facts.keys() == {"upper", "work", "lost+found", *below}
    assert (result.layout, result.files, result.warnings) == ("upper", 2, ())
    for path in ("upper", "upper/opt", "upper/opt/a"):
        assert stat.S_IMODE(facts[path].mode) == 0o755
        assert facts[path].mtime == 1_700_000_000 * 10**9
        assert (facts[path].uid, facts[path].gid) == (source.stat().st_uid, source.stat().st_gid)
    assert stat.S_IMODE(facts["upper/opt/a/b"].mode) == 0o750
    assert facts["upper/opt/a/b"].mtime == 10**18


def test_owners_of_the_directories_above(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "o.img", from_dir=source, prefix="/opt/a", upper_owner=(5, 6))
    owners = {path: (found.uid, found.gid) for path, found in listing(tmp_path / "o.img").items()}
    assert owners["upper"] == owners["work"] == owners["upper/opt"] == (5, 6)
    assert owners["upper/opt/a"] == (source.stat().st_uid, source.stat().st_gid)
    make(tmp_path / "p.img", from_dir=source, prefix="/opt/a", owner=(5, 6))
    owners = {path: (found.uid, found.gid) for path, found in listing(tmp_path / "p.img").items()}
    assert {owner for path, owner in owners.items() if path != "lost+found"} == {(5, 6)}


def test_with_directories_that_are_created(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "o.img", from_dir=source, prefix="/opt/a", create_dirs=("opt/b", "opt/a/new"))
    assert {"upper/opt/a/share", "upper/opt/b", "upper/opt/a/new"} <= listing(tmp_path / "o.img").keys()


def test_the_root_is_a_prefix_too(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "o.img", from_dir=source, prefix="//")
    assert "upper/share/file" in listing(tmp_path / "o.img")


def test_as_a_keyword_it_is_a_path(tmp_path: Path, source: Path) -> None:
    for prefix in (b"/opt/a", PurePosixPath("/opt/a")):
        create(tmp_path / "o.img", from_dir=source, prefix=prefix, force=True)
        assert "upper/opt/a/share/file" in listing(tmp_path / "o.img")
    with pytest.raises(TypeError, match="prefix must be a path in the container, not 5"):
        create(tmp_path / "o.img", from_dir=source, prefix=5)


@pytest.mark.parametrize("prefix", ["", ".", "/opt/../etc", "/opt/" + "n" * 256, "/a\0b"])
def test_paths_that_cannot_be(tmp_path: Path, source: Path, prefix: str) -> None:
    with pytest.raises(UsageError, match="--prefix"):
        make(tmp_path / "o.img", from_dir=source, prefix=prefix)
    assert not (tmp_path / "o.img").exists()


def test_what_contradicts_a_prefix(tmp_path: Path, source: Path) -> None:
    with pytest.raises(UsageError, match="there is none") as caught:
        make(tmp_path / "o.img", prefix="/opt/a")
    assert "--create-dir" in caught.value.hint
    for layout in ("root", "data"):
        with pytest.raises(UsageError, match=f"--layout {layout}"):
            make(tmp_path / "o.img", from_dir=source, prefix="/opt/a", layout=layout)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    source.rename(overlay / "upper")
    with pytest.raises(LayoutError, match="is an overlay") as refused:
        make(tmp_path / "o.img", from_dir=overlay, prefix="/opt/a")
    assert "below upper/" in refused.value.hint
    make(tmp_path / "o.img", from_dir=overlay, prefix="/opt/a", layout="upper")
    assert "upper/opt/a/upper/share" in listing(tmp_path / "o.img")
    (overlay / "more").mkdir()  # no overlay then: a directory of this name, and the place of all of it is given
    make(tmp_path / "p.img", from_dir=overlay, prefix="/opt/a")
    assert "upper/opt/a/more" in listing(tmp_path / "p.img")


# -- what hides, and is hidden -------------------------------------------------------------------------------------------


def test_names_that_containers_have_as_links(tmp_path: Path, source: Path) -> None:
    for name in ("bin", "lib", "lib64", "usr", "etc"):
        (source / name).mkdir()
    assert make(tmp_path / "a.img", from_dir=source).warnings == ("bin, lib and lib64" + HIDES + NO_ENVIRONMENT,)
    assert make(tmp_path / "b.img", from_tar=packed(source)).warnings == ("bin, lib and lib64" + HIDES + NO_ENVIRONMENT,)
    assert make(tmp_path / "c.img", from_dir=source, prefix="/").warnings == ()
    assert make(tmp_path / "d.img", from_dir=source, prefix="/opt/a").warnings == ()
    assert make(tmp_path / "e.img", from_dir=source, layout="data").warnings == ()
    assert make(tmp_path / "f.img", from_dir=source, exclude=("/lib", "./lib64", "./bin")).warnings == ()


def test_links_to_usr_and_whole_systems_hide_nothing(tmp_path: Path, source: Path) -> None:
    (source / "lib").symlink_to("usr/lib")
    (source / "sbin").symlink_to("/usr/sbin")
    assert make(tmp_path / "a.img", from_dir=source).warnings == ()
    (source / "lib64").symlink_to("lib")
    assert make(tmp_path / "b.img", from_dir=source).warnings == ("lib64" + HIDES + NO_ENVIRONMENT,)
    (source / "bin").mkdir()
    (source / "bin/sh").symlink_to("busybox")
    assert make(tmp_path / "c.img", from_dir=source).warnings == ()


@pytest.mark.parametrize(
    ("prefix", "better"),
    [
        ("/home/u/env", "/opt/env"),
        ("/root", "/opt/env"),
        ("/tmp/tools", "/opt/tools"),
        ("/var/tmp/x", "/opt/x"),
        ("/dev/shm/y", "/opt/y"),
        ("/proc", "/opt/env"),
        ("sys/a", "/opt/a"),
    ],
)
def test_paths_that_apptainer_mounts_over(tmp_path: Path, source: Path, prefix: str, better: str) -> None:
    path = "/" + prefix.strip("/")
    want = f"{path} is hidden by Apptainer's default mounts: choose another --prefix, like {better}"
    assert make(tmp_path / "o.img", from_dir=source, prefix=prefix).warnings == (want,)


@pytest.mark.parametrize("prefix", ["/homes/u", "/opt/home", "/var/tmpfiles", "/srv/root"])
def test_paths_that_it_does_not(tmp_path: Path, source: Path, prefix: str) -> None:
    assert make(tmp_path / "o.img", from_dir=source, prefix=prefix).warnings == ()


# -- environments --------------------------------------------------------------------------------------------------------

NAMES = {"venv": "virtual environment", "conda": "conda environment"}
PACKERS = {"venv": "venv-pack", "conda": "conda-pack"}


@pytest.mark.parametrize("tar", [False, True])
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(
    "scripts", ["#!{}/bin/python3.11\n", "#!/bin/sh\n'''exec' {}/bin/python3.11 \"$0\" \"$@\"\n' '''\n", ""]
)
def test_an_environment_starts_where_it_was_made_for(tmp_path: Path, kind: str, scripts: str, tar: bool) -> None:
    source = environment(tmp_path / "env", "/home/u/env", kind=kind, scripts=scripts)

    def warnings(**options: Any) -> tuple[str, ...]:
        where = {"from_tar": packed(source)} if tar else {"from_dir": source}
        return make(tmp_path / "o.img", force=True, **where, **options).warnings

    assert warnings(prefix="/opt/env") == (
        f"the {NAMES[kind]} was made for /home/u/env and will not start from /opt/env: create it at /opt/env, or use"
        f" {PACKERS[kind]}",
    )
    assert warnings(prefix="/home/u/env") == (
        "/home/u/env is hidden by Apptainer's default mounts: choose another --prefix, like /opt/env",
    )
    assert warnings() == (
        f"bin and lib{HIDES}use --prefix. The {NAMES[kind]} was made for /home/u/env, which Apptainer's default mounts hide:"
        f" create it at /opt/env, or use {PACKERS[kind]}, and give --prefix /opt/env",
    )


@pytest.mark.parametrize("kind", NAMES)
def test_the_prefix_that_it_was_made_for_is_named(tmp_path: Path, kind: str) -> None:
    source = environment(tmp_path / "env", "/sw/env", kind=kind)
    assert make(tmp_path / "a.img", from_dir=source, prefix="/sw/env/").warnings == ()
    assert make(tmp_path / "b.img", from_dir=source).warnings == (
        f"bin and lib{HIDES}--prefix /sw/env puts it where the {NAMES[kind]} was made for",
    )
    (other,) = make(tmp_path / "c.img", from_dir=source, prefix="/opt/x").warnings
    assert other.endswith(f"give --prefix /sw/env, create it at /opt/x, or use {PACKERS[kind]}")
    (hidden,) = make(tmp_path / "d.img", from_dir=source, prefix="/home/x").warnings
    assert hidden.endswith("choose another --prefix, like /sw/env")


def test_environments_deep_in_a_source_and_in_an_overlay(tmp_path: Path) -> None:
    top = tmp_path / "overlay/upper"
    environment(top / "opt/right", "/opt/right")
    environment(top / "opt/one", "/home/u/one")
    environment(top / "opt/two", "/home/u/two", kind="conda")
    want = (
        "the conda environment (and 1 more) was made for /home/u/two and will not start from /opt/two: create it at /opt/two,"
        " or use conda-pack",
    )
    assert make(tmp_path / "a.img", from_dir=top).warnings == want
    assert make(tmp_path / "b.img", from_dir=top.parent).warnings == want
    assert make(tmp_path / "c.img", from_dir=top, layout="data").warnings == ()


def test_what_says_nothing_of_its_path(tmp_path: Path) -> None:
    moved = environment(tmp_path / "packed", "/home/u/env", kind="conda")
    (moved / "bin/conda-unpack").write_text("#!/usr/bin/env python\n")
    anywhere = environment(tmp_path / "anywhere", "/home/u/env", kind="conda", scripts="#!/usr/bin/env python\n")
    (tmp_path / "named/conda-meta").mkdir(parents=True)
    (tmp_path / "named/conda-meta/history").write_text("# cmd: /opt/conda/bin/conda create -n env python\n")
    (tmp_path / "file").mkdir()
    (tmp_path / "file/conda-meta").write_text("no directory")
    (tmp_path / "file/pyvenv.cfg").mkdir()
    system = environment(tmp_path / "system", "/opt/x", scripts="#!/usr/bin/python3\n")
    (system / "pyvenv.cfg").write_bytes(b"\xff\0 no settings\n" * 400)
    for source in (moved, anywhere, tmp_path / "named", tmp_path / "file", system):
        assert make(tmp_path / "o.img", force=True, from_dir=source, prefix="/opt/x").warnings == ()


def test_only_the_beginning_of_a_few_files_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sifkit.overlay.creating import environments

    source = environment(tmp_path / "env", "/home/u/env")
    for number in range(300):
        (source / f"bin/program{number}").write_bytes(b"#!/bin/sh\n" + bytes(5000))
    read: list[int] = []
    start = environments._start
    monkeypatch.setattr(environments, "_start", lambda tree, node, limit: read.append(limit) or start(tree, node, limit))
    assert len(make(tmp_path / "o.img", from_dir=source, prefix="/opt/env").warnings) == 1
    assert len(read) <= environments.MAX_SCRIPTS and max(read) == environments.START_BYTES


@pytest.mark.parametrize(
    ("settings", "made_for"),
    [
        ("home = /usr/bin\ncommand = /usr/bin/python3 -m venv --copies /home/u/a b\n", "/home/u/a b"),
        ("command=/usr/bin/python3 -m virtualenv /home/u/env \r\nhome = /usr/bin\r\n", "/home/u/env"),
        ("command = /usr/bin/python3 -m venv env\n", None),
        ("commands = /usr/bin/python3 -m venv /home/u/env\n", None),
    ],
)
def test_the_command_that_made_an_environment(tmp_path: Path, settings: str, made_for: str | None) -> None:
    source = environment(tmp_path / "env", "/home/u/env", scripts="")
    (source / "pyvenv.cfg").write_bytes(settings.encode())
    warnings = make(tmp_path / "o.img", from_dir=source, prefix="/opt/env").warnings
    assert (f"was made for {made_for} and" in "".join(warnings)) if made_for else warnings == ()


def test_settings_made_to_be_slow_are_read_as_fast_as_plain_ones(tmp_path: Path) -> None:
    """Compared with as many bytes that say nothing: a pattern that goes back for each CR takes thousands of times as long."""

    source = environment(tmp_path / "env", "/home/u/env", scripts="")

    def seconds(settings: bytes) -> float:
        (source / "pyvenv.cfg").write_bytes(settings[:4096])
        start = time.process_time()
        make(tmp_path / "o.img", force=True, from_dir=source, prefix="/opt/env")
        return time.process_time() - start

    seconds(b"")
    plain = seconds(b"home = /usr/bin\n" * 512)
    assert seconds(b"command = p" + b" -m venv /" * 200 + b"\r" * 2000 + b"x" * 4096) < 20 * plain


# -- the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from sifkit.cli.support.console import Console

    monkeypatch.setattr(Console, "err_is_terminal", True)


def test_the_command_warns_and_says_where_only_on_a_terminal(run: Run, tmp_path: Path) -> None:
    source = environment(tmp_path / "env", "/home/u/env")
    code, out, err = run(
        "overlay", "create", tmp_path / "o.img", "--from-dir", source, "--prefix", "/opt/env", "--owner", "1:1"
    )
    assert (code, out) == (0, "")
    assert err == (
        "sifkit overlay create: warning: the virtual environment was made for /home/u/env and will not start from /opt/env:"
        " create it at /opt/env, or use venv-pack\n"
    )
    (source / "bin/pip").unlink()
    (source / "pyvenv.cfg").unlink()
    good(run, "overlay", "create", tmp_path / "p.img", "--from-dir", source, "--prefix", "/opt/env", "--owner", "1:1")


@pytest.mark.usefixtures("at_a_terminal")
@pytest.mark.parametrize(("words", "path"), [((), "/"), (("--prefix", "opt/x/"), "/opt/x")])
def test_on_a_terminal_the_place_is_said(run: Run, tmp_path: Path, source: Path, words: tuple[str, ...], path: str) -> None:
    _, _, err = run("overlay", "create", tmp_path / "o.img", "--from-dir", source, "--owner", "1:1", *words)
    assert f"the source goes below upper/: the container sees it at {path}\n" in err
    _, _, err = run(
        "overlay", "create", tmp_path / "p.img", "--from-dir", source, "--owner", "1:1", "--layout", "upper", *words
    )
    assert "goes below" not in err
