"""The judge itself: a check that does too little, too much, or fails is seen."""

from __future__ import annotations

import pytest

import ext3
from ext3.device.base import FileDevice
from ext3.fsck.checking import check
from ext3.fsck.finding import Report
from tools import judge_fsck
from tools.corrupt import RECIPES, damaged
from tools.sound_images import base_image

from ..support.tools import require


@pytest.fixture
def judged(scratch, monkeypatch):
    """A function: the differences for a recipe, with another check in place of ours."""
    require("e2fsck", "mke2fs", "debugfs")

    def judged(name: str, act) -> str:
        image = scratch / "recipe.img"
        image.write_bytes(base_image(name[6:]) if name.startswith("sound ") else damaged(RECIPES[name]))
        monkeypatch.setattr(judge_fsck, "check", act)
        return "; ".join(judge_fsck.judge(image, scratch, name).differences)

    return judged


def nothing(device, policy, **options) -> Report:
    return Report()


def test_a_check_that_finds_nothing(judged):
    text = judged("links-large", nothing)
    assert "-n exit" in text
    assert "-y exit" in text
    assert "e2fsck still says" in text


def test_a_check_that_fails(judged):
    def failing(device, policy, **options):
        raise IndexError("no such row")

    assert "IndexError: no such row" in judged("links-large", failing)


def test_a_check_that_writes_when_it_looks(judged):
    def writing(device, policy, **options):
        if not policy.writes:
            fd = device.fd
            with open(f"/proc/self/fd/{fd}", "r+b") as file:
                file.seek(5000)
                file.write(b"x")
        return check(device, policy, **options)

    assert "-n changed the image" in judged("links-large", writing)


def test_a_check_that_loses_a_file(judged):
    def losing(device, policy, **options):
        report = check(device, policy, **options)
        if policy.writes:
            assert isinstance(device, FileDevice)
            with ext3.Filesystem.open(device, "r+") as fs:
                fs.unlink("/third")
        return report

    assert "third (inode" in judged("links-large", losing)


def test_a_check_that_says_too_much(judged):
    def shy(device, policy, **options) -> Report:
        report = check(device, policy, **options)
        report.left = 1
        return report

    text = judged("sound ext2", shy)
    assert "own second run" in text
    assert "-y exit" in text


def test_preening_that_does_not_stop(judged):
    def bold(device, policy, **options) -> Report:
        report = check(device, policy, **options)
        report.stopped = None
        report.left = 0
        return report

    assert "-fp exit" in judged("map-far", bold)
