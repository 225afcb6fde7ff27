"""Arguments in the wrong order or of the wrong kind: the line a user reads, word for word."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from sifkit.cli import main

OWN_MESSAGES = [
    (
        ["overlay", "create", "new.img", "overlay/"],
        2,
        "sifkit overlay create: too many arguments: overlay/; did you mean --from-dir overlay/?",
    ),
    (
        ["overlay", "create", "overlay/"],
        2,
        "sifkit overlay create: overlay/ is a directory; did you mean --from-dir overlay/?",
    ),
    (
        ["overlay", "create", "new.img", "layer.tar.gz"],
        2,
        "sifkit overlay create: too many arguments: layer.tar.gz; did you mean --from-tar layer.tar.gz?",
    ),
    (
        ["overlay", "create", "-f", "o.img"],
        1,
        "sifkit overlay create: o.img exists; to replace it use --force (-F); -f is --fakeroot",
    ),
    (["overlay", "create", "o.img"], 1, "sifkit overlay create: o.img exists; give another name, or --force to replace it"),
    (
        ["chown", "o.img:/upper/f", "1000:1000"],
        2,
        "sifkit chown: the owner comes before the files; did you mean sifkit chown 1000:1000 o.img:/upper/f?",
    ),
    (
        ["chmod", "o.img:/upper/f", "u+x"],
        2,
        "sifkit chmod: the mode comes before the files; did you mean sifkit chmod u+x o.img:/upper/f?",
    ),
    (["ls", "o.img:upper"], 2, "sifkit ls: o.img:upper: a path in an image begins with /; did you mean o.img:/upper?"),
    (["rm", "o.img:upper"], 2, "sifkit rm: o.img:upper: a path in an image begins with /; did you mean o.img:/upper?"),
    (["ls", "o.img:"], 2, "sifkit ls: o.img:: no path after the colon; did you mean o.img:/?"),
    (["cp", "f", "o.img:upper"], 2, "sifkit cp: o.img:upper: a path in an image begins with /; did you mean o.img:/upper?"),
    (
        ["ls", "layer.tar.gz"],
        1,
        "sifkit ls: layer.tar.gz: no ext3 filesystem: there is no superblock at byte 1024;"
        " an archive: sifkit overlay create --from-tar layer.tar.gz makes an overlay of it",
    ),
    (
        ["ls", "layer.tar"],
        1,
        "sifkit ls: layer.tar: no ext3 filesystem: there is no superblock at byte 1024;"
        " an archive: sifkit overlay create --from-tar layer.tar makes an overlay of it",
    ),
    (
        ["cp", "f", "o.img:/opt/"],
        1,
        "sifkit cp: cannot create regular file 'o.img:/opt/': Not a directory; what a container sees is below /upper;"
        " create the directory there: sifkit mkdir -p o.img:/upper/opt",
    ),
    (
        ["cp", "f", "o.img:/upper/a/b/"],
        1,
        "sifkit cp: cannot create regular file 'o.img:/upper/a/b/': No such file or directory;"
        " create the directory first: sifkit mkdir -p o.img:/upper/a/b",
    ),
    (
        ["cp", "--upper", "f", "o.img:/a/b"],
        1,
        "sifkit cp: cannot create regular file 'o.img:/a/b': No such file or directory;"
        " create the directory first: sifkit mkdir -p --upper o.img:/a",
    ),
    (
        ["extract", "o.img", "out"],
        2,
        "sifkit extract: there is no out in o.img; to extract into it: sifkit extract o.img -C out",
    ),
    (
        ["extract", "o.img:/upper", "out"],
        2,
        "sifkit extract: out is not IMAGE:/PATH, unlike o.img:/upper; write IMAGE PATH..., or IMAGE:/PATH for each",
    ),
    (
        ["extract", "o.img", "/upper/x/y"],
        1,
        "sifkit extract: /upper/x/y: No such file or directory; list files with: sifkit ls o.img",
    ),
    (
        ["ls", "--offset", "512", "o.img"],
        1,
        "sifkit ls: o.img: no ext3 filesystem: there is no superblock at byte 1024;"
        " check --offset: the superblock is looked for 1024 bytes after it",
    ),
    (
        ["find", "o.img", "-delete"],
        2,
        "sifkit find: no option -delete: find changes nothing; remove files with: sifkit rm IMAGE:/PATH; see sifkit find -h",
    ),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("hints")
    (base / "overlay").mkdir()
    (base / "overlay/f").write_bytes(b"data\n")
    (base / "f").write_bytes(os.urandom(4096))
    for name, mode in (("layer.tar", "w"), ("layer.tar.gz", "w:gz")):
        with tarfile.open(base / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(base / "f", "f")
    assert main(["-q", "overlay", "create", "--size", "16M", "--from-dir", f"{base}/overlay", f"{base}/o.img"]) == 0
    return base


@pytest.mark.parametrize(("argv", "code", "line"), OWN_MESSAGES)
def test_the_message(
    argv: list[str], code: int, line: str, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    before = sorted(os.listdir(files)), (files / "o.img").stat().st_mtime_ns
    assert main(argv) == code
    assert capsys.readouterr().err == line + "\n"
    assert (sorted(os.listdir(files)), (files / "o.img").stat().st_mtime_ns) == before


@pytest.mark.slow
@pytest.mark.parametrize("argv", [["ls", "o.img"], ["overlay", "create", "--size", "16M", "x.img"], ["sif", "list", "x.sif"]])
def test_a_deleted_working_directory_is_named(argv: list[str], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = "import os, shutil, sys; shutil.rmtree(os.getcwd()); from sifkit.cli import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PWD": str(gone)}
    command = [sys.executable, "-c", script, *argv]
    done = subprocess.run(command, cwd=gone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith(f"; the current directory {gone} was deleted; change to another one\n")


@pytest.mark.slow
@pytest.mark.parametrize("argv", [["ls"], ["overlay", "info"], ["cat", "--", "/f"], ["overlay", "export", "-o", "-"]])
def test_closed_standard_output(argv: list[str], files: Path) -> None:
    """As coreutils: ``ls >&-`` ends with a write error."""
    image = str(files / "o.img")
    words = ["cat", f"{image}:/upper/f"] if argv[0] == "cat" else [*argv, image]
    command = [sys.executable, "-m", "sifkit", *words]
    done = subprocess.run(["/bin/sh", "-c", '"$@" >&-', "sh", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("write error: Bad file descriptor\n") and len(done.stderr.splitlines()) == 1
