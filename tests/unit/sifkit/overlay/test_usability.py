"""How an overlay can be used: each row was tried with Apptainer 1.4.5 as a user without root (uid 1000)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import ext3
from ext3.constants import STATE_ERROR, STATE_VALID
from ext3.edit.filesystem import WritableFilesystem
from ext3.format.schema import SUPERBLOCK
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.info import image_info
from sifkit.overlay.options import CreateOptions
from sifkit.overlay.usability import FileAccess, Verdict, judge

from ....support.commands import Run, good

USER, ROOT = 1000, 0
Change = Callable[[WritableFilesystem], object]


def chown(path: str) -> Change:
    return lambda fs: fs.chown(path, 0, None)


def foreign_upper_for_all(fs: WritableFilesystem) -> None:
    fs.chown("/upper", 0, None)
    fs.chmod("/upper", 0o777)


def nothing(fs: WritableFilesystem) -> None:
    pass


def made(tmp_path: Path, change: Change, state: int = STATE_VALID, *, dirty: bool = False) -> str:
    path = str(tmp_path / "a.img")
    create(path, CreateOptions(size=24 << 20, owner=(USER, USER), upper_owner=(USER, USER)))
    with ext3.Filesystem.open(path, "r+") as fs:
        change(fs)
    with open(path, "r+b") as file:
        file.seek(1024)
        raw = bytearray(file.read(1024))
        SUPERBLOCK.view(raw)["s_state"] = state
        if dirty:
            SUPERBLOCK.view(raw)["s_feature_incompat"] |= 4
        file.seek(1024)
        file.write(raw)
    return path


@pytest.mark.parametrize(
    ("change", "state", "dirty", "access", "mode", "reason"),
    [
        (nothing, STATE_VALID, False, FileAccess(USER, True, True), "writable", ""),
        (
            chown("/work"),
            STATE_VALID,
            False,
            FileAccess(USER, True, True),
            "read-only",
            "work/ belongs to 0:1000 and you are 1000",
        ),
        (chown("/upper"), STATE_VALID, False, FileAccess(USER, True, True), "read-only", "upper/ belongs to 0:1000"),
        (foreign_upper_for_all, STATE_VALID, False, FileAccess(USER, True, True), "read-only", "upper/ belongs to"),
        (nothing, STATE_VALID, False, FileAccess(USER, False, False), "no", "you may not read the file"),
        (nothing, STATE_VALID, False, FileAccess(USER, True, False), "read-only", "you may not write to the file"),
        (nothing, STATE_VALID | STATE_ERROR, False, FileAccess(USER, True, True), "no", "marked as damaged"),
        (nothing, 0, False, FileAccess(USER, True, True), "writable", ""),
        (nothing, STATE_VALID, True, FileAccess(USER, True, True), "writable", ""),
        (nothing, STATE_VALID, True, FileAccess(USER, True, False), "no", "its journal is not empty"),
        (lambda fs: fs.rmdir("/upper"), STATE_VALID, False, FileAccess(USER, True, True), "no", "there is no upper/"),
        (lambda fs: fs.rmdir("/work"), STATE_VALID, False, FileAccess(USER, True, True), "read-only", "there is no work/"),
        (chown("/upper"), STATE_VALID, False, FileAccess(ROOT, True, True), "writable", ""),
        (lambda fs: fs.change_settings(reserved_blocks=0), STATE_VALID, False, FileAccess(USER, True, True), "writable", ""),
    ],
)
def test_verdicts(tmp_path: Path, change: Change, state: int, dirty: bool, access: FileAccess, mode: str, reason: str) -> None:
    found = judge(image_info(made(tmp_path, change, state, dirty=dirty)), access)
    assert found.mode == mode
    assert found.reasons == () if not reason else reason in found.reasons[0]


def test_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    create(path, CreateOptions(size=24 << 20, journal=False))
    found = judge(image_info(path), FileAccess(ROOT, True, True))
    assert found.mode == "no" and "no journal" in found.reasons[0]


def test_access_is_that_of_this_process(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert FileAccess.of(str(tmp_path / "f")) == FileAccess(os.geteuid(), True, True)
    assert FileAccess.of(str(tmp_path / "none")) == FileAccess(os.geteuid(), False, False)


def test_info_says_it_and_scripts_can_ask(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path, nothing)
    monkeypatch.setattr("sifkit.overlay.usability.FileAccess.of", lambda _: FileAccess(USER, True, True))
    assert "for you    writable\n" in good(run, "overlay", "info", "--require", "writable", path)
    monkeypatch.setattr("sifkit.overlay.usability.FileAccess.of", lambda _: FileAccess(USER + 1, True, True))
    code, out, err = run("overlay", "info", "--require", "writable", path)
    assert code == 1 and "for you    read-only (:ro): upper/ belongs to 1000:1000 and you are 1001" in out
    assert err.startswith(f"sifkit overlay info: {path} is read-only")
    assert run("overlay", "info", "--require", "usable", path)[0] == 0
    assert run("overlay", "info", "--require", "good", path)[0] == 2


def test_not_clean_is_normal_while_it_is_mounted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sifkit.in_use import ImageUse, Mount

    path = made(tmp_path, nothing, 0)
    assert "needs a check before use: sifkit overlay fsck -p" in good(run, "overlay", "info", path)
    mounted = ImageUse("none", (), (Mount("/dev/loop7", "/mnt", False),))
    monkeypatch.setattr("sifkit.overlay.info.image_use", lambda *_, **__: mounted)
    out = good(run, "overlay", "info", path)
    assert "fsck" not in out and "not clean is normal while it is mounted" in out
    assert judge(image_info(path), FileAccess(USER, True, True)) == Verdict("no", ("it is in use: mounted at /mnt",))
