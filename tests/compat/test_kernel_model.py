"""The model that edited images are compared with, compared with the kernel: the same verbs on a mounted image."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

import ext3

from ..support.model_edits import ModelEdits, Step
from ..support.model_tree import ModelNode, compare
from ..support.tools import assert_clean, kernel_mount, require, run

pytestmark = pytest.mark.root

AT_FDCWD = -100
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


def rename(old: bytes, new: bytes, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags):
        raise OSError(ctypes.get_errno(), "renameat2")


class KernelEdits(ModelEdits):
    """Does the operations to a directory of the host, which is a mounted image."""

    top = b""

    def apply(self, fs: Any, step: Step) -> None:
        verb, path, *rest = step
        try:
            getattr(self, "_" + verb)(path, *rest)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG) and verb == "set_xattr":
                self.outcomes["no room"] += 1
                return
            self.outcomes["failed"] += 1
            assert not self._to_model(verb, path, *rest), (step, error)
            return
        self.outcomes["done"] += 1
        assert self._to_model(verb, path, *rest), step

    def _owned(self, path: bytes, uid: int, gid: int) -> None:
        above = os.stat(os.path.dirname(path))
        os.lchown(path, uid, -1 if above.st_mode & stat.S_ISGID else gid)

    def _mkdir(self, path: bytes, mode: int, uid: int, gid: int) -> None:
        os.mkdir(self.top + path, mode)
        self._owned(self.top + path, uid, gid)

    def _mknod(self, path: bytes, mode: int, rdev: tuple[int, int], uid: int, gid: int) -> None:
        os.mknod(self.top + path, mode, os.makedev(*rdev))
        self._owned(self.top + path, uid, gid)

    def _symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self.top + path)

    def _link(self, old: bytes, path: bytes) -> None:
        os.link(self.top + old, self.top + path, follow_symlinks=False)

    def _unlink(self, path: bytes) -> None:
        os.unlink(self.top + path)

    def _orphan(self, path: bytes) -> None:  # type: ignore[override]
        os.close(self._opened(path))
        os.unlink(self.top + path)

    def _rmdir(self, path: bytes) -> None:
        os.rmdir(self.top + path)

    def _remove_tree(self, path: bytes) -> None:
        os.lstat(self.top + path)
        run("rm", "-r", self.top + path)

    def _rename(self, old: bytes, new: bytes, replace: bool, whiteout: bool) -> None:
        rename(self.top + old, self.top + new, (0 if replace else NOREPLACE) | (WHITEOUT if whiteout else 0))

    def _exchange(self, old: bytes, new: bytes) -> None:
        rename(self.top + old, self.top + new, EXCHANGE)

    def _opened(self, path: bytes, flags: int = 0) -> int:
        fd = os.open(self.top + path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o644)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "no file")
        return fd

    def _write(self, path: bytes, offset: int, data: bytes) -> None:
        fd = self._opened(path)
        try:
            assert os.pwrite(fd, data, offset) == len(data)
        finally:
            os.close(fd)

    def _append(self, path: bytes, data: bytes) -> None:
        fd = self._opened(path, os.O_APPEND)
        try:
            assert os.write(fd, data) == len(data)
        finally:
            os.close(fd)

    def _write_bytes(self, path: bytes, data: bytes) -> None:
        fd = self._opened(path, os.O_CREAT | os.O_TRUNC)
        try:
            assert os.write(fd, data) == len(data)
        finally:
            os.close(fd)

    def _truncate(self, path: bytes, size: int) -> None:
        fd = self._opened(path)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)

    def _punch(self, path: bytes, offset: int, length: int) -> None:
        fd = self._opened(path)
        try:
            length = min(length, os.fstat(fd).st_size - offset)
            if length > 0 and ctypes.CDLL(None).fallocate(fd, 3, ctypes.c_int64(offset), ctypes.c_int64(length)):
                raise OSError(errno.EOPNOTSUPP, "fallocate")
        finally:
            os.close(fd)

    def _chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self.top + path, mode, follow_symlinks=False)

    def _chown(self, path: bytes, uid: int, gid: int) -> None:
        os.lchown(self.top + path, uid, gid)

    def _set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        os.setxattr(self.top + path, name, value, follow_symlinks=False)

    def _remove_xattr(self, path: bytes, name: bytes) -> None:
        os.removexattr(self.top + path, name, follow_symlinks=False)

    def step(self, fs: Any) -> Step:
        step = self._made_up()
        while step[0] == "chmod" and self._is_link(step[1]):  # which the kernel does not do
            step = self._made_up()
        self._left -= 1
        if self._left <= 0:
            self._phase = self.random.choice(["grow", "change", "shrink", "many", "remove"])
            self._left = self.random.choice([10, 60])
        self.apply(fs, step)
        return step

    def _is_link(self, path: bytes) -> bool:
        nodes: list[ModelNode] = [node for other, node in self.tree.walk() if other == path]
        return bool(nodes) and stat.S_ISLNK(nodes[0].mode)


@pytest.mark.parametrize("seed", range(4))
def test_the_kernel_does_what_the_model_does(seed: int, scratch: Path) -> None:
    require("mke2fs", "e2fsck", "rm")
    image = scratch / "image"
    block_size = (1024, 2048, 4096)[seed % 3]
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", str(block_size), "-N", "8000", image, "96M")
    edits = KernelEdits(seed, block_size=block_size, largest=20_000)
    umask = os.umask(0)
    try:
        for _ in range(3):
            with kernel_mount(image, rw=True) as point:
                edits.top = os.fsencode(point)
                for _ in range(150):
                    edits.step(None)
            assert_clean(image)
            with ext3.Filesystem.open(image) as fs:
                compare(fs, edits.tree)
    finally:
        os.umask(umask)
    assert edits.outcomes["done"] > 200
