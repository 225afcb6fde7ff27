"""Unpacking of images into files with a manifest, and packing them again."""
