"""Plans of runs: layers, ways, mounts and all that is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from sifkit.errors import FormatError, SifkitError, UsageError
from sifkit.runtime.layers.directory_layers import merged_count
from sifkit.runtime.planning.cache_path import cache_path
from sifkit.runtime.planning.config import SiteConfig
from sifkit.runtime.planning.layer_plan import NoWayError
from sifkit.runtime.planning.options import RunOptions
from sifkit.runtime.planning.plan_text import plan_lines
from sifkit.runtime.planning.planner import gpu_makers, plan_run
from sifkit.runtime.planning.request import Caller, GpuFiles, ImageFacts, OverlayFacts, RunRequest
from sifkit.runtime.planning.run_plan import Layer, Mount, RunPlan, Upper


@dataclass(frozen=True)
class Fact:
    works: bool
    reason: str = "it is broken"
    request: str = "a mended one"


YES, NO = Fact(True), Fact(False)


@dataclass(frozen=True)
class Host:
    is_root: bool = False
    loop: Fact = NO
    user_namespace: Fact = YES
    user_mount: Fact = YES
    fuse: Fact = YES
    overlay: Fact = YES
    fuse_upper: Fact = YES
    fuse_tmpfile: Fact = YES
    tmpfs_upper: Fact = YES


USER, ROOT = Host(), Host(is_root=True, loop=YES)
DEFAULTS = SiteConfig()
CALLER = Caller(
    uid=1000,
    gid=1000,
    name="alice",
    group="alice",
    home="/home/alice",
    cwd="/work/dir",
    machine="amd64",
    environment={"PATH": "/bin", "HOME": "/home/alice"},
)
BASE = Layer(path="/base.sif", kind="squashfs", offset=4096, size=8192, object_id=1)
IMAGE = ImageFacts(path="/base.sif", kind="sif", root=BASE, architecture="amd64", owner="root", group="root")
EMBEDDED = Layer(path="/base.sif", kind="ext3", offset=16384, size=8192, object_id=2, subdirectory="upper", has_marks=True)
WITH_OVERLAY = IMAGE._replace(
    overlays=(EMBEDDED,), uppers=(Upper(kind="image", path="/base.sif", offset=16384, size=8192, object_id=2),)
)


def overlay(name: str, *, read_only: bool = False, **more: Any) -> OverlayFacts:
    layer = Layer(path=f"/{name}", kind="ext3", subdirectory="upper", has_marks=True)
    upper = Upper(kind="image", path=f"/{name}")
    facts: dict[str, Any] = {"name": name, "path": f"/{name}", "kind": "ext3", "layers": (layer,), "upper": upper}
    return OverlayFacts(**{**facts, "read_only": read_only, **more})


def planned(
    *overlays: OverlayFacts,
    image: ImageFacts = IMAGE,
    host: Host = USER,
    site: SiteConfig = DEFAULTS,
    request: dict[str, Any] | None = None,
    **options: Any,
) -> RunPlan:
    facts = {
        "action": "exec",
        "image": image,
        "words": ("true",),
        "options": RunOptions(**options),
        "caller": CALLER,
        "overlays": overlays,
        "kind_of": lambda path: "missing" if "missing" in path else "file" if "file" in path else "directory",
    }
    return plan_run(RunRequest(**{**facts, **(request or {})}), host, site)


def refused(message: str, *arguments: OverlayFacts, kind: type[SifkitError] = UsageError, hint: str = "", **more: Any) -> None:
    with pytest.raises(kind, match=message) as caught:
        planned(*arguments, **more)
    assert hint in caught.value.hint


def targets(plan: RunPlan) -> list[str]:
    return [mount.target for mount in plan.mounts]


def mount_at(plan: RunPlan, target: str) -> Mount:
    (found,) = [mount for mount in plan.mounts if mount.target == target]
    return found


# Layers


def test_layers_lie_as_apptainer_has_them() -> None:
    plan = planned(overlay("rw.img"), overlay("a.img", read_only=True), overlay("b.img", read_only=True), image=WITH_OVERLAY)
    assert [layer.path for layer in plan.layers] == ["/base.sif", "/base.sif", "/a.img", "/b.img"]
    assert plan.upper is not None and plan.upper.path == "/rw.img"


def test_the_overlay_in_the_image_is_read_or_written_to() -> None:
    plan = planned(image=WITH_OVERLAY)
    assert plan.layers == (BASE, EMBEDDED) and plan.upper is None and plan.way == "view"
    plan = planned(image=WITH_OVERLAY, writable=True)
    wanted = WITH_OVERLAY.uppers[0]._replace(has_tmpfile=True)
    assert plan.layers == (BASE,) and plan.upper == wanted and plan.way == "user" and not plan.notes
    plan = planned(image=WITH_OVERLAY, writable=True, writable_tmpfs=True)
    assert plan.upper == wanted and plan.notes == ("--writable-tmpfs has no effect with --writable",)


def test_writing_to_a_signed_overlay_is_noted() -> None:
    signed = WITH_OVERLAY._replace(signed=frozenset({2}))
    (note,) = planned(image=signed, writable=True).notes
    assert note == "/base.sif is signed, and what is written to its overlay breaks the signature"
    assert planned(image=signed).notes == planned(image=WITH_OVERLAY, writable=True).notes == ()


def test_the_highest_of_several_overlays_in_the_image_is_written_to() -> None:
    (lower,) = WITH_OVERLAY.uppers
    higher = lower._replace(offset=32768, object_id=3)
    two = WITH_OVERLAY._replace(uppers=(lower, higher))
    plan = planned(image=two, writable=True)
    assert plan.upper == higher._replace(has_tmpfile=True) and "the highest is, object 3; Apptainer" in plan.notes[0]
    assert planned(image=two).notes == ()


def test_a_directory_is_written_to_itself() -> None:
    image = ImageFacts(path="/box", kind="directory", root=Layer(path="/box", kind="directory"))
    plan = planned(image=image, writable=True)
    assert plan.is_root_writable and plan.upper is None
    assert not planned(image=image).is_root_writable
    ext3 = ImageFacts(path="/x.img", kind="ext3", root=Layer(path="/x.img", kind="ext3"))
    refused("writing to the root itself is not supported", image=ext3, writable=True)


def test_memory_is_written_to() -> None:
    assert planned(writable_tmpfs=True).upper == Upper(kind="tmpfs", size=64 << 20)
    assert planned(writable_tmpfs=True, tmpfs_size="2G").upper == Upper(kind="tmpfs", size=2 << 30)
    assert planned(compat=True, site=SiteConfig(sessiondir_max_size=16)).upper == Upper(kind="tmpfs", size=16 << 20)
    compat = planned(overlay("a.img"), compat=True).upper
    assert compat is not None and compat.kind == "image"


def test_overlays_that_can_only_be_read_are_noted() -> None:
    squashfs = overlay("s.sqfs", upper=None, kind="squashfs")
    foreign = overlay("f.img", is_writable=False)
    plan = planned(squashfs, foreign)
    assert plan.upper is None
    assert plan.notes[:2] == (
        "s.sqfs is a squashfs and is only read; write s.sqfs:ro",
        "f.img is not writable for you and is only read",
    )


def test_what_excludes_each_other() -> None:
    a, b = overlay("a.img"), overlay("b.img")
    refused("only one overlay can be written to, and there are 2: a.img, b.img", a, b, hint="add :ro to the others")
    link = overlay("link.img", read_only=True, path="/a.img")
    refused("one overlay is given twice: a.img and link.img", a, link, hint="leave out one of them")
    refused("one overlay is given twice: d", *[overlay("d", kind="directory", read_only=True)] * 2)
    assert len(planned(link, link).layers) == 3
    refused("--writable and --overlay exclude each other", a, writable=True)
    refused("--writable-tmpfs and an overlay that is written to", a, writable_tmpfs=True, hint="--overlay a.img:ro")
    refused("--tmpfs-size is for --writable-tmpfs", writable=True, writable_tmpfs=True, tmpfs_size="1G")
    refused("--tmpfs-size is for --writable-tmpfs", tmpfs_size="1G")
    refused("--tmpfs-size 1GB: GB can mean", writable_tmpfs=True, tmpfs_size="1GB")
    refused("--pid and --no-pid", pid=True, no_pid=True)


def test_an_image_without_an_overlay_is_not_writable() -> None:
    refused("/base.sif has no overlay that can be written to", kind=FormatError, hint="add one with", writable=True)
    other = IMAGE._replace(unused_overlay="its overlay, object 3, is not used; it is in group 2")
    refused("that can be written to: its overlay, object 3, is not used; it is", kind=FormatError, image=other, writable=True)
    refused("/base.sif is not writable for you", kind=FormatError, image=IMAGE._replace(is_writable=False), writable=True)


def test_a_directory_on_a_network_is_refused_before_the_start() -> None:
    directory = overlay("d", kind="directory", upper=Upper(kind="directory", path="/d"), filesystem="lustre")
    refused("d lies on lustre, where no overlay can be written to", directory, hint="sifkit overlay create --size 1G d.img")
    assert planned(directory._replace(read_only=True)).upper is None


def test_images_that_cannot_run_here() -> None:
    arm = IMAGE._replace(architecture="arm64")
    refused("/base.sif is for arm64, this host is amd64", image=arm, kind=FormatError, hint="get the image for amd64")
    assert planned(image=arm, request={"caller": CALLER._replace(emulated=("arm64",))}).layers
    assert planned(image=IMAGE._replace(architecture="386")).layers
    refused("its root is encrypted", image=IMAGE._replace(is_encrypted=True), kind=FormatError)


@pytest.mark.parametrize(
    ("directives", "hint"),
    [
        ({"allow_container_sif": False}, "'allow container sif = no' in conf"),
        ({"limit_container_owners": ("alice",)}, "'limit container owners' in conf"),
        ({"limit_container_groups": ("staff",)}, "'limit container groups' in conf"),
        ({"limit_container_paths": ("/base",)}, "'limit container paths' in conf"),
    ],
)
def test_images_that_the_site_does_not_allow(directives: dict[str, Any], hint: str) -> None:
    refused("this site does not allow it", site=SiteConfig(path="conf", **directives), hint=hint)


def test_what_the_site_allows() -> None:
    site = SiteConfig(limit_container_owners=("root",), limit_container_groups=("root",), limit_container_paths=("/",))
    assert planned(site=site).layers
    refused("does not allow overlays", overlay("a.img"), site=SiteConfig(enable_overlay="no"))
    for options in ({"writable_tmpfs": True}, {"compat": True}):
        refused("does not allow --", site=SiteConfig(enable_overlay="no"), **options)
    refused("does not allow user namespaces", site=SiteConfig(allow_user_ns=False))
    site = SiteConfig(path="conf", limit_container_paths=("/allowed",))
    refused("does not allow it", site=site, image=IMAGE._replace(path="/allowed/x.sif", real_path="/home/x.sif"))
    allowed = IMAGE._replace(path="/x.sif", real_path="/allowed/x.sif")
    assert planned(site=site, image=allowed).layers
    assert planned(site=SiteConfig(limit_container_paths=("/allowed/x.sif",)), image=allowed).layers
    refused("a.img: this site does not allow it", overlay("a.img", path="/elsewhere/a.img"), site=site, image=allowed)
    for site in (SiteConfig(allow_container_extfs=False), SiteConfig(limit_container_owners=("root",))):
        refused("a.img: this site does not allow it", overlay("a.img", owner="alice"), site=site)


def test_namespaces_that_the_site_does_not_allow() -> None:
    site = SiteConfig(path="conf", allow_pid_ns=False, allow_ipc_ns=False, allow_uts_ns=False)
    plan = planned(site=site, containall=True, hostname="h")
    assert plan.namespaces == {"user"} and plan.hostname is None and "/etc/hostname" not in targets(plan)
    assert plan.notes[0] == "this site does not allow IPC namespaces ('allow ipc ns = no' in conf): the host's is used"
    assert len(plan.notes) == 3 and mount_at(plan, "/proc").kind == "bind"


# Ways


@pytest.mark.parametrize(
    ("host", "overlays", "options", "way"),
    [
        (ROOT, (), {}, "root"),
        (ROOT, (overlay("a.img"),), {}, "root"),
        (ROOT, (), {"userns": True}, "view"),
        (Host(is_root=True), (), {}, "view"),
        (USER, (), {}, "view"),
        (USER, (overlay("a.img", read_only=True),), {}, "view"),
        (USER, (overlay("a.img"),), {}, "user"),
        (USER, (), {"writable_tmpfs": True}, "user"),
        (Host(fuse=NO), (), {}, "unpacked"),
        (Host(fuse=NO), (), {"writable_tmpfs": True}, "unpacked"),
        (Host(fuse_upper=NO), (), {"writable_tmpfs": True}, "unpacked"),
        (Host(fuse_upper=NO), (), {}, "view"),
    ],
)
def test_ways(host: Host, overlays: tuple[OverlayFacts, ...], options: dict[str, Any], way: str) -> None:
    plan = planned(*overlays, host=host, **options)
    assert plan.way == way
    assert ("user" in plan.namespaces) == (way != "root")
    assert ("/.cache/sifkit" in "\n".join(plan_lines(plan))) == (way == "unpacked")


@pytest.mark.parametrize(
    ("host", "options", "way", "joins"),
    [
        (USER, {}, "directory", True),
        (Host(fuse=NO), {}, "directory", True),
        (Host(fuse=NO, overlay=NO), {}, "directory", False),
        (Host(fuse=NO, overlay=NO), {"writable": True}, "directory", False),
        (USER, {"writable_tmpfs": True}, "directory", True),
        (Host(fuse=NO), {"writable_tmpfs": True}, "directory", True),
        (ROOT, {}, "root", True),
        (ROOT, {"writable": True}, "root", True),
    ],
)
def test_ways_of_a_directory(host: Host, options: dict[str, Any], way: str, joins: bool) -> None:
    plan = planned(host=host, image=ImageFacts(path="/d", kind="directory", root=Layer(path="/d", kind="directory")), **options)
    assert (plan.way, plan.joins_directories, plan.notes) == (way, joins, ())


def test_a_directory_with_mounts_is_no_layer_of_overlayfs() -> None:
    root = Layer(path="/d", kind="directory", has_mounts=True)
    image = ImageFacts(path="/d", kind="directory", root=root)
    plan = planned(image=image)
    assert (plan.way, plan.joins_directories) == ("directory", False)
    assert planned(image=image, writable_tmpfs=True).way == "user"
    assert planned(image=image, host=Host(fuse=NO), writable_tmpfs=True).way == "unpacked"
    assert planned(image=image, host=ROOT).joins_directories


def test_a_directory_of_another_user_is_served_where_something_is_written_to() -> None:
    image = ImageFacts(path="/d", kind="directory", root=Layer(path="/d", kind="directory", is_foreign=True))
    assert planned(image=image).way == "directory"
    assert planned(image=image, writable_tmpfs=True).way == planned(overlay("a.img"), image=image).way == "user"
    assert planned(image=image, writable_tmpfs=True, host=Host(fuse=NO)).way == "directory"
    own = image.root._replace(is_foreign=False)
    assert merged_count([own]) == merged_count([image.root]) == merged_count([own], writes=True) == 0
    assert merged_count([image.root], writes=True) == merged_count([image.root, own], writes=True) == 1
    assert merged_count([BASE, image.root], writes=True) == 2 and merged_count([BASE, image.root]) == 1


def test_memory_that_cannot_take_all_changes_is_a_note() -> None:
    old = Host(tmpfs_upper=NO)
    (note,) = planned(host=old, writable_tmpfs=True).notes
    assert "a directory that is removed" in note and "it is broken" in note
    assert planned(overlay("a.img"), host=old).way == "user" and not planned(overlay("a.img"), host=old).notes
    assert not planned(host=Host(is_root=True, loop=YES, tmpfs_upper=NO), writable_tmpfs=True).notes


def test_files_without_a_name_where_the_kernel_has_them() -> None:
    for host, wanted in ((USER, True), (Host(fuse_tmpfile=NO), False), (ROOT, False)):
        plan = planned(image=WITH_OVERLAY, host=host, writable=True)
        assert plan.upper is not None and plan.upper.kind == "image" and plan.upper.has_tmpfile == wanted


def test_the_cache_is_where_the_caller_wants_it() -> None:
    assert cache_path({}, home="/home/a", cwd="/w") == "/home/a/.cache/sifkit"
    assert cache_path({"HOME": "/h", "XDG_CACHE_HOME": ""}, home="/home/a", cwd="/w") == "/h/.cache/sifkit"
    assert cache_path({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, home="/h", cwd="/w") == "/x/sifkit"
    variables = {"SINGULARITY_CACHEDIR": "/s", "XDG_CACHE_HOME": "/x"}
    assert cache_path(variables, home="/h", cwd="/w") == "/s/sifkit"
    assert cache_path({**variables, "APPTAINER_CACHEDIR": "c"}, home="/h", cwd="/w") == "/w/c/sifkit"


def test_hosts_that_do_not_allow_it() -> None:
    request = {"repeat": ("exec", "-B", "/a b", "x.sif", "ls")}
    refused(
        "no user namespaces for you: it is broken",
        kind=NoWayError,
        host=Host(user_namespace=NO),
        request=request,
        hint="ask the administrator for a mended one; with a setuid Apptainer: apptainer exec -B '/a b' x.sif ls",
    )
    hint = "ask the administrator for a mended one"
    refused("nothing can be mounted in a user namespace here", kind=NoWayError, host=Host(user_mount=NO), hint=hint)
    for host in (Host(fuse=NO), Host(fuse_upper=NO)):
        refused(
            "a.img cannot be written to on this host", overlay("a.img"), kind=NoWayError, host=host, hint="--overlay /a.img:ro"
        )
    refused("overlays cannot be written to", kind=NoWayError, host=Host(overlay=NO), writable_tmpfs=True)


# Mounts


def test_default_mounts() -> None:
    plan = planned(request={"resolv_conf": b"nameserver 1.1.1.1\n"})
    assert targets(plan) == [
        "/dev",
        "/etc/localtime",
        "/etc/hosts",
        "/proc",
        "/sys",
        "/home/alice",
        "/tmp",
        "/var/tmp",
        "/etc/resolv.conf",
        "/etc/passwd",
        "/etc/group",
        "/work/dir",
    ]
    assert [mount.target for mount in plan.mounts if mount.hides_link] == ["/etc/localtime"]
    assert all(mount.nosuid for mount in plan.mounts) and all(mount.nodev for mount in plan.mounts if mount.target != "/dev")
    assert plan.cwd == ("/work/dir", "/home/alice") and plan.home == "/home/alice"
    assert mount_at(plan, "/proc").kind == "bind" and mount_at(planned(pid=True), "/proc").kind == "proc"


def test_a_symlink_to_a_system_directory_is_not_bound() -> None:
    caller = CALLER._replace(cwd="/home/alice/link", real_cwd="/usr", home="/")
    assert "/home/alice/link" not in targets(planned(request={"caller": caller}))
    caller = caller._replace(real_cwd="/data/x")
    assert "/home/alice/link" in targets(planned(request={"caller": caller}))


@pytest.mark.parametrize("cwd", ["/", "/etc", "/proc/self", "/tmp/x", "/home/alice/y", "/dev/shm"])
def test_working_directories_that_are_not_bound(cwd: str) -> None:
    plan = planned(request={"caller": CALLER._replace(cwd=cwd)})
    assert cwd not in targets(plan) and plan.cwd[0] == cwd


def test_contained() -> None:
    plan = planned(containall=True)
    assert {"/work/dir", "/dev/pts", "/dev/mqueue"} & set(targets(plan)) == {"/dev/pts", "/dev/mqueue"}
    for target in ("/dev", "/dev/shm", "/tmp", "/var/tmp", "/home/alice"):
        assert mount_at(plan, target).kind == "tmpfs"
    host = {mount.source for mount in plan.mounts if mount.kind == "bind" and not mount.edit}
    assert host == {
        "/etc/localtime",
        "/etc/hosts",
        "/sys",
        *(f"/dev/{name}" for name in ("tty", "null", "zero", "random", "urandom")),
    }
    assert {"user", "pid", "ipc"} == plan.namespaces and plan.cwd == ("/home/alice",)
    assert plan.environment.passed == {"LANG": "C", "PS1": "Apptainer> "}


def test_a_working_directory_for_contained_files() -> None:
    plan = planned(contain=True, workdir="w", scratch=("/s,t/u",))
    found = {mount.target: mount.source for mount in plan.mounts if mount.make_source}
    assert found == {
        "/home/alice": "/work/dir/w/home",
        "/tmp": "/work/dir/w/tmp",
        "/var/tmp": "/work/dir/w/var_tmp",
        "/s": "/work/dir/w/scratch/s",
        "/t/u": "/work/dir/w/scratch/t/u",
    }
    refused("--workdir /missing: no such directory", kind=FormatError, contain=True, workdir="/missing")
    refused("--workdir /file: not a directory", kind=FormatError, contain=True, workdir="/file")
    refused("--scratch /", scratch=("/..",))


def test_what_is_asked_for_must_be_in_a_directory_that_is_written_to() -> None:
    """Mount points are not made there."""
    image = ImageFacts(path="/box", kind="directory", root=Layer(path="/box", kind="directory"))
    for options in ({}, {"workdir": "w"}, {"workdir": "w", "contain": True}, {"containall": True}):
        plan = planned(image=image, writable=True, scratch=("/s",), bind=("/data",), **options)
        kept = {"/home/alice"} if options.keys() == {"workdir", "contain"} else set()
        assert {mount.target for mount in plan.mounts if not mount.is_optional} == {"/s", "/data"} | kept
        assert mount_at(plan, "/s").make_target == ("workdir" in options)
    plan = planned(image=image, writable=True, home="/data:/h")
    assert [mount.target for mount in plan.mounts if not mount.is_optional] == ["/h"]


def test_directories_that_may_not_be_entered() -> None:
    denied = {"why_unreachable": lambda path: "permission denied" if "denied" in path else ""}
    request = {"kind_of": lambda path: "missing" if "denied" in path else "directory", **denied}
    refused("/denied/x: permission denied", kind=FormatError, bind=("/denied/x:/y",), request=request)
    refused("/denied/x: permission denied", kind=FormatError, home="/denied/x:/y", request=request)
    refused("--workdir /denied/x: permission denied", kind=FormatError, workdir="/denied/x", contain=True, request=request)
    plan = planned(site=SiteConfig(path="conf", bind_path=("/denied/x",)), request=request)
    assert plan.notes == ("/denied/x of 'bind path' in conf is left out: permission denied",)
    plan = planned(request={**request, "caller": CALLER._replace(home="/denied/me")})
    (note,) = plan.notes
    assert note == "the home directory /denied/me cannot be reached (permission denied); an empty one in memory is shown"


def test_a_working_directory_that_was_deleted() -> None:
    deleted = {"caller": CALLER._replace(cwd="", real_cwd="")}
    plan = planned(request=deleted)
    assert plan.cwd == ("/home/alice",) and all(mount.target for mount in plan.mounts)
    assert plan.notes == ("the working directory was deleted; the command starts in /home/alice",)
    assert planned(request=deleted, contain=True).notes == planned(request=deleted, cwd="/opt").notes == ()


def test_binds_of_the_user_and_the_site() -> None:
    site = SiteConfig(path="conf", bind_path=("/scratch", "/missing:/m", "/etc/hosts"))
    plan = planned(site=site, bind=("/data:/d:ro",), mount=("type=bind,src=/x,dst=/y",), no_mount=("/etc/hosts",))
    assert mount_at(plan, "/d").readonly and mount_at(plan, "/y").source == "/x" and "/scratch" in targets(plan)
    assert "/m" not in targets(plan) and "/etc/hosts" not in targets(plan)
    assert plan.notes == ("/missing of 'bind path' in conf is left out: it is missing here",)
    assert plan.environment.fixed["APPTAINER_BIND"] == "/d,/y"
    assert planned(site=SiteConfig(bind_path=("/missing",))).notes == ()
    refused("/missing/x: no such file or directory", kind=FormatError, bind=("/missing/x:/y",))
    plan = planned(site=SiteConfig(path="conf", bind_path=("/a:/b:noatime", "/scratch")))
    assert "/b" not in targets(plan) and "/scratch" in targets(plan)
    assert plan.notes == ("bind path /a:/b:noatime: no such option noatime; left out, tell the administrator",)


def test_the_first_of_several_binds_at_a_path_counts() -> None:
    """The user's -B comes before APPTAINER_BIND and --mount, so that it wins over what a profile sets."""
    plan = planned(bind=("/a:/d:ro,/a:/d:ro", "/b:/d/"), mount=("src=/a,dst=/d",))
    assert mount_at(plan, "/d") == Mount(kind="bind", source="/a", target="/d", readonly=True)
    assert plan.notes == ("bind of /b ignored: /a is at /d already", "bind of /a ignored: /a is at /d already")


