"""Overlays: where container conventions (upper/, work/) and the ext3 library meet.

``create(path, options)`` makes one, see ``CreateOptions``; ``clone`` copies one; ``image_info`` tells about one. Nothing here
prints or reads the environment.
"""

from __future__ import annotations

from .clone import clone
from .create import create
from .info import ImageInfo, image_info
from .options import CreateOptions, CreateResult, Progress

__all__ = ["CreateOptions", "CreateResult", "ImageInfo", "Progress", "clone", "create", "image_info"]
