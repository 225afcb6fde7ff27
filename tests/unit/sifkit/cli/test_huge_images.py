"""Commands on an image of 8 TiB in 1 GiB of address space: no array is sized by what an image says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ....support.huge_image import huge_image

pytest.importorskip("resource")

LIMIT = 1 << 30
SCRIPT = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from sifkit.cli import main
print(json.dumps([main(words) for words in json.loads(sys.argv[2])]), file=sys.__stderr__)
"""
READING = [
    ["ls", "-lR", "a.img"],
    ["tree", "a.img"],
    ["find", "a.img"],
    ["find", "--json", "a.img"],
    ["stat", "a.img", "/upper/f"],
    ["cat", "a.img:/upper/f"],
    ["xattr", "list", "a.img:/upper/f"],
    ["du", "-a", "a.img"],
    ["df", "a.img"],
    ["diff", "a.img", "a.img"],
    ["ls", "--upper", "a.img"],
    ["extract", "a.img", "-C", "out"],
    ["extract", "--upper", "a.img", "-C", "upper"],
    ["cp", "-a", "a.img:/upper", "copy"],
    ["overlay", "info", "a.img"],
    ["overlay", "info", "--json", "a.img"],
    ["overlay", "export", "a.img", "-o", "layer.tar"],
    ["overlay", "export", "a.img", "-o", "layer/"],
]
EDITING = [
    ["cp", "data", "a.img:/upper/new"],
    ["mv", "a.img:/upper/new", "a.img:/upper/moved"],
    ["ln", "a.img:/upper/moved", "a.img:/upper/second"],
    ["chmod", "600", "a.img:/upper/moved"],
    ["chown", "1:1", "a.img:/upper/moved"],
    ["xattr", "set", "user.y", "value", "a.img:/upper/moved"],
    ["rm", "-r", "a.img:/upper/moved", "a.img:/upper/second"],
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
@pytest.mark.parametrize("commands", [READING, EDITING], ids=["reading", "editing"])
def test_in_one_gibibyte(commands: list[list[str]], tmp_path: Path) -> None:
    huge_image(tmp_path / "a.img")
    (tmp_path / "data").write_bytes(b"data" * 5000)
    argv = [sys.executable, "-c", SCRIPT, str(LIMIT), json.dumps(commands)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    codes = json.loads(done.stderr.splitlines()[-1])
    assert [words for words, code in zip(commands, codes, strict=True) if code] == [], done.stderr.decode()
