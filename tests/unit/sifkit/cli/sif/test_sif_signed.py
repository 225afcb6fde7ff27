"""The rule for signatures against a model of the verifier: what is refused would not verify, what is done without a word does.

The model recomputes every digest a signature holds, as the format's description has them; keys play no part in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import struct
import sys
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.sif import SIF, DataType, FSType, HashType, PartType, SignatureMeta
from tests.support.sif_images import STAMP, partition

SQUASHFS = b"hsqs" + bytes(24) + b"\x04\x00" + bytes(100)
EXT3 = bytes(1080) + b"\x53\xef" + bytes(34) + b"\x04\0\0\0" + b"\x02\0\0\0" + bytes(1000)
PAYLOAD_TYPE = "application/vnd.sylabs.sif-metadata+json"


def sha256(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def header_digest(sif):
    raw = sif.header.pack()
    return sha256(raw[:45] + raw[48:64])


def descriptor_digest(d, first):
    numbers = struct.pack("<iBIIqqqq", d.data_type, 1, d.id - first, d.linked_id, d.size, d.created, d.uid, d.gid)
    return sha256(numbers + d.name.ljust(128, b"\0") + d.extra.ljust(384, b"\0"))


def statement(sif, group, ids=None):
    """What a signature of a group says."""
    members = [d for d in sif if d.group == group]
    first = min(d.id for d in members)
    objects = [
        {
            "relativeId": d.id - first,
            "descriptorDigest": descriptor_digest(d, first),
            "objectDigest": sha256(sif.read(d.id)),
        }
        for d in members
        if ids is None or d.id in ids
    ]
    return {"version": 1, "header": {"digest": header_digest(sif)}, "objects": objects}


def sign(path, group, ids=None):
    with SIF.open(path, "r+", stamp=STAMP) as sif:
        payload = base64.b64encode(json.dumps(statement(sif, group, ids)).encode()).decode()
        envelope = json.dumps({"payloadType": PAYLOAD_TYPE, "payload": payload, "signatures": []}).encode()
        sif.add(envelope, DataType.SIGNATURE, link_group=group, metadata=SignatureMeta(HashType.SHA256))


def verifies(path, group=None, ids=None):
    """Whether an image verifies, or a group, or single objects of it."""
    with SIF.open(path) as sif:
        if any(not d.group and d.data_type != DataType.SIGNATURE for d in sif):
            return False
        groups = {d.group for d in sif if d.group} if group is None else {group}
        return bool(groups) and all(_group_verifies(sif, number, ids) for number in groups)


def _group_verifies(sif, group, ids):
    members = {d.id for d in sif if d.group == group}
    found = [d for d in sif if d.data_type == DataType.SIGNATURE and d.link_group == group]
    if not found or not members or not (ids or set()) <= members:
        return False
    for signature in found:
        said = json.loads(base64.b64decode(json.loads(sif.read(signature.id))["payload"]))
        wanted = {one["relativeId"] + min(members) for one in said["objects"]}
        if not (wanted == members if ids is None else ids <= wanted):
            return False
        now = statement(sif, group, wanted if ids is None else ids)
        if now["header"] != said["header"] or not all(one in said["objects"] for one in now["objects"]):
            return False
    return True


@pytest.fixture
def run(capfdbinary):
    def call(*argv):
        code = main(["sif", *(os.fspath(arg) for arg in argv)])
        sys.stdout.flush()
        return code, capfdbinary.readouterr().err.decode()

    return call


@pytest.fixture
def here(tmp_path, monkeypatch):
    """1 deffile, 2 JSON and 3 root in group 1, 4 text in group 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    Path("f").write_bytes(b"other\n")
    Path("overlay.img").write_bytes(EXT3)
    Path("root").write_bytes(SQUASHFS.ljust(5000, b"x"))
    with SIF.create("base.sif", launch=b"#!/bin/sh\n", stamp=STAMP) as sif:
        sif.add(b"Bootstrap: docker\n", DataType.DEFFILE, group=1)
        sif.add(b"{}", DataType.GENERIC_JSON, group=1, name=b"x.json")
        sif.add(SQUASHFS, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM, FSType.SQUASHFS))
        sif.add(b"text", DataType.GENERIC, group=2)
    return tmp_path


EDITS = [
    ["add", "i.sif", "f", "--datatype", "generic"],
    ["add", "i.sif", "f", "--datatype", "generic", "--group", "1"],
    ["add", "i.sif", "f", "--datatype", "generic", "--group", "2"],
    ["add", "i.sif", "f", "--datatype", "generic", "--group", "3"],
    ["add", "i.sif", "--parttype", "overlay"],
    ["add", "i.sif", "f", "--datatype", "signature", "--signhash", "1", "--signentity", "none"],
    ["del", "1", "i.sif"],
    ["del", "2", "i.sif"],
    ["del", "4", "i.sif"],
    ["del", "1", "2", "3", "i.sif"],
    ["setprim", "3", "i.sif"],
    ["update", "1", "i.sif", "--name", "x"],
    ["update", "2", "i.sif", "--name", "x.json"],
    ["update", "1", "i.sif", "--group", "0"],
    ["update", "1", "i.sif", "--group", "2"],
    ["update", "3", "i.sif", "--link", "1"],
    ["update", "3", "i.sif", "--parttype", "system"],
    ["update", "4", "i.sif", "--group", "1"],
    ["update", "4", "i.sif", "--group", "3"],
    ["update", "5", "i.sif", "--name", "signature"],
    ["update", "5", "i.sif", "--signhash", "sha512"],
    ["update", "5", "i.sif", "--group", "1"],
    ["update", "5", "i.sif", "--link-group", "2"],
    ["replace", "1", "i.sif", "f"],
    ["replace", "3", "i.sif", "root"],
    ["replace", "4", "i.sif", "f"],
    ["compact", "i.sif"],
    ["compact", "i.sif", "--capacity", "9"],
    ["check", "i.sif"],
]
SIGNED = {
    "both groups": ([(1, None), (2, None)], [(None, None), (1, None), (2, None)]),
    "one group twice": ([(1, None), (1, None), (2, None)], [(None, None), (1, None), (2, None)]),
    "one object": ([(1, {3})], [(1, {3})]),
    "one group of two": ([(1, None)], [(1, None)]),
}
"""What is signed: (group, objects); and what is verified, before an edit and after it."""


@pytest.mark.parametrize("name", SIGNED)
def test_what_is_refused_would_not_verify_and_nothing_else(here, run, name):
    signed, verified = SIGNED[name]
    for group, ids in signed:
        sign("base.sif", group, ids)
    assert all(verifies("base.sif", *what) for what in verified)
    refusals = 0
    for argv in EDITS:
        shutil.copy("base.sif", "i.sif")
        code, err = run(*argv)
        refused = "would break" in err
        assert code == (1 if refused else 0), argv
        if refused:
            refusals += 1
            assert Path("i.sif").read_bytes() == Path("base.sif").read_bytes()
            assert run(*argv, "--keep-broken-signatures")[0] == 0
        assert all(verifies("i.sif", *what) for what in verified) != refused, argv
    assert 4 < refusals < len(EDITS) - 4
