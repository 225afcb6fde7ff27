"""Damage of ext3 images by field: sound images made by mke2fs, and a language of field paths to change them with.

A field path says where a value lies in the sound image; ``Damage`` gets and sets it:

| path | what |
|---|---|
| ``super.s_state``, ``super.s_jnl_blocks[3]`` | field of the superblock |
| ``backup[1].s_state`` | field of the superblock's copy in group 1 |
| ``group[0].bg_flags``, ``group_backup[1:0].bg_flags`` | field of a group's descriptor; of the copy in group 1 of group 0's |
| ``inode[/a/b].i_size``, ``inode[8].i_block[0]`` | field of an inode, by path or number, with those of the extra area |
| ``number[/a/b]`` | the inode number; only to be read |
| ``map[/a/b:12]`` | number of the file's block 12, wherever that pointer is |
| ``pointer[900:3]`` | pointer 3 of pointer block 900 |
| ``entry[/a:b].rec_len``, ``entry[/a:b].name`` | field or name of an entry of a directory |
| ``dirent[/a:1:24].inode`` | the same at byte 24 of block 1 of the directory |
| ``dx[/a].hash_version``, ``dx[/a].count``, ``dx[/a:2].block`` | index root, its count and limit, its entry 2 |
| ``node[/a:5].count``, ``node[/a:5:2].hash`` | the same of an index node in block 5 |
| ``xattr[/a].h_magic``, ``xattr[/a:0].e_hash`` | attribute block of a file, entry 0 in it |
| ``ibody[/a].h_magic``, ``ibody[/a:0].e_name_len`` | attributes in an inode |
| ``journal.s_start``, ``log[2].h_sequence`` | superblock of the journal; header of its block 2 |
| ``used.block[99]``, ``used.inode[12]`` | bit of a bitmap |
| ``block[99:16]``, ``byte[1024]`` | bytes of a block from byte 16 on; bytes of the image |

A value is a number, bytes, a function of the Damage, or a text: another field path, whose value is taken.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ext3
from ext3.device.base import MemoryDevice
from ext3.errors import Ext3Error
from ext3.format.jbd_schema import JOURNAL_HEADER, JOURNAL_SUPERBLOCK
from ext3.format.layout import Layout
from ext3.format.schema import (
    DIRENT,
    DX_COUNTLIMIT,
    DX_ENTRY,
    DX_ROOT_INFO,
    GROUP_DESC,
    INODE_CORE,
    INODE_EXTRA,
    SUPERBLOCK,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_IBODY_HEADER,
)

__all__ = ["Damage", "Debugfs", "Recipe", "Step", "damaged", "tool"]

_PATH = re.compile(r"(\w+)(?:\.(block|inode))?(?:\[([^\]]*)\])?(?:\.(\w+)(?:\[(\d+)\])?)?\Z")
_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_ENVIRONMENT = {"PATH": _SEARCH, "LC_ALL": "C", "TZ": "GMT0", "E2FSCK_CONFIG": os.devnull, "HOME": tempfile.gettempdir()}
DX_ROOT = 24
ENTRIES_OF_ROOT, ENTRIES_OF_NODE = 32, 8

Value = "int | bytes | str | Callable[[Damage], int | bytes]"


def tool(*argv: object, stdin: bytes = b"", ok: tuple[int, ...] = (0,)) -> str:
    """Run a tool of e2fsprogs hermetically and return its output. Raises RuntimeError for another exit code."""
    words = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in argv]
    done = subprocess.run(
        words, env=_ENVIRONMENT, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False
    )
    text = done.stdout.decode("utf-8", "backslashreplace")
    if done.returncode not in ok:
        raise RuntimeError(f"{' '.join(words)} exited {done.returncode}:\n{text}")
    return text


class Debugfs(NamedTuple):
    """Commands for debugfs -w. ``{field path}`` in them is the value of that field, ``FILE`` a file with ``content``."""

    commands: str
    content: bytes = b""


Step = "tuple[str, Value] | Debugfs | Callable[[Damage], None]"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Damage of one kind: steps done to a sound image.

    ``row``: what it is, in the words of the table of faults. ``clean``: why e2fsck -fn says nothing, if that is
    right. ``apart``: why our check does something else than e2fsck.
    """

    name: str
    base: str
    row: str
    steps: tuple[Any, ...] = field(default=())
    clean: str = ""
    apart: str = ""


class _Field(NamedTuple):
    """Where a value lies: ``width`` bytes in the byte order ``order``, or a bit if ``bit`` is not None."""

    offset: int
    width: int
    order: str = "little"
    bit: int | None = None


