"""``sifkit help``."""

from __future__ import annotations

from typing import Annotated

import typer

from .support.console import Console
from .support.frame import verb

__all__ = ["command"]


@verb(examples=["sifkit help", "sifkit help ls", "sifkit help overlay create"])
def command(
    console: Console,
    words: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="command, as in: overlay create")] = None,
) -> int:
    """Show the help of a command, as `COMMAND --help` does; without one, the list of all commands."""
    from . import main

    return main([*(words or ()), "--help"])
