"""Edits of an open filesystem: what changes on disk for each, in terms of blocks and inodes.

Nothing here knows of the journal: changes are made through ``Blocks`` and become a transaction elsewhere.
"""
