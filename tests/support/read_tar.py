"""What the tar package makes of an archive: its members and their data, or an error."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from sifkit.tar.errors import ArchiveError
from sifkit.tar.members import Member, read_members
from sifkit.tar.store import MemberData
from sifkit.tar.stream import open_archive

__all__ = ["ReadTar", "read_tar", "tar_error"]


@dataclass
class ReadTar:
    members: list[Member]
    stored: MemberData
    has_end_marker: bool = True

    def member(self, name: bytes) -> Member:
        """The last one of this name."""
        return next(member for member in reversed(self.members) if member.name == name)

    def data(self, name: bytes) -> bytes:
        """The file's data, read whole and by ranges: both ways must agree."""
        member = self.member(name)
        ranges = [(0, member.size, member.data_offset)] if member.ranges is None else member.ranges
        whole = bytearray(b"\xaa" * member.size)
        self.stored.read_file(memoryview(whole), ranges)
        parts = bytearray(member.size)
        for logical, length, offset in ranges:
            assert self.stored.read_at(memoryview(parts)[logical : logical + length], offset) == length
            if self.stored.fd is not None and hasattr(os, "pread"):
                assert os.pread(self.stored.fd, length, offset) == parts[logical : logical + length]
        assert not self.stored.changed()
        assert parts == whole
        return bytes(whole)


@contextmanager
def read_tar(source: bytes | Path | IO[bytes], **options: object) -> Iterator[ReadTar]:
    archive = open_archive(io.BytesIO(source) if isinstance(source, bytes) else source, **options)  # type: ignore[arg-type]
    members = list(read_members(archive))
    with archive.finish() as stored:
        yield ReadTar(members, stored, archive.has_end_marker)


def tar_error(source: bytes | Path | IO[bytes], **options: object) -> ArchiveError:
    """The error of an archive that cannot be read."""
    with pytest.raises(ArchiveError) as caught:
        archive = open_archive(io.BytesIO(source) if isinstance(source, bytes) else source, **options)  # type: ignore[arg-type]
        try:
            for _ in read_members(archive):
                pass
            archive.finish()
        finally:
            archive.close()
    error = caught.value
    assert len(str(error)) < 10_000
    assert error.kind == "source" and error.hint == ""
    assert str(error).endswith(error.reason) and str(error).startswith(os.fsdecode(error.path))
    assert error.offset is None or f"(at byte {error.offset}" in error.reason
    return error
