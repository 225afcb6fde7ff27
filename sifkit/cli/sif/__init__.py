"""``sifkit sif``: the group."""

from __future__ import annotations

from ..support.console import Console
from ..support.frame import Verb, group

__all__ = ["command"]


@group(
    verbs=[
        Verb("new", "Make", "sif.new", "make an empty image"),
        Verb("pack", "Make", "sif.pack", "make an image from what unpack wrote, or from a list of files"),
        Verb("header", "Look", "sif.header", "the global header"),
        Verb("list", "Look", "sif.listing", "the objects in an image"),
        Verb("info", "Look", "sif.info", "all about one object"),
        Verb("dump", "Look", "sif.dump", "write an object to standard output or a file"),
        Verb("unpack", "Look", "sif.unpack", "write all objects and a manifest to a directory"),
        Verb("check", "Look", "sif.check", "find what is wrong with an image, and repair what is safe"),
        Verb("add", "Edit", "sif.add", "add an object: an overlay, a signature, any file"),
        Verb("del", "Edit", "sif.delete", "remove objects, and give their space back"),
        Verb("setprim", "Edit", "sif.setprim", "make a system partition the primary one"),
        Verb("update", "Edit", "sif.update", "change an object's name, group, link or type"),
        Verb("replace", "Edit", "sif.replace", "give an object other content"),
        Verb("compact", "Edit", "sif.compact", "give space back, change the room for objects"),
    ],
    examples=[
        "sifkit sif list image.sif",
        "sifkit sif add --parttype overlay image.sif overlay.img",
        "sifkit sif dump 1 image.sif",
        "sifkit sif del 4 image.sif",
        "sifkit sif check image.sif",
    ],
    elsewhere={
        "ls": "sif list",
        "create": "sif new",
        "rm": "sif del",
        "delete": "sif del",
        "remove": "sif del",
        "cat": "sif dump",
        "extract": "sif unpack",
        "rename": "sif update",
        "set": "sif update",
        "fsck": "sif check",
        "verify": "sif check",
        "inspect": "sif info",
        "build": "sif pack",
    },
)
def command(console: Console) -> None:
    """SIF images of Apptainer and Singularity: look at them, add, remove and change objects, check and repack them.

    All that siftool does, with its options, their numbers, and words beside them.
    """
