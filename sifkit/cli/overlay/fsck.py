"""``sifkit overlay fsck``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ...errors import SifkitError, UsageError, shell_quote, show
from ..support import values
from ..support.check_command import CANCELLED, CheckCommand
from ..support.console import Console
from ..support.environment import sif_stamp, source_date_epoch
from ..support.failures import errors_about
from ..support.frame import verb
from ..support.fsck_questions import Questions, can_ask
from ..support.fsck_report import PASSES, FindingPrinter, image_words, summary_fields, summary_lines
from ..support.options import Offset, Partition, ProgressMode, RequireLock, SignatureFlags, byte_offset
from ..support.progress import MODES, Reporter, reporter
from ..support.reading import image_options
from ..support.results import warn_unlocked

if TYPE_CHECKING:
    from ext3.fsck.context import CheckOptions
    from ext3.fsck.finding import Finding, Report
    from ext3.fsck.policy import Policy

    from ...overlay.checking import ImageCheck

__all__ = ["command"]

HOW, WHAT, OUTPUT = "Repairs", "What is checked", "Output"
JOURNAL_ONLY = "journal_only"
MAX_BLOCK_SIZE = 65536


def _flag(*names: str, to: str, text: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=to)


def _unneeded(*names: str) -> Any:
    """Option of e2fsck that an image file has no use for."""
    return typer.Option(*names, hidden=True)


def _version(wanted: bool) -> None:
    if wanted:
        from ... import __version__

        typer.echo(f"sifkit {__version__}")
        raise typer.Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class UnneededFlags:
    """Options of e2fsck that are known and refused. Raises UsageError."""

    bad_blocks: Annotated[bool, _unneeded("-c")] = False
    add_list: Annotated[str | None, _unneeded("-l")] = None
    set_list: Annotated[str | None, _unneeded("-L")] = None
    keep_list: Annotated[bool, _unneeded("-k")] = False
    flush: Annotated[bool, _unneeded("-F")] = False
    external_journal: Annotated[str | None, _unneeded("-j")] = None
    interactive: Annotated[bool, _unneeded("-r")] = False

    def __post_init__(self) -> None:
        given = (
            ("-c", self.bad_blocks),
            ("-l", self.add_list is not None),
            ("-L", self.set_list is not None),
            ("-k", self.keep_list),
            ("-F", self.flush),
            ("-j", self.external_journal is not None),
        )
        for name, is_given in given:
            if is_given:
                raise UsageError(f"{name} is not needed for an image file", hint="omit it")


@verb(
    locks=True,
    kind=CheckCommand,
    examples=[
        "sifkit overlay fsck -n overlay.img",
        "sifkit overlay fsck -p overlay.img",
        "sifkit overlay fsck -fy --undo overlay.undo overlay.img",
        "sifkit overlay fsck -fn --json overlay.img",
        "sifkit overlay fsck -p image.sif",
    ],
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="overlay image, or SIF image with one")],
    look: Annotated[bool, _flag("-n", to=HOW, text="change nothing; report what is wrong")] = False,
    preen: Annotated[bool, _flag("-p", "-a", to=HOW, text="make the safe repairs; stop at one that needs a decision")] = False,
    yes: Annotated[bool, _flag("-y", to=HOW, text="make all repairs")] = False,
    undo: Annotated[
        str | None,
        typer.Option(
            "--undo",
            "-z",
            metavar="FILE",
            help="save what is overwritten in a new file, for: sifkit overlay undo",
            rich_help_panel=HOW,
        ),
    ] = None,
    rebuild: Annotated[bool, _flag("-D", to=HOW, text="rebuild and optimise directories")] = False,
    force: Annotated[bool, _flag("-f", to=WHAT, text="check even if the filesystem says that it is clean")] = False,
    superblock: Annotated[
        str | None,
        typer.Option("-b", metavar="BLOCK", help="use the copy of the superblock in this block", rich_help_panel=WHAT),
    ] = None,
    block_size: Annotated[
        str | None, typer.Option("-B", metavar="SIZE", help="block size to look for that copy with", rich_help_panel=WHAT)
    ] = None,
    journal_only: Annotated[bool, _flag("--journal-only", to=WHAT, text="replay the journal and do nothing else")] = False,
    extended: Annotated[
        str | None, typer.Option("-E", metavar=JOURNAL_ONLY, help="as --journal-only", rich_help_panel=WHAT)
    ] = None,
    partition: Partition = None,
    offset: Offset = None,
    times: Annotated[bool, _flag("-t", to=OUTPUT, text="show how long each pass took")] = False,
    completion: Annotated[
        str | None,
        typer.Option(
            "-C",
            metavar="FD",
            help="write the progress to this descriptor, as e2fsck does; 0: show a bar",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    progress: ProgressMode = "auto",
    json: Annotated[
        bool, typer.Option("--json", help="print a JSON object per finding, and a summary", rich_help_panel=OUTPUT)
    ] = False,
    version: Annotated[
        bool, typer.Option("-V", is_eager=True, callback=_version, help="show the version", rich_help_panel=OUTPUT)
    ] = False,
    require_lock: RequireLock = False,
    flags: SignatureFlags,
    unneeded: UnneededFlags,
) -> None:
    """Check an ext3 image and repair it, as e2fsck does, without e2fsck and without root.

    Without -n, -p or -y each repair is asked about. An image that says it is clean is not checked without -f. The image
    must not be in use, but may be looked at with -n.

    The exit code is 0 if there are no problems, 1 if all were repaired, 4 if problems are left, 8 if the check cannot run,
    16 on usage errors, 32 if interrupted.
    """
    values.choice("--progress", progress, MODES)
    _check_extended(extended)
    if look + preen + yes > 1:
        _refuse("only one of -n, -p and -y can be given")
    if look and rebuild:
        _refuse("-n changes nothing, and -D rebuilds directories; give one of them")
    start = byte_offset(offset)
    number = _number("-b", superblock, least=0) if superblock is not None else 0
    size = _block_size(block_size)
    descriptor = _descriptor(completion)
    asks = not (look or preen or yes)
    if asks and not can_ask():
        _refuse("no terminal to ask: use -p (safe repairs), -y (all) or -n (look only)")

    from ext3.fsck.context import CheckOptions

    from ...overlay.checking import CheckPlace, open_for_check

    console.image = image
    console.image_options = image_options(partition, offset=start, upper=False)
    options = CheckOptions(
        force=force,
        rebuild_directories=rebuild,
        superblock=number,
        block_size=size,
        journal_only=journal_only or extended is not None,
    )
    place = CheckPlace(
        partition=partition,
        offset=start,
        on_signatures=flags.signatures,
        require_lock=require_lock,
        stamp=sif_stamp(False),
    )
    mode = "auto" if descriptor is None else "off"
    with (
        errors_about(image),
        open_for_check(image, place, writes=not look) as opened,
        reporter(mode if progress == "auto" else progress, console) as bar,
    ):
        session = _Session(console, image, opened, bar, "look" if look else "preen" if preen else "yes" if yes else "ask")
        code = session.run(options, undo=undo, descriptor=descriptor, times=times)
    raise typer.Exit(code)


def _refuse(text: str) -> NoReturn:
    """Raise the error of a request that cannot be run: exit code 8, as e2fsck has it."""
    error = SifkitError(text)
    error.kind = "usage"
    raise error


def _check_extended(text: str | None) -> None:
    """Raise UsageError for another value of -E than journal_only."""
    for word in [] if text is None else text.split(","):
        if word != JOURNAL_ONLY:
            raise UsageError(f"-E {show(word)} is not needed for an image file", hint=f"-E {JOURNAL_ONLY} is known")


def _number(option: str, text: str, *, least: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) < least:
        raise UsageError(f"{option} {show(text)}: not a number", hint=f"write {option} 8193" if option == "-b" else "")
    return int(text)


def _block_size(text: str | None) -> int:
    if text is None:
        return 0
    found = _number("-B", text, least=1)
    if found < 1024 or found > MAX_BLOCK_SIZE or found & (found - 1):
        raise UsageError(f"-B {found}: not a block size", hint="write -B 1024, 2048 or 4096")
    return found


def _descriptor(text: str | None) -> int | None:
    """Return the descriptor that progress goes to; None for a bar. Raises SifkitError if it is not open."""
    found = 0 if text is None else _number("-C", text, least=0)
    if not found:
        return None
    try:
        os.fstat(found)
    except (OSError, OverflowError):
        _refuse(f"-C {found}: no such open descriptor")
    return found


class _Session:
    """One check of an open image: its policy, what is printed as it goes, its result."""

    def __init__(self, console: Console, image: str, opened: ImageCheck, bar: Reporter, mode: str) -> None:
        from ext3.fsck.paths import PathFinder

        self.console = console
        self.image = image
        self.opened = opened
        self.bar = bar
        self.mode = mode
        finder = PathFinder(opened.device)

        def path_of(finding: Finding) -> bytes | None:
            return finder.path_at(finding.place)

        self.printer = FindingPrinter(console, image, writes=mode != "look", path_of=path_of, clear=bar.clear)
        self._pass = (0, 0)
        self._done = 0

    def policy(self) -> Policy:
        from ext3.fsck.policy import Ask, CheckOnly, Preen, Yes

        if self.mode == "ask":
            questions = Questions(
                self.console,
                self.printer.text,
                before=self._before_question,
                asked=lambda found: self.printer.asked.add(id(found)),
            )
            return Ask(questions.decide)
        policies: dict[str, Callable[[], Policy]] = {"look": CheckOnly, "preen": Preen, "yes": Yes}
        return policies[self.mode]()

    def _before_question(self) -> None:
        self.opened.check_writable()
        self.bar.clear()

    def run(self, options: CheckOptions, *, undo: str | None, descriptor: int | None, times: bool) -> int:
        """Check and print; return the exit code."""
        from ext3.errors import NotExt3Error

        from ...overlay.checking import repair_stamp

        console, opened, image = self.console, self.opened, self.image
        writes = self.mode != "look"
        if opened.users:
            console.warn(f"{show(image)} is in use: {opened.users}; changes under way look like damage")
        began = time.monotonic()
        try:
            report = opened.run(
                self.policy(),
                options=options,
                stamp=repair_stamp(opened.device, source_date_epoch()),
                undo=undo,
                progress=self._to_descriptor(descriptor) if descriptor is not None else self._to_bar,
                begin=self._begin_pass,
                observe=self.printer.print,
            )
        except NotExt3Error as error:
            if options.superblock:
                error.hint = f"there is no copy of the superblock in block {options.superblock}: omit -b, and one is looked for"
            raise
        except KeyboardInterrupt:
            self.bar.clear()
            done = "what was repaired is kept, run it again" if opened.written else "the image is as it was"
            console.error(f"interrupted; {done}")
            return CANCELLED
        self.bar.done()
        seconds = time.monotonic() - began
        if opened.locked is not None:
            warn_unlocked(console, image, opened.locked)
        if opened.changed_meanwhile() and not opened.users:
            console.warn(f"{show(image)} changed while it was checked; what was found may not fit together")
        for note in opened.notes:
            console.note(note)
        if times:
            self._print_times(report)
        if report.reason:
            console.detail(f"{show(image)}: {report.reason}, so it was checked")
        if console.verbose and not report.skipped:
            self._print_counts(report)
        saved = undo if undo is not None and os.path.lexists(undo) and writes and opened.written else None
        if console.json:
            console.emit(summary_fields(report, opened, writes=writes, undo=saved, seconds=seconds), image=image)
        else:
            for line in summary_lines(report, image, image_words(image, console.image_options), writes=writes):
                console.note(line)
            if saved is not None:
                words = image_words(image, console.image_options)
                console.note(f"to undo it: sifkit overlay undo {shell_quote(saved)} {words}")
        return report.exit_code

    def _begin_pass(self, name: str) -> None:
        self.bar.clear()
        if name in PASSES:  # the others are steps between passes
            self.console.detail(PASSES[name])

    def _to_bar(self, number: int, done: int, total: int) -> None:
        if (number, total) != self._pass:
            self.bar.phase(f"pass {number}", total, "steps")
            self._pass, self._done = (number, total), 0
        self.bar.advance(max(0, done - self._done))
        self._done = max(done, self._done)

    def _to_descriptor(self, descriptor: int) -> Callable[[int, int, int], None]:
        def write(number: int, done: int, total: int) -> None:
            if descriptor == 1:
                sys.stdout.flush()
            os.write(descriptor, f"{number} {done} {total} {show(self.image)}\n".encode())

        return write

    def _print_times(self, report: Report) -> None:
        for name, seconds in report.seconds.items():
            self.console.note(f"{f'pass {name}' if name in PASSES else name}: {seconds:.3f} s")

    def _print_counts(self, report: Report) -> None:
        rows = (
            ("inodes used", report.inodes_used),
            ("directories", report.directories),
            ("files not contiguous", report.fragmented),
            ("blocks used", report.blocks_used),
        )
        for text, number in rows:
            self.console.detail(f"{number:>12,} {text}")
