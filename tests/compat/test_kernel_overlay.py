"""upper/ as the kernel's overlayfs sees it after our edits: every name can be removed, content is from the right layer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.overlay.edit.edit_session import edit_image

from ..support.facts import facts_of_host
from ..support.tar_samples import END, directory, file
from ..support.tools import assert_clean, overlay_mount, require

pytestmark = [pytest.mark.compat, pytest.mark.root]

METACOPY = ",metacopy=on,redirect_dir=on"
LOWER = "its content is in a lower layer"


@pytest.fixture
def lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    require("mke2fs", "e2fsck")
    monkeypatch.chdir(tmp_path)
    top = tmp_path / "lower"
    for name in ("d/x", "d/e/y", "redo/x", "d2/e/y", "meta", "dir/file", "etc/one"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(f"lower {name}")
    assert main(["-q", "overlay", "create", "--size", "16M", "a.img"]) == 0
    return top


def removable(top: Path) -> None:
    """All that is listed is there, and can be removed."""
    for above, below, names in os.walk(top):
        for name in below + names:
            os.lstat(os.path.join(above, name))
    for entry in list(top.iterdir()):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    assert not list(top.iterdir())


@pytest.mark.parametrize("options", ["", ",userxattr"])
@pytest.mark.parametrize(
    "layer",
    [
        file(b"d/.wh..wh..opq") + file(b"d/.wh.x") + file(b"d/e/.wh.y"),
        file(b"d/.wh.x") + file(b"d/e/.wh.y") + file(b"d/.wh..wh..opq"),
        file(b".wh.redo") + directory(b"redo") + file(b"redo/.wh.x"),
        directory(b"redo") + file(b"redo/.wh.x") + file(b".wh.redo"),
    ],
    ids=["opaque", "opaque last", "created again", "created again first"],
)
def test_a_layer_has_no_names_that_nobody_can_remove(tmp_path: Path, lower: Path, layer: bytes, options: str) -> None:
    Path("layer.tar").write_bytes(layer + END)
    assert main(["-q", "overlay", "create", "--size", "16M", "--from-tar", "layer.tar", "b.img"]) == 0
    with overlay_mount(lower, tmp_path / "b.img", tmp_path / "merged", options) as merged:
        assert not os.path.lexists(merged / ("redo/x" if b"redo" in layer else "d/x"))
        removable(merged)
    assert_clean(tmp_path / "b.img")


def test_a_directory_that_was_moved_has_no_names_that_nobody_can_remove(tmp_path: Path, lower: Path) -> None:
    with overlay_mount(lower, tmp_path / "a.img", tmp_path / "merged") as merged:
        (merged / "d" / "x").unlink()
        (merged / "d" / "e" / "y").unlink()
        (merged / "d" / "e" / "new").write_text("new")
    assert main(["-q", "mkdir", "--upper", "a.img:/t"]) == 0
    assert main(["-q", "mv", "--upper", "a.img:/d", "a.img:/t/moved"]) == 0
    assert_clean(tmp_path / "a.img")
    with overlay_mount(lower, tmp_path / "a.img", tmp_path / "merged") as merged:
        assert not os.path.lexists(merged / "d")
        assert sorted(facts_of_host(merged / "t")) == [b"/moved", b"/moved/e", b"/moved/e/new"]
        removable(merged)
    assert_clean(tmp_path / "a.img")


def test_a_file_is_hidden_where_the_top_is_opaque(tmp_path: Path, lower: Path) -> None:
    """The kernel shows the lower layers below an opaque upper/."""
    with edit_image("a.img") as edited:
        edited.filesystem.set_xattr("/upper", b"trusted.overlay.opaque", b"y")
        edited.filesystem.write_bytes("/upper/meta", b"upper")
    with overlay_mount(lower, tmp_path / "a.img", tmp_path / "merged") as merged:
        assert (merged / "dir/file").read_text() == "lower dir/file"
    assert main(["-q", "rm", "--upper", "a.img:/meta"]) == 0
    with overlay_mount(lower, tmp_path / "a.img", tmp_path / "merged") as merged:
        assert not os.path.lexists(merged / "meta")


@pytest.fixture
def metacopy(tmp_path: Path, lower: Path) -> Path:
    """meta has its attributes only in upper/, renamed its content below as well, dir2 was dir."""
    shutil.copy(lower / "meta", lower / "meta3")
    with overlay_mount(lower, tmp_path / "a.img", tmp_path / "merged", METACOPY) as merged:
        (merged / "meta").chmod(0o600)
        (merged / "etc/one").rename(merged / "renamed")
        (merged / "dir").rename(merged / "dir2")
    return lower


def test_content_in_a_lower_layer(tmp_path: Path, metacopy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every command says so, changes nothing, and the container reads what it read before."""
    for words in (
        ["cat", "--upper", "a.img", "/meta"],
        ["cat", "--upper", "a.img", "/renamed"],
        ["cp", "--upper", "a.img:/meta", "out"],
        ["extract", "--upper", "a.img", "-C", "extracted"],
        ["mv", "--upper", "a.img:/meta", "a.img:/meta2"],
        ["mv", "--upper", "a.img:/renamed", "a.img:/etc/one"],
        ["mv", "--upper", "a.img:/dir2", "a.img:/dir3"],
        ["ln", "--upper", "a.img:/meta", "a.img:/meta2"],
        ["cp", "-a", "--upper", "a.img:/meta", "a.img:/meta2"],
    ):
        assert main(["-q", *words]) == 1, words
        assert LOWER in capfd.readouterr().err
    assert_clean(tmp_path / "a.img")
    with overlay_mount(metacopy, tmp_path / "a.img", tmp_path / "merged", METACOPY) as merged:
        assert (merged / "meta").read_text() == "lower meta" and (merged / "meta").stat().st_mode & 0o777 == 0o600
        assert (merged / "renamed").read_text() == "lower etc/one"
        assert (merged / "dir2/file").read_text() == "lower dir/file"
        assert not os.path.lexists(merged / "meta2") and not os.path.lexists(merged / "dir3")


