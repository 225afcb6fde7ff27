"""The judge is judged: ``diff_tree`` must see each kind of difference, and none where there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import diff_tree
from tools.debugfs_tree import Debugfs, read_debugfs

from ...support import trees
from ...support.tools import require, run

MIB = 1 << 20

pytestmark = pytest.mark.slow  # each test makes a tree of all kinds of files


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that stays as it is."""
    return trees.everything(tmp_path_factory.mktemp("judged") / "left", big=False)


@pytest.fixture
def pair(left: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two trees that are the same in everything that is compared here; the right one may be changed."""
    return left, trees.everything(tmp_path / "right", big=False)


def differences(left: Path, right: Path) -> list[str]:
    want, got = diff_tree.read_host(left), diff_tree.read_host(right)
    return diff_tree.compare(want, got, ignore=["ctime", "atime"], block_size=4096)


def test_same_trees(pair: tuple[Path, Path]) -> None:
    assert differences(*pair) == []


def keep_times(path: Path, change: Callable[[], object]) -> None:
    """Change something and put the times back, so that only the change differs."""
    places = [place for place in (path, path.parent) if place.exists()]
    before = {place: os.lstat(place) for place in places}
    change()
    for place, status in before.items():
        if place.exists():
            os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def replace_link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def to_file(path: Path) -> None:
    path.unlink()
    path.touch(0o644)


def separate(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


CHANGES: list[tuple[str, Callable[[Path], object], list[str]]] = [
    ("files/size-1", lambda path: path.chmod(0o600), ["files/size-1: mode 0o600, want 0o644"]),
    ("files/size-1", lambda path: append(path, b"x"), ["files/size-1: size 2, want 1", "files/size-1: content differs"]),
    ("files/size-12288", lambda path: overwrite(path, 12287, b"\0"), ["files/size-12288: content differs"]),
    ("files/only-hole", lambda path: overwrite(path, 400000, b"\0"), ["files/only-hole: data in blocks [(97, 98)], want []"]),
    ("files/size-0", lambda path: path.unlink(), ["files/size-0: missing"]),
    ("files/extra", lambda path: path.touch(), ["files/extra: only in the image"]),
    ("links/symlink-59", lambda path: replace_link(path, "u" * 59), ["links/symlink-59: target"]),
    ("special/fifo", to_file, ["special/fifo: type file, want fifo"]),
    ("links/below/again", separate, ["links/one: hard link of links/one, want links/below/again"]),
    ("modes/file-4755", lambda path: path.chmod(0o755), ["modes/file-4755: mode 0o755, want 0o4755"]),
    ("modes/directory-1777", lambda path: path.chmod(0o777), ["modes/directory-1777: mode 0o777, want 0o1777"]),
]


@pytest.mark.parametrize(("name", "change", "expected"), CHANGES, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(CHANGES)])
def test_a_change_is_seen(pair: tuple[Path, Path], name: str, change: Callable[[Path], object], expected: list[str]) -> None:
    left, right = pair
    keep_times(right / name, lambda: change(right / name))
    found = differences(left, right)
    for text in expected:
        assert any(line.startswith(text) for line in found), (text, found)
    # Nothing else is blamed: neighbours, the directory, other attributes (names of a link group share their fate).
    assert all(line.startswith((name, "links/")) for line in found), found


def test_a_nanosecond_is_seen(pair: tuple[Path, Path]) -> None:
    left, right = pair
    status = os.lstat(left / "files" / "size-1")
    os.utime(right / "files" / "size-1", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    [line] = differences(left, right)
    assert line.startswith("files/size-1: mtime ")
    assert diff_tree.compare(diff_tree.read_host(left), diff_tree.read_host(right), ignore=["ctime", "atime", "mtime"]) == []


def test_attributes_are_seen(pair: tuple[Path, Path]) -> None:
    left, right = pair
    path = right / "attributes" / "small"
    if not trees.set_xattr(path, "user.a", b"c"):
        pytest.skip("this filesystem has no user attributes")
    trees.set_xattr(path, "user.new", b"n")
    os.removexattr(right / "attributes" / "binary", "user.bin")
    assert differences(left, right) == [
        "attributes/binary: attribute user.bin is missing",
        "attributes/small: attribute user.a is b'c', want b'b'",
        "attributes/small: attribute user.new is new",
    ]


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot ignore colour"):
        diff_tree.compare({}, {}, ignore=["colour"])


def test_lost_found_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "lost+found").mkdir(parents=True)
    want, got = diff_tree.read_host(tmp_path / "a"), diff_tree.read_host(tmp_path / "b")
    assert diff_tree.compare(want, got, ignore=["root"]) == []


def test_digest_knows_nothing_of_holes() -> None:
    data = bytes(70_000) + b"x" * 10 + bytes(100_000)
    whole = diff_tree.digest(lambda at, n: data[at : at + n], [(0, len(data))], len(data))
    part = diff_tree.digest(lambda at, n: data[at : at + n], [(69_632, 70_100), (70_200, 73_728)], len(data))
    assert whole == part
    assert whole != diff_tree.digest(lambda at, n: data[at : at + n], [], len(data))


def test_acl_on_disk() -> None:
    assert diff_tree.disk_acl(trees.DEFAULT_ACL).hex() == (
        "01000000" "01000700" "02000700e9030000" "04000500" "10000700" "20000000"
    )  # fmt: skip


def hostile(root: Path) -> Path:
    """Names and texts that imitate the output of debugfs."""
    root.mkdir()
    for name in (b"debugfs: stat <12>", b"x\ndebugfs: ls -p <2>\n", b"\n\n", b"BLOCKS:", b"Extended attributes:"):
        with open(os.fsencode(root) + b"/" + name, "wb") as file:
            file.write(name * 100)
    targets = [b'a"\ndebugfs: stat <%d>\n' % number for number in range(10, 30)]
    for number, target in enumerate([*targets, b'Fast link dest: "', b"\nBLOCKS:\n(0):1"]):
        os.symlink(target, os.fsencode(root) + b"/link-%d" % number)
    os.mkdir(os.fsencode(root) + b"/dir\n|2|040755|0|0|.||")
    return root


def mke2fs_image(tmp_path: Path, tree: Path, *options: str, size: int = 32 * MIB) -> Path:
    require("mke2fs", "debugfs")
    image = tmp_path / "judge.img"
    with image.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-t", "ext3", *options, "-d", tree, image)
    return image


NOT_BY_MKE2FS = ["atime", "mtime", "ctime"]
"""mke2fs -d drops nanoseconds, and its ctime is its own."""


@pytest.mark.parametrize("block_size", ["1024", "4096"])
def test_debugfs_reads_hostile_trees(tmp_path: Path, block_size: str) -> None:
    tree = hostile(tmp_path / "tree")
    image = mke2fs_image(tmp_path, tree, "-b", block_size)
    assert diff_tree.diff(tree, image, judge="debugfs", ignore=NOT_BY_MKE2FS) == []


@pytest.mark.root
def test_kernel_and_debugfs_agree(left: Path, tmp_path: Path) -> None:
    """On everything but attribute values, which debugfs gives in disk form: those are compared with the source."""
    tree, image = left, mke2fs_image(tmp_path, left)
    kernel, debugfs = diff_tree.read_kernel(image), read_debugfs(image)
    assert len(kernel) > 100
    assert diff_tree.compare(kernel, debugfs) == []
    ignore = [*NOT_BY_MKE2FS, "links", "holes"]  # it does not link symlinks, and makes holes of zeros
    assert diff_tree.diff(tree, image, judge="debugfs", ignore=ignore) == []
    assert diff_tree.diff_kernel(tree, image, ignore=ignore) == []


def test_debugfs_in_a_larger_file(left: Path, tmp_path: Path) -> None:
    image = mke2fs_image(tmp_path, left)
    larger = tmp_path / "larger"
    larger.write_bytes(b"\xaa" * (MIB + 4096) + image.read_bytes())
    judge = Debugfs(larger, MIB + 4096)
    judge.close()
    assert judge.block_size == 1024
    assert diff_tree.compare(read_debugfs(image), read_debugfs(larger, offset=MIB + 4096)) == []


def test_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tmp_path / "tree"
    trees.everything(tree / "upper" / "inner", big=False)
    image = mke2fs_image(tmp_path, tree)
    arguments = ["--judge", "debugfs", "--ignore", "atime,mtime,ctime,links,holes"]
    assert diff_tree.main([str(tree / "upper" / "inner"), str(image), "--below", "upper/inner", *arguments]) == 0
    assert diff_tree.main([str(tree / "upper" / "inner"), str(image), "--below", "upper", *arguments]) == 1
    assert "inner: only in the image" in capsys.readouterr().out
    assert diff_tree.main([str(tree), str(image), "--below", "nowhere", *arguments]) == 2
    assert diff_tree.main([str(tree), str(tree / "upper" / "inner" / "files" / "zeros"), *arguments]) == 2
    assert "no ext3 superblock" in capsys.readouterr().err