def test_a_site_without_binds_of_the_user() -> None:
    site = SiteConfig(path="conf", user_bind_control=False)
    gpu = GpuFiles(maker="Nvidia", libraries=("/usr/lib/libcuda.so.1",))
    plan = planned(site=site, bind=("/data",), scratch=("/s",), workdir="w", nv=True, request={"gpus": (gpu,)})
    assert not {"/data", "/s", "/work/dir", "/.singularity.d/libs/libcuda.so.1"} & set(targets(plan))
    reason = "('user bind control = no' in conf)"
    assert plan.notes[:2] == (
        f"this site does not allow --bind, --scratch, --workdir, libraries of the host {reason}; ignored",
        f"this site does not allow to show the working directory {reason}",
    )
    refused("this site does not allow --home", site=site, home="/h", hint="user bind control")
    plan = planned(site=site, contain=True, workdir="w", bind=("/dev/fuse",))
    assert mount_at(plan, "/tmp").kind == "tmpfs" and mount_at(plan, "/dev/fuse").kind == "bind"


def test_devices_of_the_host() -> None:
    plan = planned(contain=True, bind=("/dev/fuse", "/dev/shm"), request={"caller": CALLER._replace(terminal="/dev/pts/7")})
    assert not mount_at(plan, "/dev/fuse").nodev and mount_at(plan, "/dev/console").source == "/dev/pts/7"
    assert [mount.source for mount in plan.mounts if mount.target == "/dev/shm"] == ["", "/dev/shm"]
    assert mount_at(planned(contain=True), "/dev/shm").size is None
    assert planned(no_mount=("dev",), bind=("/dev/fuse",)).notes == ("/dev/fuse is not shown: --no-mount dev",)
    assert "mount dev = no" in planned(site=SiteConfig(mount_dev="no"), bind=("/dev/fuse",)).notes[0]
    assert mount_at(planned(bind=("/dev/fuse:/f",)), "/f").nodev


