"""Check of whole images: sound ones, and each kind of damage with its code, path and place."""

from __future__ import annotations

import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from sifkit.squashfs import Reader, check_tables
from sifkit.squashfs.checking import CheckedSquashfs, SquashfsProblem, check_squashfs
from sifkit.squashfs.errors import SquashfsError
from sifkit.squashfs.inode import Inode
from sifkit.squashfs.schema import (
    DIR_INDEX,
    DIRECTORY_INODE,
    EXTENDED_DIRECTORY_INODE,
    EXTENDED_REGULAR_INODE,
    FRAGMENT_ENTRY,
    REGULAR_INODE,
    SUPERBLOCK,
    XATTR_ID,
)

from ....support.squashfs_data import MemorySource

FIXTURES = Path(__file__).parents[4] / "fixtures" / "squashfs"
SOUND = sorted(FIXTURES.glob("*.sqfs"))
HEADER = 2
"""Bytes of the header of a metadata block."""


def check(image: bytes, **options: int) -> tuple[CheckedSquashfs, list[SquashfsProblem]]:
    problems: list[SquashfsProblem] = []
    found = check_squashfs(Reader(MemorySource(image)), on_problem=problems.append, **options)  # type: ignore[arg-type]
    return found, problems


class Editor:
    """The image whose metadata is stored as it is, with the places of its structures."""

    def __init__(self) -> None:
        self.image = bytearray((FIXTURES / "stored.sqfs").read_bytes())
        self.reader = Reader(MemorySource(bytes(self.image)))
        self.superblock = self.reader.superblock

    def node(self, path: str) -> int:
        node = self.reader.root
        for name in path.split("/"):
            found = self.reader.find_name(node, name.encode())
            assert found is not None
            node = found
        return node

    def inode(self, path: str) -> Inode:
        return self.reader.inode(self.node(path))

    def place(self, path: str, more: int = 0) -> int:
        """The byte of a file's inode."""
        node = self.node(path)
        assert node < 1 << 16
        return self.superblock.inode_table_start + HEADER + node + more

    def listing(self, path: str) -> int:
        """The byte of a directory's listing; the table begins with a block of 8 KiB."""
        inode = self.inode(path)
        assert inode.start_block == 0
        return self.superblock.directory_table_start + HEADER + inode.offset

    def put(self, place: int, form: str, value: int) -> None:
        struct.pack_into(form, self.image, place, value)

    def add(self, place: int, form: str, difference: int) -> None:
        self.put(place, form, struct.unpack_from(form, self.image, place)[0] + difference)


Damage = Callable[[Editor], None]


def parent(image: Editor) -> None:
    image.put(image.place("deep/er", DIRECTORY_INODE.offset_of("parent_inode")), "<I", 3)


def links(image: Editor) -> None:
    image.put(image.place("kinds/noted-file", EXTENDED_REGULAR_INODE.offset_of("nlink")), "<I", 5)


def directory_links(image: Editor) -> None:
    image.put(image.place("kinds", DIRECTORY_INODE.offset_of("nlink")), "<I", 9)


def inode_number(image: Editor) -> None:
    image.put(image.place("data/small", REGULAR_INODE.offset_of("inode_number")), "<I", 6)


def inode_number_outside(image: Editor) -> None:
    image.put(image.place("data/small", REGULAR_INODE.offset_of("inode_number")), "<I", 30)


def inode_type(image: Editor) -> None:
    image.put(image.place("kinds/fifo"), "<H", 7)


def fragment_index(image: Editor) -> None:
    image.put(image.place("data/tail", REGULAR_INODE.offset_of("fragment")), "<I", 2)


def fragment_offset(image: Editor) -> None:
    image.put(image.place("data/tail", REGULAR_INODE.offset_of("offset")), "<I", 8000)


def file_size(image: Editor) -> None:
    image.add(image.place("data/tail", REGULAR_INODE.offset_of("file_size")), "<I", 500)


def xattr_index(image: Editor) -> None:
    image.put(image.place("kinds/noted-file", EXTENDED_REGULAR_INODE.offset_of("xattr")), "<I", 8)


