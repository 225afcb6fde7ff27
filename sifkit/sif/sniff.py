"""Detection of file formats from the first bytes: filesystems, software bills of materials, text. Pure.

2 KiB are enough for a filesystem; a bill of materials is searched in all bytes given.
"""

from __future__ import annotations

import re
import struct
from codecs import getincrementaldecoder
from typing import Literal

from .format.types import FSType, SBOMFormat

__all__ = ["HEAD_BYTES", "FilesystemName", "filesystem_name", "is_text", "sniff_filesystem", "sniff_sbom"]

HEAD_BYTES = 2048
"""Number of bytes needed to detect a filesystem."""
FilesystemName = Literal["squashfs", "ext2", "ext3", "ext4", "luks"]

_SQUASHFS_MAGIC = b"hsqs"
_SQUASHFS_VERSION = struct.Struct("<28xH")
"""s_major of the squashfs superblock; only version 4 is in use."""
_LUKS_MAGIC = b"LUKS\xba\xbe"
"""Magic of LUKS containers: encrypted partitions of Singularity and Apptainer, with a squashfs inside."""
_EXT_FIELDS = struct.Struct("<1080xH34xIII")
"""Fields of the ext superblock, from the start of the image: s_magic, s_feature_compat, s_feature_incompat,
s_feature_ro_compat."""
_EXT_MAGIC = 0xEF53
_HAS_JOURNAL = 0x0004
_EXT3_INCOMPAT = 0x0002 | 0x0004 | 0x0010
"""filetype, recover, meta_bg: features that runtimes accept and ext3 has."""
_EXT3_RO_COMPAT = 0x0001 | 0x0002 | 0x0004
"""sparse_super, large_file, btree_dir."""
_FS_TYPES: dict[FilesystemName, FSType] = {
    "squashfs": FSType.SQUASHFS,
    "ext2": FSType.EXT3,
    "ext3": FSType.EXT3,
    "luks": FSType.ENCRYPTED_SQUASHFS,
}


def filesystem_name(head: bytes) -> FilesystemName | None:
    """Detect the filesystem that begins with these bytes (2 KiB of it); None if it is unknown.

    ext2, ext3 and ext4 differ by their features: ext2 has no journal, ext4 has features that ext3 lacks.
    """
    if head.startswith(_SQUASHFS_MAGIC) and len(head) >= _SQUASHFS_VERSION.size:
        return "squashfs" if _SQUASHFS_VERSION.unpack_from(head)[0] == 4 else None
    if head.startswith(_LUKS_MAGIC):
        return "luks"
    if len(head) < _EXT_FIELDS.size:
        return None
    magic, compat, incompat, ro_compat = _EXT_FIELDS.unpack_from(head)
    if magic != _EXT_MAGIC:
        return None
    if incompat & ~_EXT3_INCOMPAT or ro_compat & ~_EXT3_RO_COMPAT:
        return "ext4"
    return "ext3" if compat & _HAS_JOURNAL else "ext2"


def sniff_filesystem(head: bytes) -> FSType | None:
    """Detect the filesystem type for a partition that begins with these bytes; None if there is none.

    ext2 is declared as ext3. ext4 has no type, and runtimes refuse it. A gocryptfs partition is detected as squashfs, which it
    is on the outside.
    """
    name = filesystem_name(head)
    return _FS_TYPES.get(name) if name else None


def is_text(head: bytes) -> bool:
    """Return True if the bytes are text that a terminal can show: UTF-8 (possibly truncated) without control characters but
    white space."""
    try:
        decoded = getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\r\f" for character in decoded)


_SBOM_KEYS: tuple[tuple[SBOMFormat, frozenset[str]], ...] = (
    (SBOMFormat.CYCLONEDX_JSON, frozenset({"bomFormat", "specVersion"})),
    (SBOMFormat.SPDX_JSON, frozenset({"spdxVersion"})),
    (SBOMFormat.GITHUB_JSON, frozenset({"detector", "manifests"})),
    (SBOMFormat.SYFT_JSON, frozenset({"artifacts", "artifactRelationships"})),
)
"""Top-level keys that only this format has."""
_SBOM_TEXTS: tuple[tuple[SBOMFormat, bytes], ...] = (
    (SBOMFormat.CYCLONEDX_XML, rb"<bom\b[^<>]*http://cyclonedx\.org/schema/bom/"),
    (SBOMFormat.SPDX_RDF, rb"<rdf:RDF\b[^<>]*http://spdx\.org/rdf/terms#"),
    (SBOMFormat.SPDX_TAG_VALUE, rb"(?m)^SPDXVersion:[ \t]*SPDX-"),
    (SBOMFormat.SPDX_YAML, rb"(?m)^spdxVersion:[ \t]*[\"']?SPDX-"),
)
_JSON_TOKEN = rb'"(?:[^"\\]|\\.)*"|[{}\[\]:]'


def sniff_sbom(head: bytes) -> SBOMFormat | None:
    """Detect the format of a software bill of materials; None unless exactly one matches."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        keys = _top_keys(text)
        fitting = [kind for kind, wanted in _SBOM_KEYS if wanted <= keys]
    else:
        fitting = [kind for kind, pattern in _SBOM_TEXTS if re.search(pattern, text)]
    return fitting[0] if len(fitting) == 1 else None


def _top_keys(text: bytes) -> set[str]:
    """Return the keys of the outermost JSON object in a possibly truncated text."""
    keys = set()
    depth = 0
    last: bytes | None = None
    for match in re.finditer(_JSON_TOKEN, text):
        token = match.group()
        if token == b":" and depth == 1 and last is not None:
            keys.add(last.decode("utf-8", "replace"))
        last = token[1:-1] if token.startswith(b'"') else None
        depth += (token in b"{[") - (token in b"}]")
        if depth <= 0:
            break
    return keys
