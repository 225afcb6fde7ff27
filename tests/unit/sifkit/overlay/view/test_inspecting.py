"""Inspection of containers: what Apptainer prints, from directories, ext3 roots and SIF objects; hostile metadata."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sifkit.errors import SifkitError
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from sifkit.overlay.view.container_metadata import parse_labels, parse_metadata
from sifkit.overlay.view.inspecting import EVERYTHING, MOST_NAMES, InspectRequest, UnknownAppError, inspect_image
from sifkit.sif import SIF, DataType, FSType, PartType

from .....support.container_tree import write_container
from .....support.sif_images import partition

PRINTED = (Path(__file__).parents[5] / "fixtures" / "inspect" / "container.json").read_text(encoding="utf-8")
"""Output of apptainer inspect --all, of the directory as ``write_container`` makes it."""
STORED = json.dumps(json.loads(PRINTED)).encode()


@pytest.fixture
def container(tmp_path):
    return write_container(tmp_path / "container")


def sif_image(path, *objects, root=None):
    """A SIF with these (content, type, name), and an ext3 root from a directory."""
    with SIF.create(path) as sif:
        for content, kind, name in objects:
            sif.add(content, kind, name=name, group=1)
        if root is not None:
            create(f"{path}.img", CreateOptions(size=4 << 20, layout="data", from_dir=root, journal=False))
            kind = partition(PartType.PRIMARY_SYSTEM, FSType.EXT3)
            sif.add(Path(f"{path}.img"), DataType.PARTITION, group=1, metadata=kind)
    return path


def everything(path, request=EVERYTHING):
    found = inspect_image(path, request)
    return found.metadata.json_text() + "\n", found.warnings


def test_a_directory_has_what_apptainer_prints(container):
    assert everything(container) == (PRINTED, [])


def test_an_ext3_root_has_the_same(container, tmp_path):
    create(tmp_path / "root.img", CreateOptions(size=4 << 20, layout="data", from_dir=container, journal=False))
    assert everything(tmp_path / "root.img") == (PRINTED, [])


def test_the_objects_of_a_sif_come_first(tmp_path):
    stored = (STORED, DataType.GENERIC_JSON, b"inspect-metadata.json")
    text, warnings = everything(sif_image(tmp_path / "a.sif", stored))
    assert (text, warnings) == (PRINTED.replace("\\ufffd", "\ufffd"), [])


def test_a_root_is_read_where_a_sif_has_no_metadata(container, tmp_path):
    deffile = (b"Bootstrap: docker\n\n", DataType.DEFFILE, b"")
    text, _ = everything(sif_image(tmp_path / "a.sif", deffile, root=container))
    of_file = json.loads(PRINTED)["data"]["attributes"]["deffile"]
    assert json.loads(text)["data"]["attributes"]["deffile"] == "Bootstrap: docker\n\n" != of_file
    assert text == PRINTED.replace(json.dumps(of_file), json.dumps("Bootstrap: docker\n\n"))


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"data": 1}', b'{"data": {"attributes": {"labels": {"a": 1}}}}', b"\xff" * 9]
)
def test_damaged_metadata_are_reported_and_the_root_is_read(container, tmp_path, raw):
    text, warnings = everything(
        sif_image(tmp_path / "a.sif", (raw, DataType.GENERIC_JSON, b"inspect-metadata.json"), root=container)
    )
    assert text == PRINTED
    assert len(warnings) == 1 and warnings[0].startswith("object 1, inspect-metadata.json: ") and "\n" not in warnings[0]


def test_a_definition_file_alone_needs_no_root(tmp_path):
    image = sif_image(tmp_path / "a.sif", (b"Bootstrap: docker\n", DataType.DEFFILE, b""))
    assert inspect_image(image, InspectRequest(deffile=True)).metadata.deffile == "Bootstrap: docker\n"
    with pytest.raises(SifkitError, match="no primary partition"):
        inspect_image(image, InspectRequest(labels=True))


@pytest.mark.parametrize("kind", ["directory", "sif"])
def test_only_what_is_asked_for(container, tmp_path, kind):
    stored = (STORED, DataType.GENERIC_JSON, b"inspect-metadata.json")
    image = container if kind == "directory" else sif_image(tmp_path / "a.sif", stored)
    for key in ("labels", "deffile", "runscript", "startscript", "test", "environment", "helpfile"):
        found = json.loads(inspect_image(image, InspectRequest(**{key: True})).metadata.json_text())
        assert list(found["data"]["attributes"]) == [key]
    found = inspect_image(image, InspectRequest(app="foo", runscript=True, labels=True)).metadata
    assert list(found.apps) == ["foo"] and not found.labels
    assert found.apps["foo"].labels == {"SCIF_APP_NAME": "foo"} and not found.apps["foo"].environment
    assert sorted(inspect_image(image, InspectRequest(list_apps=True)).metadata.apps) == ["bar", "foo"]
    with pytest.raises(UnknownAppError, match="no app no-app") as caught:
        inspect_image(image, InspectRequest(app="no-app", labels=True))
    assert caught.value.hint == "its apps are: bar, foo"


def test_symlinks_stay_in_the_container(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("secret")
    top = tmp_path / "container"
    (top / ".singularity.d" / "env").mkdir(parents=True)
    (top / ".singularity.d" / "runscript").symlink_to(outside)
    (top / ".singularity.d" / "test").symlink_to("../../../outside")
    (top / ".singularity.d" / "startscript").symlink_to("startscript")
    (top / ".singularity.d" / "runscript.help").symlink_to("env")
    (top / "scif").symlink_to("scif/apps")
    text, warnings = everything(top)
    assert json.loads(text) == {"data": {"attributes": {}}, "type": "container"} and not warnings


def test_what_is_too_large_is_one_line(container, tmp_path):
    with (container / ".singularity.d" / "labels.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SifkitError, match=r"labels\.json: 1 TiB of metadata, more than the limit of 16 MiB$"):
        everything(container)
    huge = sif_image(tmp_path / "a.sif", (bytes((16 << 20) + 1), DataType.GENERIC_JSON, b"inspect-metadata.json"))
    with pytest.raises(SifkitError, match=r"a\.sif: object 1: 16 MiB of metadata, more than the limit of 16 MiB$"):
        everything(huge)


def test_many_files_are_refused(container):
    for number in range(MOST_NAMES):
        (container / ".singularity.d" / "env" / f"9{number}-environment.sh").touch()
    with pytest.raises(SifkitError, match=r"/\.singularity\.d/env has 1,003 names"):
        everything(container)


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"nul", b"\xff\xfe", b'"x"'])
def test_hostile_labels(container, raw):
    (container / ".singularity.d" / "labels.json").write_bytes(raw)
    found = inspect_image(container, InspectRequest(labels=True))
    assert not found.metadata.labels and len(found.warnings) == 1 and "\n" not in found.warnings[0]


def test_labels_that_are_not_text_are_empty():
    assert parse_labels(b'{"a": 1, "b": "x", "c": null}') == ({"a": "", "b": "x", "c": ""}, "the label a is not text")
    assert parse_labels(b"null") == ({}, "")
    assert parse_labels(b'{"a": "\\ud800"}') == ({"a": "\ufffd"}, "")


def test_metadata_may_be_followed_by_other_bytes():
    assert parse_metadata(b' {"data": {"attributes": {"labels": {"a": "b"}, "new": 1}}}\n\0\0').labels == {"a": "b"}
    assert parse_metadata(b"null").labels == {}


def test_the_sample_is_complete():
    shown = json.loads(PRINTED)["data"]["attributes"]
    assert set(shown) == {"apps", "environment", "labels", "runscript", "test", "helpfile", "deffile", "startscript"}
