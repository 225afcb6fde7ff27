"""Every command that writes an output, on every kind of file that may be under its name, with --force and without.

    python -m tools.force_outputs [COMMAND...]

All nodes are made in a temporary directory (devices with mknod, as root; images that are mounted, too). What must hold:
devices, FIFOs, sockets, directories and images in use are never replaced; commands that write a stream write into character
devices and FIFOs; a refusal is one line, changes nothing, and offers no --force that would not help; nothing is left in the
directory.
On a fault the exit code is 1, and the lines say what was run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sifkit.file_locks import lock_range

__all__ = ["COMMANDS", "NODES", "Command", "main", "outcome_of"]

SIFKIT = (sys.executable, "-m", "sifkit")
CONTENT = b"content\n"
OUT = "out/n"


@dataclass(frozen=True, slots=True)
class Command:
    """``argv`` with OUT for the output. ``stream``: writes into what can only be written into. ``over``: regular files that are
    replaced with ``--force`` (kinds of NODES)."""

    argv: tuple[str, ...]
    force: str = "--force"
    stream: bool = False
    over: frozenset[str] = frozenset()
    tree: bool = False
    """The output is a directory with the file in it."""
    name: str = "n"
    follows: bool = False
    """Regular files are replaced without ``--force`` too, as coreutils do."""


ANY = frozenset({"text", "empty", "ext3", "sif", "squashfs", "hard link", "link to text"})
EXT3 = frozenset({"empty", "ext3"})
SIF = frozenset({"empty", "sif"})
COMMANDS = {
    "sif dump": Command(("sif", "dump", "1", "i.sif", "-o", OUT), stream=True, over=ANY),
    "overlay export": Command(("overlay", "export", "o.img", "-o", OUT), stream=True, over=ANY),
    "cp": Command(("cp", "o.img:/upper/n", OUT), stream=True, over=ANY, follows=True),
    "overlay create": Command(("overlay", "create", "--size", "4M", OUT), over=EXT3),
    "overlay clone": Command(("overlay", "clone", "o.img", OUT), over=EXT3),
    "overlay detach": Command(("overlay", "detach", "--keep", "i.sif", "-o", OUT), over=EXT3),
    "sif new": Command(("sif", "new", OUT), over=SIF),
    "sif pack": Command(("sif", "pack", "image.d", OUT), over=SIF),
    "extract": Command(("extract", "--upper", "o.img:/n", "-C", "out"), over=ANY, tree=True),
    "extract -f tree": Command(("extract", "--upper", "o.img", "-C", "out"), over=ANY, tree=True),
    "export DIR": Command(("overlay", "export", "o.img", "-o", "out/"), over=ANY, tree=True),
    "sif unpack": Command(("sif", "unpack", "named.sif", "out"), over=ANY, tree=True, name="1-n"),
}


def _node(kind: int, number: tuple[int, int] = (0, 0)) -> Callable[[Path], None]:
    return lambda path: os.mknod(path, kind | 0o600, os.makedev(*number))


def _socket(path: Path) -> None:
    """By its short name: a socket's path has little room."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _link_to(target: str, make: Callable[[Path], None] | None) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        if make is not None:
            make(path.with_name(target))
        path.symlink_to(target)

    return link


def _text(path: Path) -> None:
    path.write_bytes(b"old text\n")


def _squashfs(path: Path) -> None:
    path.write_bytes(b"hsqs" + bytes(4092))


def _hard_link(path: Path) -> None:
    _text(path.with_name("other"))
    os.link(path.with_name("other"), path)


def _copy(name: str) -> Callable[[Path], None]:
    def copy(path: Path) -> None:
        shutil.copyfile(path.parent.parent / name, path)

    return copy


