"""A directory of the host as a Tree."""
