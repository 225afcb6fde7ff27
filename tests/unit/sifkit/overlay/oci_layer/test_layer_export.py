"""upper/ as a layer: what is in the archive, the marks of both kinds, bounds, and the same bytes again."""

from __future__ import annotations

import io
import os
import stat
import tarfile

import pytest

import ext3
from ext3.constants import FileType
from ext3.read.filesystem import Filesystem
from sifkit.overlay.oci_layer.layer_export import LayerTooLargeError, export_layer
from sifkit.vfs.data_limit import SharedBlocksError
from sifkit.vfs.subtree import Subtree
from sifkit.vfs.upper_view import find_upper

from .....support.tiny_image import BLOCK, TinyImage, dirents

STAMP = ext3.Stamp(1_700_000_000, bytes(16), bytes(16))
TIMES = (1_600_000_000, 1_600_000_001, 1_600_000_002, 5, 123_456_789, 7)
WHITEOUT = stat.S_IFCHR


class Upper:
    """An image with upper/."""

    def __init__(self):
        self.builder = ext3.TreeBuilder()
        self.builder.add(0, b"", 0o040755, 0, 0, 0, TIMES)
        self.nodes = {b"": self.builder.add(0, b"upper", 0o040755, 0, 0, 0, TIMES)}
        self.content = {}

    def add(self, path, mode=0o100644, data=b"", xattrs=None, device=None, segments=None, size=None):
        head, _, name = path.rpartition(b"/")
        node = self.builder.add(self.nodes[head], name, mode, 7, 8, len(data) if size is None else size, TIMES)
        self.nodes[path] = node
        if stat.S_ISREG(mode):
            self.content[node] = data
        if stat.S_ISLNK(mode):
            self.builder.targets[node] = data
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            self.builder.devices[node] = device or (0, 0)
        if xattrs:
            self.builder.xattrs[node] = xattrs
        return self

    def link(self, path, old):
        head, _, name = path.rpartition(b"/")
        self.builder.link(self.nodes[head], name, self.nodes[old])
        return self

    def open(self):
        device = ext3.MemoryDevice(8 << 20)
        tree = self.builder.finish(ext3.MemoryContent(self.content))
        ext3.build_image(tree, device, options=ext3.ImageOptions(size=8 << 20), stamp=STAMP)
        return Filesystem(device)


def export(filesystem, **options):
    file = io.BytesIO()
    upper = find_upper(filesystem)
    done = export_layer(filesystem if upper is None else Subtree(filesystem, upper), file, **options)
    return done, file.getvalue()


def entries(data):
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        return {info.name.encode("utf-8", "surrogateescape"): info for info in tar}


def contents(data):
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        return {info.name.encode("utf-8", "surrogateescape"): tar.extractfile(info).read() for info in tar if info.isreg()}


def test_everything_is_in_the_archive_with_its_facts():
    upper = Upper().add(b"d", 0o040750, xattrs={b"user.note": b"n"}).add(b"d/empty", 0o100600)
    upper.add(b"d/small", 0o104755, b"small\n").add(b"d/large", 0o100644, bytes(range(256)) * 300)
    upper.add(b"d/link", 0o120777, b"small").add(b"d/pipe", 0o010644).add(b"d/socket", 0o140755)
    upper.add(b"d/device", 0o060660, device=(8, 300)).add(b"d/noted", data=b"x" * 5000, xattrs={b"user.a=b": b"\0\xff"})
    upper.add(b"d/\xff\xfe", data=b"odd").link(b"d/second", b"d/large")
    done, data = export(upper.open())
    found = entries(data)
    names = [b"device", b"empty", b"large", b"link", b"noted", b"pipe", b"second", b"small", b"\xff\xfe"]
    assert list(found) == [b".", b"d", *(b"d/" + name for name in names)]
    assert (done.entries, done.left_out, done.failed) == (11, 1, 0)
    assert all(info.mtime == 1_600_000_001.123456789 for name, info in found.items() if name not in (b".", b"d/second"))
    assert (found[b"d"].mode, found[b"d"].uid, found[b"d"].gid) == (0o750, 7, 8)
    assert found[b"d"].pax_headers["SCHILY.xattr.user.note"] == "n"
    assert found[b"d/small"].mode == 0o4755
    assert found[b"d/link"].linkname == "small"
    assert (found[b"d/device"].devmajor, found[b"d/device"].devminor) == (8, 300)
    assert found[b"d/second"].islnk() and found[b"d/second"].linkname == "d/large"
    assert contents(data) == {
        b"d/empty": b"",
        b"d/small": b"small\n",
        b"d/large": bytes(range(256)) * 300,
        b"d/noted": b"x" * 5000,
        b"d/\xff\xfe": b"odd",
    }
    assert done.content_bytes == sum(map(len, contents(data).values()))


