"""The root of the command tree: which verbs there are, and where other tools' words live here."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .console import Console
from .frame import GENERAL, Verb, group

__all__ = ["root"]

START = "start with: sifkit overlay create --size 500M --from-dir overlay/"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sifkit {__version__}")
        raise typer.Exit


@group(
    verbs=[
        Verb("overlay", "Make", "overlay", "make overlay images, look at them, copy them", group=True),
        Verb("sif", "Make", "sif.verbs", "SIF images: look at them, add and remove objects, check and repack them", group=True),
        Verb("ls", "Look", "ls", "list files in an image"),
        Verb("cat", "Look", "cat", "write a file in an image to standard output"),
        Verb("completion", "Host", "completion", "print a completion script for bash, zsh or fish"),
    ],
    examples=[
        "sifkit overlay create --size 500M --from-dir overlay/",
        "sifkit overlay info overlay.img",
        "sifkit ls -l overlay.img /upper",
    ],
    first=START,
)
def root(
    console: Console,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", is_eager=True, callback=_version, help="show the version", rich_help_panel=GENERAL),
    ] = False,
) -> None:
    """Overlay images (ext3) and SIF images for Apptainer and Singularity, without root, mounting or other programs."""
