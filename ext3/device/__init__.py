"""Devices: a bounded window of bytes, and windows laid over it."""