def test_contained_runs_have_no_directories_of_the_site() -> None:
    site = SiteConfig(path="conf", bind_path=("/scratch", "/missing", "/etc/hosts"))
    plan = planned(site=site, contain=True)
    assert "/scratch" not in targets(plan) and {"/etc/hosts", "/etc/localtime"} <= set(targets(plan)) and plan.notes == ()
    assert "/etc/hosts" not in targets(planned(contain=True, no_mount=("/etc/hosts",)))


def test_without_a_network() -> None:
    plan = planned(network="none")
    assert mount_at(plan, "/sys").kind == "sysfs" and mount_at(plan, "/sys/fs/cgroup").kind == "bind"
    assert mount_at(plan, "/etc/hosts").source == "/etc/hosts"
    assert mount_at(planned(network="none", contain=True), "/etc/hosts").content == (
        b"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
    )


def test_root_has_memory_without_a_limit() -> None:
    root = {"caller": CALLER._replace(uid=0, home="/root")}
    assert planned(host=ROOT, writable_tmpfs=True, request=root).upper == Upper(kind="tmpfs")
    assert mount_at(planned(host=ROOT, contain=True, request=root), "/tmp").size is None


def test_mounts_that_are_left_out() -> None:
    plan = planned(no_mount=("proc,sys,dev", "home,tmp,cwd,bind-paths"))
    assert targets(plan) == ["/etc/passwd", "/etc/group"]
    refused("--no-mount root: no such mount", no_mount=("root",))
    site = SiteConfig(
        mount_proc=False,
        mount_sys=False,
        mount_dev="no",
        mount_home=False,
        mount_tmp=False,
        config_passwd=False,
        config_group=False,
    )
    assert targets(planned(site=site._replace(bind_path=()))) == ["/work/dir"]
    assert mount_at(planned(site=SiteConfig(mount_dev="minimal")), "/dev").kind == "tmpfs"
    plan = planned(site=SiteConfig(mount_hostfs=True), request={"host_mounts": ("/gpfs",)})
    assert "/gpfs" in targets(plan)


