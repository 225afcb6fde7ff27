"""Marks of removed files, in forms that hold for every user."""
