"""Directories with a default ACL: what mkdir and cp make in them is what coreutils make on a mounted image."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import ext3
from ext3.format.acl import parse_text
from sifkit.cli import main

from ..support.tools import assert_clean, kernel_mount, require, run

pytestmark = [pytest.mark.compat, pytest.mark.root]

DEFAULT = b"system.posix_acl_default"
ACLS = [
    "user::rwx,user:7:rwx,group::rwx,mask::rwx,other::r-x",
    "user::rwx,group::rwx,other::---",
    "user::r-x,user:7:rw-,group::r--,mask::rw-,other::-wx",
]
COMMANDS = [
    ["mkdir", "@/made"],
    ["mkdir", "-p", "@/p/q/r"],
    ["mkdir", "-m", "770", "@/exact"],
    ["mkdir", "-m", "2701", "@/special"],
    ["cp", "SOURCE/f", "@/f"],
    ["cp", "SOURCE/x", "@/x"],
    ["cp", "-r", "SOURCE/tree", "@/tree"],
    ["cp", "-p", "SOURCE/f", "@/kept"],
    ["cp", "-a", "SOURCE/tree", "@/all"],
    ["ln", "-s", "f", "@/link"],
]


def facts_of(image: Path) -> dict[bytes, tuple[object, ...]]:
    with ext3.Filesystem.open(image) as fs:
        found = {}
        for path, entry in fs.walk("/d"):
            status = fs.stat(entry.ino)
            found[path] = (oct(status.mode), status.uid, status.gid, fs.xattrs(entry.ino))
    return found


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
@pytest.mark.parametrize("acl", ACLS)
def test_modes_and_acls_of_what_is_made(acl: str, umask: int, tmp_path: Path) -> None:
    require("mke2fs", "e2fsck")
    source, theirs, ours = tmp_path / "source", tmp_path / "theirs", tmp_path / "ours"
    (source / "tree" / "below").mkdir(parents=True)
    for path, mode in (("f", 0o666), ("x", 0o775), ("tree/f", 0o664), ("tree/below", 0o2777), ("tree", 0o775)):
        if not (source / path).exists():
            (source / path).write_text(path)
        (source / path).chmod(mode)
    run("mke2fs", "-q", "-F", "-t", "ext3", theirs, "8M")
    with ext3.Filesystem.open(theirs, "r+") as fs:
        fs.mkdir("/d")
        fs.set_xattr("/d", DEFAULT, parse_text(acl))
    ours.write_bytes(theirs.read_bytes())
    before = os.umask(umask)
    try:
        with kernel_mount(theirs, rw=True) as point:
            for command in COMMANDS:
                argv = [word.replace("@", f"{point}/d").replace("SOURCE", str(source)) for word in command]
                subprocess.run(argv, check=True)
        for command in COMMANDS:
            verb, *words = (word.replace("@", f"{ours}:/d").replace("SOURCE", str(source)) for word in command)
            assert main(["-q", verb, *words]) == 0, command
    finally:
        os.umask(before)
    assert facts_of(ours) == facts_of(theirs)
    assert_clean(ours)
