"""Numbers of the nodes that the kernel knows of, each as long as it was not forgotten as often as it was handed out."""

from __future__ import annotations

import errno
import os
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar, cast

from .protocol import ROOT_ID

__all__ = ["NodeNumbers"]

N = TypeVar("N", bound=Hashable)
FIRST = ROOT_ID + 1
LAYER_SHIFT, MOST_LAYERS = 56, 126
"""Place of a layer's number, with 1 added, in the number of a node of that layer alone."""
BELOW = 1 << LAYER_SHIFT


class NodeNumbers(Generic[N]):
    """Numbers of the nodes of a tree with this ``root``. Calls may come from several threads.

    Nodes that are integers, as those of a squashfs are, are their own numbers but for a constant; nodes of a union that are in
    one of its layers, with an integer there, have the number of the layer in the upper bits. No table is kept of both: it would
    take 300 bytes for each of the files that the kernel has looked at.
    """

    def __init__(self, root: N) -> None:
        self.root = root
        self._is_integer = type(root) is int
        self._lock = Lock()
        self._nodes: dict[int, N] = {}
        self._numbers: dict[N, int] = {}
        self._counts: dict[int, int] = {}
        self._next = FIRST

    def node(self, number: int) -> N:
        """Return the node of a number. Raises OSError (ESTALE) if the kernel has forgotten it."""
        if number == ROOT_ID:
            return self.root
        if self._is_integer:
            return cast(N, number - FIRST)
        if number >= BELOW:
            return cast(N, (((number >> LAYER_SHIFT) - 1, number & BELOW - 1),))
        try:
            return self._nodes[number]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def hand_out(self, node: N) -> int:
        """Return the number of a node that is given to the kernel."""
        if node == self.root:
            return ROOT_ID
        if self._is_integer:
            return cast(int, node) + FIRST
        if isinstance(node, tuple) and len(node) == 1:
            layer, inner = cast(tuple[int, object], node[0])
            if type(inner) is int and 0 <= inner < BELOW and 0 <= layer <= MOST_LAYERS:
                return layer + 1 << LAYER_SHIFT | inner
        with self._lock:
            number = self._numbers.get(node)
            if number is None:
                number = self._numbers[node] = self._next
                self._next += 1
                self._nodes[number] = node
                self._counts[number] = 0
            self._counts[number] += 1
            return number

    def forget(self, number: int, count: int) -> bool:
        """Take back a number ``count`` times; return True if the kernel does not know it any longer."""
        if number == ROOT_ID:
            return False
        if self._is_integer or number >= BELOW:
            return True
        with self._lock:
            left = self._counts.get(number, 0) - count
            if left > 0:
                self._counts[number] = left
                return False
            if self._counts.pop(number, None) is not None:
                del self._numbers[self._nodes.pop(number)]
            return True
