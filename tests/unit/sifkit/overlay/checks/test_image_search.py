"""Search for images in directories, and lists of digests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sifkit.errors import SifkitError
from sifkit.overlay.checks.digest_list import DigestList
from sifkit.overlay.checks.image_result import ImageResult
from sifkit.overlay.checks.image_search import FoundImage, find_images, images_to_check

from .....support.tiny_squashfs import TINY_SQUASHFS, tiny_sif

DIGEST = "ab" * 32


@pytest.fixture
def top(tmp_path, empty_overlay):
    """Images under names that do not tell, other files, links, an image's name without an image."""
    top = tmp_path / "top"
    (top / "b" / ".cache").mkdir(parents=True)
    (top / "empty").mkdir()
    tiny_sif(top / "b" / ".cache" / "0123abcd")
    (top / "b" / "t").write_bytes(TINY_SQUASHFS)
    (top / "a.img").write_bytes(empty_overlay.read_bytes())
    (top / "README").write_text("a SIF_MAGIC somewhere in a text")
    (top / "other.img").write_bytes(bytes(5000))
    (top / "EMPTY.SIF").touch()
    (top / "loop").symlink_to(".")
    (top / "link.sif").symlink_to("b/t")
    os.link(top / "b" / "t", top / "z.sqfs")
    os.mkfifo(top / "fifo.sif")
    return top


def names(found, top):
    return [os.path.relpath(one.path, top) for one in found]


def test_images_are_found_by_content(top):
    assert names(find_images(top), top) == ["EMPTY.SIF", "a.img", "z.sqfs", "b/t", "b/.cache/0123abcd"]
    assert all(isinstance(one, FoundImage) for one in find_images(top))


def test_each_file_is_given_once(top):
    seen = set()
    assert names(images_to_check(top / "link.sif", seen=seen), top) == ["link.sif"]
    assert names(images_to_check(top, seen=seen), top) == ["EMPTY.SIF", "a.img", "b/.cache/0123abcd"]
    assert names(images_to_check(top / "b" / "t", seen=seen), top) == []


def test_what_is_named_is_given_whatever_it_is(top):
    found = next(iter(images_to_check(top / "README")))
    assert isinstance(found, FoundImage) and not found.any_content and found.size == 31
    missing = next(iter(images_to_check(top / "none")))
    assert isinstance(missing, ImageResult) and not missing.good


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_directories_are_bad_for_others(top):
    (top / "b").chmod(0)
    try:
        assert [one.good for one in find_images(top) if isinstance(one, ImageResult)] == [False]
    finally:
        (top / "b").chmod(0o755)


def test_unreadable_directories_and_images_are_bad(top, monkeypatch):
    whole, opened = os.scandir, os.open

    def scandir(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return whole(path)

    def open_file(path, *arguments, **options):
        if str(path).endswith((".SIF", "README")):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "open", open_file)
    bad = [one for one in find_images(top) if isinstance(one, ImageResult)]
    assert names(bad, top) == ["EMPTY.SIF", "b"]
    assert {one.problems[0].text for one in bad} == {"it cannot be read: Permission denied"}


@pytest.mark.skipif(sys.platform == "win32", reason="names of POSIX")
@pytest.mark.parametrize("options", [[], ["--tag"], ["--binary"]])
def test_lists_of_sha256sum(tmp_path, monkeypatch, options):
    odd = "a\nb\\c\rd"
    for name in ("one", "two words", odd):
        (tmp_path / name).write_text(name)
    command = ["sha256sum", *options, "one", "two words", odd]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    (tmp_path / "sums").write_bytes(b"# of three files\n\n" + done.stdout)
    found = DigestList(tmp_path / "sums")
    monkeypatch.chdir(tmp_path)
    assert len(found) == 3 and found.digest_of("none") is None
    for name in ("one", "two words", odd):
        plain = subprocess.run(["sha256sum"], input=name.encode(), capture_output=True, check=True)
        assert found.digest_of(name) == plain.stdout[:64].decode()


@pytest.mark.parametrize("at", ["images/sums", "sums", "elsewhere/sums"])
def test_names_are_relative_to_the_list_the_current_directory_or_what_is_checked(tmp_path, monkeypatch, at):
    for name in ("images", "elsewhere"):
        (tmp_path / name).mkdir()
    for name in ("both", "images/both", "images/there"):
        (tmp_path / name).touch()
    (tmp_path / at).write_text(f"{DIGEST}  both\n{DIGEST.upper()} *there\n{DIGEST}  gone\n")
    monkeypatch.chdir(tmp_path)
    found = DigestList(at, images=["images/"])
    assert [found.digest_of(name) for name in ("both", "images/both", "images/there")] == [None, DIGEST, DIGEST]
    assert sorted(found.below("images")) == ["images/both", "images/gone", "images/there"]
    assert DigestList(at, images=["both"]).digest_of("both") == DIGEST


def test_listed_files_of_a_directory_are_checked(top):
    (top / "sums").write_text(f"{DIGEST}  README\n{DIGEST}  a.img\n{DIGEST}  gone.sif\n{DIGEST}  ../outside\n")
    found = list(images_to_check(top, digests=DigestList(top / "sums")))
    assert names(found, top)[-2:] == ["README", "gone.sif"]
    assert isinstance(found[-2], FoundImage) and found[-2].any_content
    assert isinstance(found[-1], ImageResult) and found[-1].problems[0].text.endswith("sums, but missing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no digests"),
        ("hello\n", "line 1 is not as sha256sum writes it"),
        (f"{DIGEST}  a\n{DIGEST[:-1]}  b\n", "line 2 is not"),
        (f"{DIGEST}  a\n{'0' * 64}  a\n", "has two digests of a"),
        (f"{DIGEST}  a\0b\n", "line 1 has a NUL"),
    ],
)
def test_other_lists_are_refused(tmp_path, text, message):
    (tmp_path / "sums").write_text(text)
    with pytest.raises(SifkitError, match=message) as caught:
        DigestList(tmp_path / "sums")
    assert "\n" not in str(caught.value)


def test_a_missing_list(tmp_path):
    with pytest.raises(SifkitError, match=r"sums cannot be read: No such file"):
        DigestList(tmp_path / "sums")
