"""``sifkit overlay``: the group."""

from __future__ import annotations

from ..support.console import Console
from ..support.frame import Verb, group

__all__ = ["command"]


@group(
    verbs=[
        Verb("create", "Make", "overlay.create", "make an overlay image, empty or from a directory or tar archive"),
        Verb("clone", "Make", "overlay.clone", "copy an overlay image, sharing its blocks where the filesystem can"),
        Verb("attach", "Make", "overlay.attach", "put an overlay image into a SIF image"),
        Verb("detach", "Make", "overlay.detach", "take the overlay out of a SIF image"),
        Verb("export", "Make", "overlay.export", "write upper/ as a layer archive, or as a directory"),
        Verb("info", "Look", "overlay.info", "what an image is, how full it is, who uses it"),
    ],
    examples=[
        "sifkit overlay create --size 500M overlay.img",
        "sifkit overlay create --from-dir overlay/ overlay.img",
        "sifkit overlay info overlay.img",
        "sifkit overlay clone overlay.img job-1.img",
        "sifkit overlay create --size 500M image.sif",
        "sifkit overlay attach image.sif overlay.img",
        "sifkit overlay detach image.sif -o overlay.img",
    ],
    elsewhere={"cp": "overlay clone", "list": "ls", "embed": "overlay create", "extract": "overlay detach"},
)
def command(console: Console) -> None:
    """Writable overlays: ext3 images with upper/ and work/, as `apptainer exec --overlay` takes them; and those inside SIF
    images, for `apptainer exec --writable`."""
