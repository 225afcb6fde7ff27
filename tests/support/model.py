"""Model of a filesystem's tree in plain objects: what an edited image, or a directory of the host, has to look like.

It has owners, device nodes and attributes of all prefixes without privileges, and files with holes as large as an image's.
Symbolic links are followed on the way to a name, but never at its end; ``..`` of the root is the root.
"""

from __future__ import annotations

import copy
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from .facts import PAGE, Facts, TreeFacts, content_digest
from .operations import Operation, Outcome, Paths

__all__ = ["Content", "Model", "ModelError", "Node"]

MOST_SYMLINKS = 40


class ModelError(Exception):
    """An operation that cannot be done; nothing has changed."""


class Content:
    """Bytes of a file: pages that were written, zeros between them."""

    def __init__(self) -> None:
        self.size = 0
        self.pages: dict[int, bytearray] = {}

    def write(self, offset: int, data: bytes) -> None:
        if not data:
            return
        self.size = max(self.size, offset + len(data))
        at = 0
        while at < len(data):
            page, start = divmod(offset + at, PAGE)
            part = data[at : at + PAGE - start]
            self.pages.setdefault(page, bytearray(PAGE))[start : start + len(part)] = part
            at += len(part)

    def truncate(self, size: int) -> None:
        if size < self.size:
            self.punch(size, self.size - size)
        self.size = size

    def punch(self, offset: int, length: int) -> None:
        end = min(offset + length, self.size)
        for page in [page for page in self.pages if page * PAGE < end and (page + 1) * PAGE > offset]:
            low, high = max(offset - page * PAGE, 0), min(end - page * PAGE, PAGE)
            if high - low == PAGE:
                del self.pages[page]
            elif high > low:
                self.pages[page][low:high] = bytes(high - low)

    def digest(self) -> str:
        return content_digest((page * PAGE, bytes(self.pages[page])) for page in sorted(self.pages))


@dataclass(eq=False)
class Node:
    """An inode."""

    mode: int
    uid: int = 0
    gid: int = 0
    links: int = 1
    rdev: tuple[int, int] = (0, 0)
    target: bytes = b""
    content: Content = field(default_factory=Content)
    names: dict[bytes, Node] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)


