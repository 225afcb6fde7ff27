"""Facts of a container, read below the directory of its root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sifkit.errors import FormatError
from sifkit.runtime.container import container_facts
from sifkit.runtime.container.container_facts import mounts_with_accounts, read_container_facts, start_in_container
from sifkit.runtime.planning.run_plan import Account, Command, ContainerEnvironment, Layer, Mount, RunPlan


def program(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("#!/bin/sh\n")
    (root / path).chmod(0o755)


def plan_of_nothing() -> RunPlan:
    return RunPlan(
        way="root",
        layers=(Layer(path="x", kind="squashfs"),),
        upper=None,
        mounts=(),
        command=Command(action="run", words=("a",)),
        environment=ContainerEnvironment(),
        cwd=("/missing", "/home"),
        home="/home",
        account=Account(uid=0, gid=0, name="root", group="root", home="/root"),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    program(root, "bin/dash")
    (root / "bin/sh").symlink_to("/bin/dash")  # in the container
    program(root, ".singularity.d/runscript")
    program(root, "scif/apps/foo/scif/runscript")
    env = root / ".singularity.d/env"
    env.mkdir()
    (env / "20-b.sh").write_text("export B=1")
    (env / "10-a.sh").write_text("export A=1")
    (env / "readme").write_text("")
    return root


def test_facts(root: Path) -> None:
    facts = read_container_facts(Command(action="shell", shell="/bin/zsh"), str(root))
    assert facts.shell and not facts.bash and not facts.has_asked_shell
    assert facts.scripts == (("10-a.sh", b""), ("20-b.sh", b""))
    assert facts.runscript == "/.singularity.d/runscript"
    assert read_container_facts(Command(action="shell", shell="/bin/dash"), str(root)).has_asked_shell


def test_facts_of_an_app(root: Path) -> None:
    facts = read_container_facts(Command(action="run", app="foo"), str(root))
    assert facts.has_app and facts.runscript == "/scif/apps/foo/scif/runscript"
    facts = read_container_facts(Command(action="run", app="bar"), str(root))
    assert not facts.has_app and facts.runscript == ""


def test_scripts_are_read_only_without_a_shell(root: Path) -> None:
    (root / "bin/sh").unlink()
    (root / "bin/sh").symlink_to("/bin/missing")
    facts = read_container_facts(Command(action="exec"), str(root))
    assert not facts.shell
    assert facts.scripts == (("10-a.sh", b"export A=1"), ("20-b.sh", b"export B=1"))


def test_links_do_not_lead_to_the_host(root: Path) -> None:
    (root / "bin/bash").symlink_to("/usr/bin/env")
    (root / ".singularity.d/runscript").unlink()
    (root / ".singularity.d/runscript").symlink_to("../../../../../../bin/ls")
    facts = read_container_facts(Command(action="run"), str(root))
    assert not facts.bash and facts.runscript == ""


def test_the_number_of_scripts_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_facts, "MOST_SCRIPTS", 1)
    with pytest.raises(FormatError, match="more than 1 scripts"):
        read_container_facts(Command(action="exec"), str(root))


def test_the_start_knows_the_working_directory(root: Path) -> None:
    notes: list[str] = []
    (root / "home").mkdir()
    (root / ".singularity.d/runscript").unlink()
    plan = plan_of_nothing()
    start = start_in_container("sifkit run", notes.append)(plan, str(root))
    assert start.argv[:2] == ("/bin/sh", "-c") and start.argv[3:] == ("sifkit run", "/bin/sh", "a")
    assert start.environment["PWD"] == "/home"
    assert notes == [
        "/missing is not in the container; the command starts in /home",
        "the image has no runscript; /bin/sh is run",
    ]
    with pytest.raises(FormatError, match="--cwd /missing: no such directory in the container"):
        start_in_container("", notes.append)(plan._replace(is_cwd_required=True), str(root))


def test_the_shown_working_directory_has_no_dots(root: Path) -> None:
    (root / "home/sub").mkdir(parents=True)
    (root / "link").symlink_to("/home/sub")
    for cwd, shown in (
        ("/link/../sub/.", "/home/sub"),
        ("/link/..", "/home"),
        ("/.", "/"),
        ("/link", "/link"),
        ("//link/", "/link"),
    ):
        plan = plan_of_nothing()._replace(cwd=(cwd,), is_cwd_required=True)
        assert start_in_container("", print)(plan, str(root)).environment["PWD"] == shown


def test_a_working_directory_that_cannot_be_entered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    (root / "home").mkdir()
    (root / "missing").mkdir()
    monkeypatch.setattr(container_facts.os, "access", lambda path, _: not os.fsdecode(path).endswith("/missing"))
    plan = plan_of_nothing()
    assert start_in_container("sifkit run", notes.append)(plan, str(root)).environment["PWD"] == "/home"
    assert notes == ["/missing cannot be entered; the command starts in /home"]
    with pytest.raises(FormatError, match="--cwd /missing: permission denied"):
        start_in_container("", notes.append)(plan._replace(is_cwd_required=True), str(root))


def test_accounts_are_edited(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc/passwd").symlink_to("/real")
    (root / "real").write_text("root:x:0:0::/:/bin/sh\n")
    account = Account(uid=5, gid=6, name="me", group="us", home="/home/me")
    mounts = (
        Mount(kind="bind", target="/etc/passwd", edit="passwd"),
        Mount(kind="bind", target="/etc/group", edit="group"),
        Mount(kind="bind", target="/x", source="/y"),
    )
    plan = plan_of_nothing()._replace(mounts=mounts, account=account)
    passwd, group, other = mounts_with_accounts(plan, str(root))
    assert passwd.content == b"root:x:0:0::/:/bin/sh\nme:x:5:6::/home/me:/bin/sh\n" and not passwd.edit
    assert group.content == b"us:x:6:me\n" and other == mounts[2]
