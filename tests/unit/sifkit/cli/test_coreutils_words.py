"""The commands that change an image say what coreutils say, and end as they do. Whether these do so is tested with them."""

from __future__ import annotations

import shutil

import pytest

from ext3.device.base import FileDevice
from sifkit.cli import main

from ....support.coreutils_cases import CASES, HINTS, IMAGE, Case, make_tree, words_on_image


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    top = tmp_path_factory.mktemp("coreutils")
    (top / "tree").mkdir()
    make_tree(top / "tree")
    path = top / "base.img"
    options = ["--size", "6M", "--layout", "upper", "--from-dir", str(top / "tree")]
    assert main(["-q", "overlay", "create", *options, str(path)]) == 0
    return path


@pytest.fixture
def image(base, tmp_path, monkeypatch):
    """The tree in upper/ of o.img. What is on storage after a power cut is not what these tests are about."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FileDevice, "sync", lambda device: None)
    shutil.copy(base, tmp_path / IMAGE)


def said(err: str) -> tuple[str, ...]:
    """Messages without the program's name, our hints and the image's name."""
    found = []
    for line in err.replace(f"{IMAGE}:/upper/", "").splitlines():
        text = line.partition(": ")[2]
        for hint in HINTS:
            text = text.partition(hint)[0]
        found.append(text)
    return tuple(found)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_words_and_exit_code(run, image, case: Case):
    code, out, err = run(*words_on_image(case.line))
    assert (code, out) == (case.code, ""), err
    assert said(err) == case.words or said(err) == case.or_words


def test_rm_of_nothing_is_fine_if_forced(run, image):
    assert run("rm", "-f") == (0, "", "")
    code, _, err = run("rm")
    assert code == 2 and err == "sifkit rm: IMAGE:/PATH... is missing; see sifkit rm -h\n"
