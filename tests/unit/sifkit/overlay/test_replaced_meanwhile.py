"""Files that are replaced between open and lock: what is edited or copied is the file of that name, not the old one."""

from __future__ import annotations

import os
import shutil

import pytest

from ext3 import Filesystem
from sifkit import file_locks
from sifkit.errors import ImageInUseError
from sifkit.overlay.cloning import clone
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.edit.edit_session import EditOptions, edit_image
from sifkit.overlay.embedding.attaching import attach, detach
from sifkit.overlay.embedding.in_partition import embed
from sifkit.overlay.images import locked_file
from sifkit.overlay.options import CreateOptions
from sifkit.sif import SIF, Arch, DataType, PartType, loading
from sifkit.sif.compacting import compact

from ....support.commands import names_in
from ....support.platforms import linux_locks
from ....support.sif_images import partition

pytestmark = linux_locks


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    create("plain.img", CreateOptions(size=4 << 20, journal=False))
    create("journal.img", CreateOptions(size=4 << 20))
    with SIF.create("i.sif") as sif:
        sif.add(b"gone" * 5000, DataType.GENERIC)
        sif.add(b"root" * 300, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM, arch=Arch.AMD64))
    attach("i.sif", "journal.img")
    with SIF.open("i.sif", "r+") as sif:
        sif.delete(1)
    return tmp_path


@pytest.fixture
def before_lock(monkeypatch):
    """Set what another process does between open and lock, a number of times."""

    def put(module, action, times=1):
        real = module.lock_range
        left = times

        def lock(*args, **options):
            nonlocal left
            if left:
                left -= 1
                action()
            return real(*args, **options)

        monkeypatch.setattr(module, "lock_range", lock)

    return put


def edit(name, directory, **options):
    with edit_image(name, EditOptions(**options)) as edited:
        edited.filesystem.mkdir(f"/upper/{directory}")


@pytest.mark.parametrize("name", ["plain.img", "journal.img"])
def test_two_edits_are_both_kept(place, before_lock, name):
    """An image without a journal is edited as a copy that is renamed."""
    before_lock(locked_file, lambda: edit(name, "first"))
    edit(name, "second")
    assert names_in(name) == [b"first", b"second"]


def test_an_image_that_is_replaced_all_the_time_is_in_use(place, before_lock):
    def replace():
        shutil.copy("journal.img", "next")
        os.replace("next", "plain.img")

    before_lock(locked_file, replace, times=100)
    with pytest.raises(ImageInUseError, match=r"plain\.img keeps being replaced"):
        edit("plain.img", "x")


def test_an_edit_beside_a_create_that_replaces(place, before_lock):
    before_lock(locked_file, lambda: create("plain.img", CreateOptions(size=8 << 20, force=True)))
    edit("plain.img", "d")
    assert names_in("plain.img") == [b"d"] and os.path.getsize("plain.img") == 8 << 20


def test_a_clone_is_of_what_has_the_name(place, before_lock):
    before_lock(locked_file, lambda: edit("plain.img", "d"))
    clone("plain.img", "copy.img")
    assert names_in("copy.img") == [b"d"]


def test_an_attached_overlay_is_the_one_that_has_the_name(place, before_lock):
    def replace():
        clone("journal.img", "next.img")
        edit("next.img", "d")
        os.replace("next.img", "journal.img")

    before_lock(locked_file, replace)
    with SIF.create("new.sif") as sif:
        sif.add(b"root" * 300, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM, arch=Arch.AMD64))
    attach("new.sif", "journal.img", move=True)
    detach("new.sif", "out.img", keep=True)
    assert names_in("out.img") == [b"d"] and not os.path.exists("journal.img")


def add(place):
    with SIF.open("i.sif", "r+") as sif:
        return sif.add(b"added", DataType.GENERIC).id


def add_by_update(place):
    with SIF.open("i.sif", "r+") as sif:
        sif.update(3, name=b"renamed")
    return 3


def add_by_embedding(place):
    with SIF.open("i.sif", "r+") as sif:
        sif.delete(3)
    return embed("i.sif", CreateOptions(size=4 << 20)).partition.id


def add_by_editing(place):
    edit("i.sif", "d", partition="overlay")
    detach("i.sif", "out.img", keep=True)
    assert names_in("out.img") == [b"d"]
    return 3


@pytest.mark.parametrize("change", [add, add_by_update, add_by_embedding, add_by_editing])
def test_an_edit_of_a_sif_beside_compact_is_kept(place, before_lock, change):
    before = os.stat("i.sif").st_ino
    before_lock(loading, lambda: compact("i.sif"))
    id = change(place)
    assert os.stat("i.sif").st_ino != before
    with SIF.open("i.sif") as sif:
        assert sif.get(id).name == (b"renamed" if change is add_by_update else sif.get(id).name)
        assert len(sif) == (3 if change is add else 2)


def test_a_detached_copy_is_of_the_sif_that_has_the_name(place, before_lock):
    def edit_and_compact():
        edit("i.sif", "d", partition="overlay")
        compact("i.sif")

    before_lock(file_locks, edit_and_compact)
    detach("i.sif", "out.img", keep=True)
    assert names_in("out.img") == [b"d"]
    with Filesystem.open("out.img") as filesystem:
        assert not filesystem.needs_recovery
