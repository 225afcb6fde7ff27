"""A tar archive as the content of an image: an OCI layer, or anything ``tar`` made.

The archive is read once, forwards. What it says is merged into an index first (later entries replace earlier ones), then
added to the tree in order: all children of a directory together, sorted by name, then each subdirectory in turn. File
data is not unpacked: the content returned reads it from the archive, or from a spool for what is packed or piped (see
``tarstore``). Whiteouts become what overlayfs understands. Sources: OCI image specification, "Image Layer Filesystem
Changeset"; Linux ``Documentation/filesystems/overlayfs.rst``; the keys of extended attributes as GNU tar, star and
libarchive write them.
"""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote_to_bytes

from ext3.constants import NAME_MAX, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG
from ext3.device.base import PathOrFile
from ext3.errors import SourceError, show
from ext3.format import acl
from ext3.format.acl import AclTag
from ext3.format.schema import ACL_ENTRY, ACL_HEADER
from ext3.newfs.builder import LeftOut, Segment, Times, TreeBuilder

from ...tar.header import HARD_LINK, PATH_LIMIT, SKIPPED, Member, is_header, members
from ...tar.store import TarContent
from ...tar.stream import Archive, open_archive

__all__ = ["RootAttributes", "TarContent", "TarScan", "TarTree", "read_tar", "scan_tar"]

LARGE = 1 << 20
"""Files of at least so many bytes get a segment, so that they can be copied from the archive by the kernel."""
PROGRESS_STEP = 256
IMPLIED_FREE, IMPLIED_PER_ENTRY = 10_000, 16
"""Directories without an entry of their own: more than these make an archive hostile (each costs it two bytes)."""

WHITEOUT = b".wh."
AUFS = b".wh..wh."
OPAQUE = b".wh..wh..opq"
OPAQUE_XATTRS = {b"trusted.overlay.opaque": b"y", b"user.overlay.opaque": b"y"}
ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
MINIMAL_ACL_BYTES = 4 + 3 * 8
"""Such an ACL has owner, group and other only: it says what the mode says."""

_row = struct.Struct("<3I3q3Iqq")
_ROOT = 0


@dataclass(frozen=True, slots=True)
class RootAttributes:
    """What the archive's entry for its own top (``./``) says; ``mode`` with the format bits of a directory."""

    mode: int
    uid: int
    gid: int
    times: Times
    xattrs: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class TarScan:
    """What was found. ``root`` is None without an entry for the top; ``root_xattrs`` are the top's attributes in any case
    (a layer may make it opaque without an entry). ``files`` counts names added, ``data_bytes`` the lengths of files."""

    content: TarContent
    root: RootAttributes | None
    root_xattrs: dict[bytes, bytes]
    files: int
    data_bytes: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.content.close()


def scan_tar(
    builder: TreeBuilder,
    root: int,
    source: PathOrFile,
    *,
    xattr_filter: Callable[[bytes], bool],
    progress: Callable[[int], None] | None = None,
    spool_dir: str | bytes | os.PathLike[str] | None = None,
) -> TarScan:
    """Add the entries of a tar archive below ``root``, a directory node of ``builder`` that was added already.

    ``source``: a path, or a binary file object (kept open until the content is closed, and not closed by it). Attributes
    ``xattr_filter`` refuses, and members that are no files, are counted in ``builder.left_out``. ``progress`` is called
    with the number of members read since the last call. The caller applies ``TarScan.root`` and closes the content.
    Raises SourceError with the archive's name, the member and the byte.
    """
    with read_tar(source, xattr_filter=xattr_filter, progress=progress, spool_dir=spool_dir) as found:
        return found.add_to(builder, root)


def read_tar(
    source: PathOrFile,
    *,
    xattr_filter: Callable[[bytes], bool],
    progress: Callable[[int], None] | None = None,
    spool_dir: str | bytes | os.PathLike[str] | None = None,
) -> TarTree:
    """The merged entries of an archive, for a caller who must see what is at its top before choosing where it goes.

    Arguments and errors are those of ``scan_tar``.
    """
    archive = open_archive(source, is_header, spool_dir=spool_dir)
    try:
        index = _Index(archive, xattr_filter)
        count = 0
        for count, member in enumerate(members(archive), 1):
            index.take(member)
            if progress and count % PROGRESS_STEP == 0:
                progress(PROGRESS_STEP)
        content = TarContent(archive.name, archive.finish())
    except BaseException:
        archive.close()
        raise
    if progress and count % PROGRESS_STEP:
        progress(count % PROGRESS_STEP)
    return TarTree(index, content)


