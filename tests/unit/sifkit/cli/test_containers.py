"""Looking into containers: SIF images with overlays of their own, and overlays that are given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ....support.commands import Run, good, refused
from ....support.containers import sif_of
from ....support.memory_tree import MemoryNode, MemoryTree
from ....support.tree_forms import image_of

SQUASHFS = Path(__file__).parents[4] / "fixtures" / "squashfs" / "gzip.sqfs"
DIRECTORY, REGULAR, SYMLINK, WHITEOUT = 0o040755, 0o100644, 0o120777, 0o020000


def tree_of(*files: tuple[bytes, MemoryNode]) -> MemoryTree:
    tree = MemoryTree()
    for path, node in files:
        tree.add(path, node)
    return tree


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base.sif, ov.img that changes it, fuse.img whose marks are fuse-overlayfs's, and own.sif, which has ov.img inside."""
    top = tmp_path_factory.mktemp("containers")
    image_of(
        tree_of(
            (b"etc", MemoryNode(DIRECTORY)),
            (b"etc/motd", MemoryNode(REGULAR, b"base\n")),
            (b"etc/mode", MemoryNode(REGULAR, b"same\n")),
            (b"lib", MemoryNode(SYMLINK, b"usr/lib")),
            (b"opt", MemoryNode(DIRECTORY)),
            (b"opt/old", MemoryNode(REGULAR, b"old\n")),
            (b"usr", MemoryNode(DIRECTORY)),
            (b"usr/lib", MemoryNode(DIRECTORY)),
            (b"usr/lib/libx", MemoryNode(REGULAR, b"x" * 2000)),
        ),
        top / "root.img",
    )
    image_of(
        tree_of(
            (b"upper", MemoryNode(DIRECTORY)),
            (b"upper/etc", MemoryNode(DIRECTORY)),
            (b"upper/etc/motd", MemoryNode(REGULAR, b"changed\n")),
            (b"upper/etc/mode", MemoryNode(0o100600, b"same\n")),
            (b"upper/new", MemoryNode(DIRECTORY)),
            (b"upper/new/file", MemoryNode(REGULAR, b"n" * 5000)),
            (b"upper/opt", MemoryNode(WHITEOUT)),
            (b"work", MemoryNode(DIRECTORY)),
        ),
        top / "ov.img",
    )
    image_of(
        tree_of(
            (b"upper", MemoryNode(DIRECTORY)),
            (b"upper/.wh.opt", MemoryNode(REGULAR)),
            (b"upper/etc", MemoryNode(DIRECTORY, xattrs={b"user.overlay.opaque": b"y"})),
        ),
        top / "fuse.img",
    )
    sif_of(top / "base.sif", top / "root.img")
    sif_of(top / "own.sif", top / "root.img", top / "ov.img")
    (top / "layer" / "upper" / "etc").mkdir(parents=True)
    (top / "layer" / "upper" / "etc" / "motd").write_text("of the directory\n")
    return top


@pytest.fixture(autouse=True)
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)


