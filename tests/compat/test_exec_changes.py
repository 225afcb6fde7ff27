"""Changes of a container's files through an overlay image, by root and by a plain user, for whom FUSE serves overlayfs.

Judged by the same load on the host, by e2fsck, and by what another user sees.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sifkit.runtime.host.probing import probe
from tests.support import file_calls, file_load
from tests.support.plain_user import USER, run_sifkit, user_directory
from tests.support.tools import assert_clean, requires_root
from tests.support.usr_container import BIND_PROGRAMS, write_usr_container

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

LOAD = Path(file_load.__file__)
PREPARED, STORMED = 100, 500
PYTHON = "/usr/bin/python3"
UIDS = pytest.mark.parametrize("uid", [0, USER], ids=["root", "user"])


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """base.sif with /app and /load; the host's own copy of the latter lies beside it."""
    with user_directory(USER) as folder:
        root = folder / "root"
        (root / "app/keep").mkdir(parents=True)
        (root / "app/tree/deep").mkdir(parents=True)
        (root / "app/message.txt").write_text("base\n")
        (root / "app/keep/x").write_text("kept\n")
        for number in range(300):
            (root / f"app/tree/{number}").write_text(f"{number}\n")
        (root / "app/tree/deep/low").write_text("low\n")
        chance = random.Random(5)
        file_load.prepare(str(root / "load"), chance, PREPARED)
        write_usr_container(folder / "base.sif", root)
        yield folder / "base.sif"


@pytest.fixture
def overlay(base: Path, uid: int) -> Path:
    """An overlay image of a user beside the base."""
    image = base.with_name(f"overlay-{uid}.img")
    image.unlink(missing_ok=True)
    assert run_sifkit(uid, base.parent, "-q", "overlay", "create", "--size", "40M", "-N", "8K", image.name)[0] == 0
    return image


def in_container(uid: int, overlay: Path, script: str, *options: str, mode: str = "") -> tuple[int, str, str]:
    words = ("exec", *options, *BIND_PROGRAMS, "-o", f"{overlay.name}{mode}", "base.sif", "sh", "-c", script)
    found = run_sifkit(uid, overlay.parent, *words)
    assert_clean(overlay)
    return found


CHANGES = """set -e
cd /app
echo more >>message.txt; chmod 640 message.txt
for f in tree/*; do [ -d $f ] || echo x >>$f; done
mv message.txt moved; ln moved linked; rm keep/x
rm -r tree; mkdir tree; echo new >tree/1
mkdir keep/fresh; mv keep/fresh keep/renamed; cp -a keep copy; mv keep gone
rm -r /load; ln -s target /load
touch -d @5 tree/1; rmdir /opt
"""
LOOK = """cd /app; ls -R; cat moved linked tree/1; stat -c '%n %a %h %Y' moved tree/1; ls -d /opt /keep; readlink /load"""
SEEN = """.:
copy
gone
linked
moved
tree

./copy:
renamed

./copy/renamed:

./gone:
renamed

./gone/renamed:

./tree:
1
base
more
base
more
new
moved 640 2 {time}
tree/1 644 1 5
target
"""


@UIDS
def test_changes_of_the_base_are_kept(uid: int, base: Path, overlay: Path) -> None:
    assert in_container(uid, overlay, CHANGES) == (0, "", "")
    seen = {}
    for name, who, mode in (("again", uid, ""), ("read only", uid, ":ro"), ("root", 0, ":ro")):
        code, out, _ = in_container(who, overlay, LOOK, mode=mode)
        assert code == 0, name
        seen[name] = out
    time = seen["again"].split("moved 640 2 ")[1].split()[0]
    assert set(seen.values()) == {SEEN.format(time=time)}
    code, out, _ = run_sifkit(uid, base.parent, "exec", *BIND_PROGRAMS, "base.sif", "sh", "-c", "cat /app/message.txt; ls /app")
    assert (code, out) == (0, "base\nkeep\nmessage.txt\ntree\n")


