"""Plan of a normalization: which marks of upper/ change, directory by directory, and which cannot. Writes nothing.

A plain user's fuse-overlayfs leaves ``.wh.NAME`` files and opaque marks, which the kernel does not know (``vfs/whiteouts.py``).
Device whiteouts hold wherever Apptainer mounts an overlay; an opaque directory holds for root and for writable use, but not in
a plain user's read-only overlay. If the base, the tree of the layers below, is known, a whiteout for each of its names takes
the place of an opaque mark. Where nothing is below there are no whiteouts: the kernel lists them as names that do not exist.
That the top of upper/ is opaque means something to fuse-overlayfs only, and has no other form than whiteouts.
Sources: Linux ``fs/overlayfs/readdir.c``, ``namei.c``; tried with Apptainer 1.4.5 and fuse-overlayfs 1.13.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from stat import S_ISREG
from typing import Generic, NamedTuple, TypeVar

from ...errors import SifkitError, show
from ...vfs.errors import DamagedTreeError
from ...vfs.file_tree import CHARACTER_DEVICE, UNKNOWN, FileTree, Listing, Row, is_directory, stat_of
from ...vfs.resolve import is_dir
from ...vfs.walk import Walker
from ...vfs.whiteouts import (
    AUFS_PREFIX,
    FUSE_LEFTOVER,
    FUSE_OPAQUE_XATTR,
    OPAQUE_WHITEOUT,
    OPAQUE_XATTRS,
    WHITEOUT_PREFIX,
    has_whiteout_prefix,
    is_opaque,
    is_redirected,
    is_whiteout,
    whited_out_name,
)

__all__ = [
    "KEPT_PROBLEMS",
    "DirectoryMarks",
    "MarkPlan",
    "MarkPlanner",
    "MarkProblem",
    "RenamedDirectoryError",
    "UpperDirectory",
]

OPAQUE_MARKS = (*OPAQUE_XATTRS, FUSE_OPAQUE_XATTR)

KEPT_PROBLEMS = 1000

N = TypeVar("N", bound=Hashable)
B = TypeVar("B", bound=Hashable)


class MarkProblem(NamedTuple):
    """Name in upper/ that is left as it is: its path in the container, and why."""

    path: bytes
    reason: str


class RenamedDirectoryError(SifkitError):
    """overlayfs renamed a directory of the base, so that its content is found under another name there."""

    kind = "lower-content"


class UpperDirectory(NamedTuple, Generic[N, B]):
    """Directory of upper/ and what is below it.

    ``parent``: None for the top. Paths are made when they are needed: those of an image could fill the memory.
    ``base``: the same directory of the base, None if there is none. ``base_known`` False: there is no base to look into.
    ``is_cut_off``: an opaque directory above it, or it itself, hides what is below.
    """

    parent: UpperDirectory[N, B] | None
    name: bytes
    node: N
    base: B | None
    base_known: bool
    is_cut_off: bool
    may_have_xattrs: bool = True

    @property
    def is_top(self) -> bool:
        return self.parent is None

    @property
    def path(self) -> bytes:
        """Path in the container."""
        names = []
        directory: UpperDirectory[N, B] | None = self
        while directory is not None:
            names.append(directory.name)
            directory = directory.parent
        return b"/".join(reversed(names)) or b"/"


@dataclass(frozen=True, slots=True)
class DirectoryMarks:
    """Changes in one directory. ``hide``: names that get a whiteout; ``remove``: marks that go, after that.

    ``set_xattrs``: opaque marks to write; ``remove_xattrs``: to remove, last. ``is_opaque``: the directory stays opaque;
    ``was_opaque``: it was. ``converted``: number of ``.wh.`` files among ``remove`` whose whiteout is or becomes a device.
    ``problems``: names that stay as they are, and why.
    """

    hide: tuple[bytes, ...] = ()
    remove: tuple[bytes, ...] = ()
    set_xattrs: tuple[bytes, ...] = ()
    remove_xattrs: tuple[bytes, ...] = ()
    is_opaque: bool = False
    was_opaque: bool = False
    converted: int = 0
    problems: tuple[tuple[bytes, str], ...] = ()

    @property
    def changes(self) -> bool:
        return bool(self.hide or self.remove or self.set_xattrs or self.remove_xattrs)


@dataclass(slots=True)
class MarkPlan(Generic[N, B]):
    """Directories of upper/ whose marks change, parents first, and totals.

    ``converted``: ``.wh.`` files that become device whiteouts; ``hidden``: names of the base that get one; ``opened``: opaque
    directories that are so no longer; ``marked``: opaque directories whose marks are completed; ``removed``: marks that hide
    nothing. ``opaque``: directories that are opaque afterwards. ``problems``: the first KEPT_PROBLEMS of ``problem_count``.
    """

    directories: list[UpperDirectory[N, B]] = field(default_factory=list)
    converted: int = 0
    hidden: int = 0
    opened: int = 0
    marked: int = 0
    removed: int = 0
    opaque: int = 0
    problems: list[MarkProblem] = field(default_factory=list)
    problem_count: int = 0

    def add(self, directory: UpperDirectory[N, B], marks: DirectoryMarks) -> None:
        self.problem_count += len(marks.problems)
        if marks.problems:
            base = directory.path.rstrip(b"/") + b"/"
            kept = marks.problems[: KEPT_PROBLEMS - len(self.problems)]
            self.problems += [MarkProblem(base + name, reason) for name, reason in kept]
        self.opaque += marks.is_opaque
        if not marks.changes:
            return
        self.directories.append(directory)
        self.converted += marks.converted
        self.opened += marks.was_opaque and not marks.is_opaque
        self.marked += marks.was_opaque and marks.is_opaque
        if directory.base_known and directory.is_cut_off:
            self.hidden += len(marks.hide)
        self.removed += sum(name != OPAQUE_WHITEOUT for name in marks.remove) - marks.converted


class MarkPlanner(Generic[N, B]):
    """Planner for the directory ``top`` of a tree. ``base``: the merged layers below, None if they are not known."""

    def __init__(self, tree: FileTree[N], top: N, base: FileTree[B] | None) -> None:
        self._tree = tree
        self._base = base
        self.top = top

    def plan(self) -> MarkPlan[N, B]:
        """Walk everything. Raises RenamedDirectoryError with a base, and errors of directories that cannot be read."""
        found: MarkPlan[N, B] = MarkPlan()
        base, walker = self._base, Walker(self._tree, self.top)
        top = UpperDirectory(None, b"", self.top, None if base is None else base.root, base is not None, False)
        pending = [(top, 0)]
        while pending:
            directory, depth = pending.pop()
            path = directory.path
            try:
                listing = walker.read(path, directory.node)
            except NotADirectoryError as error:
                raise DamagedTreeError(path, "the image is damaged: its entry says that it is a directory") from error
            assert listing is not None  # a walker without a callback raises
            xattrs = self._xattrs(directory)
            directory = directory._replace(is_cut_off=self._is_cut_off(directory, listing, xattrs))
            found.add(directory, self._marks(directory, listing, xattrs))
            below = []
            for row in listing.rows:
                if is_directory(row) and walker.may_enter(path.rstrip(b"/") + b"/" + row.name, row.node, depth + 1):
                    below.append((self._below(directory, row), depth + 1))
            pending += reversed(below)
        return found

    def marks(self, directory: UpperDirectory[N, B]) -> DirectoryMarks:
        """Read a directory of the plan again, and return its changes."""
        (listing,) = self._tree.scan_many([directory.node])
        if listing.problem is not None:
            raise listing.problem
        return self._marks(directory, listing, self._xattrs(directory))

    def _xattrs(self, directory: UpperDirectory[N, B]) -> Mapping[bytes, bytes]:
        return self._tree.xattrs(directory.node) if directory.may_have_xattrs else {}

    def _is_cut_off(self, directory: UpperDirectory[N, B], listing: Listing[N], xattrs: Mapping[bytes, bytes]) -> bool:
        if is_redirected(xattrs):  # what is below it has another path
            if directory.base_known:
                message = f"{show(directory.path)}: overlayfs renamed this directory, the base has it under another name"
                raise RenamedDirectoryError(message, hint="without a base its marks can be changed")
            return is_opaque(xattrs)
        if directory.is_cut_off:
            return True
        return _is_opaque(directory, listing.rows, xattrs) and (directory.base_known or not directory.is_top)

    def _below(self, directory: UpperDirectory[N, B], row: Row[N]) -> UpperDirectory[N, B]:
        found: B | None = None
        if self._base is not None and directory.base is not None:
            found = self._base.find_name(directory.base, row.name)
            if found is not None and not is_dir(self._base.stat(found)):
                found = None  # replaced by the directory of upper/
        known, cut_off = directory.base_known, directory.is_cut_off
        return UpperDirectory(directory, row.name, row.node, found, known, cut_off, row.may_have_xattrs)

    def _base_names(self, directory: UpperDirectory[N, B]) -> set[bytes]:
        if self._base is None or directory.base is None:
            return set()
        (listing,) = self._base.scan_many([directory.base], stats=False)
        if listing.problem is not None:
            raise listing.problem
        return {row.name for row in listing.rows}

    def _marks(self, directory: UpperDirectory[N, B], listing: Listing[N], xattrs: Mapping[bytes, bytes]) -> DirectoryMarks:
        """Return the changes in one directory."""
        names = _Names(listing.rows)
        opaque = _is_opaque(directory, listing.rows, xattrs)
        nothing_below = directory.base_known and directory.base is None
        converted = 0
        if nothing_below or (directory.is_cut_off and not directory.base_known):
            hide, dead = set[bytes](), names.devices
        elif directory.is_cut_off:
            hide = self._base_names(directory) - names.files
            dead = names.devices - hide
            hide -= names.devices
        else:
            hide, dead = names.hidden - names.devices, set()
            converted = len(names.hidden)
        marks = [name for name in OPAQUE_MARKS if xattrs.get(name) == b"y"]
        wanted = OPAQUE_XATTRS if opaque and not directory.base_known else ()
        if directory.is_top:
            marks, wanted = [name for name in marks if name == FUSE_OPAQUE_XATTR], ()
            if opaque and not directory.base_known:
                marks = []
                names.marks.discard(OPAQUE_WHITEOUT)
        return DirectoryMarks(
            hide=tuple(sorted(hide)),
            remove=tuple(sorted(names.marks | dead)),
            set_xattrs=tuple(name for name in wanted if name not in marks),
            remove_xattrs=tuple(name for name in marks if name not in wanted),
            is_opaque=opaque and not directory.base_known,
            was_opaque=opaque,
            converted=converted,
            problems=tuple(names.problems),
        )


def _is_opaque(directory: UpperDirectory[N, B], rows: Sequence[Row[N]], xattrs: Mapping[bytes, bytes]) -> bool:
    """Return True if a directory hides what is below it, in the view of whoever wrote it."""
    if any(row.name == OPAQUE_WHITEOUT for row in rows):
        return True
    return xattrs.get(FUSE_OPAQUE_XATTR) == b"y" if directory.is_top else is_opaque(xattrs)


class _Names:
    """Names of a directory, by what they mean.

    ``files``: that the kernel shows; ``devices``: whiteouts; ``hidden``: names that fuse-overlayfs's whiteouts hide; ``marks``:
    names of these whiteouts and of its other marks, which are removed; ``problems``: names that stay, and why.
    """

    def __init__(self, rows: Sequence[Row[N]]) -> None:
        self.files: set[bytes] = set()
        self.devices: set[bytes] = set()
        self.hidden: set[bytes] = set()
        self.marks: set[bytes] = set()
        self.problems: list[tuple[bytes, str]] = []
        prefixed = []
        for row in rows:
            if has_whiteout_prefix(row.name):
                prefixed.append(row)
            elif row.file_type in (CHARACTER_DEVICE, UNKNOWN) and is_whiteout(stat_of(row)):
                self.devices.add(row.name)
            else:
                self.files.add(row.name)
        for row in prefixed:
            self._add_prefixed(row)

    def _add_prefixed(self, row: Row[N]) -> None:
        found = stat_of(row)
        is_mark = is_whiteout(found) or (S_ISREG(found.mode) and not found.size)
        hidden = whited_out_name(row.name)
        if row.name == OPAQUE_WHITEOUT or (row.name == FUSE_LEFTOVER and is_whiteout(found)):
            hidden = None
        elif row.name == WHITEOUT_PREFIX or row.name.startswith(AUFS_PREFIX):
            is_mark = False
        if not is_mark:
            reason = "it is no whiteout, but fuse-overlayfs hides every name that begins with .wh."
            self.problems.append((row.name, reason))
        elif hidden in self.files:
            reason = f"{show(row.name)} is beside it: the kernel shows the file, fuse-overlayfs hides it"
            self.problems.append((hidden, reason))
        else:
            self.marks.add(row.name)
            if hidden is not None:
                self.hidden.add(hidden)
