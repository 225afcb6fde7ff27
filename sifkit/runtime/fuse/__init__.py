"""FUSE: trees of files served to the kernel over /dev/fuse, without any library or program of FUSE."""
