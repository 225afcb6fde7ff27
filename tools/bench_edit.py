"""What editing an image reaches, and against debugfs for copying one large file in.

    python tools/bench_edit.py [--files 20000] [--megabytes 1024] [--runs 3] [--scratch DIR]

Prints small-file rates and throughput in process (sync included), then whole processes in turn: ``debugfs -w -R write`` and
``sifkit cp``, with the ratio of the medians (target: 0.5). Both sync the image. Nothing else should be busy.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benching import MIB, ROOT, SBIN, compile_packages, random_file, timed

import ext3
from ext3.edit.file_handle import FileEditor
from ext3.edit.filesystem import WritableFilesystem
from ext3.progress import Silent
from sifkit.overlay.copying.copier import Copier
from sifkit.overlay.copying.copy_options import PRESERVE_ALL, CopyOptions
from sifkit.overlay.copying.copy_source import CopySource
from sifkit.overlay.edit.upper_edit import OverlayEditor
from sifkit.vfs.copy_outcome import Copied
from sifkit.vfs.host_tree import HostTree

__all__ = ["main"]


def small_files(fs: WritableFilesystem, count: int) -> list[tuple[str, float, str]]:
    """(what, rate, unit) of making and removing ``count`` files in one directory."""
    fs.mkdir("/small")
    paths = [b"/small/file-%07d" % number for number in range(count)]
    data = b"x" * 1000

    def each(change: Callable[[bytes], object]) -> float:
        def work() -> None:
            for path in paths:
                change(path)
            fs.sync()

        return count / timed(work)

    rows = [("create empty files", each(fs.create), "files/s"), ("unlink them", each(fs.unlink), "files/s")]
    rows.append(("create files of 1000 bytes", each(lambda path: fs.write_bytes(path, data)), "files/s"))
    rows.append(("chmod them", each(lambda path: fs.chmod(path, 0o600)), "files/s"))
    rows.append(("stat them by path", each(fs.stat), "files/s"))
    return rows


def copied_in(fs: WritableFilesystem, scratch: Path, count: int) -> list[tuple[str, float, str]]:
    """(what, rate, unit) of ``cp -a`` of ``count`` files of 1000 bytes, from the host."""
    source = scratch / "small"
    source.mkdir()
    for number in range(count):
        (source / f"file-{number:07}").write_bytes(b"x" * 1000)
    editor = OverlayEditor(fs)
    copier = Copier(editor, CopyOptions(recursive=True, preserve=PRESERVE_ALL), image="", progress=Silent())

    def work() -> None:
        files = CopySource.of(HostTree(os.sep), os.fsencode(source), "small")
        for _ in files.walk():
            pass
        for outcome in copier.copy(files, editor.resolve(b"/copied", follow=False)):
            if not isinstance(outcome, Copied):
                raise RuntimeError(outcome)
        fs.sync()

    return [("cp -a files of 1000 bytes", count / timed(work), "files/s")]


def sequential(fs: WritableFilesystem, size: int) -> list[tuple[str, float, str]]:
    """Throughput of one file of ``size`` bytes, written and read in pieces."""
    rows = []
    for piece in (4096, 128 << 10, MIB):
        total = size if piece > 4096 else size // 8
        data = os.urandom(piece)
        buffer = bytearray(piece)
        fs.create("/large")
        with fs.open_file("/large", "r+") as file:

            def write(file: FileEditor = file, total: int = total, data: bytes = data) -> None:
                for _ in range(total // len(data)):
                    file.write(data)
                fs.sync()

            def read(file: FileEditor = file, buffer: bytearray = buffer) -> None:
                file.seek(0)
                while file.readinto(buffer):
                    pass

            rows.append((f"write in pieces of {piece}", total / timed(write) / 1e6, "MB/s"))
            rows.append((f"read in pieces of {piece}", total / timed(read) / 1e6, "MB/s"))
        fs.unlink("/large")
    return rows


def against_debugfs(scratch: Path, size: int, runs: int) -> list[str]:
    """Lines on copying one file of ``size`` bytes into a fresh image, by both in turn."""
    debugfs = shutil.which("debugfs", path=SBIN)
    source, image = random_file(scratch / "source", size // MIB), scratch / "copy.img"
    ours, theirs = [], []
    commands: list[tuple[list[float], Sequence[str | Path]]] = [
        (ours, [sys.executable, "-m", "sifkit", "-q", "cp", source, f"{image}:/copied"])
    ]
    if debugfs:
        commands.append((theirs, [debugfs, "-w", "-R", f"write {source} copied", image]))
    for _ in range(runs):
        for times, command in commands:
            image.unlink(missing_ok=True)
            ext3.mkfs(image, size + size // 4 + 64 * MIB)
            os.sync()  # nobody pays for what the run before left unwritten
            times.append(
                timed(lambda command=command: subprocess.run(command, check=True, cwd=ROOT, capture_output=True))  # type: ignore[misc]
            )
    mine = statistics.median(ours)
    lines = [f"{'copy in ' + str(size // MIB) + ' MiB, whole process':<34}{mine:>10.2f} s"]
    if theirs:
        other = statistics.median(theirs)
        lines.append(f"{'debugfs -w -R write':<34}{other:>10.2f} s")
        lines.append(f"{'ratio (target 0.5)':<34}{mine / other:>10.2f}")
    else:
        lines.append("debugfs is not installed: no comparison")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything and print it; 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scratch", default=None, help="a directory on the disk to measure")
    options = parser.parse_args(argv)
    compile_packages()
    scratch = Path(tempfile.mkdtemp(prefix="bench-edit-", dir=options.scratch))
    try:
        image = scratch / "edited.img"
        ext3.mkfs(image, max(512, 2 * options.megabytes) * MIB)
        with ext3.Filesystem.open(image, "r+") as fs:
            small = [*small_files(fs, options.files), *copied_in(fs, scratch, options.files)]
            for what, rate, unit in (*small, *sequential(fs, options.megabytes * MIB // 2)):
                print(f"{what:<34}{rate:>10.0f} {unit}")
        image.unlink()
        print("\n".join(against_debugfs(scratch, options.megabytes * MIB, options.runs)))
    finally:
        shutil.rmtree(scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
