"""``sifkit doctor``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import NotYetError
from .support.console import Console
from .support.frame import verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..runtime.host.probing import Host, HostFact
    from ..runtime.layers.unpacked_cache import CachedTree

__all__ = ["command"]

ROWS = (
    ("loop", "loop devices (root)"),
    ("user_namespace", "user namespaces"),
    ("user_mount", "mounts in user namespaces"),
    ("fuse", "FUSE in user namespaces"),
    ("overlay", "overlayfs in user namespaces"),
    ("fuse_upper", "overlayfs over FUSE, with changes"),
    ("fuse_tmpfile", "O_TMPFILE in overlayfs over FUSE"),
    ("tmpfs_upper", "overlayfs over memory, with all changes"),
)
"""Facts in the order in which they depend on each other, and their titles."""


@verb(examples=["sifkit doctor", "sifkit doctor --json"])
def command(
    console: Console, *, json: Annotated[bool, typer.Option("--json", help="print the result as a JSON object")] = False
) -> None:
    """Show what this host allows for running containers, how they would be run, and what to ask the administrator for.

    Everything is tried, in namespaces of its own; no file is changed. Exit code 1: no container can be run.
    """
    if not sys.platform.startswith("linux"):
        raise NotYetError("containers run on Linux only", hint="sifkit ls, cat and extract look into them here")
    from ..runtime.host.probing import probe
    from ..runtime.host.root_probe import root_mounts
    from ..runtime.layers.unpacked_cache import cached_trees

    console.json |= json
    host = probe()
    facts = {key: getattr(host, key) for key, _ in ROWS} | {"loop": root_mounts(host)}
    ways = {"read_only": _way(host, facts["loop"], writes=False), "writable": _way(host, facts["loop"], writes=True)}
    system = os.uname()
    cache = _cache_path()
    trees = cached_trees(cache)
    if console.json:
        rows = {key: {"works": fact.works, "reason": fact.reason, "request": fact.request} for key, fact in facts.items()}
        kernel = {"kernel": system.release, "machine": system.machine, "is_root": host.is_root}
        kept = {"path": cache, "images": len(trees), "used_bytes": sum(tree.size for tree in trees)}
        console.emit({**kernel, "facts": rows, "ways": ways, "not_isolated": _not_isolated(ways["read_only"]), "cache": kept})
    else:
        _print(console, f"{system.sysname} {system.release} {system.machine}", facts, ways)
        _print_cache(console, cache, trees)
    if ways["read_only"] is None:
        raise typer.Exit(1)


def _way(host: Host, root_mounts: HostFact, *, writes: bool) -> str | None:
    """Return the way in which a root, or a root with memory or a directory to write to, is mounted; None if there is none."""
    if host.is_root and host.loop.works:
        return "root" if root_mounts.works else None
    if not host.user_mount.works or (writes and not host.overlay.works):
        return None
    if writes:
        return "user" if host.fuse_upper.works else "unpacked"
    return "view" if host.fuse.works else "unpacked"


def _cache_path() -> str:
    """Return the path of the cache of unpacked images."""
    from ..runtime.planning.cache_path import cache_path

    return cache_path(os.environ, home=os.path.expanduser("~"), cwd=os.getcwd())


WAY_TEXTS = {
    "root": "loop devices and the kernel's filesystems",
    "view": "one FUSE server, in a user namespace",
    "user": "FUSE and the kernel's overlayfs, in a user namespace",
    "unpacked": "images unpacked into a cache, in a user namespace; no image is written to",
    None: "not possible",
}


NOT_ISOLATED = {"capabilities": "root's capabilities", "devices": "devices", "processes": "processes", "network": "network"}
"""Things that a container shares with the host unless it is asked to do less, and their text; the first is root's only."""


def _print(console: Console, system: str, facts: dict[str, HostFact], ways: dict[str, str | None]) -> None:
    from .support.render import print_pairs

    rows = [("kernel", system)]
    rows += [(title, "yes" if facts[key].works else f"no: {facts[key].reason}") for key, title in ROWS]
    rows += [("containers, read-only", WAY_TEXTS[ways["read_only"]]), ("containers, writable", WAY_TEXTS[ways["writable"]])]
    if shared := [NOT_ISOLATED[word] for word in _not_isolated(ways["read_only"])]:
        options = "--no-privs -C --network none" if ways["read_only"] == "root" else "-C --network none"
        rows.append(("not isolated", f"{', '.join(shared)}; they are with {options}"))
    print_pairs(rows, console)
    requests = dict.fromkeys(fact.request for fact in facts.values() if fact.request)
    for request in requests:
        console.line(f"ask the administrator for: {request}")


def _not_isolated(way: str | None) -> list[str]:
    return [] if way is None else list(NOT_ISOLATED)[0 if way == "root" else 1 :]


def _print_cache(console: Console, path: str, trees: Sequence[CachedTree]) -> None:
    """Print what the cache of unpacked images holds, and how it is emptied; nothing if it is empty."""
    if not trees:
        return
    from ..errors import counted, human, shell_quote, show

    used = human(sum(tree.size for tree in trees))
    quoted = shell_quote(path)
    console.line(f"{counted(len(trees), 'unpacked image')} in {show(path)}, {used}")
    console.line(f"empty it with: chmod -R u+rwX {quoted} && rm -r {quoted}")
