"""Containers opened for looking: which layers, in which order, and what cannot be one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

import ext3
from sifkit.errors import FormatError, SifkitError, UsageError
from sifkit.overlay.view.container import open_container, open_root
from sifkit.overlay.view.layer_tree import LayerError
from sifkit.overlay.view.overlay_argument import parse_overlays
from sifkit.sif import SIF, DataType, FSType, PartType
from sifkit.vfs.resolve import Resolver

from .....support.containers import sif_of
from .....support.memory_tree import MemoryNode, MemoryTree
from .....support.sif_images import partition
from .....support.tree_forms import image_of

SQUASHFS = Path(__file__).parents[5] / "fixtures" / "squashfs" / "zstd.sqfs"


def tree_with(**files: str) -> MemoryTree:
    """A tree of files; ``__`` in a name is a slash."""
    tree = MemoryTree()
    for name, content in files.items():
        path = name.replace("__", "/").encode()
        above = b""
        for part in path.split(b"/")[:-1]:
            above += part
            if not _has(tree, above):
                tree.add(above, MemoryNode(0o040755))
            above += b"/"
        tree.add(path, MemoryNode(0o100644, content.encode()))
    return tree


def _has(tree: MemoryTree, path: bytes) -> bool:
    try:
        Resolver(tree).lookup(b"/" + path)
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """root.img, and the overlays a.img, b.img and dir/: each has a file of its own name, and ``top`` with its name."""
    top = tmp_path_factory.mktemp("images")
    image_of(tree_with(root="root", top="root"), top / "root.img")
    for name in ("a", "b"):
        image_of(tree_with(**{f"upper__{name}": name, "upper__top": name, f"upper__d{name}__x": ""}), top / f"{name}.img")
    for path in ("dir/upper", "plain", "dir/work"):
        (top / path).mkdir(parents=True)
    for path, name in (("dir/upper", "dir"), ("plain", "plain")):
        for file in (name, "top"):
            (top / path / file).write_text(name)
    sif_of(top / "root.sif", top / "root.img")
    sif_of(top / "two.sif", top / "root.img", top / "a.img", top / "b.img")
    sif_of(top / "only.sif", None, top / "b.img")
    sif_of(top / "none.sif", None)
    with SIF.open(sif_of(top / "other.sif", top / "root.img"), "r+") as sif:
        sif.add(top / "a.img", DataType.PARTITION, group=2, metadata=partition(PartType.OVERLAY, FSType.EXT3))
    return top


@pytest.fixture(autouse=True)
def here(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)


def layers_of(image: str, overlays: Sequence[str] = (), **options: object) -> list[str]:
    """Names of the layers, from the root up; the highest is the one that ``top`` is from."""
    with open_container(image, overlays=parse_overlays(overlays), **options) as container:  # type: ignore[arg-type]
        resolver = Resolver(container.tree)
        names = [layer.name for layer in container.layers]
        node = resolver.lookup(b"/top")
        assert container.layer_of(node).name == names[-1]
        with container.tree.open_file(node) as file:
            assert file.read_at(0, 10).decode() in names[-1] or "object" in names[-1]
        return names


@pytest.mark.parametrize(
    ("image", "overlays", "found"),
    [
        ("root.img", [], ["root.img"]),
        ("root.sif", [], ["root.sif, object 1"]),
        ("two.sif", [], ["two.sif, object 1", "two.sif, object 2", "two.sif, object 3"]),
        ("other.sif", [], ["other.sif, object 1"]),
        ("plain", ["a.img"], ["plain", "a.img"]),
        ("root.sif", ["a.img", "b.img"], ["root.sif, object 1", "a.img", "b.img"]),
        ("root.sif", ["b.img:ro", "a.img:ro"], ["root.sif, object 1", "b.img", "a.img"]),
        ("root.sif", ["a.img", "b.img:ro"], ["root.sif, object 1", "b.img", "a.img"]),
        ("root.sif", ["dir", "plain:ro"], ["root.sif, object 1", "plain", "dir"]),
        ("root.sif", ["two.sif:ro"], ["root.sif, object 1", "two.sif, object 2", "two.sif, object 3"]),
        ("root.sif", ["only.sif"], ["root.sif, object 1", "only.sif, object 1"]),
        ("two.sif", ["dir:ro"], ["two.sif, object 1", "two.sif, object 2", "two.sif, object 3", "dir"]),
    ],
)
def test_the_order_is_that_of_apptainer(image: str, overlays: list[str], found: list[str]) -> None:
    assert layers_of(image, overlays) == found


def test_a_squashfs_is_never_above_what_could_be_written(tmp_path: Path) -> None:
    overlays = parse_overlays(["a.img", os.fspath(SQUASHFS)])
    with open_container("root.sif", overlays=overlays) as container:
        assert [layer.kind for layer in container.layers] == ["ext3", "squashfs", "ext3"]
    with open_container(SQUASHFS, overlays=overlays[:1]) as container:
        assert [layer.kind for layer in container.layers] == ["squashfs", "ext3"]
    image = sif_of(tmp_path / "image.sif", Path("root.img"), Path("a.img"), SQUASHFS)
    with open_container(image) as container:
        assert [layer.kind for layer in container.layers] == ["ext3", "squashfs", "ext3"]
    with open_container(image, overlays=overlays[:1]) as container:  # those in the image are only read
        assert [layer.kind for layer in container.layers] == ["ext3", "ext3", "squashfs", "ext3"]


def test_a_partition_is_a_root_without_the_overlays_beside_it() -> None:
    assert layers_of("two.sif", partition="root") == ["two.sif, object 1"]
    assert layers_of("two.sif", ["a.img"], partition="1") == ["two.sif, object 1", "a.img"]
    assert layers_of("two.sif", embedded=False) == ["two.sif, object 1"]


@pytest.mark.parametrize("image", ["root.img", "root.sif", "two.sif", "plain"])
def test_the_root_as_it_is(image: str) -> None:
    with open_root(image) as tree:
        assert tree.find_name(tree.root, b"top") is not None and tree.find_name(tree.root, b"a") is None


def test_the_tree_below_the_given_overlays() -> None:
    with open_container("two.sif", overlays=parse_overlays(["dir"])) as container:
        assert container.base_layers == 3
        assert container.base_tree().find_name(container.base_tree().root, b"dir") is None
    with open_container("two.sif") as container:
        assert container.base_layers == 1


@pytest.mark.parametrize(
    ("image", "overlays", "kind", "said"),
    [
        ("none.sif", [], SifkitError, "none.sif has no primary partition"),
        ("only.sif", [], SifkitError, "only.sif has no primary partition"),
        ("root.sif", ["root.img"], FormatError, "root.img: the overlay has no upper/"),
        ("root.sif", ["root.sif"], FormatError, "root.sif has no overlay"),
        ("root.sif", ["other.sif"], FormatError, "other.sif has no overlay in the group of its primary partition"),
        ("root.sif", ["missing"], FileNotFoundError, "missing"),
        ("a.img", ["b.img"], UsageError, "a.img is an overlay, not the root of a container"),
    ],
)
def test_what_is_no_root_and_no_overlay(image: str, overlays: list[str], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        layers_of(image, overlays)


def test_an_encrypted_root(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "encrypted.sif"
    with SIF.create(path) as sif:
        meta = partition(PartType.PRIMARY_SYSTEM, FSType.ENCRYPTED_SQUASHFS)
        sif.add(b"secret" * 1000, DataType.PARTITION, group=1, metadata=meta)
    with pytest.raises(FormatError, match="object 1 is encrypted"):
        layers_of(os.fspath(path))


def test_an_overlay_in_the_image_that_cannot_be_opened(images: Path, tmp_path: Path) -> None:
    """The root alone can still be looked into, and the hint says how."""
    path = tmp_path / "x.sif"
    data = bytearray((images / "two.sif").read_bytes())
    with SIF.open(images / "two.sif") as sif:
        start = sif.get(2).offset
    data[start + 1024 : start + 2048] = bytes(1024)
    path.write_bytes(data)
    with pytest.raises(ext3.NotExt3Error, match=r"x\.sif: object 2: ") as caught:
        layers_of(os.fspath(path))
    assert caught.value.hint == f"without it: sifkit ls --partition root {path}"
    with open_container(path, partition="root") as container:
        assert len(container.layers) == 1


def test_damage_is_reported_with_the_layer(images: Path, tmp_path: Path) -> None:
    """The block of a directory in one overlay is overwritten."""
    data = bytearray((images / "a.img").read_bytes())
    with ext3.Filesystem.open(images / "a.img") as filesystem:
        ((_, block, _),) = filesystem.data_extents("/upper/da")
        size = filesystem.superblock.block_size
    start = block * size
    data[start : start + size] = b"\xff" * size
    damaged = tmp_path / "damaged.img"
    damaged.write_bytes(data)
    with open_container("root.sif", overlays=parse_overlays([os.fspath(damaged), "b.img"])) as container:
        (listing,) = container.tree.scan_many([Resolver(container.tree).lookup(b"/da")])
        assert isinstance(listing.problem, LayerError)
        assert listing.problem.message.startswith(f"{damaged}: ") and listing.problem.kind == "corrupt"
        assert listing.problem.hint == f"check it with: sifkit overlay fsck -fn {damaged}"
        with pytest.raises(LayerError, match=r"damaged\.img"):
            Resolver(container.tree).lookup(b"/da/nowhere")
