"""``sifkit overlay``: the group."""

from __future__ import annotations

from .console import Console
from .frame import Verb, group

__all__ = ["command"]


@group(
    verbs=[
        Verb("create", "Make", "create", "make an overlay image, empty or from a directory or tar archive"),
        Verb("clone", "Make", "clone", "copy an overlay image, sharing its blocks where the filesystem can"),
        Verb("info", "Look", "info", "what an image is, how full it is, who uses it"),
    ],
    examples=[
        "sifkit overlay create --size 500M overlay.img",
        "sifkit overlay create --from-dir overlay/ overlay.img",
        "sifkit overlay info overlay.img",
        "sifkit overlay clone overlay.img job-1.img",
    ],
    elsewhere={"cp": "overlay clone", "list": "ls"},
)
def command(console: Console) -> None:
    """Writable overlays: ext3 images with upper/ and work/, as `apptainer exec --overlay` takes them."""
