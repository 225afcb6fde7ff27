"""The arguments of verbs that take objects and an image: siftool's order, ``ID IMAGE``, and the other one.

Digits only is an ID; an image that is named so is written ``./4``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...errors import UsageError, show

__all__ = ["id_and_image", "ids_and_image", "split_replace"]

MAX_ID = 2**32 - 1


def _id(text: str) -> int | None:
    """The ID that ``text`` is; None for a file's name."""
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > 10 or not 0 < int(text) <= MAX_ID:
        raise UsageError(f"{show(text)[:80]}: an ID is from 1 to {MAX_ID}", hint="sifkit sif list shows them")
    return int(text)


def ids_and_image(arguments: Sequence[str], *, need: bool = True) -> tuple[list[int], str]:
    """(IDs, image) in either order; ``need``: there must be an ID."""
    parsed = [(text, _id(text)) for text in arguments]
    ids = [id for _, id in parsed if id is not None]
    images = [text for text, id in parsed if id is None]
    if not images:
        raise UsageError("IMAGE is missing", hint="digits only is an ID; an image named so is written ./4")
    if len(images) > 1:
        odd = next((text for text in images if not os.path.exists(text)), images[1])
        raise UsageError(f"{show(odd)}: neither an ID nor the one IMAGE", hint="an ID is a number: sifkit sif list shows them")
    if need and not ids:
        raise UsageError("ID is missing", hint=f"sifkit sif list {show(images[0])} shows them")
    return ids, images[0]


def id_and_image(arguments: Sequence[str], *, named: bool = False) -> tuple[int | None, str]:
    """One ID and an image; ``named``: an option names the object instead."""
    ids, image = ids_and_image(arguments, need=not named)
    if len(ids) > 1:
        raise UsageError(f"too many IDs: {', '.join(map(str, ids[:8]))}", hint="give one")
    if named and ids:
        raise UsageError(f"ID {ids[0]} and --name exclude each other", hint="give one of them")
    return (ids[0] if ids else None), image


def split_replace(arguments: Sequence[str]) -> tuple[int, str, str]:
    """(ID, image, file) of ``ID IMAGE FILE`` or ``IMAGE ID FILE``: what comes last is the file, whatever its name."""
    if len(arguments) != 3:
        what = "too many arguments" if len(arguments) > 3 else f"{('ID', 'IMAGE', 'FILE')[len(arguments)]} is missing"
        raise UsageError(what, hint="write ID IMAGE FILE; - is standard input")
    id, image = id_and_image(arguments[:2])
    assert id is not None
    return id, image, arguments[2]