def entry_name(image: Editor) -> None:
    place = image.image.index(b"small", image.listing("data"))
    image.image[place : place + 5] = b"a/all"


def entry_order(image: Editor) -> None:
    place = image.image.index(b"small", image.listing("data"))
    image.image[place : place + 5] = b"aaaaa"


def listing_size(image: Editor) -> None:
    image.add(image.place("data", DIRECTORY_INODE.offset_of("file_size")), "<H", -4)


def index_name(image: Editor) -> None:
    place = image.place("many", EXTENDED_DIRECTORY_INODE.size)
    image.image[image.image.index(b"a-name", place)] = ord("b")


def index_offset(image: Editor) -> None:
    image.add(image.place("many", EXTENDED_DIRECTORY_INODE.size), "<I", 1)


def index_block(image: Editor) -> None:
    image.put(image.place("many", EXTENDED_DIRECTORY_INODE.size + DIR_INDEX.offset_of("start_block")), "<I", 1)


def directory_twice(image: Editor) -> None:
    """An entry that leads back to a directory above: `er` becomes `deep`."""
    place = image.listing("deep")
    image.put(place + 12, "<H", image.node("deep") & 0xFFFF)
    image.add(place + 14, "<h", -1)


def export(image: Editor) -> None:
    pointer = struct.unpack_from("<Q", image.image, image.superblock.lookup_table_start)[0]
    image.add(pointer + HEADER + 8 * 8, "<Q", 4)


def more_inodes(image: Editor) -> None:
    image.put(SUPERBLOCK.offset_of("inodes"), "<I", 30)


def impossible_inodes(image: Editor) -> None:
    image.put(SUPERBLOCK.offset_of("inodes"), "<I", 1 << 31)


def flags(image: Editor) -> None:
    image.put(SUPERBLOCK.offset_of("flags"), "<H", image.superblock.flags | 4)


def fragment_length(image: Editor) -> None:
    pointer = struct.unpack_from("<Q", image.image, image.superblock.fragment_table_start)[0]
    image.add(pointer + HEADER + FRAGMENT_ENTRY.size + FRAGMENT_ENTRY.offset_of("size"), "<I", -1)


def fragment_place(image: Editor) -> None:
    pointer = struct.unpack_from("<Q", image.image, image.superblock.fragment_table_start)[0]
    image.add(pointer + HEADER + FRAGMENT_ENTRY.size, "<Q", -5)


def block_length(image: Editor) -> None:
    place = image.place("data/hole", EXTENDED_REGULAR_INODE.size + 4 * 6)
    assert struct.unpack_from("<I", image.image, place)[0] == 8192 | 1 << 24
    image.add(place, "<I", -1)


def block_word(image: Editor) -> None:
    image.put(image.place("data/hole", EXTENDED_REGULAR_INODE.size + 4 * 6), "<I", 1 << 26)


def block_compressed(image: Editor) -> None:
    image.add(image.place("data/hole", EXTENDED_REGULAR_INODE.size + 4 * 6), "<I", -(1 << 24))


def block_place(image: Editor) -> None:
    image.put(image.place("data/hole", EXTENDED_REGULAR_INODE.offset_of("start_block")), "<Q", 90)


def block_among_tables(image: Editor) -> None:
    start = image.superblock.inode_table_start + 100
    image.put(image.place("data/hole", EXTENDED_REGULAR_INODE.offset_of("start_block")), "<Q", start)


def metadata_length(image: Editor) -> None:
    image.add(image.superblock.directory_table_start, "<H", -7)


def table_end(image: Editor) -> None:
    image.add(SUPERBLOCK.offset_of("bytes_used"), "<Q", 3)
    image.image += bytes(3)  # behind which it ends


def attribute_kind(image: Editor) -> None:
    """The first one has no known prefix."""
    table = image.reader.xattr_table
    assert table is not None
    reference, _, _ = table.set_at(0)
    image.put(table.table.start + HEADER + reference, "<H", 9)


