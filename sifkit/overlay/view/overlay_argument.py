"""Arguments of ``--overlay``: the path of an overlay, and Apptainer's ``:ro``.

Apptainer splits at the first colon, takes only the exact rest ``ro`` as read-only and ignores any other. It splits at commas,
too: ``--overlay a.img:ro,b.img`` is two overlays. The rules here are the same, but a file that has the whole name is that file,
and another suffix is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...errors import UsageError, show

__all__ = ["OverlayArgument", "parse_overlays"]

READ_ONLY = "ro"


@dataclass(frozen=True, slots=True)
class OverlayArgument:
    """Overlay named by the user. ``read_only``: it had the suffix ``:ro``."""

    path: str
    read_only: bool = False


def parse_overlays(texts: Sequence[str]) -> tuple[OverlayArgument, ...]:
    """Parse the values of ``--overlay``, in order. Raises UsageError for a suffix that is not ``:ro``."""
    return tuple(_parse(part) for text in texts for part in _split(text))


def _split(text: str) -> Iterator[str]:
    """Yield the overlays that one value names."""
    whole = text.removesuffix(f":{READ_ONLY}")
    if "," not in text or os.path.lexists(text) or os.path.lexists(whole):
        yield text
        return
    for part in text.split(","):
        if not part:
            raise UsageError(f"--overlay {show(text)}: a name is empty", hint="write --overlay A.img --overlay B.img")
        yield part


def _parse(text: str) -> OverlayArgument:
    path, colon, suffix = text.partition(":")
    if not colon or os.path.lexists(text):
        return OverlayArgument(text)
    if suffix == READ_ONLY and path:
        return OverlayArgument(path, read_only=True)
    whole = text.removesuffix(f":{READ_ONLY}")
    if os.path.lexists(whole):  # its name has a colon
        return OverlayArgument(whole, read_only=True)
    if not os.path.exists(path):
        return OverlayArgument(text)  # the error of opening it says enough
    raise UsageError(f"--overlay {show(text)}: the suffix :{show(suffix)} has no meaning", hint=_hint(path, suffix))


def _hint(path: str, suffix: str) -> str:
    if suffix.startswith("/"):
        return f"an overlay is given as a whole: --overlay {show(path)}, then the path of a file in the container"
    if suffix in ("rw", ""):
        return f"write {show(path)}; the only suffix is :ro"
    return f"write {show(path)} or {show(path)}:ro; upper/ and work/ are directories in the overlay"
