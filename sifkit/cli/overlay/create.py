"""``sifkit overlay create``."""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from ...errors import InputError, TargetError, UsageError, counted, human, shell_quote, show
from ..support import values
from ..support.archive_names import is_archive_name
from ..support.console import Console, Fields, name_fields
from ..support.environment import runtime_flag, source_date_epoch, temporary_dir
from ..support.failures import errors_about
from ..support.frame import VerbCommand, verb
from ..support.options import JSONResult, ProgressMode, ReplaceOverlay, RequireLock, SignatureFlags
from ..support.progress import MODES, Reporter, reporter
from ..support.results import (
    next_step_overlay,
    next_step_writable,
    partition_fields,
    partition_text,
    print_notes,
    warn_unlocked,
)

if TYPE_CHECKING:
    from ...overlay.embedding.in_partition import EmbedResult
    from ...overlay.images.reservation import EmbedOptions
    from ...overlay.options import CreateOptions, CreateResult

__all__ = ["command"]

LAYOUTS = ("auto", "root", "upper", "data")
XATTRS = ("default", "all", "none", "strict")
PROFILES = ("default", "conda", "data")
MAX_PATTERN_BYTES = 16 << 20
"""Limit of an exclude file; larger ones are probably images given by mistake."""

SIZE, CONTENT, OWNERS, INODES, FORMAT = (
    "Size and allocation",
    "Content",
    "Owners and permissions",
    "Inodes and blocks",
    "Filesystem",
)


def _option(*names: str, to: str, text: str, **more: Any) -> Any:
    """Option in the help section ``to``."""
    return typer.Option(*names, help=text, rich_help_panel=to, **more)


