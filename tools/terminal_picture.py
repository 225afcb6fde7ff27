"""The README's picture: real commands run in a terminal 80 columns wide, drawn as docs/terminal.svg.

python tools/terminal_picture.py [OUT.svg]

Same commands, same bytes: files, dates and UUID are given, and the elapsed time in result lines is left out.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "terminal.svg"
WIDTH = 80
COMMANDS = (
    "sifkit overlay create --size 2G --from-dir content/ --owner 1000:1000 env.img",
    "sifkit df -h env.img",
    "sifkit du --top 6 env.img /upper",
    "sifkit find env.img -name '*.so'",
    "sifkit cp notes.txt env.img:/upper/opt/env/",
    "sifkit cat env.img:/upper/opt/env/notes.txt",
)
EPOCH = 1_700_000_000
SVG = """<svg viewBox="0 0 {width:.0f} {height:.0f}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; white-space: pre; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}
</defs>
<rect fill="#191919" width="100%" height="100%" rx="8"/>
<g transform="translate(9, 9)" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def write_files(folder: Path) -> None:
    """The files that the commands use: a small environment in content/, and notes.txt."""
    sizes = {"bin/python": 61_000, "lib/libpython3.12.so": 148_000, "conda-meta/history": 900}
    sizes |= {f"lib/python3.12/module{n:02}.py": 400 + 523 * n for n in range(40)}
    for name, size in sizes.items():
        path = folder / "content" / "opt" / "env" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"#" * size)
    (folder / "content" / "opt" / "env" / "bin" / "python").chmod(0o755)
    (folder / "notes.txt").write_text("numpy 2.1, from conda-forge\n", encoding="ascii")
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (EPOCH, EPOCH))


def on_terminal(command: str, folder: Path) -> str:
    """What `command` prints on a terminal."""
    words = [sys.executable, "-m", "sifkit", *shlex.split(command)[1:]]
    settings = {"COLUMNS": str(WIDTH), "TERM": "xterm-256color", "TZ": "UTC", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}
    environment = {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": str(EPOCH), **settings}
    ours, terminal = pty.openpty()
    with subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal, cwd=folder, env=environment) as process:
        os.close(terminal)
        printed = b""
        while chunk := _read(ours):
            printed += chunk
    os.close(ours)
    if process.returncode:
        sys.exit(printed.decode())
    return printed.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: no process has the terminal open any more
        return b""


def draw() -> str:
    """The SVG text."""
    os.umask(0o022)
    console = Console(record=True, width=WIDTH, force_terminal=True, color_system="truecolor", file=io.StringIO())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_files(folder)
        for command in COMMANDS:
            console.print(Text("$ ", "bold green") + Text(command, "bold"))
            printed = re.sub(r", [0-9.]+ s$", "", on_terminal(command, folder), flags=re.MULTILINE)
            for line in printed.splitlines():
                console.print(Text.from_ansi(line.rsplit("\r", 1)[-1]))
    return console.export_svg(theme=DIMMED_MONOKAI, code_format=SVG, unique_id="t")


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) == 2 else PICTURE
    target.write_text(draw(), encoding="utf-8")
