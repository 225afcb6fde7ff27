"""Stamp: time and identity of a new image. They are arguments, so that builds are reproducible."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from .tree import Tree

__all__ = ["Stamp"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Time and identity. ``seconds``: time of everything created; ``uuid``: 16 bytes; ``hash_seed``: 16 bytes for directory
    hashes; ``journal_sequence``: first sequence number of a journal over a used region."""

    seconds: int
    uuid: bytes
    hash_seed: bytes
    journal_sequence: int = 1

    @classmethod
    def now(cls, identity: UUID | None = None) -> Stamp:
        """Return the current time with a random identity (``identity`` replaces the random UUID)."""
        sequence = 1 + int.from_bytes(os.urandom(3), "little")
        return cls(int(time.time()), (identity or uuid4()).bytes, uuid4().bytes, sequence)

    @classmethod
    def derived(cls, seconds: int, tree: Tree, *facts: object, identity: UUID | None = None) -> Stamp:
        """Return a stamp computed from the time, the tree (all but file data) and ``facts``."""
        digest = sha256(repr((seconds, facts)).encode())
        # The node table holds links and times; everything else is added in a fixed order.
        digest.update(tree.nodes.view(np.uint8).data)
        digest.update(b"\0".join(tree.names))
        for kind in (tree.targets, tree.devices, tree.xattrs, tree.segments):
            digest.update(repr(_sorted_items(kind)).encode())
        digest.update(repr(tree.extra_links).encode())
        raw = digest.digest()
        made = UUID(bytes=raw[:16], version=4)
        seed = UUID(bytes=raw[16:], version=4)
        return cls(seconds, (identity or made).bytes, seed.bytes, 1 + int.from_bytes(raw[:3], "little"))


def _sorted_items(mapping: Mapping[int, Any]) -> list[tuple[int, object]]:
    return [(key, sorted(value.items()) if isinstance(value, dict) else value) for key, value in sorted(mapping.items())]
