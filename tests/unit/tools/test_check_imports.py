"""The import rules hold, and the tool that says so notices when they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from tools import check_imports

ROOT = Path(__file__).parents[3]


def project(root: Path, **files: str) -> Path:
    """A small project; ``ext3__newfs__plan="..."`` is the file ext3/newfs/plan.py."""
    for package in ("ext3", "ext3/format", "ext3/newfs", "ext3/fsck", "sifkit", "sifkit/sif", "sifkit/overlay", "sifkit/cli"):
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").touch()
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.slow
def test_this_project() -> None:
    assert check_imports.check(ROOT) == []


def test_the_import_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_the_command_line_is_light() -> None:
    assert check_imports.check_light(ROOT) == []


def test_a_scan_begins_before_numpy_is_loaded() -> None:
    assert check_imports.check_light(ROOT, "sifkit.overlay.creating.standalone", ("numpy", "construct")) == []


def test_a_good_project(tmp_path: Path) -> None:
    root = project(
        tmp_path,
        ext3__errors="import errno\n",
        ext3__format__layout="import construct\nimport numpy\nfrom .errors import X\n",
        ext3__format__geometry="from __future__ import annotations\nfrom ..errors import X\nimport numpy as np\n",
        ext3__format__acl="import struct\n",
        ext3__format__xattr="from . import acl\nfrom .acl import x\n",
        ext3__newfs__plan="from ..format.geometry import plan_geometry\nfrom .tree import Tree\n",
        ext3__newfs__tree="from ext3.format.xattr import y\n",
        sifkit__errors="import errno\n",
        sifkit__atomic="try:\n    import fcntl\nexcept ImportError:\n    fcntl = None\n",
        sifkit__tar__codecs="import zlib\ndef f():\n    import zstandard\n",
        sifkit__overlay__create="import ext3\nfrom ..atomic import A\nfrom ext3.newfs.plan import p\n",
        sifkit__cli__main="import os, sys\nprint(os.environ)\ndef f():\n    import numpy\n    sys.exit(1)\n",
    )
    assert check_imports.check(root) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("ext3__newfs__plan", "import os", "pure module imports os"),
        ("ext3__format__geometry", "from time import time", "pure module imports time"),
        ("ext3__format__geometry", "from uuid import UUID", "pure module imports uuid"),
        ("ext3__format__inode", "import construct", "imports construct"),
        ("ext3__format__inode", "from construct import Struct", "imports construct"),
        ("ext3__format__inode", "import requests", "imports requests"),
        ("ext3__format__inode", "def f():\n    import zstandard", "imports zstandard, which ext3 does not use"),
        ("sifkit__cli__main", "import zstandard", "outside functions"),
        ("ext3__format__inode", "import os\nx = os.environ", "environment"),
        ("ext3__format__inode", "from os import environ", "os.environ"),
        ("ext3__format__inode", "print(1)", "print()"),
        ("ext3__format__inode", "import sys\nsys.exit(1)", "sys.exit"),
        ("ext3__format__inode", "import fcntl", "not every platform"),
        ("ext3__format__inode", "x = 'leave it out with --exclude'", "names --exclude"),
        ("ext3__format__inode", 'def f():\n    """As sifkit does."""', "names sifkit"),
        ("ext3__format__inode", "import subprocess", "no external program"),
        ("ext3__format__inode", "import os\nos.system('x')", "no external program"),
        ("sifkit__cli__main", "import subprocess", "no external program"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    project(tmp_path)
    (tmp_path / (name.replace("__", "/") + ".py")).write_text(text + "\n")
    lines = check_imports.check(tmp_path)
    assert len(lines) == 1, lines
    assert complaint in lines[0]
    assert lines[0].startswith(name.replace("__", "/") + ".py:")


def test_a_heavy_command_line_is_found(tmp_path: Path) -> None:
    project(tmp_path, sifkit__cli__main="")
    (tmp_path / "sifkit" / "cli" / "__init__.py").write_text("import numpy\n")
    assert check_imports.check_light(tmp_path) == ["import sifkit.cli loads numpy: load it inside the command that needs it"]
    assert check_imports.main([str(tmp_path)]) == 1


def test_a_broken_command_line_is_found(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "sifkit" / "cli" / "__init__.py").write_text("import no_such_module\n")
    [line] = check_imports.check_light(tmp_path)
    assert "No module named 'no_such_module'" in line


def test_what_the_interpreter_loads_by_itself_is_no_fault(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import shutil\n")
    (tmp_path / "light.py").write_text("import os\n")
    (tmp_path / "slow.py").write_text("import zipfile\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert check_imports.check_light(tmp_path, "light", ("shutil", "zipfile")) == []
    assert len(check_imports.check_light(tmp_path, "slow", ("shutil", "zipfile"))) == 1
