"""Every example of every help page runs as a shell would run it, in a directory that has the files it names."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sifkit.cli import main
from sifkit.cli.root import root

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="the examples are for a shell")]

FIXTURES = Path(__file__).parents[2] / "fixtures"
STOCK = """
acl=0x0200000001000700ffffffff02000700e903000004000500ffffffff10000700ffffffff20000500ffffffff
mkdir -p overlay/etc overlay/opt content/{opt/{old,results,tool,env},etc,bin,var/cache,tmp/build,usr/bin,shared,a.d} tool
echo hello | tee overlay/etc/motd motd content/etc/motd notes.txt stamp.txt >hello.txt
echo '{"bomFormat": "CycloneDX", "specVersion": "1.5"}' >sbom.json
echo '{\"maintainer\": \"me\"}' >labels.json
touch content/{notes,a,opt/x,opt/run,opt/tool/run,opt/results/r.py,usr/bin/tool} tool/run
tar -cf content/data.tar notes.txt && tar -czf layer.tar.gz -C content etc
sifkit -q overlay create --size 32M --layout upper --from-dir content overlay.img
sifkit -q xattr set user.comment x overlay.img:/upper/notes
sifkit -q xattr set system.posix_acl_access "$acl" overlay.img:/upper/shared
sifkit -q overlay create --size 8M empty.img
sifkit -q overlay create --size 16M job-1.img
(head -c 1048576 /dev/zero; cat overlay.img) >disk.img
cp "$fixtures/squashfs/gzip.sqfs" root.sqfs
sifkit -q sif new root.sif
sifkit -q sif add --datatype deffile --name def root.sif notes.txt
sifkit -q sif add --datatype genericjson --name inspect-metadata.json root.sif labels.json
sifkit -q sif add --parttype primsys --partfs squashfs --partarch amd64 --groupid 1 root.sif root.sqfs
cp root.sif image.sif
sifkit -q overlay attach image.sif overlay.img
sifkit -q sif add --datatype generic image.sif notes.txt
sifkit -q sif add --datatype generic --name second image.sif notes.txt
sifkit -q sif unpack image.sif image.d
"""
"""Shell commands that make the files of the examples."""

BEFORE = {
    "overlay create": "rm -f overlay.img; cp root.sif image.sif",
    "overlay create --from-dir /opt/env": "mkdir env; touch env/python",
    "overlay clone": "rm -f job-1.img",
    "overlay clone --offset": "rm -f overlay.img",
    "overlay attach": "cp root.sif image.sif",
    "overlay attach --move": "",
    "overlay detach": "rm -f overlay.img",
    "overlay undo": "sifkit -q overlay fsck -fy --undo overlay.undo overlay.img",
    "overlay undo --partition": "sifkit -q overlay fsck -fy --undo sif.undo image.sif",
    "overlay chown --from": "sifkit -q overlay chown 1000:1000 overlay.img",
    "check": "sifkit -q sif new --force image.sif; sifkit -q overlay create --size 16M image.sif; mkdir images; "
    "cp image.sif overlay.img images; sha256sum images/* >SHA256SUMS",
    "sif new": "rm -f image.sif",
    "sif pack image.d image.sif": "rm -f image.sif",
    "sif pack image.d image.sif --force": "",
    "sif unpack": "rm -r image.d",
    "sif unpack image.sif image.d --force": "",
    "sif dump 4 image.sif -o": "rm -f overlay.img",
    "sif del --type signature": "sifkit -q sif add --datatype signature --signhash sha256 --signentity $fp image.sif notes.txt",
    "sif add --datatype 4": "sifkit -q sif new --force image.sif",
    "sif setprim": "sifkit -q sif update 4 image.sif --parttype system --group 1",
    "diff overlay.img:/upper out/": "sifkit -q extract overlay.img:/upper -C out",
    "mv overlay.img:/upper/opt/old": "sifkit -q cp notes.txt overlay.img:/upper/opt/old",
    "mv overlay.img:/opt overlay.img:/etc": "sifkit -q rm -r $root/upper/{opt,etc} && sifkit -q mkdir $root/opt $root/etc",
    "mv --upper": "sifkit -q mkdir overlay.img:/upper/opt/a",
    "mkdir -m 2775": "sifkit -q rm -r overlay.img:/upper/shared",
    "ln -sf": "sifkit -q rm -r overlay.img:/upper/opt/tool",
    "completion": "mkdir -p ~/.zfunc ~/.config/fish/completions",
}
"""Shell commands before the examples that begin so; the longest key counts."""


def _examples(group: Any = root) -> Iterator[str]:
    yield from group.examples
    for entry in getattr(group, "verbs", ()):
        yield from _examples(group.get_command(None, entry.name))


def _shell(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HOME": str(directory),
        "BASH_ENV": "/dev/null",
    }
    names = f'root=overlay.img: fp={"A" * 40} fixtures="{FIXTURES}"'
    prelude = f'set -e -o pipefail; sifkit() {{ "{sys.executable}" -m sifkit "$@"; }}; {names}; '
    command = ["bash", "-c", prelude + script]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("stock")
    done = _shell(STOCK, directory)
    assert done.returncode == 0, done.stderr
    _copy_sparse(directory, directory.with_name("sparse"))
    return directory.with_name("sparse")


def _copy_sparse(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--sparse=always", source, target], check=True)


RUNS = tuple(f"sifkit {verb} " for verb in ("exec", "run", "shell"))
"""Examples that need a container with programs, and root: tests/compat/test_run_as_root.py runs such."""
PLAIN = re.compile(r"sifkit [^|;&<>$*?~()]*")
"""An example in which a shell has nothing to do but to find the words."""


@pytest.mark.parametrize("example", [one for one in dict.fromkeys(_examples()) if not one.startswith(RUNS)])
def test_the_example_runs(
    example: str, stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "files"
    _copy_sparse(stock, directory)
    words = example.partition("sifkit ")[2]
    before = max((key for key in BEFORE if words.startswith(key)), key=len, default="")
    if before:
        done = _shell(BEFORE[before], directory)
        assert done.returncode == 0, done.stderr
    example = example.replace("--from-dir /opt/env", "--from-dir env")
    if PLAIN.fullmatch(example):  # an interpreter of its own takes most of the time
        monkeypatch.chdir(directory)
        monkeypatch.setenv("HOME", str(directory))
        code = main(shlex.split(example)[1:])
        errors = capfd.readouterr().err
    else:
        done = _shell(example, directory)
        code, errors = done.returncode, done.stderr
    assert code == (1 if words.startswith("diff") else 0), errors
    assert "Traceback" not in errors
