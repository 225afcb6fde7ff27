"""Root of the command tree: the groups and verbs of ``sifkit``."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .support.console import Console
from .support.frame import GENERAL, Verb, group
from .support.options import SHARED_OPTIONS

__all__ = ["root"]

START = "start with: sifkit overlay create --size 500M --from-dir overlay/"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sifkit {__version__}")
        raise typer.Exit


@group(
    verbs=[
        Verb("overlay", "Make", "overlay", "create, inspect, resize, check and repair overlay images", group=True),
        Verb("sif", "Make", "sif", "inspect, edit, check and repack SIF images", group=True),
        Verb("ls", "Look", "ls", "list files in an image"),
        Verb("tree", "Look", "tree", "show an image's directories as a tree"),
        Verb("find", "Look", "find", "find files in an image"),
        Verb("stat", "Look", "stat", "show a file's metadata"),
        Verb("cat", "Look", "cat", "print files in an image"),
        Verb("extract", "Look", "extract", "extract files from an image into a directory"),
        Verb("inspect", "Look", "inspect", "show a container's labels, scripts and environment"),
        Verb("check", "Look", "check", "check that images are whole and readable"),
        Verb("diff", "Look", "diff", "compare two images, or an image and a directory"),
        Verb("df", "Look", "df", "show the space and inode usage of images"),
        Verb("du", "Look", "du", "show the disk usage of directories in an image"),
        Verb("xattr", "Look", "xattr", "manage extended attributes of files in an image", group=True),
        Verb("exec", "Run", "exec", "run a command in a container"),
        Verb("run", "Run", "runscript", "run the default command of a container"),
        Verb("shell", "Run", "shell", "start a shell in a container"),
        Verb("cp", "Change", "cp", "copy files into, out of or within an image"),
        Verb("rm", "Change", "rm", "remove files in an image"),
        Verb("mv", "Change", "mv", "move or rename files in an image"),
        Verb("mkdir", "Change", "mkdir", "create directories in an image"),
        Verb("ln", "Change", "ln", "create links in an image"),
        Verb("chmod", "Change", "chmod", "change the mode of files in an image"),
        Verb("chown", "Change", "chown", "change the owner of files in an image"),
        Verb("doctor", "Host", "doctor", "show what this host allows for running containers"),
        Verb("help", "Host", "help", "show the help of a command"),
        Verb("completion", "Host", "completion", "print a completion script for bash, zsh or fish"),
    ],
    examples=[
        "sifkit overlay create --size 500M --from-dir overlay/",
        "sifkit overlay info overlay.img",
        "sifkit ls -l overlay.img /upper",
        "sifkit ls image.sif /opt",
        "sifkit exec --overlay overlay.img image.sif python script.py",
    ],
    intro=START,
    shared=tuple(SHARED_OPTIONS.items()),
)
def root(
    console: Console,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", is_eager=True, callback=_version, help="show the version", rich_help_panel=GENERAL),
    ] = False,
) -> None:
    """Create and edit overlay images (ext3) and SIF images for Apptainer and Singularity, look into them as containers see
    them, and run commands in them, without root privileges or external programs."""