CHAR = _node(stat.S_IFCHR, (1, 3))
BLOCK = _node(stat.S_IFBLK, (259, 1 << 19))
NODES: dict[str, Callable[[Path], None]] = {
    "character device": CHAR,
    "block device": BLOCK,
    "FIFO": _node(stat.S_IFIFO),
    "socket": _socket,
    "directory": lambda path: path.mkdir(),
    "link to character device": _link_to("device", CHAR),
    "link to block device": _link_to("device", BLOCK),
    "link to FIFO": _link_to("pipe", _node(stat.S_IFIFO)),
    "link to directory": _link_to("folder", lambda path: path.mkdir()),
    "link to text": _link_to("other", _text),
    "link to itself": lambda path: path.symlink_to(path.name),
    "dangling link": _link_to("nothing", None),
    "text": _text,
    "empty": lambda path: path.touch(),
    "hard link": _hard_link,
    "ext3": _copy("o.img"),
    "sif": _copy("i.sif"),
    "squashfs": _squashfs,
    "locked image": _copy("o.img"),
    "locked sif": _copy("i.sif"),
    "mounted image": _copy("o.img"),
    "mounted sif": _copy("i.sif"),
}
USED = frozenset({"locked image", "locked sif", "mounted image", "mounted sif"})
NEED_ROOT = frozenset(name for name in NODES if "device" in name or "mounted" in name)


