"""``sifkit xattr``: the group."""

from __future__ import annotations

from .support.console import Console
from .support.frame import Verb, group

__all__ = ["command"]


@group(
    verbs=[
        Verb("list", "Look", "xattr_list", "list the extended attributes of files"),
        Verb("get", "Look", "xattr_get", "print the value of an extended attribute"),
        Verb("set", "Change", "xattr_set", "set an extended attribute of files"),
        Verb("rm", "Change", "xattr_rm", "remove an extended attribute of files"),
    ],
    examples=["sifkit xattr list overlay.img /upper", "sifkit xattr get user.comment overlay.img /upper/notes"],
    aliases={"ls": "xattr list", "show": "xattr get", "dump": "xattr list", "remove": "xattr rm", "del": "xattr rm"},
)
def command(console: Console) -> None:
    """Manage extended attributes of files in an image, including ACLs."""
