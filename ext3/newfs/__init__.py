"""Making a filesystem: what goes in (a Tree), where it goes (a plan), and writing it."""
