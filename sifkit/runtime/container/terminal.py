"""Terminal of the caller, given back as it was when the command is killed: a shell or an editor leaves it without echo."""

from __future__ import annotations

import os
import signal
import termios
from contextlib import suppress
from typing import Any, NamedTuple

__all__ = ["ForegroundTerminal", "foreground_terminal"]


class ForegroundTerminal(NamedTuple):
    """Modes of the terminal that is stdin, of which this process group is in the foreground."""

    modes: list[Any]

    def restore(self) -> None:
        """Set the modes and the foreground again, unless another process group is there: a shell has put us behind."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # sent to those who change it from behind
        try:
            group = os.tcgetpgrp(0)
            if group == os.getpgrp() or not _is_alive(group):
                os.tcsetpgrp(0, os.getpgrp())
                termios.tcsetattr(0, termios.TCSADRAIN, self.modes)
        except (OSError, termios.error):
            pass  # it is gone
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def foreground_terminal() -> ForegroundTerminal | None:
    """Return the terminal that is stdin; None if it is none, or another process group is in its foreground."""
    with suppress(OSError, termios.error):
        if os.tcgetpgrp(0) == os.getpgrp():
            return ForegroundTerminal(termios.tcgetattr(0))
    return None


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
