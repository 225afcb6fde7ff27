"""What the verbs that change an image have in common: their arguments, opening it, failures in coreutils' words, the result."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from ...errors import SifkitError, UsageError, show
from .console import Console, Fields, named
from .embedding import on_signatures, tell_locks
from .image_path import check_not_dotted, place
from .reading import image_options
from .render import shell_word

if TYPE_CHECKING:
    from ext3.edit.filesystem import WritableFilesystem

    from ...overlay.resolve import ResolvedPath
    from ...overlay.upper_edit import OverlayEditor

__all__ = [
    "ChangeOptions",
    "Changes",
    "Exact",
    "Goal",
    "Json",
    "NewOwner",
    "changing",
    "dangling",
    "goals",
    "new_owner",
    "one_image",
    "refused",
    "umask",
    "warn_outside",
]


Json = Annotated[bool, typer.Option("--json", help="the result as one JSON object")]
Exact = Annotated[
    bool, typer.Option("-T", "--no-target-directory", help="the last argument is the new name, never a directory")
]
NewOwner = Annotated[
    str, typer.Option("--owner", metavar="UID:GID", help="whom new files belong to (default: you); also NAME, NAME:GROUP")
]


@dataclass(frozen=True, slots=True)
class Goal:
    """An argument IMAGE:/PATH; ``shown`` as it was written."""

    image: str
    path: bytes
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOptions:
    """How the image is opened; see ``overlay.edit``."""

    partition: str | None
    upper: bool
    signatures: Literal["refuse", "drop", "keep"]
    require_lock: bool

    @classmethod
    def of(cls, partition: str | None, upper: bool, *, drop: bool, keep: bool, require_lock: bool) -> Self:
        """From the options of a verb; ``drop`` and ``keep``: signatures. Raises UsageError."""
        return cls(partition=partition, upper=upper, signatures=on_signatures(drop, keep), require_lock=require_lock)


def goals(arguments: Sequence[str]) -> list[Goal]:
    """IMAGE:/PATH for each argument. Raises UsageError for a host path, FileNotFoundError where there is no such image."""
    return [_goal(argument) for argument in arguments]


def _goal(argument: str) -> Goal:
    found = place(argument)
    if found is not None:
        return Goal(found[0], os.fsencode(found[1]), show(argument))
    check_not_dotted(argument)
    image, colon, _ = argument.partition(":/")
    if colon and image and not argument.startswith("./") and not os.path.lexists(image):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), image)
    hint = "name a path in an image, for example overlay.img:/upper/opt/x"
    raise UsageError(f"{show(argument)} is not IMAGE:/PATH", hint=hint)


def one_image(found: Sequence[Goal], verb: str) -> str:
    """The image all are in. Raises UsageError."""
    for goal in found[1:]:
        if goal.image != found[0].image and not os.path.samefile(goal.image, found[0].image):
            raise UsageError(
                f"{goal.shown} and {found[0].shown} are in different images",
                hint=f"{verb} works within one; sifkit cp copies from one to another",
            )
    return found[0].image


def umask() -> int:
    """Permissions that new files do not get."""
    found = os.umask(0o077)
    os.umask(found)
    return found


def new_owner(text: str) -> tuple[int, int]:
    """Whom new files belong to: as asked for, or who runs this."""
    from .values import owner

    if text:
        return owner("--owner", text)
    return owner("--owner", "me") if hasattr(os, "getuid") else (0, 0)


class Changes:
    """What is done and what failed, of one run of a verb."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.done = 0
        self.whiteouts = 0
        """Whiteouts that were left."""
        self.errors: list[SifkitError] = []

    def over(self, wanted: Sequence[Goal], options: ChangeOptions, do: Callable[[OverlayEditor, Goal], None]) -> None:
        """``do`` what is to be done for each argument, in its image, which is open and locked; those that stand together are
        one edit. What ``do`` raises drops the edit; ``attempt`` is for what concerns one argument."""
        for image, group in groupby(wanted, key=lambda goal: goal.image):
            with changing(self.console, image, options) as editor:
                for goal in group:
                    do(editor, goal)
                self.whiteouts += editor.whiteouts

    def below(self, editor: OverlayEditor, goal: Goal, *, follow: bool, recursive: bool) -> list[tuple[int, str]]:
        """(inode, how it is written) of an argument, and with ``recursive`` of all that is below it, as it is before anything
        is changed. PathError where there is no such file."""
        ino = editor.lookup(goal.path, follow=follow)
        found = [(ino, goal.shown)]
        if recursive and editor.stat(ino).is_dir:
            base = goal.shown.rstrip("/")
            found += [(entry.ino, f"{base}/{show(path)}") for path, entry in editor.walk(ino)]
        return found

    def each(self, what: str) -> None:
        """One more is done; told with -v."""
        self.done += 1
        self.console.detail(what)

    def fail(self, error: SifkitError) -> None:
        """One that could not be done; the others go on."""
        self.errors.append(error)
        if not self.console.json:
            self.console.error(f"{error.message}; {error.hint}" if error.hint else error.message)

    @contextmanager
    def attempt(self, what: str, goal: Goal) -> Iterator[None]:
        """``what`` ("cannot remove 'x'") is the beginning of the message if the block fails for a reason of its own path."""
        from ext3.errors import PathError, XattrError

        try:
            yield
        except (PathError, XattrError) as error:
            self.fail(refused(what, error, goal))

    def refuse(self, message: str, goal: Goal, *, kind: str = "path", hint: str = "") -> None:
        error = SifkitError(message, path=goal.shown, hint=hint)
        error.kind = kind
        self.fail(error)

    def finish(self, image: str | None, text: str, fields: Fields) -> int:
        """Tell the result; the exit code."""
        console = self.console
        if console.json:
            told = [
                {"kind": error.kind, "message": error.message, "hint": error.hint, **named("path", error.path or "")}
                for error in self.errors
            ]
            console.emit({**fields, "errors": told}, image=image)
        elif self.done:
            console.result(f"{show(image or '')}: {text}")
        return 1 if self.errors else 0


