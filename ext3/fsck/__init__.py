"""Check and repair of a filesystem: problems, policies, one module for each pass."""
