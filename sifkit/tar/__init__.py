"""Tar archives: ``stream.open_archive`` opens one, ``members.read_members`` reads its entries, ``writer`` writes one."""
