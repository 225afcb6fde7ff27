"""Lists of SHA-256 digests, as sha256sum writes them: ``DIGEST  NAME`` and, with --tag, ``SHA256 (NAME) = DIGEST``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from ext3.hostio import HostPath

from ...errors import FormatError, InputError, human, show

__all__ = ["DigestList"]

LIST_LIMIT = 64 << 20
"""Bytes of the largest list that is read: it is in memory."""
_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_TAGGED = re.compile(rb"(\\?)SHA256 \((.+)\) = ([0-9a-fA-F]{64})", re.DOTALL)
_ESCAPED = re.compile(rb"\\([\\nr])")
_CHARACTERS = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}


class DigestList:
    """Digests of files by name. Names are relative to one directory: see ``_directory_of_names``."""

    def __init__(self, path: HostPath, *, images: Iterable[HostPath] = ()) -> None:
        """Read the list; ``images``: the files and directories that are checked.

        Raises InputError, and FormatError if it has a line of another form, or no line.
        """
        self.path = os.fsdecode(path)
        self._digests: dict[str, str] = {}
        entries = [(os.fsdecode(name), digest) for name, digest in _entries(self.path)]
        above = _directory_of_names({name for name, _ in entries}, self.path, [os.fsdecode(image) for image in images])
        for name, digest in entries:
            key = os.path.realpath(os.path.join(above, name))
            if self._digests.setdefault(key, digest) != digest:
                raise FormatError(f"{show(self.path)} has two digests of {show(name)}", path=self.path)
        if not self._digests:
            raise FormatError(f"{show(self.path)} has no digests", path=self.path, hint="write it with: sha256sum FILE...")

    def __len__(self) -> int:
        return len(self._digests)

    def digest_of(self, path: HostPath) -> str | None:
        """Return the digest of a file as hexadecimal text; None if it is not in the list."""
        return self._digests.get(os.path.realpath(os.fsdecode(path)))

    def below(self, directory: HostPath) -> Iterator[str]:
        """Iterate over the paths in the list that are in a directory or below it, existing or not."""
        top = os.path.realpath(os.fsdecode(directory))
        for path in self._digests:
            if _is_below(top, path):
                yield os.path.join(os.fsdecode(directory), os.path.relpath(path, top))


def _directory_of_names(names: set[str], path: str, images: list[str]) -> str:
    """Return the directory that the names of the list at ``path`` are relative to.

    It is that of the list, the current directory, or one that is checked: the first in which most of the names are among what
    is checked. If none is, the first in which most of them exist.
    """
    places = [os.path.dirname(path), "", *filter(os.path.isdir, images)]
    checked = [os.path.realpath(image) for image in images]

    def score(place: str) -> tuple[int, int]:
        existing = [os.path.realpath(found) for name in names if os.path.lexists(found := os.path.join(place, name))]
        return sum(any(_is_below(top, found) for top in checked) for found in existing), len(existing)

    return max(places, key=score)


def _is_below(top: str, path: str) -> bool:
    return os.path.commonpath([top, path]) == top


def _entries(path: str) -> Iterator[tuple[bytes, str]]:
    try:
        with open(path, "rb") as file:
            raw = file.read(LIST_LIMIT + 1)
    except OSError as error:
        text = f"the list of digests {show(path)} cannot be read: {error.strerror}"
        raise InputError(text, path=path, error=error) from error
    if len(raw) > LIST_LIMIT:
        raise FormatError(f"{show(path)} has more than {human(LIST_LIMIT)}, too much for a list of digests", path=path)
    for number, line in enumerate(raw.replace(b"\r\n", b"\n").split(b"\n"), 1):
        if not line or line.startswith(b"#"):
            continue
        if found := _LINE.fullmatch(line):
            escaped, digest, name = found.groups()
        elif found := _TAGGED.fullmatch(line):
            escaped, name, digest = found.groups()
        else:
            raise FormatError(
                f"{show(path)}: line {number} is not as sha256sum writes it", path=path, hint="write it with: sha256sum FILE..."
            )
        if escaped:
            name = _ESCAPED.sub(lambda match: _CHARACTERS[match[1]], name)
        if b"\0" in name:
            raise FormatError(f"{show(path)}: line {number} has a NUL in a name", path=path)
        yield name, digest.decode("ascii").lower()