def test_home_directories() -> None:
    plan = planned(home="h:/home/me")
    assert mount_at(plan, "/home/me").source == "/work/dir/h" and plan.home == plan.environment.fixed["HOME"] == "/home/me"
    assert planned(fakeroot=True).home == "/root"
    assert "/home/alice" not in targets(planned(no_home=True)) and planned(no_home=True).home == "/home/alice"
    inside = {"caller": CALLER._replace(cwd="/home/alice/project")}
    assert mount_at(planned(home="/h:/home/alice", request=inside), "/home/alice/project").make_in_bind
    assert not mount_at(planned(home="/h:/home/alice"), "/work/dir").make_in_bind
    plan = planned(home="/h:/home/me", no_home=True)
    assert "/home/me" not in targets(plan) and plan.home == "/home/me"
    refused("/file is no directory", kind=FormatError, home="/file")
    plan = planned(request={"caller": CALLER._replace(home="/missing")})
    assert plan.notes == ("the home directory /missing is missing on this host; an empty one in memory is shown",)
    assert mount_at(plan, "/missing").kind == mount_at(planned(home="/missing"), "/missing").kind == "tmpfs"
    assert mount_at(planned(home="/h", site=SiteConfig(mount_home=False)), "/h").kind == "bind"
    for home, shown in (("/", "/"), ("nowhere", "/"), ("/bin", "/bin")):
        plan = planned(request={"caller": CALLER._replace(home=home)})
        assert shown not in targets(plan) and plan.notes == (f"the home directory {shown} cannot be shown in a container",)


