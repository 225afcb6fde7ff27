"""List the problems that a check knows, as the page docs/problems.md.

python -m tools.list_problems > docs/problems.md
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import ext3.fsck.problems
from ext3.fsck.problem import PreenAnswer, Problem

__all__ = ["all_problems", "main", "page"]

TITLES = {
    "volume": "Superblock and group descriptors",
    "journal": "Journal, orphan list",
    "inodes": "Inodes, block maps, attributes",
    "shared": "Blocks of several owners",
    "directories": "Directories",
    "structure": "Connections, link counts",
    "counts": "Bitmaps and counts",
}
"""Modules of problem tables, in the order of the page."""
HEAD = """# Problems that `sifkit overlay fsck` finds

Each kind of problem has a code that stays: `code` in [JSON](json.md), `Finding.code` in Python. What `-p` does with it is what
e2fsck does: it repairs, goes on without a repair, or stops for a decision, which `-y` or an answer gives; what has no repair
is left. A note is no problem. Places of numbers are shown as `{name}`. The page is made by `python -m tools.list_problems`.
"""
WORDS = {PreenAnswer.REPAIR: "repairs", PreenAnswer.SKIP: "goes on", PreenAnswer.STOP: "stops"}


def all_problems() -> Iterator[tuple[str, Problem]]:
    """Yield (module, problem) of all tables."""
    names = [module.name for module in pkgutil.iter_modules(ext3.fsck.problems.__path__)]
    for name in sorted(names, key=[*TITLES, *names].index):
        found = importlib.import_module(f"{ext3.fsck.problems.__name__}.{name}")
        for value in vars(found).values():
            if isinstance(value, Problem):
                yield name, value


def page() -> str:
    """Return the page."""
    lines = [HEAD.rstrip()]
    last = ""
    for module, problem in all_problems():
        if module != last:
            lines += ["", f"## {TITLES.get(module, module)}", "", "| code | `-p` | problem | repair |", "|---|---|---|---|"]
            last = module
        preen = "note" if problem.note else WORDS[problem.preen] if problem.question else "leaves it"
        repair = "" if problem.note else problem.question or "none"
        lines.append(f"| `{problem.code}` | {preen} | {_cell(problem.message)} | {_cell(repair)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    print(page(), end="")


if __name__ == "__main__":
    main()
