"""Trees against the protocol, for the type checker: each assignment fails `mypy --strict` if a class does not satisfy it."""

from __future__ import annotations

import typing

from ext3.edit.file_handle import FileEditor
from ext3.edit.filesystem import WritableFilesystem
from ext3.read.file import FileReader
from ext3.read.filesystem import Filesystem
from sifkit.overlay.view.layer_tree import LayerTree
from sifkit.squashfs.file_data import SquashfsFile
from sifkit.squashfs.reader import Reader
from sifkit.vfs import file_tree
from sifkit.vfs.file_tree import FileTree, OpenFile
from sifkit.vfs.host_tree import HostFile, HostTree
from sifkit.vfs.subtree import Subtree
from sifkit.vfs.union import UnionNode, UnionTree
from sifkit.vfs.upper_view import UpperView
from tests.support.memory_tree import MemoryFile, MemoryTree


def trees(
    image: Filesystem,
    edited: WritableFilesystem,
    host: HostTree,
    below: Subtree[int],
    upper: UpperView[bytes],
    memory: MemoryTree,
    squashfs: Reader,
) -> tuple[FileTree[int], FileTree[int], FileTree[bytes], FileTree[int], FileTree[bytes], FileTree[int], FileTree[int]]:
    return image, edited, host, below, upper, memory, squashfs


def layered(union: UnionTree) -> FileTree[UnionNode]:
    return union


def files(
    one: FileReader, two: FileEditor, three: HostFile, four: MemoryFile, five: SquashfsFile
) -> tuple[OpenFile, OpenFile, OpenFile, OpenFile, OpenFile]:
    return one, two, three, four, five


def members(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


def test_every_tree_has_every_member() -> None:
    for tree in (Filesystem, WritableFilesystem, HostTree, Subtree, UpperView, MemoryTree, Reader, UnionTree, LayerTree):
        assert members(FileTree) <= set(dir(tree)), tree
    assert members(file_tree.Stat) <= set(typing.get_type_hints(file_tree.TreeStat))