def attribute_of_a_symlink(image: Editor) -> None:
    """The kind of its attribute becomes that of the user's."""
    table, index = image.reader.xattr_table, image.inode("kinds/noted-symlink").xattr_index
    assert table is not None and index is not None
    reference, _, _ = table.set_at(index)
    image.put(table.table.start + HEADER + reference, "<H", 0)


def attribute_count(image: Editor) -> None:
    """A set without attributes."""
    table = image.reader.xattr_table
    assert table is not None
    image.put(table.sets.pointers[0] + HEADER + XATTR_ID.offset_of("count"), "<I", 0)


CASES: list[tuple[Damage, str, bytes | None, str]] = [
    (parent, "directory", b"/deep/er", "parent_inode is 3, want 7"),
    (links, "links", b"/kinds/noted-file", "inode 22: nlink is 5, want 2"),
    (directory_links, "links", b"/kinds", "inode 11: nlink is 9, want 3"),
    (inode_number, "directory", b"/data/small", "inode_number is 6, want 4, as its entry says"),
    (inode_number_outside, "directory", b"/data/small", "inode_number is 30, want 1 to 29"),
    (inode_type, "directory", b"/kinds/fifo", "inode_type is 7, want 6, as its entry says"),
    (fragment_index, "inode", b"/data/tail", "fragment is 2, want below 2"),
    (fragment_offset, "inode", b"/data/tail", "end of its data in a fragment is 14393, want at most 8192"),
    (file_size, "fragment", b"/data/small", "fragment 0, with data of 2 files: .* is 7344, want at least 7844"),
    (xattr_index, "attributes", b"/kinds/noted-file", "xattr is 8, want below 8"),
    (entry_name, "directory", b"/data", "name of an entry is 'a/all'"),
    (entry_order, "directory", b"/data", "order of names is another one, want byte order"),
    (listing_size, "directory", b"/data", "end is in an entry, want behind an entry"),
    (
        index_name,
        "directory",
        b"/many",
        r"index of directory inode \d+ at byte \d+: name is 'b-name-of-some-length-.*, want 'a-name-of-some",
    ),
    (index_offset, "directory", b"/many", r"index of directory inode \d+ at byte \d+: name is 'a-name"),
    (index_block, "directory", b"/many", "start_block is 1, want "),
    (directory_twice, "directory", b"/deep/er", "directory is in two places, want in one"),
    (export, "export-table", None, "inode 9 is 0x148, want 0x144"),
    (more_inodes, "unreachable", None, "1 inode of 30 cannot be reached from the root"),
    (impossible_inodes, "table", None, "inodes is 2147483648, want at most 66, as the table holds"),
    (flags, "table", None, "flags is 0x1cf, want those of version 4.0"),
    (fragment_length, "fragment", b"/data/whole", "fragment 1, with data of 4 files: .*is 4112, want at least 4113"),
    (fragment_place, "overlap", b"/data/whole", "place is inside other data, want behind byte 15632"),
    (block_length, "data", b"/data/hole", "at byte 96: uncompressed size is 8191, want 8192"),
    (block_word, "data", b"/data/hole", "at byte 96: size is 67108864, want 1 to 8192"),
    (block_compressed, "data", b"/data/hole", "at byte 96: its gzip data is damaged"),
    (block_place, "overlap", b"/data/hole", "place is inside other data, want behind byte 96"),
    (block_among_tables, "overlap", b"/data/hole", "want one that ends before byte 19745, where the tables begin"),
    (metadata_length, "metadata", None, "table of directories: metadata block at byte 21069: uncompressed size is 8185"),
    (table_end, "table", None, r"table of attributes: end is \d+, want \d+, where the next table or the end"),
    (attribute_of_a_symlink, "attributes", b"/kinds/noted-symlink", r"xattr is \d+, want one without attributes of the user"),
    (attribute_count, "attributes", None, r"attribute set 0 .*: count is 0, want at least 1"),
    (attribute_kind, "attributes", None, r"attribute set 0 .*: count is \d, want \d, which are of known kinds"),
]