def test_the_same_image_gives_the_same_bytes():
    upper = Upper().add(b"a", data=b"x").add(b"gone", WHITEOUT).add(b"d", 0o040755, xattrs={b"trusted.overlay.opaque": b"y"})
    filesystem = upper.open()
    assert export(filesystem)[1] == export(filesystem)[1]


@pytest.mark.parametrize("name", [b"trusted.overlay.opaque", b"user.overlay.opaque", b"user.fuseoverlayfs.opaque"])
def test_removed_files_and_opaque_directories_become_marks(name):
    upper = Upper().add(b"d", 0o040755, xattrs={name: b"y", b"trusted.overlay.origin": b"o"}).add(b"e", 0o040755)
    upper.add(b"e/gone", WHITEOUT).add(b"d/here").link(b"gone2", b"e/gone")  # the kernel lets whiteouts share an inode
    done, data = export(upper.open())
    found = entries(data)
    assert list(found) == [b".", b"d", b"d/.wh..wh..opq", b"d/here", b"e", b"e/.wh.gone", b".wh.gone2"]
    assert (done.whiteouts, done.opaque) == (2, 1)
    for mark in (b"d/.wh..wh..opq", b"e/.wh.gone"):
        assert (found[mark].isreg(), found[mark].size, found[mark].uid, found[mark].mode) == (True, 0, 0, 0o644)
    assert set(found[b"d"].pax_headers) == {"mtime"}


def test_marks_of_fuse_overlayfs_are_marks():
    upper = (
        Upper().add(b"d", 0o040755).add(b"d/.wh.gone").add(b"d/.wh.hidden").add(b"d/hidden", data=b"x").add(b"e", 0o040755)
    ).add(b"e/.wh..wh..opq")
    done, data = export(upper.open())
    assert list(entries(data)) == [b".", b"d", b"d/.wh.gone", b"d/.wh.hidden", b"e", b"e/.wh..wh..opq"]
    assert (done.whiteouts, done.opaque, done.failed) == (2, 1, 0)


@pytest.mark.parametrize("how", ["attribute", "file"])
@pytest.mark.parametrize("top", [False, True])
def test_whiteouts_below_an_opaque_directory_are_not_in_the_layer(how, top):
    """OCI layer.md hides lower layers already; kernel overlayfs lists such whiteouts, and nobody can remove them. What they
    hide in fuse-overlayfs stays hidden. The kernel ignores that the top is opaque, so it cuts nothing off."""
    upper = Upper()
    if not top:
        upper.add(b"d", 0o040755, xattrs={b"trusted.overlay.opaque": b"y"} if how == "attribute" else {})
    elif how == "attribute":
        upper.builder.xattrs[upper.nodes[b""]] = {b"trusted.overlay.opaque": b"y"}
    prefix = b"" if top else b"d/"
    if how == "file":
        upper.add(prefix + b".wh..wh..opq")
    upper.add(prefix + b".wh.a").add(prefix + b"a", data=b"x").add(prefix + b"b", WHITEOUT)
    upper.add(prefix + b"s", 0o040755).add(prefix + b"s/.wh.c").add(prefix + b"s/e", WHITEOUT).add(prefix + b"s/f")
    upper.add(prefix + b"s/x", xattrs={b"trusted.overlay.whiteout": b"y"})
    done, data = export(upper.open())
    found = [path.removeprefix(prefix) for path in entries(data) if path not in (b".", b"d")]
    marks = {b".wh.a", b".wh.b", b"s/.wh.c", b"s/.wh.e", b"s/.wh.x"}
    assert {path for path in found if b".wh." in path} == {b".wh..wh..opq"} | (marks if top else set())
    assert set(found) - marks == {b".wh..wh..opq", b"s", b"s/f"}
    assert (done.whiteouts, done.opaque, done.failed) == (5 if top else 0, 1, 0)


def test_what_fuse_overlayfs_leaves_beside_its_marks_is_nothing():
    """fuse-overlayfs 1.13 makes a device ``.wh..opq`` in every opaque directory, and never looks at it."""
    upper = Upper().add(b"d", 0o040755, xattrs={b"user.fuseoverlayfs.opaque": b"y"})
    upper.add(b"d/.wh..opq", WHITEOUT).add(b"d/.wh..wh..opq").add(b"d/z").add(b"e", 0o040755).add(b"e/.wh..opq", WHITEOUT)
    done, data = export(upper.open())
    assert list(entries(data)) == [b".", b"d", b"d/.wh..wh..opq", b"d/z", b"e"]
    assert (done.whiteouts, done.opaque, done.failed, done.notes) == (0, 1, 0, [])


