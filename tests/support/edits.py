"""Random edits of an image, of a directory of the host or of both, beside a model of their tree."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import ext3

from .facts import assert_same, facts_of_host, facts_of_image
from .model import Model
from .operations import HOST_VERBS, HostTree, Operation, Outcome, Tree
from .random_operations import RandomOperations

__all__ = ["Edits", "host_options"]


def host_options() -> dict[str, Any]:
    """Options for operations that whoever runs the tests may do in a directory of their own.

    For a plain user the owner stays, directories stay open to them, and no mode is one that a write takes away.
    """
    options: dict[str, Any] = {"verbs": HOST_VERBS, "owners": (os.geteuid(),), "groups": (os.getegid(),), "phases": ("any",)}
    if os.geteuid() != 0:
        options["modes"] = (0o700, 0o750, 0o755, 0o1777)
    return options


class Edits:
    """Operations that are done to some trees and to the model alike. ``outcomes`` counts how they went.

    Options are those of RandomOperations.
    """

    def __init__(self, seed: int, **options: Any) -> None:
        self.model = Model()
        self._operations = RandomOperations(random.Random(seed), self.model.paths, **options)
        self.outcomes: Counter[Outcome] = Counter()

    @property
    def chance(self) -> random.Random:
        """What the operations are drawn from; another may be put in its place."""
        return self._operations.chance

    @chance.setter
    def chance(self, chance: random.Random) -> None:
        self._operations.chance = chance

    def step(self, *trees: Tree) -> Operation:
        """Make up an operation and do it."""
        operation = self._operations.next()
        self.apply(operation, *trees)
        return operation

    def apply(self, operation: Operation, first: Tree, *others: Tree) -> None:
        """Do an operation: it goes the same way everywhere. What the first has no room for is not done to the others."""
        outcome = first.apply(operation)
        self.outcomes[outcome] += 1
        if outcome is not Outcome.NO_ROOM:
            for tree in (*others, self.model):
                assert tree.apply(operation) is outcome, (tree, operation)

    def check(self, *trees: ext3.Filesystem | HostTree) -> None:
        """Every tree holds what the model holds. On the host, files may have more attributes: they are not compared."""
        expected = self.model.facts()
        for tree in trees:
            if isinstance(tree, HostTree):
                found = {path: fact._replace(xattrs=None) for path, fact in facts_of_host(tree.path).items()}
            else:
                found = facts_of_image(tree)
            assert_same(found, expected)
