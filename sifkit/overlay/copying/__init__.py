"""Copies into images and out of them, as cp makes them."""
