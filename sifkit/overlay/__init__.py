"""Overlays: where container conventions (upper/, work/, SIF) and the ext3 library meet."""