@UIDS
def test_the_same_load_on_the_host_gives_the_same(uid: int, base: Path, overlay: Path) -> None:
    program = base.with_name("load.py")
    program.write_bytes(LOAD.read_bytes())
    here = base.with_name(f"load-{uid}")
    file_load.prepare(str(here), random.Random(5), PREPARED)
    host = b""
    actions = ["data", "names", "links", *(["nameless"] if probe().fuse_tmpfile.works else [])]
    for action in actions:
        host += subprocess.run(
            [sys.executable, str(program), action, str(here), "7", str(STORMED)], check=True, capture_output=True
        ).stdout
    script = f"umask 022; for a in {' '.join(actions)}; do {PYTHON} /load.py $a /load 7 {STORMED} || exit; done"
    code, out, err = in_container(uid, overlay, script, "-B", f"{program}:/load.py", "--env", "PYTHONDONTWRITEBYTECODE=1")
    assert (code, err) == (0, "")
    assert out.splitlines() == host.decode().splitlines()
    code, again, _ = in_container(uid, overlay, f"{PYTHON} /load.py names /load 7 0", "-B", f"{program}:/load.py")
    assert code == 0 and again.splitlines()[1:] == out.splitlines()[-len(again.splitlines()) + 1 :]


def write_wheel(path: Path) -> Path:
    """A wheel of a package with a module and a program."""
    files = {
        "demo/__init__.py": "def main():\n    print('demo runs')\n",
        **{f"demo/m{number}.py": f"value = {number}\n" for number in range(30)},
        "demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
        "demo-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "demo-1.0.dist-info/entry_points.txt": "[console_scripts]\ndemo = demo:main\n",
    }
    files["demo-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in (*files, "demo-1.0.dist-info/RECORD"))
    wheel = path / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


def write_archive(path: Path, count: int) -> Path:
    """A tar archive of small files in many directories."""
    archive = path / "many.tar"
    with tarfile.open(archive, "w") as output:
        for number in range(count):
            found = tarfile.TarInfo(f"many/d{number % 97}/file{number}")
            text = b"%d\n" % number * (number % 40)
            found.size = len(text)
            found.mtime = 1_700_000_000
            output.addfile(found, io.BytesIO(text))
    return archive


JOBS = """set -e
cd /opt
tar xf /in/many.tar
find many -type f | wc -l; cat many/*/* | cksum
mkdir lib; cp -r /usr/lib/python3.*/json /usr/lib/python3.*/email lib; rm -rf lib/*/__pycache__
python3 -m compileall -q lib; find lib -name '*.pyc' | wc -l | grep -q '^[2-9][0-9]'
python3 - <<'END'
import sqlite3
base = sqlite3.connect("/opt/base.db")
base.execute("create table t (a integer primary key, b text)")
for part in range(5):
    with base:
        base.executemany("insert into t (b) values (?)", [(f"row {part} {n}",) for n in range(400)])
print(base.execute("select count(*), sum(length(b)) from t").fetchone(), base.execute("pragma integrity_check").fetchone())
END
"""


@UIDS
def test_real_jobs(uid: int, base: Path, overlay: Path) -> None:
    count = int(os.environ.get("SIFKIT_JOB_FILES", "1000"))
    inputs = base.with_name("in")
    inputs.mkdir(exist_ok=True)
    wheel, archive = write_wheel(inputs), write_archive(inputs, count)
    if count > 5000:
        assert run_sifkit(uid, base.parent, "-q", "overlay", "resize", overlay.name, "--size", "400M")[0] == 0
    code, out, err = in_container(uid, overlay, JOBS, "-B", f"{inputs}:/in")
    assert code == 0, err
    with tarfile.open(archive) as members:
        names = sorted(members.getnames(), key=lambda name: name.split("/"))
        text = b"".join(members.extractfile(name).read() for name in names)  # type: ignore[union-attr]
    checksum = subprocess.run(["cksum"], input=text, capture_output=True, check=True).stdout.decode()
    assert out.splitlines()[:3] == [str(count), checksum.strip(), "(2000, 17450) ('ok',)"]
    install = (
        "set -- /usr/share/python-wheels/pip-*.whl; "
        f"PYTHONPATH=$1 python3 -m pip -q install --no-index --root-user-action ignore --target /opt/site /in/{wheel.name}; "
        "PYTHONPATH=/opt/site /opt/site/bin/demo; ls /opt/site/demo | wc -l; rm -r /opt/many; ls /opt"
    )
    code, out, err = in_container(uid, overlay, install, "-B", f"{inputs}:/in")
    assert (code, out) == (0, "demo runs\n32\nbase.db\nlib\nsite\n"), err


@UIDS
def test_system_calls(uid: int, base: Path, overlay: Path) -> None:
    program = base.with_name("file_calls.py")
    program.write_bytes(Path(file_calls.__file__).read_bytes())
    code, out, err = in_container(uid, overlay, f"{PYTHON} /calls.py /calls", "-B", f"{program}:/calls.py")
    assert (code, out.splitlines()[-1:]) == (0, ["database"]), err
    assert_clean(overlay)