def _state(top: Path) -> dict[str, tuple[object, ...]]:
    """What is in the directory: what must not change where a command refuses."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
        found[str(path.relative_to(top))] = (stat.S_IFMT(status.st_mode), status.st_rdev, status.st_ino, content)
    return found


@contextmanager
def _in_use(kind: str, path: Path) -> Iterator[None]:
    """The image locked as a container does, or mounted."""
    with ExitStack() as stack:
        if kind.startswith("locked"):
            fd = os.open(path, os.O_RDWR)
            stack.callback(os.close, fd)
            lock_range(fd, write=True, path=str(path))
        elif kind.startswith("mounted"):
            point = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="force-outputs-mount-")))
            offset = _overlay_offset(path) if kind == "mounted sif" else 0
            subprocess.run(["mount", "-o", f"loop,ro,noload,offset={offset}", path, point], check=True, capture_output=True)
            stack.callback(lambda: subprocess.run(["umount", point], check=True))
        yield


def _overlay_offset(path: Path) -> int:
    from sifkit.sif import SIF as Image
    from sifkit.sif import DataType

    with Image.open(path) as sif:
        return next(item.offset for item in sif if item.data_type == DataType.PARTITION)


def outcome_of(command: Command, kind: str, *, forced: bool) -> str:
    """What must happen: "refused", "written into" (the node stays), "replaced", or "" where more than one is right."""
    real = kind.removeprefix("link to ")
    if command.tree and "link to" in kind:
        return ""  # the link is replaced, as tar does; what it leads to is judged with everything else
    if kind in USED or real in ("block device", "socket") or kind == "dangling link":
        return "" if kind == "dangling link" and not command.stream else "refused"
    if real in ("character device", "FIFO"):
        return "written into" if command.stream else "refused"
    if real in ("directory", "itself"):
        return ""
    if kind in command.over:
        return "" if kind == "link to text" else ("replaced" if forced or command.follows else "refused")
    return "" if command.over == EXT3 and kind == "sif" else "refused"


def try_one(name: str, kind: str, *, forced: bool, work: Path) -> list[str]:
    """Run one command on one node; what is wrong."""
    command = COMMANDS[name]
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    node = out / command.name
    NODES[kind](node)
    argv = [*command.argv, "-q", *([command.force] if forced else [])]
    with _in_use(kind, node):
        before = _state(out)
        received = _reader(node) if "FIFO" in kind and command.stream else None
        done = subprocess.run(
            [*SIFKIT, *argv], cwd=work, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False
        )
        data = received() if received is not None else None
        after = _state(out)
    expected = outcome_of(command, kind, forced=forced)
    wrong = []
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    node_same = command.name not in changed
    if expected == "refused" and command.tree:
        if not node_same:
            wrong.append("the file was changed")
        if done.returncode == 0:
            wrong.append("exit 0")
    elif expected == "refused":
        if done.returncode not in (1, 2):
            wrong.append(f"exit {done.returncode}, want 1")
        if changed:
            wrong.append(f"changed: {sorted(changed)}")
    elif expected == "written into":
        if done.returncode or changed:
            wrong.append(f"exit {done.returncode}, changed: {sorted(changed)}")
        if data is not None and not data:
            wrong.append("nothing came out of the FIFO")
    elif expected == "replaced" and (done.returncode or node_same):
        wrong.append(f"exit {done.returncode}, {'unchanged' if node_same else 'changed'}")
    for path, was in before.items():
        now = after.get(path)
        if was[0] not in (stat.S_IFREG, stat.S_IFLNK) and (now is None or now[:3] != was[:3]):
            wrong.append(f"{path} was replaced")
        elif kind == "hard link" and path == "other" and not command.follows and now != was:
            wrong.append("the other name of the file was written to")
    if left := [path for path in after if Path(path).name.startswith(".") and path.endswith(".tmp")]:
        wrong.append(f"left: {left}")
    if done.returncode and not command.tree and len(done.stderr.splitlines()) != 1:
        wrong.append(f"{len(done.stderr.splitlines())} lines of errors")
    if forced and done.returncode and "or --force" in done.stderr:
        wrong.append("offers --force")
    if "Traceback" in done.stderr:
        wrong.append("a traceback")
    return [f"{name} on {kind}{' with --force' if forced else ''}: {text} ({done.stderr.strip()[:300]})" for text in wrong]


def _reader(path: Path) -> Callable[[], bytes]:
    """Read a FIFO in a thread; call the result for what came."""
    real = path.resolve()
    parts: list[bytes] = []

    def read() -> None:
        with real.open("rb") as file:
            parts.append(file.read())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def finish() -> bytes:
        thread.join(1)
        if thread.is_alive():  # nobody has opened it for writing
            os.close(os.open(real, os.O_WRONLY | os.O_NONBLOCK))
            thread.join(5)
        return b"".join(parts)

    return finish


def _set_up(work: Path) -> None:
    (work / "f").write_bytes(CONTENT)
    for argv in (
        ("overlay", "create", "--size", "4M", "o.img"),
        ("cp", "f", "o.img:/upper/n"),
        ("sif", "new", "named.sif"),
        ("sif", "add", "--datatype", "generic", "--name", "n", "named.sif", "f"),
        ("sif", "new", "i.sif"),
        ("sif", "add", "--datatype", "generic", "i.sif", "f"),
        ("sif", "add", "--parttype", "overlay", "--partarch", "amd64", "i.sif", "o.img"),
        ("sif", "unpack", "named.sif", "image.d"),
    ):
        subprocess.run([*SIFKIT, *argv, "-q"], cwd=work, check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description="Try outputs on files of every kind.")
    parser.add_argument("--list", action="store_true", help="name the commands and the kinds of files")
    parser.add_argument("commands", nargs="*", metavar="COMMAND")
    options = parser.parse_args(arguments)
    if options.list:
        print(f"commands: {', '.join(COMMANDS)}\nfiles: {', '.join(NODES)}")
        return 0
    if unknown := set(options.commands) - set(COMMANDS):
        parser.error(f"no command {', '.join(sorted(unknown))}; see --list")
    kinds = [kind for kind in NODES if os.geteuid() == 0 or kind not in NEED_ROOT]
    if len(kinds) < len(NODES):
        print(f"not root, left out: {', '.join(sorted(NEED_ROOT))}")
    tried = faults = 0
    with tempfile.TemporaryDirectory(prefix="force-outputs-") as scratch:
        work = Path(scratch)
        _set_up(work)
        for name in options.commands or COMMANDS:
            for kind in kinds:
                for forced in (False, True):
                    tried += 1
                    for line in try_one(name, kind, forced=forced, work=work):
                        faults += 1
                        print(line, flush=True)
    print(f"{tried} outputs tried, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