class Damage:
    """An image in memory that is being damaged; places are looked up in the sound image it began as."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.fs = ext3.Filesystem(MemoryDevice(data))
        self.superblock = self.fs.superblock
        self.size = self.superblock.block_size

    # Values

    def get(self, path: str) -> int:
        """Return the number at a field path."""
        if path.startswith("number["):
            return self.ino(path[7:-1])
        where = self._find(path)
        raw = self.data[where.offset : where.offset + where.width]
        if where.bit is not None:
            return raw[0] >> where.bit & 1
        return int.from_bytes(raw, "big" if where.order == "big" else "little")

    def set(self, path: str, value: Any) -> None:
        """Change the value at a field path."""
        if callable(value):
            value = value(self)
        if isinstance(value, str):
            value = self.get(value)
        where = self._find(path)
        if isinstance(value, bytes):
            self.data[where.offset : where.offset + len(value)] = value
        elif where.bit is not None:
            mask = 1 << where.bit
            self.data[where.offset] = self.data[where.offset] & ~mask | (mask if value else 0)
        else:
            raw = (value & (1 << 8 * where.width) - 1).to_bytes(where.width, "big" if where.order == "big" else "little")
            self.data[where.offset : where.offset + where.width] = raw

    def ino(self, name: str) -> int:
        return int(name) if name.isdigit() else self.fs.lookup(name, follow=False)

    def offset(self, path: str) -> int:
        """Return the byte at which the value at a field path begins."""
        return self._find(path).offset

    def inode_offset(self, ino: int) -> int:
        group, index = divmod(ino - 1, self.superblock.inodes_per_group)
        return int(self.fs.groups["bg_inode_table"][group]) * self.size + index * self.superblock.inode_size

    def block_of(self, name: str, logical: int) -> int:
        """Return a block of a file."""
        for first, physical, count in self.fs.data_extents(self.ino(name)):
            if first <= logical < first + count:
                return physical + logical - first
        raise LookupError(f"{name} has no block {logical}")

    # Places

    def _find(self, path: str) -> _Field:
        match = _PATH.match(path)
        if match is None:
            raise ValueError(f"{path!r} is not a field path")
        kind, sub, key, name, index = match.groups()
        keys = key.split(":") if key else []
        if sub is None and name in ("block", "inode") and kind == "used":
            sub = name
        finder = getattr(self, f"_{kind}", None)
        if finder is None:
            raise ValueError(f"{path!r}: no structure is called {kind}")
        if kind == "used":
            return self._used(sub or "", int(keys[0]))
        found = finder(*keys, **({"name": name} if name is not None else {}))
        if isinstance(found, _Field):
            return found
        offset, layout = found
        return self._field(offset, layout, name, int(index or 0))

    def _field(self, offset: int, layout: Layout, name: str, index: int = 0) -> _Field:
        dtype, place = (layout.dtype.fields or {})[name][:2]
        order = "big" if dtype.base.str.startswith(">") else "little"
        return _Field(offset + place + index * dtype.base.itemsize, dtype.base.itemsize, order)

    def _super(self, name: str) -> tuple[int, Layout]:
        return 1024, SUPERBLOCK

    def _backup(self, group: str, name: str) -> tuple[int, Layout]:
        return self._group_start(int(group)) * self.size, SUPERBLOCK

    def _group_start(self, group: int) -> int:
        return self.superblock.first_data_block + group * self.superblock.blocks_per_group

    def _group(self, group: str, name: str) -> tuple[int, Layout]:
        per_block = self.superblock.geometry.descriptors_per_block
        block = self.superblock.geometry.descriptor_block(int(group) // per_block)
        return block * self.size + int(group) % per_block * GROUP_DESC.size, GROUP_DESC

    def _group_backup(self, copy: str, group: str, name: str) -> tuple[int, Layout]:
        return (self._group_start(int(copy)) + 1) * self.size + int(group) * GROUP_DESC.size, GROUP_DESC

    def _inode(self, key: str, name: str) -> tuple[int, Layout]:
        offset = self.inode_offset(self.ino(key))
        if name in (INODE_CORE.dtype.names or ()):
            return offset, INODE_CORE
        return offset + INODE_CORE.size, INODE_EXTRA

    def _map(self, key: str, logical: str) -> _Field:
        """The pointer to a block of a file: in the inode, or in a pointer block."""
        number, at = int(logical), self.inode_offset(self.ino(key)) + 40
        if number < 12:
            return _Field(at + 4 * number, 4)
        pointers = self.size // 4
        number -= 12
        depth = 0
        while number >= pointers ** (depth + 1):
            number -= pointers ** (depth + 1)
            depth += 1
        where = at + 4 * (12 + depth)
        for level in range(depth, -1, -1):
            block = int.from_bytes(self.data[where : where + 4], "little")
            where = block * self.size + 4 * (number // pointers**level % pointers)
        return _Field(where, 4)

    def _pointer(self, block: str, index: str) -> _Field:
        number = int(block) if block.isdigit() else self.get(block)
        return _Field(number * self.size + 4 * int(index), 4)

    def _entry(self, directory: str, name_of_entry: str, name: str) -> tuple[int, Layout] | _Field:
        wanted = name_of_entry.encode()
        for _, physical, count in self.fs.data_extents(self.ino(directory)):
            for block in range(physical, physical + count):
                at = 0
                raw = self.fs.device.read(block * self.size, self.size)
                while at + DIRENT.size <= self.size:
                    ino, rec_len, length, _ = DIRENT.packer.unpack_from(raw, at)
                    if ino and raw[at + 8 : at + 8 + length] == wanted:
                        return self._dirent_at(block * self.size + at, name)
                    at += max(12, rec_len)
        raise LookupError(f"{directory} has no entry {name_of_entry}")

    def _dirent(self, directory: str, logical: str, at: str, name: str) -> tuple[int, Layout] | _Field:
        return self._dirent_at(self.block_of(directory, int(logical)) * self.size + int(at), name)

    def _dirent_at(self, offset: int, name: str) -> tuple[int, Layout] | _Field:
        return _Field(offset + DIRENT.size, 1) if name == "name" else (offset, DIRENT)

    def _dx(self, directory: str, entry: str = "", *, name: str) -> tuple[int, Layout]:
        start = self.block_of(directory, 0) * self.size + DX_ROOT
        if name in (DX_ROOT_INFO.dtype.names or ()):
            return start, DX_ROOT_INFO
        return self._entries(start + DX_ROOT_INFO.size, entry)

    def _node(self, directory: str, logical: str, entry: str = "", *, name: str) -> tuple[int, Layout]:
        return self._entries(self.block_of(directory, int(logical)) * self.size + ENTRIES_OF_NODE, entry)

    def _entries(self, start: int, entry: str) -> tuple[int, Layout]:
        return (start + int(entry) * DX_ENTRY.size, DX_ENTRY) if entry else (start, DX_COUNTLIMIT)

    def _xattr(self, key: str, entry: str = "", *, name: str) -> tuple[int, Layout]:
        start = self.fs.stat(self.ino(key)).file_acl * self.size
        return self._attribute(start + XATTR_HEADER.size, entry) if entry else (start, XATTR_HEADER)

    def _ibody(self, key: str, entry: str = "", *, name: str) -> tuple[int, Layout]:
        start = self.inode_offset(self.ino(key)) + INODE_CORE.size
        start += int.from_bytes(self.data[start : start + 2], "little")
        return self._attribute(start + XATTR_IBODY_HEADER.size, entry) if entry else (start, XATTR_IBODY_HEADER)

    def _attribute(self, start: int, entry: str) -> tuple[int, Layout]:
        for _ in range(int(entry)):
            start += XATTR_ENTRY.size + (self.data[start] + 3 & ~3)
        return start, XATTR_ENTRY

    def _journal(self, name: str) -> tuple[int, Layout]:
        return self.block_of("8", 0) * self.size, JOURNAL_SUPERBLOCK

    def _log(self, block: str, name: str) -> tuple[int, Layout]:
        return self.block_of("8", int(block)) * self.size, JOURNAL_HEADER

    def _used(self, kind: str, number: int) -> _Field:
        if kind == "block":
            group, bit = divmod(number - self.superblock.first_data_block, self.superblock.blocks_per_group)
        else:
            group, bit = divmod(number - 1, self.superblock.inodes_per_group)
        start = int(self.fs.groups[f"bg_{kind}_bitmap"][group]) * self.size
        return _Field(start + bit // 8, 1, bit=bit % 8)

    def _block(self, number: str, at: str = "0") -> _Field:
        return _Field((int(number) if number.isdigit() else self.get(number)) * self.size + int(at), 1)

    def _byte(self, offset: str) -> _Field:
        return _Field(int(offset), 1)

    # Steps

    def debugfs(self, commands: str, content: bytes = b"") -> None:
        """Run commands of debugfs on the image as it is."""
        with tempfile.TemporaryDirectory(prefix="damage-") as directory:
            image, payload = Path(directory, "image"), Path(directory, "payload")
            image.write_bytes(self.data)
            payload.write_bytes(content)
            script = re.sub(r"\{([^}]*)\}", lambda match: str(self.get(match[1])), commands).replace("FILE", str(payload))
            text = tool("debugfs", "-w", "-f", "-", image, stdin=script.encode() + b"\n")
            wrong = [line for line in text.splitlines() if "not found" in line or "rror" in line or "sage:" in line]
            if wrong:
                raise RuntimeError(f"debugfs {commands!r}: {wrong[0]}")
            self.data = bytearray(image.read_bytes())
        try:
            self.fs = ext3.Filesystem(MemoryDevice(bytes(self.data)))
            self.fs.device = MemoryDevice(bytes(self.data))  # as it lies, not as its journal will leave it
        except Ext3Error:
            return

    def apply(self, steps: tuple[Any, ...]) -> None:
        for step in steps:
            if isinstance(step, Debugfs):
                self.debugfs(step.commands, step.content)
            elif callable(step):
                step(self)
            else:
                self.set(*step)


def damaged(recipe: Recipe, base: bytes) -> bytes:
    """Return the sound image ``base`` with a recipe's damage."""
    damage = Damage(base)
    damage.apply(recipe.steps)
    return bytes(damage.data)
