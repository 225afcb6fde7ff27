"""Codes of the SIF format on the command line: a table of words and numbers for help pages, and parsers of values.

The table loads nothing of ``sifkit.sif``. Parsers raise UsageError that names option and value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ...errors import UsageError, show
from ..support import values

if TYPE_CHECKING:
    from ...sif import Arch
    from ...sif.format.types import Code

    C = TypeVar("C", bound=Code)

__all__ = [
    "TABLES",
    "alignment",
    "arch",
    "capacity",
    "code",
    "fingerprint",
    "group",
    "launch",
    "link_options",
    "listed",
    "name",
    "name_option",
    "number",
    "optional",
]

MAX_GROUP = 0x0FFFFFFF
MAX_CAPACITY = 16384
NAME_BYTES = 128
LAUNCH_BYTES = 31
MAX_ALIGNMENT = 1 << 30

TABLES: dict[str, dict[str, int]] = {
    "DATATYPE": {
        "deffile": 1,
        "envvar": 2,
        "labels": 3,
        "partition": 4,
        "signature": 5,
        "genericjson": 6,
        "generic": 7,
        "cryptomessage": 8,
        "sbom": 9,
        "ocirootindex": 10,
        "ociblob": 11,
    },
    "PARTTYPE": {"system": 1, "primsys": 2, "data": 3, "overlay": 4},
    "FS": {"squashfs": 1, "ext3": 2, "immuobj": 3, "raw": 4, "encryptedsquashfs": 5, "gocryptfssquashfs": 6},
    "ARCH": {
        "386": 1,
        "amd64": 2,
        "arm": 3,
        "arm64": 4,
        "ppc64": 5,
        "ppc64le": 6,
        "mips": 7,
        "mipsle": 8,
        "mips64": 9,
        "mips64le": 10,
        "s390x": 11,
        "riscv64": 12,
        "loong64": 13,
    },
    "HASH": {"sha256": 1, "sha384": 2, "sha512": 3, "blake2s256": 4, "blake2b256": 5},
    "FORMAT": {"openpgp": 1, "pem": 2},
    "MESSAGE": {"clearsignature": 0x100, "rsaoaep": 0x200},
    "SBOM": {
        "cyclonedx-json": 1,
        "cyclonedx-xml": 2,
        "github-json": 3,
        "spdx-json": 4,
        "spdx-rdf": 5,
        "spdx-tag-value": 6,
        "spdx-yaml": 7,
        "syft-json": 8,
    },
}
"""Words and siftool's numbers, by the placeholder in help pages."""

T = TypeVar("T")


def listed(table: str) -> str:
    """Words and numbers of a table as text: ``system=1, primsys=2``."""
    return ", ".join(f"{word}={number}" if number < 0x100 else f"{word}={number:#x}" for word, number in TABLES[table].items())


def optional(parse: Callable[[str, str], T], option: str, text: str | None) -> T | None:
    """Return ``parse(option, text)``; None if the option is not given."""
    return None if text is None else parse(option, text)


def code(kind: type[C], option: str, text: str) -> C:
    """Parse a word or a number, decimal or 0x, into a member of ``kind``."""
    from ...sif import UnknownCodeError

    try:
        return kind.parse(text)
    except UnknownCodeError as error:
        suggested = values.closest(text.lower(), [word for member in kind.choices() for word in (member.word, *member.aliases)])
        hint = f"did you mean {suggested}?" if suggested else error.hint
        raise UsageError(f"{option} {show(text)[:80]}: unknown {kind.what()}", hint=hint) from error


def capacity(option: str, text: str, *, least: int = 0) -> int:
    """Parse a number of descriptors."""
    hint = "48 is usual" if least else "48 is usual; 0 is as few as are needed"
    return number(option, text, least, MAX_CAPACITY, hint=hint)


def arch(option: str, text: str) -> Arch:
    """Parse an architecture: word, number, or the kernel's name for it."""
    from ...sif import Arch

    return code(Arch, option, text)


def number(option: str, text: str, low: int, high: int, *, hint: str) -> int:
    """Parse an integer, decimal or 0x."""
    plain = text.strip().lower()
    if not re.fullmatch(r"-?([0-9]{1,20}|0x[0-9a-f]{1,16})", plain, re.ASCII):
        raise UsageError(f"{option} {show(text)[:80]}: not a number", hint=hint)
    value = int(plain, 16 if "x" in plain else 10)
    if not low <= value <= high:
        raise UsageError(f"{option} {show(text)[:80]}: must be from {low} to {high}", hint=hint)
    return value


def alignment(option: str, text: str) -> int:
    """Parse an alignment in bytes; 0 or less aligns nothing."""
    limit = MAX_ALIGNMENT
    return number(option, text, -limit, limit, hint="4096 is usual for partitions, 0 is none")


def group(option: str, text: str) -> int:
    """Parse a group number or an object ID; 0 is none."""
    return number(option, text, 0, MAX_GROUP, hint="0 is none")


def name(option: str, text: str) -> bytes:
    """Parse the name of an object."""
    return values.name(option, text, NAME_BYTES, "name", hint="give a shorter one with --name")


def fingerprint(option: str, text: str) -> bytes:
    """Parse an OpenPGP v4 fingerprint in hexadecimal into 20 bytes, ignoring spaces and colons; ``none`` gives no bytes."""
    if text.lower() == "none":
        return b""
    digits = text.replace(" ", "").replace(":", "").removeprefix("0x")
    if not re.fullmatch(r"[0-9a-fA-F]{40}", digits, re.ASCII):
        raise UsageError(
            f"{option} {show(text)[:80]}: not a fingerprint of 40 hexadecimal digits",
            hint="see gpg --fingerprint; write none for signatures made with a PEM key",
        )
    return bytes.fromhex(digits)


def launch(option: str, text: str) -> bytes:
    """Parse a launch script; the newline that a ``#!`` line needs is added."""
    raw = os.fsencode(text).replace(b"\\n", b"\n")
    if raw.startswith(b"#!") and not raw.endswith(b"\n"):
        raw += b"\n"
    if len(raw) > LAUNCH_BYTES:
        message = f"{option} {show(text)}: {len(raw)} bytes with its newline; at most {LAUNCH_BYTES} fit"
        raise UsageError(message, hint="usual is '#!/usr/bin/env run-singularity'")
    return raw


def name_option(text: str | None, no_name: bool) -> bytes | None:
    """Parse --name and --no-name; None if neither is given. Raises UsageError."""
    if text is not None and no_name:
        raise UsageError("--name and --no-name contradict each other", hint="give one of them")
    return b"" if no_name else optional(name, "--name", text)


def link_options(link: str | None, link_group: str | None) -> tuple[int | None, int | None]:
    """Parse --link and --link-group; None for one that is not given. Raises UsageError."""
    linked_object = optional(group, "--link", link)
    linked_group = optional(group, "--link-group", link_group)
    if linked_object and linked_group:
        raise UsageError("--link and --link-group exclude each other", hint="an object is linked to one of them")
    return linked_object, linked_group
