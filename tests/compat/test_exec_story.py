"""The way through the manuals, by a plain user and by root: overlays from directories, changed, embedded, made larger; memory;
and directories as overlays, with upper and work as the older tutorial has them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.plain_user import USER, run_sifkit, user_directory
from tests.support.program_tree import write_program_tree
from tests.support.tools import assert_clean, requires_root
from tests.support.usr_container import write_squashfs_sif

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]


@pytest.fixture(scope="module")
def containers() -> Iterator[Path]:
    """base.sif, with /app/message.txt and a few programs."""
    with user_directory(USER) as folder:
        root = write_program_tree(folder / "root")
        (root / "app").mkdir()
        (root / "app/message.txt").write_text("Hello from the base\n")
        write_squashfs_sif(folder / "base.sif", root)
        yield folder


@pytest.mark.parametrize("uid", [0, USER], ids=["root", "user"])
def test_the_manuals_from_create_to_embedded(containers: Path, uid: int) -> None:
    with user_directory(uid) as here:
        (here / "base.sif").write_bytes((containers / "base.sif").read_bytes())
        (here / "overlay/opt/tool/bin").mkdir(parents=True)
        (here / "overlay/opt/tool/bin/hello").write_text("#!/bin/sh\necho tool says $1\n")
        (here / "overlay/opt/tool/bin/hello").chmod(0o755)
        for above, directories, files in os.walk(here):
            for name in (*directories, *files):
                os.chown(Path(above, name), uid, uid)

        def sifkit(*words: str) -> tuple[int, str, str]:
            return run_sifkit(uid, here, *words)

        def ran(*words: str) -> str:
            """Output of a command, which succeeds and says nothing else."""
            code, out, err = sifkit(*words)
            assert (code, err) == (0, ""), words
            return out

        # an overlay from a directory, without root
        ran("-q", "overlay", "create", "--size", "8M", "--from-dir", "overlay/", "overlay.img")
        assert ran("exec", "--overlay", "overlay.img", "base.sif", "/opt/tool/bin/hello", "hi") == "tool says hi\n"
        # what a container writes stays, and is gone without the overlay
        change = "echo changed >/app/message.txt; echo more >/opt/more; rm -r /opt/tool/bin; mkdir /data; touch /data/x"
        ran("exec", "--overlay", "overlay.img", "base.sif", "sh", "-c", change)
        look = "cat /app/message.txt /opt/more; ls /data /opt/tool"
        assert ran("exec", "-o", "overlay.img", "base.sif", "sh", "-c", look) == "changed\nmore\n/data:\nx\n\n/opt/tool:\n"
        assert ran("exec", "-o", "overlay.img:ro", "base.sif", "sh", "-c", look) == "changed\nmore\n/data:\nx\n\n/opt/tool:\n"
        assert ran("exec", "base.sif", "sh", "-c", "cat /app/message.txt; ls /opt") == "Hello from the base\n"
        assert_clean(here / "overlay.img")
        # in the image itself: siftool's command, and the overlay is part of what one copies
        ran("-q", "sif", "add", "--datatype", "4", "--partfs", "2", "--parttype", "4", "--partarch", "2", "--groupid", "1",
            "base.sif", "overlay.img")  # fmt: skip
        assert ran("exec", "base.sif", "cat", "/app/message.txt") == "changed\n"
        code, _, err = sifkit("exec", "base.sif", "touch", "/data/y")
        assert code == 1 and "Read-only file system" in err
        ran("exec", "--writable", "base.sif", "sh", "-c", "echo embedded >/data/y; rm /data/x")
        assert ran("exec", "base.sif", "ls", "/data") == "y\n"
        # larger, and what did not fit fits
        fill = "i=0; while [ $i -lt 30 ]; do cat /bin/sh /bin/ls /bin/sleep /bin/cat >>/data/big || exit 1; i=$((i + 1)); done"
        code, _, err = sifkit("exec", "-w", "base.sif", "sh", "-c", fill)
        assert code != 0 and "No space left on device" in err
        assert "sifkit overlay resize" in err and "is full" in err
        ran("exec", "-w", "base.sif", "rm", "/data/big")
        ran("-q", "overlay", "resize", "base.sif", "--size", "+16M")
        ran("exec", "-w", "base.sif", "sh", "-c", fill)
        assert ran("exec", "base.sif", "cat", "/data/y", "/app/message.txt") == "embedded\nchanged\n"
        number = next(line.split()[0] for line in ran("sif", "list", "base.sif").splitlines() if "Ext3" in line)
        ran("-q", "sif", "dump", "-o", "dumped.img", number, "base.sif")
        assert_clean(here / "dumped.img")
        # memory, which is lost
        assert ran("exec", "--writable-tmpfs", "base.sif", "sh", "-c", "echo lost >/data/y; cat /data/y") == "lost\n"
        assert ran("exec", "base.sif", "cat", "/data/y") == "embedded\n"


@pytest.mark.parametrize("uid", [0, USER], ids=["root", "user"])
def test_directories_as_overlays(containers: Path, uid: int) -> None:
    with user_directory(uid) as here:
        base = str(containers / "base.sif")

        def ran(*words: str) -> str:
            code, out, err = run_sifkit(uid, here, "exec", *words)
            assert (code, err) == (0, ""), words
            return out

        for name in ("layer", "upper", "work"):
            (here / name).mkdir()
            os.chown(here / name, uid, uid)
        change = "echo changed >/app/message.txt; mkdir /app/new; rm /bin/sleep"
        ran("--overlay", "layer", base, "sh", "-c", change)
        assert (here / "layer/upper/app/message.txt").read_text() == "changed\n"
        assert (here / "layer/upper/app/message.txt").stat().st_uid == uid
        assert ran("--overlay", "layer:ro", base, "sh", "-c", "cat /app/message.txt; ls /app") == "changed\nmessage.txt\nnew\n"
        ran("--overlay", "upper:work:rw", base, "sh", "-c", "cat /app/message.txt; echo second >/app/message.txt")
        assert (here / "upper/app/message.txt").read_text() == "second\n" and not (here / "upper/upper").exists()
        assert ran("--overlay", "upper:work:rw", base, "cat", "/app/message.txt") == "second\n"
        assert ran(base, "cat", "/app/message.txt") == "Hello from the base\n"
        ran("--overlay", "layer", "--overlay", "upper:ro", base, "sh", "-c", "[ $(cat /app/message.txt) = changed ]")
