"""Headers of archives that we write: read by our own reader and by Python's, every field and record."""

from __future__ import annotations

import io
import tarfile
from stat import S_IFDIR, S_IFREG

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sifkit.tar.members import read_members
from sifkit.tar.stream import open_archive
from sifkit.tar.writer import NewMember, TarWriter, pack_headers, sparse_member, xattr_records


def archive(entries):
    """The bytes of an archive of (head, data)."""
    file = io.BytesIO()
    tar = TarWriter(file)
    for head, data in entries:
        tar.add(head, data)
    tar.finish()
    return file.getvalue()


def read(data):
    """What our reader makes of an archive."""
    source = open_archive(io.BytesIO(data))
    found = list(read_members(source))
    source.finish().close()
    return found


NAMES = st.binary(min_size=1, max_size=300).map(lambda raw: raw.replace(b"\0", b"x").strip(b"/") or b"x")
HEADS = st.tuples(
    NAMES,
    st.just(b"0"),
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.just(0),
    st.integers(-(2**31) * 10**9, 2**34 * 10**9),
).map(lambda fields: NewMember(*fields))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(HEADS, st.binary(max_size=1500)), max_size=6))
def test_what_is_written_is_read_again(entries):
    entries = [(head._replace(size=len(data)), data) for head, data in entries]
    data = archive(entries)
    assert len(data) % 512 == 0
    found = read(data)
    for (head, _), member in zip(entries, found, strict=True):
        assert (member.name, member.mode, member.uid, member.gid) == (head.name, head.mode, head.uid, head.gid)
        assert member.times[1] * 10**9 + member.times[4] == head.mtime
        assert (member.kind, member.size) == (S_IFREG, head.size)
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        theirs = tar.getmembers()
        for (head, content), info in zip(entries, theirs, strict=True):
            assert info.name.encode("utf-8", "surrogateescape") == head.name
            assert (info.mode, info.uid, info.gid, info.size) == (head.mode, head.uid, head.gid, head.size)
            file = tar.extractfile(info)
            assert file is not None and file.read() == content


def test_links_devices_and_directories():
    data = archive(
        [
            (NewMember(b"d/", b"5", 0o1755, 0, 0, 0, 0), b""),
            (NewMember(b"d/long", b"2", 0o777, 0, 0, 0, 0, target=b"t" * 4000), b""),
            (NewMember(b"d/odd", b"2", 0o777, 0, 0, 0, 0, target=b"\xff\xfe"), b""),
            (NewMember(b"d/hard", b"1", 0o644, 0, 0, 0, 0, target=b"d/odd"), b""),
            (NewMember(b"d/device", b"4", 0o600, 0, 0, 0, 0, major=4095, minor=(1 << 20) - 1), b""),
        ]
    )
    found = read(data)
    assert found[0].kind == S_IFDIR
    assert [member.target for member in found[1:4]] == [b"t" * 4000, b"\xff\xfe", b"d/odd"]
    assert found[4].device == (4095, (1 << 20) - 1)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        assert [info.type for info in tar] == [b"5", b"2", b"2", b"1", b"4"]


def test_a_small_entry_is_one_block_and_nothing_of_it_depends_on_the_host():
    assert len(pack_headers([NewMember(b"a", b"0", 0o644, 1000, 1000, 5, 1_600_000_000 * 10**9)])[0]) == 512
    assert pack_headers([]) == []


@pytest.mark.parametrize(
    "head",
    [
        NewMember(b"n" * 101, b"0", 0, 0, 0, 0, 0),
        NewMember(b"a", b"0", 0, 1 << 21, 0, 0, 0),
        NewMember(b"a", b"0", 0, 0, 1 << 21, 0, 0),
        NewMember(b"a", b"0", 0, 0, 0, 1 << 33, 0),
        NewMember(b"a", b"0", 0, 0, 0, 0, 1),
        NewMember(b"a", b"0", 0, 0, 0, 0, -(10**9)),
        NewMember(b"a", b"0", 0, 0, 0, 0, (1 << 33) * 10**9),
        NewMember("\xe4".encode(), b"0", 0, 0, 0, 0, 0),
    ],
)
def test_what_does_not_fit_a_field_is_a_record(head):
    packed = pack_headers([head])[0]
    assert len(packed) == 1536
    with tarfile.open(fileobj=io.BytesIO(packed + bytes(1024))) as tar:
        found = tar.next()
        assert found is not None
        assert (found.name.encode(), found.uid, found.gid, found.size) == (head.name, head.uid, head.gid, head.size)
        assert round(float(found.mtime) * 1e9) == head.mtime


