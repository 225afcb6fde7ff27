"""The JSON of ``sifkit sif``, held key by key; docs/json.md lists every one."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import get_args

import pytest

from sifkit.cli import main
from sifkit.sif import (
    SIF,
    CryptoMeta,
    DataType,
    FormatType,
    HashType,
    MessageType,
    PartType,
    Problem,
    SBOMFormat,
    SBOMMeta,
    SIFError,
    SignatureMeta,
)
from sifkit.sif.state import NoticeKind
from tests.support.sif_images import STAMP, partition

DOCS = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
HEAD = {"sifkit": 1, "command": "sif list"}
TIME = "2023-11-14T22:13:20.000000000Z"
COMMON = {
    "name": "", "group": None, "link": None, "link_group": None, "created": TIME, "created_unix": 1_700_000_000,
    "modified": TIME, "modified_unix": 1_700_000_000, "uid": 0, "gid": 0,
}  # fmt: skip
HEADER = {
    "version": "01", "launch": "#!/bin/sh\n", "arch": "amd64", "id": "00000000-0000-0000-0123-456789abcdef", "created": TIME,
    "created_unix": 1_700_000_000, "modified": TIME, "modified_unix": 1_700_000_000, "deterministic": False, "objects": 6,
    "descriptors_free": 2, "descriptors_total": 8, "descriptors_offset_bytes": 4096, "descriptors_size_bytes": 4680,
    "data_offset_bytes": 8776, "data_size_bytes": 3536, "file_bytes": 12312, "warnings": [],
}  # fmt: skip
OBJECTS = [
    {"id": 1, "data_type": "genericjson", "data_type_code": 0x4006, "type": "JSON.Generic", "name": "a", "group": 1,
     "offset_bytes": 8776, "end_bytes": 8778, "size_bytes": 2, "padded_bytes": 2},
    {"id": 2, "data_type": "partition", "data_type_code": 0x4004, "type": "FS (Squashfs/*System/amd64)", "group": 1,
     "offset_bytes": 12288, "end_bytes": 12292, "size_bytes": 4, "padded_bytes": 3514,
     "partition": {"filesystem": "squashfs", "type": "primsys", "arch": "amd64"}},
    {"id": 3, "data_type": "signature", "data_type_code": 0x4005, "type": "Signature (SHA-256)", "link_group": 1,
     "offset_bytes": 12292, "end_bytes": 12295, "size_bytes": 3, "padded_bytes": 3,
     "signature": {"hash": "sha256", "fingerprint": "11" * 20}},
    {"id": 4, "data_type": "cryptomessage", "data_type_code": 0x4008, "type": "Cryptographic Message (PEM/RSA-OAEP)",
     "link": 2, "offset_bytes": 12295, "end_bytes": 12299, "size_bytes": 4, "padded_bytes": 4,
     "crypto": {"format": "pem", "message": "rsaoaep"}},
    {"id": 5, "data_type": "sbom", "data_type_code": 0x4009, "type": "SBOM (spdx-json)",
     "offset_bytes": 12299, "end_bytes": 12304, "size_bytes": 5, "padded_bytes": 5, "sbom": {"format": "spdx-json"}},
    {"id": 6, "data_type": "ociblob", "data_type_code": 0x400B, "type": "OCI.Blob",
     "offset_bytes": 12304, "end_bytes": 12312, "size_bytes": 8, "padded_bytes": 8,
     "oci": {"digest": "sha256:9f64a747e1b97f131fabb6b447296c9b6f0201e79fb3c5356e6c77e89b6a806a"}},
]  # fmt: skip


@pytest.fixture
def report(capfdbinary):
    def call(*argv):
        code = main(["sif", *(os.fspath(arg) for arg in argv)])
        sys.stdout.flush()
        return code, [json.loads(line) for line in capfdbinary.readouterr().out.decode().splitlines()]

    return call


@pytest.fixture
def image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    with SIF.create("i.sif", launch=b"#!/bin/sh\n", capacity=8, stamp=STAMP) as sif:
        sif.add(b"{}", DataType.GENERIC_JSON, name=b"a", group=1)
        sif.add(b"hsqs", DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
        sif.add(b"sig", DataType.SIGNATURE, link_group=1, metadata=SignatureMeta(HashType.SHA256, b"\x11" * 20))
        sif.add(b"keys", DataType.CRYPTO_MESSAGE, link=2, metadata=CryptoMeta(FormatType.PEM, MessageType.RSA_OAEP))
        sif.add(b"bills", DataType.SBOM, metadata=SBOMMeta(SBOMFormat.SPDX_JSON))
        sif.add(bytes(range(1, 5)) * 2, DataType.OCI_BLOB)
    return "i.sif"


def expected(index):
    return COMMON | {"slot": index} | OBJECTS[index]


def test_list_and_info(report, image):
    code, (found,) = report("list", "--json", image)
    digest = found["objects"][5]["oci"]["digest"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    OBJECTS[5]["oci"] = {"digest": digest}
    objects = [expected(index) for index in range(6)]
    assert code == 0 and found == HEAD | {"image": image, "objects": objects, "warnings": []}
    for index in range(6):
        code, (one,) = report("info", str(index + 1), "--json", image)
        assert one == {"sifkit": 1, "command": "sif info", "image": image, "warnings": []} | objects[index]


def test_header(report, image):
    assert report("header", "--json", image) == (0, [{"sifkit": 1, "command": "sif header", "image": image} | HEADER])


def test_warnings_and_findings(report, image):
    raw = bytearray(Path(image).read_bytes())
    raw[80] = 7
    Path(image).write_bytes(raw)
    _, (found,) = report("header", "--json", image)
    assert [set(warning) for warning in found["warnings"]] == [{"kind", "message", "id"}]
    code, lines = report("check", "--json", image)
    assert code == 4 and set(lines[-1]) == {
        "sifkit", "command", "image", "errors", "warnings", "notes", "repaired", "repairable",
    }  # fmt: skip
    keys = {"problem", "severity", "text", "id", "slot", "field", "got", "want", "offset_bytes", "size_bytes", "repairable"}
    assert {line["problem"] for line in lines[:-1]} >= {"free-count"}
    assert all(set(line) == keys | {"repaired", "sifkit", "command", "image"} for line in lines[:-1])


def test_edits(report, image):
    Path("f").write_bytes(b"data")
    keep = ["--keep-broken-signatures", "--json"]
    added = set(COMMON) | set(OBJECTS[0]) | {"slot", "sifkit", "command", "image", "dropped_signatures"}
    code, (found,) = report("add", image, "f", "--datatype", "generic", *keep)
    assert code == 0 and set(found) == added
    code, (found,) = report("update", "7", image, "--name", "x", *keep)
    assert code == 0 and set(found) == added | {"changed"}
    code, (found,) = report("replace", "7", image, "f", *keep)
    assert code == 0 and set(found) == added | {"old_size_bytes"}
    code, (found,) = report("setprim", "2", image, *keep)
    assert code == 0 and set(found) == added | {"previous", "partition"}
    code, (found,) = report("del", "7", image, *keep)
    assert code == 0 and set(found) == {"sifkit", "command", "image", "removed", "dropped_signatures", "file_bytes"}
    code, (found,) = report("compact", image, "--json")
    assert code == 0 and set(found) == {
        "sifkit", "command", "image", "before_bytes", "after_bytes", "allocated_before_bytes", "allocated_after_bytes",
        "capacity", "moved", "changed", "notes",
    }  # fmt: skip
    code, (found,) = report("unpack", image, "d", "--json")
    assert code == 0 and set(found) == {"sifkit", "command", "image", "manifest", "objects", "content_bytes"}
    code, (found,) = report("pack", "d", "n.sif", "--json")
    assert code == 0 and set(found) == {"sifkit", "command", "image", "file_bytes", "objects", "exact", "warnings"}
    code, (found,) = report("new", "e.sif", "--json")
    assert code == 0 and set(found) == (set(HEADER) | {"sifkit", "command", "image"}) - {"warnings"}


def test_refusals_are_json_too(report, image):
    code, (found,) = report("del", "1", image, "--json")
    assert code == 1 and found["error"]["kind"] == "signed" and found["error"]["path"] == image
    assert found["command"] == "sif del" and found["error"]["hint"]


def test_every_key_is_documented(report, image):
    wanted = set(HEADER) | set(COMMON)
    for entry in OBJECTS:
        wanted |= set(entry)
    part = DOCS[DOCS.index("## `sif ") :]
    assert not [key for key in sorted(wanted) if f"`{key}`" not in part and f"`{key}." not in part]


def test_every_key_of_an_edit_and_of_a_check_is_documented(report, image):
    """What the tests above hold, word for word, is what docs/json.md lists."""
    Path("f").write_bytes(b"data")
    Path(image).write_bytes(Path(image).read_bytes() + b"behind")
    runs = (
        ["check", image],
        ["del", "3", image],
        ["add", image, "f", "--datatype", "generic"],
        ["update", "1", image, "--name", "x"],
        ["replace", "1", image, "f"],
        ["setprim", "2", image],
        ["compact", image],
        ["unpack", image, "d"],
        ["pack", "d", "n.sif"],
        ["new", "e.sif"],
    )
    part = DOCS[DOCS.index("## `sif ") :]
    for argv in runs:
        for found in report(*argv, "--json")[1]:
            assert "error" not in found
            keys = set(found) - {"sifkit", "command", "image"}
            assert not [key for key in sorted(keys) if f"`{key}`" not in part], argv


def section(title):
    """The text of docs/json.md from a heading to the next."""
    return DOCS[DOCS.index(f"## {title}\n") :].split("\n## ", 1)[0]


def test_every_word_is_documented():
    assert not [word for word in Problem if f"`{word}`" not in section("`sif check`")]
    kinds = section("`sif header`, `sif new`")
    assert not [word for word in get_args(NoticeKind) if f"`{word}`" not in kinds]
    failure = section("Failure")
    found = {kind.kind for kind in all_errors(SIFError)}
    assert found >= {"manifest", "signed"} and not [word for word in sorted(found) if f"`{word}`" not in failure]


def all_errors(base):
    return {base}.union(*map(all_errors, base.__subclasses__()))


def test_every_key_of_the_manifest_is_documented(report, image):
    """Those that unpack writes, and those that pack reads."""
    from sifkit.sif.pack import manifest

    part = section("The manifest of `sif unpack` and `sif pack`")
    wanted = manifest.MANIFEST_KEYS | manifest.LAYOUT_KEYS | manifest.GAP_KEYS | manifest.UNUSED_KEYS
    wanted |= manifest.HEADER_KEYS | manifest.OBJECT_KEYS | frozenset().union(*manifest.METADATA_KEYS.values())
    assert not [key for key in sorted(wanted) if f"`{key}`" not in part]
    report("unpack", image, "d", "--json")
    found = json.loads(Path("d/manifest.json").read_text())
    keys = set(found) | set(found["header"]) | set(found["layout"]).union(*found["objects"])
    assert keys <= wanted and {"fs", "hash", "entity_hex", "format", "sbom", "digest"} <= keys


def test_the_manifest_s_example_makes_an_image(report, image):
    example = re.search(r"```json\n(.*?)```", section("The manifest of `sif unpack` and `sif pack`"), re.DOTALL).group(1)
    Path("d").mkdir()
    Path("d/manifest.json").write_text(example)
    Path("d/image.def").write_bytes(b"Bootstrap: docker\n")
    Path("d/root.squashfs").write_bytes(b"hsqs".ljust(28, b"\0") + b"\x04\0" + bytes(200))
    code, (made,) = report("pack", "d", "n.sif", "--json")
    assert code == 0 and made["objects"] == 2 and made["warnings"] == []
    assert report("check", "n.sif", "--json")[0] == 0
