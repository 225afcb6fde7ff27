"""``sifkit find``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError, show
from ..vfs.glob import name_matcher
from .support.console import Console
from .support.frame import VerbCommand, verb
from .support.image_path import split_image_path
from .support.options import ZERO_HELP, ReadArguments, ReadFlags
from .support.reading import TYPES, ReadBatch, entry_fields, offset_of, open_for_reading, overlays_above
from .support.render import display_name
from .support.suggest import unknown_option
from .support.values import levels_below

if TYPE_CHECKING:
    from ..vfs.file_tree import FileTree, Row, Stat

__all__ = ["command"]

LETTERS = {"f": "file", "d": "directory", "l": "symlink", "p": "fifo", "s": "socket", "b": "block", "c": "character"}
UNITS = {"": 512, "b": 512, "c": 1, "w": 2, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"([+-]?)([0-9]{1,18})([bcwkMG]?)", re.ASCII)

Test = Callable[[bytes, "Stat"], bool]


class _FindCommand(VerbCommand):
    """Command with tests such as ``-name``: an unknown one is reported as a whole, not letter by letter."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            letters = getattr(error, "option_name", "")
            if type(error).__name__ != "NoSuchOption" or not isinstance(letters, str) or letters.startswith("--"):
                raise
            known = [name for param in self.params for name in (*param.opts, *param.secondary_opts)]
            word = next((arg for arg in args if arg.startswith("-") and letters[1:] in arg[1:] and arg not in known), letters)
            raise UsageError(unknown_option(word, self.params), hint=f"see {ctx.command_path} -h") from error


def _name_test(glob: str, *, ignore_case: bool = False) -> Test:
    """Test of ``-name`` and ``-iname``."""
    matches = name_matcher(glob, ignore_case=ignore_case)
    return lambda path, _: matches(os.fsdecode(path.rstrip(b"/").rpartition(b"/")[2] or b"/"))


def _path_test(glob: str) -> Test:
    """Test of ``-path``: the whole path as it is printed."""
    matches = name_matcher(glob)
    return lambda path, _: matches(os.fsdecode(path))


def _size_test(text: str) -> Test:
    """Test of ``-size``: the size in units, rounded up, equals the number, is above (+) or below it (-), as find."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"-size {show(text)}: not a size", hint="write -size +10M, -size -4k or -size 0")
    sign, number, unit = match[1], int(match[2]), UNITS[match[3]]

    def test(_: bytes, found: Stat) -> bool:
        units = -(-found.size // unit)
        return units > number if sign == "+" else units < number if sign == "-" else units == number

    return test


def _newer_test(console: Console, text: str, flags: ReadFlags, named: list[str]) -> Test:
    """Test of ``-newer``: modified after the file named, on the host or in an image, which is added to ``named``."""
    pair = split_image_path(text)
    if pair is None:
        limit = os.stat(text).st_mtime_ns
    else:
        from ..overlay.images.image_format import is_sif
        from ..vfs.resolve import Resolver

        image, path = pair[0], os.fsencode(pair[1])
        partition = flags.partition if is_sif(image) else None
        named.append(image)
        overlays = overlays_above(image, flags.overlay, named)
        offset = offset_of(image, flags.start, named)
        with open_for_reading(console, image, partition, offset=offset, upper=flags.upper, overlays=overlays) as opened:
            console.path = path
            limit = opened.tree.stat(Resolver(opened.tree).lookup(path)).mtime
    return lambda _, found: found.mtime > limit


@verb(
    examples=[
        "sifkit find overlay.img",
        "sifkit find overlay.img /upper -name '*.py' -type f",
        "sifkit find overlay.img -size +10M",
        "sifkit find image.sif /opt -name '*.py'",
        "sifkit find overlay.img /upper -newer stamp.txt -0 | xargs -0 -n1 echo",
    ],
    once=("name", "iname", "path", "kind", "size", "newer", "depth"),
    kind=_FindCommand,
)
def command(
    console: Console,
    *,
    arguments: ReadArguments,
    name: Annotated[str | None, typer.Option("-name", metavar="GLOB", help="base name matches GLOB")] = None,
    iname: Annotated[str | None, typer.Option("-iname", metavar="GLOB", help="as -name, ignoring case")] = None,
    path: Annotated[str | None, typer.Option("-path", metavar="GLOB", help="the whole path matches GLOB")] = None,
    depth: Annotated[str | None, typer.Option("-maxdepth", metavar="N", help="descend at most N levels (0: PATH only)")] = None,
    kind: Annotated[str | None, typer.Option("-type", metavar="f|d|l|p|s|b|c", help="file type, or several as in f,l")] = None,
    size: Annotated[
        str | None, typer.Option("-size", metavar="[+-]N[ckMG]", help="size is N units, more (+) or less (-)")
    ] = None,
    newer: Annotated[str | None, typer.Option("-newer", metavar="FILE", help="modified after FILE (or IMAGE:/PATH)")] = None,
    flags: ReadFlags,
    zero: Annotated[bool, typer.Option("-0", "-print0", "--zero", help=ZERO_HELP)] = False,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per file, and a summary")] = False,
) -> int:
    """Find files in an image for which all given tests are true. Symbolic links are not followed. The image is not modified."""
    from ..vfs.file_tree import SYMLINK, file_type_of, stat_of

    batch = ReadBatch(console, arguments, flags, default=["/"])
    tests: list[Test] = []
    if name is not None:
        tests.append(_name_test(name))
    if iname is not None:
        tests.append(_name_test(iname, ignore_case=True))
    if path is not None:
        tests.append(_path_test(path))
    levels = levels_below("-maxdepth", depth)
    if kind is not None:
        if unknown := [letter for letter in kind.split(",") if letter not in LETTERS]:
            raise UsageError(f"-type {show(unknown[0])}: must be one of {', '.join(LETTERS)}", hint="f is a regular file")
        types = {LETTERS[letter] for letter in kind.split(",")}
        tests.append(lambda _, found: TYPES[file_type_of(found.mode)] in types)
    if size is not None:
        tests.append(_size_test(size))
    if newer is not None:
        tests.append(_newer_test(console, newer, flags, batch.named))

    end = b"\0" if zero else b"\n"
    for image, paths, opened in batch.images():
        count = 0
        for top in paths:
            for where, row in _files(batch, opened.tree, top, levels):
                try:
                    found = stat_of(row)
                    if tests and not all(test(where, found) for test in tests):
                        continue
                    target = opened.tree.readlink(row.node) if json and file_type_of(found.mode) == SYMLINK else None
                except OSError as error:
                    batch.problem(where, error)
                    continue
                count += 1
                if json:
                    console.emit_raw(entry_fields(where, found, target))
                else:
                    console.write((where if zero else display_name(where, console)) + end)
        if json:
            console.emit({"entries": count, "errors": batch.errors}, image=image)
    return batch.exit_code


def _files(batch: ReadBatch, tree: FileTree[Any], path: bytes, levels: int) -> Iterator[tuple[bytes, Row[Any]]]:
    """Iterate over the file at ``path`` and everything at most ``levels`` below it; errors are reported."""
    from ..vfs.file_tree import TreeRow, file_type_of
    from ..vfs.resolve import Resolver, is_dir
    from ..vfs.walk import walk

    try:
        node = Resolver(tree).lookup(path, follow=False)
        found = tree.stat(node)
    except OSError as error:
        batch.problem(path, error)
        return
    yield path, TreeRow(path, node, file_type_of(found.mode), found, False)
    if is_dir(found) and levels:
        for walked in walk(tree, node, path, levels=levels, on_problem=batch.problem):
            yield walked.path, walked.row
