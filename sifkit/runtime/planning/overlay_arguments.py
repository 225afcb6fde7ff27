"""Arguments of ``--overlay`` for a run: a path, ``:ro`` or ``:rw``, or the directories upper and work of older tutorials. Pure.

Apptainer takes everything but the exact suffix ``ro`` as writable and ignores it; here another suffix is an error that says
what is meant. It splits at commas: ``a.img:ro,b.img`` is two overlays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ...errors import UsageError, show
from .request import PathKind

__all__ = ["RunOverlay", "parse_run_overlays"]

KindOf = Callable[[str], PathKind]


class RunOverlay(NamedTuple):
    """Overlay as given. ``work``: the second directory, if ``path`` is the upper directory itself."""

    path: str
    read_only: bool = False
    work: str = ""


def parse_run_overlays(texts: Sequence[str], kind_of: KindOf) -> tuple[RunOverlay, ...]:
    """Parse the values of ``--overlay``, in order. Raises UsageError for a suffix that means nothing."""
    return tuple(_parse(part, kind_of) for text in texts for part in _split(text, kind_of))


def _split(text: str, kind_of: KindOf) -> Iterator[str]:
    whole = text.rsplit(":", 1)[0] if text.endswith((":ro", ":rw")) else text
    if "," not in text or kind_of(text) != "missing" or kind_of(whole) != "missing":
        yield text
        return
    for part in text.split(","):
        if not part:
            raise UsageError(f"--overlay {show(text)}: a name is empty", hint="write --overlay A.img --overlay B.img")
        yield part


def _parse(text: str, kind_of: KindOf) -> RunOverlay:
    if kind_of(text) != "missing" or ":" not in text:
        return RunOverlay(text)
    for suffix, read_only in ((":ro", True), (":rw", False)):
        path = text.removesuffix(suffix)
        if path != text and path and (kind_of(path) != "missing" or ":" not in path):
            return RunOverlay(path, read_only)
    path, _, rest = text.partition(":")
    work, _, mode = rest.partition(":")
    if mode not in ("", "rw", "ro"):
        work, mode = rest, ""
    if kind_of(path) == "directory" and kind_of(work) == "directory":
        return _upper_and_work(text, path, work, mode, kind_of)
    raise UsageError(f"--overlay {show(text)}: the suffix :{show(rest)} has no meaning", hint=_hint(path, rest, kind_of))


def _upper_and_work(text: str, path: str, work: str, mode: str, kind_of: KindOf) -> RunOverlay:
    """Return the overlay of two directories. Raises UsageError if Apptainer has used the first as a whole overlay."""
    if kind_of(f"{path}/upper") != "missing":
        raise UsageError(
            f"--overlay {show(text)}: Apptainer took {show(path)}/upper as the whole overlay",
            hint=f"use --overlay {show(path)}",
        )
    return RunOverlay(path, mode == "ro", "" if mode == "ro" else work)


def _hint(path: str, rest: str, kind_of: KindOf) -> str:
    if not path:
        return "write --overlay PATH or --overlay PATH:ro"
    if rest.startswith("/") and kind_of(path) != "directory":
        return f"an overlay is given as a whole: --overlay {show(path)}; to show a directory of the host use --bind"
    return f"write {show(path)} to write to it, or {show(path)}:ro"
