"""Runs of a plain user without FUSE: images unpacked into a cache, and directories as they are."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sifkit.runtime.planning.run_plan import Layer, Mount, RunPlan, Upper
from tests.support.plan_runner import plan_of, run_plan, start_plan
from tests.support.squashfs_images import make_squashfs
from tests.support.tools import require, requires_root, run

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

USER = 4321
MESSAGE = "cat /app/message.txt"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory that every user can read, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="sifkit-unpacked-") as found:
        os.chmod(found, 0o755)
        yield Path(found)


@pytest.fixture(scope="module")
def root(folder: Path) -> Path:
    top = folder / "root"
    (top / "app/deep").mkdir(parents=True)
    (top / "app/message.txt").write_text("base\n")
    (top / "app/secret").write_text("of root\n")
    (top / "app/secret").chmod(0o600)
    (top / "app/tool").touch()
    (top / "app/tool").chmod(0o6755)
    os.setxattr(top / "app/tool", "user.word", b"kept")
    os.setxattr(top / "app/tool", "user.overlay.metacopy", b"")
    os.mknod(top / "app/device", 0o20666, os.makedev(1, 3))
    os.mknod(top / "app/whiteout", 0o20000, os.makedev(0, 0))
    (top / "app/closed").mkdir(mode=0o555)
    (top / "app/closed/in").touch()
    (top / "app/closed").chmod(0)
    (top / "run").symlink_to("/app")
    (top / "app/link").symlink_to("message.txt")
    (top / "out").symlink_to("/etc")
    return top


@pytest.fixture(scope="module")
def base(folder: Path, root: Path) -> Layer:
    return Layer(path=str(make_squashfs(root, folder / "image.sqfs")), kind="squashfs")


@pytest.fixture
def cache(folder: Path, request: pytest.FixtureRequest) -> Path:
    """The cache of one test, in a directory of the user's."""
    top = folder / f"home-{abs(hash(request.node.name))}"
    top.mkdir(exist_ok=True)
    os.chown(top, USER, USER)
    return top / ".cache/sifkit"


def unpacked(cache: Path, script: str, layers: list[Layer], upper: Upper | None = None, *mounts: Mount) -> RunPlan:
    return plan_of("unpacked", ["sh", "-c", script], layers, upper, *mounts)._replace(cache=str(cache))


def state(cache: Path) -> dict[str, int]:
    """Numbers of names in the directories of a cache."""
    return {name: len(os.listdir(cache / name)) for name in ("trees", "unfinished", "digests")}


def test_an_image_is_unpacked_once(base: Layer, folder: Path, cache: Path) -> None:
    binds = (
        Mount(kind="bind", target="/run/new/text", content=b"generated\n"),
        Mount(kind="bind", target="/out/text", content=b"inside\n"),
        Mount(kind="bind", target="/data", source="/tmp"),
    )
    script = (
        f"{MESSAGE} /app/secret /app/new/text /etc/text; id -u; ls /app; stat -c '%u %a' /app/secret /app/tool /app/closed; "
        "touch /app/x; touch /app/deep/x"
    )
    plan = unpacked(cache, script, [base], None, *binds)
    code, out, err = run_plan(plan, folder, uid=USER)
    names = "closed\ndeep\nlink\nmessage.txt\nnew\nsecret\ntool\n"
    wanted = f"base\nof root\ngenerated\ninside\n{USER}\n{names}{USER} 600\n{USER} 755\n{USER} 0\n"
    assert out == wanted
    assert code == 1 and err.count("Read-only file system") == 2
    notes = [line for line in err.splitlines() if line.startswith("note:")]
    assert len(notes) == 2 and f"is unpacked in {cache}" in notes[0] and "2 devices" in notes[1]
    assert state(cache)["trees"] == 1 and state(cache)["unfinished"] == 0
    (tree,) = (cache / "trees").iterdir()
    assert os.listxattr(tree / "root/app/tool") == ["user.word"] and cache.stat().st_mode & 0o777 == 0o700
    assert not (tree / "root/etc").exists() and not (tree / "root/app/new").exists()
    again = run_plan(plan, folder, uid=USER)
    assert again[1] == wanted and "note:" not in again[2]


