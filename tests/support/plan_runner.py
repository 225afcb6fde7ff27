"""Runs of plans in a process of their own, which a launch needs: ``run_plan`` for tests, and what it starts."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sifkit.errors import SifkitError
from sifkit.runtime.launch import launch
from sifkit.runtime.planning.run_plan import Account, Command, ContainerEnvironment, Layer, Mount, RunPlan, Start, Upper, Way

from .plain_user import become_user

__all__ = ["host_programs", "plan_of", "run_plan", "start_plan"]

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def host_programs() -> tuple[Mount, ...]:
    """Mounts that give a container the programs of the host."""
    return tuple(
        Mount(kind="bind", target=name, source=name, readonly=True)
        for name in ("/usr", "/bin", "/sbin", "/lib", "/lib64")
        if os.path.isdir(name)
    )


def plan_of(
    way: Way,
    words: Sequence[str],
    layers: Sequence[Layer],
    upper: Upper | None = None,
    *mounts: Mount,
    namespaces: Sequence[str] = (),
) -> RunPlan:
    """A plan with the programs of the host, /proc and /dev."""
    proc = Mount(kind="proc", target="/proc") if "pid" in namespaces else Mount(kind="bind", target="/proc", source="/proc")
    usual = (*host_programs(), proc, Mount(kind="bind", target="/dev", source="/dev", nodev=False))
    return RunPlan(
        way=way,
        layers=tuple(layers),
        upper=upper,
        mounts=(*usual, *mounts),
        command=Command(action="exec", words=tuple(words)),
        environment=ContainerEnvironment(fixed=ENVIRONMENT),
        cwd=(),
        home="/",
        account=Account(uid=0, gid=0, name="root", group="root", home="/root"),
        namespaces=frozenset(namespaces),  # type: ignore[arg-type]
    )


def start_plan(
    plan: RunPlan,
    scratch: Path,
    *,
    uid: int = 0,
    stdin: int = subprocess.DEVNULL,
    close_fds: bool = True,
    before: Callable[[], object] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a run; as another user, if ``uid`` says so. ``before``: called in its process first."""
    file = scratch / "plan.pickle"
    file.write_bytes(pickle.dumps(plan))
    file.chmod(0o644)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.plan_runner", str(file), str(uid)],
        cwd=ROOT,
        env=environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        close_fds=close_fds,
        preexec_fn=before,  # noqa: PLW1509 - the tests have no threads
    )


def run_plan(plan: RunPlan, scratch: Path, *, uid: int = 0, before: Callable[[], object] | None = None) -> tuple[int, str, str]:
    """Exit code, output and errors of a run."""
    with start_plan(plan, scratch, uid=uid, before=before) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


def _drop(uid: int, way: Way) -> None:
    """Become another user, who may be unable to read the modules of this interpreter: those of a run are loaded before.

    numpy has no threads then (OPENBLAS_NUM_THREADS): a user namespace needs a process with a single one.
    """
    import encodings.ascii
    import lzma
    import zlib

    import sifkit.runtime.images.layer_marks
    import sifkit.runtime.layers.plain_tree
    import sifkit.runtime.layers.served_layers
    import sifkit.runtime.layers.unpacked_layers
    import sifkit.vfs.extracting
    import sifkit.vfs.walk

    if way in ("user", "view"):
        import ext3.fsck.checking
        import ext3.newfs.stamp
        import ext3.resize.unfinished
        import sifkit.overlay.images.opening
        import sifkit.overlay.marks.normalizing
        import sifkit.overlay.resizing.unfinished_resize
        import sifkit.runtime.fuse.ext3_backend
        import sifkit.runtime.fuse.writable_server
        import sifkit.sif.image
        import sifkit.sif.store

        _ = ext3
    _ = encodings.ascii, lzma, zlib, sifkit
    become_user(uid)


def _main(file: str, uid: int) -> int:
    with open(file, "rb") as stream:
        plan: RunPlan = pickle.load(stream)
    if uid:
        _drop(uid, plan.way)
    try:
        return launch(
            plan,
            start_of=lambda found, _: Start(found.command.words, found.environment.fixed),
            notify=lambda text: print("note:", text, file=sys.stderr, flush=True),
        )
    except SifkitError as error:
        print("error:", error, error.hint, file=sys.stderr)
        return 255


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], int(sys.argv[2])))
