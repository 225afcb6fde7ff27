"""``sifkit shell``."""

from __future__ import annotations

from .support.run_command import run_verb

__all__ = ["command"]

command = run_verb(
    "shell",
    doc="""Start a shell in a container: bash if the container has it, else sh.

    Everything after IMAGE is passed to it. For the options see also: sifkit exec -h
    """,
    examples=["sifkit shell image.sif", "sifkit shell --overlay overlay.img image.sif", "sifkit shell -C image.sif"],
    words="ARGUMENT...",
    words_help="passed to the shell",
)
