"""``sifkit cp``."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SifkitError, UsageError, counted, human, show
from . import values
from .console import Console
from .editing import (
    ChangeOptions,
    Changes,
    Exact,
    Goal,
    Json,
    NewOwner,
    changing,
    goals,
    new_owner,
    refused,
    umask,
    warn_outside,
)
from .embedding import DropSignatures, KeepSignatures, Partition, RequireLock, on_signatures
from .frame import verb
from .looking import Upper, looking
from .mv import into
from .places import place
from .progress import MODES, Reporter, reporter

if TYPE_CHECKING:
    from ..overlay.copying import Copier, CopyOptions, ImageSource
    from ..overlay.whiteout import Editor, Spot, Tracer

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Settings:
    copy: CopyOptions
    change: ChangeOptions
    exact: bool
    follow: bool
    """Links that are named are followed."""


@verb(
    examples=[
        "sifkit cp -a tool/ overlay.img:/upper/opt",
        "sifkit cp motd overlay.img:/upper/etc/motd",
        "sifkit cp -r overlay.img:/upper/opt/results .",
        "sifkit cp -a overlay.img:/upper/a overlay.img:/upper/b",
        "sifkit cp --partition overlay motd image.sif:/upper/etc/motd",
    ]
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE... TARGET", help="files of the host, or IMAGE:/PATH; TARGET: a new name or a directory"),
    ],
    archive: Annotated[
        bool, typer.Option("-a", "--archive", help="-r, and all of mode, owner, times, attributes, hard links")
    ] = False,
    recursive: Annotated[bool, typer.Option("-r", "-R", "--recursive", help="directories, and links as links")] = False,
    preserve: Annotated[bool, typer.Option("-p", "--preserve", help="keep mode, owner and times")] = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="remove a file on the host that cannot be opened")] = False,
    keep: Annotated[bool, typer.Option("-n", "--no-clobber", help="leave files that are there as they are")] = False,
    exact: Exact = False,
    owner: NewOwner = "",
    partition: Partition = None,
    upper: Upper = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    progress: Annotated[str, typer.Option("--progress", metavar="|".join(MODES), help="how to tell how far it is")] = "auto",
    json: Json = False,
) -> int:
    """Copy files into an image, out of one, or within one. Holes stay holes.

    SOURCE and TARGET are as cp has them; what is written IMAGE:/PATH is in an image. New files belong to you unless -p, -a or
    --owner say else. Out of an image directories keep modes, times and attributes always.
    """
    values.choice("--progress", progress, MODES)
    if len(arguments) < 2:
        raise UsageError(f"no TARGET behind {show(arguments[0])}", hint="write where the copy is to be")
    if exact and len(arguments) > 2:
        raise UsageError("-T takes one source and a target", hint="leave -T out to copy into a directory")

    from ..overlay.copying import PRESERVE_ALL, PRESERVE_FACTS, CopyOptions

    kept = PRESERVE_ALL if archive else PRESERVE_FACTS if preserve else frozenset[str]()
    copy = CopyOptions(recursive=recursive or archive, preserve=kept, replace=not keep, owner=new_owner(owner), umask=umask())
    change = ChangeOptions(
        partition=partition,
        upper=upper,
        signatures=on_signatures(drop_signatures, keep_broken_signatures),
        require_lock=require_lock,
    )
    settings = _Settings(copy, change, exact, follow=not copy.recursive)
    *sources, target = arguments
    changes = Changes(console)
    with reporter(progress, console) as bar:
        if place(target) is not None or _is_missing_image(target):
            return _copy_in(changes, sources, goals([target])[0], settings, bar)
        if not any(place(source) for source in sources):
            for source in sources:
                if _is_missing_image(source):
                    goals([source])
            raise UsageError(
                f"neither {show(sources[0])} nor {show(target)} is in an image",
                hint="write IMAGE:/PATH for what is in one, for example overlay.img:/upper/opt",
            )
        return _copy_out(changes, sources, target, settings, bar, force=force)


def _is_missing_image(argument: str) -> bool:
    """Whether it looks like IMAGE:/PATH of an image that is not there."""
    image, colon, _ = argument.partition(":/")
    return bool(colon and image) and not argument.startswith("./") and not os.path.lexists(f"{image}:")


# -- into an image -------------------------------------------------------------------------------------------------


def _copy_in(changes: Changes, sources: Sequence[str], target: Goal, settings: _Settings, bar: Reporter) -> int:
    from ..overlay.copying import Copier

    console = changes.console
    with changing(console, target.image, settings.change) as editor:

        def name(path: bytes) -> str:
            return f"{show(target.image)}:{show(path)}"

        copier = Copier(
            editor,
            settings.copy,
            name=name,
            listed=lambda old, new: changes.each(f"'{old}' -> '{new}'"),
            trouble=changes.fail,
            progress=bar,
        )
        directory = _directory(editor, target, settings.exact)
        if len(sources) > 1 and directory is None:
            changes.refuse(f"target '{target.shown}': Not a directory or not there", target, kind="not-a-directory")
            sources = []
        for source in sources:
            goal = Goal("", os.fsencode(source), show(source))
            with changes.attempt(f"cannot create '{target.shown}'", goal):
                _one_in(copier, changes, source, target, directory, settings, editor)
    bar.tell_times(console)
    return _finish(changes, target.image, copier.bytes)


def _directory(editor: Editor, target: Goal, exact: bool) -> Spot | None:
    """The directory the target leads to, if it is one and copies go into it."""
    from ext3.errors import PathError

    if exact:
        return None
    try:
        found = editor.spot(target.path, follow=True)
    except PathError:
        return None
    return found if found.ino is not None and editor.stat(found.ino).is_dir else None


def _one_in(
    copier: Copier,
    changes: Changes,
    source: str,
    target: Goal,
    directory: Spot | None,
    settings: _Settings,
    editor: Editor,
) -> None:
    from ..overlay.copying import HostSource

    inside = place(source)
    base = _base_name(inside[1] if inside is not None else source)
    goal = target
    if directory is not None and base not in (b"", b".", b".."):
        spot, goal = into(editor, directory, target, base)
    elif directory is not None:
        spot = directory
    else:
        spot = editor.spot(target.path.rstrip(b"/") or b"/", follow=False)
        spot = _checked_new(editor, changes, spot, target, source, inside)
    if spot.ino is None:
        warn_outside(changes.console, editor, spot, goal)
    if inside is None:
        host = os.fsencode(source)
        try:
            os.stat(host) if settings.follow else os.lstat(host)
        except OSError as error:
            found = SifkitError(f"cannot stat '{show(source)}': {error.strerror}", path=source)
            found.kind = "not-found" if isinstance(error, FileNotFoundError) else "source"
            changes.fail(found)
            return
        plain = host.rstrip(b"/") or b"/"
        followed = settings.follow or (host != plain and os.path.islink(plain))
        copier.copy(HostSource(), os.path.realpath(host) if followed else plain, show(source), spot)
        return
    _from_image(copier, changes, source, inside, spot, settings, editor, target)


def _from_image(
    copier: Copier,
    changes: Changes,
    source: str,
    inside: tuple[str, str],
    spot: Spot,
    settings: _Settings,
    editor: Editor,
    target: Goal,
) -> None:
    from ..overlay.whiteout import Tracer

    def copy(tracer: Tracer) -> None:
        found = _found(changes, tracer, source, os.fsencode(inside[1]), settings)
        if found is not None:
            copier.copy(_source(tracer), found, show(source), spot)

    if os.path.samefile(inside[0], target.image):
        copy(editor)
        return
    from .sif.images import concerning

    with concerning(inside[0]), looking(changes.console, inside[0], _partition_of(inside[0], settings)) as view:
        copy(Tracer(view.filesystem, upper=settings.change.upper))
    changes.console.image = target.image


def _partition_of(image: str, settings: _Settings) -> str | None:
    """--partition is for those of several images that are SIF images."""
    from ..overlay.guards import is_sif

    return settings.change.partition if is_sif(image) else None


def _source(tracer: Tracer) -> ImageSource:
    from ..overlay.copying import ImageSource

    return ImageSource(tracer)


def _found(changes: Changes, tracer: Tracer, source: str, path: bytes, settings: _Settings) -> int | None:
    """The inode of a source in an image; None where there is none, which is told."""
    from ext3.errors import PathError, PathNotFoundError

    goal = Goal("", path, show(source))
    try:
        spot = tracer.spot(path, follow=settings.follow)
        if spot.ino is None:
            raise PathNotFoundError(path, "No such file or directory")
        return spot.ino
    except PathError as error:
        changes.fail(refused(f"cannot stat '{show(source)}'", error, goal))
        return None


def _checked_new(
    editor: Editor, changes: Changes, spot: Spot, target: Goal, source: str, inside: tuple[str, str] | None
) -> Spot:
    """The place for a copy under the target's own name. A slash behind it asks for a directory."""
    from ext3.errors import PathNotDirectoryError

    if target.path.endswith(b"/") and (inside is not None or not os.path.isdir(source)):
        if spot.ino is None and inside is not None:
            return spot
        raise PathNotDirectoryError(target.path, "Not a directory")
    return spot


