"""Names of files that have several, as far as the kernel has seen them, and that of which overlayfs keeps the dentry.

Overlayfs keeps one dentry for all names of a file, as long as one of them is cached: that of the name by which it met the file.
A name that it makes for a file is looked up before it is used. See ``removed_names``.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Key", "LinkNames"]

Key = tuple[int, bytes]
"""Directory and name."""


class _File:
    """File with several names.

    ``first``: the name by which overlayfs met it; None: it had no other one then, and that is not in ``names``.
    ``is_first_gone``: its dentry went with it, and any other may be the next. ``lookups``: those by overlayfs since it met it.
    """

    __slots__ = ("first", "is_first_gone", "lookups", "names")

    def __init__(self, first: Key | None) -> None:
        self.names: set[Key] = set()
        self.first = first
        self.is_first_gone = False
        self.lookups = 0 if first is None else -1


class LinkNames:
    """Names of files. Nodes are those of the server."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self._nodes: dict[Key, int] = {}

    def found(self, node: int, key: Key) -> None:
        """Note a name of a file that has several."""
        self._put(node, key, key)

    def linked(self, node: int, key: Key) -> None:
        """Note a name that was given to a file which the kernel knows by another one."""
        self._put(node, key, None)

    def looked_up(self, node: int) -> None:
        """Note that overlayfs looks up a name of a file."""
        if node in self._files:
            self._files[node].lookups += 1

    def moved(self, key: Key, new_key: Key, *, is_exchange: bool) -> None:
        """Note that a name was renamed, in the place of what was there or in exchange for it."""
        node, other = self._take(key), self._take(new_key)
        if node is not None:
            self._put(node, new_key, None)
        if is_exchange and other is not None:
            self._put(other, key, None)
        for moved, old, new in ((node, key, new_key), (other, new_key, key)):
            if moved is not None and self._files[moved].first == old:
                self._files[moved].first = new

    def removed(self, node: int | None, key: Key) -> bool:
        """Note that a name is gone, of ``node`` if that has others; return whether overlayfs may have kept its dentry.

        It has if it met the file by this name, and has looked another one up since.
        """
        was_later = self._take(key) is not None
        file = None if node is None else self._files.get(node)
        if file is None:
            return node is not None
        was_later = was_later and file.first != key
        if was_later and not file.is_first_gone:
            return False
        is_kept = file.lookups > 0
        if not (is_kept or was_later):
            file.is_first_gone = True
            file.lookups = -1
        return is_kept

    def has_one_of(self, node: int, names: Sequence[bytes]) -> bool:
        """Return whether a file has one of these names in some directory."""
        return node in self._files and any(name in names for _, name in self._files[node].names)

    def forget(self, node: int) -> None:
        file = self._files.pop(node, None)
        for key in file.names if file is not None else ():
            del self._nodes[key]

    def _put(self, node: int, key: Key, first: Key | None) -> None:
        self._take(key)
        self._files.setdefault(node, _File(first)).names.add(key)
        self._nodes[key] = node

    def _take(self, key: Key) -> int | None:
        node = self._nodes.pop(key, None)
        if node is not None:
            self._files[node].names.discard(key)
        return node
