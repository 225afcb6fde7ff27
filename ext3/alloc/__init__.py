"""Allocation: blocks and inodes, and the system blocks that are never given out."""