def _base_name(path: str) -> bytes:
    return os.fsencode(path).rstrip(b"/").rpartition(b"/")[2]


# -- out of an image -----------------------------------------------------------------------------------------------


def _copy_out(changes: Changes, sources: Sequence[str], target: str, settings: _Settings, bar: Reporter, *, force: bool) -> int:
    from ..overlay.whiteout import Tracer

    into_directory = not settings.exact and os.path.isdir(target)
    if len(sources) > 1 and not into_directory:
        reason = "Not a directory" if os.path.lexists(target) else "No such file or directory"
        raise SifkitError(f"target '{show(target)}': {reason}", path=target, hint="make the directory first")
    image = ""
    written = 0
    for source in sources:
        inside = place(source)
        if inside is None:
            raise UsageError(f"{show(source)} is not in an image, and neither is {show(target)}", hint="cp copies that")
        image = image or inside[0]
        with looking(changes.console, inside[0], _partition_of(inside[0], settings)) as view:
            tracer = Tracer(view.filesystem, upper=settings.change.upper)
            ino = _found(changes, tracer, source, os.fsencode(inside[1]), settings)
            if ino is not None:
                name = _base_name(inside[1])
                inside_target = into_directory and name not in (b"", b".", b"..")
                goal = os.path.join(os.fsencode(target), name) if inside_target else os.fsencode(target)
                written += _one_out(changes, tracer, ino, source, goal, settings, bar, force=force)
    bar.tell_times(changes.console)
    return _finish(changes, image, written)