@pytest.mark.parametrize("path", SOUND, ids=lambda path: path.stem)
@pytest.mark.parametrize("threads", (1, 3))
def test_sound_image_has_no_problems(path: Path, threads: int) -> None:
    read: list[int] = []
    problems: list[SquashfsProblem] = []
    with Reader.open(path) as reader:
        found = check_squashfs(reader, on_problem=problems.append, progress=read.append, threads=threads)
        used = reader.superblock.bytes_used
    assert problems == []
    assert (found.inodes, found.directories, found.files, found.errors, found.warnings) == (29, 8, 11, 0, 0)
    assert used - 250 <= sum(read) <= used


@pytest.mark.parametrize(("damage", "code", "path", "text"), CASES, ids=[case[0].__name__ for case in CASES])
def test_damage_is_found_with_its_path_and_place(damage: Damage, code: str, path: bytes | None, text: str) -> None:
    image = Editor()
    damage(image)
    found, problems = check(bytes(image.image))
    assert found.errors + found.warnings == len(problems)
    hits = [problem for problem in problems if problem.code == code and problem.path == path and re.search(text, problem.text)]
    assert hits, problems
    assert all("\n" not in problem.text for problem in problems)
    assert hits[0].severity == ("warning" if code == "links" else "error")
    if code not in ("links", "unreachable", "table", "attributes"):
        offset = hits[0].offset
        assert offset is not None and f"at byte {offset}" in hits[0].text


def test_check_goes_on_behind_a_problem() -> None:
    image = Editor()
    for damage in (parent, fragment_index, block_length, links, export, fragment_length):
        damage(image)
    codes = {str(problem.code) for problem in check(bytes(image.image))[1]}
    assert codes == {"directory", "inode", "data", "links", "export-table", "fragment"}


@pytest.mark.parametrize("name", ("gzip", "xz", "zstd"))
def test_damaged_block_of_inodes_leaves_the_others_readable(name: str) -> None:
    """The fixture's inodes fit one block; those that cannot be read are told once each, and the blocks of names are checked."""
    image = bytearray((FIXTURES / f"{name}.sqfs").read_bytes())
    reader = Reader(MemorySource(bytes(image)))
    start = reader.superblock.inode_table_start + HEADER
    image[start : start + 20] = bytes(20)
    found, problems = check(bytes(image))
    assert found.inodes == 0
    assert [str(problem.code) for problem in problems][:2] == ["metadata", "inode"]
    assert problems[0].text.startswith(f"table of inodes: metadata block at byte {start - HEADER}: its {name} data is damaged")
    directories = reader.superblock.directory_table_start + HEADER
    image[directories : directories + 20] = bytes(20)
    texts = [problem.text for problem in check(bytes(image))[1]]
    assert any(text.startswith("table of directories: metadata block") for text in texts)


def test_block_that_reaches_into_what_follows_it_is_found() -> None:
    """What follows the last attribute sets are the 16 bytes of the table's header; lzma does not mind them."""
    image = bytearray((FIXTURES / "lzma.sqfs").read_bytes())
    table = Reader(MemorySource(bytes(image))).xattr_table
    assert table is not None
    pointer = table.sets.pointers[0]
    image[pointer] += 16
    problems = check(bytes(image))[1]
    assert [(str(problem.code), problem.offset) for problem in problems] == [("metadata", pointer)]


def test_links_as_other_writers_count_them_are_right() -> None:
    """squashfs-tools-ng counts all entries of a directory."""
    image = Editor()
    image.put(image.place("data", DIRECTORY_INODE.offset_of("nlink")), "<I", 2 + 5)
    assert check(bytes(image.image))[1] == []


def test_truncated_image_is_found_wherever_it_ends() -> None:
    image = (FIXTURES / "lzma.sqfs").read_bytes()
    for size in range(len(image)):
        with pytest.raises(SquashfsError):
            Reader(MemorySource(image[:size]))


