"""Bulk reads of inode tables, block maps and directories: the owners of blocks and inodes, for the check and for resizing."""
