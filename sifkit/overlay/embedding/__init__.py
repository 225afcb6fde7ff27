"""Overlays inside SIF images: create, attach, detach."""
