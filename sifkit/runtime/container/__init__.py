"""Root of a container: its mount points, mounts and accounts, and the command that runs in it."""