def test_mounts_that_lie_in_others_come_after_them() -> None:
    for options in ({}, {"contain": True}, {"contain": True, "workdir": "w"}):
        for home in ("/tmp/me", "/var/tmp/me"):
            found = targets(planned(home=f"/h:{home}", **options))
            assert found.index("/tmp") < found.index("/var/tmp") < found.index(home)
        found = targets(planned(home="/h:/var", **options))
        assert found.index("/var") < found.index("/var/tmp")
    found = targets(planned(bind=("/a:/data",), scratch=("/data/s", "/data", "/t"), home="/h:/t/me"))
    assert [target for target in found if target in ("/data", "/data/s", "/t")] == ["/data", "/t", "/data", "/data/s"]
    found = targets(planned(bind=("/c:/data/s/c,/b:/data/s,/a:/data",), scratch=("/data/t",)))
    binds = ["/data", "/data/t", "/data/s", "/data/s/c"]
    assert [target for target in found if target in binds] == binds
    found = targets(planned(bind=("/a:/home",), home="/h:/home/me"))
    assert found.index("/home") < found.index("/home/me")
    found = targets(planned(bind=("/a:/home",)))
    assert found.index("/home/alice") < found.index("/home")


def test_root_can_change_the_accounts_of_what_it_writes_to() -> None:
    assert "/etc/passwd" not in targets(planned(host=ROOT, writable_tmpfs=True))
    assert "/etc/passwd" in targets(planned(host=ROOT)) and "/etc/passwd" in targets(planned(writable_tmpfs=True))
    assert "/etc/group" not in targets(planned(fakeroot=True, writable_tmpfs=True))
    assert "/etc/group" in targets(planned(fakeroot=True))
    assert "/etc/group" not in targets(planned(userns=True, writable_tmpfs=True, request={"caller": CALLER._replace(uid=0)}))