class Model:
    """The tree below ``root``. There is a method for each verb; it raises ModelError where that cannot be done."""

    def __init__(self) -> None:
        self.root = Node(stat.S_IFDIR | 0o755, links=2)

    def apply(self, operation: Operation) -> Outcome:
        """Do one operation; how it went."""
        verb, *arguments = operation
        try:
            getattr(self, verb)(*arguments)
        except ModelError:
            return Outcome.FAILED
        return Outcome.DONE

    def copy(self) -> Model:
        """The tree as it is now, which later changes leave alone."""
        return copy.deepcopy(self)

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """(path, node) of every name, parents first, the root left out."""
        pending = [(b"", self.root)]
        while pending:
            above, directory = pending.pop()
            for name, node in directory.names.items():
                yield above + b"/" + name, node
                if node.is_dir:
                    pending.append((above + b"/" + name, node))

    def paths(self) -> Paths:
        """Paths of the tree as it is."""
        found = list(self.walk())
        return Paths(
            everything=[path for path, _ in found],
            directories=[b"", *(path for path, node in found if node.is_dir)],
            files=[path for path, node in found if node.is_file],
            empty=[path for path, node in found if node.is_dir and not node.names],
            symlinks={path for path, node in found if node.is_symlink},
            attributes=[(path, name) for path, node in found for name in node.xattrs],
        )

    def facts(self) -> TreeFacts:
        """Facts of every name and of the root."""
        found: TreeFacts = {}
        first: dict[int, bytes] = {}
        for path, node in [(b"/", self.root), *sorted(self.walk(), key=lambda item: item[0])]:
            size, content = 0, ""
            if node.is_file:
                size, content = node.content.size, node.content.digest()
            elif node.is_symlink:
                size, content = len(node.target), repr(node.target)
            twin = first.setdefault(id(node), path)
            found[path] = Facts(
                node.mode, node.uid, node.gid, node.links, node.rdev, size, content, dict(node.xattrs), twin
            )  # fmt: skip
        return found

    # Paths

    def _way(self, path: bytes) -> list[Node]:
        """The directories from the root to the one at ``path``, or to the file there, which is the last."""
        way = [self.root]
        left, followed = path.split(b"/"), 0
        while left:
            name = left.pop(0)
            if not way[-1].is_dir:
                raise ModelError(path)
            if name == b"..":
                way = way[:-1] or way
            elif name not in (b"", b"."):
                node = way[-1].names.get(name)
                if node is None:
                    raise ModelError(path)
                if node.is_symlink and left:
                    followed += 1
                    if followed > MOST_SYMLINKS:
                        raise ModelError(path)
                    way = [self.root] if node.target.startswith(b"/") else way
                    left = [*node.target.split(b"/"), *left]
                else:
                    way.append(node)
        return way

    def _parent(self, path: bytes) -> tuple[list[Node], bytes]:
        """The way to the directory a path's last name is in, and the name."""
        above, _, name = path.rpartition(b"/")
        way = self._way(above + b"/.")
        if not name or len(name) > 255:
            raise ModelError(path)
        return way, name

    def _new(self, path: bytes) -> tuple[Node, bytes]:
        """The directory and the name of what is to be made."""
        way, name = self._parent(path)
        if name in way[-1].names:
            raise ModelError(path)
        return way[-1], name

    def _named(self, path: bytes) -> tuple[Node, bytes, Node]:
        """The directory and the name of what is there, and itself."""
        way, name = self._parent(path)
        node = way[-1].names.get(name)
        if node is None:
            raise ModelError(path)
        return way[-1], name, node

    def _file(self, path: bytes) -> Content:
        node = self._named(path)[2]
        if not node.is_file:
            raise ModelError(path)
        return node.content

    def _enter(self, directory: Node, name: bytes, made: Node) -> None:
        if directory.mode & stat.S_ISGID:
            made.gid = directory.gid
            made.mode |= stat.S_ISGID if made.is_dir else 0
        directory.names[name] = made
        directory.links += made.is_dir

    # Names

    def mkdir(self, path: bytes, mode: int, uid: int, gid: int) -> None:
        directory, name = self._new(path)
        self._enter(directory, name, Node(stat.S_IFDIR | mode, uid, gid, links=2))

    def mknod(self, path: bytes, mode: int, rdev: tuple[int, int], uid: int, gid: int) -> None:
        directory, name = self._new(path)
        device = rdev if stat.S_IFMT(mode) in (stat.S_IFCHR, stat.S_IFBLK) else (0, 0)
        self._enter(directory, name, Node(mode, uid, gid, rdev=device))

    mkdev = mknod

    def create(self, path: bytes, mode: int, uid: int, gid: int) -> None:
        self.mknod(path, stat.S_IFREG | mode, (0, 0), uid, gid)

    def symlink(self, target: bytes, path: bytes, uid: int, gid: int) -> None:
        directory, name = self._new(path)
        self._enter(directory, name, Node(stat.S_IFLNK | 0o777, uid, gid, target=target))

    def link(self, existing: bytes, path: bytes) -> None:
        node = self._named(existing)[2]
        if node.is_dir:
            raise ModelError(existing)
        directory, name = self._new(path)
        directory.names[name] = node
        node.links += 1

    def unlink(self, path: bytes) -> None:
        directory, name, node = self._named(path)
        if node.is_dir:
            raise ModelError(path)
        del directory.names[name]
        node.links -= 1

    def orphan(self, path: bytes, closed: int) -> None:
        if not self._named(path)[2].is_file:
            raise ModelError(path)
        self.unlink(path)

    def rmdir(self, path: bytes) -> None:
        directory, name, node = self._named(path)
        if not node.is_dir or node.names:
            raise ModelError(path)
        del directory.names[name]
        directory.links -= 1

    def remove_tree(self, path: bytes) -> None:
        directory, name, _ = self._named(path)
        pending = [(directory, name)]
        while pending:
            above, name = pending[-1]
            gone = above.names[name]
            if gone.names:
                pending.append((gone, next(iter(gone.names))))
                continue
            pending.pop()
            del above.names[name]
            gone.links -= 1
            above.links -= gone.is_dir

    def rename(self, old: bytes, new: bytes) -> None:
        source, old_name, moved = self._named(old)
        way, new_name = self._parent(new)
        goal, replaced = way[-1], way[-1].names.get(new_name)
        if replaced is moved:
            return
        if moved in way or (replaced is not None and (moved.is_dir != replaced.is_dir or replaced.names)):
            raise ModelError(new)
        del source.names[old_name]
        source.links -= moved.is_dir
        if replaced is not None:
            replaced.links -= 1
            goal.links -= replaced.is_dir
        goal.names[new_name] = moved
        goal.links += moved.is_dir

    def rename_noreplace(self, old: bytes, new: bytes) -> None:
        self._new(new)
        self.rename(old, new)

    def rename_whiteout(self, old: bytes, new: bytes) -> None:
        source, old_name, _ = self._named(old)
        self.rename(old, new)
        if old_name not in source.names:
            self._enter(source, old_name, Node(stat.S_IFCHR))

    def rename_exchange(self, old: bytes, new: bytes) -> None:
        (source, old_name, one), (goal, new_name, two) = self._named(old), self._named(new)
        if one is two:
            return
        if one in self._parent(new)[0] or two in self._parent(old)[0]:
            raise ModelError(new)
        source.names[old_name], goal.names[new_name] = two, one
        source.links += two.is_dir - one.is_dir
        goal.links += one.is_dir - two.is_dir

    # Content

    def write(self, path: bytes, offset: int, data: bytes) -> None:
        self._file(path).write(offset, data)

    def append(self, path: bytes, data: bytes) -> None:
        content = self._file(path)
        content.write(content.size, data)

    def truncate(self, path: bytes, size: int) -> None:
        self._file(path).truncate(size)

    def punch(self, path: bytes, offset: int, length: int) -> None:
        self._file(path).punch(offset, length)

    def write_bytes(self, path: bytes, data: bytes) -> None:
        way, name = self._parent(path)
        if name not in way[-1].names:
            self.create(path, 0o644, 0, 0)
        content = self._file(path)
        content.truncate(0)
        content.write(0, data)

    # Attributes

    def chmod(self, path: bytes, mode: int) -> None:
        node = self._named(path)[2]
        if node.is_symlink:
            raise ModelError(path)
        node.mode = stat.S_IFMT(node.mode) | mode

    def lchmod(self, path: bytes, mode: int) -> None:
        node = self._named(path)[2]
        node.mode = stat.S_IFMT(node.mode) | mode

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        node = self._named(path)[2]
        node.uid, node.gid = uid, gid
        if not node.is_dir:
            node.xattrs.pop(b"security.capability", None)
            node.mode &= ~(stat.S_ISUID | (stat.S_ISGID if node.mode & stat.S_IXGRP else 0))

    def utimens(self, path: bytes, atime: int, mtime: int) -> None:
        self._named(path)

    def set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        node = self._named(path)[2]
        if name.startswith(b"user.") and not (node.is_dir or node.is_file):
            raise ModelError(path)
        node.xattrs[name] = value

    def remove_xattr(self, path: bytes, name: bytes) -> None:
        if self._named(path)[2].xattrs.pop(name, None) is None:
            raise ModelError(path)
