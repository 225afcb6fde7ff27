"""ACLs, modes and owners follow each other as in the kernel: the same random changes to two images, by the kernel and by us."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import ext3
from ext3.edit.filesystem import WritableFilesystem
from ext3.format.acl import AclTag
from ext3.format.schema import ACL_ENTRY, ACL_HEADER

from ..support.tools import assert_clean, kernel_mount, require, run

pytestmark = pytest.mark.root

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
NONE = 0xFFFFFFFF
Step = tuple[str, str, object, object]


def some_acl(chance: random.Random) -> bytes:
    """An ACL in the form of the system calls; now and then one that is none."""
    users, groups = (sorted(chance.sample([1, 1000, 70_000], count)) for count in (chance.randrange(3), chance.randrange(2)))
    entries = [(AclTag.USER_OBJ, NONE), *((AclTag.USER, user) for user in users)]
    entries += [(AclTag.GROUP_OBJ, NONE), *((AclTag.GROUP, group) for group in groups)]
    if users or groups or chance.random() < 0.3:
        entries.append((AclTag.MASK, NONE))
    entries.append((AclTag.OTHER, NONE))
    if chance.random() < 0.05:
        entries.pop(chance.randrange(len(entries)))
    return ACL_HEADER.packer.pack(2) + b"".join(ACL_ENTRY.packer.pack(tag, chance.randrange(8), who) for tag, who in entries)


def made_up(chance: random.Random) -> list[Step]:
    names, directories = ["/"], ["/"]
    steps: list[Step] = []
    for number in range(120):
        path, kind = chance.choice(names), chance.random()
        below = f"{chance.choice(directories).rstrip('/')}/{number}"
        if kind < 0.25:
            steps.append(("mkdir", below, chance.choice([0o777, 0o755, 0o700]), None))
            names.append(below)
            directories.append(below)
        elif kind < 0.45:
            steps.append(("create", below, chance.choice([0o666, 0o640, 0o777]), None))
            names.append(below)
        elif kind < 0.75:
            steps.append(("set", path, chance.choice([ACCESS, DEFAULT, DEFAULT]), some_acl(chance)))
        elif kind < 0.8:
            steps.append(("remove", path, chance.choice([ACCESS, DEFAULT]), None))
        elif kind < 0.93:
            steps.append(("chmod", path, chance.choice([0o777, 0o640, 0o2711, 0o4750, 0]), None))
        else:
            steps.append(("chown", path, chance.choice([0, 5]), chance.choice([0, 7])))
    return steps


def by_the_kernel(top: str, step: Step) -> int:
    verb, path, one, two = step
    where = top + path
    try:
        if verb == "create":
            os.close(os.open(where, os.O_CREAT | os.O_EXCL | os.O_WRONLY, one))
        else:
            {"mkdir": os.mkdir, "set": os.setxattr, "remove": os.removexattr, "chmod": os.chmod, "chown": os.chown}[verb](
                where, *(part for part in (one, two) if part is not None)
            )
    except OSError as error:
        return error.errno
    return 0


def by_us(fs: WritableFilesystem, step: Step) -> int:
    verb, path, one, two = step
    name = {"set": "set_xattr", "remove": "remove_xattr"}.get(verb, verb)
    arguments = [os.fsencode(part) if isinstance(part, str) else part for part in (one, two) if part is not None]
    try:
        getattr(fs, name)(path, *arguments)
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.parametrize("inode_size", [128, 256])
def test_acls_as_the_kernel_keeps_them(inode_size: int, scratch: Path) -> None:
    require("mke2fs", "e2fsck")
    theirs, ours = scratch / "theirs", scratch / "ours"
    for image in (theirs, ours):
        run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", "-I", str(inode_size), image, "8M")
    umask = os.umask(0)
    try:
        steps = made_up(random.Random(inode_size))
        with kernel_mount(theirs, rw=True) as point:
            outcomes = [by_the_kernel(str(point), step) for step in steps]
    finally:
        os.umask(umask)
    with ext3.Filesystem.open(ours, "r+") as fs:
        for step, outcome in zip(steps, outcomes, strict=True):
            assert by_us(fs, step) == outcome, step
    assert_clean(ours)
    found = 0
    with ext3.Filesystem.open(theirs) as one, ext3.Filesystem.open(ours) as two:
        paths = [b"", *(path for path, _ in one.walk())]
        assert paths == [b"", *(path for path, _ in two.walk())]
        for path in paths:
            a, b = one.stat(path), two.stat(path)
            assert (a.mode, a.uid, a.gid, one.xattrs(path)) == (b.mode, b.uid, b.gid, two.xattrs(path)), path
            found += len(one.xattrs(path))
    assert found > 10
