"""Mount points of the host for ``mount hostfs``."""

from __future__ import annotations

from sifkit.runtime.host.host_mounts import parse_host_mounts

MOUNTINFO = rb"""21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
22 21 0:5 / /dev rw - devtmpfs udev rw
23 21 0:6 / /run/user rw - tmpfs tmpfs rw
24 21 0:7 / /gpfs rw - gpfs gpfs rw
25 24 0:8 / /gpfs/below rw - nfs nfs rw
26 21 0:9 / /with\040space rw - nfs nfs rw
27 21 0:9 / /gpfs rw - nfs nfs rw
28 21 0:9 / /var/lib/x rw - nfs nfs rw

damaged
"""


def test_mount_points_right_below_the_root() -> None:
    assert parse_host_mounts(MOUNTINFO) == ("/gpfs", "/with space")
    assert parse_host_mounts(b"") == ()
