"""Layers that we write, judged by a kernel's overlay mount and by programs that read archives."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.edit.edit_session import edit_image
from sifkit.overlay.options import CreateOptions

from ..support.facts import assert_same, facts_of_host
from ..support.tools import assert_clean, find, kernel_mount, overlay_mount, require, requires_root, run
from ..support.trees import set_xattr

MIB = 1 << 20


def seen(top):
    """Facts without the attributes of overlays, which a mount shows that does not use them."""
    return {
        path: fact._replace(xattrs={name: value for name, value in fact.xattrs.items() if b".overlay." not in name})
        for path, fact in facts_of_host(top).items()
    }


@pytest.fixture
def lower(tmp_path):
    top = tmp_path / "lower"
    for name in ("etc/passwd", "etc/hosts", "opt/old/a", "opt/old/deep/b", "usr/lib/keep", "var/one", "var/two", "srv/x/y/z"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    return top


def change(root: Path) -> None:
    """What a container may do: all of it leaves something in upper/."""
    (root / "etc/passwd").unlink()
    (root / "etc/hosts").write_text("changed")
    shutil.rmtree(root / "opt/old")
    (root / "opt/old").mkdir()
    (root / "opt/old/new").write_text("new")
    shutil.rmtree(root / "srv/x")
    (root / "srv/x").write_text("a file where a directory was")
    (root / "var/one").rename(root / "var/three")
    (root / "var/two").unlink()
    (root / "var/two").mkdir()
    os.chmod(root / "usr/lib", 0o1777)
    new = root / "new"
    new.mkdir(mode=0o2750)
    (new / "large").write_bytes(os.urandom(3 * MIB))
    os.link(new / "large", new / "again")
    (new / "link").symlink_to("x" * 200)
    (new / "f\xfcr").write_bytes(b"name that is not ASCII")
    with open(os.fsencode(new) + b"/\xff", "wb") as file:
        file.write(b"name that is not UTF-8")
    with open(new / "sparse", "wb") as file:
        file.truncate(5 * MIB)
        file.seek(2 * MIB)
        file.write(b"data")
    os.mkfifo(new / "fifo")
    os.mknod(new / "device", stat.S_IFCHR | 0o620, os.makedev(7, 300))
    os.chown(new / "large", 70_000, 3_000_000)
    set_xattr(new / "large", "user.note=%", b"\0\xff")
    os.setxattr(new, "system.posix_acl_default", bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000000ffffffff"))
    os.utime(new / "link", ns=(0, -1_500_000_000), follow_symlinks=False)
    os.utime(new, ns=(5, 12_345_678_901_234_567_890 // 10))


@requires_root
def test_a_layer_makes_an_overlay_that_shows_the_same(tmp_path, lower, monkeypatch):
    require("mke2fs")
    monkeypatch.chdir(tmp_path)
    create("a.img", CreateOptions(size=32 * MIB))
    with overlay_mount(lower, tmp_path / "a.img", tmp_path / "merged") as merged:
        change(merged)
        wanted = seen(merged)
    assert b"/etc/passwd" not in wanted and b"/opt/old/a" not in wanted and b"/opt/old/new" in wanted
    assert main(["-q", "overlay", "export", "a.img", "-o", "layer.tar"]) == 0
    assert main(["-q", "overlay", "export", "--sparse", "a.img", "-o", "sparse.tar"]) == 0
    assert os.path.getsize("sparse.tar") < os.path.getsize("layer.tar") - 4 * MIB
    assert main(["-q", "overlay", "export", "a.img", "-o", "tree/"]) == 0
    makers = {"layer.tar": "--from-tar", "sparse.tar": "--from-tar", "tree": "--from-dir"}
    for source, maker in makers.items():
        assert main(["-q", "overlay", "create", "--layout", "upper", "--force", "--size", "32M", maker, source, "b.img"]) == 0
        assert_clean(Path("b.img"))
        # by attributes of root, as Apptainer mounts for root, and by those of users
        for options in ("", ",userxattr") if source != "tree" else ("",):
            with overlay_mount(lower, tmp_path / "b.img", tmp_path / "merged", options) as merged:
                found = seen(merged)
            assert found == wanted, (source, options)
        if source != "tree":
            assert main(["-q", "overlay", "export", "b.img", "-o", "again.tar", "--force"]) == 0
            assert Path("again.tar").read_bytes() == Path("layer.tar").read_bytes()


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
@pytest.mark.parametrize("options", [[], ["--sparse"]], ids=["plain", "sparse"])
@requires_root
def test_other_programs_unpack_what_we_pack(tmp_path, monkeypatch, program, options):
    if find(program) is None:
        pytest.skip(f"{program} is not installed")
    require("mke2fs", "tar")
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc/long").write_bytes(b"x" * 13_000)
    (source / ("n" * 200)).mkdir()
    (source / ("n" * 200) / ("m" * 250)).symlink_to("t" * 300)
    with open(source / "etc/sparse", "wb") as file:
        file.truncate(40 * MIB)
        for at in range(0, 40 * MIB, 4 * MIB):
            file.seek(at + 8192)
            file.write(b"data at %d" % at)
    os.link(source / "etc/sparse", source / "etc/again")
    os.setxattr(source / "etc/long", "user.note", b"text")
    os.utime(source / "etc/long", ns=(0, 1_600_000_000_123_456_789))
    assert main(["-q", "overlay", "create", "--from-dir", "source", "a.img"]) == 0
    assert main(["-q", "overlay", "export", *options, "a.img", "-o", "layer.tar"]) == 0
    (tmp_path / "out").mkdir()
    words = ["--xattrs", "--xattrs-include=*"] if program == "tar" else []
    run(program, "-xpf", "layer.tar", "-C", tmp_path / "out", *words)
    wanted, found = facts_of_host(source), facts_of_host(tmp_path / "out")
    assert_same(found, {path: fact._replace(xattrs=None) for path, fact in wanted.items()})
    assert found[b"/etc/long"].xattrs == {b"user.note": b"text"}
    assert os.path.samefile("out/etc/again", "out/etc/sparse")
    if options:
        assert os.path.getsize("layer.tar") < MIB
        assert os.stat("out/etc/sparse").st_blocks * 512 < MIB


@requires_root
def test_what_a_mount_may_write_to_is_not_exported(tmp_path, monkeypatch, capfd):
    """The kernel may write at any moment; the others are warned, and a mount that is read-only is fine."""
    require("mke2fs")
    monkeypatch.chdir(tmp_path)
    create("a.img", CreateOptions(size=16 * MIB))
    with kernel_mount(tmp_path / "a.img", rw=True) as point:
        (point / "upper" / "file").write_text("content")
        os.sync()
        assert main(["-q", "overlay", "export", "a.img", "-o", "layer.tar"]) == 1
        assert f"a.img is in use: mounted at {point}" in capfd.readouterr().err and not os.path.lexists("layer.tar")
        for number, words in enumerate(
            (["extract", "a.img", "-C", "out"], ["cp", "-r", "a.img:/upper", "out2"], ["diff", "a.img", "."])
        ):
            assert main(words) == (1 if number == 2 else 0)
            assert f"warning: a.img is in use: mounted at {point}" in capfd.readouterr().err
        assert main(["-q", "overlay", "export", "--allow-changed", "a.img", "-o", "layer.tar"]) == 0
    with kernel_mount(tmp_path / "a.img") as point:
        assert main(["-q", "overlay", "export", "--force", "a.img", "-o", "layer.tar"]) == 0
        assert main(["extract", "a.img", "-C", "out3"]) == 0 and "warning" not in capfd.readouterr().err


def test_an_export_beside_an_editor_is_not_torn(tmp_path, monkeypatch, capfd):
    """Two files that an editor always changes together: an archive with different ones has an exit code of 1."""
    require("tar")
    monkeypatch.chdir(tmp_path)
    create("a.img", CreateOptions(size=16 * MIB))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for number in range(10_000):
                with edit_image("a.img") as edited:
                    for name in ("one", "two"):
                        edited.filesystem.write_bytes(f"/upper/{name}", b"%d" % number * 3000)
            code = 0
        finally:
            os._exit(code)
    try:
        codes = set()
        for number in range(60):
            code = main(["-q", "overlay", "export", "a.img", "-o", f"{number}.tar"])
            codes.add(code)
            err = capfd.readouterr().err
            if code:
                assert "in use" in err or "changed while it was read" in err
                assert not os.path.lexists(f"{number}.tar"), err
                continue
            run("tar", "-xf", f"{number}.tar", cwd=tmp_path)
            if os.path.lexists("one"):
                assert Path("one").read_bytes() == Path("two").read_bytes()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert codes >= {1}
