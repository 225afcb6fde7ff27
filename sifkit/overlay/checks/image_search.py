"""Search for images in directories of the host, by their content.

Hidden files and directories are searched too: caches have such names. Symlinks in directories are not followed. A file named
as an image that is none, such as an empty download, is found as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from ext3 import hostio
from ext3.hostio import HostPath

from ...errors import show
from ..images.image_format import HEAD_BYTES
from .digest_list import DigestList
from .filesystem_check import image_kind_of
from .image_result import ImageProblem, ImageResult

__all__ = ["IMAGE_SUFFIXES", "FoundImage", "find_images", "images_to_check"]

IMAGE_SUFFIXES = (".sif", ".simg", ".sqfs", ".squashfs", ".sqsh", ".ext3")
"""Endings of names that only images have."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """File to check, of ``size`` bytes. ``identity``: device and inode, of which hard links are one file.

    ``any_content``: it is to be checked because it is in a list of digests, and may be no image.
    """

    path: str
    size: int
    identity: tuple[int, int]
    any_content: bool = False


def images_to_check(
    path: HostPath, *, digests: DigestList | None = None, seen: set[tuple[int, int]] | None = None
) -> Iterator[FoundImage | ImageResult]:
    """Iterate over the files to check: the file at ``path``, or what ``find_images`` finds in the directory there.

    Of a directory also the files that the list of digests names below it. ``seen``: identities of files that were given, each
    of which is given once. What is missing or cannot be read is given as the result of a bad image.
    """
    name = os.fsdecode(path)
    known = set() if seen is None else seen
    found: Iterable[FoundImage | ImageResult] = [_given(name)]
    if os.path.isdir(name):
        found = chain(find_images(name), _listed(name, digests) if digests is not None else ())
    for one in found:
        if isinstance(one, FoundImage):
            if one.identity in known:
                continue
            known.add(one.identity)
        yield one


def _given(path: str) -> FoundImage | ImageResult:
    """Return a file of the command line, whatever it is."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        return _unreadable(path, error)
    return FoundImage(path, found.st_size, (found.st_dev, found.st_ino))


def _listed(directory: str, digests: DigestList) -> Iterator[FoundImage | ImageResult]:
    """Iterate over the files below a directory that a list names."""
    for path in digests.below(directory):
        try:
            found = os.stat(path)
        except OSError as error:
            result = ImageResult(path)
            missing = isinstance(error, FileNotFoundError)
            text = f"it is in {show(digests.path)}, but " + ("missing" if missing else f"cannot be read: {error.strerror}")
            result.add(ImageProblem("missing" if missing else "unreadable", text))
            yield result
        else:
            yield FoundImage(path, found.st_size, (found.st_dev, found.st_ino), any_content=True)


def find_images(top: HostPath) -> Iterator[FoundImage | ImageResult]:
    """Iterate over the images in the directory ``top`` and below, in the order of names.

    A directory or file that cannot be read is given as the result of a bad image.
    """
    pending = [os.fsdecode(top)]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(directory) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield _unreadable(directory, error)
            continue
        below: list[str] = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                image = _image_at(entry.path)
                if image is not None:
                    yield image
        pending += reversed(below)


def _image_at(path: str) -> FoundImage | ImageResult | None:
    """Return the image at ``path``; None if the file is none."""
    try:
        fd = os.open(path, hostio.READ_REGULAR)
        try:
            found = os.fstat(fd)
            head = hostio.read_at(fd, 0, HEAD_BYTES)
        finally:
            os.close(fd)
    except FileNotFoundError:  # removed meanwhile
        return None
    except OSError as error:
        # Whether it is an image is not known; a file of another kind need not be readable.
        return _unreadable(path, error) if path.lower().endswith(IMAGE_SUFFIXES) else None
    if image_kind_of(head, found.st_size) is None and not path.lower().endswith(IMAGE_SUFFIXES):
        return None
    return FoundImage(path, found.st_size, (found.st_dev, found.st_ino))


def _unreadable(path: str, error: OSError | ValueError) -> ImageResult:
    result = ImageResult(path)
    code = "missing" if isinstance(error, FileNotFoundError | NotADirectoryError) else "unreadable"
    result.add(ImageProblem(code, f"it cannot be read: {getattr(error, 'strerror', None) or error}"))
    return result
