"""Members of an archive merged by path, as an OCI layer or a plain archive is unpacked: later entries replace earlier ones,
missing parents are made, hard links are one file, whiteouts become what overlayfs understands. ``member_paths`` finds the
directory that a path leads to.

The merged entries are added to a tree in order: all children of a directory together, sorted by name, then each subdirectory in
turn. Sources: OCI image specification, "Image Layer Filesystem Changeset"; Linux ``Documentation/filesystems/overlayfs.rst``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial

from ext3.constants import S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from ext3.newfs.builder import LeftOut, Segment, Times, TreeBuilder

from ...errors import counted, show
from ...tar.errors import ArchiveError
from ...tar.header import PATH_LIMIT, HeaderError
from ...tar.members import HARD_LINK, SKIPPED, VOLUME_LABEL, Member
from ...tar.stream import Archive
from ...vfs.whiteouts import AUFS_PREFIX, FUSE_LEFTOVER, OPAQUE_WHITEOUT, OPAQUE_XATTRS, WHITEOUT_PREFIX, is_opaque
from .archive_content import ArchiveContent
from .layout import RootAttributes
from .member_paths import DISTRUST, TOP, MemberPathError, MemberPaths
from .member_xattrs import ACCESS, member_xattrs, mode_of_acl

__all__ = ["LayerMerge", "MemberRefusedError"]

LARGE = 1 << 20
"""Files of at least so many bytes get a segment, so that they can be copied from the archive by the kernel."""
IMPLIED_FREE, IMPLIED_PER_ENTRY = 10_000, 16
"""Directories without an entry of their own: more than these make an archive hostile (each costs it two bytes)."""

_row = struct.Struct("<3I3q3Iqq")
"""mode, uid, gid, times, size, offset of the data in the store."""
_ROOT = TOP


_IMAGE_NAMES = {b"oci-layout", b"index.json", b"manifest.json", b"repositories"}
"""Names of files at the top of an archive of a container image (OCI image layout; Docker image specification 1.2)."""


class MemberRefusedError(ArchiveError):
    """Member that cannot be part of a tree: its path leads outside, its link nowhere ..."""


class LayerMerge:
    """Merged entries of an archive: rows by number, names by directory. Row 0 is the archive's top.

    ``left_out``: members that are no files, and attributes that ``xattr_filter`` refuses or ext3 cannot hold.
    """

    def __init__(self, archive: Archive, xattr_filter: Callable[[bytes], bool]) -> None:
        self.left_out = LeftOut()
        self._archive = archive
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
        self._paths = MemberPaths(self._children, self._targets)
        self._further_names: dict[int, int] = {}
        """Hard links beside the first name, by row."""
        self._unknown_types: dict[bytes, tuple[int, bytes]] = {}

    @property
    def top_names(self) -> set[bytes]:
        """Names at the top of the archive, those of whiteouts included."""
        return self._children[_ROOT].keys() | self._whiteouts.get(_ROOT, {}).keys()

    @property
    def image_format(self) -> str:
        """Format of a container image, if the archive is one with all its layers: "docker save" or "OCI layout"; else ""."""
        names = self.top_names
        content = {name for name in names if name == b"blobs" or _is_digest(name)}
        if not content or names - content - _IMAGE_NAMES:
            return ""
        if b"manifest.json" in names:  # docker save writes both since Docker 25
            return "docker save"
        return "OCI layout" if {b"oci-layout", b"index.json"} <= names else ""

    @property
    def root(self) -> RootAttributes | None:
        """Attributes of the top; None if the archive has no entry for it."""
        if not self._root_seen:
            return None
        mode, uid, gid, *times, _, _ = _row.unpack_from(self._rows, 0)
        return RootAttributes(mode, uid, gid, tuple(times), self.root_xattrs)

    @property
    def root_xattrs(self) -> dict[bytes, bytes]:
        """Extended attributes of the top in any case: a layer may make it opaque without an entry."""
        return self._xattrs_of(_ROOT)

    @property
    def notes(self) -> list[str]:
        """Notes on the archive for the user, although all of it was read."""
        notes = []
        for flag, (count, first) in sorted(self._unknown_types.items()):
            what = f"{counted(count, 'member')} of the unknown type {show(flag)}"
            notes.append(f"{what}, first {show(first)}: taken for regular files, as tar does")
        if not self._archive.has_end_marker:
            notes.append(f"the archive has no end marker; the {self._archive.compression} stream it is packed in is whole")
        return notes

    def add(self, member: Member) -> None:
        """Merge one member. Raises MemberRefusedError if its path leaves the tree or its link has no target."""
        try:
            self._add(member)
        except MemberPathError as error:
            raise self._refused(member, error.reason, error.hint) from error

    def _add(self, member: Member) -> None:
        self._entries += 1
        if member.kind == SKIPPED:
            note = self.left_out.add_harmless if member.typeflag == VOLUME_LABEL else self.left_out.add
            note(f"tar member type {show(member.typeflag)}", member.name)
            return
        if not member.has_known_type:
            count, first = self._unknown_types.get(member.typeflag, (0, member.name))
            self._unknown_types[member.typeflag] = count + 1, first
        parts = self._paths.split(member.name, "the name")
        if parts is None:
            if member.kind != S_IFDIR:
                raise self._refused(member, "the archive's top is not a directory")
            self._root_seen = True
            self._fill(_ROOT, member)
            return
        head, leaf = parts
        if AUFS_PREFIX in member.name and _has_aufs_part(head, leaf):
            self.left_out.add_harmless("aufs metadata (.wh..wh.*)", member.name)
            return
        if leaf == FUSE_LEFTOVER and member.kind == S_IFCHR and member.device == (0, 0):
            self.left_out.add_harmless("devices .wh..opq of fuse-overlayfs", member.name)
            return
        parent = self._paths.make(head, "the name", partial(self._imply, member))
        if leaf.startswith(WHITEOUT_PREFIX):
            self._add_whiteout(parent, leaf, member)
        elif member.kind == HARD_LINK:
            self._place_link(parent, leaf, self._link_target(member))
        else:
            siblings = self._children[parent]
            row = siblings.get(leaf)
            if row is None or member.kind != S_IFDIR or row not in self._children:
                row = self._new_row(member.kind == S_IFDIR)
                self._place(parent, leaf, row)
            self._fill(row, member)

    def _refused(self, member: Member, reason: str, hint: str = "") -> MemberRefusedError:
        return MemberRefusedError(
            self._archive.path,
            reason,
            member=member.name,
            offset=member.offset,
            compression=self._archive.compression,
            hint=hint,
        )

    def _imply(self, member: Member, parent: int, name: bytes) -> int:
        """Create a directory without an entry of its own, with the mtime of the member in it; return its row."""
        self._implied += 1
        if self._implied > IMPLIED_FREE + IMPLIED_PER_ENTRY * self._entries:
            raise self._refused(member, f"{self._implied:,} directories have no entry", DISTRUST)
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
        old = siblings.get(name)
        siblings[name] = row
        if old is None:
            return
        if old in self._children or old in self._targets:
            self._paths.forget()  # a directory is replaced, with all below it, or a link that led to one
        self._drop(old)

    def _place_link(self, parent: int, name: bytes, row: int) -> None:
        if self._children[parent].get(name) != row:
            self._further_names[row] = self._further_names.get(row, 0) + 1
            self._place(parent, name, row)

    def _drop(self, row: int) -> None:
        """Give back the data of an entry that lost a name, and of all below it, unless they have others."""
        dropped = [row]
        while dropped:
            row = dropped.pop()
            if self._further_names.get(row):
                self._further_names[row] -= 1
                continue
            dropped += self._children.get(row, {}).values()
            mode, *_, size, offset = _row.unpack_from(self._rows, row * _row.size)
            if mode & S_IFMT == S_IFREG and size:
                segments = self._segments.get(row, ((0, size, offset),))
                self._archive.discard(offset, sum(length for _, length, _ in segments))

    def _fill(self, row: int, member: Member) -> None:
        """Set a row to its entry; attributes of an earlier entry do not stay."""
        size = len(member.target) if member.kind == S_IFLNK else member.size
        mode = member.mode
        if member.kind == S_IFLNK:
            if not 0 < size < PATH_LIMIT or b"\0" in member.target:
                raise self._refused(member, f"a symlink's target of {size} bytes cannot be")
            self._targets[row] = member.target
        elif member.device != (0, 0):
            self._devices[row] = self._checked_device(member)
        elif member.ranges is not None and member.ranges != [(0, size, member.data_offset)]:
            self._segments[row] = member.ranges
        elif size >= LARGE:
            self._segments[row] = [(0, size, member.data_offset)]
        self._xattrs.pop(row, None)
        if member.records:
            xattrs = self._filtered_xattrs(member)
            if xattrs:
                self._xattrs[row] = xattrs
            if ACCESS in xattrs:
                mode = mode_of_acl(mode, xattrs[ACCESS])
        self._set(row, member.kind | mode, (member.uid, member.gid), member.times, size=size, offset=member.data_offset)

    def _checked_device(self, member: Member) -> tuple[int, int]:
        major, minor = member.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise self._refused(
                member,
                f"device numbers {major}, {minor} do not fit ext3",
                "the archive is damaged, or not written by a tar program",
            )
        return member.device

    def _filtered_xattrs(self, member: Member) -> dict[bytes, bytes]:
        """Extended attributes of a member that are taken; the others are left out."""
        try:
            found = member_xattrs(member.records)
        except HeaderError as error:
            raise self._refused(member, str(error)) from error
        taken = {}
        for name, value in found.items():
            if value is not None and self._filter(name):
                taken[name] = value
            else:
                self.left_out.add(show(name), member.name)
        return taken

    def _add_whiteout(self, parent: int, leaf: bytes, member: Member) -> None:
        if leaf == OPAQUE_WHITEOUT:
            self._opaque.add(parent)
            return
        name = leaf[len(WHITEOUT_PREFIX) :]
        if name in (b"", b".", b".."):
            raise self._refused(member, "a whiteout of no name", DISTRUST)
        self._whiteouts.setdefault(parent, {})[name] = member.times

    def _link_target(self, member: Member) -> int:
        what = f"its hard link's target {show(member.target[:PATH_LIMIT])}"
        if not member.target:
            raise self._refused(member, f"{what} is no path")
        parts = self._paths.split(member.target, what)
        if parts is None:
            raise self._refused(member, f"{what} is a directory")
        parent = self._paths.find(parts[0], what)
        row = None if parent is None else self._children[parent].get(parts[1])
        if row is None:
            raise self._refused(member, f"{what} is not in the archive before it", "the archive is incomplete")
        if row in self._children:
            raise self._refused(member, f"{what} is a directory")
        return row

    def add_to(self, builder: TreeBuilder, root: int, content: ArchiveContent) -> tuple[int, int]:
        """Add everything that was not replaced as nodes below ``root``, and place their data in ``content``.

        Return the number of names added, and the bytes of all files.
        """
        first = len(builder.names)
        content.begin(first)
        nodes: dict[int, int] = {}
        files = data_bytes = 0
        todo = [(_ROOT, root, False)]
        while todo:
            directory, parent, below_opaque = todo.pop()
            children = self._children[directory]
            # Below an opaque directory they hide nothing: the kernel would list names that nobody can remove.
            whiteouts = {} if below_opaque else self._whiteouts.get(directory, {})
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
                if below_opaque and mode & S_IFMT == S_IFCHR and self._devices.get(row, (0, 0)) == (0, 0):
                    files -= 1
                    continue
                node = builder.add(parent, name, mode, uid, gid, size, tuple(times))
                kind = mode & S_IFMT
                if kind == S_IFREG:
                    nodes[row] = node
                    data_bytes += size
                    segments = self._segments.get(row)
                    content.place(node, offset, size, segments)
                    if segments is not None:
                        builder.segments[node] = segments
                elif kind == S_IFDIR:
                    # a whiteout applies to lower layers only: a directory created again does not show their content
                    if name in whiteouts or (not below_opaque and is_opaque(self._xattrs_of(row))):
                        self._opaque.add(row)  # to every kind of mount, because whiteouts below are left out
                    below.append((row, node, below_opaque or row in self._opaque))
                else:
                    nodes[row] = node
                    self._add_special(builder, node, row, kind)
                xattrs = self._xattrs_of(row)
                if xattrs:
                    builder.xattrs[node] = xattrs
            todo += reversed(below)
        return files, data_bytes

    def _add_special(self, builder: TreeBuilder, node: int, row: int, kind: int) -> None:
        if kind == S_IFLNK:
            builder.targets[node] = self._targets[row]
        elif kind in (S_IFCHR, S_IFBLK):
            builder.devices[node] = self._devices.get(row, (0, 0))

    def _xattrs_of(self, row: int) -> dict[bytes, bytes]:
        xattrs = self._xattrs.get(row, {})
        return {**xattrs, **dict.fromkeys(OPAQUE_XATTRS, b"y")} if row in self._opaque else xattrs


def _is_digest(name: bytes) -> bool:
    """True for the name of a layer's directory or of a configuration in an archive of docker save."""
    stem = name.removesuffix(b".json").removesuffix(b".tar")
    return len(stem) == 64 and set(stem) <= set(b"0123456789abcdef")


def _has_aufs_part(head: bytes, leaf: bytes) -> bool:
    return any(name.startswith(AUFS_PREFIX) for name in head.split(b"/")) or (
        leaf.startswith(AUFS_PREFIX) and leaf != OPAQUE_WHITEOUT
    )
