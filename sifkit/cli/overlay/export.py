"""``sifkit overlay export``."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Annotated

import typer

from ext3 import hostio

from ...errors import TargetError, UsageError, counted, human, show
from ...replacing import ANY_FILE, check_output
from ..support import values
from ..support.console import Console, name_fields
from ..support.extraction import not_empty_error, print_failures, print_losses
from ..support.frame import verb
from ..support.options import AllowChanged, JSONResult, Offset, Partition, ProgressMode, byte_offset
from ..support.progress import MODES, reporter
from ..support.reading import host_identities, open_for_reading, refuse_changes
from ..support.results import print_notes
from ..support.streams import output_errors, stream_output

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit overlay export overlay.img -o layer.tar",
        "sifkit overlay export overlay.img -o - | gzip > layer.tar.gz",
        "sifkit overlay export overlay.img -o upper/",
    ],
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="overlay image")],
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="LAYER.tar|DIR/", help="archive to create (- for standard output), or directory"
        ),
    ] = "",
    partition: Partition = None,
    offset: Offset = None,
    sparse: Annotated[bool, typer.Option("--sparse", "-S", help="store holes as `tar -S` does")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="replace the archive, or files in the directory")] = False,
    allow_changed: AllowChanged = False,
    progress: ProgressMode = "auto",
    json: JSONResult = False,
) -> int:
    """Export upper/, the changes of a container, as an OCI layer: a tar archive with `.wh.` files for removed files. To create
    an overlay from it: `sifkit overlay create --from-tar`.

    To a directory (an existing one, or a name that ends in /) files are copied as they are. In an archive holes become zeros,
    as OCI layers require; with --sparse they are stored as such, which tar, bsdtar and apptainer support. The size of an
    archive is limited to 1 GiB plus 8 times the size of the image. The image is not modified; it fails if another process may
    write to it, or does so while this command runs.
    """
    values.choice("--progress", progress, MODES)
    if not output:
        raise UsageError("-o is missing", hint="write -o layer.tar, or -o DIR/")
    to_directory = output != "-" and (output.endswith("/") or os.path.isdir(output))
    stream = None if output == "-" or to_directory else stream_output(output)
    if json and (output == "-" or (stream is not None and stream.is_stdout)):
        raise UsageError(f"-o {show(output)} and --json both write to standard output", hint="give a file, or omit --json")
    if output != "-" and not to_directory and stream is None:
        if hostio.same_file(image, output):
            raise TargetError(f"will not replace {show(output)}", path=output, hint="give another name")
        check_output(output, ANY_FILE, force=force, noun="archive")
    start = time.monotonic()
    with (
        open_for_reading(console, image, partition, offset=byte_offset(offset), upper=True, marks=True) as opened,
        refuse_changes(opened.images, allowed=allow_changed) as check_unchanged,
        reporter(progress, console) as bar,
    ):
        if to_directory:
            if sparse:
                raise UsageError("--sparse is for archives", hint="omit it: holes are preserved in directories")
            from ...vfs.extracting import extract

            try:
                made = extract(opened.tree, output, force=force, image_ids=host_identities(opened), progress=bar)
            except FileExistsError as error:
                raise not_empty_error(output) from error
            counts = {
                "entries": made.files + made.directories + made.symlinks + made.specials + made.links,
                "content_bytes": made.written_bytes,
                "whiteouts": 0,
                "opaque": 0,
                "errors": made.failed,
            }
            print_losses(console, made)
            check_unchanged()
        else:
            from ...atomic import AtomicFile, new_file_mode
            from ...host_space import full_host_errors
            from ...overlay.oci_layer.layer_export import export_layer
            from ...overlay.oci_layer.layer_size import layer_size

            needed = partial(layer_size, opened.tree, sparse=sparse)
            if output == "-":
                with output_errors("standard output"), full_host_errors("standard output", needed, directory="/dev/stdout"):
                    done = export_layer(opened.tree, console.binary_output, sparse=sparse, progress=bar)
                check_unchanged()
            elif stream is not None:
                with stream.open() as fd, full_host_errors(output, needed), open(fd, "wb", closefd=False) as file:
                    done = export_layer(opened.tree, file, sparse=sparse, progress=bar)
                check_unchanged()
            else:
                with full_host_errors(output, needed), AtomicFile(output, new_file_mode(0o666)) as target:
                    with open(target.fd, "wb", closefd=False) as file:
                        done = export_layer(opened.tree, file, sparse=sparse, progress=bar)
                    check_unchanged()  # what others write from here on is not in the archive
                    target.commit(ANY_FILE if force else None)
            print_failures(console, done.problems, done.failed)
            print_notes(console, done.notes)
            if done.left_out:
                console.note(f"skipped {counted(done.left_out, 'socket')}: tar archives cannot hold them")
            counts = {
                "entries": done.entries,
                "content_bytes": done.content_bytes,
                "whiteouts": done.whiteouts,
                "opaque": done.opaque,
                "errors": done.failed,
            }
    seconds = time.monotonic() - start
    if json:
        console.emit({**name_fields("path", output), **counts, "seconds": round(seconds, 3)}, image=image)
    else:
        entries = counted(counts["entries"], "entry", "entries")
        console.result(f"{show(output)}: {entries}, {human(counts['content_bytes'])}, {seconds:.2f} s")
    return 1 if counts["errors"] else 0
