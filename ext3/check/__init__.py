"""Who owns what: whole inode tables, block maps and directories read in bulk, for the check and for resizing."""
