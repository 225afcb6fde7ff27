"""Numbers, names, bars and tables as text. rich is loaded only for a table on a terminal, and is only given Text."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from .console import Console

__all__ = ["bar", "escaped", "human", "mode_text", "pairs", "short_size", "shown_name", "stamp", "utc"]

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def human(size: int) -> str:
    """``size`` bytes in powers of 1024, at most one decimal: 512 bytes, 1.5 GiB, 500 MiB."""
    value = float(size)
    for unit in UNITS:
        if value < 1024 or unit == UNITS[-1]:
            break
        value /= 1024
    if unit == "bytes":
        return f"{size} bytes" if size != 1 else "1 byte"
    text = f"{value:.1f}".removesuffix(".0")
    return f"{text} {unit}"


def short_size(size: int) -> str:
    """As ``ls -h`` writes it: rounded up, one decimal below 10, a letter: 1.5G, 500M, 512."""
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


def escaped(name: bytes) -> str:
    """A name for a terminal, as ``ls -b``: backslash, space, control characters and what is not UTF-8 are escaped."""
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
        elif char.isprintable():
            pieces.append(char)
        else:
            pieces += (f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))
    return "".join(pieces)


def shown_name(name: bytes, console: Console) -> bytes:
    """A name for stdout: escaped on a terminal, exact in a pipe."""
    if not console.out_is_terminal:
        return name
    return escaped(name).encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")


def bar(used: int, total: int, *, width: int = 30) -> str:
    """A bar of ``width`` cells and the share used; in ASCII where stdout cannot hold block characters."""
    share = min(1.0, used / total) if total > 0 else 0.0
    filled = round(share * width)
    full, rest = "\u2588", "\u2591"
    try:
        (full + rest).encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        full, rest = "#", "."
    return f"{full * filled}{rest * (width - filled)} {100 * share:.0f} %"


def pairs(rows: Sequence[tuple[str, str]], console: Console) -> None:
    """A two-column table on stdout: aligned text; on a terminal the keys stand out and long values wrap."""
    width = max((len(key) for key, _ in rows), default=0)
    if not console.out_is_terminal:
        for key, value in rows:
            console.line(f"{key:<{width}}  {value}".rstrip())
        return
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows:
        table.add_row(Text(key, style="bold"), Text(value))
    RichConsole(file=sys.stdout, no_color=not console.color, highlight=False).print(table)


def mode_text(mode: int) -> str:
    """``drwxr-xr-x``; ``?`` for format bits that mean nothing."""
    import stat

    return stat.filemode(mode)


def stamp(nanoseconds: int) -> str:
    """Local time to the minute, for a person; the raw seconds where the platform cannot tell."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(nanoseconds // 1_000_000_000))
    except (OverflowError, ValueError, OSError):
        return f"@{nanoseconds // 1_000_000_000}"


def utc(nanoseconds: int) -> str:
    """RFC 3339 in UTC with nanoseconds, for JSON."""
    from datetime import UTC, datetime, timedelta

    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