class _CreateCommand(VerbCommand):
    """Command that knows a source given as one more argument, as other programs take it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        last = args[-1] if args else ""  # the parser takes the list apart
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = _source_option(last) if "unexpected extra argument" in str(error) else ""
            if not option:
                raise
            hint = f"did you mean {option} {shell_quote(last)}?"
            raise UsageError(f"too many arguments: {show(last)}", hint=hint) from error


def _source_option(name: str) -> str:
    """Option that takes this source; empty if it can be none."""
    if os.path.isdir(name):
        return "--from-dir"
    return "--from-tar" if os.path.isfile(name) and is_archive_name(name) else ""


@verb(
    locks=True,
    once=("from_dir", "from_tar"),
    examples=[
        "sifkit overlay create --size 500M",
        "sifkit overlay create --size 500M --from-dir overlay/",
        "sifkit overlay create --size 10G --profile conda --owner me conda.img",
        "sifkit overlay create --from-dir /opt/env --prefix /opt/env --profile conda --owner me env.img",
        "sifkit overlay create --from-tar layer.tar.gz --owner 1000:1000 layer.img",
        "sifkit overlay create --size 500M --owner me image.sif",
        "SOURCE_DATE_EPOCH=0 sifkit overlay create --from-dir overlay/ --owner 1000:1000 overlay.img",
    ],
    kind=_CreateCommand,
)
def command(
    console: Console,
    *,
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="file to create (default: overlay.img), or a SIF image")
    ] = "overlay.img",
    size: Annotated[
        str,
        _option(
            "--size",
            "-s",
            to=SIZE,
            metavar="SIZE",
            text="size as 500M or 1.5G (a bare number is in MiB), or auto: the content plus 25 %, at least 64M",
        ),
    ] = "auto",
    sparse: Annotated[
        bool | None,
        _option(
            "--sparse/--no-sparse", "-S", to=SIZE, text="leave unused blocks as holes (the default), or allocate all blocks"
        ),
    ] = None,
    force: Annotated[
        bool, _option("--force", "-F", to=SIZE, text="replace IMAGE if it is an ext3 image not in use, or empty")
    ] = False,
    from_dir: Annotated[
        str | None, _option("--from-dir", "-d", to=CONTENT, metavar="DIR", text="copy the content of DIR")
    ] = None,
    from_tar: Annotated[
        str | None,
        _option(
            "--from-tar",
            to=CONTENT,
            metavar="FILE",
            text="extract a tar archive (plain, gzip, bzip2, xz or zstd) or container layer; - for standard input. Data of a"
            " compressed or piped archive is kept in TMPDIR (default: beside IMAGE) until the image is written",
        ),
    ] = None,
    layout: Annotated[
        str,
        _option(
            "--layout",
            to=CONTENT,
            metavar="|".join(LAYOUTS),
            text="where the source goes: root (the image's root, as mkfs.ext3 -d), upper (upper/), data (the root, without"
            " creating upper/ and work/), or auto: root if the source has only upper/ (and work/), else upper",
        ),
    ] = "auto",
    prefix: Annotated[
        str | None,
        _option(
            "--prefix",
            to=CONTENT,
            metavar="PATH",
            text="put the source at PATH of the container, such as /opt/env (default: /)",
        ),
    ] = None,
    create_dir: Annotated[
        list[str] | None, _option("--create-dir", to=CONTENT, metavar="PATH", text="create this directory below upper/")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        _option("--exclude", to=CONTENT, metavar="GLOB", text="exclude paths that match GLOB; ** matches across directories"),
    ] = None,
    exclude_from: Annotated[
        list[str] | None,
        _option("--exclude-from", to=CONTENT, metavar="FILE", text="read exclude patterns from FILE, one per line"),
    ] = None,
    one_file_system: Annotated[
        bool, _option("--one-file-system", "-x", to=CONTENT, text="do not cross filesystem boundaries")
    ] = False,
    xattrs: Annotated[
        str,
        _option(
            "--xattrs",
            to=CONTENT,
            metavar="|".join(XATTRS),
            text="extended attributes to keep: default drops host labels (SELinux, IMA and the like) and those ext3 cannot"
            " hold; strict fails if one would be lost",
        ),
    ] = "default",
    skip_unreadable: Annotated[
        bool, _option("--skip-unreadable", to=CONTENT, text="skip and list files that cannot be read")
    ] = False,
    allow_changed: Annotated[
        bool, _option("--allow-changed", to=CONTENT, text="accept files that change while they are read")
    ] = False,
    owner: Annotated[
        str | None,
        _option("--owner", to=OWNERS, metavar="UID:GID|NAME|me", text="owner of all files (default: as in the source)"),
    ] = None,
    upper_owner: Annotated[
        str | None, _option("--upper-owner", to=OWNERS, metavar="UID:GID|NAME|me", text="owner of upper/ and work/ only")
    ] = None,
    fakeroot: Annotated[bool | None, _option("--fakeroot", "-f", to=OWNERS, text="same as --owner 0:0")] = None,
    mode: Annotated[str, _option("--mode", to=OWNERS, metavar="MODE", text="mode of the image file, in octal")] = "0600",
    inodes: Annotated[
        str | None, _option("--inodes", "-N", to=INODES, metavar="COUNT", text="number of inodes, such as 200000, 500K or 1.5M")
    ] = None,
    inode_ratio: Annotated[
        str | None, _option("--inode-ratio", "-i", to=INODES, metavar="BYTES", text="bytes per inode, from 1K to 64M")
    ] = None,
    profile: Annotated[
        str | None,
        _option(
            "--profile",
            to=INODES,
            metavar="|".join(PROFILES),
            text="bytes per inode for many small files (conda; with --prefix for such a source) or few large files (data);"
            " -N and -i override it",
        ),
    ] = None,
    block_size: Annotated[
        str | None,
        _option(
            "--block-size",
            "-b",
            to=INODES,
            metavar="1024|2048|4096",
            text="block size (default: 1024 for images below 512M, else 4096)",
        ),
    ] = None,
    inode_size: Annotated[
        str,
        _option("--inode-size", "-I", to=INODES, metavar="BYTES", text="inode size: a power of two from 128 to the block size"),
    ] = "256",
    reserved: Annotated[
        str | None,
        _option(
            "--reserved-percent",
            "-m",
            to=INODES,
            metavar="PERCENT",
            text="percentage of blocks reserved for root, from 0 to 50 (default: one block)",
        ),
    ] = None,
    label: Annotated[str, _option("--label", "-L", to=FORMAT, metavar="TEXT", text="volume label, at most 16 bytes")] = "",
    uuid: Annotated[str, _option("--uuid", "-U", to=FORMAT, metavar="UUID", text="volume UUID")] = "random",
    journal_size: Annotated[
        str | None,
        _option(
            "--journal",
            "-J",
            to=FORMAT,
            metavar="size=SIZE",
            text="journal size (default: from the size of the image)",
        ),
    ] = None,
    no_journal: Annotated[bool, _option("--no-journal", to=FORMAT, text="create ext2, which Apptainer refuses")] = False,
    reproducible: Annotated[
        bool,
        _option(
            "--reproducible",
            to=FORMAT,
            text="create the same bytes from the same input; implied by SOURCE_DATE_EPOCH, which sets the time",
        ),
    ] = False,
    replace: ReplaceOverlay = False,
    flags: SignatureFlags,
    require_lock: RequireLock = False,
    progress: ProgressMode = "auto",
    json: JSONResult = False,
) -> None:
    """Create an overlay image for `apptainer exec --overlay`: an ext3 filesystem with upper/ and work/, empty or with the
    content of a directory or tar archive. Owners, times, extended attributes and hard links of the source are preserved.

    Needs no root privileges, mounting or external programs. Writes are atomic: an interrupted command leaves no image.

    If IMAGE is a SIF image, the overlay is created in it, for `apptainer exec --writable`. The options under Editing are for
    SIF images only.
    """
    values.choice("--progress", progress, MODES)
    if from_dir is not None and from_tar is not None:
        raise UsageError("--from-dir and --from-tar exclude each other", hint="give one source")
    if fakeroot and (owner is not None or upper_owner is not None):
        option = "--owner" if owner is not None else "--upper-owner"
        raise UsageError(f"--fakeroot and {option} contradict each other", hint="give one of them")
    if from_dir is None and from_tar is None and os.path.isdir(image):
        raise UsageError(f"{show(image)} is a directory", hint=f"did you mean --from-dir {shell_quote(image)}?")
    asked_fakeroot = bool(fakeroot)
    if fakeroot is None and owner is None and upper_owner is None:
        fakeroot = runtime_flag("FAKEROOT", console)
    if sparse is None:
        sparse = runtime_flag("SPARSE", console, default=True)
    chosen: dict[str, Any] = {
        "size": None if size.strip().lower() == "auto" else values.size("--size", size),
        "sparse": sparse,
        "force": force,
        "from_dir": from_dir,
        "from_tar": _archive(from_tar),
        "layout": values.choice("--layout", layout, LAYOUTS),
        "prefix": prefix,
        "create_dirs": tuple(create_dir or ()),
        "exclude": _excluded(exclude or [], exclude_from or []),
        "one_file_system": one_file_system,
        "xattrs": values.choice("--xattrs", xattrs, XATTRS),
        "skip_unreadable": skip_unreadable,
        "allow_changed": allow_changed,
        "temporary_dir": temporary_dir(),
        "owner": (0, 0) if fakeroot else values.owner("--owner", owner) if owner is not None else None,
        "upper_owner": values.owner("--upper-owner", upper_owner) if upper_owner is not None else None,
        "mode": values.mode("--mode", mode),
        "inodes": values.count("--inodes", inodes) if inodes is not None else None,
        "inode_ratio": values.size("--inode-ratio", inode_ratio, bare=1, example="16K") if inode_ratio is not None else None,
        "profile": values.choice("--profile", profile, PROFILES) if profile is not None else None,
        "block_size": values.size("--block-size", block_size, bare=1, example="4096") if block_size is not None else None,
        "inode_size": values.size("--inode-size", inode_size, bare=1, example="256"),
        "reserved_percent": None if reserved is None else values.percent("--reserved-percent", reserved),
        "label": values.label("--label", label),
        "uuid": values.uuid("--uuid", uuid),
        "journal_bytes": values.journal_size("--journal", journal_size) if journal_size is not None else None,
        "journal": not no_journal,
        "source_date_epoch": source_date_epoch(),
        "reproducible": reproducible,
    }
    from ...overlay.images.image_format import is_sif
    from ...overlay.options import CreateOptions

    options = CreateOptions(**chosen)
    if is_sif(image):
        from ...overlay.images.reservation import EmbedOptions

        embedding = EmbedOptions(replace=replace, on_signatures=flags.signatures, require_lock=require_lock)
        _embed(console, image, options, embedding, progress)
        return
    given = {
        "--replace": replace,
        "--drop-signatures": flags.drop_signatures,
        "--keep-broken-signatures": flags.keep_broken_signatures,
        "--require-lock": require_lock,
    }
    for option in (name for name, value in given.items() if value):
        hint = "give a SIF image, or --force to replace an image" if option == "--replace" else "give a SIF image, or omit it"
        raise UsageError(f"{option} is for SIF images, and {show(image)} is not one", hint=hint)
    try:
        _create(console, image, options, progress)
    except TargetError as error:
        if asked_fakeroot and not force and os.path.lexists(image):
            error.hint = "to replace it use --force (-F); -f is --fakeroot"
        raise


def _embed(console: Console, image: str, options: CreateOptions, embedding: EmbedOptions, progress: str) -> None:
    from ...overlay.embedding.in_partition import embed

    console.image = image
    with errors_about(image), reporter(progress, console) as bar:
        done = embed(image, options, embedding, progress=bar)
    warn_unlocked(console, image, done.locked)
    _print_notes(console, done.created, options)
    _print_details(console, done.created, bar)
    if console.json:
        console.emit(_fields(done.created, done), image=image)
        return
    replaced = f", replaces one of {human(done.replaced_bytes)}" if done.replaced_bytes else ""
    console.result(f"{_result_line(done.created, options)}; {partition_text(done.partition)}{replaced}")
    if options.journal and done.created.layout != "data":
        next_step_writable(console, image)


def _create(console: Console, image: str, options: CreateOptions, progress: str) -> None:
    from ...overlay.creating.standalone import create

    with reporter(progress, console) as bar:
        made = create(image, options, progress=bar)
    _print_notes(console, made, options)
    _print_details(console, made, bar)
    if console.json:
        console.emit(_fields(made), image=image)
        return
    console.result(_result_line(made, options))
    if options.journal and made.layout != "data":
        next_step_overlay(console, image)


def _print_notes(console: Console, made: CreateResult, options: CreateOptions) -> None:
    """Print where the source went, on a terminal; warnings and notes."""
    if console.err_is_terminal and options.layout == "auto" and (options.from_dir or options.from_tar):
        if made.layout == "root":
            console.note("the source is an overlay (upper/ at its top): it becomes the root of the image (--layout root)")
        else:
            path = "/" if options.prefix is None else "/" + options.prefix.strip("/")
            console.note(f"the source goes below upper/: the container sees it at {show(path)}")
    for warning in made.warnings:
        console.warn(warning)
    print_notes(console, made.notes)


def _print_details(console: Console, made: CreateResult, bar: Reporter) -> None:
    """Print layout, exclusions, geometry and times, with -v."""
    excluded = f", {counted(made.excluded, 'entry', 'entries')} excluded" if made.excluded else ""
    console.detail(f"layout: {made.layout}, {counted(made.files, 'entry', 'entries')} copied{excluded}")
    journal = f"journal of {human(made.journal_bytes)}" if made.journal_bytes else "no journal"
    console.detail(
        f"geometry: blocks of {human(made.block_size)}, {counted(made.groups, 'group')}, {made.inodes:,} inodes of"
        f" {made.inode_size} bytes, {journal}, UUID {made.uuid}"
    )
    bar.print_times(console)


def _result_line(made: CreateResult, options: CreateOptions) -> str:
    pieces = [f"{human(made.size_bytes)}, {human(made.used_bytes)} used"]
    if options.from_dir is not None or options.from_tar is not None:
        pieces.append(f"{counted(made.files, 'entry', 'entries')} ({human(made.content_bytes)})")
    pieces.append(f"{made.inodes_used:,} of {made.inodes:,} inodes, {made.seconds:.2f} s")
    return f"{show(made.path)}: {', '.join(pieces)}"


def _fields(made: CreateResult, embedded: EmbedResult | None = None) -> Fields:
    return {
        **name_fields("path", made.path),
        "size_bytes": made.size_bytes,
        "used_bytes": made.used_bytes,
        "free_bytes": made.free_bytes,
        "block_bytes": made.block_size,
        "inode_bytes": made.inode_size,
        "journal_bytes": made.journal_bytes,
        "groups": made.groups,
        "inodes": made.inodes,
        "inodes_used": made.inodes_used,
        "files": made.files,
        "excluded": made.excluded,
        "content_bytes": made.content_bytes,
        "layout": made.layout,
        **name_fields("label", made.label),
        "uuid": str(made.uuid),
        "seconds": round(made.seconds, 3),
        "notes": list(made.notes),
        "warnings": list(made.warnings),
        "partition": None if embedded is None else partition_fields(embedded.partition),
        "replaced_bytes": 0 if embedded is None else embedded.replaced_bytes,
        "dropped_signatures": [] if embedded is None else list(embedded.dropped),
    }


def _archive(given: str | None) -> Any:
    """Archive as the library takes it: a path, or standard input."""
    return _stdin("--from-tar", "an archive") if given == "-" else given


def _stdin(option: str, what: str) -> IO[bytes]:
    if sys.stdin is None or sys.stdin.isatty():
        state = "closed" if sys.stdin is None else "a terminal"
        raise UsageError(f"{option} -: standard input is {state}", hint=f"pipe {what} in, or give a file")
    return sys.stdin.buffer


def _excluded(patterns: list[str], files: list[str]) -> tuple[str, ...]:
    """Exclude patterns of the command line and of files."""
    found = list(patterns)
    for name in files:
        data = _read_patterns(name)
        found += values.globs("--exclude-from", name, data)
    return tuple(found)


def _read_patterns(name: str) -> bytes:
    try:
        if name == "-":
            data = _stdin("--exclude-from", "a list of patterns").read(MAX_PATTERN_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(MAX_PATTERN_BYTES + 1)
    except OSError as error:
        message = f"--exclude-from {show(name)}: {error.strerror}"
        raise InputError(message, path=name, hint="give a file with one pattern per line", error=error) from error
    if len(data) > MAX_PATTERN_BYTES:
        raise UsageError(f"--exclude-from {show(name)}: more than {human(MAX_PATTERN_BYTES)}", hint="give a file of patterns")
    return data
