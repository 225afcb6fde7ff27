"""Words and numbers for the format's codes on the command line: a table for the help pages, which load nothing, and the
functions that turn what was written into a value. All raise UsageError with the option and the value in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ...errors import UsageError, show
from ..support.values import closest, uuid

if TYPE_CHECKING:
    from uuid import UUID

    from ...sif import Arch
    from ...sif.format.types import Code

    C = TypeVar("C", bound=Code)

__all__ = [
    "ALIGNMENT_LIMIT",
    "TABLES",
    "arch",
    "code",
    "fingerprint",
    "group",
    "identity",
    "launch",
    "listed",
    "name",
    "number",
    "optional",
]

MAX_GROUP = 0x0FFFFFFF
NAME_BYTES = 128
LAUNCH_BYTES = 31
ALIGNMENT_LIMIT = 1 << 30

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
"""By the placeholder that stands for it in help: the words, and the number siftool has for each."""

T = TypeVar("T")


def listed(table: str) -> str:
    """The words and numbers of a table side by side: ``system=1, primsys=2``."""
    return ", ".join(f"{word}={number}" if number < 0x100 else f"{word}={number:#x}" for word, number in TABLES[table].items())


def optional(read: Callable[[str, str], T], option: str, text: str | None) -> T | None:
    """``read(option, text)``, and None for what was not given."""
    return None if text is None else read(option, text)


def code(kind: type[C], option: str, text: str) -> C:
    """The member of ``kind`` for a word or a number, decimal or 0x."""
    from ...sif import UnknownCodeError

    try:
        return kind.parse(text)
    except UnknownCodeError as error:
        meant = closest(text.lower(), [word for member in kind.choices() for word in (member.word, *member.aliases)])
        hint = f"did you mean {meant}?" if meant else error.hint
        raise UsageError(f"{option} {show(text)[:80]}: no {kind.what()}", hint=hint) from error


def arch(option: str, text: str) -> Arch:
    """An architecture by word, number, or the kernel's name for it."""
    from ...sif import Arch

    return code(Arch, option, text)


def number(option: str, text: str, low: int, high: int, *, hint: str) -> int:
    """A whole number, decimal or 0x."""
    plain = text.strip().lower()
    if not re.fullmatch(r"-?([0-9]{1,20}|0x[0-9a-f]{1,16})", plain, re.ASCII):
        raise UsageError(f"{option} {show(text)[:80]}: not a number", hint=hint)
    value = int(plain, 16 if "x" in plain else 10)
    if not low <= value <= high:
        raise UsageError(f"{option} {show(text)[:80]}: must be from {low} to {high}", hint=hint)
    return value


def group(option: str, text: str) -> int:
    """A group's number or an object's id; 0 is none."""
    return number(option, text, 0, MAX_GROUP, hint="0 is none")


def name(option: str, text: str) -> bytes:
    """A name that fits into a descriptor."""
    raw = os.fsencode(text)
    if len(raw) > NAME_BYTES or b"\0" in raw:
        what = f"{len(raw)} bytes, and a name has at most {NAME_BYTES}" if len(raw) > NAME_BYTES else "holds a NUL byte"
        raise UsageError(f"{option} {show(text)}: {what}", hint="give a shorter one with --name")
    return raw


def fingerprint(option: str, text: str) -> bytes:
    """The 20 bytes of an OpenPGP v4 fingerprint, in hexadecimal, blanks and colons do not count; no bytes for ``none``."""
    if text.lower() == "none":
        return b""
    digits = text.replace(" ", "").replace(":", "").removeprefix("0x")
    if not re.fullmatch(r"[0-9a-fA-F]{40}", digits, re.ASCII):
        raise UsageError(
            f"{option} {show(text)[:80]}: not a fingerprint of 40 hexadecimal digits",
            hint="see gpg --fingerprint; none is none, of a signature made with a PEM key",
        )
    return bytes.fromhex(digits)


def launch(option: str, text: str) -> bytes:
    """A launch script; the line end that a ``#!`` line needs is added."""
    raw = os.fsencode(text).replace(b"\\n", b"\n")
    if raw.startswith(b"#!") and not raw.endswith(b"\n"):
        raw += b"\n"
    if len(raw) > LAUNCH_BYTES:
        message = f"{option} {show(text)}: {len(raw)} bytes with its line end, and at most {LAUNCH_BYTES} fit"
        raise UsageError(message, hint="'#!/usr/bin/env run-singularity' is what images have")
    return raw


def identity(option: str, text: str) -> UUID | None:
    """An image's UUID; None: a random one."""
    return uuid(option, text)
