"""What takes the place of a file or a whiteout: one of both is there at any time, and a failure leaves the old one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import ext3
from ext3.constants import S_IFCHR
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.edit.filesystem import WritableFilesystem
from ext3.edit.session import Session
from ext3.journal.transaction import LogWriter
from sifkit.overlay.edit.upper_edit import OverlayEditor
from sifkit.vfs.errors import LowerContentError
from sifkit.vfs.whiteouts import METACOPY_XATTRS, OPAQUE_XATTRS, REDIRECT_XATTRS, WHITEOUT_XATTRS, is_opaque

from .....support.image_checks import check_counts
from .....support.sessions import COMMIT_START, clock, empty_image


@pytest.fixture
def device() -> MemoryDevice:
    """upper/ with a large file, a small one with two names, and whiteouts of both kinds."""
    device = empty_image(24 << 20)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir("/upper")
        fs.write_bytes("/upper/large", b"f" * (18 << 20))
        fs.write_bytes("/upper/small", b"s")
        fs.link("/upper/small", "/upper/second")
        fs.mknod("/upper/gone", S_IFCHR)
        fs.create("/upper/.wh.fuse")
    return device


@pytest.fixture
def editor(device: MemoryDevice) -> Iterator[OverlayEditor]:
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        yield OverlayEditor(fs, upper=True)
    with ext3.Filesystem.open(device) as after:
        check_counts(after)


def replace_by_symlink(editor: OverlayEditor, path: bytes, target: bytes = b"target") -> int:
    found = editor.resolve(path, follow=False)
    return editor.replace(found, lambda: editor.filesystem.symlink_at(target, *found.location))


@pytest.mark.parametrize("path", [b"/large", b"/small", b"/second", b"/gone", b"/fuse", b"/new"])
def test_replace(editor: OverlayEditor, path: bytes) -> None:
    ino = replace_by_symlink(editor, path)
    assert editor.lookup(path, follow=False) == ino
    assert editor.filesystem.readlink(ino) == b"target"
    assert editor.filesystem.find_name(editor.tree.root, b".wh" + path.replace(b"/", b".")) is None


@pytest.mark.parametrize("path", [b"/large", b"/small", b"/gone", b"/fuse"])
def test_a_failure_leaves_what_was_there(editor: OverlayEditor, path: bytes) -> None:
    fs = editor.filesystem
    names = sorted(entry[:2] for entry in fs.scandir("/upper"))
    free = fs.superblock.free_blocks, fs.superblock.free_inodes
    with pytest.raises(ext3.PathError):
        replace_by_symlink(editor, path, b"t" * 5000)
    assert sorted(entry[:2] for entry in fs.scandir("/upper")) == names
    assert (fs.superblock.free_blocks, fs.superblock.free_inodes) == free


def test_more_than_the_journal_holds(editor: OverlayEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of what is replaced are freed afterwards, in steps."""
    editor.filesystem.sync()
    free = editor.filesystem.superblock.free_blocks
    monkeypatch.setattr(LogWriter, "capacity", 10)
    replace_by_symlink(editor, b"/large")
    assert editor.filesystem.superblock.free_blocks > free + (17 << 10)


def test_in_a_full_image(editor: OverlayEditor) -> None:
    """What is removed makes room for what takes its place: an inode at once, blocks after a commit."""
    fs = editor.filesystem
    for number in range(fs.superblock.free_inodes):
        fs.mknod(f"/used-{number}", S_IFCHR)
    with fs.open_file("/upper/large", "r+") as file, pytest.raises(ext3.NoSpaceError):
        while True:
            file.write_at(file.size, bytes(1024))
    replace_by_symlink(editor, b"/large", b"t" * 200)
    assert fs.readlink("/upper/large") == b"t" * 200


@pytest.mark.parametrize("path", [b"/small", b"/gone"])
def test_at_any_time_there_is_one_of_both(device: MemoryDevice, path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "should_commit", True)
    before = MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        replace_by_symlink(OverlayEditor(fs, upper=True), path)
    seen = set()
    for end in range(len(recorded.events) + 1):
        with ext3.Filesystem.open(play(before, recorded.events[:end]), "r+", clock=clock) as fs:
            ino = fs.lookup(b"/upper" + path, follow=False)
            seen.add(fs.stat(ino).mode)
    assert len(seen) == 2


