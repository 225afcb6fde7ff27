"""``sifkit cp``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SifkitError, UsageError, counted, human, show
from .support import values
from .support.console import Console
from .support.editing import EditBatch, new_owner, open_for_editing
from .support.frame import verb
from .support.image_path import parse_image_paths, reject_dot_prefix, reject_relative, split_image_path
from .support.options import AllowChanged, EditFlags, Exact, NewOwner, ProgressMode
from .support.progress import MODES, Reporter, reporter
from .support.reading import offset_of, open_for_reading, warn_of_changes

if TYPE_CHECKING:
    from ..overlay.copying.copy_in import CopyArgument
    from ..overlay.copying.copy_options import CopyOptions

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Settings:
    """Settings of one run. ``exact``: the target is never a directory to copy into. ``force``: of host files.
    ``allow_changed``: of images that are copied from."""

    copy: CopyOptions
    flags: EditFlags
    exact: bool
    force: bool
    allow_changed: bool

    @property
    def follow(self) -> bool:
        """True if symlinks on the command line are followed."""
        return not self.copy.links


@verb(
    locks=True,
    examples=[
        "sifkit cp -a tool/ overlay.img:/upper/opt",
        "sifkit cp motd overlay.img:/upper/etc/motd",
        "sifkit cp -r overlay.img:/upper/opt/results .",
        "sifkit cp 'overlay.img:/upper/opt/results/*.py' .",
        "sifkit cp -a overlay.img:/upper/a overlay.img:/upper/b",
        "sifkit cp motd image.sif:/etc/motd",
        "sifkit cp -a --overlay job-1.img tool/ image.sif:/opt",
        "sifkit cp -r image.sif:/opt/results .",
    ],
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE... TARGET", help="host paths or IMAGE:/PATH; TARGET is a new name or a directory"),
    ],
    archive: Annotated[
        bool, typer.Option("-a", "--archive", help="-r, and preserve mode, owner, times, extended attributes and hard links")
    ] = False,
    recursive: Annotated[
        bool, typer.Option("-r", "-R", "--recursive", help="copy directories recursively, and symbolic links as such")
    ] = False,
    links: Annotated[bool, typer.Option("-P", "-d", "--no-dereference", help="copy symbolic links as such")] = False,
    preserve: Annotated[bool, typer.Option("-p", "--preserve", help="preserve mode, owner and times")] = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="remove host files that cannot be opened")] = False,
    keep: Annotated[bool, typer.Option("-n", "--no-clobber", help="do not overwrite existing files")] = False,
    exact: Exact = False,
    owner: NewOwner = "",
    allow_changed: AllowChanged = False,
    flags: EditFlags,
    progress: ProgressMode = "auto",
) -> int:
    """Copy files into an image, out of an image, or within one. Holes are preserved. If an image lacks room for all files,
    none is copied.

    Paths in images are written IMAGE:/PATH, others are on the host. New files are owned by you, unless -p, -a or --owner is
    given. Directories copied out of an image always keep their mode, times and extended attributes.
    """
    values.choice("--progress", progress, MODES)
    if len(arguments) < 2:
        raise UsageError(f"missing TARGET after {show(arguments[0])}", hint="give a new name or a directory")
    if exact and len(arguments) > 2:
        raise UsageError("-T takes one source and a target", hint="omit -T to copy into a directory")

    from ..atomic import current_umask
    from ..overlay.copying.copy_options import PRESERVE_ALL, PRESERVE_ATTRIBUTES, CopyOptions

    preserved = PRESERVE_ALL if archive else PRESERVE_ATTRIBUTES if preserve else frozenset[str]()
    copy = CopyOptions(
        recursive=recursive or archive,
        links=links or recursive or archive,
        preserve=preserved,
        replace=not keep,
        owner=new_owner(owner),
        umask=current_umask(),
    )
    settings = _Settings(copy, flags, exact, force, allow_changed)
    for argument in arguments:
        reject_dot_prefix(argument)
    *given, target = arguments
    batch = EditBatch(console)
    images = [pair[0] for pair in map(split_image_path, arguments) if pair is not None]
    goal = split_image_path(target)
    sources = [source for argument in given for source in _matching(batch.console, argument, flags, images, goal)]
    with reporter(progress, console) as bar:
        if goal is not None or _names_missing_image(target):
            image: str | None = parse_image_paths([target])[0].image
            written = _copy_in(batch, sources, target, settings, bar)
        else:
            image, written = _copy_out(batch, sources, target, settings, bar)
        bar.print_times(console)
    text = f"{counted(batch.done, 'file')} copied, {human(written)} of data"
    return batch.finish(image, text, {"copied": batch.done, "written_bytes": written})


def _matching(
    console: Console, argument: str, flags: EditFlags, images: Sequence[str], goal: tuple[str, str] | None
) -> list[str]:
    """Return the sources that a pattern IMAGE:/PATH matches; others are themselves.

    ``images``: those of all arguments. ``goal``: image and path to copy to; then --overlay is for that image.
    """
    from ..overlay.images.image_format import is_sif
    from ..vfs.glob import expand, has_magic

    pair = split_image_path(argument)
    if pair is None or not has_magic(os.fsencode(pair[1])):
        return [argument]
    image, path = pair
    partition = flags.partition if is_sif(image) else None
    offset = offset_of(image, flags.start, images)
    overlays = (flags.overlay or ()) if goal is None or os.path.samefile(goal[0], image) else ()
    with open_for_reading(console, image, partition, offset=offset, upper=flags.upper, overlays=overlays) as opened:
        return [f"{image}:{os.fsdecode(match)}" for match in expand(opened.tree, os.fsencode(path))]


def _arguments(texts: Sequence[str], flags: EditFlags) -> list[CopyArgument]:
    from ..overlay.copying.copy_in import CopyArgument

    parts = [split_image_path(text) or (None, text) for text in texts]
    images = [image for image, _ in parts if image is not None]
    offsets = [None if image is None else offset_of(image, flags.start, images) for image, _ in parts]
    return [
        CopyArgument(image, os.fsencode(path), show(text), offset)
        for text, (image, path), offset in zip(texts, parts, offsets, strict=True)
    ]


def _copy_in(batch: EditBatch, sources: Sequence[str], target: str, settings: _Settings, bar: Reporter) -> int:
    """Copy to IMAGE:/PATH; return the bytes of data written."""
    from ..overlay.copying.copy_in import CopyIn
    from ..overlay.images.image_format import is_sif

    *arguments, goal = _arguments([*sources, target], settings.flags)
    assert goal.image is not None
    flags = replace(settings.flags, offset=None if goal.offset is None else str(goal.offset))
    # Of several images, --partition is for those that are SIF images. Without one it is refused.
    if not is_sif(goal.image) and any(one.image is not None and is_sif(one.image) for one in arguments):
        flags = replace(flags, partition=None)
    with CopyIn(
        arguments,
        goal,
        settings.copy,
        progress=bar,
        partition=settings.flags.partition,
        upper=flags.upper,
        exact=settings.exact,
        follow=settings.follow,
        allow_changed=settings.allow_changed,
        overlays=flags.overlay or (),
    ) as work:
        with open_for_editing(batch.console, goal.image, flags, check=work.prepare) as editor:
            for outcome in work.run(editor):
                batch.take(outcome)
        return work.bytes


def _copy_out(
    batch: EditBatch, sources: Sequence[str], target: str, settings: _Settings, bar: Reporter
) -> tuple[str | None, int]:
    """Copy to a path on the host; return the first image and the bytes of data written."""
    from ..overlay.copying.copy_to_host import HostCopier
    from ..overlay.images.image_format import is_sif
    from ..vfs.copy_outcome import CopyError
    from ..vfs.errors import reason_of
    from ..vfs.resolve import Resolver

    arguments = _arguments(sources, settings.flags)
    if not any(one.image for one in arguments):
        for argument in (*sources, target):
            reject_relative(argument)
        for source in sources:
            if _names_missing_image(source):
                parse_image_paths([source])
        raise UsageError(
            f"neither {show(sources[0])} nor {show(target)} is in an image",
            hint="write IMAGE:/PATH for a path in an image, for example overlay.img:/upper/opt",
        )
    into_directory = not settings.exact and os.path.isdir(target)
    if len(sources) > 1 and not into_directory:
        reason = "Not a directory" if os.path.lexists(target) else "No such file or directory"
        raise SifkitError(f"target '{show(target)}': {reason}", path=target, hint="create the directory first")
    copier = HostCopier(settings.copy, force=settings.force, progress=bar)
    for one in arguments:
        if one.image is None:
            raise UsageError(f"neither {one.shown} nor {show(target)} is in an image", hint="copy host files with cp")
        flags = settings.flags
        partition = flags.partition if is_sif(one.image) else None
        with (
            open_for_reading(
                batch.console, one.image, partition, offset=one.offset, upper=flags.upper, overlays=flags.overlay or ()
            ) as opened,
            warn_of_changes(batch.console, opened, allowed=settings.allow_changed),
        ):
            tree = opened.tree
            try:
                node = Resolver(tree).lookup(one.path, follow=settings.follow)
                tree.stat(node)
            except OSError as error:
                text = f"cannot stat '{one.shown}': {reason_of(error)}"
                batch.fail(CopyError(text, kind=getattr(error, "kind", "io"), path=one.path))
                continue
            inside = into_directory and one.name not in (b"", b".", b"..")
            destination = os.path.join(os.fsencode(target), one.name) if inside else os.fsencode(target)
            for outcome in copier.copy(tree, node, one.image, one.shown, destination):
                batch.take(outcome)
    return arguments[0].image, copier.bytes


def _names_missing_image(argument: str) -> bool:
    """Return True if an argument reads as IMAGE:/PATH of an image that does not exist."""
    image, colon, _ = argument.partition(":/")
    return bool(colon and image) and not argument.startswith("./") and not os.path.lexists(f"{image}:")
