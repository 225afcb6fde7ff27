"""Plans of binds from images: what is read and written to, once each, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sifkit.errors import UsageError
from sifkit.runtime.planning.config import SiteConfig
from sifkit.runtime.planning.layer_plan import NoWayError
from sifkit.runtime.planning.plan_text import plan_lines
from sifkit.runtime.planning.request import DataImageFacts
from sifkit.runtime.planning.run_plan import Layer, RunPlan, Upper

from .test_planner import NO, ROOT, Host, mount_at, overlay, planned, refused, targets

EXT3 = Layer(path="/real.img", kind="ext3")
SQUASHFS = Layer(path="/d.sif", kind="squashfs", offset=4096, size=4096, object_id=1)
PARTITION = Layer(path="/d.sif", kind="ext3", offset=8192, size=8192, object_id=2)
WRITTEN = Upper(kind="image", path="/real.img", upper="", work="")
IMAGES: dict[tuple[str, int | None], DataImageFacts] = {
    ("/d.img", None): DataImageFacts(name="/d.img", kind="ext3", layer=EXT3, path="/real.img", owner="alice"),
    ("/link.img", None): DataImageFacts(name="/link.img", kind="ext3", layer=EXT3, path="/real.img"),
    ("/d.sif", None): DataImageFacts(name="/d.sif", kind="sif", layer=SQUASHFS, path="/d.sif"),
    ("/d.sif", 2): DataImageFacts(name="/d.sif", kind="sif", layer=PARTITION, path="/d.sif", is_signed=True),
    ("/d.sqfs", 3): DataImageFacts(
        name="/d.sqfs", kind="squashfs", layer=Layer(path="/d.sqfs", kind="squashfs"), path="/d.sqfs", is_writable=False
    ),
}


def with_binds(*binds: str, images: Mapping[Any, DataImageFacts] = IMAGES, **more: Any) -> dict[str, Any]:
    return {"bind": binds, "request": {"data_images": images}, **more}


def lines(plan: RunPlan) -> list[str]:
    return [line for line in plan_lines(plan) if line.startswith("data image") or " in /" in line]


def test_an_ext3_image_is_written_to_unless_its_bind_is_read_only() -> None:
    plan = planned(**with_binds("/d.img:/a:image-src=/x"))
    assert plan.images == (WRITTEN,) and not plan.notes and plan.serves_images and not plan.cache
    mount = mount_at(plan, "/a")
    assert (mount.image, mount.image_source, mount.source, mount.readonly) == (WRITTEN, "/x", "", False)
    assert mount.nosuid and mount.nodev and not mount.is_optional
    assert lines(plan) == ["data image: /real.img (ext3), written to", "mount: /a <- /x in /real.img"]
    assert plan.environment.fixed["APPTAINER_BIND"] == "/a"
    plan = planned(**with_binds("/d.img:/a:image-src=/,ro"))
    assert plan.images == (EXT3,) and mount_at(plan, "/a").readonly
    images = {("/d.img", None): IMAGES["/d.img", None]._replace(is_writable=False)}
    plan = planned(**with_binds("/d.img:/a:image-src=/", images=images))
    assert plan.images == (EXT3,) and mount_at(plan, "/a").readonly
    assert plan.notes == ("/d.img is not writable for you and is only read",)


def test_other_images_are_read() -> None:
    plan = planned(**with_binds("/d.sif:/a:image-src=/,rw", "/d.sqfs:/b:id=3", "/d.sqfs:/c:id=3,ro,rw"))
    assert plan.images == (SQUASHFS, Layer(path="/d.sqfs", kind="squashfs"))
    assert mount_at(plan, "/a").readonly and mount_at(plan, "/b").readonly
    assert plan.notes == (
        "/d.sif, object 1 is a squashfs and is only read",
        "id=3 has no effect: /d.sqfs is a squashfs image",
    )
    assert lines(plan)[0] == "data image: /d.sif, object 1 (squashfs, from byte 4,096), read"


def test_several_binds_of_an_image() -> None:
    """One mount, which is written to if one bind may; each bind is what it says. One that does not count asks for nothing."""
    plan = planned(**with_binds("/d.img:/a:image-src=/,ro", "/link.img:/b:image-src=/y", "/d.sif:/c:id=2,ro"))
    assert plan.images == (WRITTEN, PARTITION)
    assert [mount_at(plan, path).readonly for path in ("/a", "/b", "/c")] == [True, False, True]
    assert mount_at(plan, "/b").image == WRITTEN
    plan = planned(**with_binds("/d.img:/a:image-src=/,ro", "/d.img:/a:image-src=/y"))
    assert plan.images == (EXT3,) and plan.notes == ("bind of /d.img ignored: /d.img is at /a already",)
    plan = planned(**with_binds("/d.sif:/c:id=2"))
    assert plan.notes == ("/d.sif is signed, and what is written to it breaks the signature",)


def test_an_image_that_the_root_needs_as_well() -> None:
    binds = with_binds("/d.img:/a:image-src=/")
    read = with_binds("/d.img:/a:image-src=/,ro")
    for given in (binds, read):
        refused("/real.img is written to by the container's root", overlay("real.img"), hint="read both", **given)
    refused("/real.img is a layer of the container's root", overlay("real.img", read_only=True), hint="add ro", **binds)
    assert planned(overlay("real.img", read_only=True), **read).images == (EXT3,)
    assert planned(overlay("other.img"), **binds).images == (WRITTEN,)


def test_hosts_without_fuse() -> None:
    host = Host(fuse=NO)
    binds = with_binds("/d.img:/a:image-src=/")
    refused("/real.img cannot be written to on this host: it is broken", host=host, kind=NoWayError, hint="add ro", **binds)
    plan = planned(host=host, **with_binds("/d.sif:/a:image-src=/"))
    assert not plan.serves_images and lines(plan)[0].endswith(f"unpacked into {plan.cache}") and plan.cache
    plan = planned(host=Host(is_root=True, loop=ROOT.loop, fuse=NO), **binds)
    assert plan.images == (WRITTEN,) and not plan.cache


def test_what_the_site_does_not_allow() -> None:
    binds = with_binds("/d.img:/a:image-src=/")
    for site in (SiteConfig(allow_container_extfs=False), SiteConfig(limit_container_owners=("root",))):
        refused("/d.img: this site does not allow it", site=site, kind=UsageError, **binds)
    site = SiteConfig(path="conf", user_bind_control=False)
    plan = planned(site=site, **with_binds("/d.img:/a:image-src=/", images={}))
    assert not plan.images and "/a" not in targets(plan) and "does not allow --bind" in plan.notes[0]
    plan = planned(site=SiteConfig(path="conf", bind_path=("/d.img:/a:image-src=/",)))
    assert not plan.images and plan.notes == ("/d.img of 'bind path' in conf is left out: sites bind no images",)
