"""Configuration of a site."""

from __future__ import annotations

import pytest

from sifkit.errors import FormatError
from sifkit.runtime.planning.config import SiteConfig, config_paths, parse_config

TEXT = """
# comment = yes
allow setuid = yes
mount home=no
mount  dev = minimal
enable overlay = try
sessiondir max size = 128
bind path = /etc/hosts
bind path = /scratch:/scratch, /data:/d:ro
limit container owners = root, alice
limit container paths = NULL
memory fs type = tmpfs
#mount tmp = no
mount tmp =
"""


def test_directives() -> None:
    found = parse_config(TEXT, "conf")
    assert not found.mount_home and found.mount_tmp and found.mount_dev == "minimal" and found.enable_overlay == "try"
    assert found.memory_bytes(1000) == 128 << 20 and found.memory_bytes(0) is None
    assert found.bind_path == ("/etc/hosts", "/scratch:/scratch", "/data:/d:ro")
    assert found.limit_container_owners == ("root", "alice") and found.limit_container_paths == ()
    assert found.path == "conf"


def test_without_directives_the_defaults_hold() -> None:
    assert parse_config("", "") == SiteConfig()


@pytest.mark.parametrize("line", ["mount home = maybe", "sessiondir max size = 64MB", "enable overlay = on", "mount dev = ²"])
def test_values_that_are_not_valid(line: str) -> None:
    with pytest.raises(FormatError, match=r"conf, line 2: .*it must be"):
        parse_config(f"#\n{line}\n", "conf")


def test_where_a_configuration_may_be() -> None:
    assert tuple(config_paths(["/usr/bin/apptainer", "/opt/x/bin/singularity", "/odd/apptainer"], "arm")) == (
        "/etc/apptainer/apptainer.conf",
        "/etc/singularity/singularity.conf",
        "/usr/etc/apptainer/apptainer.conf",
        "/usr/etc/singularity/singularity.conf",
        "/usr/arm/etc/apptainer/apptainer.conf",
        "/usr/arm/etc/singularity/singularity.conf",
        "/opt/x/etc/apptainer/apptainer.conf",
        "/opt/x/etc/singularity/singularity.conf",
        "/opt/x/arm/etc/apptainer/apptainer.conf",
        "/opt/x/arm/etc/singularity/singularity.conf",
    )
