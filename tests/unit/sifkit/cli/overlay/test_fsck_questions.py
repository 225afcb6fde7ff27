"""Questions of ``sifkit overlay fsck`` on a terminal: what is shown, what the answers do, an interrupt changes nothing."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sifkit.overlay.edit.edit_session import edit_image

from .....support.commands import Run
from .....support.fsck_damage import damage_counts, damage_pointer

pty = pytest.importorskip("pty")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[5]


@pytest.fixture
def image(overlay: Path) -> Path:
    """overlay.img with two damaged files and a wrong count."""
    with edit_image("overlay.img") as edited:
        for name in ("a", "b"):
            edited.filesystem.write_bytes(f"/upper/{name}", b"a" * 3000)
    damage_counts(overlay)
    for name in ("a", "b"):
        damage_pointer(overlay, f"/upper/{name}")
    return overlay


class Terminal:
    """The command on a terminal. ``screen``: all that it showed."""

    def __init__(self, *words: object) -> None:
        self._fd, there = pty.openpty()
        command = [sys.executable, "-m", "sifkit", "overlay", "fsck", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, stdin=there, stdout=there, stderr=there, env=environment, start_new_session=True
        )
        os.close(there)
        self.screen = ""
        self._seen = 0

    def wait_for(self, text: str) -> None:
        """Read until a text shows behind what was waited for before."""
        end = time.monotonic() + 15
        while text not in self.screen[self._seen :]:
            assert time.monotonic() < end and select.select([self._fd], [], [], 15)[0], self.screen
            self.screen += os.read(self._fd, 4096).decode()
        self._seen = self.screen.index(text, self._seen) + len(text)

    def answer(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def interrupt(self) -> None:
        """Interrupt the command while it waits for an answer; just before, Python would see the signal only after that."""
        state = Path(f"/proc/{self._process.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.001)
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Read the rest; the exit code."""
        while True:
            assert select.select([self._fd], [], [], 60)[0], self.screen
            try:
                data = os.read(self._fd, 4096)
            except OSError:
                break
            if not data:
                break
            self.screen += data.decode()
        os.close(self._fd)
        return self._process.wait(60)


def questions(screen: str) -> int:
    return len(re.findall(r"<[yn]>\? ", screen))


def test_every_repair_is_asked_about(run: Run, image: Path) -> None:
    terminal = Terminal("-f", image)
    terminal.wait_for("<y>? ")
    assert "i_block[0] is 4000000" in terminal.screen and "(/upper/a)" in terminal.screen
    terminal.answer("\n")
    terminal.wait_for("<y>? ")
    terminal.answer("what\n")
    terminal.wait_for("a: yes to all")
    terminal.wait_for("<y>? ")
    terminal.answer("YES\n")
    terminal.wait_for("<y>? ")
    assert "(/upper/b)" in terminal.screen
    terminal.answer("a\n")
    assert terminal.end() == 1
    assert questions(terminal.screen) == 4 and "repaired, clean" in terminal.screen
    assert run("overlay", "fsck", "-fn", image)[:2] == (0, "")


def test_no_leaves_the_fault(run: Run, image: Path) -> None:
    terminal = Terminal("-f", image)
    terminal.wait_for("<y>? ")
    terminal.answer("n\n")
    terminal.wait_for("<y>? ")
    while "(/upper/b)" not in terminal.screen:
        terminal.answer("n\n")
        terminal.wait_for("<y>? ")
    terminal.answer("a\n")
    assert terminal.end() == 4
    assert "left" in terminal.screen
    code, out, _ = run("overlay", "fsck", "-fn", image)
    assert code == 4 and "/upper/a" in out and "/upper/b" not in out


@pytest.mark.parametrize("how", ["signal", "end of input", "second question"])
def test_an_interrupt_changes_nothing(image: Path, how: str) -> None:
    before = image.read_bytes()
    terminal = Terminal("-f", "-z", "undo", image)
    terminal.wait_for("<y>? ")
    if how == "second question":
        terminal.answer("y\n")
        terminal.wait_for("<y>? ")
    if how == "end of input":
        terminal.answer("\x04")
    else:
        terminal.interrupt()
    assert terminal.end() == 32
    assert "interrupted; the image is as it was" in terminal.screen
    assert image.read_bytes() == before and not os.path.exists("undo")


def test_a_clean_image_asks_nothing(overlay: Path) -> None:
    terminal = Terminal("-f", overlay)
    assert terminal.end() == 0 and not questions(terminal.screen)
