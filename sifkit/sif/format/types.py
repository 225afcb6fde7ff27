"""Codes of the format: data types, filesystems, partition types, architectures, hashes, message and SBOM formats.

Each code has a value on disk, siftool's number for its options (``number``), words for the command line (``word`` and
``aliases``), and siftool's text for tables (``text``). Unknown codes are plain integers and printed as such. Source: the
enumerations of the SIF reference library; the texts were compared with siftool 2.24.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self, TypeVar

from ..errors import UnknownCodeError

__all__ = [
    "Arch",
    "Code",
    "DataType",
    "FSType",
    "FormatType",
    "HashType",
    "MessageType",
    "PartType",
    "SBOMFormat",
    "arch_bytes",
    "arch_from_bytes",
    "arch_from_prefix",
    "describe",
    "as_code",
    "word_of",
]

LONGEST_NUMBER = 20

C = TypeVar("C", bound="Code")


class Code(IntEnum):
    """Base of the enumerations of codes."""

    word: str
    text: str
    aliases: tuple[str, ...]
    _siftool: int

    def __new__(cls, value: int, word: str, text: str, number: int | None = None, aliases: tuple[str, ...] = ()) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.word = word
        member.text = text
        member._siftool = value if number is None else number
        member.aliases = aliases
        return member

    @property
    def number(self) -> int:
        """Number of the code in siftool's options."""
        return self._siftool

    @classmethod
    def what(cls) -> str:
        """Return the noun for a code of this kind, for messages."""
        return _WHAT[cls.__name__]

    @classmethod
    def choices(cls) -> tuple[Self, ...]:
        """Return the codes a user may give, in the order of their numbers."""
        return tuple(member for member in cls if member.word != "unknown")

    @classmethod
    def parse(cls, given: str | int) -> Self:
        """Parse a word (in any case, ignoring ``-`` and ``_``), siftool's number or the value, decimal or 0x.

        Raises UnknownCodeError.
        """
        if isinstance(given, str):
            wanted = _plain(given)
            for member in cls.choices():
                if wanted in (_plain(member.word), *map(_plain, member.aliases)):
                    return member
        number = given if isinstance(given, int) else _number(given)
        for member in cls.choices():
            if number is not None and number in (member.number, member.value):
                return member
        raise UnknownCodeError(cls.what(), given, tuple(f"{member.word} ({member.number})" for member in cls.choices()))


def _plain(text: str) -> str:
    return text.strip().lower().replace("-", "").replace("_", "")


def _number(text: str) -> int | None:
    digits = text.strip().lower()
    if len(digits) > LONGEST_NUMBER or not digits.isascii():
        return None
    try:
        return int(digits, 16 if digits.startswith("0x") else 10)
    except ValueError:
        return None


class DataType(Code):
    """Type of a data object."""

    DEFFILE = 0x4001, "deffile", "Def.FILE", 1
    ENVVAR = 0x4002, "envvar", "Env.Vars", 2
    LABELS = 0x4003, "labels", "JSON.Labels", 3
    PARTITION = 0x4004, "partition", "FS", 4
    SIGNATURE = 0x4005, "signature", "Signature", 5
    GENERIC_JSON = 0x4006, "genericjson", "JSON.Generic", 6, ("json",)
    GENERIC = 0x4007, "generic", "Generic/Raw", 7
    CRYPTO_MESSAGE = 0x4008, "cryptomessage", "Cryptographic Message", 8, ("cryptmessage",)
    SBOM = 0x4009, "sbom", "SBOM", 9
    OCI_ROOT_INDEX = 0x400A, "ocirootindex", "OCI.RootIndex", 10
    OCI_BLOB = 0x400B, "ociblob", "OCI.Blob", 11


class FSType(Code):
    """Declared filesystem of a partition."""

    SQUASHFS = 1, "squashfs", "Squashfs", 1, ("squash",)
    EXT3 = 2, "ext3", "Ext3"
    IMMUTABLE_OBJECTS = 3, "immuobj", "Archive", 3, ("archive",)
    RAW = 4, "raw", "Raw"
    ENCRYPTED_SQUASHFS = 5, "encryptedsquashfs", "Encrypted squashfs", 5, ("encryptedsquash",)
    GOCRYPTFS_SQUASHFS = 6, "gocryptfssquashfs", "Gocryptfs squashfs", 6, ("gocryptfs",)
    """Apptainer only; siftool prints it as unknown."""


class PartType(Code):
    """Type of a partition."""

    SYSTEM = 1, "system", "System"
    PRIMARY_SYSTEM = 2, "primsys", "*System", 2, ("primary", "primarysystem")
    DATA = 3, "data", "Data"
    OVERLAY = 4, "overlay", "Overlay"


