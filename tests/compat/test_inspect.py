"""``sifkit inspect``, judged by Apptainer: the same bytes for directories and SIF images; roots made by mksquashfs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.overlay.view.inspecting import EVERYTHING, inspect_image
from sifkit.sif import SIF, DataType, PartType

from ..support.container_tree import write_container
from ..support.sif_images import partition
from ..support.squashfs_images import make_squashfs
from ..support.tools import find, run

PRINTED = (Path(__file__).parents[2] / "fixtures" / "inspect" / "container.json").read_text(encoding="utf-8")
has_apptainer = pytest.mark.skipif(not find("apptainer"), reason="Apptainer is not installed")

OPTIONS = [
    (),
    ("--deffile",),
    ("--environment", "--labels"),
    ("--runscript", "--startscript", "--test", "--helpfile"),
    ("--list-apps",),
    ("--app", "foo", "--environment", "--runscript", "--test", "--labels"),
    ("--app", "bar", "--json", "--helpfile"),
    ("--app", "foo", "--list-apps", "--json"),
    ("--json", "--environment"),
    ("--all",),
]


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory, and the SIF that Apptainer builds from it."""
    top = tmp_path_factory.mktemp("inspect")
    box = write_container(top / "directory")
    script = box / ".singularity.d" / "test"
    script.unlink()
    script.symlink_to("env/90-environment.sh")  # Apptainer follows absolute links of directories to the host's files
    run("apptainer", "build", top / "sif", box)
    return top


@has_apptainer
@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
@pytest.mark.parametrize("kind", ["directory", "sif"])
def test_apptainer_prints_the_same(
    containers: Path, capfdbinary: pytest.CaptureFixture[bytes], kind: str, options: tuple[str, ...]
) -> None:
    theirs = run("apptainer", "inspect", *options, containers / kind).stdout
    capfdbinary.readouterr()
    assert main(["inspect", *options, str(containers / kind)]) == 0
    sys.stdout.flush()
    assert capfdbinary.readouterr().out.replace(b'\t"sifkit": 1,\n', b"", 1) == theirs


@pytest.mark.compat
@pytest.mark.parametrize("in_sif", [False, True])
def test_a_squashfs_root_is_read(tmp_path: Path, in_sif: bool) -> None:
    image = make_squashfs(write_container(tmp_path / "box"), tmp_path / "root.sqfs")
    if in_sif:
        with SIF.create(tmp_path / "a.sif") as sif:
            sif.add(image, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
        image = tmp_path / "a.sif"
    found = inspect_image(image, EVERYTHING)
    assert found.metadata.json_text() + "\n" == PRINTED and not found.warnings
