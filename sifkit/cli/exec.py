"""``sifkit exec``."""

from __future__ import annotations

from .support.run_command import run_verb

__all__ = ["command"]

command = run_verb(
    "exec",
    doc="""Run a command in a container.

    Everything after IMAGE is the command. Its exit code is passed on; 255 is a failure before it starts. Overlays are joined
    above the image, as Apptainer does; one of them is written to. The options, their variables (APPTAINER_BIND ...) and the
    site's configuration are Apptainer's.

    By default the command sees the host's devices, processes and network; as root it keeps root's capabilities. For images that
    you do not trust add -C, and as root --no-privs. --dry-run says what is not isolated.
    """,
    examples=[
        "sifkit exec image.sif python script.py",
        "sifkit exec --overlay overlay.img image.sif pip install numpy",
        "sifkit exec --overlay base.img:ro --overlay mine.img image.sif sh -c 'touch /opt/x'",
        "sifkit exec -B /data:/mnt:ro image.sif ls /mnt",
        "sifkit exec --dry-run image.sif true",
    ],
    words="COMMAND [ARGUMENT]...",
    words_help="what is run, and its arguments",
)
