"""``--fakeroot`` of a plain user: package managers and others that change owners go on, and files are stored as root's."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.plain_user import USER, run_sifkit
from ..support.tools import assert_clean, kernel_mount, require, requires_root, run

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

DIRECTORIES = (
    *("dev", "proc", "sys", "tmp", "root", "usr", "home", "opt", "repo", "etc/apt/apt.conf.d", "etc/apt/preferences.d"),
    *("etc/apt/trusted.gpg.d", "var/tmp", "var/log/apt", "var/lib/dpkg/info", "var/lib/dpkg/updates"),
    *("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"),
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\ngames:x:5:60:games:/usr/games:/bin/sh\n_apt:x:42:65534::/nonexistent:/bin/false\n"
CONTROL = "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: x\n"
POSTINST = "#!/bin/sh\nset -e\nchown games:games /opt/tiny/data\nchgrp -h games /opt/tiny/link\n"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory that every user can read, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="sifkit-fakeroot-") as found:
        os.chmod(found, 0o755)
        yield Path(found)


@pytest.fixture(scope="module")
def box(folder: Path) -> Path:
    """Root of a container with apt, whose programs are the host's, and a package in a repository."""
    require("apt-get", "dpkg-deb", "tar", "useradd", "setpriv")
    root = folder / "box"
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text("root:x:0:\ngames:x:60:\n")
    (root / "etc/apt/sources.list").write_text("deb [trusted=yes] copy:/repo ./\n")
    (root / "var/lib/dpkg/status").touch()
    package = folder / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN/control").write_text(CONTROL)
    (package / "DEBIAN/postinst").write_text(POSTINST)
    (package / "DEBIAN/postinst").chmod(0o755)
    (package / "opt/tiny").mkdir(parents=True)
    (package / "opt/tiny/data").write_text("data\n")
    (package / "opt/tiny/link").symlink_to("data")
    os.chown(package / "opt/tiny/data", 5, 60)
    file = root / "repo/tiny.deb"
    run("dpkg-deb", "--build", package, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (root / "repo/Packages").write_text(f"{CONTROL}Filename: ./tiny.deb\nSize: {file.stat().st_size}\nSHA256: {digest}\n")
    return root


@pytest.fixture
def image(folder: Path) -> Path:
    found = folder / "overlay.img"
    run("mke2fs", "-q", "-F", "-t", "ext3", "-E", f"root_owner={USER}:{USER}", found, "16M")
    os.chown(found, USER, USER)
    return found


def in_box(box: Path, script: str, *options: str) -> tuple[str, str]:
    """Output and errors of a script in the container, as root of it."""
    code, out, err = run_sifkit(
        USER, box.parent, "exec", "-f", "-C", "-B", "/usr:/usr:ro", *options, str(box), "sh", "-c", script
    )
    assert code == 0, err
    return out, err


def test_packages_are_installed_and_all_is_stored_as_root_s(box: Path, image: Path) -> None:
    script = """
        apt-get update -q=2 && apt-get install -q=2 tiny >/dev/null 2>&1 || exit 1
        useradd -m joe && chown joe /home/joe && install -o games -g games -m 4755 /bin/true /opt/true || exit 2
        setpriv --reuid 5 --regid 60 --clear-groups sh -c 'id -u; echo x >/opt/dropped' || exit 3
        tar -C / -cf - --owner=joe:77 --group=x:88 etc | tar -C /opt -xpf - || exit 4
        mkdir /opt/d; mkfifo /opt/fifo; ln -s x /opt/symlink; chown -hR 5:60 /opt || exit 5
        rm /repo/tiny.deb; chmod 600 /repo/Packages
        cat /opt/tiny/data; stat -c '%u:%g %a' /opt/true /opt/tiny/data; grep -c joe /etc/passwd
    """
    out, err = in_box(box, script, "-o", str(image))
    assert (out, err) == ("0\ndata\n0:0 4755\n0:0 644\n1\n", "")
    assert_clean(image)
    with kernel_mount(image) as point:
        upper = point / "upper"
        found = {path.relative_to(upper): path.lstat() for path in [upper, *upper.rglob("*")]}
        assert {(one.st_uid, one.st_gid) for one in found.values()} == {(0, 0)}
        assert (upper / "repo/tiny.deb").is_char_device() and (upper / "opt/symlink").is_symlink()
        assert not (upper / "etc/apt/apt.conf.d").exists()
    script = "cat /opt/tiny/data; echo more >>/opt/dropped; mkdir /opt/mine; rm -r /opt/etc; stat -c %u /opt/d /opt/mine"
    plain = ("exec", "-C", "--cwd", "/", "-B", "/usr:/usr:ro", "-o", str(image), str(box), "sh", "-c", script)
    assert run_sifkit(USER, box.parent, *plain) == (0, f"data\n{USER}\n{USER}\n", "")
    assert_clean(image)
    with kernel_mount(image) as point:
        opt = point / "upper/opt"
        assert {name: (opt / name).stat().st_uid for name in ("dropped", "mine", "d")} == {"dropped": 0, "mine": USER, "d": 0}
        assert not (opt / "etc").exists()


def test_a_directory_that_is_written_to_itself(box: Path, folder: Path) -> None:
    own = folder / "own"
    shutil.copytree(box, own, symlinks=True)
    for path in [own, *own.rglob("*")]:
        os.lchown(path, USER, USER)
    _, err = in_box(own, "chown 5:60 /opt && touch /opt/x", "-w")
    setting = f"""echo 'APT::Sandbox::User "root";' >{own}/etc/apt/apt.conf.d/99fakeroot"""
    assert setting in err
    (own / ".singularity.d/libs").mkdir(parents=True)
    out, err = in_box(
        own, 'echo "$APT_CONFIG"; apt-get update -q=2 && apt-get install -q=2 tiny >/dev/null 2>&1; echo $?', "-w"
    )
    assert out == "/.singularity.d/libs/99fakeroot\n0\n" and "APT" not in err
    assert (own / "opt/tiny/data").stat().st_uid == USER
    assert list((own / ".singularity.d/libs").iterdir()) == []


def test_root_drops_capabilities_and_others_have_none(box: Path) -> None:
    status = ("-B", "/usr:/usr:ro", str(box), "grep", "^Cap", "/proc/self/status")
    for user, options in ((0, ["--no-privs"]), (USER, [])):
        code, out, err = run_sifkit(user, box.parent, "exec", *options, *status)
        assert {line.split()[1] for line in out.splitlines()} == {"0" * 16} and (code, err) == (0, "")
