"""Reads a whole tree from an ext3 image with debugfs: no root, no mount. A judge for diff_tree.

Names in an image are hostile: nothing but inode numbers goes into a command, and answers are taken apart in the order in
which they were asked for, by lengths where an image's text is in them. debugfs says where a file's blocks lie; the data is
read from the image itself.
"""

from __future__ import annotations

import bisect
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Collection, Iterator

from .diff_tree import KINDS, Fact, Facts, TroubleError, digest, group_links, image_block_size

__all__ = ["Debugfs", "read_debugfs"]

_LISTED = re.compile(rb"/(\d+)/(\d+)/(-?\d+)/(-?\d+)/([^/]*)/(\d*)/\n")
_TIME = re.compile(rb"([acm])time: 0x([0-9a-f]{8})(?::([0-9a-f]{8}))? ")
_RUN = re.compile(rb"\((\d+)(?:-(\d+))?\):(\d+)")
_ATTRIBUTE = re.compile(rb"  (.+?) \((\d+)\)(?: = .*)?")
_VALUE = re.compile(rb" \(\d+\)(?: = ([0-9a-f ]*))?\n")
_DEVICE = re.compile(rb"Device major/minor number: (\d+):(\d+)")
_FAST = b'Fast link dest: "'
_PLAIN_NAME = re.compile(rb"[A-Za-z0-9._+:@-]+")

Run = tuple[int, int, int]
"""(logical block, physical block, count)"""


