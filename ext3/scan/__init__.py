"""Scan of a directory of the host into a Tree."""
