"""Where a path lies: ``IMAGE PATH...`` or ``IMAGE:/PATH``.

An argument is IMAGE:/PATH when it holds ``:/``, the part before the first ``:/`` is an existing file and the whole is
not; ``./a:/b`` is always a host path.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from ...errors import UsageError, show

__all__ = ["check_not_dotted", "place", "places"]


def place(argument: str) -> tuple[str, str] | None:
    """(image, path in it) of an IMAGE:/PATH; None for a host path."""
    image, colon, rest = argument.partition(":/")
    if not colon or not image or argument.startswith("./"):
        return None
    if not os.path.isfile(image) or os.path.lexists(argument):
        return None
    return image, "/" + rest


def check_not_dotted(argument: str) -> None:
    """UsageError for an IMAGE:/PATH behind ``./``, which makes it a file of the host, where none can be."""
    rest = argument.removeprefix("./")
    if rest != argument and not os.path.isdir(os.path.dirname(argument)) and place(rest) is not None:
        raise UsageError(f"{show(argument)}: what begins with ./ is a file of the host", hint=f"write {show(rest)}")


def places(arguments: Sequence[str], *, default: Sequence[str] = ()) -> list[tuple[str, list[bytes]]]:
    """(image, paths in it) in the order given, for ``IMAGE [PATH...]`` or ``IMAGE:/PATH...``.

    ``default``: the paths where there is an image only; without it UsageError. FileNotFoundError for IMAGE:/PATH
    where there is no such image.
    """
    for argument in arguments:
        check_not_dotted(argument)
    first = place(arguments[0])
    if first is None:
        image, colon, _ = arguments[0].partition(":/")
        if arguments[0].endswith(":") and os.path.isfile(arguments[0][:-1]) and not os.path.lexists(arguments[0]):
            raise UsageError(f"{show(arguments[0])}: no path behind the colon", hint=f"write {show(arguments[0])}/")
        if colon and image and not arguments[0].startswith("./") and not os.path.lexists(arguments[0]):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), image)
        paths = list(arguments[1:]) or list(default)
        if not paths:
            raise UsageError(f"PATH is missing: the file in {show(arguments[0])}", hint="sifkit ls shows what is in it")
        return [(arguments[0], [os.fsencode(path) for path in paths])]
    found: list[tuple[str, list[bytes]]] = []
    for argument in arguments:
        pair = place(argument)
        if pair is None:
            raise UsageError(
                f"{show(argument)} is not IMAGE:/PATH, as {show(arguments[0])} is",
                hint="write IMAGE PATH... or IMAGE:/PATH for all",
            )
        if found and found[-1][0] == pair[0]:
            found[-1][1].append(os.fsencode(pair[1]))
        else:
            found.append((pair[0], [os.fsencode(pair[1])]))
    return found