class Debugfs:
    """One image, asked in batches."""

    def __init__(self, image: str | os.PathLike[str], offset: int = 0) -> None:
        found = shutil.which("debugfs", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
        if found is None:
            raise TroubleError("debugfs is not installed")
        self._program = found
        self._image = os.fspath(image)
        self._name = f"{self._image}?offset={offset}" if offset else self._image
        self._offset = offset
        self.block_size = image_block_size(image, offset)
        self._fd = os.open(self._image, os.O_RDONLY)

    def close(self) -> None:
        os.close(self._fd)

    def answers(self, commands: list[bytes]) -> Iterator[bytes]:
        """What debugfs prints for each command, all run by one process."""
        if not commands:
            return
        with tempfile.NamedTemporaryFile(prefix="debugfs-") as script:
            script.write(b"".join(command + b"\n" for command in commands))
            script.flush()
            done = subprocess.run(
                [self._program, "-f", script.name, self._name],
                env={"LC_ALL": "C", "TZ": "UTC", "DEBUGFS_PAGER": "cat", "PAGER": "cat"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        text, position = done.stdout, 0
        headers = [b"debugfs: " + command + b"\n" for command in commands]
        if done.returncode or not text.startswith(headers[0]):
            raise TroubleError(f"debugfs failed on {self._image}: {done.stderr.decode(errors='replace').strip()}")
        for header, follower in zip(headers, [*headers[1:], b""], strict=True):
            start = position + len(header)
            position = self._end(text, start, follower)
            yield text[start:position]

    @staticmethod
    def _end(text: bytes, start: int, follower: bytes) -> int:
        """Where the answer at ``start`` ends. A fast symlink's text is stepped over by its length."""
        search = start
        if text.startswith(b"Inode: ", start):
            head = text[start : start + 200].split(b"\n", 3)
            if b"Type: symlink" in head[0] and len(head) > 2:
                size = int(head[2].rpartition(b"Size:")[2])
                fast = text.find(_FAST, start)
                limit = text.find(b"\n" + follower, start) if follower else len(text)
                if size < 60 and 0 <= fast < limit:
                    search = fast + len(_FAST) + size
        if not follower:
            return len(text)
        if search == start and text.startswith(follower, start):
            return start
        end = text.find(b"\n" + follower, search)
        if end < 0:
            raise TroubleError(f"debugfs gave no answer to {follower!r}")
        return end + 1

    def list_directories(self, numbers: list[int]) -> list[list[tuple[bytes, int]]]:
        """(name, inode) of all entries but ``.`` and ``..``, for each directory."""
        listings = []
        for number, answer in zip(numbers, self.answers([b"ls -p <%d>" % n for n in numbers]), strict=True):
            entries, position = [], 0
            while match := _LISTED.match(answer, position):
                position = match.end()
                if int(match[1]) and match[5] not in (b".", b".."):
                    entries.append((match[5], int(match[1])))
            if answer[position:] not in (b"", b"\n"):
                raise TroubleError(f"directory inode {number}: cannot understand {answer[position : position + 200]!r}")
            listings.append(entries)
        return listings

    def stat_all(self, numbers: list[int]) -> dict[int, tuple[Fact, list[Run]]]:
        """Fact and data blocks of each inode, without digest and attribute values."""
        found = {}
        for number, answer in zip(numbers, self.answers([b"stat <%d>" % n for n in numbers]), strict=True):
            try:
                found[number] = _parse_stat(number, answer, self.block_size)
            except (IndexError, ValueError, AttributeError) as error:
                raise TroubleError(f"inode {number}: cannot understand {answer[:400]!r}") from error
        return found

    def fill_attributes(self, facts: dict[int, Fact]) -> None:
        """Values of the attributes in raw (disk) form; a name that no command can hold keeps the length of its value."""
        wanted = [
            (number, name) for number, fact in facts.items() for name in sorted(fact.xattrs) if _PLAIN_NAME.fullmatch(name)
        ]
        for (number, name), answer in zip(
            wanted, self.answers([b"ea_get -r -x <%d> %s" % (number, name) for number, name in wanted]), strict=True
        ):
            match = _VALUE.match(answer, len(name)) if answer.startswith(name) else None
            if match is None:
                raise TroubleError(f"inode {number}: attribute {name!r}: cannot understand {answer[:200]!r}")
            facts[number].xattrs[name] = bytes.fromhex((match[1] or b"").decode())

    def read(self, runs: list[Run], offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset`` of a file whose blocks are ``runs``, sorted; holes read as zeros."""
        pieces = []
        firsts = [run[0] for run in runs]
        while length:
            block, within = divmod(offset, self.block_size)
            place = bisect.bisect_right(firsts, block) - 1
            if place >= 0 and block < runs[place][0] + runs[place][2]:
                logical, physical, count = runs[place]
                take = min(length, (logical + count - block) * self.block_size - within)
                where = self._offset + (physical + block - logical) * self.block_size + within
                piece = os.pread(self._fd, take, where)
                if len(piece) != take:
                    raise TroubleError(f"{self._image} ends before byte {where + take}")
            else:
                after = firsts[place + 1] if place + 1 < len(firsts) else block + length // self.block_size + 2
                take = min(length, (after - block) * self.block_size - within)
                piece = bytes(take)
            pieces.append(piece)
            offset += take
            length -= take
        return b"".join(pieces)


def _signed(text: bytes) -> int:
    """debugfs prints owners as signed numbers."""
    return int(text) & 0xFFFFFFFF


def _unescape(text: bytes) -> bytes:
    escapes = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"a": b"\a", b"f": b"\f", b"v": b"\v"}

    def one(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8)]) if code.isdigit() else escapes.get(code, code)

    return re.sub(rb"\\([0-7]{3}|.)", one, text)


def _parse_stat(number: int, answer: bytes, block_size: int) -> tuple[Fact, list[Run]]:
    match = re.match(rb"Inode: (\d+)   Type: ([^\n]*?)    Mode:  ([0-7]+)   Flags: 0x[0-9a-f]+\n", answer)
    owner = re.search(rb"^User: +(-?\d+)   Group: +(-?\d+) .*Size: (\d+)$", answer, re.MULTILINE)
    links = re.search(rb"^Links: (\d+)   Blockcount: \d+$", answer, re.MULTILINE)
    if not match or not owner or not links or int(match[1]) != number:
        raise ValueError(number)
    times = {}
    for letter, low, extra in _TIME.findall(answer):
        seconds = int(low, 16)
        seconds -= (seconds & 0x80000000) << 1
        more = int(extra, 16) if extra else 0
        times[letter] = (seconds + ((more & 3) << 32)) * 10**9 + (more >> 2)
    words = {"regular": "file", "FIFO": "fifo", "character special": "character device", "block special": "block device"}
    kind = words.get(match[2].decode(), match[2].decode())
    if kind not in KINDS.values():
        raise ValueError(kind)
    size = int(owner[3])
    fact = Fact(
        kind,
        stat.S_IMODE(int(match[3], 8)),
        _signed(owner[1]),
        _signed(owner[2]),
        times[b"m"],
        times[b"a"],
        times[b"c"],
        size=0 if kind == "directory" else size,
        links=int(links[1]),
        identity=number,
    )
    _, _, attributes = answer.partition(b"\nExtended attributes:\n")
    for line in attributes.split(b"\n"):
        listed = _ATTRIBUTE.fullmatch(line)
        if listed is None:
            break
        fact.xattrs[_unescape(listed[1])] = int(listed[2])
    if kind.endswith("device"):
        device = _DEVICE.search(answer)
        if device is None:
            raise ValueError(kind)
        fact.device = (int(device[1]), int(device[2]))
    if kind == "symlink" and _FAST in answer:
        start = answer.index(_FAST) + len(_FAST)
        fact.target = answer[start : start + size]
    runs = []
    _, _, blocks = answer.rpartition(b"\nBLOCKS:\n")
    for first, last, physical in _RUN.findall(blocks) if kind in ("file", "symlink") and not fact.target else ():
        runs.append((int(first), int(physical), int(last or first) - int(first) + 1))
    runs.sort()
    fact.data = [(first * block_size, min((first + count) * block_size, size)) for first, _, count in runs]
    return fact, runs


def read_debugfs(image: str | os.PathLike[str], *, below: str = "", offset: int = 0, exclude: Collection[bytes] = ()) -> Facts:
    """Every fact of a tree as debugfs tells it. Raises TroubleError."""
    judge = Debugfs(image, offset)
    try:
        top = 2
        for part in os.fsencode(below).strip(b"/").split(b"/"):
            if part:
                found = dict(judge.list_directories([top])[0])
                if part not in found:
                    raise TroubleError(f"no directory {below} in {os.fspath(image)}")
                top = found[part]
        paths: list[tuple[bytes, int]] = []
        level: list[tuple[bytes, int]] = [(b"", top)]
        known: dict[int, tuple[Fact, list[Run]]] = {}
        while level:
            paths += level
            known |= judge.stat_all(sorted({ino for _, ino in level} - known.keys()))
            directories = [(path, ino) for path, ino in level if known[ino][0].kind == "directory"]
            level = []
            listings = judge.list_directories([ino for _, ino in directories]) if directories else []
            for (path, _), entries in zip(directories, listings, strict=True):
                full = [(path + b"/" + name if path else name, ino) for name, ino in entries]
                level += [(name, ino) for name, ino in full if name not in exclude]
        judge.fill_attributes({ino: fact for ino, (fact, _) in known.items() if fact.xattrs})
        for fact, runs in known.values():
            if fact.kind == "file":
                fact.digest = digest(lambda at, length, runs=runs: judge.read(runs, at, length), fact.data, fact.size)  # type: ignore[misc]
            elif fact.kind == "symlink" and runs:
                fact.target = judge.read(runs, 0, fact.size)
        facts = {}
        for path, ino in paths:
            fact, _ = known[ino]
            facts[path] = Fact(*(getattr(fact, name) for name in Fact.__dataclass_fields__))
        group_links(facts)
        return facts
    finally:
        judge.close()
