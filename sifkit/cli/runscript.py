"""``sifkit run``."""

from __future__ import annotations

from .support.run_command import run_verb

__all__ = ["command"]

command = run_verb(
    "run",
    doc="""Run the default command of a container, its runscript.

    Everything after IMAGE is passed to it. For the options see also: sifkit exec -h
    """,
    examples=[
        "sifkit run image.sif",
        "sifkit run --overlay overlay.img image.sif --verbose input.txt",
        "sifkit run --app foo image.sif",
    ],
    words="ARGUMENT...",
    words_help="passed to the runscript",
)