def test_mount_points_without_overlayfs(base: Layer, root: Path, folder: Path, cache: Path) -> None:
    binds = (
        Mount(kind="bind", target="/run/new/text", content=b"generated\n"),
        Mount(kind="bind", target="/run/new/other", content=b"too\n"),
        Mount(kind="tmpfs", target="/app/deep/er/memory"),
        Mount(kind="bind", target="/app/link", content=b"", hides_link=True),
        Mount(kind="bind", target="/app/unneeded", content=b"", needs="/missing"),
    )
    script = (
        f"{MESSAGE} /app/new/text /run/new/other; cat /app/secret | wc -l; readlink /out /app/link; ls /app /app/deep; "
        "ls -d /app/closed; echo x >/app/deep/er/memory/x; touch /app/x; touch /x; touch /app/deep/x; stat -c %a / /app; exit 0"
    )
    plan = unpacked(cache, script, [base], None, *binds)._replace(joins_directories=False)
    boxed = plan._replace(way="directory", layers=(Layer(path=str(root), kind="directory"),))
    for one, lines, names in ((plan, 1, set[str]()), (boxed, 0, {"device", "whiteout"})):
        code, out, err = run_plan(one, folder, uid=USER)
        listed = "\n".join(sorted({"closed", "deep", "link", "message.txt", "new", "secret", "tool", *names}))
        wanted = f"base\ngenerated\ntoo\n{lines}\n/etc\n/app:\n{listed}\n\n/app/deep:\ner\n/app/closed\n755\n755\n"
        assert (code, out) == (0, wanted) and err.count("Read-only file system") == 3


@pytest.mark.parametrize("kind", ["tmpfs", "directory"])
def test_writable_layers(base: Layer, folder: Path, cache: Path, kind: str) -> None:
    over = folder / f"own-{kind}"
    over.mkdir()
    os.chown(over, USER, USER)
    upper = Upper(kind=kind, path="" if kind == "tmpfs" else str(over), size=4 << 20)  # type: ignore[arg-type]
    script = (
        "echo more >>/app/message.txt; cat /app/message.txt; chmod 600 /app/tool; mv /app/tool /app/moved; rm -r /app/deep; "
        "mkdir /app/deep; ls -A /app/deep; dd if=/dev/zero of=/app/big bs=1M count=8 2>/dev/null || echo full; rm /app/big"
    )
    code, out, _ = run_plan(unpacked(cache, script, [base], upper), folder, uid=USER)
    assert (code, out) == (0, "base\nmore\n" + "full\n" * (kind == "tmpfs"))
    assert (over / "upper/app/moved").exists() == (kind == "directory")
    code, out, _ = run_plan(unpacked(cache, MESSAGE, [base]), folder, uid=USER)
    assert (code, out) == (0, "base\n")


def test_layers_are_merged(base: Layer, root: Path, folder: Path, cache: Path) -> None:
    require("mke2fs")
    source = folder / "over"
    (source / "upper/app").mkdir(parents=True)
    (source / "upper/app/.wh.secret").touch()
    (source / "upper/app/message.txt").write_text("changed\n")
    image = folder / "over.img"
    run("mke2fs", "-q", "-t", "ext3", "-d", source, image, "4M")
    image.chmod(0o644)
    over = Layer(path=str(image), kind="ext3", subdirectory="upper", has_marks=True)
    plain, marked = folder / "plain", folder / "marked"
    for top in (plain, marked):
        (top / "app").mkdir(parents=True)
        (top / "app" / top.name).touch()
        os.mknod(top / "app/tool", 0o20000, os.makedev(0, 0))
    (marked / "app/.wh.message.txt").touch()
    layers = {name: Layer(path=str(folder / name), kind="directory", has_marks=True) for name in ("plain", "marked")}
    script = "cat /app/message.txt; ls -A /app"
    # as root, in a user namespace all the same: another user may have no right to read this interpreter's numpy
    found = run_plan(unpacked(cache, script, [base, over]), folder)
    names = "closed\ndeep\nlink\nmessage.txt\ntool\n"
    assert found[:2] == (0, f"changed\n{names}") and found[2].count("note:") == 2
    found = run_plan(unpacked(cache, script, [base, layers["plain"]]), folder)
    assert found[:2] == (0, "base\nclosed\ndeep\nlink\nmessage.txt\nplain\nsecret\n")
    kept = state(cache)["trees"]
    assert kept == 2
    for order, wanted in (
        ([base, layers["marked"]], "closed\ndeep\nlink\nmarked\nsecret\n"),
        ([base, layers["plain"], over], f"changed\n{names.replace('tool', 'plain')}"),
    ):
        found = run_plan(unpacked(cache, script, order), folder)
        assert found[1].removeprefix("base\n") == wanted and "for this run alone" in found[2]
    assert state(cache)["trees"] == kept and state(cache)["unfinished"] == 0
    assert not [name for name in os.listdir(cache / "locks") if name.startswith("run-")]


