"""Kinds of the fields of on-disk structures, named and combined as in construct: ``"s_magic" / Int16ul``.

construct itself takes 45 ms to load, longer than most commands work; ``Layout.schema`` makes the same declaration of it.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "Array",
    "Bytes",
    "FieldKind",
    "Int8ub",
    "Int8ul",
    "Int16sl",
    "Int16ub",
    "Int16ul",
    "Int32ub",
    "Int32ul",
    "Int64ub",
    "Int64ul",
    "NamedField",
]


class FieldKind:
    """Integer with the ``struct`` letter ``code`` in the byte ``order``, ``count`` of them, or ``count`` bytes (code "s")."""

    __slots__ = ("code", "count", "name", "order")

    def __init__(self, name: str, code: str, order: str = "", count: int | None = None) -> None:
        self.name = name
        self.code = code
        self.order = order
        self.count = count

    def __rtruediv__(self, name: object) -> NamedField:
        if not isinstance(name, str):
            return NotImplemented
        return NamedField(name, self)

    def in_construct(self) -> Any:
        """Return this kind as construct has it."""
        import construct as c

        if self.code == "s":
            return c.Bytes(self.count)
        one = getattr(c, self.name)
        return one if self.count is None else c.Array(self.count, one)


class NamedField:
    """Field of a structure."""

    __slots__ = ("kind", "name")

    def __init__(self, name: str, kind: FieldKind) -> None:
        self.name = name
        self.kind = kind


def Bytes(count: int) -> FieldKind:
    """Return the kind of a string of ``count`` bytes."""
    return FieldKind("Bytes", "s", count=count)


def Array(count: int, kind: FieldKind) -> FieldKind:
    """Return the kind of ``count`` integers. Raises TypeError for other kinds."""
    if kind.count is not None:
        raise TypeError(f"an array of {kind.name} is not a fixed plain field")
    return FieldKind(kind.name, kind.code, kind.order, count)


Int8ul, Int16ul, Int32ul, Int64ul = (FieldKind(f"Int{8 << n}ul", code, "<" if n else "") for n, code in enumerate("BHIQ"))
Int8ub, Int16ub, Int32ub, Int64ub = (FieldKind(f"Int{8 << n}ub", code, ">" if n else "") for n, code in enumerate("BHIQ"))
Int16sl = FieldKind("Int16sl", "h", "<")
