"""Options and arguments that several verbs share, each declared once.

``verb`` turns a parameter annotated with one of the groups (a dataclass) into the options of its fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from ...errors import UsageError
from .helptext import GENERAL
from .progress import MODES
from .waiting import WAIT_HELP

__all__ = [
    "ZERO_HELP",
    "AttributeName",
    "Dereference",
    "Deterministic",
    "EditArguments",
    "EditFlags",
    "EmbedFlags",
    "Exact",
    "FilesystemEditFlags",
    "ForceReplace",
    "HumanReadable",
    "IDAndImage",
    "JSONResult",
    "JSONTable",
    "NewOwner",
    "ObjectName",
    "Offset",
    "Overlays",
    "Partition",
    "ProgressMode",
    "ReadArguments",
    "ReadFlags",
    "RecursiveChange",
    "ReplaceOverlay",
    "RequireLock",
    "SIFEditFlags",
    "SIFImage",
    "SignatureFlags",
    "Upper",
    "ZeroTerminated",
    "byte_offset",
]

EDITING = "Editing"
OUTPUT = "Output"

SignaturePolicy = Literal["refuse", "drop", "keep"]

ReadArguments = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE [PATH]...", help="image or directory, and paths in it (default: /); or IMAGE:/PATH"),
]
AttributeName = Annotated[str, typer.Argument(metavar="NAME", help="extended attribute, for example user.comment")]
EditArguments = Annotated[list[str], typer.Argument(metavar="IMAGE:/PATH...", help="files and directories")]
SIFImage = Annotated[str, typer.Argument(metavar="IMAGE", help="SIF image")]
IDAndImage = Annotated[
    list[str], typer.Argument(metavar="ID IMAGE", help="object ID and SIF image; write ./4 for an image named 4")
]

Partition = Annotated[
    str | None, typer.Option("--partition", metavar="ID|overlay|root", help="partition to use, if IMAGE is a SIF image")
]
Offset = Annotated[
    str | None,
    typer.Option(
        "--offset", metavar="BYTES", help="where the filesystem begins, if IMAGE is a larger file, such as a disk image"
    ),
]
Overlays = Annotated[
    list[str] | None,
    typer.Option("--overlay", metavar="PATH", help="overlay above IMAGE: image, directory or SIF; later ones are higher"),
]
Upper = Annotated[bool, typer.Option("--upper", help="resolve paths as the container does, below upper/")]
Dereference = Annotated[bool, typer.Option("-L", "--dereference", help="follow symbolic links")]
HumanReadable = Annotated[bool, typer.Option("-h", "--human-readable", help="print sizes in powers of 1024, such as 1.5G")]
ZERO_HELP = "end lines with NUL instead of newline, and do not escape names"
ZeroTerminated = Annotated[bool, typer.Option("-0", "--zero", help=ZERO_HELP)]

AllowChanged = Annotated[bool, typer.Option("--allow-changed", help="accept an image that another process writes to")]
RecursiveChange = Annotated[bool, typer.Option("-R", "--recursive", help="change directories and everything below them")]
Exact = Annotated[
    bool, typer.Option("-T", "--no-target-directory", help="treat the last argument as a file name, never as a directory")
]
NewOwner = Annotated[
    str, typer.Option("--owner", metavar="UID:GID", help="owner of new files; also NAME or NAME:GROUP (default: you)")
]

ForceReplace = Annotated[bool, typer.Option("--force", "-F", help="replace a SIF image or an empty file")]
ObjectName = Annotated[str | None, typer.Option("--name", metavar="NAME", help="select the object by name instead of by ID")]

SHARED_OPTIONS = {
    "--drop-signatures": "remove signatures that the edit breaks",
    "--keep-broken-signatures": "keep signatures that the edit breaks",
    "--require-lock": "fail if file locking is unavailable",
    "--wait SECONDS": WAIT_HELP,
}
"""Options of the verbs that change a SIF image, explained once for all."""
ReplaceOverlay = Annotated[
    bool, typer.Option("--replace", help="replace the writable overlay in the SIF image", rich_help_panel=EDITING)
]
DropSignatures = Annotated[
    bool, typer.Option("--drop-signatures", help=SHARED_OPTIONS["--drop-signatures"], rich_help_panel=GENERAL)
]
KeepSignatures = Annotated[
    bool, typer.Option("--keep-broken-signatures", help=SHARED_OPTIONS["--keep-broken-signatures"], rich_help_panel=GENERAL)
]
RequireLock = Annotated[bool, typer.Option("--require-lock", help=SHARED_OPTIONS["--require-lock"], rich_help_panel=GENERAL)]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic", help="write no timestamps; to write a given one, set SOURCE_DATE_EPOCH", rich_help_panel=EDITING
    ),
]

ProgressMode = Annotated[
    str, typer.Option("--progress", metavar="|".join(MODES), help="how to show progress", rich_help_panel=OUTPUT)
]
JSONResult = Annotated[bool, typer.Option("--json", help="print the result as a JSON object", rich_help_panel=OUTPUT)]
JSONTable = Annotated[bool, typer.Option("--json", help="print a JSON object instead of the table")]


def byte_offset(text: str | None) -> int | None:
    """Return the value of ``--offset``. Raises UsageError."""
    from .values import offset

    return None if text is None else offset("--offset", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFlags:
    """Options of verbs that read files in an image."""

    partition: Partition = None
    overlay: Overlays = None
    offset: Offset = None
    upper: Upper = False

    @property
    def start(self) -> int | None:
        """Byte where the filesystem begins. Raises UsageError."""
        return byte_offset(self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureFlags:
    """Options for signatures that an edit breaks. Raises UsageError if both are given."""

    drop_signatures: DropSignatures = False
    keep_broken_signatures: KeepSignatures = False

    def __post_init__(self) -> None:
        if self.drop_signatures and self.keep_broken_signatures:
            raise UsageError("--drop-signatures and --keep-broken-signatures contradict each other", hint="give one of them")

    @property
    def signatures(self) -> SignaturePolicy:
        """Policy for the signatures, as the library takes it."""
        return "drop" if self.drop_signatures else "keep" if self.keep_broken_signatures else "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemEditFlags(SignatureFlags):
    """Options of verbs that change the filesystem of an overlay as a whole."""

    partition: Partition = None
    offset: Offset = None
    require_lock: RequireLock = False
    json: JSONResult = False

    @property
    def start(self) -> int | None:
        """Byte where the filesystem begins. Raises UsageError."""
        return byte_offset(self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditFlags(FilesystemEditFlags):
    """Options of verbs that change files in an image."""

    overlay: Overlays = None
    upper: Upper = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedFlags(SignatureFlags):
    """Options of verbs that move an overlay into or out of a SIF image."""

    require_lock: RequireLock = False
    deterministic: Deterministic = False
    progress: ProgressMode = "auto"
    json: JSONResult = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SIFEditFlags(SignatureFlags):
    """Options of verbs that change the objects of a SIF image."""

    deterministic: Deterministic = False
    json: JSONResult = False
