"""Cache of unpacked images: digests of images, complete and unfinished trees, and their removal."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from ext3.progress import Silent
from sifkit.runtime.errors import LaunchError
from sifkit.runtime.layers import image_digest
from sifkit.runtime.layers.image_digest import OpenImage
from sifkit.runtime.layers.tree_removal import count_names, remove_tree
from sifkit.runtime.layers.unpacked_cache import CachedTree, UnpackedCache, cached_trees
from sifkit.runtime.planning.run_plan import Layer

KEY, OTHER = "k" * 64, "o" * 64


def image_of(path: Path, offset: int = 0, size: int | None = None) -> OpenImage:
    return OpenImage(Layer(path=str(path), kind="squashfs", offset=offset, size=size))


def test_an_image_is_known_by_its_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"head" + bytes(20_000) + b"content")
    other.write_bytes(b"x" * 9 + one.read_bytes() + b"more")
    first, second = image_of(one), image_of(other, 9, one.stat().st_size)
    assert first.size == second.size and first.digest(Silent()) == second.digest(Silent())
    assert first.name != second.name and image_of(one).name == first.name
    assert first.digest(Silent()) != image_of(one, 0, 20_000).digest(Silent())
    assert first.is_unchanged()
    os.utime(one, (1, 1))
    assert not first.is_unchanged() and image_of(one).name != first.name
    digest = second.digest(Silent())
    with other.open("r+b") as file:
        file.seek(100)
        file.write(b"changed")
    os.utime(other, (1, 1))
    assert image_of(other, 9, first.size).digest(Silent()) != digest


def test_a_hole_counts_by_where_it_is(tmp_path: Path) -> None:
    digests = []
    for position in (1 << 20, 3 << 20):
        path = tmp_path / str(position)
        with path.open("wb") as file:
            file.truncate(5 << 20)
            file.seek(position)
            file.write(b"data")
        digests.append(image_of(path).digest(Silent()))
    assert digests[0] != digests[1]


def test_an_image_that_may_still_change_is_not_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x")
    image = image_of(path)
    assert not image.is_settled()
    changed = path.stat().st_ctime
    monkeypatch.setattr(image_digest.time, "time", lambda: changed + 4)
    assert image.is_settled()


def tree_in(cache: UnpackedCache, key: str = KEY, image: str = "image") -> str:
    with cache.locked(key, print), cache.new_tree(key) as place:
        os.makedirs(f"{place}/root/a/b")
        return cache.add(place, CachedTree(key, image, 5))


def test_trees_are_there_when_they_are_complete(tmp_path: Path) -> None:
    cache = UnpackedCache(str(tmp_path / "cache"))
    assert cache.find(KEY) is None
    with pytest.raises(ZeroDivisionError), cache.new_tree(KEY) as place:
        os.mkdir(f"{place}/root")
        _ = 1 / 0
    assert cache.find(KEY) is None and not os.listdir(tmp_path / "cache/unfinished")
    root = tree_in(cache)
    assert cache.find(KEY) == root and cached_trees(cache.path) == [CachedTree(KEY, "image", 5)]
    assert tree_in(cache) == root  # made twice at once, where there are no locks
    assert not os.listdir(tmp_path / "cache/unfinished")
    os.rmdir(f"{root}/a/b")
    assert cache.find(KEY) == root  # it was looked at today
    marker = Path(root).parent / "complete"
    os.utime(marker, (1, 1))
    assert cache.find(KEY) is None
    assert tree_in(cache) == root == cache.find(KEY)
    cache.remove_unfinished()
    assert not os.listdir(tmp_path / "cache/unfinished")
    for content in (b"", b"[]", bytes(90)):
        marker.write_bytes(content)
        os.utime(marker, (1, 1))
        assert cache.find(KEY) is None


def test_an_older_tree_of_an_image_is_removed_unless_it_is_used(tmp_path: Path) -> None:
    cache = UnpackedCache(str(tmp_path / "cache"))
    tree_in(cache, "one", "image")
    tree_in(cache, "other", "other image")
    with ExitStack() as run:
        assert cache.use("one", run) == f"{cache.path}/trees/one/root"
        assert cache.use("missing", run) is None
        tree_in(cache, "two", "image")
        assert sorted(tree.key for tree in cached_trees(cache.path)) == ["one", "other", "two"]
    tree_in(cache, "three", "image")
    assert sorted(tree.key for tree in cached_trees(cache.path)) == ["other", "three"]
    assert not os.listdir(tmp_path / "cache/unfinished")
    with ExitStack() as run:
        assert cache.use("one", run) is None


def test_unfinished_trees_of_the_living_are_kept(tmp_path: Path) -> None:
    cache = UnpackedCache(str(tmp_path / "cache"))
    with cache.locked(KEY, print), cache.new_tree(KEY) as place:
        cache.remove_unfinished()
        assert os.path.isdir(place)
        with cache.locked("other", print):
            pass
        with cache.locked("run-1", print):
            pass
        for name in ("other.1", "run-1.2"):
            os.mkdir(f"{cache.path}/unfinished/{name}")
        cache.remove_unfinished()
        assert sorted(os.listdir(f"{cache.path}/locks")) == [KEY, "other"]
        assert os.listdir(f"{cache.path}/unfinished") == [os.path.basename(place)]


def test_digests_are_remembered_whole(tmp_path: Path) -> None:
    cache = UnpackedCache(str(tmp_path / "cache"))
    assert cache.digest("n") is None
    cache.remember_digest("n", "d" * 64)
    assert cache.digest("n") == "d" * 64 and os.listdir(tmp_path / "cache/digests") == ["n"]
    for damaged in ("", "d" * 63, "\0" * 64, "d" * 65):
        (tmp_path / "cache/digests/n").write_text(damaged)
        assert cache.digest("n") is None


def test_the_cache_is_the_callers_alone(tmp_path: Path) -> None:
    place = tmp_path / "cache"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    UnpackedCache(str(place))
    assert place.stat().st_mode & 0o777 == 0o700
    assert cached_trees(str(tmp_path / "missing")) == []
    (tmp_path / "file").touch()
    with pytest.raises(LaunchError, match="cannot be made"):
        UnpackedCache(str(tmp_path / "file"))


def test_trees_of_any_depth_and_mode_are_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / ".removed-0").mkdir()
    (top / "to-outside").symlink_to(tmp_path)
    kept = tmp_path / "kept"
    kept.touch()
    at = os.open(top, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("n" * 100, dir_fd=at)
        os.mkdir("closed", 0o0, dir_fd=at)
        os.close(os.open("file", os.O_CREAT, 0o0, dir_fd=at))
        below = os.open("n" * 100, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    assert 0 < count_names(str(top)) < 182  # down to the longest path
    remove_tree(str(top))
    remove_tree(str(top))
    assert not top.exists() and kept.exists()


def test_trees_that_others_make_or_use_are_left_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = UnpackedCache(str(tmp_path / "cache"))
    tree_in(cache)
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with ExitStack() as used, cache.locked(OTHER, print), cache.new_tree(OTHER) as place:
        assert cache.use(KEY, used) is not None
        cache.remove_unfinished()
        os.mkdir(f"{place}/root")
        cache.add(place, CachedTree(OTHER, "image", 5))
    assert {tree.key for tree in cached_trees(cache.path)} == {KEY, OTHER} and not pauses
