"""The JSON of the verbs that look into an image, held key by key; docs/json.md names every one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sifkit.cli import main

from ..support.container_tree import write_container
from ..support.tiny_squashfs import TINY_SQUASHFS

DOCS = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
HEAD = {"sifkit", "command", "image"}
ENTRY = {
    "path",
    "name",
    "type",
    "ino",
    "mode",
    "uid",
    "gid",
    "links",
    "size_bytes",
    "allocated_bytes",
    "mtime",
    "ctime",
    "atime",
}
SIZES = {
    "size_bytes",
    "used_bytes",
    "metadata_bytes",
    "journal_bytes",
    "free_bytes",
    "available_bytes",
    "inodes",
    "inodes_used",
    "inodes_free",
}
FACTS = {
    "file_bytes",
    "size_bytes",
    "used_bytes",
    "free_bytes",
    "inodes",
    "inodes_used",
    "block_bytes",
    "inode_bytes",
    "journal_bytes",
    "groups",
    "uuid",
}
RESIZED = {
    "dry_run",
    "unchanged",
    "before",
    "after",
    "unused_bytes",
    "moved_bytes",
    "moved_inodes",
    "copied_bytes",
    "needed_bytes",
    "partition",
    "old_partition",
    "dropped_signatures",
    "repaired",
    "seconds",
    "notes",
}
REBUILT = {
    "before",
    "after",
    "files",
    "label",
    "partition",
    "old_partition",
    "dropped_signatures",
    "seconds",
    "notes",
}
MARKED = {
    "whiteouts_converted",
    "whiteouts_created",
    "opaque_converted",
    "marks_removed",
    "opaque_left",
    "problem_count",
    "problems",
}
SHARED = MARKED | {"check", "ready", "missing", "journal_replayed", "modes_changed", "file_mode", "dropped_signatures", "notes"}
CHANGE = {"change", "path", "type", "what", "size_bytes", "old_size_bytes"}
CHANGES = {"other", "added", "modified", "deleted", "added_bytes", "modified_bytes", "deleted_bytes", "errors"}
MADE = {"directories", "files", "symlinks", "specials", "links", "written_bytes", "owners_left", "xattrs_left", "specials_left"}
CHECKED = {
    "verdict",
    "kind",
    "size_bytes",
    "missing_bytes",
    "errors",
    "warnings",
    "problems",
    "filesystems",
    "signatures",
    "sha256",
    "in_use",
    "notes",
    "seconds",
}

CASES = [
    (["find", "a.img", "/upper/hello"], [ENTRY, HEAD | {"entries", "errors"}]),
    (["tree", "a.img", "/upper"], [ENTRY, HEAD | {"directories", "files", "errors"}]),
    (
        ["stat", "a.img", "/upper/hello"],
        [HEAD | ENTRY | {"crtime", "flags", "generation", "extents", "xattrs", "layer", "whiteout", "opaque"}],
    ),
    (["check", "a.img"], [HEAD | CHECKED, {"sifkit", "command", "images", "good", "bad", "size_bytes", "sha256", "seconds"}]),
    (["df", "a.img"], [HEAD | SIZES | {"layers"}]),
    (["df", "other", "--overlay", "a.img"], [HEAD | SIZES | {"layers"}]),
    (["overlay", "chown", "7:7", "a.img"], [HEAD | {"changed", "uid", "gid"}]),
    (["overlay", "tune", "a.img", "--reserved-blocks", "1"], [HEAD | {"reserved_blocks", "reserved_bytes", "label", "uuid"}]),
    (["overlay", "resize", "a.img", "70M"], [HEAD | RESIZED]),
    (["overlay", "resize", "a.img", "70M", "--dry-run"], [HEAD | RESIZED]),
    (
        ["overlay", "rebuild", "a.img"],
        [HEAD | REBUILT],
    ),
    (
        ["overlay", "trim", "a.img"],
        [HEAD | {"freed_bytes", "file_bytes", "allocated_before_bytes", "allocated_after_bytes"}],
    ),
    (
        ["overlay", "normalize", "a.img"],
        [HEAD | MARKED | {"dry_run", "base", "unchanged", "opaque_marked", "dropped_signatures", "notes"}],
    ),
    (["overlay", "share", "a.img"], [HEAD | SHARED]),
    (["overlay", "share", "--check", "a.img"], [HEAD | SHARED]),
    (
        ["du", "a.img", "/upper/hello"],
        [{"path", "directory", "allocated_bytes", "inodes"}, HEAD | {"entries", "errors", "allocated_bytes", "inodes"}],
    ),
    (["extract", "a.img", "-C", "out"], [HEAD | MADE | {"path", "errors", "seconds"}]),
    (["xattr", "list", "a.img", "/upper/hello"], [HEAD | {"path", "xattrs"}]),
    (
        ["diff", "a.img:/upper", "other"],
        [CHANGE, HEAD | CHANGES],
    ),
    (
        ["diff", "other", "--overlay", "a.img"],
        [CHANGE, HEAD | CHANGES],
    ),
    (
        ["overlay", "export", "a.img", "-o", "layer.tar"],
        [HEAD | {"path", "entries", "content_bytes", "whiteouts", "opaque", "errors", "seconds"}],
    ),
]


@pytest.mark.parametrize(("argv", "keys"), CASES, ids=[" ".join(argv[:2]) for argv, _ in CASES])
def test_the_keys_of_every_report(tmp_path, monkeypatch, capfdbinary, argv, keys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "hello").write_bytes(b"hello\n")
    (tmp_path / "other").mkdir()
    assert main(["-q", "overlay", "create", "--from-dir", "source", "a.img"]) == 0
    (tmp_path / "a.img").chmod(0o600)
    capfdbinary.readouterr()
    assert main([*argv, "--json"]) == (1 if argv[0] == "diff" or "--check" in argv else 0)
    sys.stdout.flush()
    found = [json.loads(line) for line in capfdbinary.readouterr().out.decode().splitlines()]
    assert [set(row) for row in found] == keys
    assert all(f"`{key}`" in DOCS for row in keys for key in row)
    for row in found:
        for layer in row.get("layers", ()):
            assert set(layer) == SIZES | {"name", "kind"}
        for key in {"before", "after"} & row.keys():
            assert set(row[key]) == FACTS and all(f"`{name}`" in DOCS for name in FACTS)


def test_the_object_of_inspect(tmp_path, monkeypatch, capfdbinary):
    write_container(tmp_path)
    assert main(["inspect", "--all", str(tmp_path)]) == 0
    sys.stdout.flush()
    found = json.loads(capfdbinary.readouterr().out)
    attributes = found["data"]["attributes"]
    assert set(found) == {"sifkit", "data", "type"} and found["type"] == "container"
    words = {*attributes, *attributes["apps"]["foo"], *attributes["apps"]["bar"]}
    assert all(f"`{key}`" in DOCS for key in words - {"apps"}) and "`data.attributes.apps`" in DOCS


def test_the_lists_in_the_report_of_check(tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    raw = bytearray(TINY_SQUASHFS)
    raw[100] ^= 1
    (tmp_path / "a").write_bytes(raw)
    (tmp_path / "sums").write_text(f"{'0' * 64}  a\n")
    assert main(["check", "--json", "--sha256", "sums", "a"]) == 1
    sys.stdout.flush()
    found = json.loads(capfdbinary.readouterr().out.splitlines()[0])
    keys = {"code", "severity", "text", "id", "path"}, {"id", "role", "kind", "compressor", "inodes", "skipped"}
    assert [set(found[name][0]) for name in ("problems", "filesystems")] == list(keys)
    assert set(found["sha256"]) == {"listed", "computed", "matches"}
    assert all(f"`{key}`" in DOCS for row in (*keys, found["sha256"]) for key in row)
