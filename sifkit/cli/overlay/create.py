"""``sifkit overlay create``."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from ...errors import InputError, UsageError, counted, human, show
from ..sif.session import concerning
from ..support import values
from ..support.console import Console, Fields, named
from ..support.embedding import (
    DropSignatures,
    KeepSignatures,
    Replace,
    RequireLock,
    on_signatures,
    partition_fields,
    partition_text,
    tell_locks,
)
from ..support.environment import runtime_flag, source_date_epoch
from ..support.frame import verb
from ..support.progress import MODES, Reporter, reporter
from ..support.render import shell_word

if TYPE_CHECKING:
    from ...overlay.embedding.in_partition import EmbedResult
    from ...overlay.embedding.reservation import EmbedOptions
    from ...overlay.options import CreateOptions, CreateResult

__all__ = ["command"]

LAYOUTS = ("auto", "root", "upper", "data")
XATTRS = ("default", "all", "none", "strict")
PROFILES = ("default", "conda", "data")
PATTERN_BYTES = 16 << 20
"""No list of patterns is as long as this; an image given by mistake is."""

SIZE, WHAT, OWNERS, INODES, FORMAT, OUTPUT = (
    "Size and place",
    "What goes in",
    "Owners and permissions",
    "Inodes and blocks",
    "Filesystem",
    "Output",
)


def _option(*names: str, to: str, text: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=to, **more)


@verb(
    taken="d",
    once=("from_dir", "from_tar"),
    examples=[
        "sifkit overlay create --size 500M",
        "sifkit overlay create --size 500M --from-dir overlay/",
        "sifkit overlay create --size 10G --profile conda --owner me conda.img",
        "sifkit overlay create --from-tar layer.tar.gz --owner 1000:1000 layer.img",
        "sifkit overlay create --size 500M --owner me image.sif",
        "SOURCE_DATE_EPOCH=0 sifkit overlay create --from-dir overlay/ --owner 1000:1000 overlay.img",
    ],
)
def command(
    console: Console,
    *,
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="the file to make (default: overlay.img), or a SIF image")
    ] = "overlay.img",
    size: Annotated[
        str,
        _option(
            "--size",
            "-s",
            to=SIZE,
            metavar="SIZE",
            text="500M, 1.5G ..., a bare number is MiB; auto: the content and 25 %, at least 64M",
        ),
    ] = "auto",
    sparse: Annotated[
        bool | None,
        _option(
            "--sparse/--no-sparse", "-S", to=SIZE, text="leave unused parts as holes (the default), or allocate all of it now"
        ),
    ] = None,
    force: Annotated[
        bool, _option("--force", "-F", to=SIZE, text="replace IMAGE if it is an unused ext3 image or empty")
    ] = False,
    from_dir: Annotated[str | None, _option("--from-dir", "-d", to=WHAT, metavar="DIR", text="take in this directory")] = None,
    from_tar: Annotated[
        str | None,
        _option(
            "--from-tar",
            to=WHAT,
            metavar="FILE",
            text="take in this tar archive (plain, gz, xz, zst; a container layer too); - is standard input",
        ),
    ] = None,
    layout: Annotated[
        str,
        _option(
            "--layout",
            to=WHAT,
            metavar="|".join(LAYOUTS),
            text="where the source goes: root (the image's root, as mkfs.ext3 -d), upper (below upper/), data (the root,"
            " without upper/ and work/ added); auto: root if it holds nothing but upper/ (and work/), else upper",
        ),
    ] = "auto",
    create_dir: Annotated[
        list[str] | None, _option("--create-dir", to=WHAT, metavar="PATH", text="make this directory below upper/")
    ] = None,
    exclude: Annotated[
        list[str] | None, _option("--exclude", to=WHAT, metavar="GLOB", text="leave out what matches; ** crosses directories")
    ] = None,
    exclude_from: Annotated[
        list[str] | None, _option("--exclude-from", to=WHAT, metavar="FILE", text="leave out what matches a line of FILE")
    ] = None,
    one_file_system: Annotated[
        bool, _option("--one-file-system", "-x", to=WHAT, text="do not enter other mounted filesystems")
    ] = False,
    xattrs: Annotated[
        str,
        _option(
            "--xattrs",
            to=WHAT,
            metavar="|".join(XATTRS),
            text="extended attributes: default leaves out host labels (SELinux, IMA ...) and what ext3 cannot hold;"
            " strict: a loss is an error",
        ),
    ] = "default",
    skip_unreadable: Annotated[
        bool, _option("--skip-unreadable", to=WHAT, text="leave out what cannot be read, and list it")
    ] = False,
    allow_changed: Annotated[
        bool, _option("--allow-changed", to=WHAT, text="take files that change while they are read as they come")
    ] = False,
    owner: Annotated[
        str | None,
        _option("--owner", to=OWNERS, metavar="UID:GID|NAME|me", text="owner of every entry (default: as in the source)"),
    ] = None,
    upper_owner: Annotated[
        str | None, _option("--upper-owner", to=OWNERS, metavar="UID:GID|NAME|me", text="owner of upper/ and work/ only")
    ] = None,
    fakeroot: Annotated[
        bool | None, _option("--fakeroot", "-f", to=OWNERS, text="everything belongs to root, as --owner 0:0")
    ] = None,
    mode: Annotated[str, _option("--mode", to=OWNERS, metavar="MODE", text="permissions of the image file, in octal")] = "0600",
    inodes: Annotated[
        str | None, _option("--inodes", "-N", to=INODES, metavar="COUNT", text="number of inodes: 200000, 500K, 1.5M")
    ] = None,
    inode_ratio: Annotated[
        str | None, _option("--inode-ratio", "-i", to=INODES, metavar="BYTES", text="one inode for so many bytes, 1K to 64M")
    ] = None,
    profile: Annotated[
        str | None,
        _option(
            "--profile",
            to=INODES,
            metavar="|".join(PROFILES),
            text="inodes for many small files (conda), or few large ones (data); -N and -i win",
        ),
    ] = None,
    block_size: Annotated[
        str | None,
        _option(
            "--block-size",
            "-b",
            to=INODES,
            metavar="1024|2048|4096",
            text="bytes in a block (default: 1024 below 512M, else 4096)",
        ),
    ] = None,
    inode_size: Annotated[
        str,
        _option("--inode-size", "-I", to=INODES, metavar="BYTES", text="bytes of an inode: 128, 256, 512 ... up to a block"),
    ] = "256",
    reserved: Annotated[
        str,
        _option(
            "--reserved-percent",
            "-m",
            to=INODES,
            metavar="PERCENT",
            text="blocks only root may fill, 0 to 50: an overlay's user is not root",
        ),
    ] = "0",
    label: Annotated[str, _option("--label", "-L", to=FORMAT, metavar="TEXT", text="volume label, at most 16 bytes")] = "",
    uuid: Annotated[str, _option("--uuid", "-U", to=FORMAT, metavar="UUID", text="volume UUID")] = "random",
    journal_size: Annotated[
        str | None,
        _option(
            "--journal",
            "-J",
            to=FORMAT,
            metavar="size=SIZE",
            text="size of the journal (default: by the size of the image)",
        ),
    ] = None,
    no_journal: Annotated[bool, _option("--no-journal", to=FORMAT, text="ext2: Apptainer refuses it")] = False,
    reproducible: Annotated[
        bool,
        _option(
            "--reproducible",
            to=FORMAT,
            text="the same input gives the same bytes; SOURCE_DATE_EPOCH does so too, and sets the time",
        ),
    ] = False,
    replace: Replace = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    progress: Annotated[
        str, _option("--progress", to=OUTPUT, metavar="|".join(MODES), text="how to tell how far it is")
    ] = "auto",
    json: Annotated[bool, _option("--json", to=OUTPUT, text="the result as one JSON object")] = False,
) -> None:
    """Make an overlay image: an ext3 filesystem with upper/ and work/, as `apptainer exec --overlay` takes it; empty, or
    with the content of a directory or tar archive, with owners, times, attributes and hard links as they are there.

    Needs no root, no mounting and no other program. The image appears whole or not at all. Where IMAGE is a SIF image, the
    overlay is made inside it, for `apptainer exec --writable`.
    """
    values.choice("--progress", progress, MODES)
    if from_dir is not None and from_tar is not None:
        raise UsageError("--from-dir and --from-tar exclude each other", hint="give one source")
    if fakeroot and (owner is not None or upper_owner is not None):
        option = "--owner" if owner is not None else "--upper-owner"
        raise UsageError(f"--fakeroot and {option} contradict each other", hint="give one of them")
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
        "create_dirs": tuple(create_dir or ()),
        "exclude": _excluded(exclude or [], exclude_from or []),
        "one_file_system": one_file_system,
        "xattrs": values.choice("--xattrs", xattrs, XATTRS),
        "skip_unreadable": skip_unreadable,
        "allow_changed": allow_changed,
        "owner": (0, 0) if fakeroot else values.owner("--owner", owner) if owner is not None else None,
        "upper_owner": values.owner("--upper-owner", upper_owner) if upper_owner is not None else None,
        "mode": values.mode("--mode", mode),
        "inodes": values.count("--inodes", inodes) if inodes is not None else None,
        "inode_ratio": values.size("--inode-ratio", inode_ratio, bare=1, example="16K") if inode_ratio is not None else None,
        "profile": values.choice("--profile", profile, PROFILES) if profile is not None else None,
        "block_size": values.size("--block-size", block_size, bare=1, example="4096") if block_size is not None else None,
        "inode_size": values.size("--inode-size", inode_size, bare=1, example="256"),
        "reserved_percent": values.percent("--reserved-percent", reserved),
        "label": values.label("--label", label),
        "uuid": values.uuid("--uuid", uuid),
        "journal_bytes": values.journal_size("--journal", journal_size) if journal_size is not None else None,
        "journal": not no_journal,
        "source_date_epoch": source_date_epoch(),
        "reproducible": reproducible,
    }
    embedding: dict[str, Any] = {
        "replace": replace,
        "on_signatures": on_signatures(drop_signatures, keep_broken_signatures),
        "require_lock": require_lock,
    }
    from ...overlay.image_format import is_sif
    from ...overlay.options import CreateOptions

    options = CreateOptions(**chosen)
    if is_sif(image):
        from ...overlay.embedding.reservation import EmbedOptions

        _embed(console, image, options, EmbedOptions(**embedding), progress)
        return
    given = {"--replace": replace, "--drop-signatures": drop_signatures, "--keep-broken-signatures": keep_broken_signatures}
    for option in (name for name, value in (given | {"--require-lock": require_lock}).items() if value):
        hint = (
            "name a SIF image, or --force to replace an image" if option == "--replace" else "name a SIF image, or leave it out"
        )
        raise UsageError(f"{option} is for SIF images, and {show(image)} is none", hint=hint)
    _make(console, image, options, progress)


def _embed(console: Console, image: str, options: CreateOptions, embedding: EmbedOptions, progress: str) -> None:
    from ...overlay.embedding.in_partition import embed

    console.image = image
    with concerning(image), reporter(progress, console) as bar:
        done = embed(image, options, embedding, progress=bar)
    tell_locks(console, image, done.locked)
    for note in done.made.notes:
        console.note(note)
    _details(console, done.made, bar)
    if console.json:
        console.emit(_fields(done.made, done), image=image)
        return
    with_source = options.from_dir is not None or options.from_tar is not None
    instead = f", instead of one of {human(done.replaced_bytes)}" if done.replaced_bytes else ""
    console.result(f"{_result_line(done.made, with_source=with_source)}; {partition_text(done.partition)}{instead}")
    if console.err_is_terminal and options.journal and done.made.layout != "data":
        console.note(f"use it: apptainer exec --writable {shell_word(image)} CMD")


def _make(console: Console, image: str, options: CreateOptions, progress: str) -> None:
    from ...overlay.creating.standalone import create

    with reporter(progress, console) as bar:
        made = create(image, options, progress=bar)
    for note in made.notes:
        console.note(note)
    _details(console, made, bar)
    if console.json:
        console.emit(_fields(made), image=image)
        return
    console.result(_result_line(made, with_source=options.from_dir is not None or options.from_tar is not None))
    if console.err_is_terminal and options.journal and made.layout != "data":
        console.note(f"use it: apptainer exec --overlay {shell_word(image)} IMAGE.sif CMD")


def _details(console: Console, made: CreateResult, bar: Reporter) -> None:
    """What -v tells: the layout, what was kept out, the geometry, where the time went."""
    excluded = f", {counted(made.excluded, 'entry', 'entries')} excluded" if made.excluded else ""
    console.detail(f"layout: {made.layout}, {counted(made.files, 'entry', 'entries')} taken in{excluded}")
    journal = f"journal of {human(made.journal_bytes)}" if made.journal_bytes else "no journal"
    console.detail(
        f"geometry: blocks of {human(made.block_size)}, {counted(made.groups, 'group')}, {made.inodes:,} inodes of"
        f" {made.inode_size} bytes, {journal}, UUID {made.uuid}"
    )
    bar.tell_times(console)


def _result_line(made: CreateResult, *, with_source: bool) -> str:
    pieces = [f"{human(made.size_bytes)}, {human(made.used_bytes)} used"]
    if with_source:
        pieces.append(f"{counted(made.files, 'entry', 'entries')} ({human(made.content_bytes)})")
    pieces.append(f"{made.inodes_used:,} of {made.inodes:,} inodes, {made.seconds:.2f} s")
    return f"{show(made.path)}: {', '.join(pieces)}"


def _fields(made: CreateResult, embedded: EmbedResult | None = None) -> Fields:
    return {
        **named("path", made.path),
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
        **named("label", made.label),
        "uuid": str(made.uuid),
        "seconds": round(made.seconds, 3),
        "notes": list(made.notes),
        "partition": None if embedded is None else partition_fields(embedded.partition),
        "replaced_bytes": 0 if embedded is None else embedded.replaced_bytes,
        "dropped_signatures": [] if embedded is None else list(embedded.dropped),
    }


def _archive(given: str | None) -> Any:
    return _stdin("--from-tar", "an archive") if given == "-" else given


def _stdin(option: str, what: str) -> IO[bytes]:
    if sys.stdin is None or sys.stdin.isatty():
        state = "closed" if sys.stdin is None else "a terminal"
        raise UsageError(f"{option} -: standard input is {state}", hint=f"pipe {what} in, or name its file")
    return sys.stdin.buffer


def _excluded(patterns: list[str], files: list[str]) -> tuple[str, ...]:
    found = list(patterns)
    for name in files:
        data = _patterns(name)
        found += values.globs("--exclude-from", name, data)
    return tuple(found)


def _patterns(name: str) -> bytes:
    try:
        if name == "-":
            data = _stdin("--exclude-from", "a list of patterns").read(PATTERN_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(PATTERN_BYTES + 1)
    except OSError as error:
        message = f"--exclude-from {show(name)}: {error.strerror}"
        raise InputError(message, path=name, hint="name a file with one pattern a line", error=error) from error
    if len(data) > PATTERN_BYTES:
        raise UsageError(f"--exclude-from {show(name)}: more than {human(PATTERN_BYTES)}", hint="name a file of patterns")
    return data