def _one_out(
    changes: Changes,
    tracer: Tracer,
    ino: int,
    source: str,
    goal: bytes,
    settings: _Settings,
    bar: Reporter,
    *,
    force: bool,
) -> int:
    """Copy one; the bytes written."""
    from ..overlay.copyout import copy_file_out, copy_tree_out

    shown, what = show(goal), show(source)
    place_of = Goal("", goal, shown)
    found = tracer.stat(ino)
    if found.is_dir:
        if not settings.copy.recursive:
            changes.refuse(f"-r not specified; omitting directory '{what}'", place_of, kind="is-a-directory", hint="give -r")
            return 0
        if os.path.lexists(goal) and not os.path.isdir(goal):
            text = f"cannot overwrite non-directory '{shown}' with directory '{what}'"
            changes.refuse(text, place_of, kind="not-a-directory")
            return 0
        try:
            made = copy_tree_out(tracer.reads, ino, goal, settings.copy, progress=bar)
        except OSError as error:
            if hasattr(error, "kind"):
                raise
            changes.refuse(f"cannot create directory '{shown}': {error.strerror}", place_of, kind="target")
            return 0
        for path, why in made.problems:
            changes.refuse(f"cannot copy '{what.rstrip('/')}/{show(path)}': {why}", place_of)
        changes.done += made.files + made.directories + made.symlinks + made.specials + made.links
        changes.console.detail(f"'{what}' -> '{shown}'")
        return made.written_bytes
    if os.path.isdir(goal) and not os.path.islink(goal):
        changes.refuse(f"cannot overwrite directory '{shown}' with non-directory '{what}'", place_of, kind="is-a-directory")
        return 0
    if not settings.copy.replace and os.path.lexists(goal):
        return 0
    if not settings.copy.recursive and not stat.S_ISREG(found.mode):
        changes.refuse(f"'{what}' is not a regular file", place_of, hint="-r copies devices and fifos as what they are")
        return 0
    try:
        if force and os.path.lexists(goal) and not os.access(goal, os.W_OK):
            os.unlink(goal)
        bar.phase("copy", found.size, "bytes")
        counts = copy_file_out(tracer.reads, ino, goal, settings.copy, advance=bar.advance)
        bar.done()
    except OSError as error:
        if hasattr(error, "kind"):
            raise
        changes.refuse(f"cannot create '{shown}': {error.strerror}", place_of, kind="target")
        return 0
    changes.each(f"'{what}' -> '{shown}'")
    return counts.written_bytes


def _finish(changes: Changes, image: str, written: int) -> int:
    text = f", {human(written)} of data"
    return changes.finish(
        image, f"{counted(changes.done, 'file')} copied{text}", {"copied": changes.done, "written_bytes": written}
    )
