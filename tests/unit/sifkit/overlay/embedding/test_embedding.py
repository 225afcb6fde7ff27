"""Overlays made straight inside a SIF image: where they lie, what is refused, and that a failure leaves the image as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ext3.errors import DeviceError, NoSpaceError
from ext3.read.filesystem import Filesystem
from sifkit.cli import main
from sifkit.errors import ImageInUseError, SifkitError, UsageError
from sifkit.file_locks import lock_range
from sifkit.overlay.embedding import in_partition as embedding
from sifkit.overlay.embedding.in_partition import embed
from sifkit.overlay.images.reservation import EmbedOptions
from sifkit.overlay.options import CreateOptions
from sifkit.sif import SIF, Arch, DataType, EditError, FSType, ImageFullError, PartType, SignatureMeta
from sifkit.sif.format.types import HashType
from sifkit.sif.signatures import SignedError

from .....support.partitions import open_partition_filesystem
from .....support.platforms import linux_locks
from .....support.sif_images import STAMP, assert_sound, partition

SIZE = 8 << 20
SMALL = CreateOptions(size=SIZE, source_date_epoch=1_700_000_000)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make(tmp_path / "a.sif")


def make(path: Path, *, fs_type: FSType = FSType.SQUASHFS, group: int = 2, capacity: int = 6) -> Path:
    with SIF.create(path, capacity=capacity, stamp=STAMP) as sif:
        sif.add(b"text", DataType.DEFFILE, group=1)
        meta = partition(PartType.PRIMARY_SYSTEM, fs_type, Arch.ARM64)
        sif.add(b"hsqs" + b"root" * 300, DataType.PARTITION, group=group, metadata=meta)
    return path


def sign(path: Path, group: int) -> None:
    with SIF.open(path, "r+") as sif:
        sif.add(b"not parsed", DataType.SIGNATURE, link_group=group, metadata=SignatureMeta(HashType.SHA256, b""))


def names(path: Path, at: str = "/", partition: str = "overlay") -> set[str]:
    with open_partition_filesystem(path, partition) as filesystem:
        return {entry.name.decode() for entry in filesystem.scandir(at)}


def test_it_is_an_object_as_the_runtimes_look_for_it(image: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc" / "motd").write_bytes(b"hello\n")
    done = embed(image, CreateOptions(size=SIZE, from_dir=source, label=b"lab"))
    with SIF.open(image) as sif:
        (found,) = sif.overlays
        assert found == done.partition and not sif.warnings
        assert (found.fs_type, found.arch, found.group, found.name) == (FSType.EXT3, Arch.ARM64, 2, b"")
        assert found.offset % 4096 == 0 and found.size == SIZE == done.created.size_bytes
        assert sif.file_size == found.end
    assert_sound(image.read_bytes())
    with open_partition_filesystem(image, str(found.id)) as filesystem:
        assert filesystem.read_bytes("/upper/etc/motd") == b"hello\n" and filesystem.superblock.label == b"lab"
    assert image.stat().st_blocks * 512 < SIZE  # holes are kept


def test_the_bytes_are_those_of_a_file(image: Path, tmp_path: Path) -> None:
    from sifkit.overlay.creating.standalone import create

    create(tmp_path / "o.img", SMALL)
    done = embed(image, SMALL)
    with SIF.open(image) as sif:
        assert sif.read(done.partition.id) == (tmp_path / "o.img").read_bytes()
        assert sif.header.modified == done.partition.created == 1_700_000_000


def test_over_stale_bytes(image: Path) -> None:
    end = image.stat().st_size
    with image.open("ab") as file:
        file.write(os.urandom(2 * SIZE))
    done = embed(image, SMALL)
    assert image.stat().st_size == done.partition.end < end + 2 * SIZE
    with SIF.open(image) as sif, Filesystem.open(sif.open_object(done.partition.id)) as filesystem:
        assert {entry.name for entry in filesystem.scandir("/")} == {b"lost+found", b"upper", b"work"}
    clean = make(image.parent / "b.sif")
    embed(clean, SMALL)
    with SIF.open(image) as one, SIF.open(clean) as other:
        assert one.read(3) == other.read(3)


def test_replace_in_one_commit(image: Path) -> None:
    embed(image, SMALL)
    with pytest.raises(EditError, match="object 3") as caught:
        embed(image, SMALL)
    assert "--replace" in caught.value.hint and "detach" in caught.value.hint
    bigger = CreateOptions(size=2 * SIZE, label=b"new")
    done = embed(image, bigger, EmbedOptions(replace=True))
    assert (done.replaced_bytes, done.partition.id, done.partition.group) == (SIZE, 3, 2)
    with SIF.open(image) as sif:
        assert [overlay.size for overlay in sif.overlays] == [2 * SIZE]
    assert_sound(image.read_bytes())
    assert names(image) == {"lost+found", "upper", "work"}


@pytest.mark.parametrize("fs_type", [FSType.ENCRYPTED_SQUASHFS, FSType.GOCRYPTFS_SQUASHFS])
def test_an_encrypted_root_is_refused(tmp_path: Path, fs_type: FSType) -> None:
    image = make(tmp_path / "a.sif", fs_type=fs_type)
    before = image.read_bytes()
    with pytest.raises(EditError, match="encrypted") as caught:
        embed(image, SMALL)
    assert "sifkit overlay create overlay.img" in caught.value.hint and image.read_bytes() == before


def test_signatures(image: Path) -> None:
    sign(image, 2)
    before = image.read_bytes()
    with pytest.raises(SignedError, match="adding an overlay would break signature 3"):
        embed(image, SMALL)
    assert image.read_bytes() == before
    kept = embed(image, SMALL, EmbedOptions(on_signatures="keep"))
    assert kept.dropped == () and any("breaks signature 3" in note for note in kept.created.notes)
    with pytest.raises(SignedError, match="replacing the overlay would break signature 3"):
        embed(image, SMALL, EmbedOptions(replace=True))
    dropped = embed(image, SMALL, EmbedOptions(replace=True, on_signatures="drop"))
    assert dropped.dropped == (3,)
    with SIF.open(image) as sif:
        assert [descriptor.id for descriptor in sif] == [1, 2, 4]


def test_a_full_table(tmp_path: Path) -> None:
    image = make(tmp_path / "a.sif", capacity=2)
    before = image.read_bytes()
    with pytest.raises(ImageFullError) as caught:
        embed(image, SMALL)
    assert "--capacity" in caught.value.hint and image.read_bytes() == before


def test_several_overlays_and_oci_images(image: Path, tmp_path: Path) -> None:
    with SIF.open(image, "r+") as sif:
        for _ in range(2):
            sif.add(bytes(5000), DataType.PARTITION, group=2, metadata=partition(PartType.OVERLAY, FSType.EXT3))
    with pytest.raises(EditError, match="2 writable overlays"):
        embed(image, SMALL, EmbedOptions(replace=True))
    with SIF.create(tmp_path / "oci.sif") as sif:
        sif.add(b"{}", DataType.OCI_ROOT_INDEX)
    with pytest.raises(EditError, match="OCI-SIF"):
        embed(tmp_path / "oci.sif", SMALL)


def test_images_the_runtimes_will_not_use_it_in(tmp_path: Path) -> None:
    with SIF.create(tmp_path / "empty.sif"):
        pass
    done = embed(tmp_path / "empty.sif", SMALL)
    assert done.partition.group == 1 and any("no primary partition" in note for note in done.created.notes)
    done = embed(make(tmp_path / "none.sif", group=0), SMALL)
    assert done.partition.group == 1 and any("in no group" in note for note in done.created.notes)


def test_options_that_are_for_files(image: Path) -> None:
    before = image.read_bytes()
    with pytest.raises(UsageError, match="--force"):
        embed(image, CreateOptions(size=SIZE, force=True))
    with pytest.raises(UsageError, match="--mode"):
        embed(image, CreateOptions(size=SIZE, mode=0o644))
    (image.parent / "source").mkdir()
    (image.parent / "source" / "big").write_bytes(bytes(range(256)) * 4096 * 16)
    with pytest.raises(NoSpaceError):
        embed(image, CreateOptions(size=SIZE, from_dir=image.parent / "source", layout="upper"))
    assert image.read_bytes() == before


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, SystemExit, DeviceError])
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("stale", [0, 100_000])
def test_a_failure_leaves_the_image(image, monkeypatch, trouble, replace, stale):
    if replace:
        embed(image, SMALL)
    before = image.read_bytes()
    with image.open("ab") as file:
        file.write(bytes(stale))
    write_image = embedding.write_image

    def fail(*arguments, **options):
        write_image(*arguments, **options)
        raise trouble("now")

    monkeypatch.setattr(embedding, "write_image", fail)
    with pytest.raises(trouble):
        embed(image, SMALL, EmbedOptions(replace=replace))
    after = image.read_bytes()
    assert after[: len(before)] == before and len(after) == len(before) + stale


@linux_locks
def test_locks(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = embed(image, SMALL)
    fd = os.open(image, os.O_RDWR)
    try:
        if not lock_range(fd, write=False, offset=done.partition.offset, size=done.partition.size):
            pytest.skip("this filesystem has no locks")
        before = image.read_bytes()
        with pytest.raises(ImageInUseError, match="its overlay"):
            embed(image, SMALL, EmbedOptions(replace=True))
        assert image.read_bytes() == before
    finally:
        os.close(fd)
    fd = os.open(image, os.O_RDWR)
    try:
        lock_range(fd, write=False, offset=0, size=4096)
        with pytest.raises(ImageInUseError):
            embed(image, SMALL, EmbedOptions(replace=True))
    finally:
        os.close(fd)
    embed(image, SMALL, EmbedOptions(replace=True, require_lock=True))
    monkeypatch.setattr("sifkit.sif.loading.lock_range", lambda *a, **k: False)
    with pytest.raises(SifkitError, match="does not support file locking"):
        embed(image, SMALL, EmbedOptions(replace=True, require_lock=True))
    assert embed(image, SMALL, EmbedOptions(replace=True)).locked is False


@linux_locks
def test_the_partition_is_locked_while_it_is_written(image, monkeypatch):
    from sifkit.file_locks import lock_state

    write_image = embedding.write_image
    found = []

    def look(plan, device, **options):
        fd = os.open(image, os.O_RDONLY)
        found.append([lock_state(fd, offset=at, size=1)[0] for at in (0, device.offset, device.offset + device.size - 1)])
        os.close(fd)
        write_image(plan, device, **options)

    monkeypatch.setattr(embedding, "write_image", look)
    embed(image, SMALL)
    assert found in ([["write"] * 3], [["unsupported"] * 3])


def test_the_verbs(image, capfd):
    code = main(["overlay", "create", "-v", "--size", "8M", str(image)])
    err = capfd.readouterr().err
    assert code == 0 and "object 3, group 2, 8 MiB at byte" in err
    for argv, wanted, said in (
        (["overlay", "create", str(image)], 1, "--replace replaces it"),
        (["overlay", "create", "--force", str(image)], 2, "--force"),
        (["overlay", "create", "--replace", "--drop-signatures", "--keep-broken-signatures", str(image)], 2, "contradict"),
        (["overlay", "create", "--replace", str(image.parent / "new.img")], 2, "--replace is for SIF images"),
        (["overlay", "create", "--require-lock", str(image.parent / "new.img")], 2, "--require-lock is for SIF images"),
        (["mkdir", f"{image}:/x"], 1, "squashfs version"),
        (["ls", "--partition", "1", str(image)], 1, "not a partition"),
        (["ls", "--partition", "7", str(image)], 1, "no object with ID 7"),
        (["ls", "--partition", "upper", str(image)], 2, "must be overlay, root or an ID"),
        (["overlay", "clone", str(image), "x.img"], 2, "overlay detach --keep"),
    ):
        assert main(argv) == wanted, argv
        out, err = capfd.readouterr()
        assert out == "" and err.count("\n") == 1 and said in err and "Traceback" not in err, (argv, err)
    assert not (image.parent / "new.img").exists()
    assert main(["ls", "--partition", "overlay", str(image)]) == 0
    assert capfd.readouterr().out == "lost+found\nupper\nwork\n"
    assert main(["overlay", "info", str(image)]) == 0
    assert "object 3, group 2, 8 MiB at byte" in capfd.readouterr().out


def test_a_partition_the_runtimes_would_not_use(image, capfd):
    done = embed(image, SMALL)
    with SIF.open(image, "r+") as sif:
        sif.update(done.partition.id, group=7)
    assert main(["overlay", "info", str(image)]) == 0
    assert "refused: it is in group 7, but the primary partition is in group 2" in capfd.readouterr().out


def test_a_sif_that_is_cut_short(image, capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where no overlay.img lies
    done = embed(image, SMALL)
    os.truncate(image, done.partition.offset + SIZE // 2)
    for argv in (["overlay", "info"], ["ls", "--partition", "overlay"], ["overlay", "create"], ["overlay", "detach"]):
        assert main([*argv, str(image)]) == 1
        err = capfd.readouterr().err
        assert err.count("\n") == 1 and "Traceback" not in err and "a.sif" in err, (argv, err)


def test_hostile_partitions(image, capfd):
    with SIF.open(image, "r+") as sif:
        for content in (b"\0" * 10, os.urandom(5000), b"\xff" * 5000):
            sif.add(content, DataType.PARTITION, group=2, metadata=partition(PartType.OVERLAY, FSType.EXT3))
    for id in (3, 4, 5):
        for argv in (["overlay", "info"], ["ls"]):
            assert main([*argv, "--partition", str(id), str(image)]) == 1
            err = capfd.readouterr().err
            assert err.count("\n") == 1 and "Traceback" not in err and "internal" not in err
    assert main(["overlay", "info", str(image)]) == 1
    assert "has 3 overlays: 3, 4, 5; choose one with: --partition 3" in capfd.readouterr().err


def test_space_the_file_keeps_is_told(image, monkeypatch):
    first = embed(image, SMALL)
    monkeypatch.setattr("ext3.hostio.punch_hole", lambda *arguments: False)
    done = embed(image, SMALL, EmbedOptions(replace=True))
    assert any("sifkit sif compact" in note for note in done.created.notes)
    assert done.partition.offset == first.partition.end and names(image) == {"lost+found", "upper", "work"}
