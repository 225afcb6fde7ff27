"""Arguments that name files in images: ``IMAGE PATH...`` or ``IMAGE:/PATH``.

An argument is IMAGE:/PATH if it contains ``:/``, the part before the first ``:/`` is an existing file or directory and the
whole is not; ``./a:/b`` is always a host path. Where an image is read, a directory of the host may stand for it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import UsageError, shell_quote, show

if TYPE_CHECKING:
    from ...overlay.edit.upper_edit import OverlayEditor
    from ...vfs.resolve import ResolvedPath

__all__ = [
    "ImagePath",
    "common_image",
    "entry_in",
    "group_by_image",
    "parse_image_paths",
    "reject_dot_prefix",
    "reject_last_operand",
    "reject_relative",
    "reject_swapped",
    "several_paths",
    "split_image_path",
]


@dataclass(frozen=True, slots=True)
class ImagePath:
    """An argument IMAGE:/PATH; ``shown`` is the argument as given, escaped."""

    image: str
    path: bytes
    shown: str


def split_image_path(argument: str) -> tuple[str, str] | None:
    """Split IMAGE:/PATH into image and path; None for a host path."""
    image, colon, rest = argument.partition(":/")
    if not colon or not image or argument.startswith("./"):
        return None
    if not os.path.exists(image) or os.path.lexists(argument):
        return None
    return image, "/" + rest


def reject_dot_prefix(argument: str) -> None:
    """Raise UsageError for ``./IMAGE:/PATH``, a host path, if there is no such file but the image exists."""
    rest = argument.removeprefix("./")
    if rest != argument and not os.path.isdir(os.path.dirname(argument)) and split_image_path(rest) is not None:
        raise UsageError(f"{show(argument)}: a path that begins with ./ is a host path", hint=f"write {show(rest)}")


def reject_relative(argument: str) -> None:
    """Raise UsageError for ``IMAGE:PATH`` and ``IMAGE:``: paths in images begin with a slash."""
    image, colon, rest = argument.partition(":")
    if colon and image and not rest.startswith("/") and os.path.isfile(image) and not os.path.lexists(argument):
        fault = "a path in an image begins with /" if rest else "no path after the colon"
        raise UsageError(f"{show(argument)}: {fault}", hint=f"did you mean {show(image)}:/{show(rest)}?")


def reject_last_operand(command: str, operand: str, paths: Sequence[str], *, noun: str) -> None:
    """Raise UsageError if a path in an image stands where the operand of ``command`` belongs, a ``noun``, and that last."""
    if split_image_path(operand) is not None and len(paths) == 1 and not os.path.lexists(paths[0]):
        swapped = f"sifkit {command} {shell_quote(paths[0])} {shell_quote(operand)}"
        raise UsageError(f"the {noun} comes before the files", hint=f"did you mean {swapped}?")


def reject_swapped(command: str, first: str, second: str, *, image: str, fault: str) -> None:
    """Raise UsageError if there is no file ``image``, one of two operands of ``command``, but one of the other's name."""
    other = second if image is first else first
    if os.path.isfile(other) and not os.path.lexists(image):
        raise UsageError(fault, hint=f"did you mean sifkit {command} {shell_quote(second)} {shell_quote(first)}?")


def _reject_path_before_image(path: str, image: str) -> None:
    """Raise UsageError for ``PATH IMAGE``."""
    if not os.path.isfile(image) or os.path.lexists(os.path.join(path, image)):
        return
    from ...overlay.images.image_format import is_image

    if is_image(image) and not is_image(path):
        raise UsageError("the image comes before the paths", hint=f"did you mean {shell_quote(image)} {shell_quote(path)}?")


def parse_image_paths(arguments: Sequence[str]) -> list[ImagePath]:
    """Parse arguments that are all IMAGE:/PATH. Raises UsageError for host paths, FileNotFoundError for missing images."""
    return [_parse(argument) for argument in arguments]


def _parse(argument: str) -> ImagePath:
    found = split_image_path(argument)
    if found is not None:
        return ImagePath(found[0], os.fsencode(found[1]), show(argument))
    reject_dot_prefix(argument)
    reject_relative(argument)
    image, colon, _ = argument.partition(":/")
    if colon and image and not argument.startswith("./") and not os.path.lexists(image):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), image)
    hint = "name a path in an image, for example overlay.img:/upper/opt/x"
    raise UsageError(f"{show(argument)} is not IMAGE:/PATH", hint=hint)


def common_image(paths: Sequence[ImagePath], verb: str) -> str:
    """Return the image that all paths are in. Raises UsageError if there are several."""
    for path in paths[1:]:
        if path.image != paths[0].image and not os.path.samefile(path.image, paths[0].image):
            raise UsageError(
                f"{path.shown} and {paths[0].shown} are in different images",
                hint=f"{verb} works within one image; to copy between images: sifkit cp",
            )
    return paths[0].image


def group_by_image(arguments: Sequence[str], *, default: Sequence[str] = ()) -> list[tuple[str, list[bytes]]]:
    """Parse ``IMAGE [PATH...]`` or ``IMAGE:/PATH...`` into (image, paths in it), in the order given.

    ``default``: the paths if there is an image only; without it that raises UsageError. Raises FileNotFoundError for
    IMAGE:/PATH if there is no such image.
    """
    for argument in arguments:
        reject_dot_prefix(argument)
    first = split_image_path(arguments[0])
    if first is None:
        image, colon, _ = arguments[0].partition(":/")
        reject_relative(arguments[0])
        if colon and image and not arguments[0].startswith("./") and not os.path.lexists(arguments[0]):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), image)
        if len(arguments) == 2:
            _reject_path_before_image(*arguments)
        paths = list(arguments[1:]) or list(default)
        if not paths:
            raise UsageError(
                f"PATH is missing: a file in {show(arguments[0])}", hint=f"list files with: sifkit ls {show(arguments[0])}"
            )
        return [(arguments[0], [os.fsencode(path) for path in paths])]
    groups: list[tuple[str, list[bytes]]] = []
    for argument in arguments:
        pair = split_image_path(argument)
        if pair is None:
            raise UsageError(
                f"{show(argument)} is not IMAGE:/PATH, unlike {show(arguments[0])}",
                hint="write IMAGE PATH..., or IMAGE:/PATH for each",
            )
        if groups and groups[-1][0] == pair[0]:
            groups[-1][1].append(os.fsencode(pair[1]))
        else:
            groups.append((pair[0], [os.fsencode(pair[1])]))
    return groups


def several_paths(groups: Sequence[tuple[str, list[bytes]]]) -> bool:
    """Return True if the groups of ``group_by_image`` hold more than one path, so that the verb continues after a failure."""
    return sum(len(paths) for _, paths in groups) > 1


def entry_in(
    editor: OverlayEditor, directory: ResolvedPath[int], target: ImagePath, name: bytes
) -> tuple[ResolvedPath[int], ImagePath]:
    """Resolve ``name`` in the directory that ``target`` leads to."""
    shown = f"{target.shown.rstrip('/')}/{show(name)}"
    path = target.path.rstrip(b"/") + b"/" + name
    return editor.child(directory, name), ImagePath(target.image, path, shown)
