"""Random operations for an image and a ModelTree: all verbs, sizes of every kind, and images that are nearly always full."""

from __future__ import annotations

import errno
import random
import stat
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import ext3
from ext3.edit.directory import DirectoryFullError
from ext3.edit.file_handle import FileEditor
from ext3.edit.filesystem import WritableFilesystem

from .model_tree import ModelError, ModelTree

__all__ = ["ModelEdits"]

Step = tuple[Any, ...]
NO_ROOM = (ext3.NoSpaceError, ext3.NoFreeInodesError, ext3.XattrError, DirectoryFullError)
"""What an operation may fail with that the model knows nothing of."""
XATTR_NAMES = [b"user.a", b"user.b", b"trusted.overlay.opaque", b"trusted.overlay.origin", b"security.x", b"user." + b"n" * 200]
TYPES = [stat.S_IFREG, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]


class ModelEdits:
    """Makes up operations for the tree as it is, does them to an image and to the model. ``outcomes`` counts how they went.

    Phases follow each other: the tree grows until nothing fits any more, changes, and shrinks. With ``only``, no other verbs.
    Files of ``held`` are open and have lost their names; whoever closes the image forgets them.
    """

    def __init__(self, seed: int, *, block_size: int, largest: int = 60_000, only: Collection[str] = ()) -> None:
        self.tree = ModelTree()
        self.random = random.Random(seed)
        self.outcomes = {"done": 0, "failed": 0, "no room": 0}
        self.held: list[FileEditor] = []
        self._only = only
        self._block_size = block_size
        self._largest = largest
        self._number = 0
        self._phase = "grow"
        self._left = 60

    def step(self, fs: WritableFilesystem) -> Step:
        """One operation, or a few of one kind; both sides agree on whether it can be done."""
        self._left -= 1
        if self._left <= 0:
            self._phase = self.random.choice(["grow", "grow", "change", "shrink", "many", "remove"])
            self._left = self.random.choice([10, 60, 200])
        step = self._made_up()
        while self._only and step[0] not in self._only:
            step = self._made_up()
        self.apply(fs, step)
        return step

    def apply(self, fs: WritableFilesystem, step: Step) -> None:
        verb, *arguments = step
        before = fs.superblock.free_blocks, fs.superblock.free_inodes
        try:
            self._to_image(fs, verb, *arguments)
        except OSError as error:
            assert isinstance(error, ext3.Ext3Error), step
            if isinstance(error, NO_ROOM) or error.errno == errno.EFBIG:
                self.outcomes["no room"] += 1
                assert (fs.superblock.free_blocks, fs.superblock.free_inodes) == before, step
                return
            self.outcomes["failed"] += 1
            assert not self._to_model(verb, *arguments), (step, error)
            return
        self.outcomes["done"] += 1
        assert self._to_model(verb, *arguments), step

    def _to_image(self, fs: WritableFilesystem, verb: str, *arguments: Any) -> None:
        path = arguments[0]
        if verb in ("write", "truncate", "punch"):
            method = {"write": "write_at", "truncate": "truncate", "punch": "punch_hole"}[verb]
            if fs.stat(path, follow=False).is_symlink:
                raise ext3.PathError(path, "a link")
            with fs.open_file(path, "r+") as file:
                getattr(file, method)(*arguments[1:])
        elif verb == "write_bytes":
            ino = fs.find_name(fs.lookup(path.rpartition(b"/")[0] or b"/"), path.rpartition(b"/")[2])
            if ino is not None and fs.stat(ino).is_symlink:
                raise ext3.PathError(path, "a link")
            fs.write_bytes(path, arguments[1])
        elif verb == "append":
            if fs.stat(path, follow=False).is_symlink:
                raise ext3.PathError(path, "a link")
            with fs.open_file(path, "r+") as file:
                file.write_at(file.size, arguments[1])
        elif verb == "orphan":
            self._orphan(fs, path)
        elif verb == "exchange":
            fs.rename(*arguments, exchange=True)
        elif verb == "rename":
            old, new, replace, whiteout = arguments
            fs.rename(old, new, replace=replace, whiteout=whiteout)
        elif verb in ("chmod", "chown", "set_xattr", "remove_xattr"):
            getattr(fs, verb)(*arguments, follow=False)
        else:
            getattr(fs, verb)(*arguments)

    def _orphan(self, fs: WritableFilesystem, path: bytes) -> None:
        """Remove a file that stays open, and write to it; let go of one that did before."""
        if len(self.held) > 4:
            self.held.pop(self.random.randrange(len(self.held))).close()
        if not fs.stat(path, follow=False).is_file:
            raise ext3.PathError(path, "no file")
        file = fs.open_file(path, "r+")
        try:
            fs.unlink(path)
        except OSError:
            file.close()
            raise
        self.held.append(file)
        if fs.stat(file.ino).links:
            return
        with suppress(*NO_ROOM):
            file.write_at(file.size, b"o" * 3000)

    def _to_model(self, verb: str, *arguments: Any) -> bool:
        try:
            if verb == "rename":
                old, new, replace, whiteout = arguments
                self.tree.rename(old, new, replace=replace, whiteout=whiteout)
            else:
                getattr(self.tree, verb)(*arguments)
        except ModelError:
            return False
        return True

    # What to do

    def _made_up(self) -> Step:
        pick = self.random
        everything = [path for path, _ in self.tree.walk()] or [b"/none"]
        directories = [b"", *(path for path, node in self.tree.walk() if node.is_dir)]
        files = [path for path, node in self.tree.walk() if node.is_file] or [b"/none"]
        some, file, above = pick.choice(everything), pick.choice(files), pick.choice(directories)
        fresh = self._fresh(above)
        other = pick.choice(everything) if pick.random() < 0.5 else self._fresh(pick.choice(directories))
        grow: list[Step] = [
            ("mkdir", fresh, pick.choice([0o755, 0o700]), pick.choice([0, 70_000]), 5),
            ("write_bytes", fresh, self._data()),
            ("write_bytes", file, self._data()),
            ("write", file, self._offset(), self._data()),
            ("append", file, self._data()),
            ("symlink", b"t" * pick.choice([1, 59, 60, 300, self._block_size - 1]), fresh),
            ("mknod", fresh, pick.choice(TYPES) | 0o640, (pick.choice([0, 8, 300]), pick.choice([0, 70_000])), 3, 70_000),
            ("set_xattr", some, pick.choice(XATTR_NAMES), self._value()),
            ("link", some, fresh),
        ]
        shrink: list[Step] = [
            ("unlink", some),
            ("unlink", file),
            ("orphan", file),
            ("rmdir", above or b"/none"),
            ("truncate", file, self._offset()),
            ("punch", file, self._offset(), pick.choice([1, 1024, 5000, 100_000, 1 << 33])),
            ("remove_xattr", some, pick.choice(XATTR_NAMES)),
            ("rename", some, other, True, False),
        ]
        change: list[Step] = [
            ("rename", some, other, pick.random() < 0.8, False),
            ("rename", some, other, True, True),
            ("exchange", some, other),
            ("chmod", some, pick.choice([0o600, 0o755, 0o4711, 0o2750])),
            ("chown", some, pick.choice([0, 1, 70_000]), pick.choice([0, 1, 70_000])),
        ]
        if self._phase == "many":
            return self._one_of_many()
        if self._phase == "remove" and pick.random() < 0.1:
            return "remove_tree", some
        likely, unlikely = (shrink, grow) if self._phase in ("shrink", "remove") else (grow, shrink)
        if self._phase == "change" or pick.random() < 0.15:
            return pick.choice(change)
        return pick.choice(likely if pick.random() < 0.85 else unlikely)

    def _one_of_many(self) -> Step:
        """Names for one directory, so that its index grows."""
        if b"many" not in self.tree.root.names:
            return "mkdir", b"/many", 0o755, 0, 0
        return "mknod", self._fresh(b"/many"), stat.S_IFIFO | 0o600, (0, 0), 0, 0

    def _fresh(self, above: bytes) -> bytes:
        self._number += 1
        return b"%s/%d-%s" % (above, self._number, b"n" * self.random.choice([0, 3, 40, 200]))

    def _data(self) -> bytes:
        pick = self.random
        size = pick.choice([0, 1, 100, self._block_size, self._block_size * 12, pick.randrange(1, self._largest)])
        if self._phase == "grow" and pick.random() < 0.1:
            size *= 20
        return bytes((pick.randrange(1, 256),)) * size

    def _offset(self) -> int:
        pick = self.random
        pointers = self._block_size // 4
        borders = [0, 12, 12 + pointers, 12 + pointers + pointers**2]
        near = pick.choice(borders) * self._block_size
        return max(0, pick.choice([0, pick.randrange(5000), pick.randrange(400_000), near, near + pick.randrange(-3000, 3000)]))

    def _value(self) -> bytes:
        pick = self.random
        return bytes((pick.choice([1, 2, 3]),)) * pick.choice(
            [0, 1, 20, 90, 300, 700, self._block_size - 100, self._block_size]
        )
