"""Suggestions for unknown verbs and options: verbs of other groups, other tools' names, spelling mistakes.

Only verbs of the command tree are suggested. For a name whose verbs all belong to later releases the message says that this
release has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import show

if TYPE_CHECKING:
    from .frame import VerbGroup

__all__ = ["SYNONYMS", "unknown_command", "unknown_option", "verb_paths"]

SIMILARITY = 0.72
"""Least similarity of a misspelt verb and the suggested one, from 0 to 1."""

_VERBS = {
    "overlay create": "new make mkfs mkfs.ext3 mke2fs",
    "overlay info": "inspect status dumpe2fs tune2fs",
    "overlay clone": "copy",
    "overlay fsck": "fsck fsck.ext3 e2fsck repair",
    "overlay undo": "e2undo undo",
    "overlay rebuild": "rebuild defrag reformat",
    "overlay resize": "resize resize2fs grow shrink extend enlarge expand",
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
    **{name: name for name in ("chown", "diff", "exec", "run", "shell", "doctor")},
}
SYNONYMS = {
    word: [verb for verb, words in _VERBS.items() if word in words.split()] for word in " ".join(_VERBS.values()).split()
}
"""Verbs by other tools' names for them, best match first, of this release and of later ones."""
_APPTAINER = frozenset(
    [
        "build",
        "cache",
        "capability",
        "config",
        "instance",
        "key",
        "keyserver",
        "oci",
        "plugin",
        "pull",
        "push",
        "registry",
        "remote",
        "search",
        "sign",
        "test",
    ]
)
"""Commands of Apptainer that have no counterpart here."""
_OPTIONS = {"version": "sifkit --version"}


_ACTIONS = {
    "-delete": "find changes nothing; remove files with: sifkit rm IMAGE:/PATH",
    "-exec": "find runs nothing; give its output to xargs: sifkit find -0 ... | xargs -0",
}
"""Actions of find(1) that are not ours, and what to do."""


def verb_paths(group: VerbGroup, parent: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield every verb below ``group`` as the words that call it."""
    for entry in group.verbs:
        path = (*parent, entry.name)
        yield path
        if entry.group:
            yield from verb_paths(group.get_command(None, entry.name), path)


def unknown_option(option: str, params: Sequence[Any]) -> str:
    """Error message for an unknown option of a command with these parameters."""
    if option in _ACTIONS:
        return f"no option {option}: {_ACTIONS[option]}"
    if option[1:2].isdigit():
        return f"no such option {show(option)}; before a value that begins with a minus sign write --"
    from .values import closest

    names = [name for param in params for name in (*param.opts, *param.secondary_opts) if len(name) > 2]
    found = closest(option.lstrip("-"), [name.lstrip("-") for name in names])  # the dashes are no similarity
    return f"no such option {show(option)}" + _did_you_mean(next((name for name in names if name.lstrip("-") == found), None))


def unknown_command(root: VerbGroup, group: tuple[str, ...], word: str, aliases: Mapping[str, str]) -> str:
    """Error message for an unknown verb ``word`` of the group called ``group``, which has ``aliases`` of its own."""
    known = [" ".join(path) for path in verb_paths(root)]
    suggested = _OPTIONS.get(word) or " or ".join(
        f"sifkit {path}" for path in _candidates(known, " ".join(group), word, aliases)
    )
    if suggested:
        return f"no such command {show(word)}" + _did_you_mean(suggested)
    if word in _APPTAINER and not group:
        return f"no such command {word} (only apptainer has it)"
    return f"no such command {show(word)}" + (" in this release" if word in SYNONYMS else "")


def _did_you_mean(suggested: str | None) -> str:
    return f" (did you mean {suggested}?)" if suggested else ""


def _candidates(known: list[str], group: str, word: str, aliases: Mapping[str, str]) -> list[str]:
    if aliases.get(word) in known:
        return [aliases[word]]
    if exact := _named(known, word):
        return exact
    if word in SYNONYMS:
        return [path for path in SYNONYMS[word] if path in known][:1]
    from .values import closest

    similar = closest(word, [path.rpartition(" ")[2] for path in known], cutoff=SIMILARITY)
    if similar is None:
        return []
    siblings = [path for path in known if path.rpartition(" ")[0] == group]
    return _named(siblings, similar) or _named(known, similar)


def _named(known: list[str], name: str) -> list[str]:
    return [path for path in known if path.rpartition(" ")[2] == name]
