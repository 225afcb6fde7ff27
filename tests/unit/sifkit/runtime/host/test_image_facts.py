"""Facts of images and overlays that are given."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from sifkit.errors import FormatError, InputError, UsageError
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from sifkit.runtime.host.image_facts import data_image_facts, image_facts, kind_of, overlay_facts, why_unreachable, with_owner
from sifkit.runtime.planning.overlay_arguments import RunOverlay
from sifkit.runtime.planning.run_plan import Layer
from sifkit.sif import SIF, Arch, DataType, FSType, HashType, PartType, SignatureMeta
from sifkit.sif.errors import ObjectNotFoundError, TruncatedSIFError
from tests.support.sif_images import partition
from tests.support.tiny_squashfs import TINY_SQUASHFS


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of files that the caller may not write to; root may write to all."""
    names: set[str] = set()
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK or os.path.basename(path) not in names)
    return names


def test_a_directory_is_written_to_if_both_of_its_own_can_be(tmp_path: Path, unwritable: set[str]) -> None:
    over = tmp_path / "over"
    over.mkdir()
    given = RunOverlay(str(over))
    assert overlay_facts(given).is_writable
    unwritable.add("over")
    assert not overlay_facts(given).is_writable
    (over / "upper").mkdir()
    assert not overlay_facts(given).is_writable  # work cannot be made
    (over / "work").mkdir()
    assert overlay_facts(given).is_writable
    for name in ("upper", "work"):
        unwritable.add(name)
        assert not overlay_facts(given).is_writable
        unwritable.remove(name)


def test_what_is_no_directory_in_an_overlay_is_not_said_to_be_unwritable(tmp_path: Path) -> None:
    for name in ("upper", "work"):
        over = tmp_path / name
        over.mkdir()
        (over / name).symlink_to("missing")
        assert overlay_facts(RunOverlay(str(over))).is_writable  # the launch refuses the link by its name


def test_two_directories_are_read_where_they_cannot_be_written_to(tmp_path: Path, unwritable: set[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    given = RunOverlay(str(tmp_path / "a"), work=str(tmp_path / "b"))
    found = overlay_facts(given)
    assert found.is_writable and found.layers == ()
    unwritable.add("a")
    found = overlay_facts(given)
    assert not found.is_writable and [(one.path, one.subdirectory) for one in found.layers] == [(str(tmp_path / "a"), "")]


def test_names_of_owners_are_looked_up_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid, gid = tmp_path.stat().st_uid, tmp_path.stat().st_gid
    given = image_facts(str(tmp_path)), overlay_facts(RunOverlay(str(tmp_path)))
    assert [(facts.owner, facts.group) for facts in given] == [("", "")] * 2
    users, groups = {uid: "alice"}, {gid: "staff"}
    monkeypatch.setattr(pwd, "getpwuid", lambda number: SimpleNamespace(pw_name=users[number]))
    monkeypatch.setattr(grp, "getgrgid", lambda number: SimpleNamespace(gr_name=groups[number]))
    for names in (("alice", "staff"), ("alice", str(gid)), (str(uid), str(gid))):
        assert [with_owner(facts) for facts in given] == [facts._replace(owner=names[0], group=names[1]) for facts in given]
        (groups or users).clear()


def test_the_root_of_the_host_is_no_image(tmp_path: Path) -> None:
    """An empty variable before a slash would have all of it written to."""
    (tmp_path / "link").symlink_to("/")
    for name in ("/", str(tmp_path / "link")):
        with pytest.raises(UsageError, match="is the root of this host"):
            image_facts(name)
        with pytest.raises(UsageError, match="is the root of this host"):
            overlay_facts(RunOverlay(name))


def test_a_directory_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each mount in it would fail, and the command last, with the path that it has during the run."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.X_OK)
    with pytest.raises(PermissionError, match=tmp_path.name):
        image_facts(str(tmp_path))
    with pytest.raises(PermissionError, match=tmp_path.name):
        overlay_facts(RunOverlay(str(tmp_path), read_only=True))


def test_directories_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    for caller, wanted in ((owner, False), (owner + 1, True), (0, False)):
        monkeypatch.setattr(os, "geteuid", lambda caller=caller: caller)
        assert image_facts(str(tmp_path)).root.is_foreign == wanted
        assert overlay_facts(RunOverlay(str(tmp_path), read_only=True)).layers[0].is_foreign == wanted


def test_a_truncated_image_with_an_ext3_root(tmp_path: Path) -> None:
    """The kernel would say no more than that it cannot be mounted."""
    root, image = tmp_path / "root.img", tmp_path / "image.sif"
    create(root, CreateOptions(size=4 << 20))
    with SIF.create(image) as sif:
        metadata = partition(PartType.PRIMARY_SYSTEM, arch=Arch.AMD64)
        sif.add(root.read_bytes(), DataType.PARTITION, group=1, metadata=metadata)
    assert image_facts(str(image)).root.kind == "ext3"
    os.truncate(image, 2 << 20)
    with pytest.raises(TruncatedSIFError, match="object 1 ends at byte"):
        image_facts(str(image))


def test_an_image_has_the_name_of_the_link_to_it(tmp_path: Path) -> None:
    """APPTAINER_NAME is what the user has called the image, also a directory."""
    (tmp_path / "box-1.2").mkdir()
    (tmp_path / "box").symlink_to("box-1.2")
    found = image_facts(str(tmp_path / "box"))
    assert found.path == str(tmp_path / "box") and found.root.path == found.real_path == os.path.realpath(tmp_path / "box-1.2")


def test_the_overlays_that_are_signed(tmp_path: Path) -> None:
    root, image = tmp_path / "root.img", tmp_path / "image.sif"
    create(root, CreateOptions(size=4 << 20))
    with SIF.create(image) as sif:
        for kind in (PartType.PRIMARY_SYSTEM, PartType.OVERLAY):
            sif.add(root.read_bytes(), DataType.PARTITION, group=1, metadata=partition(kind, arch=Arch.AMD64))
    assert image_facts(str(image)).signed == frozenset()
    signature = SignatureMeta(HashType.SHA256, bytes(20))
    for link, signed in ({"link": 1}, set()), ({"link": 2}, {2}), ({"link_group": 1}, {2}):
        copy = tmp_path / "copy.sif"
        shutil.copy(image, copy)
        with SIF.open(copy, "r+") as sif:
            sif.add(b"x", DataType.SIGNATURE, metadata=signature, **link)
        assert image_facts(str(copy)).signed == signed


def test_paths_that_are_not_there_and_those_that_nobody_can_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for name, reason in (("file", ""), ("none", ""), ("file/below", "not a directory")):
        assert why_unreachable(str(tmp_path / name)) == reason

    def stat(path: str) -> os.stat_result:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), path)

    monkeypatch.setattr(os, "stat", stat)
    assert kind_of(str(tmp_path)) == "missing"
    assert why_unreachable(str(tmp_path)) == "transport endpoint is not connected"


