"""Opening images for the verbs: warnings, the image's name in every error, stamps, and the rule for signatures."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...errors import ImageInUseError, SifkitError, UsageError, show
from ..support.console import Console
from ..support.environment import source_date_epoch
from ..support.render import shell_word

if TYPE_CHECKING:
    from ...sif import SIF, Descriptor, Notice, Stamp

__all__ = [
    "Deterministic",
    "DropSignatures",
    "KeepSignatures",
    "Later",
    "Progress",
    "check_not_written",
    "check_unmounted",
    "concerning",
    "drop_or_refuse",
    "editing",
    "reading",
    "result",
    "same_file",
    "stamp",
    "tell_warnings",
]

MOST_WARNINGS = 3
EDITING = "Editing"
_OWN_HINT = re.compile(r"sifkit sif (list|check|compact)$")

DropSignatures = Annotated[
    bool, typer.Option("--drop-signatures", help="remove the signatures that this breaks", rich_help_panel=EDITING)
]
KeepSignatures = Annotated[
    bool,
    typer.Option("--keep-broken-signatures", help="go on, and keep signatures that this breaks", rich_help_panel=EDITING),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="no times, as the reference library has it; SOURCE_DATE_EPOCH gives a date instead",
        rich_help_panel=EDITING,
    ),
]
Progress = Annotated[
    str, typer.Option("--progress", metavar="auto|plain|json|off", help="how to tell how far it is", rich_help_panel="Output")
]


def stamp(deterministic: bool) -> Stamp | None:
    """The time of what is written: none, SOURCE_DATE_EPOCH's, or (None) the present."""
    from ...sif import Stamp

    if deterministic:
        return Stamp.deterministic()
    seconds = source_date_epoch()
    return None if seconds is None else Stamp.at(seconds)


@contextmanager
def concerning(image: str) -> Iterator[None]:
    """Errors that name no file are about ``image``; hints that name a command get the image's name."""
    from ...sif import SIFError

    try:
        yield
    except SifkitError as error:
        own = isinstance(error, SIFError) and not isinstance(error, UsageError) and error.path in (None, image)
        if own and show(image) not in error.message:
            error.path = image
            error.message = f"{show(image)}: {error.message}"
        if _OWN_HINT.search(error.hint):
            error.hint += f" {shell_word(image)}"
        if isinstance(error, ImageInUseError) and error.message.endswith("by another process"):
            _name_holders(image, error)
        raise


def _name_holders(image: str, error: ImageInUseError) -> None:
    """Say who uses the image, as far as that can be seen."""
    from ...overlay.in_use import image_use

    with suppress(OSError):
        holders = [holder for holder in image_use(image).holders if holder.pid != os.getpid()]
        error.holders = tuple(f"{holder.pid} {holder.command}" for holder in holders)
        if holders:
            error.message += ": " + ", ".join(f"process {holder.pid} ({holder.command})" for holder in holders)


def check_unmounted(image: str, found: Iterable[Descriptor]) -> None:
    """Raise ImageInUseError where the kernel has one of these partitions mounted: its bytes are about to go.

    Locks are the library's to see; a loop device takes none.
    """
    from ...overlay.in_use import ImageUse, image_use

    for descriptor in found:
        if descriptor.partition is not None and descriptor.size:
            use = ImageUse("none", mounts=image_use(image, span=(descriptor.offset, descriptor.size)).mounts)
            if use.busy:
                raise ImageInUseError(
                    f"{show(image)}: object {descriptor.id} is in use: {use.describe()}",
                    path=image,
                    hint="unmount it, or stop the container that uses it",
                )


def check_not_written(image: str) -> Sequence[str]:
    """Raise ImageInUseError where the kernel may write to the image by a loop device. Where it only reads: the mount points."""
    from ...overlay.in_use import check_unused

    use = check_unused(image, writers_only=True, own_lock=True)
    return [mount.path or mount.device for mount in use.mounts]


@contextmanager
def _opened(console: Console, image: str, mode: Literal["r", "r+"], when: Stamp | None) -> Iterator[SIF]:
    from ...sif import SIF

    console.image = image
    with concerning(image), SIF.open(image, mode, stamp=when) as sif:
        yield sif


class Later:
    """What a verb has to say beside its result, said when it is done: of one that fails only the error is."""

    def __init__(self, console: Console) -> None:
        self.program = console.program
        self._console = console
        self._said: list[Callable[[], None]] = []

    def warn(self, text: str) -> None:
        self._said.append(partial(self._console.warn, text))

    def note(self, text: str) -> None:
        self._said.append(partial(self._console.note, f"{self.program}: {text}"))

    def tell(self) -> None:
        for say in self._said:
            say()


@contextmanager
def reading(console: Console, image: str) -> Iterator[SIF]:
    """The image, to be looked at; what is wrong with it is told at the end."""
    with _opened(console, image, "r", None) as sif:
        yield sif
        tell_warnings(console, image, sif.warnings)


@contextmanager
def editing(console: Console, image: str, *, deterministic: bool = False) -> Iterator[tuple[SIF, Later]]:
    """The image, open and locked for writing, and what takes notes until the end."""
    when = stamp(deterministic)
    with _opened(console, image, "r+", when) as sif:
        later = Later(console)
        yield sif, later
        later.tell()
        tell_warnings(console, image, sif.warnings)


def tell_warnings(console: Console, image: str, notices: Sequence[Notice]) -> None:
    """What is wrong and does no harm, the first few, and how to see the rest."""
    if console.json:
        return
    for notice in notices[:MOST_WARNINGS]:
        console.warn(f"{show(image)}: {notice.message}")
    if len(notices) <= MOST_WARNINGS:
        if notices and console.err_is_terminal:
            console.note(f"look closer: sifkit sif check {shell_word(image)}")
    else:
        more = len(notices) - MOST_WARNINGS
        console.warn(f"{show(image)}: {more} more; see all with: sifkit sif check {shell_word(image)}")


def same_file(one: str, other: str) -> bool:
    """Whether two names are of the same file; False where one of them is none."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def drop_or_refuse(
    later: Later,
    image: str,
    sif: SIF,
    after: Sequence[Descriptor],
    edit: str,
    *,
    drop: bool,
    keep: bool,
    rewritten: Iterable[int] = (),
    about: int | None = None,
) -> list[int]:
    """The ids of signatures to remove with an edit that leaves ``after``; raise SignedError where that was not allowed.
    ``about``: the object that is edited, and cannot be removed with the same edit."""
    from ...sif.signatures import SignedError, broken, named, what_is_signed

    if drop and keep:
        raise UsageError("--drop-signatures and --keep-broken-signatures contradict each other", hint="give one of them")
    harmed = broken(sif.descriptors, after, what_is_signed(sif), rewritten=rewritten)
    if not harmed:
        return []
    if not keep and any(signature.id == about for signature in harmed):
        error = SignedError.of(harmed, edit)
        error.hint = f"--keep-broken-signatures does it all the same; sifkit sif del {about} {shell_word(image)} removes it"
        raise error
    if not (drop or keep):
        raise SignedError.of(harmed, edit)
    if keep:
        later.warn(f"{edit} broke {named(harmed)}")
        return []
    later.note(f"removed {named(harmed)}, which {edit} broke")
    return [signature.id for signature in harmed]


def result(console: Console, image: str, text: str, fields: dict[str, Any]) -> None:
    """What an edit did: a line for a person, or JSON."""
    if console.json:
        console.emit(fields, image=image)
    else:
        console.result(f"{show(image)}: {text}")
