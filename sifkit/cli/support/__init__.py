"""Shared by the verbs: the frame, the console, values, progress, opening images."""