class TarTree:
    """An archive that was read, and not yet added to a tree. Leaving its context closes the content, unless added."""

    def __init__(self, index: _Index, content: TarContent) -> None:
        self._index = index
        self._content = content
        self._added = False

    @property
    def top_names(self) -> set[bytes]:
        """Names at the top of the archive."""
        return self._index.top_names()

    @property
    def root(self) -> RootAttributes | None:
        """What the archive says of its top; None where it has no entry for it."""
        return self._index.root_attributes()

    @property
    def root_xattrs(self) -> dict[bytes, bytes]:
        """Attributes of the top in any case: a layer may make it opaque without an entry."""
        return self._index.attributes_of(_ROOT)

    def add_to(self, builder: TreeBuilder, root: int) -> TarScan:
        """Add everything below ``root``; the content is the caller's to close from then on."""
        scan = self._index.add_to(builder, root, self._content)
        builder.left_out.merge(self._index.left_out)
        self._added = True
        return scan

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._added:
            self._content.close()


class _Index:
    """The archive's entries, merged: rows by number, names by directory. Row 0 is the archive's top."""

    def __init__(self, archive: Archive, xattr_filter: Callable[[bytes], bool]) -> None:
        self.archive = archive
        self.left_out = LeftOut()
        self._filter = xattr_filter
        self._rows = bytearray(_row.pack(S_IFDIR | 0o755, *(0,) * 10))
        self._children: dict[int, dict[bytes, int]] = {_ROOT: {}}
        self._whiteouts: dict[int, dict[bytes, Times]] = {}
        self._opaque: set[int] = set()
        self._targets: dict[int, bytes] = {}
        self._devices: dict[int, tuple[int, int]] = {}
        self._xattrs: dict[int, dict[bytes, bytes]] = {}
        self._segments: dict[int, list[Segment]] = {}
        self._root_seen = False
        self._entries = self._implied = 0
        self._last: tuple[bytes, int] = (b"", _ROOT)

    def take(self, member: Member) -> None:
        """Merge one member. SourceError where its path leaves the tree or its link leads nowhere."""
        self._entries += 1
        if member.kind == SKIPPED:
            self.left_out.add(f"tar member type {show(member.flag)}", member.name)
            return
        parts = self._parts(member, member.name, "the name")
        if parts is None:
            if member.kind != S_IFDIR:
                raise self._trouble(member, "the archive's top is not a directory")
            self._root_seen = True
            self._fill(_ROOT, member)
            return
        head, leaf = parts
        if AUFS in member.name and _has_aufs_part(head, leaf):
            self.left_out.add("aufs metadata (.wh..wh.*)", member.name)
            return
        parent = self._directory(head, member)
        if leaf.startswith(WHITEOUT):
            self._whiteout(parent, leaf, member)
        elif member.kind == HARD_LINK:
            self._place(parent, leaf, self._link_target(member))
        else:
            siblings = self._children[parent]
            row = siblings.get(leaf)
            if row is None or member.kind != S_IFDIR or row not in self._children:
                row = self._new_row(member.kind == S_IFDIR)
                self._place(parent, leaf, row)
            self._fill(row, member)

    def _trouble(self, member: Member, message: str, hint: str = "") -> SourceError:
        return self.archive.trouble(f"{show(member.name[:PATH_LIMIT]) or '(no name)'}: {message}", member.at, hint=hint)

    def _parts(self, member: Member, path: bytes, what: str) -> tuple[bytes, bytes] | None:
        """Directory (as written) and last component of a path; None for the top itself."""
        if not path or len(path) >= PATH_LIMIT or b"\0" in path:
            trouble = f"has {len(path)} bytes; Linux takes {PATH_LIMIT - 1}" if path and b"\0" not in path else "is no path"
            raise self._trouble(member, f"{what} {trouble}")
        head, _, leaf = path.rstrip(b"/").rpartition(b"/")
        if leaf in (b"", b".", b".."):
            names = [name for name in path.split(b"/") if name not in (b"", b".")]
            if b".." in names:
                raise self._escape(member, what)
            if not names:
                return None
            head, leaf = b"/".join(names[:-1]), names[-1]
        if len(leaf) > NAME_MAX:
            raise self._trouble(member, f"a name of {len(leaf)} bytes; ext3 holds {NAME_MAX}")
        return head, leaf

    def _escape(self, member: Member, what: str) -> SourceError:
        return self._trouble(member, f"{what} leads outside: it has .. in it", "do not trust this archive")

    def _directory(self, head: bytes, member: Member, *, make: bool = True, what: str = "the name") -> int:
        """The row of a directory; what is missing is made as ``mkdir -p`` would. -1 where it is missing and not made."""
        if head == self._last[0]:
            return self._last[1]
        row = _ROOT
        for name in head.split(b"/"):
            if name in (b"", b"."):
                continue
            if name == b"..":
                raise self._escape(member, what)
            if len(name) > NAME_MAX:
                raise self._trouble(member, f"a name of {len(name)} bytes; ext3 holds {NAME_MAX}")
            child = self._children[row].get(name)
            if child is None:
                if not make:
                    return -1
                child = self._imply(row, name, member)
            elif child not in self._children:
                hint = "the archive writes through a symlink or into a file; do not trust it"
                raise self._trouble(member, f"{what} leads outside: {show(name)} is not a directory", hint)
            row = child
        self._last = (head, row)
        return row

    def _imply(self, parent: int, name: bytes, member: Member) -> int:
        self._implied += 1
        if self._implied > IMPLIED_FREE + IMPLIED_PER_ENTRY * self._entries:
            raise self._trouble(member, f"{self._implied:,} directories have no entry", "do not trust this archive")
        row = self._new_row(True)
        self._children[parent][name] = row
        seconds, nanoseconds = member.times[1], member.times[4]
        self._set(row, S_IFDIR | 0o755, (0, 0), (seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds))
        return row

    def _new_row(self, directory: bool) -> int:
        row = len(self._rows) // _row.size
        self._rows += bytes(_row.size)
        if directory:
            self._children[row] = {}
        return row

    def _set(self, row: int, mode: int, owner: tuple[int, int], times: Times, *, size: int = 0, offset: int = 0) -> None:
        _row.pack_into(self._rows, row * _row.size, mode, *owner, *times, size, offset)

    def _place(self, parent: int, name: bytes, row: int) -> None:
        siblings = self._children[parent]
        if siblings.get(name, -1) in self._children:
            self._last = (b"", _ROOT)  # a directory goes, with all below it
        siblings[name] = row

    def _fill(self, row: int, member: Member) -> None:
        size = len(member.target) if member.kind == S_IFLNK else member.size
        self._set(row, member.kind | member.mode, (member.uid, member.gid), member.times, size=size, offset=member.offset)
        if member.kind == S_IFLNK:
            if not 0 < size < PATH_LIMIT or b"\0" in member.target:
                raise self._trouble(member, f"a symlink's target of {size} bytes cannot be")
            self._targets[row] = member.target
        elif member.device != (0, 0):
            self._devices[row] = member.device
        elif member.segments is not None and member.segments != [(0, size, member.offset)]:
            self._segments[row] = member.segments
        elif size >= LARGE:
            self._segments[row] = [(0, size, member.offset)]
        self._xattrs.pop(row, None)
        if member.records:
            xattrs = {}
            for name, value in self._attributes(member).items():
                if value is not None and self._filter(name):
                    xattrs[name] = value
                else:
                    self.left_out.add(show(name), member.name)
            if xattrs:
                self._xattrs[row] = xattrs
            if ACCESS in xattrs:
                mode = _mode_of_acl(member.mode, xattrs[ACCESS])
                _row.pack_into(
                    self._rows, row * _row.size, member.kind | mode, *_row.unpack_from(self._rows, row * _row.size)[1:]
                )

    def _attributes(self, member: Member) -> dict[bytes, bytes | None]:
        """Extended attributes by full name; None for one that cannot be understood."""
        found: dict[bytes, bytes | None] = {}
        for key, value in member.records.items():
            if key.startswith(b"LIBARCHIVE.xattr."):
                found.setdefault(unquote_to_bytes(key[17:]), self._unbase64(member, value))
            elif key.startswith(b"SCHILY.xattr."):
                # GNU tar escapes the two characters a record's key cannot hold
                name = key[13:].replace(b"%3D", b"=").replace(b"%25", b"%")
                found[name] = value if name not in (ACCESS, DEFAULT) or _is_acl(value) else None
            elif key == b"RHT.security.selinux":
                found.setdefault(b"security.selinux", value)
            elif key == b"SCHILY.acl.ace":
                found[b"SCHILY.acl.ace"] = None
        for key, name in ((b"SCHILY.acl.access", ACCESS), (b"SCHILY.acl.default", DEFAULT)):
            if key in member.records and name not in found:
                try:
                    value = acl.parse_text(member.records[key].decode("utf-8", "surrogateescape"))
                except ValueError:
                    found[name] = None
                else:
                    if name == DEFAULT or len(value) > MINIMAL_ACL_BYTES:
                        found[name] = value
        return found

    def _unbase64(self, member: Member, value: bytes) -> bytes:
        try:
            return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except ValueError as error:
            raise self._trouble(member, "an extended attribute is not base64") from error

    def _whiteout(self, parent: int, leaf: bytes, member: Member) -> None:
        if leaf == OPAQUE:
            self._opaque.add(parent)
            return
        name = leaf[len(WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise self._trouble(member, "a whiteout of no name", "do not trust this archive")
        self._whiteouts.setdefault(parent, {})[name] = member.times

    def _link_target(self, member: Member) -> int:
        what = f"its hard link's target {show(member.target[:PATH_LIMIT])}"
        parts = self._parts(member, member.target, what)
        if parts is None:
            raise self._trouble(member, f"{what} is a directory")
        parent = self._directory(parts[0], member, make=False, what=what)
        row = self._children[parent].get(parts[1]) if parent >= 0 else None
        if row is None:
            raise self._trouble(member, f"{what} is not in the archive before it", "the archive is incomplete")
        if row in self._children:
            raise self._trouble(member, f"{what} is a directory")
        return row

    def top_names(self) -> set[bytes]:
        return self._children[_ROOT].keys() | self._whiteouts.get(_ROOT, {}).keys()

    def add_to(self, builder: TreeBuilder, root: int, content: TarContent) -> TarScan:
        """Everything that was not replaced, as nodes below ``root``."""
        first = len(builder.names)
        content.begin(first)
        nodes: dict[int, int] = {}
        files = data_bytes = 0
        todo = [(_ROOT, root)]
        while todo:
            directory, parent = todo.pop()
            children = self._children[directory]
            whiteouts = self._whiteouts.get(directory, {})
            below = []
            for name in sorted(children.keys() | whiteouts.keys() if whiteouts else children):
                files += 1
                row = children.get(name)
                if row is None:
                    node = builder.add(parent, name, S_IFCHR, 0, 0, 0, whiteouts[name])
                    builder.devices[node] = (0, 0)
                    continue
                if row in nodes:
                    builder.link(parent, name, nodes[row])
                    continue
                mode, uid, gid, *times, size, offset = _row.unpack_from(self._rows, row * _row.size)
                node = builder.add(parent, name, mode, uid, gid, size, tuple(times))
                kind = mode & 0o170000
                if kind == S_IFREG:
                    nodes[row] = node
                    data_bytes += size
                    segments = self._segments.get(row)
                    content.place(node, offset, size, segments)
                    if segments is not None:
                        builder.segments[node] = segments
                elif kind == S_IFDIR:
                    # a whiteout applies to the layers below only: what they had in a directory made anew stays hidden
                    if name in whiteouts:
                        self._opaque.add(row)
                    below.append((row, node))
                else:
                    nodes[row] = node
                    self._add_special(builder, node, row, kind)
                xattrs = self.attributes_of(row)
                if xattrs:
                    builder.xattrs[node] = xattrs
            todo += reversed(below)
        return TarScan(content, self.root_attributes(), self.attributes_of(_ROOT), files, data_bytes)

    def root_attributes(self) -> RootAttributes | None:
        if not self._root_seen:
            return None
        mode, uid, gid, *times, _, _ = _row.unpack_from(self._rows, 0)
        return RootAttributes(mode, uid, gid, tuple(times), self.attributes_of(_ROOT))

    def _add_special(self, builder: TreeBuilder, node: int, row: int, kind: int) -> None:
        if kind == S_IFLNK:
            builder.targets[node] = self._targets[row]
        elif row in self._devices or kind in (S_IFCHR, 0o060000):
            builder.devices[node] = self._devices.get(row, (0, 0))

    def attributes_of(self, row: int) -> dict[bytes, bytes]:
        xattrs = self._xattrs.get(row, {})
        return {**xattrs, **OPAQUE_XATTRS} if row in self._opaque else xattrs


def _has_aufs_part(head: bytes, leaf: bytes) -> bool:
    return any(name.startswith(AUFS) for name in head.split(b"/")) or (leaf.startswith(AUFS) and leaf != OPAQUE)


def _mode_of_acl(mode: int, value: bytes) -> int:
    """The mode that goes with an access ACL, as the kernel sets it; libarchive writes it otherwise where there is a mask."""
    bits: dict[int, int] = {tag: allowed for tag, allowed, _ in ACL_ENTRY.packer.iter_unpack(value[ACL_HEADER.size :])}
    group = bits.get(AclTag.MASK, bits[AclTag.GROUP_OBJ])
    return mode & ~0o777 | bits[AclTag.USER_OBJ] << 6 | group << 3 | bits[AclTag.OTHER]


def _is_acl(value: bytes) -> bool:
    try:
        acl.to_disk(value)
    except ValueError:
        return False
    return True
