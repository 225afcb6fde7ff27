"""Containers as they are looked into: root and overlays as one tree, and what the image says of itself."""
