"""Verbs with e2fsck's exit codes: 0 clean, 1 corrected, 4 errors left, 8 operational error, 16 usage, 32 cancelled.

``@verb(kind=CheckCommand, ...)`` makes one. The verb raises ``typer.Exit`` with the first three codes; the others are set here.
"""

from __future__ import annotations

from typing import Any

import typer

from ...errors import UsageError
from .console import Console
from .failures import report, report_usage
from .frame import VerbCommand

__all__ = ["CANCELLED", "CANNOT_RUN", "CLEAN", "CORRECTED", "LEFT", "USAGE", "CheckCommand"]

CLEAN, CORRECTED, LEFT, CANNOT_RUN, USAGE, CANCELLED = 0, 1, 4, 8, 16, 32
CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""Usage error of typer's parser, which has no public name there."""


class CheckCommand(VerbCommand):
    """Command whose failures have these codes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except CLICK_ERROR as error:
            report_usage(error, ctx.find_root().obj)
            raise typer.Exit(USAGE) from error

    def invoke(self, ctx: Any) -> Any:
        console: Console = ctx.find_root().obj
        try:
            return super().invoke(ctx)
        except (typer.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt as error:
            console.error("interrupted")
            raise typer.Exit(CANCELLED) from error
        except Exception as error:
            report(error, console)
            raise typer.Exit(USAGE if isinstance(error, UsageError) else CANNOT_RUN) from error
