"""Problem tables: the problems of each part of a check, and all of them by code."""
