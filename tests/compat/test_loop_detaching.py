"""Images whose loop devices are about to detach: they count as used only while something keeps the device."""

import os
import subprocess
import threading
import time
from pathlib import Path

from sifkit.in_use import DETACH_SECONDS, LoopFiles, image_use
from tests.support.tools import require, requires_root, run

MIB = 1 << 20


@requires_root
def test_a_device_that_detaches_itself_is_waited_for(tmp_path):
    require("losetup")
    image = tmp_path / "a.img"
    image.write_bytes(bytes(MIB))
    device = run("losetup", "--find", "--show", image).stdout.decode().strip()
    looking = os.open(device, os.O_RDONLY)  # as udev does after an unmount
    run("losetup", "--detach", device)  # with a descriptor left this only marks the device for its last close
    assert image_use(image).mounts, "it is attached as long as somebody looks"
    threading.Timer(0.3, os.close, [looking]).start()
    assert not image_use(image).busy


@requires_root
def test_a_file_of_the_same_path_in_another_mount_namespace(tmp_path):
    """The path of the file behind a loop device is that of whoever attached it."""
    require("losetup", "unshare")
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.img").write_bytes(bytes(MIB))
    script = f"mount --bind {tmp_path}/there {tmp_path}/here && losetup --find --show {tmp_path}/here/a.img && read x"
    command = ["unshare", "-m", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        device = process.stdout.readline().strip()
        try:
            here, there = tmp_path / "here/a.img", tmp_path / "there/a.img"
            assert Path(f"/sys/block/{Path(device).name}/loop/backing_file").read_text() == f"{here}\n"
            assert not image_use(here).busy and not LoopFiles().holds(here.stat())
            assert image_use(there).mounts and LoopFiles().holds(there.stat())
        finally:
            run("losetup", "--detach", device)
            process.stdin.close()


@requires_root
def test_an_attached_device_is_reported_at_once(tmp_path):
    require("losetup")
    image = tmp_path / "a.img"
    image.write_bytes(bytes(MIB))
    device = run("losetup", "--find", "--show", image).stdout.decode().strip()
    try:
        start = time.monotonic()
        (mount,) = image_use(image).mounts
        assert time.monotonic() - start < DETACH_SECONDS / 2
        assert (mount.device, mount.path) == (device, None)
    finally:
        run("losetup", "--detach", device)