def test_a_changed_image_gives_its_new_content(folder: Path, cache: Path) -> None:
    top, image = folder / "changing", folder / "changing.sqfs"
    (top / "app").mkdir(parents=True)
    for text in ("one\n", "two\n"):
        (top / "app/message.txt").write_text(text)
        make_squashfs(top, image, "-mkfs-time", "1", "-all-time", "1")
        os.utime(image, (1, 1))
        plan = unpacked(cache, MESSAGE, [Layer(path=str(image), kind="squashfs")])
        assert run_plan(plan, folder, uid=USER)[:2] == (0, text)
    assert state(cache)["trees"] == 1


def test_starts_at_once_unpack_once(base: Layer, folder: Path, cache: Path) -> None:
    runs = []
    for number in range(4):
        scratch = folder / f"at-once-{number}"
        scratch.mkdir()
        scratch.chmod(0o755)
        runs.append(start_plan(unpacked(cache, MESSAGE, [base]), scratch, uid=USER))
    found = [one.communicate(timeout=60) for one in runs]
    assert [(one.returncode, out) for one, (out, _) in zip(runs, found, strict=True)] == [(0, b"base\n")] * 4
    assert sum(b"is unpacked in" in err for _, err in found) == 1
    assert state(cache)["trees"] == 1 and state(cache)["unfinished"] == 0


def test_a_killed_start_leaves_what_the_next_removes(base: Layer, folder: Path, cache: Path) -> None:
    source = folder / "many"
    source.mkdir()
    for number in range(2000):
        (source / str(number)).touch()
    image = Layer(path=str(make_squashfs(source, folder / "many.sqfs")), kind="squashfs")
    with start_plan(unpacked(cache, "true", [image]), folder, uid=USER) as process:
        until = time.monotonic() + 20
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not list(cache.glob("unfinished/*/root")) and time.monotonic() < until:
            time.sleep(0.001)
        for number in children.read_text().split():
            os.kill(int(number), 9)
        process.communicate()
    assert process.returncode == 255 and state(cache)["unfinished"] == 1
    assert run_plan(unpacked(cache, MESSAGE, [base]), folder, uid=USER)[1] == "base\n"
    assert state(cache) == {"trees": 1, "unfinished": 0, "digests": state(cache)["digests"]}


def test_a_tree_that_has_lost_files_is_made_again(base: Layer, folder: Path, cache: Path) -> None:
    plan = unpacked(cache, MESSAGE, [base])
    assert run_plan(plan, folder, uid=USER)[:2] == (0, "base\n")
    (tree,) = (cache / "trees").iterdir()
    (tree / "root/app/message.txt").unlink()
    os.utime(tree / "complete", (1, 1))  # it was looked at long ago
    os.utime(base.path, (1, 1))
    assert run_plan(plan, folder, uid=USER)[:2] == (0, "base\n")
    assert state(cache)["trees"] == 1


