"""Squashfs images: a tree of files, read from any source of bytes."""
