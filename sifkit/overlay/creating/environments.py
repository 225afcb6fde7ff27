"""Environments (conda, venv) in the tree of an image: where each is, and for which path it was made.

An environment writes its own path into its scripts, so that it starts at that path only. It is read from a few scripts in
bin/, where the interpreter in the first line is one of the environment; else from ``command`` in pyvenv.cfg or ``-p`` in
conda-meta/history. An environment that conda-pack made ready to be moved has none.

Sources: ``venv/__init__.py`` of CPython; ``conda/history.py``; ``scripts.py`` of distlib, which writes the first lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ext3.constants import S_IFDIR, S_IFMT, S_IFREG
from ext3.errors import Ext3Error

if TYPE_CHECKING:
    from ext3.newfs.tree import Tree

__all__ = ["CONDA_KIND", "Environment", "children_of", "find_environments"]

CONDA_KIND, VENV_KIND = "conda environment", "virtual environment"

VENV, CONDA = b"pyvenv.cfg", b"conda-meta"
MAX_ENVIRONMENTS, MAX_SCRIPTS = 16, 48
"""Environments looked at, and files in the bin/ of each."""
START_BYTES, HISTORY_BYTES = 512, 16 << 10
SYSTEM_PREFIXES = {b"", b"/usr", b"/usr/local"}
"""Interpreters there belong to the host, whatever names the environment has."""

_FIRST_LINE = re.compile(rb"#![ \t]*(/[^\n]*?)/bin/([^/\s]+)[ \t\r]*(?:[ \t][^\n]*)?\n")
_LONG_LINE = re.compile(rb"#!/bin/sh\n'''exec' \"?(/[^\n]*?)/bin/([^/\s\"]+)\"? \"\$0\"")
"""Second line of a script whose interpreter's path is long or has spaces, as distlib writes it."""
_CREATED_AT = re.compile(rb"(?m)^# cmd: .*\s(?:-p|--prefix)[ =](/\S+)")


@dataclass(frozen=True, slots=True)
class Environment:
    """Environment in an image. ``path``: in the container; ``made_for``: the path in it, None if it says none."""

    kind: str
    path: bytes
    made_for: bytes | None


def find_environments(tree: Tree, upper: int) -> Iterator[Environment]:
    """Find the environments below node ``upper``, at most MAX_ENVIRONMENTS, in the order of the tree."""
    seen: set[int] = set()
    for name, format_bits in ((CONDA, S_IFDIR), (VENV, S_IFREG)):
        for mark in _nodes_named(tree.names, name):
            top = _parent(tree, mark)
            if len(seen) == MAX_ENVIRONMENTS:
                return
            if top in seen or int(tree.nodes["mode"][mark]) & S_IFMT != format_bits:
                continue
            path = _path_below(tree, upper, top)
            if path is None:
                continue
            seen.add(top)
            made_for = _prefix_of_scripts(tree, top)
            if made_for is None:
                made_for = _prefix_of_history(tree, mark) if name == CONDA else _prefix_of_command(tree, mark)
            yield Environment(CONDA_KIND if name == CONDA else VENV_KIND, path, _plain(made_for) if made_for else None)


def _plain(path: bytes) -> bytes:
    return b"/" + b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def _nodes_named(names: Sequence[bytes], name: bytes) -> Iterator[int]:
    node = 0
    while True:
        try:
            node = names.index(name, node + 1)
        except ValueError:
            return
        yield node


def _parent(tree: Tree, node: int) -> int:
    return int(tree.nodes["parent"][node])


def _path_below(tree: Tree, upper: int, node: int) -> bytes | None:
    """Return the path of a node in the container; None if it is not below ``upper``."""
    above, path = tree.path(upper).rstrip(b"/"), tree.path(node)
    if path == above:
        return b"/"
    return path[len(above) :] if path.startswith(above + b"/") else None


def children_of(tree: Tree, parent: int) -> dict[bytes, int]:
    """Return the nodes in a directory by name."""
    found: list[int] = (tree.nodes["parent"] == parent).nonzero()[0].tolist()
    children = {tree.names[node]: node for node in found if node}
    return children | {name: node for owner, name, node in tree.extra_links if owner == parent}


def _prefix_of_scripts(tree: Tree, top: int) -> bytes | None:
    """Return the prefix in most of the scripts that are looked at; None without scripts, empty if they run anywhere."""
    programs = children_of(tree, children_of(tree, top).get(b"bin", -1))
    if b"conda-unpack" in programs:
        return b""
    prefixes: Counter[bytes] = Counter()
    first = [name for name in (b"pip", b"pip3", b"conda", b"activate") if name in programs]
    for name in [*first, *sorted(programs.keys() - set(first))][:MAX_SCRIPTS]:
        start = _start(tree, programs[name], START_BYTES)
        found = _LONG_LINE.match(start) or _FIRST_LINE.match(start)
        if found is None:
            continue
        prefix = found[1]
        if prefix not in SYSTEM_PREFIXES and found[2] in programs:
            prefixes[prefix] += 1
        elif prefix == b"/usr" and start.startswith(b"#!/usr/bin/env python"):
            prefixes[b""] += 1
    return prefixes.most_common(1)[0][0] if prefixes else None


def _prefix_of_command(tree: Tree, settings: int) -> bytes | None:
    for line in _start(tree, settings, START_BYTES * 8).splitlines():
        key, _, command = line.partition(b"=")
        if key.rstrip() != b"command":
            continue
        for module in (b" -m venv ", b" -m virtualenv "):
            _, _, words = command.partition(module)
            _, slash, path = (b" " + words).rpartition(b" /")
            if slash:
                return b"/" + path.rstrip()
    return None


def _prefix_of_history(tree: Tree, directory: int) -> bytes | None:
    history = children_of(tree, directory).get(b"history")
    found = _CREATED_AT.findall(_start(tree, history, HISTORY_BYTES)) if history is not None else []
    return found[-1] if found else None


def _start(tree: Tree, node: int, limit: int) -> bytes:
    """Return the first bytes of a regular file; empty if it has none, or cannot be read: its copy will tell."""
    row = tree.nodes[node]
    if int(row["mode"]) & S_IFMT != S_IFREG:
        return b""
    offset, size = 0, min(limit, int(row["size"]))
    if (segments := tree.segments.get(node)) is not None:
        if not segments or segments[0][0]:
            return b""
        _, length, offset = segments[0]
        size = min(size, length)
    view = memoryview(bytearray(size))
    try:
        with tree.content.open(node) as file:
            return bytes(view[: file.read_into(view, offset)])
    except (Ext3Error, OSError):
        return b""
