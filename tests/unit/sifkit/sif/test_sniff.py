"""Telling filesystems, bills of materials and text by their first bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifkit.sif import FSType, SBOMFormat
from sifkit.sif.sniff import HEAD_BYTES, filesystem_name, is_text, sniff_filesystem, sniff_sbom

from ....support.sif_damage import SQUASHFS, ext


@pytest.mark.parametrize(
    ("head", "name", "code"),
    [
        (SQUASHFS, "squashfs", FSType.SQUASHFS),
        (ext(), "ext3", FSType.EXT3),
        (ext(incompat=0x16, ro_compat=7), "ext3", FSType.EXT3),
        (ext(compat=0), "ext2", FSType.EXT3),
        (ext(incompat=0x42), "ext4", None),
        (ext(ro_compat=0x401), "ext4", None),
        (b"LUKS\xba\xbe\0\x02", "luks", FSType.ENCRYPTED_SQUASHFS),
        (b"hsqs" + bytes(24) + b"\x03\0", None, None),
        (b"hsqs", None, None),
        (bytes(HEAD_BYTES), None, None),
        (ext()[:1100], None, None),
        (b"", None, None),
    ],
)
def test_filesystems(head: bytes, name: str | None, code: FSType | None) -> None:
    assert filesystem_name(head) == name
    assert sniff_filesystem(head) == code


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b'{"bomFormat": "CycloneDX", "specVersion": "1.5", "compon', SBOMFormat.CYCLONEDX_JSON),
        (b'<?xml version="1.0"?>\n<bom xmlns="http://cyclonedx.org/schema/bom/1.4">', SBOMFormat.CYCLONEDX_XML),
        (b'{"version": 0, "job": {}, "detector": {}, "manifests": {', SBOMFormat.GITHUB_JSON),
        (b'\xef\xbb\xbf {"spdxVersion": "SPDX-2.3"}', SBOMFormat.SPDX_JSON),
        (b'<rdf:RDF xmlns:spdx="http://spdx.org/rdf/terms#">', SBOMFormat.SPDX_RDF),
        (b"# made by hand\nSPDXVersion: SPDX-2.2\n", SBOMFormat.SPDX_TAG_VALUE),
        (b'SPDXID: "SPDXRef-DOCUMENT"\nspdxVersion: "SPDX-2.2"\n', SBOMFormat.SPDX_YAML),
        (b'{"artifacts": [{"a": "}"}], "artifactRelationships": [', SBOMFormat.SYFT_JSON),
        (b'{"data": {"spdxVersion": "SPDX-2.3"}}', None),
        (b'{"spdxVersion": "SPDX-2.3", "bomFormat": "CycloneDX", "specVersion": "1.4"}', None),
        (b'{"note": "\\"spdxVersion\\": 1"}', None),
        (b"hello", None),
        (b"", None),
    ],
)
def test_bills_of_materials(head: bytes, found: SBOMFormat | None) -> None:
    assert sniff_sbom(head) == found


@pytest.mark.parametrize("text", ["", "plain\n\ttext\r\n", "é", "日本語", "a" * 5000])
def test_text_is_text_wherever_it_is_cut(text: str) -> None:
    raw = text.encode()
    assert all(is_text(raw[:cut]) for cut in range(max(0, len(raw) - 8), len(raw) + 1))


@pytest.mark.parametrize("raw", [b"\x1b[31m", b"a\0b", b"\xff\xfe", b"ok \xc3\x28 then more", b"\x7fELF", "\u202e".encode()])
def test_what_a_terminal_should_not_get(raw: bytes) -> None:
    assert not is_text(raw)


@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    """Nothing raises, and what a string decodes to is what counts as text."""
    sniff_filesystem(raw)
    sniff_sbom(raw)
    sniff_sbom(b"{" + raw)
    if not is_text(raw):
        assert not (raw.isascii() and raw.decode("ascii").isprintable())
