"""Reading of filesystems: paths, files, and scans of many inodes and directories."""
