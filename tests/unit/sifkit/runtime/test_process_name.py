"""Names of processes in ps and top."""

from __future__ import annotations

import subprocess
import sys

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("containers run on Linux only", allow_module_level=True)

PROGRAM = """
import os, sys
from sifkit.runtime.sys import name_process, start_memory
name_process("sifkit-test", start_memory().words, os.fsencode(sys.argv[1]) * 1000)
os.write(1, b"|".join(open(f"/proc/self/{name}", "rb").read() for name in ("comm", "cmdline", "environ")))
"""


def test_only_words_are_replaced() -> None:
    command = [sys.executable, "-c", PROGRAM, "more"]
    done = subprocess.run(command, env={"KEPT": "x"}, capture_output=True, check=True)
    name, words, variables = done.stdout.split(b"|")
    assert name == b"sifkit-test\n"
    size = sum(len(word) + 1 for word in command)
    assert words == (b"sifkit-test\0" + b"more" * 1000)[: size - 1] + b"\0"
    assert variables == b"KEPT=x\0"
