"""Reading: the filesystem, path walks, files, and scans of many inodes and directories."""
