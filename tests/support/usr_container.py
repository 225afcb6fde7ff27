"""Container whose programs are the host's: its root has links into /usr, which is bound to it; the rest is a test's own."""

from __future__ import annotations

import os
from pathlib import Path

from .containers import sif_of
from .squashfs_images import make_squashfs

__all__ = ["BIND_PROGRAMS", "write_squashfs_sif", "write_usr_container"]

BIND_PROGRAMS = ("-B", "/usr:/usr:ro")
"""Options that give the container its programs."""
LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
DIRECTORIES = ("dev", "etc", "home", "opt", "proc", "root", "sys", "tmp", "usr", "var/tmp")


def write_usr_container(image: Path, root: Path) -> Path:
    """Write the SIF image of the directory ``root``, with what a container needs added to it; return its path."""
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in LINKS:
        if os.path.islink(f"/{name}"):  # of a host whose /bin is in /usr, as Debian's is
            (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    return write_squashfs_sif(image, root)


def write_squashfs_sif(image: Path, root: Path) -> Path:
    """Write the SIF image of the directory ``root``, whose files all become root's; return its path."""
    squashfs = make_squashfs(root, image.with_suffix(".sqfs"), "-all-root", "-comp", "zstd", "-Xcompression-level", "1")
    sif_of(image, squashfs)
    squashfs.unlink()
    return image
