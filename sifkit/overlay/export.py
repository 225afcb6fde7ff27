"""What a container changed, as a layer that OCI tools take: a tar archive of upper/, or a directory with the same files.

A whiteout (character device 0, 0) becomes an empty file ``.wh.NAME``, an opaque directory holds ``.wh..wh..opq``; overlayfs's
own attributes are left out. Sources: OCI image specification, ``layer.md``; Linux ``Documentation/filesystems/overlayfs.rst``.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from ext3.build.progress import Progress, Silent
from ext3.bulk import read_stats
from ext3.errors import Ext3Error
from ext3.filesystem import Entry, Stat

from .view import View, is_opaque, is_whiteout

__all__ = ["Exported", "export_layer"]

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
OWN = (b"trusted.overlay.", b"user.overlay.")
AT_ONCE = 4096
SECOND = 1_000_000_000
_TYPES = {
    0o040000: tarfile.DIRTYPE,
    0o120000: tarfile.SYMTYPE,
    0o020000: tarfile.CHRTYPE,
    0o060000: tarfile.BLKTYPE,
    0o010000: tarfile.FIFOTYPE,
}


@dataclass(slots=True)
class Exported:
    """``entries`` with the marks; ``left_out``: sockets, which no archive holds. ``problems`` are errors of single files."""

    entries: int = 0
    whiteouts: int = 0
    opaque: int = 0
    content_bytes: int = 0
    left_out: int = 0
    problems: list[Exception] = field(default_factory=list)


def export_layer(view: View, file: IO[bytes], *, progress: Progress | None = None) -> Exported:
    """Write what ``view`` shows to ``file`` as a tar archive (pax), in byte order: the same image gives the same bytes.

    Raises OSError of ``file``, and the image's errors for data that cannot be read once its entry has begun.
    """
    progress = progress or Silent()
    done = Exported()
    first: dict[int, str] = {}
    progress.phase("export", None, "files")
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape") as tar:
        for path, facts in _entries(view, done):
            try:
                _add(view, tar, path, facts, first, done)
            except Ext3Error as error:
                if tar.offset % tarfile.BLOCKSIZE:
                    raise
                done.problems.append(error)
            progress.advance(1)
    progress.done()
    return done


def _entries(view: View, done: Exported) -> Iterator[tuple[bytes, Stat]]:
    batch: list[tuple[bytes, Entry]] = []
    yield b"", view.filesystem.stat(view.root)
    for item in view.walk(b"", view.root, done.problems):
        batch.append(item)
        if len(batch) == AT_ONCE:
            yield from _with_stats(view, batch, done)
            batch = []
    yield from _with_stats(view, batch, done)


def _with_stats(view: View, batch: list[tuple[bytes, Entry]], done: Exported) -> Iterator[tuple[bytes, Stat]]:
    try:
        stats: list[Stat | None] = list(read_stats(view.filesystem, [entry.ino for _, entry in batch]))
    except Ext3Error:
        stats = []
        for _, entry in batch:
            try:
                stats.append(view.filesystem.stat(entry.ino))
            except Ext3Error as error:
                stats.append(None)
                done.problems.append(error)
    for (path, _), facts in zip(batch, stats, strict=True):
        if facts is not None:
            yield path.lstrip(b"/"), facts


def _add(view: View, tar: tarfile.TarFile, path: bytes, facts: Stat, first: dict[int, str], done: Exported) -> None:
    text = path.decode("utf-8", "surrogateescape")
    head, _, name = path.rpartition(b"/")
    if is_whiteout(facts):
        mark = (head + b"/" if head else b"") + PREFIX + name
        tar.addfile(_plain(mark, facts), io.BytesIO())
        done.whiteouts += 1
        done.entries += 1
        return
    if name.startswith(PREFIX):
        error = Ext3Error(f"/{text}: a name that begins with .wh. would remove a file where the layer is used", path=path)
        done.problems.append(error)
        return
    form = facts.mode & 0o170000
    if form == 0o140000:
        done.left_out += 1
        return
    xattrs = view.filesystem.xattrs(facts.ino)
    info = _plain(path or b"./", facts)
    info.mode = facts.mode & 0o7777
    info.pax_headers = {**info.pax_headers, **_attributes(xattrs)}
    done.entries += 1
    if not facts.is_dir and facts.links > 1 and facts.ino in first:
        info.type, info.linkname, info.pax_headers = tarfile.LNKTYPE, first[facts.ino], {}
        tar.addfile(info)
        return
    if not facts.is_dir:
        first[facts.ino] = text
    if form == 0o100000:
        with view.filesystem.open_file(facts.ino) as data:
            info.size = facts.size
            tar.addfile(info, io.BufferedReader(data, 1 << 20))
        done.content_bytes += facts.size
        return
    info.type = _TYPES.get(form, tarfile.REGTYPE)
    if form == 0o120000:
        info.linkname = view.filesystem.readlink(facts.ino).decode("utf-8", "surrogateescape")
    info.devmajor, info.devminor = facts.major, facts.minor
    tar.addfile(info)
    if facts.is_dir and is_opaque(xattrs):
        tar.addfile(_plain((path + b"/" if path else b"") + OPAQUE, facts), io.BytesIO())
        done.opaque += 1
        done.entries += 1


def _plain(path: bytes, facts: Stat) -> tarfile.TarInfo:
    """An empty regular file at ``path`` with the owner and times of ``facts``."""
    info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
    info.mode, info.uid, info.gid = 0o644, facts.uid, facts.gid
    seconds, rest = divmod(facts.mtime, SECOND)
    info.mtime = seconds
    if rest:
        info.pax_headers = {"mtime": f"{seconds}.{rest:09d}"}
    return info


def _attributes(xattrs: dict[bytes, bytes]) -> dict[str, str]:
    return {
        f"SCHILY.xattr.{name.decode('utf-8', 'surrogateescape')}": value.decode("utf-8", "surrogateescape")
        for name, value in sorted(xattrs.items())
        if not name.startswith(OWN)
    }
