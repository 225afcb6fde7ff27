"""Capabilities of files, which a change of content or owner removes. Called inside an operation.

Source: Linux ``fs/inode.c`` (file_remove_privs, file_modified), ``security/commoncap.c`` (cap_inode_killpriv).
"""

from __future__ import annotations

from .inode_cache import InodeCache, Node

__all__ = ["content_changed", "drop_capability"]

CAPABILITY = b"security.capability"


def drop_capability(nodes: InodeCache, node: Node) -> None:
    """Remove the capabilities of a file whose content or owner changed. The caller stores the inode."""
    if nodes.has_attributes(node):
        editor = nodes.attributes(node)
        if editor.get(CAPABILITY) is not None:
            editor.remove(CAPABILITY)
            nodes.update_attributes(node, editor)


def content_changed(nodes: InodeCache, node: Node) -> None:
    """Store an inode whose content changed. Capabilities are removed; set-id bits stay, as for root."""
    drop_capability(nodes, node)
    node.record.mtime = node.record.ctime = nodes.session.nanoseconds
    nodes.store(node)
