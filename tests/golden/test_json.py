"""The JSON of every command, held key by key: within a schema keys are only added, and docs/json.md lists them all."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

import ext3.errors
import sifkit.errors
import sifkit.sif.errors
import sifkit.tar.errors
from sifkit.cli import main

DOCS = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
UUID = "01234567-89ab-cdef-0123-456789abcdef"
TEXT, NUMBER, TRUTH, LIST, NOTHING = "text", "number", "truth", "list", "null"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")

HEAD = {"sifkit": NUMBER, "command": TEXT, "image": TEXT}
CREATE = HEAD | {
    "path": TEXT, "size_bytes": NUMBER, "used_bytes": NUMBER, "free_bytes": NUMBER, "block_bytes": NUMBER, "inodes": NUMBER,
    "inode_bytes": NUMBER, "journal_bytes": NUMBER, "groups": NUMBER, "excluded": NUMBER,
    "inodes_used": NUMBER, "files": NUMBER, "content_bytes": NUMBER, "layout": TEXT, "label": TEXT, "uuid": TEXT,
    "seconds": NUMBER, "notes": LIST, "warnings": LIST, "partition": NOTHING, "replaced_bytes": NUMBER,
    "dropped_signatures": LIST,
}  # fmt: skip
PARTITION = {"id": NUMBER, "group": NUMBER, "offset_bytes": NUMBER, "size_bytes": NUMBER}
ATTACH = HEAD | {
    "path": TEXT, "partition": PARTITION, "moved": TRUTH, "replaced_bytes": NUMBER, "dropped_signatures": LIST,
    "seconds": NUMBER, "notes": LIST,
}  # fmt: skip
DETACH = HEAD | {
    "path": TEXT, "partition": PARTITION, "kept": TRUTH, "dropped_signatures": LIST, "seconds": NUMBER, "notes": LIST,
}  # fmt: skip
INFO = HEAD | {
    "partition": NOTHING,
    "file_bytes": NUMBER, "allocated_bytes": NUMBER, "label": TEXT, "uuid": TEXT, "features": LIST, "block_bytes": NUMBER,
    "inode_bytes": NUMBER, "groups": NUMBER, "size_bytes": NUMBER, "used_bytes": NUMBER,
    "metadata_bytes": NUMBER, "free_bytes": NUMBER, "reserved_bytes": NUMBER, "available_bytes": NUMBER,
    "inodes": NUMBER, "inodes_used": NUMBER, "inodes_free": NUMBER, "state": TEXT,
    "journal": {"size_bytes": NUMBER, "dirty": TRUTH}, "created": TEXT, "written": TEXT, "mounted": NOTHING,
    "mount_count": NUMBER, "check": {"needed": TRUTH, "reason": NOTHING}, "orphans": NUMBER,
    "upper": {"mode": TEXT, "uid": NUMBER, "gid": NUMBER},
    "work": {"mode": TEXT, "uid": NUMBER, "gid": NUMBER}, "readable": TRUTH, "problem": TEXT,
    "use": {"lock": TEXT, "host": TEXT, "other_node": TRUTH, "holders": LIST, "mounts": LIST},
    "apptainer": {"accepts": TRUTH, "reasons": LIST},
    "usable": {"mode": TEXT, "reasons": LIST}, "notes": LIST,
}  # fmt: skip
CLONE = HEAD | {
    "path": TEXT, "size_bytes": NUMBER, "copied_bytes": NUMBER, "method": TEXT, "uuid": TEXT, "new_uuid": TRUTH,
    "journal_dirty": TRUTH, "locked": TRUTH, "seconds": NUMBER, "notes": LIST,
}  # fmt: skip
ENTRY = {
    "path": TEXT, "name": TEXT, "type": TEXT, "ino": NUMBER, "mode": TEXT, "uid": NUMBER, "gid": NUMBER, "links": NUMBER,
    "size_bytes": NUMBER, "allocated_bytes": NUMBER, "mtime": TEXT, "ctime": TEXT, "atime": TEXT,
}  # fmt: skip
ERROR = {"sifkit": NUMBER, "command": TEXT, "error": {"kind": TEXT, "message": TEXT, "hint": TEXT, "path": TEXT}}


def shape(value):
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    kinds = {bool: TRUTH, int: NUMBER, float: NUMBER, str: TEXT, list: LIST, type(None): NOTHING}
    return kinds[type(value)]


@pytest.fixture
def report(capfdbinary):
    def call(*argv):
        code = main([os.fspath(arg) for arg in argv])
        sys.stdout.flush()
        lines = capfdbinary.readouterr().out.decode().splitlines()
        return code, [json.loads(line) for line in lines]

    return call


@pytest.fixture
def image(tmp_path, report, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    source = tmp_path / "source"
    source.mkdir()
    (source / "hello").write_bytes(b"hello\n")
    (source / "hello").chmod(0o644)
    (source / "link").symlink_to("hello")
    with open(os.path.join(os.fsencode(source), b"\xff"), "wb"):
        pass
    for path in (source, *(source / name for name in os.listdir(source))):
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    target = tmp_path / "o.img"
    code, found = report(
        "overlay",
        "create",
        "--json",
        "-s",
        "16M",
        "-d",
        source,
        "--layout",
        "upper",
        "--owner",
        "1000:1001",
        "-U",
        UUID,
        target,
    )
    assert code == 0
    assert shape(found[0]) == CREATE
    assert found[0]["uuid"] == UUID and found[0]["layout"] == "upper" and found[0]["image"] == str(target)
    return target


def test_info(image, report):
    code, found = report("overlay", "info", "--json", image)
    assert code == 0 and shape(found[0]) == INFO
    assert found[0]["created"] == "2023-11-14T22:13:20.000000000Z" and TIME.fullmatch(found[0]["written"])
    assert found[0]["upper"]["uid"] == 1000 and found[0]["apptainer"] == {"accepts": True, "reasons": []}
    assert (found[0]["sifkit"], found[0]["command"]) == (1, "overlay info")


def test_clone(image, report, tmp_path):
    code, found = report("overlay", "clone", "--json", image, tmp_path / "b.img")
    assert code == 0 and shape(found[0]) == CLONE
    assert found[0]["method"] in ("reflink", "copy")


def test_an_overlay_in_a_sif(image, report, tmp_path):
    sif, out = tmp_path / "a.sif", tmp_path / "out.img"
    assert report("sif", "new", sif)[0] == 0
    code, found = report("overlay", "create", "--json", "-s", "16M", sif)
    assert code == 0 and shape(found[0]) == CREATE | {"partition": PARTITION}
    made = found[0]["partition"]
    assert (made["id"], made["group"], made["offset_bytes"] % 4096, made["size_bytes"]) == (1, 1, 0, 16 << 20)
    code, found = report("overlay", "info", "--json", sif)
    assert code == 0 and shape(found[0]) == INFO | {"partition": PARTITION, "mounted": NOTHING}
    assert found[0]["partition"] == made and found[0]["file_bytes"] == 16 << 20
    code, found = report("overlay", "attach", "--json", "--replace", sif, image)
    assert code == 0 and shape(found[0]) == ATTACH and found[0]["replaced_bytes"] == 16 << 20
    code, found = report("overlay", "detach", "--json", sif, "-o", out)
    assert code == 0 and shape(found[0]) == DETACH and found[0]["kept"] is False
    assert out.read_bytes() == image.read_bytes()


def test_ls(image, report):
    code, found = report("ls", "--json", image, "/upper")
    assert code == 0 and shape(found[0]) == HEAD | {"entries": LIST}
    hello, link, odd = found[0]["entries"]
    ino = hello.pop("ino")
    assert ino > 11
    assert hello == {
        "path": "/upper/hello", "name": "hello", "type": "file", "mode": "0644", "uid": 1000, "gid": 1001, "links": 1,
        "size_bytes": 6, "allocated_bytes": 1024, "mtime": "2020-09-13T12:26:40.000000000Z",
        "ctime": "2020-09-13T12:26:40.000000000Z", "atime": "2020-09-13T12:26:40.000000000Z",
    }  # fmt: skip
    assert shape(link) == ENTRY | {"target": TEXT} and link["target"] == "hello"
    assert shape(odd) == ENTRY | {"path_b64": TEXT, "name_b64": TEXT} and odd["name_b64"] == "/w=="


def test_ls_recursive_is_one_object_a_line(image, report):
    code, found = report("ls", "-R", "--json", image, "/upper")
    assert code == 0 and len(found) == 4
    assert shape(found[-1]) == HEAD | {"entries": NUMBER, "errors": NUMBER}
    assert (found[-1]["entries"], found[-1]["errors"]) == (3, 0)
    assert found[0]["path"] == "/upper/hello"


@pytest.mark.parametrize("argv", [("overlay", "info"), ("overlay", "clone"), ("ls",)])
def test_failure(report, tmp_path, argv):
    missing = tmp_path / "none.img"
    code, found = report(*argv, "--json", missing, *([tmp_path / "b"] if "clone" in argv else []))
    assert code == 1 and len(found) == 1 and shape(found[0]) == ERROR
    assert found[0]["error"]["kind"] == "not-found" and found[0]["error"]["path"] == str(missing)


def test_failure_of_create(report, tmp_path):
    source = tmp_path / "s"
    source.mkdir()
    (source / "big").write_bytes(bytes(range(256)) * 4096 * 20)
    code, found = report("overlay", "create", "--json", "-s", "16M", "-d", source, tmp_path / "o.img")
    error = found[0]["error"]
    assert code == 1 and error["kind"] == "no-space" and error["needed_bytes"] > 16 << 20 and error["available_bytes"] > 0
    assert os.listdir(tmp_path) == ["s"]


def _section(title):
    return DOCS.partition(f"## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("title", "keys"),
    [
        ("`overlay create`", CREATE),
        ("`overlay info`", INFO),
        ("`overlay clone`", CLONE),
        ("`overlay attach`", ATTACH),
        ("`overlay detach`", DETACH),
        ("`ls`", ENTRY),
        ("Failure", ERROR["error"]),
    ],
)
def test_every_key_is_documented(title, keys):
    words = {word.rpartition(".")[2] for word in re.findall(r"`([\w.]+)`", _section(title))}
    nested = {key for value in keys.values() if isinstance(value, dict) for key in value}
    assert (set(keys) | nested) - set(HEAD) - {"use"} <= words
    assert not set(HEAD) - set(re.findall(r"`(\w+)`", DOCS.partition("## Failure")[0]))


def test_the_kinds_of_errors_are_listed() -> None:
    modules = (ext3.errors, sifkit.errors, sifkit.sif.errors, sifkit.tar.errors)
    found = {kind for module in modules for value in vars(module).values() if (kind := getattr(value, "kind", None))}
    row = next(line for line in DOCS.splitlines() if line.startswith("| `error.kind`"))
    assert found - {"ext3"} <= set(re.findall("`([a-z0-9-]+)`", row))  # that one is the base class's