def dangling(editor: OverlayEditor, goal: Goal) -> bool:
    """Whether an argument is a symbolic link that leads to nothing."""
    from ext3.errors import PathError, PathNotFoundError

    try:
        ino = editor.resolve(goal.path, follow=False).ino
        if ino is None or not editor.stat(ino).is_symlink:
            return False
        return editor.resolve(goal.path, follow=True).ino is None
    except PathNotFoundError:
        return True
    except PathError:
        return False


def refused(what: str, error: Exception, goal: Goal) -> SifkitError:
    """An error of the library in coreutils' words."""
    from ext3.errors import PathError

    number = getattr(error, "errno", None) or 0
    message = getattr(error, "message", str(error)).removeprefix(f"{show(getattr(error, 'path', None) or '')}: ")
    plain = isinstance(error, PathError) and number not in (0, errno.EINVAL, errno.EMLINK)
    made = SifkitError(f"{what}: {os.strerror(number) if plain else message}", path=goal.shown, hint=getattr(error, "hint", ""))
    made.kind = getattr(error, "kind", "path")
    return made


@contextmanager
def changing(
    console: Console, image: str, options: ChangeOptions, *, check: Callable[[OverlayEditor], None] | None = None
) -> Iterator[OverlayEditor]:
    """The image, open and locked; what was changed is on storage behind the block. ``check`` looks before anything is changed:
    what it raises leaves the image as it is."""
    from ...overlay.edit_session import EditOptions, edit_image
    from ...overlay.upper_edit import OverlayEditor
    from ..sif.session import concerning, stamp

    editors: list[OverlayEditor] = []

    def before(filesystem: WritableFilesystem) -> None:
        editors.append(OverlayEditor(filesystem, upper=options.upper))
        if check is not None:
            check(editors[0])

    console.image = image
    console.image_options = image_options(options.partition, upper=options.upper)
    wanted = EditOptions(
        partition=options.partition,
        on_signatures=options.signatures,
        require_lock=options.require_lock,
        stamp=stamp(False) if options.partition is not None else None,
        check=before,
    )
    with concerning(image), edit_image(image, wanted) as edited:
        tell_locks(console, image, edited.locked)
        for note in edited.notes:
            console.note(note)
        yield editors[0]


def warn_outside(console: Console, editor: OverlayEditor, spot: ResolvedPath, goal: Goal) -> None:
    """Tell of a new file where no container will see it."""
    if editor.is_outside_upper(spot):
        path = b"/upper" + b"/" + spot.path.lstrip(b"/")
        meant = shell_word(goal.image) + ":" + show(path)
        console.warn(
            f"{show(goal.image)}:{show(spot.path)} lies outside upper/: no container will see it (did you mean {meant}?)"
        )
