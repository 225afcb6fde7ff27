"""Lists of SHA-256 digests, as sha256sum writes them: ``DIGEST  NAME`` and, with --tag, ``SHA256 (NAME) = DIGEST``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ...atomic import HostPath
from ...errors import FormatError, InputError, human, show

__all__ = ["DigestList"]

LIST_LIMIT = 64 << 20
"""Bytes of the largest list that is read: it is in memory."""
_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_TAGGED = re.compile(rb"(\\?)SHA256 \((.+)\) = ([0-9a-fA-F]{64})", re.DOTALL)
_ESCAPED = re.compile(rb"\\([\\nr])")
_CHARACTERS = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}


class DigestList:
    """Digests of files by name. Names are relative to the current directory or, where nothing is there, to that of the list."""

    def __init__(self, path: HostPath) -> None:
        """Read the list. Raises InputError, and FormatError if it has a line of another form, or no line."""
        self.path = os.fsdecode(path)
        self._digests: dict[str, str] = {}
        above = os.path.dirname(self.path)
        for name, digest in _entries(self.path):
            here = os.fsdecode(name)
            place = here if os.path.lexists(here) else os.path.join(above, here)
            key = os.path.realpath(place)
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
            if os.path.commonpath([top, path]) == top:
                yield os.path.join(os.fsdecode(directory), os.path.relpath(path, top))


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