# The rest


def test_process() -> None:
    plan = planned(hostname="node-1.x", net=True, network="none", ipc=True, no_umask=True, cwd="/c", app="foo", no_init=True)
    assert planned(cwd="usr/lib").cwd == ("/usr/lib",)  # as with Apptainer
    assert plan.namespaces == {"user", "uts", "net", "ipc"} and plan.hostname == "node-1.x"
    assert plan.umask == 0o022 and plan.cwd == ("/c",) and plan.is_cwd_required and not plan.has_init
    assert plan.command.app == "foo" and mount_at(plan, "/etc/hostname").content == b"node-1.x\n"
    assert planned().umask is None and planned().has_init


def test_accounts() -> None:
    assert planned().account.name == "alice" and planned().account.home == "/home/alice"
    root = planned(fakeroot=True).account
    assert (root.uid, root.gid, root.name, root.home) == (0, 0, "root", "/root")


def test_fakeroot_is_for_plain_users() -> None:
    plan = planned(fakeroot=True)
    assert plan.fakeroot and not plan.notes
    apt = mount_at(plan, "/etc/apt/apt.conf.d/99fakeroot")
    assert apt.content is not None and b'APT::Sandbox::User "root";' in apt.content and apt.needs == "/etc/apt/apt.conf.d"
    root = planned(fakeroot=True, host=ROOT)
    assert not root.fakeroot and root.home == "/home/alice"
    assert root.notes == ("--fakeroot has no effect: you are root; for a user namespace write -u -f",)
    assert "/etc/apt/apt.conf.d/99fakeroot" not in targets(root) + targets(planned())
    assert planned(fakeroot=True, userns=True, host=ROOT).fakeroot


