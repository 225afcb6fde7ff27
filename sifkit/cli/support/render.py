"""Numbers, names, bars and tables as text. rich is loaded only for a table on a terminal, and only gets Text."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from ...errors import human, show
from .console import Console

if TYPE_CHECKING:
    from ...overlay.images.filesystem_opening import OpenedFilesystem

__all__ = [
    "bar",
    "display_name",
    "escape",
    "filesystem_summary",
    "local_time",
    "mode_text",
    "percent",
    "print_pairs",
    "rfc3339",
    "short_size",
]


def short_size(size: int) -> str:
    """Size as ``ls -h`` prints it: rounded up, one decimal below 10, a letter: 1.5G, 500M, 512."""
    unit, letters = 1, iter("KMGTPE")
    letter = ""
    while size >= 1024 * unit and (following := next(letters, "")):
        unit, letter = unit * 1024, following
    if unit == 1:
        return str(size)
    tenths = -(-size * 10 // unit)
    if tenths < 100:
        return f"{tenths // 10}.{tenths % 10}{letter}"
    whole = -(-size // unit)
    if whole == 1024:
        return f"1.0{next(letters, '?')}"
    return f"{whole}{letter}"


def escape(name: bytes, *, unicode: bool = True) -> str:
    """Escape a name for a terminal, as ``ls -b``: backslash, space, control characters and bytes that are not UTF-8.

    Without ``unicode`` everything that is not ASCII is escaped too.
    """
    simple = {
        "\n": "\\n",
        "\t": "\\t",
        "\r": "\\r",
        "\b": "\\b",
        "\f": "\\f",
        "\v": "\\v",
        "\a": "\\a",
        "\\": "\\\\",
        " ": "\\ ",
    }
    pieces = []
    for char in name.decode("utf-8", "surrogateescape"):
        if char in simple:
            pieces.append(simple[char])
        elif char.isprintable() and (unicode or char.isascii()):
            pieces.append(char)
        else:
            pieces += (f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))
    return "".join(pieces)


def display_name(name: bytes, console: Console) -> bytes:
    """Name for stdout: escaped on a terminal, exact in a pipe."""
    if not console.out_is_terminal:
        return name
    shown = escape(name, unicode=console.out_is_unicode)
    return shown.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")


def filesystem_summary(found: OpenedFilesystem) -> str:
    """One line about a filesystem that is opened, for -v."""
    image = found.image
    if image is None:
        return f"{show(found.name)}: {found.summary or 'directory'}"
    journal = "no journal" if not image.has_journal else "journal not empty" if image.needs_recovery else "journal clean"
    kind = "ext3" if image.has_journal else "ext2"
    return f"{show(found.name)}: {kind}, {human(image.size_bytes)}, blocks of {human(image.block_size)}, {journal}"


def percent(used: int, total: int) -> str:
    """Share used, as ``19 %``; more than nothing is at least ``<1 %``."""
    share = 100 * min(used, total) / total if total > 0 else 0.0
    return "<1 %" if 0 < share < 0.5 else f"{share:.0f} %"


def bar(used: int, total: int, console: Console, *, width: int = 20) -> str:
    """Bar of ``width`` cells, in ASCII if the terminal cannot show block characters."""
    share = min(1.0, used / total) if total > 0 else 0.0
    filled = round(share * width)
    full, rest = ("\u2588", "\u2591") if console.out_is_unicode else ("#", ".")
    return f"{full * filled}{rest * (width - filled)}"


PARTS = "\u2588\u2593\u2592\u259a\u2591"
PARTS_ASCII = "#=jr."
"""Cells of the parts of a bar, the last for what is free."""


def part_cells(console: Console) -> str:
    """Characters for the parts of a bar, in ASCII if the terminal cannot show block characters."""
    return PARTS if console.out_is_unicode else PARTS_ASCII


def stacked_bar(parts: Sequence[int], cells: Sequence[str], *, width: int = 30) -> str:
    """Bar of ``width`` cells for the parts of a whole, to scale. What is not 0 has a cell, if there are enough."""
    total = max(1, sum(parts))
    counts = [max(part * width // total, int(part > 0)) for part in parts]
    for _ in range(sum(counts) - width):  # the cells of small parts come from the largest
        counts[max(range(len(counts)), key=counts.__getitem__)] -= 1
    counts[max(range(len(parts)), key=parts.__getitem__)] += max(0, width - sum(counts))
    return "".join(cell * count for cell, count in zip(cells, counts, strict=False))


def print_pairs(rows: Sequence[tuple[str, str]], console: Console) -> None:
    """Print a two-column table; on a terminal keys are bold and long values wrap."""
    width = max((len(key) for key, _ in rows), default=0)
    if not console.out_is_terminal:
        for key, value in rows:
            console.line(f"{key:<{width}}  {value}".rstrip())
        return
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows:
        table.add_row(Text(key, style="bold"), Text(value if console.out_is_unicode else _ascii(value)))
    RichConsole(file=sys.stdout, no_color=not console.color, highlight=False).print(table)


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")


def mode_text(mode: int) -> str:
    """Mode as ``drwxr-xr-x``; ``?`` for an unknown file type."""
    import stat

    return stat.filemode(mode)


def local_time(nanoseconds: int) -> str:
    """Local time to the minute; ``@SECONDS`` if the platform cannot convert it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(nanoseconds // 1_000_000_000))
    except (OverflowError, ValueError, OSError):
        return f"@{nanoseconds // 1_000_000_000}"


@lru_cache(maxsize=65_536)
def rfc3339(nanoseconds: int) -> str:
    """Time in RFC 3339, UTC, with nanoseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_utc_second(seconds)}.{rest:09d}Z"


@lru_cache(maxsize=65_536)
def _utc_second(seconds: int) -> str:
    from datetime import datetime, timedelta

    return (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()