@pytest.mark.parametrize("how", ["attribute", "file"])
def test_an_opaque_top_is_told(how):
    """The kernel shows lower layers all the same, fuse-overlayfs does not."""
    upper = Upper().add(b"f")
    if how == "file":
        upper.add(b".wh..wh..opq")
    else:
        upper.builder.xattrs[upper.nodes[b""]] = {b"trusted.overlay.opaque": b"y"}
    done, data = export(upper.open())
    assert list(entries(data)) == [b".", b".wh..wh..opq", b"f"]
    assert (done.opaque, done.failed) == (1, 0)
    assert len(done.notes) == 1 and done.notes[0].startswith("the top of upper/ is opaque, which the kernel ignores")


def test_files_that_would_be_taken_for_marks_are_left_out():
    upper = (
        Upper().add(b".wh.data", data=b"data").add(b".wh.dir", 0o040755).add(b".wh.dir/x").add(b"data", data=b"y").add(b".wh.")
    )
    done, data = export(upper.open())
    assert list(entries(data)) == [b".", b"data"]
    assert [path for path, _ in done.problems] == [b"/.wh.", b"/.wh.data", b"/.wh.dir"]


def test_whiteouts_that_are_attributes():
    upper = (
        Upper()
        .add(b"gone", xattrs={b"trusted.overlay.whiteout": b""})
        .add(b"full", data=b"x", xattrs={b"user.overlay.whiteout": b""})
    )
    assert list(entries(export(upper.open())[1])) == [b".", b"full", b".wh.gone"]


def test_a_name_too_long_for_a_mark_is_told():
    done, data = export(Upper().add(b"a" * 251, WHITEOUT).add(b"b" * 252, WHITEOUT).open())
    assert list(entries(data)) == [b".", b".wh." + b"a" * 251]
    assert (done.whiteouts, [path for path, _ in done.problems]) == (1, [b"/" + b"b" * 252])


def test_what_is_only_half_here_is_told():
    upper = Upper().add(b"meta", xattrs={b"trusted.overlay.metacopy": b""})
    upper.add(b"moved", 0o040755, xattrs={b"trusted.overlay.redirect": b"/old"}).add(b"moved/new")
    done, data = export(upper.open())
    assert list(entries(data)) == [b".", b"moved", b"moved/new"]
    assert [(path, why.split(":")[0]) for path, why in done.problems] == [
        (b"/moved", "the directory was renamed"),
        (b"/meta", "its content is in a lower layer (metacopy)"),
    ]


def test_a_path_too_long_for_programs_is_left_out_with_all_below():
    upper, path = Upper(), b""
    for _ in range(17):
        path = path + b"/" + b"n" * 250 if path else b"n" * 250
        upper.add(path, 0o040755)
    done, data = export(upper.open())
    assert len(entries(data)) == 17
    assert done.failed == 1 and b"..." in done.problems[0][0] and len(done.problems[0][0]) < 300


def tiny_files(image, count, first_ino=11):
    """``count`` files in the root, all with the same first block."""
    block = image.block(b"shared")
    entries = [(b".", 2, FileType.DIRECTORY), (b"..", 2, FileType.DIRECTORY)]
    for number in range(count):
        image.inode(first_ino + number, 0o100644, [block], i_size=BLOCK, i_blocks=2)
        entries.append((b"%02d" % number, first_ino + number, FileType.REGULAR))
    root = image.block(dirents(entries))
    image.inode(2, 0o40755, [root], i_size=BLOCK, i_blocks=2)


def test_files_that_share_their_blocks_fill_no_disk():
    image = TinyImage()
    tiny_files(image, 50)
    assert export(image.open())[0].failed == 0
    block = int(image.open().data_extents(11)[0][1])
    for ino in range(11, 61):
        image.inode(ino, 0o100644, [block] * 12, i_size=12 * BLOCK, i_blocks=24)
    file = io.BytesIO()
    with pytest.raises(SharedBlocksError, match="more data than it has room for"):
        export_layer(image.open(), file)
    assert len(file.getvalue()) < 2 * len(image.data)


def sparse_image(size):
    image = TinyImage()
    image.entry(b"hole", 11, FileType.REGULAR)
    image.inode(11, 0o100644, [0, 0, image.block(b"data")], i_size=size & 0xFFFFFFFF, i_size_high=size >> 32, i_blocks=2)
    return image


def test_holes_beyond_all_measure_are_refused():
    filesystem = sparse_image(16 << 30).open()
    file = io.BytesIO()
    with pytest.raises(LayerTooLargeError, match="/hole, 16 GiB of which 1 KiB are data") as caught:
        export_layer(filesystem, file)
    assert "--sparse" in caught.value.hint
    assert len(file.getvalue()) < 10_000


