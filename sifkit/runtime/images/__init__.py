"""Images of a run: opened, locked, and brought into a state in which they can be used."""