def test_a_directory_that_replaces_a_whiteout_is_opaque_at_once(device: MemoryDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what the whiteout hides would show through; what the caller sets is part of the operation."""
    monkeypatch.setattr(Session, "should_commit", True)
    before = MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        editor = OverlayEditor(fs, upper=True)
        found = editor.resolve(b"/gone", follow=False)
        editor.make_directory(found, 0o700, uid=1, gid=2, finish=lambda ino: fs.set_attributes(ino, mode=0o2755))
    commits = [at for at, event in enumerate(recorded.events) if event.data[:8] == COMMIT_START]
    assert len(commits) == 1
    for end in (0, commits[0] + 1):
        with ext3.Filesystem.open(play(before, recorded.events[:end])) as fs:
            found_mode = fs.stat("/upper/gone").mode
            assert found_mode == (0o042755 if end else S_IFCHR)
            assert set(fs.xattrs("/upper/gone")) == (set(OPAQUE_XATTRS) if end else set())


# -- moves ---------------------------------------------------------------------------------------------------------------


def whiteouts_everywhere(fs: WritableFilesystem) -> None:
    """d/ with whiteouts of every kind at any depth, and what only looks like one."""
    for path in ("/upper/d", "/upper/d/e", "/upper/d/e/f", "/upper/d/.wh.directory", "/upper/t"):
        fs.mkdir(path)
    for path in ("/upper/d/gone", "/upper/d/e/f/deep", "/upper/d/e/.wh..opq"):
        fs.mknod(path, S_IFCHR)
    for path in ("d/.wh.fuse", "d/.wh..wh..opq", "d/e/.wh..wh..opq", "d/.wh.both", "d/both", "d/e/f/here", "d/attribute"):
        fs.create(f"/upper/{path}")
    fs.set_xattr("/upper/d/attribute", WHITEOUT_XATTRS[0], b"")
    fs.write_bytes("/upper/d/content", b"c")
    fs.set_xattr("/upper/d/content", WHITEOUT_XATTRS[0], b"")
    fs.mknod("/upper/d/null", S_IFCHR, (1, 3))


def names_below(fs: ext3.Filesystem, path: str) -> set[bytes]:
    return {name for name, _ in fs.walk(path)}


MOVED = {b"e", b"e/f", b"e/f/here", b"both", b".wh.both", b".wh.directory", b"content", b"null"}


def test_a_directory_that_is_moved_has_no_whiteouts(editor: OverlayEditor) -> None:
    """The kernel would list them as names that nobody can remove (tests/compat); it is opaque, so they hide nothing."""
    whiteouts_everywhere(editor.filesystem)
    editor.rename(editor.resolve(b"/d", follow=False), editor.resolve(b"/t/moved", follow=False))
    fs = editor.filesystem
    assert names_below(fs, "/upper/t/moved") == MOVED
    assert {name: fs.xattrs("/upper/t/moved").get(name) for name in OPAQUE_XATTRS} == dict.fromkeys(OPAQUE_XATTRS, b"y")
    assert fs.stat("/upper/d").mode == S_IFCHR


def test_without_upper_a_directory_is_moved_as_it_is(editor: OverlayEditor) -> None:
    fs = editor.filesystem
    whiteouts_everywhere(fs)
    before = names_below(fs, "/upper/d")
    raw = OverlayEditor(fs)
    raw.rename(raw.resolve(b"/upper/d", follow=False), raw.resolve(b"/upper/t/moved", follow=False))
    assert names_below(fs, "/upper/t/moved") == before and fs.xattrs("/upper/t/moved") == {}


def test_a_move_is_whole_at_any_time(device: MemoryDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved it is opaque, else not: or lower files would come and go. Whiteouts are removed where they hide nothing."""
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        whiteouts_everywhere(fs)
        before_names = names_below(fs, "/upper/d")
    monkeypatch.setattr(Session, "should_commit", True)
    before = MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        editor = OverlayEditor(fs, upper=True)
        editor.rename(editor.resolve(b"/d", follow=False), editor.resolve(b"/t/moved", follow=False))
    seen = set()
    for end in range(len(recorded.events) + 1):
        with ext3.Filesystem.open(play(before, recorded.events[:end])) as fs:
            moved = fs.find_name(fs.lookup("/upper/t"), b"moved")
            seen.add(moved is None)
            path = "/upper/d" if moved is None else "/upper/t/moved"
            assert is_opaque(fs.xattrs(path)) == (moved is not None)
            assert moved is None or fs.stat("/upper/d").mode == S_IFCHR
            assert names_below(fs, path) >= (before_names if moved is None else MOVED)
    assert seen == {True, False}


@pytest.mark.parametrize("name", [*METACOPY_XATTRS, *REDIRECT_XATTRS])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_content_in_a_lower_layer_is_not_moved(editor: OverlayEditor, name: bytes, depth: int) -> None:
    """The container would look for it where it is not."""
    fs = editor.filesystem
    path = b"/upper" + b"".join(b"/%d" % level for level in range(depth + 1))
    fs.mkdir("/upper/t")
    for level in range(depth):
        fs.mkdir(b"/upper" + b"".join(b"/%d" % number for number in range(level + 1)))
    if name in METACOPY_XATTRS:
        fs.create(path)
    else:
        fs.mkdir(path)
    fs.set_xattr(path, name, b"x")
    old, new = editor.resolve(b"/0", follow=False), editor.resolve(b"/t/x", follow=False)
    with pytest.raises(LowerContentError, match="its content is in a lower layer") as caught:
        editor.rename(old, new)
    assert depth == 0 or path.removeprefix(b"/upper").decode() in str(caught.value)
    assert caught.value.kind == "lower-layer" and fs.find_name(fs.lookup("/upper/t"), b"x") is None
    raw = OverlayEditor(fs)
    raw.rename(raw.resolve(b"/upper/0", follow=False), raw.resolve(b"/upper/t/x", follow=False))


def test_a_file_that_was_renamed_and_has_its_content_is_moved(editor: OverlayEditor) -> None:
    """The kernel leaves the attribute when it copies the content up; then it means nothing."""
    fs = editor.filesystem
    fs.set_xattr("/upper/small", REDIRECT_XATTRS[0], b"/elsewhere")
    editor.rename(editor.resolve(b"/small", follow=False), editor.resolve(b"/moved", follow=False))
    assert fs.read_bytes("/upper/moved") == b"s"


def test_an_opaque_top_hides_no_lower_layer(editor: OverlayEditor) -> None:
    """The kernel ignores it (tests/compat), so a whiteout is needed there all the same."""
    editor.filesystem.set_xattr("/upper", OPAQUE_XATTRS[0], b"y")
    editor.unlink(editor.resolve(b"/small", follow=False))
    assert editor.filesystem.stat("/upper/small").mode == S_IFCHR


def directory_of_whiteouts(fs: WritableFilesystem, count: int = 3) -> None:
    """Directory /upper/d in which whiteouts hide files of a lower layer, and /upper/other, which is moved over it."""
    fs.mkdir("/upper/d")
    for number in range(count):
        fs.mknod(f"/upper/d/{number}", S_IFCHR)
    fs.create("/upper/d/.wh.fuse")
    fs.mkdir("/upper/other")


def remove_d(editor: OverlayEditor) -> None:
    editor.remove_directory(editor.resolve(b"/d", follow=False))


def move_over_d(editor: OverlayEditor) -> None:
    editor.rename(editor.resolve(b"/other", follow=False), editor.resolve(b"/d", follow=False))


def refuse(*_: object, **__: object) -> int:
    raise ext3.NoSpaceError("no space", needed_bytes=1, available_bytes=0)


@pytest.mark.parametrize(("change", "call"), [(remove_d, "mknod_at"), (remove_d, "rmdir_at"), (move_over_d, "rename_at")])
def test_a_directory_that_stays_keeps_its_whiteouts(
    editor: OverlayEditor, monkeypatch: pytest.MonkeyPatch, change: Callable[[OverlayEditor], None], call: str
) -> None:
    """Or removed files of lower layers would be seen again."""
    directory_of_whiteouts(editor.filesystem)
    before = names_below(editor.filesystem, "/upper")
    monkeypatch.setattr(WritableFilesystem, call, refuse)
    with pytest.raises(ext3.NoSpaceError):
        change(editor)
    assert names_below(editor.filesystem, "/upper") == before
    assert not editor.whiteouts


@pytest.mark.parametrize("change", [remove_d, move_over_d])
@pytest.mark.parametrize("capacity", [14, 1000])
def test_a_directory_with_whiteouts_is_replaced(
    editor: OverlayEditor, monkeypatch: pytest.MonkeyPatch, change: Callable[[OverlayEditor], None], capacity: int
) -> None:
    """Also with more of them than the journal holds: then in steps."""
    fs = editor.filesystem
    directory_of_whiteouts(fs, 60)
    fs.sync()
    monkeypatch.setattr(LogWriter, "capacity", capacity)
    change(editor)
    names = names_below(fs, "/upper")
    assert not any(name.startswith((b"d/", b".whiteout")) for name in names) and b"d" in names
    assert editor.whiteouts == 1
    assert fs.stat("/upper/d").is_dir == (change is move_over_d)
