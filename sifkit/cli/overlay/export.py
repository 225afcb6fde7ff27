"""``sifkit overlay export``."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer

from ...errors import TargetError, UsageError, counted, human, show
from ..extract import not_empty, tell_extracted, tell_problems
from ..support import values
from ..support.console import Console, named
from ..support.embedding import Partition
from ..support.frame import verb
from ..support.progress import MODES, reporter
from ..support.reading import looking, on_host

__all__ = ["command"]


@verb(
    examples=[
        "sifkit overlay export overlay.img -o layer.tar",
        "sifkit overlay export overlay.img -o - | gzip > layer.tar.gz",
        "sifkit overlay export overlay.img -o upper/",
    ]
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="an overlay image")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="LAYER.tar|DIR/", help="the archive (- is standard output), or a directory")
    ] = "",
    partition: Partition = None,
    sparse: Annotated[bool, typer.Option("--sparse", "-S", help="store files with holes as `tar -S` does")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="replace the archive, or files in the directory")] = False,
    progress: Annotated[str, typer.Option("--progress", metavar="|".join(MODES), help="how to tell how far it is")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object")] = False,
) -> int:
    """Write upper/, which is what a container changed, as an OCI layer: a tar archive with `.wh.` files for what was removed.
    `sifkit overlay create --from-tar` makes an overlay of it again.

    Into a directory (one that exists, or a name that ends in /) the files go as they are. Holes of files become zeros in an
    archive, as layers want it; --sparse leaves them out, which tar, bsdtar and apptainer understand. An archive holds at most
    1 GiB and 8 times the image's size. The image is only read.
    """
    values.choice("--progress", progress, MODES)
    if not output:
        raise UsageError("-o is missing: where to", hint="write -o layer.tar, or -o DIR/")
    if output == "-" and json:
        raise UsageError("-o - and --json both want standard output", hint="give a file, or leave --json out")
    start = time.monotonic()
    with looking(console, image, partition, upper=True, marks=True) as view, reporter(progress, console) as bar:
        if output != "-" and (output.endswith("/") or os.path.isdir(output)):
            if sparse:
                raise UsageError("--sparse is for archives", hint="leave it out: a directory gets files with their holes")
            from ...overlay.extracting import extract

            try:
                made = extract(view.filesystem, output, top=view.root, force=force, image_id=on_host(image), progress=bar)
            except FileExistsError as error:
                raise not_empty(output) from error
            counts = {
                "entries": made.files + made.directories + made.symlinks + made.specials + made.links,
                "content_bytes": made.written_bytes,
                "whiteouts": 0,
                "opaque": 0,
                "errors": made.failed,
            }
            tell_extracted(console, made)
        else:
            from ...atomic import AtomicFile
            from ...overlay.layer_export import export_layer

            if output == "-":
                done = export_layer(view, sys.stdout.buffer, sparse=sparse, progress=bar)
            else:
                if os.path.lexists(output) and not force:
                    raise TargetError(f"{show(output)} exists already", path=output, hint="--force replaces it")
                if os.path.lexists(output) and (not os.path.isfile(output) or os.path.samefile(image, output)):
                    raise TargetError(f"{show(output)} is not replaced", path=output, hint="give another name")
                with AtomicFile(output, 0o666 & ~_umask()) as target:
                    with open(target.fd, "wb", closefd=False) as file:
                        done = export_layer(view, file, sparse=sparse, progress=bar)
                    target.commit(replace=force)
            tell_problems(console, done.problems, done.failed)
            if done.left_out:
                console.note(f"{counted(done.left_out, 'socket')} left out: no archive holds them")
            counts = {
                "entries": done.entries,
                "content_bytes": done.content_bytes,
                "whiteouts": done.whiteouts,
                "opaque": done.opaque,
                "errors": done.failed,
            }
    seconds = time.monotonic() - start
    if json:
        console.emit({**named("path", output), **counts, "seconds": round(seconds, 3)}, image=image)
    else:
        entries = counted(counts["entries"], "entry", "entries")
        console.result(f"{show(output)}: {entries}, {human(counts['content_bytes'])}, {seconds:.2f} s")
    return 1 if counts["errors"] else 0


def _umask() -> int:
    found = os.umask(0o022)
    os.umask(found)
    return found
