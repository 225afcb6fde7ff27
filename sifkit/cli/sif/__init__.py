"""``sifkit sif``: the group."""

from __future__ import annotations

from ..support.console import Console
from ..support.frame import Verb, group

__all__ = ["command"]


@group(
    verbs=[
        Verb("new", "Make", "sif.new", "create an empty image"),
        Verb("pack", "Make", "sif.pack", "create an image from the output of unpack, or from a list of files"),
        Verb("header", "Look", "sif.header", "show the global header"),
        Verb("list", "Look", "sif.listing", "list the objects in an image"),
        Verb("info", "Look", "sif.info", "show an object's descriptor"),
        Verb("dump", "Look", "sif.dump", "write an object to standard output or a file"),
        Verb("unpack", "Look", "sif.unpack", "write all objects and a manifest to a directory"),
        Verb("check", "Look", "sif.check", "check an image, and repair what is safe to repair"),
        Verb("add", "Edit", "sif.add", "add an object: an overlay, a signature, any file"),
        Verb("del", "Edit", "sif.delete", "remove objects and free their space"),
        Verb("setprim", "Edit", "sif.setprim", "make a system partition the primary one"),
        Verb("update", "Edit", "sif.update", "change an object's name, group, link or type"),
        Verb("replace", "Edit", "sif.replace", "replace the content of an object"),
        Verb("compact", "Edit", "sif.compact", "free unused space, change the capacity for objects"),
    ],
    examples=[
        "sifkit sif list image.sif",
        "sifkit sif add --parttype overlay image.sif overlay.img",
        "sifkit sif dump 1 image.sif",
        "sifkit sif del 4 image.sif",
        "sifkit sif check image.sif",
    ],
    aliases={
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
    """Inspect, edit, check and repack SIF images of Apptainer and Singularity.

    The commands of siftool are included, with their options; codes may be given as numbers or as words.
    """
