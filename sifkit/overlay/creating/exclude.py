"""Exclude patterns: paths of a source that are left out of the image.

A pattern without a slash matches names at any depth (``*.pyc``); one with a slash matches paths from the top of the source
(``/build``, ``./build``, ``lib/**/test``). ``*`` and ``?`` do not match slashes, ``**`` does, ``[...]`` is a set; a trailing
slash matches directories only. Everything below an excluded directory is excluded too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable

from ...errors import UsageError, show

__all__ = ["path_filter"]


def path_filter(patterns: Iterable[str]) -> Callable[[bytes, bool], bool] | None:
    """Return a predicate (path relative to the source, is it a directory) that is True for excluded paths.

    None without patterns. Raises UsageError for an invalid pattern.
    """
    anywhere: list[bytes] = []
    directories: list[bytes] = []
    for pattern in patterns:
        plain = _without_dots(os.fsencode(pattern))
        expression = _expression(pattern, plain)
        (directories if plain.endswith(b"/") else anywhere).append(expression)
    if not anywhere and not directories:
        return None
    every = re.compile(b"|".join(anywhere) or b"(?!)", re.DOTALL)
    only_directories = re.compile(b"|".join([*anywhere, *directories]), re.DOTALL)

    def excluded(path: bytes, is_directory: bool) -> bool:
        return (only_directories if is_directory else every).fullmatch(path) is not None

    return excluded


def _without_dots(pattern: bytes) -> bytes:
    """Return a pattern without components ``.``, which lead nowhere: ``./a`` is ``/a``, ``a/.`` is ``a/``."""
    if pattern == b"." or pattern.startswith(b"./"):
        pattern = b"/" + pattern
    return re.sub(rb"/(?:\.?/|\.\Z)+", b"/", pattern)


def _expression(pattern: str, plain: bytes) -> bytes:
    """Return a regular expression that matches the whole relative path. ``plain``: the pattern without dots."""
    text = plain.strip(b"/")
    if not text:
        raise UsageError(f"--exclude '{show(pattern)}': matches nothing, or everything", hint="write a name or a path")
    anchored = b"/" in plain.rstrip(b"/")
    result = b"" if anchored else b"(?:.*/)?"
    at = 0
    while at < len(text):
        if text[at : at + 3] == b"**/":
            result += b"(?:.*/)?"
            at += 3
        elif text[at : at + 2] == b"**":
            result += b".*"
            at += 2
        elif text[at : at + 1] == b"*":
            result += b"[^/]*"
            at += 1
        elif text[at : at + 1] == b"?":
            result += b"[^/]"
            at += 1
        elif text[at : at + 1] == b"[" and (end := text.find(b"]", at + 2)) > 0:
            body = text[at + 1 : end]
            negated = body[:1] in (b"!", b"^")
            if negated:
                body = body[1:]
            body = body.replace(b"\\", b"\\\\").replace(b"[", b"\\[").replace(b"^", b"\\^")
            result += b"[" + (b"^/" if negated else b"") + body + b"]"
            at = end + 1
        elif text[at : at + 1] == b"\\" and at + 1 < len(text):
            result += re.escape(text[at + 1 : at + 2])
            at += 2
        else:
            result += re.escape(text[at : at + 1])
            at += 1
    try:
        re.compile(result)
    except re.error as error:
        raise UsageError(f"--exclude '{show(pattern)}': {error.msg}", hint="check the brackets") from error
    return b"(?:" + result + b")"
