"""Load on the files of a directory, of the standard library alone: it runs in a container and on the host, and both must agree.

python3 file_load.py ACTION DIRECTORY SEED COUNT

``prepare``: write the files that the others begin with. ``data``: random reads, writes, truncations and mappings of one file,
each compared with a copy in memory. ``names``: a storm of renames, links, removals and new files. ``links``: hard links whose
first names go away. ``nameless``: files that get their names late. What every operation said is printed, and the tree in the
end.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import random
import stat
import sys
from collections.abc import Callable

LARGEST = 300_000
XATTR = "user.load"


def prepare(top: str, chance: random.Random, count: int) -> None:
    """Directories of files, and ``data``, of random bytes."""
    os.makedirs(top, exist_ok=True)
    with open(f"{top}/data", "wb") as file:
        file.write(chance.randbytes(LARGEST // 2))
    for number in range(count):
        directory = f"{top}/old{number % 7}/sub{number % 3}"
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/f{number}", "wb") as file:
            file.write(chance.randbytes(chance.choice((0, 1, 500, 5000))))
        if number % 9 == 0:
            os.symlink(f"f{number}", f"{directory}/s{number}")


def data(top: str, chance: random.Random, count: int) -> None:
    """Change one file, and keep a copy of what it must hold."""
    path = f"{top}/data"
    with open(path, "rb") as file:
        copy = bytearray(file.read())
    fd = os.open(path, os.O_RDWR)
    for number in range(count):
        offset, size = chance.randrange(LARGEST), chance.randrange(1, 60_000)
        action = chance.randrange(10)
        if action < 4:
            text = chance.randbytes(size)
            _put(copy, offset, text)
            assert os.pwrite(fd, text, offset) == size
        elif action == 4:
            size = chance.randrange(LARGEST)
            os.ftruncate(fd, size)
            copy[size:] = bytes(max(0, size - len(copy)))
        elif action == 5 and copy:
            _map(fd, copy, chance)
        elif action == 6:
            os.fsync(fd)
            os.close(fd)
            fd = os.open(path, os.O_RDWR)
        elif action == 7:
            text = chance.randbytes(size % 3000)
            with open(path, "ab", buffering=0) as file:
                file.write(text)
            copy += text
        elif action == 8 and copy:
            start = offset % len(copy)
            taken = os.copy_file_range(fd, fd, min(size, len(copy) - start, LARGEST // 2), start, len(copy) + 10)
            if taken:
                _put(copy, len(copy) + 10, bytes(copy[start : start + taken]))
        assert os.pread(fd, size, offset) == copy[offset : offset + size], (number, action, offset, size)
        assert os.fstat(fd).st_size == len(copy), (number, action)
    os.close(fd)
    with open(path, "rb") as file:
        assert file.read() == copy


def _put(copy: bytearray, offset: int, text: bytes) -> None:
    copy += bytes(max(0, offset - len(copy)))
    copy[offset : offset + len(text)] = text


def _map(fd: int, copy: bytearray, chance: random.Random) -> None:
    """Read and change a file through a mapping."""
    with mmap.mmap(fd, len(copy)) as mapped:
        offset = chance.randrange(len(copy))
        text = chance.randbytes(min(chance.randrange(1, 9000), len(copy) - offset))
        assert mapped[offset : offset + 5000] == copy[offset : offset + 5000]
        mapped[offset : offset + len(text)] = text
        copy[offset : offset + len(text)] = text
        if chance.random() < 0.5:
            mapped.flush()


def names(top: str, chance: random.Random, count: int) -> None:
    """Change names. Only new directories are renamed: overlayfs refuses it for those of a lower layer (EXDEV)."""
    files = sorted(f"{above}/{name}" for above, _, found in os.walk(top) for name in found)
    directories = sorted(above for above, _, _ in os.walk(top))
    own: list[str] = []
    for number in range(count):
        one, other = chance.choice(files), f"{chance.choice(directories)}/n{chance.randrange(count // 3)}"
        action = chance.choice(
            ("create", "append", "rename", "rename", "link", "unlink", "symlink", "mkdir", "move", "rmtree", "mode", "xattr")
        )
        outcome = 0
        try:
            if action == "create":
                os.close(os.open(other, os.O_CREAT | os.O_EXCL | os.O_WRONLY, chance.choice((0o600, 0o644, 0o755))))
            elif action == "append":
                fd = os.open(one, os.O_WRONLY | os.O_APPEND)
                os.write(fd, b"%d\n" % number)
                os.close(fd)
            elif action == "rename":
                os.rename(one, other)
            elif action == "link":
                os.link(one, other, follow_symlinks=False)
            elif action == "unlink":
                os.unlink(one)
            elif action == "symlink":
                os.symlink(f"text {number}", other)
            elif action == "mkdir":
                os.mkdir(other)
                own.append(other)
            elif action == "move" and own:
                os.rename(chance.choice(own), other)
                own.append(other)
            elif action == "rmtree" and number % 20 == 0 and len(directories) > 9:
                _remove_tree(chance.choice(directories[1:]))
            elif action == "mode":
                os.chmod(one, chance.choice((0o600, 0o640, 0o755)))
            elif action == "xattr":
                os.setxattr(one, XATTR, b"%d" % number, follow_symlinks=False)
        except OSError as error:
            outcome = errno.EEXIST if error.errno == errno.ENOTEMPTY else error.errno or -1  # both mean the same, POSIX says
        print(number, action, one[len(top) :], other[len(top) :], outcome)
        if number % 50 == 0:
            found = [(above, kept) for above, _, kept in os.walk(top)]
            files = sorted(f"{above}/{name}" for above, kept in found for name in kept) or [f"{top}/none"]
            directories = sorted(above for above, _ in found)
            own = [path for path in own if path in set(directories)]


def links(top: str, chance: random.Random, count: int) -> None:
    """Remove and replace the first names of files that have others, as dpkg, git and editors do."""
    os.makedirs(f"{top}/links", exist_ok=True)
    os.chdir(f"{top}/links")
    for name in ("old", "../data"):
        for number in range(3):
            _write(name, f"{name} {number}")
            _say(number, lambda name=name: os.link(name, "backup"))  # dpkg
            _say(number, lambda: os.stat("backup").st_nlink)
            _write("new", f"new {number}")
            _say(number, lambda name=name: os.rename("new", name))
            _say(number, lambda: (os.stat("backup").st_nlink, _read("backup")))
            _say(number, lambda: os.unlink("backup"))
            _say(number, lambda name=name: _read(name))
    for number in range(3):
        _write("temporary", f"object {number}")
        _say(number, lambda number=number: os.link("temporary", f"object{number}"))  # git
        _say(number, lambda number=number: os.stat(f"object{number}").st_nlink)
        _say(number, lambda: os.unlink("temporary"))
        _say(number, lambda number=number: (os.stat(f"object{number}").st_nlink, _read(f"object{number}")))
        _say(number, lambda: os.path.exists("temporary"))
        _say(number, lambda: os.mkdir("temporary"))
        _say(number, lambda: os.rmdir("temporary"))
        _write("temporary", "once more")
        _say(number, lambda number=number: os.stat(f"object{number}").st_nlink)
        _say(number, lambda number=number: os.rename("temporary", f"object{number}"))
        _say(number, lambda number=number: _read(f"object{number}"))
    with open("open", "w") as file:
        file.write("open")
        file.flush()
        _say(0, lambda: os.link("open", "other"))
        _say(0, lambda: os.stat("other").st_nlink)
        _say(0, lambda: os.unlink("open"))
        for number in range(3):
            _write("new", str(number))
            _say(number, lambda: _read("other"))
            _say(number, lambda: os.rename("new", "open"))
            _say(number, lambda: (_read("open"), os.stat("other").st_nlink))
        _say(0, lambda: [(name, os.stat(name).st_nlink) for name in sorted(os.listdir("."))])
        _say(0, lambda: os.rename("other", "open"))
    print(_read("open"))
    os.mkfifo("fifo")
    _say(0, lambda: os.link("fifo", "pipe"))
    _say(0, lambda: os.stat("pipe").st_nlink)
    _say(0, lambda: os.unlink("fifo"))
    _write("fifo", "a file now")
    _say(0, lambda: (os.stat("pipe").st_nlink, _read("fifo")))
    _say(0, lambda: os.rename("pipe", "fifo"))
    _say(0, lambda: stat.S_IFMT(os.stat("fifo").st_mode))
    _make_again()


def nameless(top: str, _: random.Random, count: int) -> None:
    """Make files without a name and name them, several of one directory, which are then found, linked and replaced."""
    os.makedirs(f"{top}/nameless", exist_ok=True)
    os.chdir(f"{top}/nameless")
    names = [f"late{number}" for number in range(count // 25)]
    for name in names:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
        os.write(fd, name.encode())
        _say(0, lambda fd=fd: os.fstat(fd).st_nlink)
        _say(0, lambda fd=fd, name=name: os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=fd))
        _say(0, lambda name=name: os.stat(name).st_nlink)
        os.close(fd)
    os.close(os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600))
    for name in names:  # replaced as a whole, by a file that is still open
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
        os.write(fd, f"{name} again".encode())
        os.link(f"/proc/self/fd/{fd}", "complete", src_dir_fd=fd)
        _say(0, lambda: os.stat("complete").st_nlink)
        _say(0, lambda name=name: os.rename("complete", name))
        _say(0, lambda fd=fd, name=name: (os.fstat(fd).st_nlink, _read(name)))
        os.close(fd)
    for step in (7, 11, 13):
        for number in range(len(names)):
            name = names[number * step % len(names)]
            if step == 7:
                _say(step, lambda name=name: os.open(name, os.O_CREAT | os.O_EXCL))
                _say(step, lambda name=name: os.link(name, f"{name} other"))
            if step == 11:
                _say(step, lambda name=name: os.chmod(f"{name} other", 0o600))
                _write("new", name)
                _say(step, lambda name=name: os.rename("new", name))
            _say(step, lambda name=name: (_read(name), _read(f"{name} other"), os.stat(name).st_mode))
    print(sorted(os.listdir(".")))


def _make_again() -> None:
    """Make something else in the place of a name of a file that has another one: calls that make a name are tried once."""
    _write("one", "one")
    for number, make in enumerate(
        (
            lambda: os.mkdir("two"),
            lambda: os.mkfifo("two"),
            lambda: os.symlink("one", "two"),
            lambda: os.link("one", "two"),
            lambda: os.link("three", "two"),
            lambda: os.close(os.open("two", os.O_CREAT | os.O_EXCL)),
            lambda: os.rename("one", "two"),
        )
    ):
        for is_used in (False, True):
            for first, other in (("two", "three"), ("three", "two")):
                _write(first, "text")
                _say(number, lambda first=first, other=other: os.link(first, other))
                if is_used:
                    _say(number, lambda other=other: os.stat(other).st_nlink)
                _say(number, lambda: os.unlink("two"))
                if is_used:
                    _say(number, lambda: os.stat("three").st_nlink)
                _say(number, make)
                _say(number, lambda: (stat.S_IFMT(os.lstat("two").st_mode), os.stat("three").st_nlink))
                _say(number, make)
                os.rename("two", f"{first} {is_used} {number}")
                _write("one", "one")
                os.unlink("three")


def _say(number: int, action: Callable[[], object]) -> None:
    try:
        print(number, action())
    except OSError as error:
        print(number, error)


def _write(name: str, text: str) -> None:
    with open(name, "w") as file:
        file.write(text)


def _read(name: str) -> str:
    with open(name) as file:
        return file.read()


def _remove_tree(top: str) -> None:
    for above, _, files in os.walk(top, topdown=False):
        for name in files:
            os.unlink(f"{above}/{name}")
        os.rmdir(above)


def show(top: str) -> None:
    """Print the tree: mode, links, size, and a digest of the content or the target."""
    rows = []
    for above, directories, files in os.walk(top):
        for name in directories + files:
            path = f"{above}/{name}"
            found = os.lstat(path)
            text = f"{path[len(top) :]} {stat.S_IFMT(found.st_mode):o}"
            if stat.S_ISREG(found.st_mode):
                with open(path, "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()[:16]
                value = os.getxattr(path, XATTR) if XATTR in os.listxattr(path) else b""
                text += f" {found.st_mode:o} {found.st_nlink} {found.st_size} {digest} {value!r}"
            elif stat.S_ISLNK(found.st_mode):
                text += f" {os.readlink(path)}"
            rows.append(text)
    print("\n".join(sorted(rows)))


def main(action: str, top: str, seed: str, count: str) -> None:
    chance = random.Random(int(seed))
    {"prepare": prepare, "data": data, "names": names, "links": links, "nameless": nameless}[action](top, chance, int(count))
    if action != "prepare":
        show(top)


if __name__ == "__main__":
    main(*sys.argv[1:])
