"""What a command did to the files of a directory, recorded with strace, and the directories that a crash could leave.

A crash keeps what was synced. Of the data of a file that was written since, anything may be there or not, and the last write
may be there in part: whole sectors. Names change in the order of the calls, as on every filesystem with a journal, also before
the data of their files is there.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Event", "Files", "Record", "RecordError", "crashes", "events_of", "files_of", "play", "record"]

SECTOR = 512
ALL_SUBSETS = 5
SINGLE_LOSSES = 12
CALLS = (
    "openat,open,creat,lseek,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,"
    "unlinkat,ftruncate,truncate,fallocate,copy_file_range,sendfile,splice,ioctl,mmap"
)
_CALL = re.compile(r"^(\d+)\s+(\w+)\((.*)\)\s+= (-?\d+|0x[0-9a-f]+)(.*)$", re.DOTALL)
_UNFINISHED = re.compile(r"^(\d+)\s+(.*) <unfinished \.\.\.>$", re.DOTALL)
_RESUMED = re.compile(r"^(\d+)\s+<\.\.\. \w+ resumed>(.*)$", re.DOTALL)
_DESCRIPTOR = re.compile(r"^(-?\w+)(?:<(.*)>)?(\(deleted\))?$", re.DOTALL)

Files = dict[str, bytes]
"""Content by name below the directory."""


class RecordError(Exception):
    """The record does not tell all that was done."""


@dataclass(frozen=True, slots=True)
class Event:
    """write: ``data`` at ``offset``; zero: ``size`` zeros at ``offset``; size: the file is ``size`` long; sync: of one file.

    name: ``name`` is the file ``file``, -1 for none. Files are numbers, also when they have no name.
    """

    kind: str
    file: int
    offset: int = 0
    data: bytes = b""
    size: int = 0
    name: str = ""


@dataclass(slots=True)
class Record:
    """``before``: the directory when the command began; ``code`` and ``output`` of the command."""

    before: Files
    events: list[Event]
    code: int
    output: str


def files_of(top: Path) -> Files:
    """The regular files below a directory."""
    found = (path for path in sorted(top.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(top)): path.read_bytes() for path in found}


def record(argv: Sequence[str], top: Path, trace: Path) -> Record:
    """Run a command in the directory ``top`` under strace; ``trace`` is where strace writes."""
    before = files_of(top)
    strace = ["strace", "-f", "-y", "-qq", "-xx", "-s", str(1 << 26), "-e", f"trace={CALLS}", "-e", "signal=none"]
    done = subprocess.run(
        [*strace, "-o", str(trace), *argv], cwd=top, capture_output=True, stdin=subprocess.DEVNULL, timeout=600, check=False
    )
    with trace.open(encoding="ascii", errors="replace") as lines:
        events = events_of(lines, top, before)
    return Record(before, events, done.returncode, (done.stdout + done.stderr).decode(errors="replace"))


def events_of(lines: Iterable[str], top: Path, before: Files) -> list[Event]:
    """What the lines of ``strace -f -y -xx`` say of a directory. Raises RecordError where they do not say all."""
    reader = _Reader(os.path.realpath(top), before)
    for line in _whole_calls(lines):
        reader.read(line)
    return reader.events


def _whole_calls(lines: Iterable[str]) -> Iterator[str]:
    """Lines of calls, with those joined that another thread interrupted; in the order in which the calls ended."""
    waiting: dict[str, str] = {}
    for raw in lines:
        line = raw.rstrip("\n")
        if begun := _UNFINISHED.match(line):
            waiting[begun[1]] = begun[2]
        elif (ended := _RESUMED.match(line)) and ended[1] in waiting:
            yield f"{ended[1]} {waiting.pop(ended[1])}{ended[2]}"
        else:
            yield line


def _text(word: str) -> bytes:
    """A quoted word of ``strace -xx``, or the path behind a descriptor."""
    return bytes.fromhex(word.strip('"').replace("\\x", ""))


@dataclass(slots=True)
class _Reader:
    """Calls become events; knows which name is which file, as the kernel does."""

    top: str
    before: Files
    events: list[Event] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    nameless: dict[str, int] = field(default_factory=dict)
    content: dict[int, bytearray] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    descriptors: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, data in self.before.items():
            self.names[name] = self._new(data)

    def _new(self, data: bytes = b"") -> int:
        number = len(self.content)
        self.content[number] = bytearray(data)
        return number

    def _add(self, event: Event) -> None:
        self.events.append(event)
        if event.kind == "name":
            old = self.names.pop(event.name, None)
            if old is not None:
                self.nameless[event.name] = old
            if event.file >= 0:
                self.names[event.name] = event.file
        elif event.kind != "sync":
            apply(self.content[event.file], event)

    def _below(self, path: str) -> str | None:
        return path[len(self.top) + 1 :] if path.startswith(self.top + "/") else None

    def _file(self, word: str) -> int | None:
        """The file behind ``3</path>``, None for others than those of the directory."""
        found = _DESCRIPTOR.match(word)
        if not found or not found[2] or not found[2].startswith("\\x2f"):
            return None
        name = self._below(os.fsdecode(_text(found[2])))
        if name is None:
            return None
        if found[3] or name not in self.names:
            return self.nameless.get(name)
        return self.names[name]

    def _path(self, directory: str, word: str) -> str:
        path = os.fsdecode(_text(word))
        base = _DESCRIPTOR.match(directory)
        assert base is not None
        return os.path.normpath(os.path.join(os.fsdecode(_text(base[2] or "")) or self.top, path))

    def read(self, line: str) -> None:
        """One call, if it succeeded and is about the directory."""
        found = _CALL.match(line)
        if not found or found[4].startswith("-"):
            return
        call, words = found[2], found[3].split(", ")
        result = int(found[4], 0)
        method = getattr(self, f"_{call}", None)
        if method is not None:
            method(words, result, found[4] + found[5])

    def _openat(self, words: list[str], result: int, descriptor: str) -> None:
        path = os.fsdecode(_text(_DESCRIPTOR.match(descriptor.strip())[2] or ""))  # type: ignore[index]
        name, flags = self._below(path), words[2]
        if name is None or ("O_DIRECTORY" in flags and "O_TMPFILE" not in flags):
            return
        if "O_TMPFILE" in flags:
            self.nameless[name] = self._new()
        elif "O_CREAT" in flags and name not in self.names:
            self._add(Event("name", self._new(), name=name))
        elif "O_TRUNC" in flags:
            self._add(Event("size", self.names[name]))
        self.positions[f"{result} {name}"] = 0
        self.descriptors[str(result)] = self.nameless[name] if "O_TMPFILE" in flags else self.names[name]

    def _place(self, word: str) -> str:
        found = _DESCRIPTOR.match(word)
        assert found is not None
        return f"{found[1]} {self._below(os.fsdecode(_text(found[2])))}"

    def _lseek(self, words: list[str], result: int, _: str) -> None:
        if self._file(words[0]) is not None:
            self.positions[self._place(words[0])] = result

    def _write(self, words: list[str], result: int, _: str) -> None:
        if (file := self._file(words[0])) is not None:
            place = self._place(words[0])
            offset = self.positions.get(place, 0)
            self._add(Event("write", file, offset, _text(words[1])[:result]))
            self.positions[place] = offset + result

    def _pwrite64(self, words: list[str], result: int, _: str) -> None:
        if (file := self._file(words[0])) is not None:
            self._add(Event("write", file, int(words[3]), _text(words[1])[:result]))

    def _vectors(self, words: list[str], result: int) -> bytes:
        parts = re.findall(r'iov_base="([^"]*)"', ", ".join(words))
        return b"".join(_text(part) for part in parts)[:result]

    def _writev(self, words: list[str], result: int, _: str) -> None:
        if (file := self._file(words[0])) is not None:
            place = self._place(words[0])
            offset = self.positions.get(place, 0)
            self._add(Event("write", file, offset, self._vectors(words, result)))
            self.positions[place] = offset + result

    def _pwritev(self, words: list[str], result: int, _: str) -> None:
        if (file := self._file(words[0])) is not None:
            self._add(Event("write", file, int(words[-1]), self._vectors(words, result)))

    def _fsync(self, words: list[str], *_: object) -> None:
        if (file := self._file(words[0])) is not None:
            self._add(Event("sync", file))

    _fdatasync = _fsync

    def _ftruncate(self, words: list[str], *_: object) -> None:
        if (file := self._file(words[0])) is not None:
            self._add(Event("size", file, size=int(words[1])))

    def _fallocate(self, words: list[str], *_: object) -> None:
        if (file := self._file(words[0])) is None:
            return
        offset, size = int(words[2]), int(words[3])
        if "PUNCH_HOLE" in words[1] or "ZERO_RANGE" in words[1]:
            self._add(Event("zero", file, offset, size=size))
        elif "KEEP_SIZE" not in words[1] and offset + size > len(self.content[file]):
            self._add(Event("size", file, size=offset + size))

    def _copy_file_range(self, words: list[str], result: int, _: str) -> None:
        source, target = self._file(words[0]), self._file(words[2])
        if target is None or not result:
            return
        if source is None or "NULL" in (words[1], words[3]):
            raise RecordError("copy_file_range from a file outside of the directory, or without offsets")
        start, offset = int(words[1].strip("[]").split(" ")[0]), int(words[3].strip("[]").split(" ")[0])
        self._add(Event("write", target, offset, bytes(self.content[source][start : start + result])))

    def _sendfile(self, words: list[str], result: int, _: str) -> None:
        target, source = self._file(words[0]), self._file(words[1])
        if target is None or not result:
            return
        if source is None or words[2] == "NULL":
            raise RecordError("sendfile from a file outside of the directory, or without an offset")
        start, place = int(words[2].strip("[]").split(" ")[0]), self._place(words[0])
        offset = self.positions.get(place, 0)
        self._add(Event("write", target, offset, bytes(self.content[source][start : start + result])))
        self.positions[place] = offset + result

    def _ioctl(self, words: list[str], *_: object) -> None:
        if "FICLONE" in words[1] and (target := self._file(words[0])) is not None:
            raise RecordError(f"a clone of file {target}: record on a filesystem without reflinks")

    def _mmap(self, words: list[str], *_: object) -> None:
        if "MAP_SHARED" in words[3] and "PROT_WRITE" in words[2] and self._file(words[4]) is not None:
            raise RecordError("a file is written through memory")

    def _rename(self, words: list[str], *_: object) -> None:
        self._renameat(["AT_FDCWD", words[0], "AT_FDCWD", words[1]])

    def _renameat(self, words: list[str], *_: object) -> None:
        old, new = (self._below(self._path(words[place], words[place + 1])) for place in (0, 2))
        if old is None or new is None or old not in self.names:
            return
        moved, other = self.names[old], self.names.get(new, -1)
        exchanged = len(words) > 4 and "EXCHANGE" in words[4]
        self._add(Event("name", moved, name=new))
        self._add(Event("name", other if exchanged else -1, name=old))

    _renameat2 = _renameat

    def _linkat(self, words: list[str], *_: object) -> None:
        name = self._below(self._path(words[2], words[3]))
        if name is None:
            return
        source = self._path(words[0], words[1])
        below = self._below(source)
        if words[1] == '""':
            file = self._file(words[0])
        elif source.startswith("/proc/self/fd/"):
            file = self.descriptors.get(source.rpartition("/")[2])
        else:
            file = self.names.get(below or "")
        if file is None:
            raise RecordError(f"{name} is linked from {source}, which is unknown")
        self._add(Event("name", file, name=name))

    def _link(self, words: list[str], *_: object) -> None:
        self._linkat(["AT_FDCWD", words[0], "AT_FDCWD", words[1]])

    def _unlink(self, words: list[str], *_: object) -> None:
        self._unlinkat(["AT_FDCWD", words[0]])

    def _unlinkat(self, words: list[str], *_: object) -> None:
        name = self._below(self._path(words[0], words[1]))
        if name is not None and name in self.names:
            self._add(Event("name", -1, name=name))


def apply(content: bytearray, event: Event) -> None:
    """Do to a file what an event says."""
    if event.kind == "write":
        end = event.offset + len(event.data)
        content.extend(bytes(max(0, end - len(content))))
        content[event.offset : end] = event.data
    elif event.kind == "zero":
        end = min(event.offset + event.size, len(content))
        content[event.offset : end] = bytes(max(0, end - event.offset))
    elif event.kind == "size":
        content.extend(bytes(max(0, event.size - len(content))))
        del content[event.size :]


def play(before: Files, events: Sequence[Event]) -> Files:
    """The directory after some of the events."""
    content: dict[int, bytearray] = {number: bytearray(data) for number, data in enumerate(before.values())}
    names = {name: number for number, name in enumerate(before)}
    for event in events:
        if event.kind == "name":
            names.pop(event.name, None)
            if event.file >= 0:
                names[event.name] = event.file
        elif event.kind != "sync":
            apply(content.setdefault(event.file, bytearray()), event)
    return {name: bytes(content.get(number, b"")) for name, number in sorted(names.items())}


def crashes(events: Sequence[Event], chance: random.Random) -> Iterator[tuple[str, list[Event]]]:
    """(what is left, the events that happened): after every event; the last write in part; unsynced data lost in part."""
    for end in range(len(events) + 1):
        done = list(events[:end])
        yield f"the first {end} of {len(events)} events", done
        if not end or events[end - 1].kind == "sync":
            continue
        last = events[end - 1]
        if last.kind == "write" and len(last.data) > SECTOR:
            cut = SECTOR * chance.randrange(1, -(-len(last.data) // SECTOR))
            yield f"event {end} to byte {cut}", [*done[:-1], Event("write", last.file, last.offset, last.data[:cut])]
            yield (
                f"event {end} from byte {cut}",
                [*done[:-1], Event("write", last.file, last.offset + cut, last.data[cut:])],
            )
        synced: dict[int, int] = {event.file: place for place, event in enumerate(done) if event.kind == "sync"}
        loose = [
            place
            for place, event in enumerate(done)
            if event.kind in ("write", "zero", "size") and place > synced.get(event.file, -1)
        ]
        for lost in _losses(loose, chance):
            kept = [event for place, event in enumerate(done) if place not in lost]
            yield f"the first {end} events without {sorted(lost)}", kept


def _losses(loose: list[int], chance: random.Random) -> Iterator[set[int]]:
    """Events to lose of those that were not synced: all sets of a few; else each one, all, and some at random."""
    if len(loose) <= ALL_SUBSETS:
        for count in range(1, len(loose) + 1):
            yield from map(set, itertools.combinations(loose, count))
        return
    yield set(loose)
    for share in (0.5, 0.2):
        yield {place for place in loose if chance.random() < share}
    if len(loose) <= SINGLE_LOSSES:
        yield from ({place} for place in loose)
