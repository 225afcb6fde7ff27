"""Records: frozen classes with slots, as ``dataclasses`` makes them, without code that is generated for each.

That code takes 0.6 ms a class, and the modules that generate it 8 ms: a start of ``sifkit exec`` needs fifty classes. Making an
object takes longer instead, so classes of which there are thousands are no records. ``dataclasses.replace``, ``fields`` and
``is_dataclass`` take records, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, dataclass_transform, overload

__all__ = ["field", "field_names", "record", "replace"]

T = TypeVar("T")
_MISSING: Any = object()


class _Field:
    """Field of a record: its default, or what makes one; whether equality and hash count it."""

    __slots__ = ("compare", "default", "default_factory", "kw_only")

    def __init__(self, default: Any, default_factory: Callable[[], Any] | None, compare: bool) -> None:
        self.default = default
        self.default_factory = default_factory
        self.compare = compare
        self.kw_only = False


def field(*, default: Any = _MISSING, default_factory: Callable[[], Any] | None = None, compare: bool = True) -> Any:
    """Describe a field: see ``dataclasses.field``."""
    return _Field(default, default_factory, compare)


@overload
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T], /) -> type[T]: ...
@overload
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]: ...
def record(cls: type[Any] | None = None, /, *, kw_only: bool = False) -> Any:
    """Make a record of a class with annotated fields. ``kw_only``: its fields are given by name."""

    def make(found: type[Any]) -> type[Any]:
        return _make(found, kw_only)

    return make if cls is None else make(cls)


def replace(item: T, /, **changes: Any) -> T:
    """Return a record with other values of some fields."""
    values = {name: getattr(item, name) for name in _fields_of(type(item))} | changes
    return type(item)(**values)


def field_names(cls: type[Any]) -> tuple[str, ...]:
    """Return the names of a record's fields."""
    return tuple(_fields_of(cls))


def _fields_of(cls: type[Any]) -> dict[str, _Field]:
    found: dict[str, _Field] = cls._record_fields
    return found


def _make(cls: type[Any], kw_only: bool) -> type[Any]:
    """Return the class made again, with slots and the methods of a record."""
    namespace = dict(cls.__dict__)
    own: dict[str, _Field] = {}
    for name, kind in cls.__annotations__.items():
        if not str(kind).startswith(("ClassVar", "typing.ClassVar")):
            value = namespace.pop(name, _MISSING)
            own[name] = value if isinstance(value, _Field) else _Field(value, None, True)
            own[name].kw_only = kw_only
    inherited: dict[str, _Field] = {}
    for base in reversed(cls.__mro__[1:]):
        inherited |= base.__dict__.get("_record_fields", {})
    fields = inherited | own
    namespace.pop("__dict__", None)
    namespace.pop("__weakref__", None)
    namespace["__slots__"] = tuple(name for name in own if name not in inherited)
    namespace["__match_args__"] = tuple(name for name, one in fields.items() if not one.kw_only)
    namespace["_record_fields"] = fields
    namespace["__dataclass_fields__"] = _DATACLASS_FIELDS
    for name, method in _METHODS.items():
        namespace.setdefault(name, method)
    if "__eq__" in cls.__dict__ and cls.__dict__.get("__hash__") is None:
        namespace["__hash__"] = None
    made: type[Any] = type(cls.__name__, cls.__bases__, namespace)
    return made


# Methods of all records


def _init(self: Any, *given: Any, **named: Any) -> None:
    cls = type(self)
    put = object.__setattr__
    position = 0
    for name, one in cls._record_fields.items():
        if not one.kw_only and position < len(given):
            if name in named:
                raise TypeError(f"{cls.__name__}() got multiple values for argument {name!r}")
            put(self, name, given[position])
            position += 1
        elif name in named:
            put(self, name, named.pop(name))
        elif one.default is not _MISSING:
            put(self, name, one.default)
        elif one.default_factory is not None:
            put(self, name, one.default_factory())
        else:
            raise TypeError(f"{cls.__name__}() missing required argument {name!r}")
    if named:
        raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {next(iter(named))!r}")
    if position < len(given):
        raise TypeError(f"{cls.__name__}() takes {position} positional arguments but {len(given)} were given")


def _compared(item: Any) -> Iterator[Any]:
    return (getattr(item, name) for name, one in item._record_fields.items() if one.compare)


def _eq(self: Any, other: object) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return tuple(_compared(self)) == tuple(_compared(other))


def _hash(self: Any) -> int:
    return hash(tuple(_compared(self)))


def _repr(self: Any) -> str:
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._record_fields)
    return f"{type(self).__qualname__}({values})"


def _setattr(self: Any, name: str, value: Any) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _reduce(self: Any) -> tuple[Any, ...]:
    return _restore, (type(self), *(getattr(self, name) for name in self._record_fields))


def _restore(cls: type[Any], *values: Any) -> Any:
    """Return an object of these values: for copies and pickles."""
    item = object.__new__(cls)
    for name, value in zip(_fields_of(cls), values, strict=True):
        object.__setattr__(item, name, value)
    return item


_METHODS: dict[str, Any] = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    "__reduce__": _reduce,
}


class _DataclassFields:
    """Fields in the form of ``dataclasses``, made when they are asked for."""

    def __get__(self, item: Any, cls: type[Any]) -> dict[str, Any]:
        import dataclasses

        made = []
        for name, one in _fields_of(cls).items():
            settings: dict[str, Any] = {"compare": one.compare, "kw_only": one.kw_only}
            if one.default_factory is not None:
                settings["default_factory"] = one.default_factory
            elif one.default is not _MISSING:
                settings["default"] = one.default
            made.append((name, Any, dataclasses.field(**settings)))
        found: dict[str, Any] = vars(dataclasses.make_dataclass(cls.__name__, made))["__dataclass_fields__"]
        cls.__dataclass_fields__ = found
        return found


_DATACLASS_FIELDS = _DataclassFields()
