"""What the fuzzers share: mutants made one after the other, each tried with a limit on its memory and its time.

A trial says in a few words how it went. Anything it raises is a failure: the mutant is written to a file, and the run ends.
"""

from __future__ import annotations

import argparse
import gc
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

__all__ = ["fuzz", "limit_memory", "options_of", "time_limit"]

T = TypeVar("T")
COLLECT_EVERY = 16
PATIENCE = 20
"""How much longer than it may work a trial may take: others use the machine, too."""


def limit_memory(more: int) -> None:
    """Let this process have so many bytes more than it has now, where the system can say and enforce that."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        return
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


class time_limit:  # used like a function
    """A ``with`` block that may take so many seconds of the processor, and not wait 20 times as long; any time where the
    system has no timers."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self._set({"ITIMER_PROF": self.seconds, "ITIMER_REAL": PATIENCE * self.seconds})

    def __exit__(self, *_: object) -> None:
        self._set({"ITIMER_PROF": 0, "ITIMER_REAL": 0})

    def _set(self, timers: dict[str, float]) -> None:
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGPROF, self._over)
            signal.signal(signal.SIGALRM, self._over)
            for timer, seconds in timers.items():
                signal.setitimer(getattr(signal, timer), seconds)

    def _over(self, number: int, frame: object) -> None:
        times = f"{PATIENCE} times " if number == signal.SIGALRM else ""
        raise AssertionError(f"more than {times}{self.seconds} seconds")


def options_of(description: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of a fuzzer: ``count``, ``seed``, ``first`` and the paths of ``images``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("images", nargs="*", type=Path)
    return parser.parse_args(arguments)


def fuzz(
    name: str,
    samples: Sequence[T],
    mutate: Callable[[T, random.Random], bytes],
    attempt: Callable[[bytes, random.Random], str],
    options: argparse.Namespace,
    *,
    memory_bytes: int,
    seconds: int,
) -> int:
    """Try mutants of the samples in turn, as ``options`` say; the exit code. ``name`` is in that of files.

    Each mutant has random numbers of its own, which the seed and its number give, so that one alone can be made again.
    """
    count, seed, first = options.count, options.seed, options.first
    limit_memory(memory_bytes)
    outcomes: Counter[str] = Counter()
    began = time.monotonic()
    slowest, slowest_number = 0.0, first
    for number in range(first, first + count):
        if number % COLLECT_EVERY == 0:
            gc.collect()  # few objects, but whole images: Python by itself would wait too long
        chance = random.Random(f"{seed} {number}")
        mutant = mutate(samples[number % len(samples)], chance)
        start = time.process_time()
        try:
            with time_limit(seconds):
                outcomes[attempt(mutant, chance)] += 1
        except Exception as error:  # noqa: BLE001  # the very thing that is looked for
            kept = Path(tempfile.gettempdir(), f"{name}-{seed}-{number}.img")
            kept.write_bytes(mutant)
            print(f"mutant {number}: {type(error).__name__}: {error}; kept as {kept}; again: --seed {seed} --first {number}")
            return 1
        if (took := time.process_time() - start) > slowest:
            slowest, slowest_number = took, number
    total = time.monotonic() - began
    print(f"{count} mutants of {len(samples)} images in {total:.0f} s, slowest {slowest * 1000:.0f} ms ({slowest_number})")
    for outcome, times in outcomes.most_common(40):
        print(f"{times:8} {outcome}")
    return 0
