"""Random operations for a tree as it is: all verbs, sizes of every kind, names of every length.

Chance is a ``random.Random``: a seeded one, or one that hypothesis makes and shrinks (``st.randoms``).
"""

from __future__ import annotations

import random
import stat
from collections.abc import Callable, Collection, Sequence

from .operations import VERBS, Operation, Paths

__all__ = ["FEW_NAMES", "FULL_PHASES", "RandomOperations"]

FEW_NAMES = (b"a", b"b", b"c", b"d" * 60, b"e" * 200)
PHASES = ("grow", "grow", "change", "shrink", "many", "remove")
FULL_PHASES = ("fill", "grow", "fill", "change", "fill", "shrink", "fill", "many", "remove")
"""Phases of a tree that nearly always fills its image."""
LENGTHS = (10, 60, 200)
FILL_LENGTH = 10
OWNERS = (0, 1, 5, 70_000)
MODES = (0o600, 0o700, 0o750, 0o755, 0o1777, 0o2750, 0o4711, 0o4755)
NODES = (stat.S_IFREG, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK)
XATTR_NAMES = (b"user.a", b"user.b", b"trusted.overlay.opaque", b"trusted.overlay.origin", b"security.x", b"user." + b"n" * 200)
SHARED_ATTRIBUTE = (b"trusted.overlay.origin", b"same" * 80)
"""An attribute that many files have: those that have no other share a block."""
JOURNAL_MAGIC = b"\xc0\x3b\x39\x98"
"""The first bytes of a block that the journal must not take for one of its own."""

GROW = ("mkdir", "new_file", "new_file", "write", "append", "symlink", "node", "set_xattr", "link")
FILL = ("new_file", "write", "append")
SHRINK = ("unlink", "unlink_file", "orphan", "rmdir", "truncate", "punch", "remove_xattr", "rename")
CHANGE = ("rename", "rename_noreplace", "rename_whiteout", "rename_exchange", "chmod", "chown", "set_xattr", "utimens")
ANY = (*GROW, *SHRINK, *CHANGE, "create", "create", "write", "remove_tree")


