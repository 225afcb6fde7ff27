"""Images whose loop devices are about to detach: they count as used only while something keeps the device."""

import os
import threading
import time

from sifkit.in_use import DETACH_SECONDS, image_use
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
