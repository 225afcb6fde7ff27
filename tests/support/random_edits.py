"""Long seeded sequences of operations that mostly succeed: paths are taken from those that are there."""

from __future__ import annotations

import random

from .filesystem_model import HostTree, Operation

__all__ = ["RandomEdits"]


class RandomEdits:
    """Gives one operation after the other for a tree of which ``model`` is the present state."""

    def __init__(self, model: HostTree, seed: int) -> None:
        self.model = model
        self.random = random.Random(seed)
        self.number = 0

    def _paths(self) -> tuple[list[str], list[str]]:
        """(directories, everything else)"""
        directories, others = ["/"], []
        root = self.model.root
        for path in sorted(root.rglob("*")):
            name = "/" + str(path.relative_to(root))
            if name.startswith("/lost+found"):
                continue
            (directories if not path.is_symlink() and path.is_dir() else others).append(name)
        return directories, others

    def _new(self, directories: list[str]) -> str:
        self.number += 1
        name = f"{self.number}-" + "n" * self.random.choice([0, 3, 40, 200])
        return self.random.choice(directories).rstrip("/") + "/" + name

    def some(self, count: int) -> list[Operation]:
        """Operations for the tree as it is now; later ones may fail where earlier ones took what they need."""
        directories, others = self._paths()
        pick = self.random
        everything = [*directories[1:], *others] or ["/none"]
        files = others or ["/none"]
        found: list[Operation] = []
        for _ in range(count):
            offset = pick.choice([0, pick.randrange(5000), pick.randrange(400_000)])
            data = bytes((pick.randrange(1, 256),)) * pick.choice([1, 100, 4096, pick.randrange(1, 60_000)])
            target = "t" * pick.choice([1, 59, 60, 300])
            found.append(
                pick.choice(
                    [
                        ("mkdir", self._new(directories)),
                        ("create", self._new(directories)),
                        ("create", self._new(directories)),
                        ("create", self._new(directories)),
                        ("write", pick.choice(files), offset, data),
                        ("write", pick.choice(files), offset, data),
                        ("write", pick.choice(files), offset, data),
                        ("truncate", pick.choice(files), offset),
                        ("punch", pick.choice(files), offset, pick.randrange(1, 100_000)),
                        ("symlink", target, self._new(directories)),
                        ("link", pick.choice(files), self._new(directories)),
                        ("unlink", pick.choice(files)),
                        ("rmdir", pick.choice(directories)),
                        ("rename", pick.choice(everything), self._new(directories)),
                        ("rename", pick.choice(everything), pick.choice(everything)),
                        ("chmod", pick.choice(everything), pick.choice([0o600, 0o750, 0o4755])),
                        ("utimens", pick.choice(everything), pick.randrange(2**62), pick.randrange(2**33 * 10**9)),
                    ]
                )
            )
        return [operation for operation in found if operation != ("rmdir", "/")]
