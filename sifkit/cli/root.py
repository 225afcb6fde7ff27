"""The root of the command tree: which verbs there are, and where other tools' words live here."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .support.console import Console
from .support.frame import GENERAL, Verb, group

__all__ = ["root"]

START = "start with: sifkit overlay create --size 500M --from-dir overlay/"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sifkit {__version__}")
        raise typer.Exit


@group(
    verbs=[
        Verb("overlay", "Make", "overlay", "make overlay images, look at them, copy them", group=True),
        Verb("sif", "Make", "sif", "SIF images: look at them, add and remove objects, check and repack them", group=True),
        Verb("ls", "Look", "ls", "list files in an image"),
        Verb("tree", "Look", "tree", "show an image's directories as a tree"),
        Verb("find", "Look", "find", "find files in an image"),
        Verb("stat", "Look", "stat", "all there is to know of a file in an image"),
        Verb("cat", "Look", "cat", "write a file in an image to standard output"),
        Verb("extract", "Look", "extract", "put files of an image into a directory"),
        Verb("diff", "Look", "diff", "compare two images, or an image and a directory"),
        Verb("df", "Look", "df", "how full images are, in bytes and inodes"),
        Verb("du", "Look", "du", "what directories in an image take"),
        Verb("xattr", "Look", "xattr", "extended attributes of files in an image", group=True),
        Verb("cp", "Change", "cp", "copy files into an image, out of one, or within one"),
        Verb("rm", "Change", "rm", "remove files in an image"),
        Verb("mv", "Change", "mv", "move or rename files in an image"),
        Verb("mkdir", "Change", "mkdir", "make directories in an image"),
        Verb("ln", "Change", "ln", "make links in an image"),
        Verb("chmod", "Change", "chmod", "change permissions in an image"),
        Verb("chown", "Change", "chown", "change owners in an image"),
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
