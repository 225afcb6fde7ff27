"""Layers of a container, joined by the kernel, served by FUSE, or unpacked into a cache."""