def test_data_images(tmp_path: Path, unwritable: set[str]) -> None:
    image, squashfs, link = tmp_path / "a.img", tmp_path / "a.sqfs", tmp_path / "link"
    create(image, CreateOptions(size=4 << 20))
    squashfs.write_bytes(TINY_SQUASHFS)
    link.symlink_to("a.img")
    unwritable.add("a.sqfs")
    found = data_image_facts(str(link), None)
    assert (found.name, found.path, found.kind, found.is_writable) == (str(link), str(image), "ext3", True)
    assert found.layer == Layer(path=str(image), kind="ext3")
    found = data_image_facts(str(squashfs), 5)
    assert (found.kind, found.layer.kind, found.is_writable) == ("squashfs", "squashfs", False)
    with pytest.raises(FormatError, match="is a directory, not an image"):
        data_image_facts(str(tmp_path), None)
    (tmp_path / "text").write_text("text")
    with pytest.raises(FormatError, match="no SIF, squashfs or ext3 image"):
        data_image_facts(str(tmp_path / "text"), None)
    with pytest.raises(InputError, match="no such file"):
        data_image_facts(str(tmp_path / "missing"), None)


def test_data_partitions(tmp_path: Path) -> None:
    path, squashfs, image = str(tmp_path / "a.sif"), tmp_path / "a.sqfs", tmp_path / "a.img"
    squashfs.write_bytes(TINY_SQUASHFS)
    create(image, CreateOptions(size=4 << 20))
    with SIF.create(path) as sif:
        sif.add(squashfs, DataType.PARTITION, name=b"r", metadata=partition(PartType.PRIMARY_SYSTEM, FSType.SQUASHFS))
        sif.add(image, DataType.PARTITION, name=b"o", group=2, metadata=partition(PartType.OVERLAY, FSType.EXT3))
    with pytest.raises(FormatError, match="has no data partition"):
        data_image_facts(path, None)
    with SIF.open(path, "r+") as sif:
        sif.add(squashfs, DataType.PARTITION, name=b"e", metadata=partition(PartType.DATA, FSType.ENCRYPTED_SQUASHFS))
        sif.add(image, DataType.PARTITION, name=b"d", metadata=partition(PartType.DATA, FSType.EXT3))
        sif.add(b"text", DataType.GENERIC, name=b"g")
        signature = SignatureMeta(HashType.SHA256, bytes(20))
        sif.add(b"s", DataType.SIGNATURE, name=b"s", link=4, metadata=signature)
        offset = sif.get(4).offset
    with pytest.raises(FormatError, match="object 3 is encrypted"):
        data_image_facts(path, None)
    found = data_image_facts(path, 4)
    assert found.layer == Layer(path=path, kind="ext3", offset=offset, size=4 << 20, object_id=4)
    assert (found.kind, found.is_signed) == ("sif", True)
    assert [data_image_facts(path, number).layer.kind for number in (1, 2)] == ["squashfs", "ext3"]
    assert not data_image_facts(path, 2).is_signed
    with pytest.raises(FormatError, match=r"a\.sif: object 5 is .*, not a partition"):
        data_image_facts(path, 5)
    with pytest.raises(ObjectNotFoundError, match=r"a\.sif: no object with ID 9"):
        data_image_facts(path, 9)
