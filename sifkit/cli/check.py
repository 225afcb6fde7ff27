"""``sifkit check``."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SifkitError, UsageError, counted, human, shell_quote, show
from .support import values
from .support.console import Console, Fields, name_fields
from .support.frame import verb
from .support.options import Offset, ProgressMode, byte_offset
from .support.progress import MODES, Reporter, reporter

if TYPE_CHECKING:
    from ..overlay.checks.digest_list import DigestList
    from ..overlay.checks.image_result import ImageProblem, ImageResult, PartResult
    from ..overlay.checks.image_search import FoundImage

__all__ = ["command"]

MAX_THREADS = 64
KINDS = {"sif": "SIF", "squashfs": "squashfs", "ext3": "ext3"}


class NoImagesError(SifkitError):
    """Directories in which there is no image, or nothing there at all, as for a pattern that the shell found no file for."""

    kind = "not-found"
    exit_code = 2


@verb(
    examples=[
        "sifkit check image.sif",
        "sifkit check images/",
        "sifkit check --sha256 SHA256SUMS images/",
        "sifkit check --json image.sif overlay.img",
    ]
)
def command(
    console: Console,
    *,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|DIR...", help="images, and directories to search for them")],
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="FILE", help="compare with the digests in FILE, as sha256sum writes them")
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option("--threads", metavar="N", help="threads that decompress (default: as many as processors, at most 4)"),
    ] = None,
    offset: Offset = None,
    progress: ProgressMode = "auto",
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per image, and a summary")] = False,
) -> int:
    """Check that images are whole and readable: SIF, squashfs and ext3. Nothing is written.

    The structure of a SIF and the extents of its objects are compared with the file's length: for a truncated download the line
    says how much is missing. Every block of a squashfs is decompressed, every inode and directory reached. An ext3 filesystem
    is checked as by overlay fsck -fn.

    Readable does not mean unchanged: signatures are counted, not checked, and a digest alone tells that a file is the one that
    was published. For that use --sha256; names in FILE are relative to its directory, the current one or DIR.

    Directories are searched for images by content, with hidden files and subdirectories; symlinks in them are not followed. A
    file that is named .sif, .simg, .sqfs, .squashfs, .sqsh or .ext3 and is no image is bad.

    A line is printed per image; -v prints all problems. The exit code is 0 if all are good, 1 if some are bad, 2 on usage
    errors and if there is no image.
    """
    from ..overlay.checks.digest_list import DigestList
    from ..overlay.checks.image_check import check_image
    from ..overlay.checks.image_result import ImageResult

    values.choice("--progress", progress, MODES)
    workers, start = _threads(threads), byte_offset(offset)
    if start is not None and (len(images) > 1 or os.path.isdir(images[0])):
        raise UsageError("--offset is for one image", hint="check the others without it")
    digests = None if sha256 is None else DigestList(sha256, images=images)
    began = time.monotonic()
    report = _Report(console, sha256, start)
    with reporter(progress, console) as bar:
        bar.phase("search", None, "files")
        found = _search(console, images, digests, bar)
        per_byte = 1 if digests is None else 2
        bar.phase("check", per_byte * sum(one.size for one in found if not isinstance(one, ImageResult)), "bytes")
        for one in found:
            if isinstance(one, ImageResult):
                result = one
            else:
                want = None if digests is None else digests.digest_of(one.path)
                result = check_image(
                    one.path,
                    threads=workers,
                    hashed=digests is not None,
                    want=want,
                    any_content=one.any_content,
                    offset=start,
                    advance=bar.advance,
                )
            bar.clear()
            report.add(result)
    return report.finish(time.monotonic() - began)


def _threads(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MAX_THREADS):
        raise UsageError(f"--threads {show(text)}: must be a number from 1 to {MAX_THREADS}", hint="write --threads 2")
    return int(text)


def _search(console: Console, images: list[str], digests: DigestList | None, bar: Reporter) -> list[FoundImage | ImageResult]:
    """Return the files to check. Raises NoImagesError."""
    from ..overlay.checks.image_result import ImageResult
    from ..overlay.checks.image_search import images_to_check

    found: list[FoundImage | ImageResult] = []
    seen: set[tuple[int, int]] = set()
    empty: list[str] = []
    for path in images:
        before = len(found), len(seen)
        for one in images_to_check(path, digests=digests, seen=seen):
            found.append(one)
            bar.advance(1)
        if (len(found), len(seen)) == before and os.path.isdir(path):
            empty.append(path)
    if not found:
        raise NoImagesError(f"there is no image in {', '.join(map(show, images))}", hint="give images, or other directories")
    if all(isinstance(one, ImageResult) and one.path in images and one.problems[0].code == "missing" for one in found):
        raise NoImagesError(f"{', '.join(map(show, images))}: no such file or directory", hint="give images, or directories")
    for path in empty:
        console.warn(f"there is no other image in {show(path)}")
    return found


class _Report:
    """Lines or JSON objects of the results, and their sums."""

    def __init__(self, console: Console, listed: str | None, offset: int | None) -> None:
        self.console = console
        self.listed = listed
        self.offset = offset
        self.good = self.bad = self.size = 0

    def add(self, result: ImageResult) -> None:
        """Print the result for one image."""
        self.good += result.good
        self.bad += not result.good
        self.size += result.size_bytes
        if self.console.json:
            self.console.emit(_fields(result), image=result.path)
        elif not (result.good and self.console.quiet):
            self.console.line(f"{show(result.path)}: {'; '.join(filter(None, self._pieces(result)))}")
            for problem in result.problems:
                self.console.detail(f"{show(result.path)}: {problem.severity}: {problem.text}")
        self.console.flush()

    def _pieces(self, result: ImageResult) -> list[str]:
        """Return the parts of the line of an image."""
        pieces = []
        if result.good:
            kind = KINDS[result.kind] if result.kind is not None else "no image"
            facts = [f"good: {kind}", human(result.size_bytes)]
            if result.kind == "sif":
                pieces += [", ".join(facts), *map(_part_text, result.parts)]
            else:
                pieces.append(", ".join(facts + [fact for part in result.parts for fact in _part_facts(part)]))
        else:
            first = next(problem for problem in result.problems if problem.severity == "error")
            pieces.append(f"bad: {first.text}")
            if result.errors > 1:
                pieces.append(f"{counted(result.errors - 1, 'more problem')} (-v shows all)")
            pieces += [_part_text(part) for part in result.parts if part.skipped]
            pieces += [_remedy(result, first, self.offset)]
        if result.warnings:
            pieces.append(f"{counted(result.warnings, 'warning')} (-v shows {'it' if result.warnings == 1 else 'them'})")
        pieces += result.notes
        if result.digest is not None and result.digest.matches:
            pieces.append("SHA-256 as listed")
        if result.signatures:
            pieces.append(f"signatures: {result.signatures}, not checked")
        return pieces

    def finish(self, seconds: float) -> int:
        """Print the sums; return the exit code."""
        if self.console.json:
            fields: Fields = {"images": self.good + self.bad, "good": self.good, "bad": self.bad, "size_bytes": self.size}
            fields |= {"sha256": None if self.listed is None else show(self.listed), "seconds": round(seconds, 3)}
            self.console.emit(fields)
        else:
            text = f"{counted(self.good + self.bad, 'image')}: {self.good:,} good, {self.bad:,} bad"
            self.console.note(f"{text}, {human(self.size)} in {seconds:.1f} s")
        return 1 if self.bad else 0


def _remedy(result: ImageResult, problem: ImageProblem, offset: int | None) -> str:
    """Return what to do about the first problem of a bad image; empty if its text says all."""
    name = shell_quote(result.path)
    if problem.code == "truncated" or problem.code.startswith("squashfs-") or problem.code == "digest":
        return "download or copy it again"
    if problem.code.startswith("ext3-"):
        place = f"--offset {offset} " if offset else "" if problem.id is None else f"--partition {problem.id} "
        return f"repair it with: sifkit overlay fsck -fp {place}{name}"
    if result.kind == "sif" and not result.parts:
        return f"see: sifkit sif check {name}"
    return ""


def _part_text(part: PartResult) -> str:
    """Return a filesystem in a SIF as text."""
    facts = _part_facts(part)
    return f"{part.role} {part.kind}" + (f" ({', '.join(facts)})" if facts else "")


def _part_facts(part: PartResult) -> list[str]:
    facts = [part.detail] if part.detail else []
    if part.skipped:
        facts.append(part.skipped)
    elif part.inodes is not None:
        facts.append(counted(part.inodes, "inode"))
    return facts


def _fields(result: ImageResult) -> Fields:
    return {
        "verdict": "good" if result.good else "bad",
        "kind": result.kind,
        "size_bytes": result.size_bytes,
        "missing_bytes": result.missing_bytes,
        "errors": result.errors,
        "warnings": result.warnings,
        "problems": [
            {
                "code": problem.code,
                "severity": problem.severity,
                "text": problem.text,
                "id": problem.id,
                **(name_fields("path", problem.path) if problem.path is not None else {"path": None}),
            }
            for problem in result.problems
        ],
        "filesystems": [
            {
                "id": part.id,
                "role": part.role or None,
                "kind": part.kind,
                "compressor": part.detail or None,
                "inodes": part.inodes,
                "skipped": part.skipped or None,
            }
            for part in result.parts
        ],
        "signatures": result.signatures,
        "sha256": None
        if result.digest is None
        else {"listed": result.digest.want, "computed": result.digest.got, "matches": result.digest.matches},
        "in_use": result.in_use,
        "notes": [show(note) for note in result.notes],
        "seconds": round(result.seconds, 3),
    }