def test_a_full_disk_is_one_line(base: Layer, folder: Path) -> None:
    """Too small for large files, or the blocks of small ones; and one from which no programs run."""
    small = folder / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size=700k,uid={USER},mode=755", "small", small)
    try:
        for name, count, size, reason in (("big", 1, 1 << 20, "1 MiB, "), ("many", 300, 10, "1.2 MiB, ")):
            source = folder / f"full-{name}"
            source.mkdir()
            for number in range(count):
                (source / str(number)).write_bytes(os.urandom(size))
            image = Layer(path=str(make_squashfs(source, folder / f"{name}.sqfs")), kind="squashfs")
            code, out, err = run_plan(unpacked(small / "cache", "true", [image]), folder, uid=USER)
            last = err.splitlines()[-1]
            assert (code, out) == (255, "") and reason in last and "APPTAINER_CACHEDIR" in last, err
            assert err.count("\n") == 1
            assert state(small / "cache") == {"trees": 0, "unfinished": 0, "digests": 0}
        run("mount", "-o", "remount,noexec", small)
        code, _, err = run_plan(unpacked(small / "cache", "true", [base]), folder, uid=USER)
        assert code == 255 and "mounted noexec" in err
    finally:
        run("umount", small)


def test_caches_that_are_not_the_users_own(base: Layer, folder: Path) -> None:
    own = folder / "own"
    own.mkdir()
    os.chown(own, USER, USER)
    (folder / "of-root").mkdir()
    (folder / "link").symlink_to(own)
    for name, reason in (
        ("of-root", "belongs to another user"),
        ("link", "belongs to another user"),
        ("none/cache", "cannot be made"),
    ):
        place = folder / name
        code, _, err = run_plan(unpacked(place, "true", [base]), folder, uid=USER)
        assert code == 255 and reason in err and err.count("\n") == 1


def test_a_damaged_image_is_one_line(folder: Path, cache: Path) -> None:
    image = folder / "bad.sqfs"
    image.write_bytes(b"hsqs" + bytes(200))
    code, _, err = run_plan(unpacked(cache, "true", [Layer(path=str(image), kind="squashfs")]), folder, uid=USER)
    assert code == 255 and "bad.sqfs" in err and "Traceback" not in err


@pytest.mark.parametrize("owner", [0, USER])
def test_a_directory_is_run_as_it_is(root: Path, folder: Path, owner: int) -> None:
    top = folder / f"box-{owner}"
    run("cp", "-a", root, top)
    run("chown", "-hR", f"{owner}:{owner}", top)
    layer = Layer(path=str(top), kind="directory")
    bind = Mount(kind="bind", target="/run/new/text", content=b"generated\n")
    script = f"{MESSAGE} /app/new/text; ls /app/closed 2>&1; touch /app/deep/x"
    plan = plan_of("directory", ["sh", "-c", script], [layer], None, bind)._replace(cache="/none")
    code, out, err = run_plan(plan, folder, uid=USER)
    assert (code, out) == (1, "base\ngenerated\nls: cannot open directory '/app/closed': Permission denied\n")
    assert "Read-only file system" in err and not (top / "app/new").exists()
    code, out, err = run_plan(plan._replace(upper=Upper(kind="tmpfs", size=1 << 20)), folder, uid=USER)
    assert code == (0 if owner == USER else 1) and not (top / "app/deep/x").exists()


def test_a_directory_is_written_to(root: Path, folder: Path) -> None:
    top = folder / "written"
    run("cp", "-a", root, top)
    for name in ("usr", "bin", "sbin", "lib", "lib64", "proc", "dev", "home"):
        (top / name).mkdir()
    run("chown", "-hR", f"{USER}:{USER}", top)
    mounts = (
        Mount(kind="bind", target="/home/me", source="/tmp"),
        Mount(kind="tmpfs", target="/none", is_optional=True),
        Mount(kind="bind", target="/app/lacks", content=b"", is_optional=True),
    )
    plan = plan_of("directory", ["sh", "-c", "echo new >/app/new; ls -d /home/*"], [Layer(path=str(top), kind="directory")])
    plan = plan._replace(is_root_writable=True, home="/home/me", mounts=(*plan.mounts, *mounts))
    code, out, err = run_plan(plan, folder, uid=USER)
    assert (code, out) == (0, "/home/me\n") and err.count("the container has no such path") == 2
    assert (top / "app/new").read_text() == "new\n" and not list((top / "home").iterdir())
    wanted = plan._replace(mounts=(*plan.mounts, Mount(kind="bind", target="/asked", source="/tmp")))
    code, _, err = run_plan(wanted, folder, uid=USER)
    assert code == 255 and "/tmp at /asked cannot be mounted" in err and "create it there" in err
