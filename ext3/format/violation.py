"""Violation: one contradiction of the format, as a value. Readers raise the first one; a check reports all. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import CorruptError

__all__ = ["Violation"]


class Violation(NamedTuple):
    """``where``: the structure; ``field``: which of its fields; ``got``: the value there; ``want``: those that are allowed."""

    where: str
    field: str
    got: object
    want: object

    @property
    def error(self) -> CorruptError:
        """The error a reader raises for it."""
        return CorruptError(self.where, self.field, self.got, self.want)

    def __str__(self) -> str:
        return str(self.error)
