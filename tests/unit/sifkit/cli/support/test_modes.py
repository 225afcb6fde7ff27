"""Modes as chmod takes them: octal and symbolic."""

from __future__ import annotations

import pytest

from sifkit.cli.support.modes import apply_mode, parse_mode
from sifkit.errors import UsageError

# Facts


@pytest.mark.parametrize(
    ("text", "mode", "is_dir", "want"),
    [
        ("755", 0o644, False, 0o755),
        ("u+x,g-r", 0o644, False, 0o704),
        ("a+X", 0o644, False, 0o644),
        ("a+X", 0o744, False, 0o755),
        ("+X", 0o644, True, 0o755),
        ("g=u", 0o640, False, 0o660),
        ("o=", 0o777, False, 0o770),
        ("u+s,g+s,+t", 0o755, False, 0o7755),
        ("755", 0o6755, True, 0o6755),
        ("00755", 0o6755, True, 0o755),
        ("755", 0o6755, False, 0o755),
        ("u=rwx,go=rx", 0o2700, True, 0o2755),
        ("+w", 0o444, False, 0o644),
        ("a+w", 0o444, False, 0o666),
        ("u=rw+x-w", 0o000, False, 0o500),
        ("-s", 0o6755, False, 0o755),
    ],
)
def test_modes(text, mode, is_dir, want):
    assert apply_mode(parse_mode(text), mode, is_dir=is_dir, mask=0o022) == want


@pytest.mark.parametrize("text", ["", "8", "17777", "u", "u+q", "rwx", "u+x,", "0o755", "-1", "u+rg"])
def test_what_is_no_mode(text):
    with pytest.raises(UsageError):
        parse_mode(text)
