"""What strace says becomes events: of the files of one directory, named or not, and what a crash could leave of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tools.strace_record import RecordError, crashes, events_of, play

TOP = "/nowhere/top"


def hexed(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def opened(fd: int, name: str, *, deleted: bool = False) -> str:
    return f"{fd}<{hexed(f'{TOP}/{name}')}>" + ("(deleted)" if deleted else "")


def call(text: str, result: str = "0", process: int = 7) -> str:
    return f"{process}  {text} = {result}\n"


def quoted(text: str) -> str:
    return f'"{hexed(text)}"'


HERE = f"AT_FDCWD<{hexed(TOP)}>"
TMPFILE = [
    call(f"openat({HERE}, {quoted('.')}, O_RDWR|O_CLOEXEC|O_TMPFILE, 0600)", opened(4, "#12", deleted=True)),
    call(f"pwrite64({opened(4, '#12', deleted=True)}, {quoted('new')}, 3, 2)", "3"),
    call(f"fsync({opened(4, '#12', deleted=True)})"),
    call(f"linkat({HERE}, {quoted('/proc/self/fd/4')}, {HERE}, {quoted('.x.tmp')}, AT_SYMLINK_FOLLOW)"),
    call(f"rename({quoted('.x.tmp')}, {quoted('a')})"),
]


def test_a_file_without_a_name_is_linked_and_renamed() -> None:
    events = events_of(TMPFILE, Path(TOP), {"a": b"old"})
    assert play({"a": b"old"}, events) == {"a": b"\0\0new"}
    assert play({"a": b"old"}, events[:-2]) == {"a": b"old", ".x.tmp": b"\0\0new"}


def test_calls_that_fail_and_files_elsewhere_are_not_events() -> None:
    lines = [
        call(f"pwrite64({opened(3, 'a')}, {quoted('new')}, 3, 0)", "-1 ENOSPC (No space left on device)"),
        call(f"pwrite64(3<{hexed('/elsewhere/a')}>, {quoted('new')}, 3, 0)", "3"),
        call(f"write(3<pipe:[1]>, {quoted('new')}, 3)", "3"),
    ]
    assert events_of(lines, Path(TOP), {"a": b"old"}) == []


def test_calls_that_another_thread_interrupts_are_joined() -> None:
    lines = [
        f"7  pwrite64({opened(3, 'a')}, {quoted('new')}, 3, 0 <unfinished ...>\n",
        call(f"fsync({opened(3, 'a')})", process=8),
        "7  <... pwrite64 resumed>) = 3\n",
    ]
    assert [event.kind for event in events_of(lines, Path(TOP), {"a": b"old!"})] == ["sync", "write"]
    assert play({"a": b"old!"}, events_of(lines, Path(TOP), {"a": b"old!"})) == {"a": b"new!"}


def test_sizes_holes_and_positions() -> None:
    lines = [
        call(f"openat({HERE}, {quoted('a')}, O_RDWR|O_CLOEXEC)", opened(3, "a")),
        call(f"lseek({opened(3, 'a')}, 2, SEEK_SET)", "2"),
        call(f"write({opened(3, 'a')}, {quoted('XY')}, 2)", "2"),
        call(f"write({opened(3, 'a')}, {quoted('Z')}, 1)", "1"),
        call(f"ftruncate({opened(3, 'a')}, 8)"),
        call(f"fallocate({opened(3, 'a')}, FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 3, 1)"),
        call(f"copy_file_range({opened(3, 'a')}, [0], {opened(3, 'a')}, [6], 2, 0)", "2"),
    ]
    assert play({"a": b"abcdef"}, events_of(lines, Path(TOP), {"a": b"abcdef"})) == {"a": b"abX\0Zfab"}


def test_what_the_record_cannot_say_is_refused() -> None:
    with pytest.raises(RecordError, match="clone"):
        events_of([call(f"ioctl({opened(3, 'a')}, BTRFS_IOC_CLONE or FICLONE, 4)")], Path(TOP), {"a": b""})


def test_a_rename_without_a_sync_can_lose_the_content() -> None:
    """The fault that cut_replay is for: names are there before the data that nobody synced."""
    unsynced = [line for line in TMPFILE if "fsync" not in line]

    def left(lines: list[str]) -> set[bytes]:
        events = events_of(lines, Path(TOP), {"a": b"old"})
        return {play({"a": b"old"}, kept)["a"] for _, kept in crashes(events, random.Random(1))}

    assert left(TMPFILE) == {b"old", b"\0\0new"}
    assert left(unsynced) == {b"old", b"\0\0new", b""}
