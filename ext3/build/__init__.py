"""Making an image: what goes in (tree, scan, tarball), where it goes (plan), and writing it (emit)."""
