"""Warnings about a source that a container will not have as it was meant: where it hides, is hidden, or does not start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ext3.constants import S_IFDIR, S_IFLNK, S_IFMT

from ...errors import show
from ..options import ImageLayout
from .environments import CONDA_KIND, Environment, children_of, find_environments
from .layout import ImageTree, split_prefix

if TYPE_CHECKING:
    from ext3.newfs.tree import Tree

__all__ = ["source_warnings"]

LINKS_OF_CONTAINERS = (b"bin", b"lib", b"lib32", b"lib64", b"libx32", b"sbin")
"""Names at the top of a container that are links to usr/NAME in most."""
MOUNTED = (b"/home", b"/root", b"/tmp", b"/var/tmp", b"/proc", b"/sys", b"/dev")
"""Directories of the host that Apptainer mounts over those of the container by default."""


def source_warnings(image: ImageTree, tree: Tree, layout: ImageLayout, prefix: str | None) -> list[str]:
    """Return the warnings about the source of an image, a line each; of several about the same only the first."""
    if image.upper is None:
        return []
    warnings = []
    is_asked_for = prefix is not None and not split_prefix(prefix)
    environments = list(find_environments(tree, image.upper))
    top = tree.path(image.top)[len(tree.path(image.upper)) :] or b"/" if layout == "upper" else b""
    source = next((environment for environment in environments if environment.path == top), None)
    if is_mounted_over(top):
        better = _visible_path(source) or _suggested(top)
        warnings.append(f"{show(top)} is hidden by Apptainer's default mounts: choose another --prefix, like {show(better)}")
        environments = []
    hiding = _hiding(image, tree) if layout == "upper" and not is_asked_for else []
    if hiding:
        shown = [show(name) for name in hiding]
        names = f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
        warnings.append(
            f"{names} would be at / of the container and hide its own, such as /bin -> usr/bin (FATAL: failed to open"
            f" /bin/sh): {_elsewhere(source)}"
        )
        environments = [environment for environment in environments if environment.path != b"/"]
    moved = [found for found in environments if found.made_for not in (None, found.path)]
    if moved:
        warnings.append(_moved_text(moved, source))
    return warnings


def is_mounted_over(path: bytes) -> bool:
    """Return True for a path in the container that is, or is below, one of MOUNTED."""
    return any(path == top or path.startswith(top + b"/") for top in MOUNTED)


def _suggested(path: bytes) -> bytes:
    """Return a path of the same name that is seen in a container."""
    name = path.rstrip(b"/").rpartition(b"/")[2]
    return b"/opt/" + (b"env" if b"/" + name in MOUNTED or name in (b"", b"tmp") else name)


def _visible_path(source: Environment | None) -> bytes | None:
    """Return the path that an environment was made for; None if it says none, or if that is hidden in a container."""
    if source is None or source.made_for is None or is_mounted_over(source.made_for):
        return None
    return source.made_for


def _hiding(image: ImageTree, tree: Tree) -> list[bytes]:
    """Return the names at the top of upper/ that hide a container's; none if they bring a whole system with its own sh."""
    assert image.upper is not None
    hiding = []
    at_top = children_of(tree, image.upper)
    for name in LINKS_OF_CONTAINERS:
        node = at_top.get(name)
        if node is None:
            continue
        kind = int(tree.nodes["mode"][node]) & S_IFMT
        if kind == S_IFLNK and tree.targets[node].strip(b"/") == b"usr/" + name:
            continue
        if kind == S_IFDIR and name == b"bin" and b"sh" in children_of(tree, node):
            return []
        hiding.append(name)
    return hiding


def _elsewhere(source: Environment | None) -> str:
    """Return what to do instead of putting the source at /. ``source``: the environment that it is, if it is one."""
    if source is None or source.made_for is None:
        return "--prefix PATH, like /opt/env, puts the source elsewhere; --prefix / says that it is meant"
    if (path := _visible_path(source)) is not None:
        return f"--prefix {show(path)} puts it where the {source.kind} was made for"
    better = show(_suggested(source.made_for))
    return (
        f"use --prefix. The {source.kind} was made for {show(source.made_for)}, which Apptainer's default mounts hide: create"
        f" it at {better}, or use {_packer(source)}, and give --prefix {better}"
    )


def _moved_text(moved: Sequence[Environment], source: Environment | None) -> str:
    first = moved[0]
    assert first.made_for is not None
    more = f" (and {len(moved) - 1} more)" if len(moved) > 1 else ""
    there = _visible_path(first) if first is source else None
    instead = "" if there is None else f"give --prefix {show(there)}, "
    return (
        f"the {first.kind}{more} was made for {show(first.made_for)} and will not start from {show(first.path)}: {instead}"
        f"create it at {show(first.path)}, or use {_packer(first)}"
    )


def _packer(environment: Environment) -> str:
    return "conda-pack" if environment.kind == CONDA_KIND else "venv-pack"
