"""Random trees, written by the standard library's tar writer, come out as they went in; damaged archives end in SourceError."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ext3.errors import SourceError
from ext3.newfs.builder import TreeBuilder
from sifkit.overlay import scan_tar

DIR, REG, LNK, CHR, BLK, FIFO = 0o040000, 0o100000, 0o120000, 0o020000, 0o060000, 0o010000
TYPES = {DIR: tarfile.DIRTYPE, REG: tarfile.REGTYPE, LNK: tarfile.SYMTYPE, CHR: tarfile.CHRTYPE, BLK: tarfile.BLKTYPE}
TYPES[FIFO] = tarfile.FIFOTYPE
PACKERS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, lzma.compress]

names = (
    st.binary(min_size=1, max_size=120)
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"0"))
    .filter(lambda name: name not in (b".", b"..", b"lost+found") and not name.startswith(b".wh."))
)
owners = st.integers(0, 2**32 - 1)


@dataclass
class Node:
    kind: int
    mode: int
    uid: int
    gid: int
    seconds: int
    nanoseconds: int
    data: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]
    children: dict[bytes, Node] = field(default_factory=dict)
    link_to: int = 0


def nodes(kinds: list[int], children: st.SearchStrategy[dict[bytes, Node]]) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        st.sampled_from(kinds),
        st.integers(0, 0o7777),
        owners,
        owners,
        st.integers(-(2**40), 2**40),
        st.integers(0, 999_999_999),
        st.binary(min_size=1, max_size=700).map(lambda data: data.replace(b"\0", b"0")),
        st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)),
        st.dictionaries(st.from_regex(rb"user\.[a-z.]{1,20}", fullmatch=True), st.binary(min_size=1, max_size=40), max_size=2),
        children,
    )


leaves = nodes([REG, LNK, CHR, BLK, FIFO], st.just({}))
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=4),
    lambda below: st.dictionaries(names, leaves | nodes([DIR], below), max_size=4),
    max_leaves=12,
)


def time_text(node: Node) -> str:
    """Decimal text of a time whose nanoseconds count upwards from its seconds."""
    if node.seconds < 0 and node.nanoseconds:
        return f"-{-node.seconds - 1}.{1_000_000_000 - node.nanoseconds:09d}"
    return f"{node.seconds}.{node.nanoseconds:09d}"


def write(tree: dict[bytes, Node], style: int, links: dict[bytes, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style, encoding="utf-8", errors="surrogateescape") as archive:
        todo = [(b"", tree)]
        while todo:
            head, children = todo.pop()
            for name, node in children.items():
                path = head + name
                entry = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
                entry.type, entry.mode, entry.uid, entry.gid = TYPES[node.kind], node.mode, node.uid, node.gid
                entry.mtime = node.seconds
                entry.devmajor, entry.devminor = node.device[0], node.device[1] % 2**20
                if style == tarfile.PAX_FORMAT:
                    entry.pax_headers = {"mtime": time_text(node)}
                    for key, value in node.xattrs.items():
                        entry.pax_headers["SCHILY.xattr." + key.decode()] = value.decode("utf-8", "surrogateescape")
                if node.kind == LNK:
                    entry.linkname = node.data.decode("utf-8", "surrogateescape")
                entry.size = len(node.data) if node.kind == REG else 0
                archive.addfile(entry, io.BytesIO(node.data))
                todo.append((path + b"/", node.children))
        for path, target in links.items():
            entry = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
            entry.type, entry.linkname = tarfile.LNKTYPE, target.decode("utf-8", "surrogateescape")
            archive.addfile(entry)
    return buffer.getvalue()


def flat(tree: dict[bytes, Node], head: bytes = b"") -> list[tuple[bytes, Node]]:
    """Paths in the order the builder must have them: a directory's children sorted, then each subdirectory's."""
    found = [(head + name, tree[name]) for name in sorted(tree)]
    for name in sorted(tree):
        found += flat(tree[name].children, head + name + b"/")
    return found


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(trees, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.sampled_from(PACKERS), st.data())
def test_what_goes_in_comes_out(
    tree: dict[bytes, Node], style: int, packer: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    want = flat(tree)
    linkable = [path for path, node in want if node.kind != DIR]
    link_names = data.draw(st.lists(names.map(lambda name: name + b".link"), max_size=3, unique=True)) if linkable else []
    taken = dict(want)
    links = {name: data.draw(st.sampled_from(linkable)) for name in link_names if name not in taken}

    builder = TreeBuilder()
    root = builder.add(0, b"", DIR | 0o755, 0, 0, 0, (0,) * 6)
    source = io.BytesIO(packer(write(tree, style, links)))
    with scan_tar(builder, root, source, xattr_filter=lambda name: True) as scan:
        got = builder.finish(scan.content)
        assert scan.files == len(want) + len(links)
        at = {got.path(number)[1:]: number for number in range(1, len(got)) if number != got.lost_found}
        if not links:
            assert list(at) == [path for path, _ in want]
        for parent, name, number in got.extra_links:
            at[(got.path(parent)[1:] + b"/" if parent else b"") + name] = number
        assert at.keys() == taken.keys() | links.keys()
        assert all(at[name] == at[target] for name, target in links.items())
        for path, node in want:
            number = at[path]
            row = got.nodes[number]
            assert int(row["mode"]) == node.kind | node.mode
            assert (int(row["uid"]), int(row["gid"])) == (node.uid, node.gid)
            nanoseconds = node.nanoseconds if style == tarfile.PAX_FORMAT else 0
            for column in ("mtime", "atime", "ctime"):
                assert (int(row[column]), int(row[column + "_ns"])) == (node.seconds, nanoseconds)
            assert got.xattrs.get(number, {}) == (node.xattrs if style == tarfile.PAX_FORMAT else {})
            if node.kind == REG:
                view = bytearray(int(row["size"]))
                scan.content.read_whole(number, memoryview(view))
                assert view == node.data
            elif node.kind == LNK:
                assert got.targets[number] == node.data
            elif node.kind in (CHR, BLK):
                assert got.devices[number] == node.device


@pytest.mark.slow
@pytest.mark.parametrize("packer", PACKERS, ids=["plain", "gzip", "xz"])
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_ends_in_an_error_or_in_a_tree(packer: Callable[[bytes], bytes], data: st.DataObject) -> None:
    tree = data.draw(trees)
    archive = bytearray(packer(write(tree, data.draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])), {})))
    for at, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(archive) - 1), st.integers(0, 255)), min_size=1, max_size=5)
    ):
        archive[at] = byte
    if packer is bytes and data.draw(st.booleans()):
        for start in range(0, len(archive) - 511, 512):  # checksums made right again: the damage gets deeper
            block = archive[start : start + 512]
            if block[257:262] == b"ustar":
                block[148:156] = b" " * 8
                archive[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    cut = data.draw(st.integers(0, len(archive)))
    for source in (bytes(archive), bytes(archive[:cut])):
        builder = TreeBuilder()
        root = builder.add(0, b"", DIR | 0o755, 0, 0, 0, (0,) * 6)
        try:
            with scan_tar(builder, root, io.BytesIO(source), xattr_filter=lambda name: True) as scan:
                assert scan.files == len(builder.names) - 1 + len(builder.extra_links)
        except SourceError as error:
            assert error.path == b"archive"
            assert len(builder.names) == 1
