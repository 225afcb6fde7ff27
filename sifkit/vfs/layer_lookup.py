"""LayerLookup: the search for a name in layer after layer, under another path where a redirect says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .file_tree import Row, TreeRow, file_type_of
from .resolve import MAX_COMPONENTS, is_dir
from .whiteouts import find_visible

if TYPE_CHECKING:
    from .union import UnionNode, UnionTree

__all__ = ["FoundEntry", "LayerLookup"]

FoundEntry = tuple[int, "Row[Any] | None"]
"""Entry of one name in the layer of this number; None: a whiteout."""
_NO_NAMES = (b"", b".", b"..")


class LayerLookup:
    """Search for one name of a directory in layer after layer: below a redirect under another path."""

    def __init__(self, tree: UnionTree, directory: UnionNode, name: bytes) -> None:
        self._tree = tree
        self._bases = directory
        self.path = name
        """Name in the directory, or a path from the top of the layers."""

    def redirected(self, target: bytes, number: int) -> Iterator[FoundEntry]:
        """Go on in the layers below ``number`` with the path, or the name beside this one, that a redirect gives."""
        self._redirect(target)
        return self.below(number)

    def _redirect(self, target: bytes, above: bytes | None = None, rest: bytes = b"") -> None:
        """Replace the name behind ``above`` in the path, by default the last one; ``rest`` follows it."""
        if target.startswith(b"/"):
            self._bases = self._tree.root
            self.path = target + rest
        elif b"/" in target:
            self._bases, self.path = (), target
        else:
            head, slash, _ = self.path.rpartition(b"/")
            self.path = (head + slash if above is None else above) + target + rest

    def below(self, number: int) -> Iterator[FoundEntry]:
        """Iterate over the entries in the layers below ``number``; nothing that follows a whiteout is meant."""
        for base in self._bases:
            if not 0 <= base[0] < number:
                continue
            names = self.path.removeprefix(b"/").split(b"/")
            if len(names) > MAX_COMPONENTS or any(name in _NO_NAMES for name in names):
                return
            found, is_last = self._find(*base, names)
            if found is not None:
                yield found
            if is_last:
                return

    def _find(self, number: int, node: Any, names: list[bytes]) -> tuple[FoundEntry | None, bool]:
        """Return the entry of the path in a layer, and whether no lower layer has to do with it."""
        tree, is_last, above = self._tree.layers[number], False, b"/"
        for position, name in enumerate(names):
            below, is_hidden = find_visible(tree, node, name)
            if is_hidden:
                return (number, None), True
            if below is None:
                return None, is_last
            found = tree.stat(below)
            if position == len(names) - 1:
                return (number, TreeRow(name, below, file_type_of(found.mode), found, True)), is_last
            if not is_dir(found):
                return (number, None), True
            is_opaque_here, redirect = self._tree.marks_of(number, below)
            is_last = is_last or is_opaque_here
            if redirect is not None:
                self._redirect(redirect, above, b"".join(b"/" + one for one in names[position + 1 :]))
            node, above = below, above + name + b"/"
        raise AssertionError("a path has a name")
