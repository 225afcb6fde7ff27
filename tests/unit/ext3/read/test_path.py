"""``ext3.Path`` beside ``pathlib.Path``: the same calls on an image and on a directory give the same results and errors."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator

import pytest

import ext3
from ext3.edit.filesystem import WritableFilesystem

from ....support.sessions import clock, empty_image

Both = tuple[ext3.Path, pathlib.Path]


@pytest.fixture
def fs() -> Iterator[WritableFilesystem]:
    with ext3.Filesystem.open(empty_image(8 << 20), "r+", clock=clock) as filesystem:
        yield filesystem


def fill(top: ext3.Path | pathlib.Path) -> None:
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "e" / "f.py").write_text("print(1)\n")
    (top / "d" / "g.tar.gz").write_bytes(b"\0\1")
    (top / "d" / ".hidden.py").touch()
    (top / "a.py").write_text("äöü\n", encoding="utf-8")
    (top / "link").symlink_to("d/e")
    (top / "dangling").symlink_to("none")
    (top / "loop").symlink_to("loop")
    (top / "hard").hardlink_to(top / "a.py")
    (top / "[x]").write_text("brackets")


@pytest.fixture
def both(fs: WritableFilesystem, tmp_path: pathlib.Path) -> Both:
    """The same files in an image, and in a directory of the host."""
    top = tmp_path / "host"
    top.mkdir()
    image = fs.path("/")
    (image / "lost+found").rmdir()
    fill(image)
    fill(top)
    return image, top


def outcome(work: Callable[..., object], path: ext3.Path | pathlib.Path) -> object:
    """The result of a call, or the class and number of its error."""
    try:
        return work(path)
    except OSError as error:
        kinds = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
        return next((kind for kind in kinds if isinstance(error, kind)), OSError), error.errno
    except ValueError:
        return ValueError


def text(found: object, top: ext3.Path | pathlib.Path) -> object:
    """A result without the place of its tree."""
    if isinstance(found, ext3.Path | pathlib.Path):
        return os.path.relpath(str(found), str(top))
    return [text(one, top) for one in found] if isinstance(found, list) else found


PLACES = [
    "",
    "a.py",
    "d",
    "d/e/f.py",
    "d/g.tar.gz",
    "link",
    "link/f.py",
    "dangling",
    "loop",
    "none",
    "none/x",
    "a.py/x",
    "d/../a.py",
]
LOOKS: dict[str, Callable[..., object]] = {
    "exists": lambda path: path.exists(),
    "is_dir": lambda path: path.is_dir(),
    "is_file": lambda path: path.is_file(),
    "is_symlink": lambda path: path.is_symlink(),
    "is_fifo": lambda path: path.is_fifo(),
    "size": lambda path: path.stat().st_size if isinstance(path, pathlib.Path) else path.stat().size,
    "names": lambda path: (path.name, path.stem, path.suffix, path.suffixes),
    "read_bytes": lambda path: path.read_bytes(),
    "read_text": lambda path: path.read_text(encoding="utf-8"),
    "readlink": lambda path: str(path.readlink()),
    "iterdir": lambda path: sorted(child.name for child in path.iterdir()),
    "parent": lambda path: (path / "x").parent.name,
    "with_suffix": lambda path: path.with_suffix(".x").name if path.name else None,
    "rmdir": lambda path: path.rmdir() if path.name in ("a.py", "none") or (path.is_dir() and path.name == "d") else None,
    "unlink none": lambda path: path.unlink() if not path.exists() and not path.is_symlink() else None,
    "mkdir": lambda path: path.mkdir(),
    "symlink_to": lambda path: path.symlink_to("x"),
    "open x": lambda path: path.open("x").close() if path.exists() else None,
    "open bad": lambda path: path.open("rwb"),
    "samefile": lambda path: path.samefile(path / "." / ".") if path.is_dir() else None,
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("look", LOOKS)
def test_a_call_has_the_same_outcome(both: Both, place: str, look: str) -> None:
    image, top = both
    if look == "size" and (image / place).is_dir():
        return  # of a directory it is the filesystem's own
    if place == "" and look in ("names", "parent", "with_suffix", "open x"):
        return  # the root has no name
    found, expected = (outcome(LOOKS[look], side / place) for side in both)
    if isinstance(found, tuple) and found[0] is OSError and expected == found:
        return
    assert text(found, image) == text(expected, top)


GLOBS = [
    "*",
    "*.py",
    "**/*.py",
    "**",
    "d/*",
    "d/**/*",
    "*/e/*",
    "link/*",
    "[ad]*",
    "[[]x]",
    "?.py",
    "none/*",
    "d/e/f.py",
    "**/e",
]


@pytest.mark.parametrize("pattern", GLOBS)
def test_glob(both: Both, pattern: str) -> None:
    image, top = both
    (top / "loop").unlink()  # pathlib of some versions raises for it
    (image / "loop").unlink()
    found = [os.path.relpath(str(path), "/") for path in image.glob(pattern)]
    expected = {os.path.relpath(path, top) for path in top.glob(pattern)}
    if pattern == "**":  # directories only before Python 3.13
        expected |= {os.path.relpath(path, top) for path in top.glob("**/*") if path.is_dir() and not path.is_symlink()}
        expected.discard("link")
        found = [path for path in found if path in expected]
    assert set(found) == expected and len(found) == len(set(found))
    assert [str(path) for path in image.rglob("*.py")] == ["/a.py", "/d/.hidden.py", "/d/e/f.py"]


def test_walk(both: Both) -> None:
    image, top = both
    for top_down in (True, False):
        found = [(str(path), sorted(dirs), sorted(files)) for path, dirs, files in image.walk(top_down)]
        expected = {(str(path), tuple(sorted(dirs)), tuple(sorted(files))) for path, dirs, files in _host_walk(top, top_down)}
        assert {(path, tuple(dirs), tuple(files)) for path, dirs, files in found} == expected
    assert [str(path) for path, _, _ in image.walk()] == ["/", "/d", "/d/e"]
    assert [str(path) for path, _, _ in image.walk(False)] == ["/d/e", "/d", "/"]


def _host_walk(top: pathlib.Path, top_down: bool) -> Iterator[tuple[str, list[str], list[str]]]:
    for path, dirs, files in os.walk(top, top_down):
        links = [name for name in dirs if os.path.islink(os.path.join(path, name))]
        relative = os.path.relpath(path, top)
        yield "/" if relative == "." else f"/{relative}", [name for name in dirs if name not in links], files + links


def test_paths(fs: WritableFilesystem) -> None:
    path = ext3.Path(fs, "a/b") / pathlib.PurePosixPath("c") / b"\xff.x"
    assert str(path) == "/a/b/c/\udcff.x" and bytes(path) == b"/a/b/c/\xff.x"
    assert path.parent == fs.path(b"/a/b/c") != fs.path("/a") and hash(path.parent) == hash(fs.path("/a/b/c"))
    assert path.parents[-1] == fs.path() and path.parts == ("/", "a", "b", "c", "\udcff.x")
    assert str(path.relative_to("/a")) == "b/c/\udcff.x" and path.is_relative_to(fs.path("/a/b"))
    assert fs.path("/a") < fs.path("/b") <= fs.path("/b")
    assert fs.path("/x/y.tar").with_stem("z").with_suffix(".gz").with_name("n") == fs.path("/x/n")
    assert fs.path("/x/y.tar").match("*.tar") and fs.path("/a") / "/b" == fs.path("/b")
    assert repr(fs.path("/a")) == f"Path({fs!r}, '/a')"
    with pytest.raises(TypeError):
        ext3.Path(fs, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        fs.path() < "/"  # type: ignore[operator]  # noqa: B015
    assert fs.path() != "/"


def test_open(fs: WritableFilesystem) -> None:
    path = fs.path("/f")
    with path.open("w") as file:
        print("one", "two", file=file)
    with path.open("a", newline="\r\n") as file:
        file.write("three\n")
    assert path.read_bytes() == b"one two\nthree\r\n"
    with path.open("r+b") as file:
        file.seek(4)
        file.write(b"TWO")
        file.seek(0)
        assert file.readline() == b"one TWO\n"
    with path.open() as file:
        assert file.read().splitlines() == ["one TWO", "three"]
    with path.open("rb", buffering=0) as file:
        assert file.read(3) == b"one"
    with path.open("wb") as file:
        file.write(b"x")
    assert path.read_text() == "x"
    for mode, options in (("rb", {"encoding": "utf-8"}), ("r", {"buffering": 0}), ("z", {}), ("r++", {}), ("rbt", {})):
        with pytest.raises(ValueError):
            path.open(mode, **options)
    with pytest.raises(TypeError):
        path.write_text(b"bytes")  # type: ignore[arg-type]
    assert path.write_text("a\nb\n", newline="\r\n") == 4 and path.read_bytes() == b"a\r\nb\r\n"


def test_changes(fs: WritableFilesystem) -> None:
    path = fs.path("/d/e/f")
    with pytest.raises(FileNotFoundError):
        path.mkdir()
    path.mkdir(parents=True)
    path.mkdir(exist_ok=True)
    with pytest.raises(FileExistsError):
        path.mkdir()
    moved = path.rename("/g")
    assert moved.is_dir() and not path.exists() and moved == fs.path("/g")
    file = moved / "x"
    file.touch()
    now = file.stat().mtime
    fs.utimens("/g/x", 1, 2)
    file.touch()
    assert (file.stat().atime, file.stat().mtime) == (now, now)
    with pytest.raises(FileExistsError):
        file.touch(exist_ok=False)
    file.chmod(0o4711)
    file.chown(7, None)
    assert (file.stat().mode & 0o7777, file.stat().uid) == (0o711, 7)
    file.unlink()
    file.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        file.unlink()
    (moved / "deep").mkdir()
    moved.rmtree()
    assert not moved.exists()
    with pytest.raises(OSError, match="not removed"):
        fs.path().rmtree()
    with ext3.Filesystem.open(empty_image(), "r+", clock=clock) as other, pytest.raises(OSError, match="different images"):
        fs.path("/d").rename(other.path("/d"))


def test_resolve(both: Both) -> None:
    image, _ = both
    assert (image / "link/../g.tar.gz").resolve() == image / "d/g.tar.gz"
    assert (image / "dangling").resolve() == image / "none"
    with pytest.raises(FileNotFoundError):
        (image / "dangling").resolve(strict=True)
    with pytest.raises(OSError, match="Too many levels"):
        (image / "loop").resolve()


def test_an_image_open_for_reading() -> None:
    with ext3.Filesystem.open(empty_image()) as fs:
        path = ext3.Path(fs, "/lost+found")
        assert path.is_dir() and list(path.iterdir()) == []
        for change in (path.rmdir, path.unlink, path.touch, path.mkdir, lambda: path.write_text("x"), lambda: path.open("w")):
            with pytest.raises(OSError, match="Read-only file system") as caught:
                change()
            assert caught.value.errno == 30


def test_paths_of_the_filesystem_may_be_pathlike(fs: WritableFilesystem) -> None:
    path = pathlib.PurePosixPath("/d")
    fs.mkdir(path)
    fs.write_bytes(path / "f", b"x")
    assert fs.read_bytes(path / "f") == b"x" and fs.stat(path).is_dir
    with pytest.raises(FileNotFoundError, match="/d/none: No such file"):
        fs.stat(path / "none")
    fs.symlink(path / "f", path / "l")
    fs.rename(path / "l", path / "m")
    assert fs.readlink(path / "m") == b"/d/f"
    with pytest.raises(OSError, match="/d: not a symbolic link"):
        fs.readlink(path)
