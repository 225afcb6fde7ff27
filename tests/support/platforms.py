"""Marks of tests that want what only Linux has."""

from __future__ import annotations

import sys

import pytest

__all__ = ["linux_holes", "linux_locks"]

linux_locks = pytest.mark.skipif(sys.platform != "linux", reason="these locks are Linux's")
linux_holes = pytest.mark.skipif(sys.platform != "linux", reason="holes are measured as Linux does")
