"""``sifkit overlay``: the group."""

from __future__ import annotations

from ..support.console import Console
from ..support.frame import Verb, group

__all__ = ["command"]


@group(
    verbs=[
        Verb("create", "Make", "overlay.create", "create an overlay image, empty or from a directory or tar archive"),
        Verb("clone", "Make", "overlay.clone", "copy an overlay image, sharing blocks if the filesystem can"),
        Verb("attach", "Make", "overlay.attach", "add an overlay image to a SIF image"),
        Verb("detach", "Make", "overlay.detach", "move the overlay of a SIF image to a file"),
        Verb("export", "Make", "overlay.export", "export upper/ as a layer archive or to a directory"),
        Verb("info", "Look", "overlay.info", "show what an image is, its usage and its users"),
        Verb("fsck", "Change", "overlay.fsck", "check an overlay image and repair it"),
        Verb("undo", "Change", "overlay.undo", "put an image back as it was before a check"),
        Verb("chown", "Change", "overlay.chown", "change the owner of upper/, work/ and everything in them"),
        Verb("tune", "Change", "overlay.tune", "change reserved blocks, label or UUID of an overlay image"),
        Verb("resize", "Change", "overlay.resize", "grow or shrink an overlay, also in a SIF image"),
        Verb("normalize", "Change", "overlay.normalize", "make removed files stay removed for every user"),
        Verb("share", "Change", "overlay.share", "make an overlay ready for read-only use by others"),
        Verb("rebuild", "Change", "overlay.rebuild", "recreate the filesystem: more inodes, other block or file size"),
        Verb("trim", "Change", "overlay.trim", "give the space of deleted files back to the host"),
    ],
    examples=[
        "sifkit overlay create --size 500M overlay.img",
        "sifkit overlay create --from-dir overlay/ overlay.img",
        "sifkit overlay info overlay.img",
        "sifkit overlay resize overlay.img 700M",
        "sifkit overlay clone overlay.img job-1.img",
        "sifkit overlay fsck -p job-1.img",
        "sifkit overlay create --size 500M image.sif",
        "sifkit overlay attach image.sif overlay.img",
        "sifkit overlay detach image.sif -o overlay.img",
    ],
    aliases={
        "cp": "overlay clone",
        "list": "ls",
        "embed": "overlay create",
        "extract": "overlay detach",
        "check": "overlay fsck",
    },
)
def command(console: Console) -> None:
    """Manage writable overlays: ext3 images with upper/ and work/ for `apptainer exec --overlay`, and overlays in SIF images
    for `apptainer exec --writable`.
    """
