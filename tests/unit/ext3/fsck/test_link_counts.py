"""Pass 4: inodes without a name, link counts, the limit of links."""

from __future__ import annotations

import pytest

import ext3
from ext3.constants import ROOT_INO
from ext3.format.schema import INODE_CORE
from ext3.fsck.connectivity import check_connectivity
from ext3.fsck.context import Context
from ext3.fsck.link_counts import LINKS_LIMIT, check_link_counts
from ext3.fsck.policy import Ask, CheckOnly, Policy, Preen, Stopped
from tests.support.fsck_images import Image, filled_context


@pytest.fixture(scope="module", params=[256, 128])
def pristine(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> bytes:
    path = tmp_path_factory.mktemp("links") / "image"
    ext3.mkfs(path, 4 << 20, inode_size=request.param)
    with ext3.Filesystem.open(path, "r+") as fs:
        fs.mkdir("/d")
        fs.write_bytes("/d/file", b"content")
        fs.link("/d/file", "/twin")
        fs.write_bytes("/d/empty", b"")
        fs.symlink("target", "/d/short")
        fs.write_bytes("/d/attributed", b"")
        fs.set_xattr("/d/attributed", b"user.a", b"value")
    return path.read_bytes()


@pytest.fixture
def image(pristine: bytes) -> Image:
    return Image(pristine)


def checked(image: Image, policy: Policy | None = None) -> Context:
    context = filled_context(image, policy)
    check_connectivity(context)
    check_link_counts(context)
    return context


def after(context: Context) -> Image:
    return Image(context.storage.read(0, context.storage.size))


def messages(context: Context) -> list[str]:
    return [str(finding) for finding in context.report.findings]


def test_a_sound_tree_is_not_changed(image: Image) -> None:
    context = checked(image)
    assert not messages(context)
    assert not context.storage.pending


@pytest.mark.parametrize(("path", "wrong", "want"), [("/d/file", 1, 2), ("/d/file", 9, 2), ("/d", 3, 2), ("/", 2, 4)])
def test_counts_are_set(image: Image, pristine: bytes, path: str, wrong: int, want: int) -> None:
    ino = image.ino(path)
    image.set_inode(ino, i_links_count=wrong)
    context = checked(image, Preen())
    assert messages(context) == [f"inode {ino}: i_links_count is {wrong}, want {want}"]
    assert after(context).data == pristine
    assert checked(image, CheckOnly()).report.exit_code == 4


@pytest.mark.parametrize("name", [b"file", b"short", b"attributed"])
def test_a_file_without_a_name_goes_to_lost_and_found(image: Image, name: bytes) -> None:
    d, ino = image.ino("/d"), image.ino("/d/" + name.decode())
    image.drop_name(d, name)
    if name == b"file":
        image.drop_name(ROOT_INO, b"twin")
    with pytest.raises(Stopped):
        checked(image, Preen())
    context = checked(image)
    found = [finding.code for finding in context.report.findings]
    assert found == ["inode-unattached", *["link-count"] * (name == b"file")]
    repaired = after(context)
    assert repaired.listing(repaired.ino("/lost+found")) == {b"#%d" % ino: ino}
    if name == b"file":
        with ext3.Filesystem.open(repaired.device) as fs:
            assert fs.read_bytes(f"/lost+found/#{ino}") == b"content"
            assert fs.stat(ino).links == 1


def test_an_empty_file_without_a_name_is_cleared(image: Image) -> None:
    ino = image.ino("/d/empty")
    image.drop_name(image.ino("/d"), b"empty")
    context = checked(image, Preen())
    assert [finding.code for finding in context.report.findings] == ["empty-inode-unattached"]
    assert context.inodes_freed == {ino}
    assert not context.census.mode[ino]
    assert INODE_CORE.view(context.read_inode(ino))[0]["i_dtime"] == context.now


def test_an_empty_file_that_is_not_to_be_cleared_is_linked(image: Image) -> None:
    ino = image.ino("/d/empty")
    image.drop_name(image.ino("/d"), b"empty")
    context = checked(image, Ask(lambda finding: finding.code != "empty-inode-unattached"))
    assert [finding.code for finding in context.report.findings] == ["empty-inode-unattached", "inode-unattached"]
    assert after(context).listing(after(context).ino("/lost+found")) == {b"#%d" % ino: ino}


def test_a_refusal_does_not_set_the_count_to_zero(image: Image) -> None:
    image.drop_name(image.ino("/d"), b"short")
    context = checked(image, Ask(lambda finding: False))
    assert [finding.code for finding in context.report.findings] == ["inode-unattached"]
    assert not context.storage.pending


def test_reserved_inodes_are_passed_over(image: Image) -> None:
    context = filled_context(image)
    check_connectivity(context)
    context.census.mode[8], context.census.links[8] = 0o100600, 1
    context.census.mode[5], context.census.links[5] = 0o100600, 7
    check_link_counts(context)
    assert not messages(context)


def test_too_many_links_are_reported_and_left(image: Image) -> None:
    context = filled_context(image)
    check_connectivity(context)
    ino = image.ino("/d/file")
    context.census.names[ino] = LINKS_LIMIT + 1
    check_link_counts(context)
    assert messages(context) == [f"inode {ino} has {LINKS_LIMIT + 1} links, want {LINKS_LIMIT} or fewer"]
    assert context.report.exit_code == 4
    assert not context.storage.pending


def test_a_bad_inode_without_a_name_is_judged(image: Image) -> None:
    ino = image.ino("/d/short")
    image.drop_name(image.ino("/d"), b"short")
    image.set_inode(ino, i_mode=0o170777)
    context = filled_context(image)
    context.bad_inodes.add(ino)
    context.census.mode[ino], context.census.links[ino] = 0o170777, 1
    check_connectivity(context)
    check_link_counts(context)
    assert context.inodes_freed == {ino}
    assert "inode-unattached" not in [finding.code for finding in context.report.findings]
