"""Problems of TODO."""

from __future__ import annotations