def test_fakeroot_in_a_directory_that_is_written_to() -> None:
    image = ImageFacts(path="/box", kind="directory", root=Layer(path="/box", kind="directory"))
    plan = planned(image=image, writable=True, fakeroot=True)
    assert mount_at(plan, "/.singularity.d/libs").kind == "tmpfs" and "/.singularity.d/libs/99fakeroot" in targets(plan)
    assert plan.environment.passed["APT_CONFIG"] == "/.singularity.d/libs/99fakeroot"
    own = planned(image=image, writable=True, fakeroot=True, env=("APT_CONFIG=/mine",)).environment
    assert own.injected["APT_CONFIG"] == "/mine" and "APT_CONFIG" not in own.passed

    def without(*missing: str) -> RunPlan:
        kind_of = dict.fromkeys(missing, "missing")
        request = {"kind_of": lambda path: kind_of.get(path, "directory")}
        return planned(image=image, writable=True, fakeroot=True, request=request)

    assert not without("/box/etc/apt/apt.conf.d").notes
    (note,) = without("/box/.singularity.d/libs").notes
    assert "for apt in /box write once: echo 'APT::Sandbox::User" in note and "APT_CONFIG" not in plan.environment.injected


def test_capabilities_are_dropped() -> None:
    root = {"caller": CALLER._replace(uid=0)}
    assert planned().drops_capabilities and not planned(fakeroot=True).drops_capabilities
    assert planned(no_privs=True, host=ROOT, request=root).drops_capabilities
    assert not planned(no_privs=True, fakeroot=True).drops_capabilities
    assert not planned(host=ROOT, request=root).drops_capabilities
    assert planned(no_privs=True, fakeroot=True, host=ROOT, request=root).drops_capabilities
    assert "capabilities: none" in plan_lines(planned())
    for value, notes in (("no", 0), ("file", 1)):
        site = SiteConfig(path="conf", root_default_capabilities=value)
        plan = planned(site=site, host=ROOT, request=root)
        assert plan.drops_capabilities and len(plan.notes) == notes
        assert not planned(site=site, host=ROOT, request=root, keep_privs=True).drops_capabilities
        assert planned(site=site, host=ROOT, request=root, keep_privs=True, no_privs=True).drops_capabilities
        assert not planned(site=site, fakeroot=True).drops_capabilities
    refused("--keep-privs is for root", keep_privs=True)
    assert "fakeroot: changes of owners and users succeed, and change nothing" in plan_lines(planned(fakeroot=True))


