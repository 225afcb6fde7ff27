"""Edits of an open filesystem, in terms of blocks and inodes.

Changes are made through ``Blocks``; a ``Session`` commits them as transactions of the journal.
"""
