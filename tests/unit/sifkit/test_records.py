"""Records behave as the frozen dataclasses with slots that they stand for."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, ClassVar

import pytest

from sifkit.records import field, field_names, record, replace


@record
class Point:
    """A point."""

    kind: ClassVar[str] = "point"
    x: int
    y: int = 2
    names: Sequence[str] = field(default_factory=list)
    slot: int = field(default=-1, compare=False)

    def total(self) -> int:
        return self.x + self.y


@dataclass(frozen=True, slots=True)
class Twin:
    x: int
    y: int = 2
    names: Sequence[str] = dataclasses.field(default_factory=list)
    slot: int = dataclasses.field(default=-1, compare=False)


@record(kw_only=True)
class Named:
    name: str
    size: int = 0


@record
class Solid(Point):
    """A point in space."""

    z: int = 3


def test_values_defaults_and_methods() -> None:
    found = Point(1, slot=7)
    assert (found.x, found.y, found.names, found.slot, found.total(), Point.kind) == (1, 2, [], 7, 3, "point")
    assert Point(1).names is not Point(1).names
    assert Point.__doc__ == "A point." and Point.__qualname__ == "Point"
    assert not hasattr(found, "__dict__")
    assert Solid(1, 2, [], 4, 5) == Solid(x=1, slot=9, z=5) != Solid(1)
    assert field_names(Solid) == ("x", "y", "names", "slot", "z")


@pytest.mark.parametrize(
    ("given", "named"), [((), {}), ((1, 2, [], 3, 4), {}), ((1,), {"x": 2}), ((1,), {"colour": 2}), ((), {"y": 1})]
)
def test_wrong_arguments(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    for kind in (Twin, Point):
        with pytest.raises(TypeError, match=r"argument"):
            kind(*given, **named)


def test_arguments_by_name_only() -> None:
    assert Named(name="a").size == 0
    with pytest.raises(TypeError):
        Named("a")  # type: ignore[call-arg,misc]


def test_equality_and_hash_leave_out_what_is_not_compared() -> None:
    assert Point(1, 2, (), 3) == Point(1, 2, (), 4)
    assert hash(Point(1, 2, (), 3)) == hash(Point(1, 2, (), 4))
    assert Point(1) != Point(2) and Point(1) != Twin(1) and Named(name="") != Point(1)


def test_frozen() -> None:
    found = Point(1)
    with pytest.raises(FrozenInstanceError):
        found.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del found.x
    with pytest.raises((FrozenInstanceError, AttributeError)):
        found.colour = 2  # type: ignore[attr-defined]


def test_text_copies_and_pickles() -> None:
    found = Solid(1, names=("a",))
    assert repr(found) == "Solid(x=1, y=2, names=('a',), slot=-1, z=3)"
    assert copy.copy(found) == copy.deepcopy(found) == pickle.loads(pickle.dumps(found)) == found
    assert replace(found, y=5) == Solid(1, 5, ("a",)) == dataclasses.replace(found, y=5)  # type: ignore[type-var]
    with pytest.raises(TypeError):
        replace(found, colour=1)


def test_the_functions_of_dataclasses_take_records() -> None:
    assert dataclasses.is_dataclass(Point) and dataclasses.is_dataclass(Point(1))
    theirs, ours = dataclasses.fields(Twin), dataclasses.fields(Point)
    assert [(one.name, one.compare, one.kw_only) for one in theirs] == [(one.name, one.compare, one.kw_only) for one in ours]
    assert dataclasses.asdict(Named(name="a")) == {"name": "a", "size": 0}
    assert all(one.kw_only for one in dataclasses.fields(Named))
    match Point(1, 5):
        case Point(x, y):
            assert (x, y) == (1, 5)