class RandomOperations:
    """Makes up one operation after the other. ``paths`` gives the paths of the tree as it is.

    Phases follow each other, each as long as one of ``lengths``: the tree grows, is filled with data, changes, shrinks, gets
    many names in one directory, loses whole directories; in the phase "any" all of that mixes. Only ``verbs`` come. With
    ``few_names`` there are no other names: paths collide often, so that much fails or replaces something, and lead through
    symbolic links.
    """

    def __init__(
        self,
        chance: random.Random,
        paths: Callable[[], Paths],
        *,
        block_size: int = 1024,
        largest: int = 60_000,
        verbs: Collection[str] = VERBS,
        phases: Sequence[str] = PHASES,
        lengths: Sequence[int] = LENGTHS,
        owners: Sequence[int] = OWNERS,
        groups: Sequence[int] = OWNERS,
        modes: Sequence[int] = MODES,
        few_names: Sequence[bytes] = (),
    ) -> None:
        self.chance = chance
        self._paths = paths
        self._block_size = block_size
        self._largest = largest
        self._verbs = verbs
        self._phases = phases
        self._lengths = lengths
        self._owners = owners
        self._groups = groups
        self._modes = modes
        self._few_names = few_names
        self._number = 0
        self._phase = phases[0]
        self._left = 60
        self._fresh_paths = [b"/none"]

    def next(self) -> Operation:
        """An operation for the tree as it is; most can be done."""
        self._left -= 1
        if self._left <= 0:
            self._phase = self.chance.choice(self._phases)
            self._left = self.chance.choice(self._lengths) if self._phase != "fill" else FILL_LENGTH
        paths = self._paths()
        while True:
            operation = self._made_up(paths)
            if operation[0] in self._verbs:
                return operation

    def _made_up(self, paths: Paths) -> Operation:
        pick = self.chance
        if self._phase == "any":
            return self._operation(pick.choice(ANY), paths)
        if self._phase == "fill":
            return self._operation(pick.choice(FILL), paths)
        if self._phase == "many":
            return self._one_of_many(paths)
        if self._phase == "remove" and pick.random() < 0.1:
            return "remove_tree", self._some(paths)
        if self._phase == "change" or pick.random() < 0.15:
            return self._operation(pick.choice(CHANGE), paths)
        likely, unlikely = (SHRINK, GROW) if self._phase in ("shrink", "remove") else (GROW, SHRINK)
        return self._operation(pick.choice(likely if pick.random() < 0.85 else unlikely), paths)

    def _operation(self, what: str, paths: Paths) -> Operation:
        """A verb with its arguments; of a verb that does not come, the verb alone."""
        pick = self.chance
        verb = {"new_file": "write_bytes", "unlink_file": "unlink"}.get(what, what)
        if what == "node":
            what = verb = pick.choice(("create", "mknod", "mkdev"))
        if verb not in self._verbs:
            return (verb,)
        match what:
            case "mkdir":
                return verb, self._fresh(paths), pick.choice((0o755, 0o700)), *self._owner()
            case "create":
                return verb, self._fresh(paths), pick.choice((0o644, 0o600)), *self._owner()
            case "mknod":
                return verb, self._fresh(paths), pick.choice(NODES) | 0o640, (0, 0), *self._owner()
            case "mkdev":
                kind, device = pick.choice((stat.S_IFCHR, stat.S_IFBLK)), (pick.choice((0, 8, 300)), pick.choice((0, 70_000)))
                return verb, self._fresh(paths), kind | 0o640, device, *self._owner()
            case "symlink":
                return verb, self._target(), self._fresh(paths), *self._owner()
            case "link":
                return verb, self._some(paths), self._fresh(paths)
            case "new_file":
                return verb, self._fresh(paths) if pick.random() < 0.5 else self._file(paths), self._data()
            case "write":
                return verb, self._file(paths), self._offset(), self._data()
            case "append":
                return verb, self._file(paths), self._data()
            case "truncate":
                return verb, self._file(paths), self._offset()
            case "punch":
                return verb, self._file(paths), self._offset(), pick.choice((1, 1024, 5000, 100_000, 1 << 33))
            case "unlink_file":
                return verb, self._file(paths)
            case "orphan":
                return verb, self._file(paths), pick.randrange(8)
            case "rmdir":
                if paths.empty and pick.random() < 0.5:
                    return verb, pick.choice(paths.empty)
                return verb, self._directory(paths) or b"/none"
            case "rename" | "rename_noreplace" | "rename_whiteout" | "rename_exchange":
                return verb, *self._two(paths)
            case "chmod":
                path = self._some(paths)
                return verb if path not in paths.symlinks else "lchmod", path, pick.choice(self._modes)
            case "chown":
                return verb, self._some(paths), *self._owner()
            case "utimens":
                return verb, self._some(paths), pick.randrange(2**62), pick.randrange(2**33 * 10**9)
            case "set_xattr":
                if pick.random() < 0.3:
                    return verb, self._some(paths), *SHARED_ATTRIBUTE
                if paths.attributes and pick.random() < 0.3:
                    return verb, *pick.choice(paths.attributes), self._value()
                return verb, self._some(paths), pick.choice(XATTR_NAMES), self._value()
            case "remove_xattr":
                if paths.attributes and pick.random() < 0.7:
                    return verb, *pick.choice(paths.attributes)
                return verb, self._some(paths), pick.choice(XATTR_NAMES)
        return verb, self._some(paths)

    def _one_of_many(self, paths: Paths) -> Operation:
        """Names for one directory, so that its index grows."""
        if b"/many" not in paths.directories:
            return "mkdir", b"/many", 0o755, 0, 0
        return "mknod", self._fresh_below(b"/many"), stat.S_IFIFO | 0o600, (0, 0), 0, 0

    # Paths

    def _some(self, paths: Paths) -> bytes:
        """A path of the tree; now and then one that was made before, and may be gone."""
        if self.chance.random() < 0.03:
            return self.chance.choice(self._fresh_paths)
        return self._one_of(paths.everything)

    def _two(self, paths: Paths) -> tuple[bytes, bytes]:
        """What is moved, and where to; now and then a directory in the place of an empty one."""
        if paths.empty and self.chance.random() < 0.15:
            return self._directory(paths) or b"/none", self.chance.choice(paths.empty)
        return self._some(paths), self._some(paths) if self.chance.random() < 0.5 else self._fresh(paths)

    def _file(self, paths: Paths) -> bytes:
        return self._one_of(paths.files)

    def _directory(self, paths: Paths) -> bytes:
        return self._one_of(paths.directories)

    def _one_of(self, found: Sequence[bytes]) -> bytes:
        """One of what is there, or a path of few names, which may lead through a symbolic link, or nowhere."""
        if self._few_names and self.chance.random() < 0.4:
            depth = self.chance.choice((1, 1, 2, 2, 3))
            return b"".join(b"/" + self.chance.choice(self._few_names) for _ in range(depth))
        return self.chance.choice(found or [b"/none"])

    def _fresh(self, paths: Paths) -> bytes:
        return self._fresh_below(self._directory(paths))

    def _fresh_below(self, above: bytes) -> bytes:
        """A path that nothing was ever made at; one of few names may be taken."""
        if self._few_names:
            return above + b"/" + self.chance.choice(self._few_names)
        self._number += 1
        path = b"%s/%d-%s" % (above, self._number, b"n" * self.chance.choice((0, 3, 40, 200)))
        self._fresh_paths = [*self._fresh_paths[-200:], path]
        return path

    # Arguments

    def _owner(self) -> tuple[int, int]:
        return self.chance.choice(self._owners), self.chance.choice(self._groups)

    def _target(self) -> bytes:
        """Of a symbolic link: ``..`` never leads above the root, where an image ends and a directory of the host does not."""
        pick = self.chance
        if self._few_names and pick.random() < 0.5:
            return pick.choice((b"a", b"b/c", b"b/../a", b"none"))
        return b"t" * pick.choice((1, 59, 60, 300, self._block_size - 1))

    def _data(self) -> bytes:
        pick = self.chance
        length = pick.randrange(1, self._largest)
        if self._phase == "fill":
            size = pick.choice((self._block_size, length, length * 20, length * 20))
        else:
            size = pick.choice((0, 1, 100, self._block_size, self._block_size * 12, length))
            if self._phase == "grow" and pick.random() < 0.1:
                size *= 20
        if pick.random() < 0.05:
            return JOURNAL_MAGIC * (size // 4)
        return bytes((pick.randrange(1, 256),)) * size

    def _offset(self) -> int:
        """A byte offset: near the start, or where the map of a file gets a level more."""
        pick = self.chance
        pointers = self._block_size // 4
        border = pick.choice((0, 12, 12 + pointers, 12 + pointers + pointers**2)) * self._block_size
        kind = pick.randrange(5)
        if kind < 2:
            return pick.randrange((5000, 400_000)[kind])
        return max(0, (0, border, border + pick.randrange(-3000, 3000))[kind - 2])

    def _value(self) -> bytes:
        pick = self.chance
        size = pick.choice((0, 1, 20, 90, 300, 700, self._block_size - 100, self._block_size))
        return bytes((pick.choice((1, 2, 3)),)) * size
