"""Mount points of the host, for sites that show them all in containers (``mount hostfs``). Pure.

Source: proc_pid_mountinfo(5), and Apptainer 1.4.5 for what is left out.
"""

from __future__ import annotations

import os
import re

__all__ = ["parse_host_mounts"]

LEFT_OUT = ("/proc", "/sys", "/dev", "/run", "/boot", "/var")
"""Mount points that are the kernel's or the host's own, with all that begins so."""
ESCAPED = re.compile(rb"\\([0-7]{3})")


def parse_host_mounts(raw: bytes) -> tuple[str, ...]:
    """Return the mount points right below ``/`` in a mountinfo; those below them come with them.

    Lines that are not understood are skipped.
    """
    rows = [fields for line in raw.splitlines() if len(fields := line.split(b" ")) > 4]
    roots = {fields[0] for fields in rows if fields[4] == b"/"}
    points = [_unescaped(fields[4]) for fields in rows if fields[1] in roots and fields[4] != b"/"]
    return tuple(dict.fromkeys(point for point in points if not point.startswith(LEFT_OUT)))


def _unescaped(raw: bytes) -> str:
    return os.fsdecode(ESCAPED.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), raw))
