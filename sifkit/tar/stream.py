"""The bytes of a tar archive, wherever they come from: a file, a pipe, packed (see ``tarpacking``) or not.

An archive is read forwards, once. The data of its files is then found in a ``Store``: an unpacked archive that can be
sought in is its own store and nothing is copied; what comes from a pipe or a packed archive is put back to back into a
spool. The kind is told by the first bytes, never by the name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import IO

from ext3.device.base import PathOrFile
from ext3.errors import SourceError, show

from .codecs import PackingError, RawBytes, packing_of, unpacked
from .store import FileStore, Spool, Store

__all__ = ["BLOCK", "Archive", "open_archive"]

Directory = str | bytes | os.PathLike[str]

BLOCK = 512
STDIN = b"standard input"
DRAIN_LIMIT = 64 << 20
"""So much behind the end marker of a packed archive is unpacked, for the checksum of the packed data lies behind it."""
_PIECE = 1 << 18
_READ = 1 << 16

_OTHERS = (
    (b"\x04\x22\x4d\x18", "lz4 data"),
    (b"LZIP", "lzip data"),
    (b"\x1f\x9d", "compress (.Z) data"),
    (b"\x5d\0\0", "old lzma data"),
    (b"PK", "a zip archive"),
    (b"hsqs", "a squashfs image"),
    (b"#!/usr/bin/env run-singularity", "a SIF image"),
    (b"#!", "a script"),
    (b"<!", "a web page"),
    (b"<html", "a web page"),
    (b"{", "JSON text"),
)


class Archive:
    """An archive read forwards. ``position`` is the offset of the next byte in the unpacked archive."""

    def __init__(self, name: bytes, packed: str = "") -> None:
        self.name = name
        self.packed = packed
        """What it is packed with; empty: it is not."""
        self.position = 0

    def trouble(self, message: str, at: int | None = None, *, error: OSError | None = None, hint: str = "") -> SourceError:
        """The error to raise, with the archive's name and the byte where the trouble is."""
        where = "" if at is None else f" (at byte {at}{' of the unpacked archive' if self.packed else ''})"
        return SourceError(self.name, message + where, error=error, hint=hint)

    def truncated(self, text: str) -> SourceError:
        """The archive ends where it should go on. What it is packed with was whole, or that would have been said."""
        if self.packed:
            message = f"the {self.packed} stream is whole, but the archive in it is truncated: {text}"
            return self.trouble(message, self.position, hint="pack the archive again")
        return self.trouble(f"the archive is truncated: {text}", self.position, hint=again(self.name))

    def cut_off(self, what: bytes | str) -> SourceError:
        return self.truncated(f"it ends inside {show(what[:200])}")

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer only at the end. The caller has checked that ``size`` is small."""
        raise NotImplementedError

    def keep(self, size: int, what: bytes | str) -> int:
        """Passes over ``size`` bytes of file data; the offset where the store will have them."""
        raise NotImplementedError

    def skip(self, size: int, what: bytes | str) -> None:
        """Passes over ``size`` bytes nobody wants."""
        raise NotImplementedError

    def finish(self) -> Store:
        """The store of what was kept; called once, behind the end marker."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of everything, after a failure."""
        raise NotImplementedError


class _SeekableArchive(Archive):
    """An unpacked archive in a file: data stays where it is. Begins where the file stands."""

    def __init__(self, name: bytes, file: IO[bytes], *, owned: bool) -> None:
        super().__init__(name)
        self._file = file
        self._base = file.tell()
        self._total = max(0, file.seek(0, os.SEEK_END) - self._base)
        self._at = -1
        self._store = FileStore(file, owned=owned, stable=False)

    def read(self, size: int) -> bytes:
        try:
            if self._at != self.position:
                self._file.seek(self._base + self.position)
            data = _read_fully(self._file, size)
        except OSError as error:
            raise self.trouble(f"reading failed: {error.strerror}", self.position, error=error) from error
        self.position += len(data)
        self._at = self.position
        return data

    def keep(self, size: int, what: bytes | str) -> int:
        offset = self._base + self.position
        self.skip(size, what)
        return offset

    def skip(self, size: int, what: bytes | str) -> None:
        if size > self._total - self.position:
            left = max(0, self._total - self.position)
            raise self.truncated(f"{show(what[:200])} has {size:,} bytes and only {left:,} follow")
        self.position += size

    def finish(self) -> Store:
        return self._store

    def close(self) -> None:
        self._store.close()