def test_names_of_servers() -> None:
    assert mount_at(planned(dns="1.1.1.1, ::1"), "/etc/resolv.conf").content == b"nameserver 1.1.1.1\nnameserver ::1\n"
    refused("--dns x: x is no IP address", dns="x")


def test_environment_files() -> None:
    plan = planned(request={"env_files": (("f", "A=1\nB=$HOME\n"), ("g", "C=$A"))}, env=("A=2",))
    assert [plan.environment.injected[name] for name in "ABC"] == ["2", "/home/alice", "1"]


def test_values_that_are_wrong() -> None:
    refused("COMMAND is missing", request={"words": ()})
    refused("COMMAND is empty", request={"words": ("", "x")})
    refused("--network bridge", net=True, network="bridge")
    refused("--net would set up a network", net=True)
    assert "net" in planned(network="none").namespaces
    refused("--hostname -x: not a host name", hostname="-x")
    refused("--hostname", hostname="a" * 65)
    refused("--app ../x", app="../x")


def test_graphics() -> None:
    gpu = GpuFiles(
        maker="Nvidia", devices=("/dev/nvidia0",), libraries=("/usr/lib/libcuda.so.1",), programs=("/usr/bin/nvidia-smi",)
    )
    gpu = gpu._replace(files=("/usr/share/icd.json",))
    plan = planned(nv=True, contain=True, request={"gpus": (gpu,)})
    assert mount_at(plan, "/.singularity.d/libs/libcuda.so.1").readonly and mount_at(plan, "/dev/nvidia0").kind == "bind"
    assert plan.environment.with_libraries and mount_at(plan, "/usr/share/icd.json").readonly
    both = (gpu._replace(devices=()), GpuFiles(maker="AMD", libraries=("/usr/lib/libOpenCL.so",)))
    plan = planned(nv=True, rocm=True, request={"gpus": both})
    assert plan.notes == ("--nv: no Nvidia GPU is found on this host", "--rocm: no AMD GPU is found on this host")
    assert "/.singularity.d/libs/libOpenCL.so" in targets(plan)
    assert planned(request={"gpus": both}).notes == ()  # the site's wish, not the user's
    site = SiteConfig(always_use_nv=True, always_use_rocm=True)
    assert gpu_makers(RunOptions(), site) == ("Nvidia", "AMD") and gpu_makers(RunOptions(no_nv=True), site) == ("AMD",)
    plan = planned(containlibs=("/a/liba.so,b.so",))
    assert mount_at(plan, "/.singularity.d/libs/b.so").source == "/work/dir/b.so" and plan.environment.with_libraries
    refused("^/a/missing.so: no such file or directory", kind=FormatError, containlibs=("/a/missing.so",))


def test_the_plan_as_text() -> None:
    lines = list(plan_lines(planned(overlay("a.img"), bind=("/data:/d:ro",), pid=True, env=("A=x\ny",), hostname="h")))
    for line in (
        "way: in a user namespace: FUSE for the images, overlayfs of the kernel",
        "root: /base.sif, object 1 (squashfs, from byte 4,096)",
        "written to: /a.img (image), upper/ and work/ in it",
        "mount: /d <- /data, read-only",
        "mount: /proc <- proc",
        "namespaces: mounts of its own, others: pid uts, user",
        "not isolated: devices, /sys, shared memory, network",
        "user: alice (1000:1000), home /home/alice",
        "variable: A=x\\ny",
        "host name: h",
        "command: exec true",
    ):
        assert line in lines
    assert "not isolated: root's capabilities, devices, /sys, processes, shared memory, network" in plan_lines(
        planned(host=ROOT, request={"caller": CALLER._replace(uid=0)})
    )
    strict = planned(host=ROOT, containall=True, no_privs=True, network="none")
    assert "not isolated: nothing" in plan_lines(strict)
    assert "written to: memory, at most 64 MiB" in list(plan_lines(planned(writable_tmpfs=True)))
