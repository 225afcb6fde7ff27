"""Which verb was meant: names that live in another group, words of other tools, slips of the finger.

Only verbs that exist are ever suggested: everything is looked up in the command tree. Of a word whose verbs are all still to
come it is said that this release has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...errors import show
from .values import closest

if TYPE_CHECKING:
    from .frame import VerbGroup

__all__ = ["WORDS", "explain", "paths"]

ALIKE = 0.72
"""How alike a slip must be to the verb that was meant."""

_VERBS = {
    "overlay create": "new make mkfs mkfs.ext3 mke2fs",
    "overlay info": "inspect status dumpe2fs tune2fs",
    "overlay clone": "copy",
    "overlay fsck": "fsck fsck.ext3 e2fsck repair",
    "overlay resize": "resize resize2fs grow shrink",
    "overlay export": "layer",
    "xattr list": "getfattr lsattr",
    "xattr set": "setfattr",
    "cp": "copy",
    "rm": "unlink rmdir",
    "mv": "rename",
    "sif": "sif siftool",
    "sif list": "list",
    "sif dump": "dump",
    "sif del": "del delete remove",
    "sif check": "check verify",
    **{f"sif {name}": name for name in ("header", "add", "setprim", "update", "replace", "unpack", "pack", "compact")},
    "ls": "dir debugfs list",
    "cat": "type show dump",
    **{name: name for name in ("tree", "stat", "find", "extract", "du", "df", "mkdir", "ln", "chmod")},
    **{name: name for name in ("chown", "build", "diff", "exec", "run", "shell", "instance", "doctor")},
}
WORDS = {word: [verb for verb, words in _VERBS.items() if word in words.split()] for word in " ".join(_VERBS.values()).split()}
"""A word, and the verbs that do it, the best first: those of this release and of later ones."""
_OPTIONS = {"help": "sifkit -h", "version": "sifkit --version"}


def paths(group: VerbGroup, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every verb below ``group`` as the words that call it."""
    for entry in group.verbs:
        path = (*above, entry.name)
        yield path
        if entry.group:
            yield from paths(group.get_command(None, entry.name), path)


def explain(root: VerbGroup, at: tuple[str, ...], word: str, own: Mapping[str, str]) -> str:
    """What is wrong with ``word`` as a verb of the group called ``at``; ``own``: words the group itself knows a verb for."""
    known = [" ".join(path) for path in paths(root)]
    meant = _OPTIONS.get(word) or " or ".join(f"sifkit {path}" for path in _meant(known, " ".join(at), word, own))
    if meant:
        return f"no such command {show(word)} (did you mean {meant}?)"
    return f"no such command {show(word)}" + (" in this release" if word in WORDS else "")


def _meant(known: list[str], at: str, word: str, own: Mapping[str, str]) -> list[str]:
    if own.get(word) in known:
        return [own[word]]
    if named := _called(known, word):
        return named
    if word in WORDS:
        return [path for path in WORDS[word] if path in known][:1]
    slip = closest(word, [path.rpartition(" ")[2] for path in known], cutoff=ALIKE)
    if slip is None:
        return []
    inside = [path for path in known if path.rpartition(" ")[0] == at]
    return _called(inside, slip) or _called(known, slip)


def _called(known: list[str], name: str) -> list[str]:
    return [path for path in known if path.rpartition(" ")[2] == name]
