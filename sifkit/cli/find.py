"""``sifkit find``."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, show
from .console import Console
from .embedding import Partition
from .frame import verb
from .looking import TYPES, Upper, entry_fields, looking, tell, with_facts
from .places import place, places
from .render import shown_name

if TYPE_CHECKING:
    from ext3.filesystem import Entry, Stat

__all__ = ["command"]

LETTERS = {"f": "file", "d": "directory", "l": "symlink", "p": "fifo", "s": "socket", "b": "block", "c": "character"}
UNITS = {"": 512, "b": 512, "c": 1, "w": 2, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"([+-]?)([0-9]{1,18})([bcwkMG]?)", re.ASCII)

Test = Callable[[bytes, "Stat"], bool]


def _size_test(text: str) -> Test:
    """As find has it: the size in units, rounded up, is the number, above it (+) or below it (-)."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"-size {show(text)}: not a size", hint="write for example -size +10M, -size -4k or -size 0")
    sign, number, unit = match[1], int(match[2]), UNITS[match[3]]

    def test(_: bytes, found: Stat) -> bool:
        units = -(-found.size // unit)
        return units > number if sign == "+" else units < number if sign == "-" else units == number

    return test


def _newer_test(text: str, partition: str | None) -> Test:
    pair = place(text)
    if pair is None:
        limit = os.stat(text).st_mtime_ns
    else:
        from ..overlay.image import open_image

        with open_image(pair[0], partition) as filesystem:
            limit = filesystem.stat(pair[1]).mtime
    return lambda _, found: found.mtime > limit


@verb(
    examples=[
        "sifkit find overlay.img",
        "sifkit find overlay.img /upper -name '*.py' -type f",
        "sifkit find overlay.img -size +10M",
        "sifkit find overlay.img /upper -newer stamp.txt -0 | xargs -0 -n1 echo",
    ],
    once=("name", "kind", "size", "newer"),
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE [PATH]...", help="an ext3 image and paths in it (default: /); or IMAGE:/PATH")
    ],
    name: Annotated[str | None, typer.Option("-name", metavar="GLOB", help="the last part of the path matches")] = None,
    kind: Annotated[str | None, typer.Option("-type", metavar="f|d|l|p|s|b|c", help="what it is; several: f,l")] = None,
    size: Annotated[str | None, typer.Option("-size", metavar="[+-]N[ckMG]", help="more (+), less (-) or exactly")] = None,
    newer: Annotated[str | None, typer.Option("-newer", metavar="FILE", help="changed after FILE, or IMAGE:/PATH")] = None,
    partition: Partition = None,
    upper: Upper = False,
    zero: Annotated[bool, typer.Option("-0", "-print0", "--zero", help="end each path with NUL, and escape nothing")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object for each file, and a summary last")] = False,
) -> int:
    """Find files in an image: all tests given must hold. Links are not followed. The image is only read."""
    wanted = places(arguments, default=["/"])
    tests: list[Test] = []
    if name is not None:
        matches = re.compile(os.fsencode(fnmatch.translate(name)), re.DOTALL).match
        tests.append(lambda path, _: matches(path.rstrip(b"/").rpartition(b"/")[2]) is not None)
    if kind is not None:
        if unknown := [letter for letter in kind.split(",") if letter not in LETTERS]:
            raise UsageError(f"-type {show(unknown[0])}: must be one of {', '.join(LETTERS)}", hint="f is a regular file")
        words = {LETTERS[letter] for letter in kind.split(",")}
        tests.append(lambda _, found: TYPES[found.file_type] in words)
    if size is not None:
        tests.append(_size_test(size))
    if newer is not None:
        tests.append(_newer_test(newer, partition))

    from ext3.errors import Ext3Error
    from ext3.filesystem import Entry

    end = b"\0" if zero else b"\n"
    failed = 0
    for image, paths in wanted:
        count = 0
        problems: list[Exception] = []
        with looking(console, image, partition, upper=upper) as view:
            for path in paths:
                try:
                    ino = view.lookup(path, follow=False)
                    found = view.filesystem.stat(ino)
                except Ext3Error as error:
                    problems.append(error)
                    continue
                entries: list[tuple[bytes, Entry]] = [(path, Entry(path, ino, found.file_type))]
                walk = view.walk(path, ino, problems) if found.is_dir else iter(())
                for where, _, facts in with_facts(view, chain(entries, walk), problems):
                    if not all(test(where, facts) for test in tests):
                        continue
                    count += 1
                    if json:
                        target = view.filesystem.readlink(facts.ino) if facts.is_symlink else None
                        console.emit_raw(entry_fields(where, facts, target))
                    else:
                        console.write((where if zero else shown_name(where, console)) + end)
            failed += len(problems)
            tell(console, problems)
            if json:
                console.emit({"entries": count, "errors": len(problems)}, image=image)
    return 1 if failed else 0