def test_image_that_is_cut_in_its_padding_is_found() -> None:
    """The kernel reads whole sectors; a tool that makes images pads them to 4096 bytes, or not at all."""
    image = (FIXTURES / "gzip.sqfs").read_bytes()
    used = len(image)
    sector = -(-used // 512) * 512
    assert used < sector - 1 and sector % 4096
    for size, severities in (
        (used, []),
        (used + 1, ["error"]),
        (sector - 1, ["error"]),
        (sector, []),
        (sector + 1, ["warning"]),
        (8192, []),
        (8193, []),
    ):
        problems = check(image + bytes(size - used))[1]
        assert [problem.severity for problem in problems] == severities, size
        assert all(problem.code == "truncated" and problem.offset == size for problem in problems)


def test_errors_of_the_host_are_problems_too() -> None:
    image = (FIXTURES / "gzip.sqfs").read_bytes()

    class Failing(MemorySource):
        def read_at(self, offset: int, size: int, /) -> bytes:
            if offset == 96:
                raise OSError(5, "Input/output error")
            return super().read_at(offset, size)

    problems: list[SquashfsProblem] = []
    check_squashfs(Reader(Failing(image)), on_problem=problems.append)
    assert {(str(problem.code), problem.path) for problem in problems} >= {("unreadable", b"/data/hole")}
    assert {str(problem.code) for problem in problems} == {"unreadable"}


def test_directories_that_share_their_listing_end_the_check() -> None:
    """A hostile image with many directories that have one long listing."""
    image = Editor()
    many = image.inode("many")
    for path in ("deep", "deep/er", "empty"):
        image.put(image.place(path, DIRECTORY_INODE.offset_of("file_size")), "<H", many.size)
        image.put(image.place(path, DIRECTORY_INODE.offset_of("offset")), "<H", many.offset)
    problems = check(bytes(image.image))[1]
    assert any("listings are longer than their table" in problem.text for problem in problems)


def test_files_whose_lists_of_blocks_do_not_fit_their_table_are_not_read() -> None:
    """A hostile image whose lists overlap: reading them all would take the square of the time."""
    image = Editor()
    for path in ("data/hole", "data/only-hole"):
        image.put(image.place(path, EXTENDED_REGULAR_INODE.offset_of("file_size")), "<Q", 250 * 8192)
    problems = check(bytes(image.image))[1]
    assert any("lists of blocks do not fit their table" in problem.text for problem in problems)


def test_damaged_attributes_that_share_their_values_end_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile image whose sets are damaged behind a long value: what is read of them counts, too."""
    image = Editor()
    table = image.reader.xattr_table
    assert table is not None
    values = [sum(len(value) for _, value in table.entries(index)) for index in range(table.count)]
    longest = table.set_at(values.index(max(values)))
    for index in range(table.count):
        place = table.sets.pointers[0] + HEADER + index * XATTR_ID.size
        image.put(place, "<Q", longest.reference)
        image.put(place + XATTR_ID.offset_of("count"), "<I", 1 << 31)
    monkeypatch.setattr(check_tables, "FREE_XATTR_BYTES", max(values) * 2)
    monkeypatch.setattr(check_tables, "XATTR_BYTES_FACTOR", 0)
    problems = [problem for problem in check(bytes(image.image))[1] if problem.code == "attributes" and problem.path is None]
    assert 0 < len(problems) < table.count
    assert "the sets hold more data than a table of" in problems[-1].text


def test_memory_does_not_grow_with_the_claimed_number_of_inodes() -> None:
    image = Editor()
    impossible_inodes(image)
    tracemalloc.start()
    check(bytes(image.image), threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_wrong_compressor_options_are_a_problem() -> None:
    image = bytearray((FIXTURES / "lz4.sqfs").read_bytes())
    place = SUPERBLOCK.offset_of("flags")
    image[place + 1] &= ~4
    assert any("there are none, which lz4 needs" in problem.text for problem in check(bytes(image))[1])
    image = bytearray((FIXTURES / "lzma.sqfs").read_bytes())
    image[place + 1] |= 4
    assert any(problem.code == "compressor-options" for problem in check(bytes(image))[1])
