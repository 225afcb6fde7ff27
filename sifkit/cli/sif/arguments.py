"""Arguments of verbs that take objects and an image: ``ID IMAGE``, as siftool, or ``IMAGE ID``.

An argument of digits only is an ID; an image named so is written ``./4``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...errors import UsageError, show

__all__ = ["id_and_image", "id_image_and_file", "ids_and_image"]

MAX_ID = 2**32 - 1


def _parse_id(text: str) -> int | None:
    """Parse an ID; None for a file name."""
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > 10 or not 0 < int(text) <= MAX_ID:
        raise UsageError(f"{show(text)[:80]}: IDs are from 1 to {MAX_ID}", hint="list them with: sifkit sif list")
    return int(text)


def ids_and_image(arguments: Sequence[str], *, need: bool = True) -> tuple[list[int], str]:
    """Parse IDs and an image, in either order. ``need``: raise UsageError without an ID."""
    parsed = [(text, _parse_id(text)) for text in arguments]
    ids = [id for _, id in parsed if id is not None]
    images = [text for text, id in parsed if id is None]
    if not images:
        raise UsageError("IMAGE is missing", hint="write ./4 for an image named 4")
    if len(images) > 1:
        odd = next((text for text in images if not os.path.exists(text)), images[1])
        raise UsageError(f"{show(odd)}: neither an ID nor the image", hint="list IDs with: sifkit sif list")
    if need and not ids:
        raise UsageError("ID is missing", hint=f"list IDs with: sifkit sif list {show(images[0])}")
    return ids, images[0]


def id_and_image(arguments: Sequence[str], *, named: bool = False) -> tuple[int | None, str]:
    """Parse one ID and an image. ``named``: --name selects the object instead."""
    ids, image = ids_and_image(arguments, need=not named)
    if len(ids) > 1:
        raise UsageError(f"too many IDs: {', '.join(map(str, ids[:8]))}", hint="give one ID")
    if named and ids:
        raise UsageError(f"ID {ids[0]} and --name exclude each other", hint="give one of them")
    return (ids[0] if ids else None), image


def id_image_and_file(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Parse ``ID IMAGE FILE`` or ``IMAGE ID FILE`` into (ID, image, file); the last argument is the file, whatever its name."""
    if len(arguments) != 3:
        what = "too many arguments" if len(arguments) > 3 else f"{('ID', 'IMAGE', 'FILE')[len(arguments)]} is missing"
        raise UsageError(what, hint="write ID IMAGE FILE, with - for standard input")
    id, image = id_and_image(arguments[:2])
    assert id is not None
    return id, image, arguments[2]