def test_attributes_keep_any_name_and_value():
    xattrs = {b"user.a=b%c": b"\0\n=\xff", b"user.empty": b"", b"system.posix_acl_access": b"\2\0\0\0"}
    records = xattr_records(sorted(xattrs.items()))
    found = read(archive([(NewMember(b"f", b"0", 0o644, 0, 0, 0, 0, records=records), b"")]))
    assert found[0].records[b"SCHILY.xattr.user.a%3Db%25c"] == xattrs[b"user.a=b%c"]
    assert found[0].records[b"SCHILY.xattr.system.posix_acl_access"] == b"\2\0\0\0"


@pytest.mark.parametrize(
    ("size", "pairs"),
    [
        (1 << 44, []),
        (1 << 44, [(1 << 43, 5)]),
        (10_000, [(0, 1024), (4096, 1024)]),
        (5120, [(0, 1024), (4096, 1024)]),
        (1 << 20, [(at, 3) for at in range(0, 1 << 20, 4096)]),
    ],
)
def test_files_with_holes_are_read_again(size, pairs):
    head, table = sparse_member(NewMember(b"d/" + b"f" * 150, b"0", 0o600, 1, 2, size, 3), pairs)
    assert len(table) % 512 == 0
    content = b"".join(bytes([number % 255 + 1]) * length for number, (_, length) in enumerate(pairs))
    file = io.BytesIO()
    tar = TarWriter(file)
    tar.add_pieces(head, [table, content])
    tar.add(NewMember(b"next", b"0", 0, 0, 0, 0, 0))
    tar.finish()
    found = read(file.getvalue())
    assert [member.name for member in found] == [b"d/" + b"f" * 150, b"next"]
    assert (found[0].size, found[0].mode, found[0].uid) == (size, 0o600, 1)
    assert [(start, length) for start, length, _ in found[0].ranges or []] == pairs
    file.seek(0)
    with tarfile.open(fileobj=file) as theirs:
        info = theirs.next()
        assert info is not None and info.size == size and info.issparse()
        with theirs.extractfile(info) as data:  # type: ignore[union-attr]
            for number, (offset, length) in enumerate(pairs):
                data.seek(offset)
                assert data.read(length) == bytes([number % 255 + 1]) * length


def test_many_entries_wait_and_none_is_lost():
    entries = [
        (NewMember(b"%05d" % number, b"0", 0o644, 0, 0, number % 700, number), b"x" * (number % 700)) for number in range(5000)
    ]
    data = archive(entries)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(info.name, info.size) for info in tar] == [(f"{number:05d}", number % 700) for number in range(5000)]


def test_an_entry_that_breaks_off_is_known(tmp_path):
    def pieces():
        yield b"x" * 100
        raise OSError("no more")

    tar = TarWriter(io.BytesIO())
    with pytest.raises(OSError, match="no more"):
        tar.add_pieces(NewMember(b"f", b"0", 0, 0, 0, 1000, 0), pieces())
    assert tar.unfinished


class Narrow(io.RawIOBase):
    """Takes a few bytes at a time, as pipes do."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.data += bytes(data[:700])
        return min(len(data), 700)


def test_a_file_that_takes_less_than_it_is_given():
    file = Narrow()
    tar = TarWriter(file)  # type: ignore[arg-type]
    tar.add(NewMember(b"f", b"0", 0o644, 0, 0, 3000, 0), b"y" * 3000)
    tar.finish()
    assert bytes(file.data) == archive([(NewMember(b"f", b"0", 0o644, 0, 0, 3000, 0), b"y" * 3000)])
