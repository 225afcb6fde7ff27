"""The journal: the log read, replayed, and written as transactions."""