@pytest.mark.parametrize("words", [["base.sif", "--overlay", "ov.img"], ["own.sif"], ["base.sif", "--overlay", "ov.img:ro"]])
def test_every_looking_command_shows_the_container(run: Run, words: list[str], tmp_path: Path) -> None:
    image, *options = words
    assert good(run, "ls", *words) == "etc\nlib\nlost+found\nnew\nusr\n"
    assert good(run, "ls", "-A", f"{image}:/etc", *options) == "mode\nmotd\n"
    assert good(run, "cat", *words, "/etc/motd") == "changed\n"
    assert good(run, "find", *words, "-name", "lib*") == "/lib\n/usr/lib\n/usr/lib/libx\n"
    assert good(run, "find", image, "/new", *options, "-newer", f"{image}:/etc/motd") == ""
    assert "├── lib -> usr/lib\n" in good(run, "tree", *words) and "(whiteout)" not in good(run, "tree", *words)
    assert good(run, "du", "-a", *words, "/new") == "5\t/new/file\n6\t/new\n"
    assert good(run, "xattr", "list", *words, "/etc") == "# file: /etc\n"
    good(run, "-q", "extract", *words, "-C", tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["etc", "lib", "lost+found", "new", "usr"]
    good(run, "-q", "cp", "-r", f"{image}:/etc", tmp_path / "etc", *options)
    assert (tmp_path / "etc" / "motd").read_text() == "changed\n"
    good(run, "cp", f"{image}:/etc/m*", tmp_path, *options)
    assert (tmp_path / "motd").read_text() == "changed\n"


def test_stat_says_which_layer(run: Run) -> None:
    found = good(run, "stat", "own.sif", "/etc/motd", "/lib")
    assert found.count("\nlayer       own.sif, object 2\n") == found.count("\nlayer       own.sif, object 1\n") == 1
    layers = [
        json.loads(line)["layer"]
        for line in good(run, "stat", "--json", "base.sif", "--overlay", "layer", "/etc/motd", "/lib").splitlines()
    ]
    assert layers == ["layer", "base.sif, object 1"]
    assert json.loads(good(run, "stat", "--json", "ov.img", "/upper"))["layer"] is None


def test_df_lists_the_layers(run: Run) -> None:
    lines = good(run, "df", "base.sif", "--overlay", "ov.img").splitlines()
    names = [line.split("  ")[0] for line in lines]
    assert names == ["Image", "ov.img", "ov.img", "base.sif, object 1", "base.sif, object 1"]
    found = json.loads(good(run, "df", "--json", "own.sif"))
    assert [(layer["name"], layer["kind"]) for layer in found["layers"]] == [
        ("own.sif, object 2", "ext3"),
        ("own.sif, object 1", "ext3"),
    ]
    assert {key: found[key] for key in found["layers"][0].keys() - {"name", "kind"}} == {
        key: value for key, value in found["layers"][0].items() if key not in ("name", "kind")
    }


CHANGES = """\
M etc/mode  (mode)
M etc/motd  (content, 5 -> 8)
A new
A new/file  (4.9K)
D opt
D opt/old  (4)
"""


@pytest.mark.parametrize("words", [["base.sif", "--overlay", "ov.img"], ["own.sif"]])
def test_diff_of_one_container_shows_what_its_overlays_change(run: Run, words: list[str]) -> None:
    assert run("diff", *words) == (1, CHANGES, "")
    code, out, err = run("diff", "-v", *words)
    assert out == CHANGES and "2 added (4.9 KiB), 2 deleted (4 bytes), 2 modified (13 bytes)" in err
    assert run("diff", f"{words[0]}:/etc", *words[1:])[1] == "M mode  (mode)\nM motd  (content, 5 -> 8)\n"
    assert run("diff", "-0", *words)[1] == "".join(f"{line.split('  ')[0]}\0" for line in CHANGES.splitlines())
    code, out, err = run("diff", "--brief", *words)
    assert (code, err) == (1, "") and out == f"{words[0]} is changed by its overlays: 2 added, 2 deleted, 2 modified\n"
    rows = [json.loads(line) for line in run("diff", "--json", *words)[1].splitlines()]
    assert rows[1] == {
        "change": "modified",
        "path": "etc/motd",
        "type": "file",
        "what": ["content"],
        "size_bytes": 8,
        "old_size_bytes": 5,
    }
    assert rows[-1]["other"] is None
    assert [rows[-1][f"{kind}_bytes"] for kind in ("added", "deleted", "modified")] == [5000, 4, 13]


def test_diff_of_two_views(run: Run) -> None:
    assert run("diff", "own.sif", "base.sif", "--overlay", "ov.img") == (0, "", "")
    assert run("diff", "base.sif", "own.sif")[:2] == (
        1,
        CHANGES.replace(", 5 -> 8", "").replace("  (4.9K)", "").replace("  (4)", ""),
    )
    assert run("diff", "base.sif", "own.sif", "--partition", "root") == (0, "", "")
    code, out, _ = run("diff", "--no-owner", "layer/upper", "base.sif", "--overlay", "layer")  # it is not above the directory
    assert code == 1 and "A usr\n" in out and "etc/motd" not in out


def test_diff_without_anything_to_compare(run: Run) -> None:
    assert "base.sif has no overlay that could change it; give a second image" in refused(run, "diff", "base.sif", code=2)
    assert "ov.img has no overlay that could change it" in refused(run, "diff", "ov.img", code=2)
    assert "base.sif:/etc/motd is not a directory" in refused(run, "diff", "base.sif:/etc/motd", "--overlay", "ov.img", code=2)


def test_marks_that_apptainer_does_not_always_honour_are_noted_once(run: Run, made: Path) -> None:
    code, out, err = run("find", "base.sif", "--overlay", "fuse.img")
    assert code == 0 and "/opt" not in out and "/etc/motd" not in out
    assert err == (
        "fuse.img: where it is read-only, Apptainer without root shows 1 removed file and the old content of 1 directory "
        "again; to prevent that: sifkit overlay normalize --base base.sif fuse.img\n"
    )
    assert run("-q", "find", "base.sif", "--overlay", "fuse.img")[2] == ""
    sif_of(made / "several.sif", made / "root.img", made / "fuse.img", SQUASHFS)
    assert run("find", "several.sif")[2].endswith("prevent that: sifkit overlay normalize --partition 2 several.sif\n")
    assert run("ls", "base.sif", "--overlay", "fuse.img", "/usr")[2] == ""  # nothing was met
    assert run("find", "own.sif")[2] == ""


def test_partitions_and_upper_of_a_sif(run: Run) -> None:
    assert good(run, "ls", "--partition", "root", "own.sif") == "etc\nlib\nlost+found\nopt\nusr\n"
    assert good(run, "ls", "--partition", "overlay", "own.sif") == "lost+found\nupper\nwork\n"
    assert good(run, "ls", "--partition", "1", "own.sif", "--overlay", "layer", "/etc") == "mode\nmotd\n"
    assert good(run, "find", "--upper", "own.sif", "/etc") == "/etc\n/etc/mode\n/etc/motd\n"
    assert "base.sif has no overlay" in refused(run, "ls", "--upper", "base.sif")
    with_both = refused(run, "ls", "--upper", "base.sif", "--overlay", "ov.img", code=2)
    assert "--upper and --overlay contradict each other" in with_both


def test_of_several_images_overlays_are_for_the_containers(run: Run) -> None:
    found = good(run, "cat", "base.sif:/etc/motd", "layer:/upper/etc/motd", "own.sif:/etc/motd", "--overlay", "layer")
    assert found == "of the directory\n" * 3
    code, out, err = run("find", "layer", "-newer", "base.sif:/etc/motd", "--overlay", "ov.img")  # none of both is a SIF
    assert (code, err) == (0, "") and "/upper/etc/motd" in out


def test_images_that_are_read_are_never_replaced(run: Run, tmp_path: Path) -> None:
    """The overlay would be extracted over itself."""
    image = tmp_path / "ov.img"
    tree = tree_of((b"upper", MemoryNode(DIRECTORY)), (b"upper/ov.img", MemoryNode(REGULAR, b"small\n")))
    before = image_of(tree, image).read_bytes()
    code, _, err = run("extract", "base.sif", "--overlay", image, "-C", tmp_path, "-f")
    assert code == 1 and "the file is the image itself" in err and image.read_bytes() == before


def test_a_squashfs_is_read_without_numpy(tmp_path: Path) -> None:
    """Starting numpy takes longer than most looks."""
    path = sif_of(tmp_path / "q.sif", SQUASHFS)
    program = (
        "import sys; from sifkit.cli import main; code = main(['ls', '-lR', sys.argv[1]]); "
        "sys.exit(code or ' '.join({'numpy', 'construct', 'rich'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"") and done.stdout


def test_export_takes_the_overlay_of_a_sif(run: Run, tmp_path: Path) -> None:
    good(run, "-q", "overlay", "export", "own.sif", "-o", f"{tmp_path}/layer/")
    assert (tmp_path / "layer" / "etc" / "motd").read_text() == "changed\n"


def test_a_squashfs(run: Run, tmp_path: Path) -> None:
    names = good(run, "ls", SQUASHFS).splitlines()
    assert names and good(run, "ls", "--partition", "root", sif_of(tmp_path / "q.sif", SQUASHFS)).splitlines() == names
    assert good(run, "ls", tmp_path / "q.sif").splitlines() == names
    padded = tmp_path / "disk"
    padded.write_bytes(bytes(8192) + SQUASHFS.read_bytes())
    assert good(run, "ls", "--offset", "8192", padded).splitlines() == names
    assert "etc" in good(run, "ls", SQUASHFS, "--overlay", "ov.img").splitlines()


def test_errors_are_one_line(run: Run, tmp_path: Path) -> None:
    assert "ov.img:rw: the suffix :rw has no meaning" in refused(run, "ls", "base.sif", "--overlay", "ov.img:rw", code=2)
    assert "none.img: No such file" in refused(run, "ls", "base.sif", "--overlay", "none.img")
    err = refused(run, "cat", "base.sif", "--overlay", "ov.img", "/none")
    assert "/none: No such file or directory; list files with: sifkit ls --overlay ov.img base.sif" in err
    cut = tmp_path / "cut.sif"
    cut.write_bytes(Path("own.sif").read_bytes()[:-5000])
    assert "object 2 ends at byte" in refused(run, "ls", cut)
    short = tmp_path / "short.sqfs"
    short.write_bytes(SQUASHFS.read_bytes()[:300])
    assert "short.sqfs is truncated: the filesystem has" in refused(run, "ls", short)


def test_a_damaged_squashfs_is_for_check(run: Run, tmp_path: Path) -> None:
    raw = bytearray(SQUASHFS.read_bytes())
    start = int.from_bytes(raw[64:72], "little")  # inode_table_start
    raw[start + 2 : start + 40] = b"\xff" * 38
    (tmp_path / "bad.sqfs").write_bytes(raw)
    err = refused(run, "ls", tmp_path / "bad.sqfs")
    assert err.endswith(f"check it with: sifkit check {tmp_path}/bad.sqfs\n") and "fsck" not in err
    err = refused(run, "ls", tmp_path / "bad.sqfs", "--overlay", "ov.img", "/nowhere")
    assert f"{tmp_path}/bad.sqfs: " in err and f"check it with: sifkit check {tmp_path}/bad.sqfs" in err


def test_changes_of_an_overlay_while_it_is_read_are_reported(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = tmp_path / "ov.img"
    image.write_bytes(Path("ov.img").read_bytes())
    changed = "sifkit.overlay.images.change_watch.ChangeWatch.changed"
    monkeypatch.setattr(changed, lambda watch: watch._window.path == os.fspath(image))
    code, _, err = run("extract", "base.sif", "--overlay", image, "-C", tmp_path / "out")
    assert code == 0 and err.count("changed while it was read") == 1 and f"{image} changed while it was read" in err


def test_what_an_edit_cannot_do_names_the_overlay(run: Run, made: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "small.img"
    good(run, "-q", "overlay", "create", "--size", "3M", "-f", overlay)
    large = tmp_path / "large"
    large.write_bytes(os.urandom(3 << 20))
    found = refused(run, "cp", large, "base.sif:/etc", "--overlay", overlay)
    assert f"cp: {overlay}: the copy needs" in found and found.rstrip().endswith(f"sifkit overlay resize --size +3M {overlay}")
    image_of(tree_of((b"large", MemoryNode(REGULAR, b"x" * (3 << 20)))), tmp_path / "large.img")
    sif_of(tmp_path / "large.sif", tmp_path / "large.img")
    found = refused(run, "chmod", "600", f"{tmp_path}/large.sif:/large", "--overlay", overlay)
    assert f"chmod: {overlay}: no space left in the image" in found
    found = refused(run, "cp", f"{overlay}:/upper", "base.sif:/etc", "-r", "--overlay", overlay, code=2)
    assert f"{overlay} is the overlay that the copy changes; for a file that the container sees, write base.sif:/PATH" in found


def test_an_edited_overlay_is_not_copied_into_itself(run: Run, made: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "dir" / "overlay.img"
    overlay.parent.mkdir()
    good(run, "-q", "overlay", "create", "--size", "3M", "-f", overlay)
    code, _, err = run("cp", "-r", overlay.parent, "base.sif:/copy", "--overlay", overlay)
    assert (code, err) == (0, f"sifkit cp: warning: '{overlay}' is the image itself and is not copied\n")
    assert good(run, "ls", "base.sif", "/copy", "--overlay", overlay) == ""


def test_an_overlay_that_is_damaged_at_its_top_is_named(run: Run, made: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.img"
    data = bytearray((made / "ov.img").read_bytes())
    data[2048:2112] = bytes(64)  # the descriptor of the first group
    damaged.write_bytes(data)
    found = refused(run, "ls", "base.sif", "--overlay", damaged)
    assert f"{damaged}: group 0: " in found and found.rstrip().endswith(f"check it with: sifkit overlay fsck -fn {damaged}")


def test_upper_of_an_image_without_one(run: Run) -> None:
    assert refused(run, "ls", SQUASHFS, "--upper").endswith("/upper: the image has no upper/; leave out --upper\n")