def test_attributes_of_a_metacopy_are_changed(tmp_path: Path, metacopy: Path) -> None:
    assert main(["-q", "chmod", "--upper", "640", "a.img:/meta"]) == 0
    with overlay_mount(metacopy, tmp_path / "a.img", tmp_path / "merged", METACOPY) as merged:
        assert (merged / "meta").read_text() == "lower meta" and (merged / "meta").stat().st_mode & 0o777 == 0o640


def test_a_metacopy_that_is_overwritten(tmp_path: Path, metacopy: Path) -> None:
    """The container reads what was written, not the lower file."""
    Path("new").write_text("new content")
    for name in ("meta", "renamed"):
        assert main(["-q", "cp", "--upper", "new", f"a.img:/{name}"]) == 0
    with overlay_mount(metacopy, tmp_path / "a.img", tmp_path / "merged", METACOPY) as merged:
        assert (merged / "meta").read_text() == (merged / "renamed").read_text() == "new content"
    assert main(["-q", "mv", "--upper", "a.img:/meta", "a.img:/meta2"]) == 0
    with overlay_mount(metacopy, tmp_path / "a.img", tmp_path / "merged", METACOPY) as merged:
        assert (merged / "meta2").read_text() == "new content" and not os.path.lexists(merged / "meta")


def test_bin_at_the_top_hides_the_link_of_a_container_and_a_prefix_does_not(tmp_path: Path, lower: Path) -> None:
    """Judge: the kernel's overlayfs, as Apptainer mounts it; ``failed to open /bin/sh`` is what it says then."""
    (lower / "usr/bin").mkdir(parents=True)
    (lower / "usr/bin/sh").write_text("sh")
    (lower / "bin").symlink_to("usr/bin")
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/tool").write_text("tool")
    for image, words in (("top.img", ()), ("prefix.img", ("--prefix", "/opt/env"))):
        assert main(["-q", "overlay", "create", "--from-dir", "env", *words, image]) == 0
    with overlay_mount(lower, tmp_path / "top.img", tmp_path / "merged") as merged:
        assert not (merged / "bin/sh").exists()
    with overlay_mount(lower, tmp_path / "prefix.img", tmp_path / "merged") as merged:
        assert (merged / "bin/sh").read_text() == "sh"
        assert (merged / "opt/env/bin/tool").read_text() == "tool"
        removable(merged / "opt")
    assert_clean(tmp_path / "prefix.img")
