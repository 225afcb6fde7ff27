"""Edits of overlays as containers make them: below upper/, over lower layers."""
