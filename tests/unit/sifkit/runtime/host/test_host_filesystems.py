"""Filesystems on which no overlay can be written to, by a statfs that says what a cluster's would."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifkit.errors import UsageError
from sifkit.runtime import sys
from sifkit.runtime.host import host_filesystems
from sifkit.runtime.host.image_facts import image_facts, overlay_facts
from sifkit.runtime.planning.config import SiteConfig
from sifkit.runtime.planning.layer_plan import plan_layers
from sifkit.runtime.planning.options import RunOptions
from sifkit.runtime.planning.overlay_arguments import RunOverlay
from sifkit.runtime.planning.request import Caller, RunRequest

CALLER = Caller(uid=1, gid=1, name="a", group="a", home="/", cwd="/")


@pytest.mark.parametrize(
    ("magic", "name"),
    [
        (0x6969, "NFS"),
        (0x65735546, "FUSE"),
        (0xF15F, "eCryptfs"),
        (0x0BD00BD0, "Lustre"),
        (0x47504653, "GPFS"),
        (0xAAD7AAEA, "PanFS"),
        (0xEF53, ""),
        (0x58465342, ""),
        (0x01021994, ""),
        (0x9123683E, ""),
    ],
)
def test_directories_by_their_filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, magic: int, name: str) -> None:
    over = tmp_path / "over"
    for directory in ("upper", "work", "w"):
        (over / directory).mkdir(parents=True)
    asked: list[str] = []

    def answer(path: str) -> int:
        asked.append(path)
        return magic

    monkeypatch.setattr(host_filesystems.sys, "filesystem_magic", answer)
    for argument in (RunOverlay(str(over)), RunOverlay(str(over / "upper"), work=str(over / "w"))):
        facts = overlay_facts(argument)
        assert facts.filesystem == name and asked[-1] == argument.path
        request = RunRequest(
            action="exec",
            image=image_facts(str(tmp_path)),
            words=("true",),
            options=RunOptions(),
            caller=CALLER,
            overlays=(facts,),
        )
        if name:
            with pytest.raises(UsageError, match=f"lies on {name}, where no overlay can be written to"):
                plan_layers(request, SiteConfig())
        else:
            assert plan_layers(request, SiteConfig()).upper is not None
    read = overlay_facts(RunOverlay(str(over), read_only=True))
    assert read.read_only


def test_mounts_in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_filesystems.has_mounts("/") and not host_filesystems.has_mounts(str(tmp_path))
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:5 / /a\\040b/c rw - tmpfs none rw\n24 22 0:6 / /ab rw - tmpfs x rw\n"
    )
    monkeypatch.setattr(host_filesystems, "MOUNTS", str(table))
    assert [path for path in ("/", "/a b", "/a", "/a b/c", "/ab") if host_filesystems.has_mounts(path)] == ["/", "/a b"]
    table.unlink()
    assert not host_filesystems.has_mounts("/")


def test_the_kernel_is_asked(tmp_path: Path) -> None:
    assert sys.filesystem_magic("/proc") == 0x9FA0
    assert host_filesystems.no_upper_filesystem(str(tmp_path)) == ""
    assert host_filesystems.no_upper_filesystem(str(tmp_path / "missing")) == ""