class Arch(Code):
    """Architecture, named as in Go. On disk: two digits and a NUL."""

    UNKNOWN = 0, "unknown", "unknown"
    I386 = 1, "386", "386", 1, ("i386", "i486", "i586", "i686", "x86")
    AMD64 = 2, "amd64", "amd64", 2, ("x86_64", "x64")
    ARM = 3, "arm", "arm", 3, ("armv5l", "armv6l", "armv7l", "armhf")
    ARM64 = 4, "arm64", "arm64", 4, ("aarch64", "armv8l")
    PPC64 = 5, "ppc64", "ppc64"
    PPC64LE = 6, "ppc64le", "ppc64le", 6, ("ppc64el", "powerpc64le")
    MIPS = 7, "mips", "mips"
    MIPSLE = 8, "mipsle", "mipsle", 8, ("mipsel",)
    MIPS64 = 9, "mips64", "mips64"
    MIPS64LE = 10, "mips64le", "mips64le", 10, ("mips64el",)
    S390X = 11, "s390x", "s390x"
    RISCV64 = 12, "riscv64", "riscv64"
    LOONG64 = 13, "loong64", "loong64", 13, ("loongarch64",)

    @classmethod
    def of_machine(cls, machine: str) -> Arch:
        """Return the architecture for the kernel's name (``uname -m``), or UNKNOWN."""
        wanted = _plain(machine)
        return next((a for a in cls.choices() if wanted in (a.word, *map(_plain, a.aliases))), cls.UNKNOWN)


class HashType(Code):
    """Hash of a signature."""

    SHA256 = 1, "sha256", "SHA-256"
    SHA384 = 2, "sha384", "SHA-384"
    SHA512 = 3, "sha512", "SHA-512"
    BLAKE2S = 4, "blake2s256", "BLAKE2s-256", 4, ("blake2s",)
    BLAKE2B = 5, "blake2b256", "BLAKE2b-256", 5, ("blake2b",)


class FormatType(Code):
    """Format of a cryptographic message."""

    OPENPGP = 1, "openpgp", "OpenPGP", 1, ("pgp",)
    PEM = 2, "pem", "PEM"


class MessageType(Code):
    """Type of a cryptographic message."""

    CLEAR_SIGNATURE = 0x100, "clearsignature", "Clear Signature", 0x100, ("clearsign",)
    RSA_OAEP = 0x200, "rsaoaep", "RSA-OAEP", 0x200, ("rsa",)


class SBOMFormat(Code):
    """Format of a software bill of materials."""

    CYCLONEDX_JSON = 1, "cyclonedx-json", "cyclonedx-json"
    CYCLONEDX_XML = 2, "cyclonedx-xml", "cyclonedx-xml"
    GITHUB_JSON = 3, "github-json", "github-json", 3, ("github",)
    SPDX_JSON = 4, "spdx-json", "spdx-json"
    SPDX_RDF = 5, "spdx-rdf", "spdx-rdf"
    SPDX_TAG_VALUE = 6, "spdx-tag-value", "spdx-tag-value"
    SPDX_YAML = 7, "spdx-yaml", "spdx-yaml"
    SYFT_JSON = 8, "syft-json", "syft-json"


_WHAT = {
    "DataType": "data type",
    "FSType": "partition filesystem",
    "PartType": "partition type",
    "Arch": "architecture",
    "HashType": "signature hash",
    "FormatType": "message format",
    "MessageType": "message type",
    "SBOMFormat": "SBOM format",
}
_ARCH_CODES = {arch: b"%02d\0" % arch for arch in Arch}
_ARCH_OF_CODE = {code: arch for arch, code in _ARCH_CODES.items()}


def as_code(kind: type[C], value: int) -> C | int:
    """Return the code with this value on disk, or the value itself if it is unknown."""
    try:
        return kind(value)  # type: ignore[call-arg]  # a look-up, not the constructor above
    except ValueError:
        return value


def describe(code: int | bytes) -> str:
    """Return a code as tables print it: its text, ``Unknown`` for none (0), ``Unknown (NUMBER)`` for others."""
    if isinstance(code, Code):
        return code.text
    if isinstance(code, bytes):
        return f"Unknown (0x{code.hex()})"
    return f"Unknown ({code:#x})" if code else "Unknown"


def word_of(code: int | bytes) -> str:
    """Return a code as the command line takes it: its word, or the number of an unknown one."""
    if isinstance(code, Code):
        return code.word
    return "0x" + code.hex() if isinstance(code, bytes) else str(int(code))


def arch_from_bytes(code: bytes) -> Arch | bytes:
    """Return the architecture of a 3-byte code, or the code itself if it is unknown."""
    return _ARCH_OF_CODE.get(code, code)


def arch_from_prefix(code: bytes, header: Arch | bytes | None = None) -> Arch | None:
    """Return the architecture for a code that is a truncated name: setprim of siftool 2.8 writes ``amd`` for amd64.

    ``header``: architecture in the header, which decides if several names match. None if it cannot be decided.
    """
    likely = [arch for arch in Arch.choices() if code and arch.word.encode().startswith(code)]
    if isinstance(header, Arch) and header in likely:
        return header
    return likely[0] if len(likely) == 1 else None


def arch_bytes(arch: Arch | bytes) -> bytes:
    """Return the 3-byte code of an architecture; an unknown code is returned as it is."""
    return arch if isinstance(arch, bytes) else _ARCH_CODES[arch]
