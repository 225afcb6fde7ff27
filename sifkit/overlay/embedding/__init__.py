"""Overlays inside SIF images: made in place, attached, detached; the room reserved for them."""