def test_small_holes_are_zeros():
    done, data = export(sparse_image(10 * BLOCK + 3).open())
    assert contents(data)[b"hole"] == bytes(2 * BLOCK) + b"data".ljust(BLOCK, b"\0") + bytes(7 * BLOCK + 3)
    assert done.content_bytes == 10 * BLOCK + 3


def test_sparse_keeps_any_hole():
    done, data = export(sparse_image(16 << 30).open(), sparse=True)
    assert len(data) < 10_000
    assert done.content_bytes == 16 << 30
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        info = tar.getmember("hole")
        assert info.size == 16 << 30
        with tar.extractfile(info) as file:
            file.seek(2 * BLOCK)
            assert file.read(5) == b"data\0"


def test_sparse_changes_nothing_for_files_without_holes():
    filesystem = Upper().add(b"a", data=b"x" * 100_000).add(b"b", data=b"y" * 10, xattrs={b"user.a": b"b"}).open()
    assert export(filesystem, sparse=True)[1] == export(filesystem)[1]


def test_names_and_attributes_are_bounded_too(monkeypatch):
    monkeypatch.setattr("sifkit.overlay.oci_layer.layer_export.EXTRA_BYTES", 0)
    monkeypatch.setattr("sifkit.overlay.oci_layer.layer_export.SIZE_FACTOR", 0)
    upper = Upper()
    for number in range(2100):  # so many that some were written
        upper.add(b"%04d" % number)
    with pytest.raises(LayerTooLargeError, match="names"):
        export(upper.open())


def test_a_file_that_cannot_be_read_is_told_and_the_rest_is_there():
    image = TinyImage()
    image.entry(b"bad", 11, FileType.REGULAR)
    image.entry(b"dir", 12, FileType.REGULAR)
    image.entry(b"file", 13, FileType.DIRECTORY)
    image.entry(b"good", 14, FileType.REGULAR)
    image.entry(b"odd", 15, FileType.REGULAR)
    image.entry(b"wrong", 16, FileType.REGULAR)
    image.inode(11, 0o100644, [99_999], i_size=10)
    image.directory(12, [])
    image.file(13, b"x")
    image.file(14, b"good")
    image.inode(15, 0o170644, [])
    image.inode(16, 0o100644, [], i_size=10, i_file_acl=1 << 20)
    done, data = export(image.open())
    assert list(entries(data)) == [b".", b"good"]
    assert [path for path, _ in done.problems] == [b"/bad", b"/dir", b"/file", b"/odd", b"/wrong"]
    assert contents(data)[b"good"] == b"good"


def test_a_directory_that_is_there_twice_is_entered_once():
    image = TinyImage()
    image.entry(b"a", 11, FileType.DIRECTORY)
    image.entry(b"b", 11, FileType.DIRECTORY)
    image.directory(11, [(b"loop", 2, FileType.DIRECTORY), (b"self", 11, FileType.DIRECTORY)])
    done, data = export(image.open())
    assert list(entries(data)) == [b".", b"a"]
    assert done.failed == 3


def test_blocks_of_directories_are_read_once():
    image = TinyImage()
    names = [(b"%c%c" % (65 + number // 26, 97 + number % 26), 11, FileType.REGULAR) for number in range(80)]
    shared = image.block(dirents([(b".", 30, FileType.DIRECTORY), (b"..", 2, FileType.DIRECTORY), *names]))
    for number in range(12):
        image.entry(b"d%02d" % number, 30 + number, FileType.DIRECTORY)
        image.inode(30 + number, 0o40755, [shared] * (12 if number % 3 else 1), i_size=BLOCK * (12 if number % 3 else 1))
    image.inode(11, 0o100644, [], i_links_count=2)
    done, data = export(image.open())
    assert done.failed == 11
    assert len(entries(data)) == 1 + 12 + 80


def test_problems_are_counted_and_the_first_are_kept():
    image = TinyImage()
    entries = [(b".", 2, FileType.DIRECTORY), (b"..", 2, FileType.DIRECTORY)]
    image.inode(11, 0o100644, [99_999], i_size=10)
    for block in range(3):
        names = [(b"%d%02d" % (block, number), 11, FileType.REGULAR) for number in range(50)]
        image.block(dirents([*entries, *names] if not block else names))
    image.inode(2, 0o40755, [image.next_block - 3 + n for n in range(3)], i_size=3 * BLOCK, i_blocks=6)
    done, _ = export(image.open())
    assert (done.failed, len(done.problems)) == (150, 100)


def test_a_disk_that_is_full_is_the_callers():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        export_layer(Upper().add(b"a", data=b"x").open(), file)
