"""Paths of an archive's members: the directory that each leads to, among the entries before it.

A path goes through symlinks of the archive as it would in a container. It never leaves the top: a name with ``..`` in it is
refused, and so is a link that climbs above the top. An absolute link is followed if the archive has its directory; else it
leads to another filesystem. GNU tar and umoci, which Apptainer unpacks layers with, go through links inside, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from ext3.constants import NAME_MAX

from ...errors import show
from ...tar.header import PATH_LIMIT

__all__ = ["DISTRUST", "TOP", "MemberPathError", "MemberPaths"]

TOP = 0
"""Row of the archive's top."""
MAX_LINKS = 40
"""Symlinks followed on the way of one path, as in the kernel."""
MAX_COMPONENTS = 4096
"""Components of one path, with those of the symlinks on its way: as many as two paths of the longest kind have."""
DISTRUST = "do not trust this archive"
_INTO_FILE = "the archive writes through a symlink or into a file; do not trust it"

Imply = Callable[[int, bytes], int]
"""Creates the directory ``name`` in the directory ``row``; the new row."""


class MemberPathError(ValueError):
    """Path that cannot be followed in the archive. ``reason``: without the member's name."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class MemberPaths:
    """Resolver of paths among entries, which have row numbers.

    ``children``: the names in each directory; ``targets``: the text of each symlink. Both are the caller's, who calls
    ``forget`` when a directory or a symlink is replaced.
    """

    def __init__(self, children: Mapping[int, Mapping[bytes, int]], targets: Mapping[int, bytes]) -> None:
        self._children = children
        self._targets = targets
        self._last: tuple[bytes, int] = (b"", TOP)
        self._links = self._components = 0

    def forget(self) -> None:
        """Drop the last result, which members of the same directory share."""
        self._last = (b"", TOP)

    def split(self, path: bytes, what: str) -> tuple[bytes, bytes] | None:
        """Return the directory (as written) and the last component of a path; None for the top itself."""
        if len(path) >= PATH_LIMIT or b"\0" in path:
            reason = "is no path" if b"\0" in path else f"has {len(path)} bytes; Linux takes {PATH_LIMIT - 1}"
            raise MemberPathError(f"{what} {reason}")
        head, _, leaf = path.rstrip(b"/").rpartition(b"/")
        if leaf in (b"", b".", b".."):
            names = [name for name in path.split(b"/") if name not in (b"", b".")]
            if b".." in names:
                raise _climbs(what)
            if not names:
                return None
            head, leaf = b"/".join(names[:-1]), names[-1]
        _check_name(leaf)
        return head, leaf

    def make(self, head: bytes, what: str, imply: Imply) -> int:
        """Return the row of the directory at ``head``, created with its parents if missing, as ``mkdir -p`` does."""
        row = self._resolve(head, what, imply)
        assert row is not None
        return row

    def find(self, head: bytes, what: str) -> int | None:
        """Return the row of the directory at ``head``, None if it is missing."""
        return self._resolve(head, what, None)

    def _resolve(self, head: bytes, what: str, imply: Imply | None) -> int | None:
        if head == self._last[0]:
            return self._last[1]
        names = head.split(b"/")
        if b".." in names:
            raise _climbs(what)
        self._links = self._components = 0
        rows = [TOP]
        if not self._enter(rows, names, what, imply):
            return None
        self._last = (head, rows[-1])
        return rows[-1]

    def _enter(self, rows: list[int], names: Iterable[bytes], what: str, imply: Imply | None) -> bool:
        """Go down from the last of ``rows``, the directories on the way. Return False if one is missing."""
        for name in names:
            if name in (b"", b"."):
                continue
            self._components += 1
            if self._components > MAX_COMPONENTS:
                raise MemberPathError(f"{what} goes through more than {MAX_COMPONENTS} names and symlinks", DISTRUST)
            if name == b"..":
                if len(rows) == 1:
                    raise MemberPathError(f"{what} leads outside: a symlink on its way climbs above the top", DISTRUST)
                rows.pop()
                continue
            _check_name(name)
            row = self._children[rows[-1]].get(name)
            if row is None:
                if imply is None:
                    return False
                rows.append(imply(rows[-1], name))
            elif row in self._children:
                rows.append(row)
            elif row not in self._targets:
                raise _no_directory(what, name)
            elif not self._follow(rows, name, self._targets[row], what, imply):
                return False
        return True

    def _follow(self, rows: list[int], name: bytes, target: bytes, what: str, imply: Imply | None) -> bool:
        """Go on to where the symlink ``name`` leads. Return False if that is missing."""
        self._links += 1
        if self._links > MAX_LINKS:
            raise MemberPathError(f"{what} goes through more than {MAX_LINKS} symlinks", DISTRUST)
        if not target.startswith(b"/"):
            return self._enter(rows, _components_of(target), what, imply)
        rows[:] = [TOP]
        if not self._enter(rows, _components_of(target), what, None):
            raise _no_directory(what, name)
        return True


@lru_cache(maxsize=64)
def _components_of(target: bytes) -> tuple[bytes, ...]:
    """Return the components of a symlink's target that lead somewhere; many members may go through one symlink."""
    return tuple(name for name in target.split(b"/") if name not in (b"", b"."))


def _check_name(name: bytes) -> None:
    if len(name) > NAME_MAX:
        raise MemberPathError(f"a name of {len(name)} bytes; ext3 holds {NAME_MAX}")


def _climbs(what: str) -> MemberPathError:
    return MemberPathError(f"{what} leads outside: it has .. in it", DISTRUST)


def _no_directory(what: str, name: bytes) -> MemberPathError:
    return MemberPathError(f"{what} leads outside: {show(name)} is not a directory", _INTO_FILE)