class _PipedArchive(Archive):
    """An archive that comes in pieces: file data goes to a spool."""

    def __init__(self, name: bytes, pieces: Iterator[bytes], packed: str, spool: Spool, closing: Callable[[], None]) -> None:
        super().__init__(name, packed)
        self._pieces = pieces
        self._spool = spool
        self._closing = closing
        self._piece = memoryview(b"")

    def _more(self) -> bool:
        """Whether there is a next byte; it is in ``_piece`` then."""
        try:
            while not self._piece:
                piece = next(self._pieces, None)
                if piece is None:
                    return False
                self._piece = memoryview(piece)
        except PackingError as error:
            at = self.position if error.again else None
            raise self.trouble(error.message, at, hint=again(self.name) if error.again else error.hint) from error
        except (OSError, ValueError) as error:
            cause = error if isinstance(error, OSError) else None
            text = (cause and cause.strerror) or str(error)
            raise self.trouble(f"reading failed: {text}", self.position, error=cause) from error
        return True

    def first_block(self) -> bytes:
        """The first 512 bytes, fewer where it is shorter; they are read again afterwards."""
        block = self.read(BLOCK)
        self._piece = memoryview(block + self._piece.tobytes())
        self.position = 0
        return block

    def read(self, size: int) -> bytes:
        if len(self._piece) >= size:
            data = bytes(self._piece[:size])
            self._piece = self._piece[size:]
        else:
            parts = []
            left = size
            while left and self._more():
                parts.append(bytes(self._piece[:left]))
                self._piece = self._piece[left:]
                left -= len(parts[-1])
            data = b"".join(parts)
        self.position += len(data)
        return data

    def keep(self, size: int, what: bytes | str) -> int:
        offset = self._spool.size
        try:
            self._pass(size, what, self._spool.write)
        except OSError as error:
            if isinstance(error, SourceError):
                raise
            hint = "it needs room for the unpacked archive; choose another temporary directory"
            raise self.trouble(f"writing its temporary file failed: {error.strerror}", error=error, hint=hint) from error
        return offset

    def skip(self, size: int, what: bytes | str) -> None:
        self._pass(size, what, None)

    def _pass(self, size: int, what: bytes | str, sink: Callable[[memoryview], None] | None) -> None:
        while size:
            if not self._more():
                raise self.cut_off(what)
            piece = self._piece[:size]
            self._piece = self._piece[len(piece) :]
            if sink:
                sink(piece)
            self.position += len(piece)
            size -= len(piece)

    def finish(self) -> Store:
        if self.packed:
            limit = self.position + DRAIN_LIMIT
            while self.position < limit and self._more():
                self.position += len(self._piece)
                self._piece = memoryview(b"")
        self._closing()
        return self._spool.finish()

    def close(self) -> None:
        self._spool.close()
        self._closing()


def open_archive(source: PathOrFile, is_header: Callable[[bytes], bool], *, spool_dir: Directory | None = None) -> Archive:
    """The archive at ``source``: a path, or a binary file object, which stays the caller's and is read from where it stands.

    ``is_header`` says whether a block of 512 bytes begins an unpacked archive. Raises SourceError for what cannot be read,
    is empty or is something else.
    """
    owned = isinstance(source, (str, bytes, os.PathLike))
    name = _name_of(source)
    try:
        file = open(source, "rb", buffering=_READ) if isinstance(source, (str, bytes, os.PathLike)) else source  # noqa: SIM115
    except IsADirectoryError as error:
        raise SourceError(name, "is a directory, not an archive", error=error, hint="--from-dir takes a directory") from error
    except OSError as error:
        raise SourceError(name, f"cannot be opened: {error.strerror}", error=error, hint=_opening_hint(error)) from error
    try:
        return _recognise(name, file, owned, is_header, spool_dir)
    except OSError as error:
        if owned:
            file.close()
        if isinstance(error, SourceError):
            raise
        raise SourceError(name, f"reading failed: {error.strerror or error}", error=error) from error


def _recognise(
    name: bytes,
    file: IO[bytes],
    owned: bool,
    is_header: Callable[[bytes], bool],
    spool_dir: Directory | None,
) -> Archive:
    seekable = file.seekable()
    start = file.tell() if seekable else 0
    head = _read_fully(file, BLOCK)
    if not head:
        raise SourceError(name, "is empty: not a tar archive", hint=again(name))
    packed = "" if len(head) == BLOCK and is_header(head) else packing_of(head)
    if not packed:
        _check_first(name, "", head, is_header)
    if seekable and not packed:
        file.seek(start)
        return _SeekableArchive(name, file, owned=owned)
    raw = RawBytes(head, file)
    pieces = unpacked(packed, raw) if packed else iter(lambda: raw.read(_PIECE), b"")
    archive = _PipedArchive(name, pieces, packed, Spool(spool_dir), file.close if owned else _nothing)
    try:
        _check_first(name, packed, archive.first_block(), is_header)
    except BaseException:
        archive.close()
        raise
    return archive


def _check_first(name: bytes, packed: str, block: bytes, is_header: Callable[[bytes], bool]) -> None:
    """SourceError where an archive does not begin with this block."""
    if len(block) == BLOCK and is_header(block):
        return
    inner = packing_of(block)
    what = f"{inner} data" if inner else next((what for magic, what in _OTHERS if block.startswith(magic)), "")
    if packed:
        message = f"is packed with {packed} and holds {what or ('something else' if block else 'nothing')}, not a tar archive"
    else:
        message = f"is {what}, not a tar archive" if what else "is not a tar archive"
    raise SourceError(name, message, hint="tar archives are taken plain or packed with gzip, xz, bzip2 or zstd")


def again(name: bytes) -> str:
    """What to do about an archive that did not arrive as it was sent."""
    if name == STDIN:
        return "see whether the program that sends it failed, and send it again"
    return "fetch it again"


def _opening_hint(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "ask its owner, or read it as a user who may"
    return "check the name" if isinstance(error, FileNotFoundError | NotADirectoryError) else ""


def _nothing() -> None:
    """Closes nothing: the file is the caller's."""


def _read_fully(file: IO[bytes], size: int) -> bytes:
    data = file.read(size) or b""
    while data and len(data) < size:
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data


def _name_of(source: PathOrFile) -> bytes:
    if isinstance(source, (str, bytes, os.PathLike)):
        return os.fsencode(source)
    name = getattr(source, "name", None)
    if isinstance(name, (str, bytes)):
        return STDIN if name in ("<stdin>", b"<stdin>") else os.fsencode(show(name))
    return STDIN if name == 0 else b"archive"
