"""Options as keywords of ``create`` and ``embed``: text as on the command line, and errors that say what is wanted."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ext3 import Filesystem
from sifkit.errors import UsageError
from sifkit.overlay import CreateOptions, create, embed
from sifkit.overlay.creating.keywords import options_from
from sifkit.sif import SIF


def test_create_takes_keywords(tmp_path: Path) -> None:
    source = tmp_path / "d"
    source.mkdir()
    (source / "f").write_bytes(b"data")
    made = create(tmp_path / "o.img", size="20M", from_dir=source, owner="1000:1001", label="lab", exclude=["*.pyc"])
    assert (made.size_bytes, made.label) == (20 << 20, b"lab")
    with Filesystem.open(tmp_path / "o.img") as filesystem:
        found = filesystem.stat("/upper/f")
        assert (found.uid, found.gid) == (1000, 1001)
    create(tmp_path / "o.img", CreateOptions(size=24 << 20), force=True)
    assert os.path.getsize(tmp_path / "o.img") == 24 << 20


def test_embed_takes_keywords(tmp_path: Path) -> None:
    with SIF.create(tmp_path / "a.sif"):
        pass
    assert embed(tmp_path / "a.sif", size="16M", owner="7:8").created.size_bytes == 16 << 20


@pytest.mark.parametrize(
    ("keywords", "field", "value"),
    [
        ({"size": "500M"}, "size", 500 << 20),
        ({"size": "1"}, "size", 1 << 20),
        ({"size": 12345}, "size", 12345),
        ({"inode_ratio": "16K"}, "inode_ratio", 16384),
        ({"block_size": "4096"}, "block_size", 4096),
        ({"owner": [1, 2]}, "owner", (1, 2)),
        ({"owner": "me"}, "owner", (os.getuid(), os.getgid())),
        ({"uuid": "12345678-1234-1234-1234-123456789abc"}, "uuid", UUID("12345678-1234-1234-1234-123456789abc")),
        ({"exclude": ["a", "b"]}, "exclude", ("a", "b")),
        ({"size": None}, "size", None),
    ],
)
def test_values(keywords: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(options_from(None, keywords), field) == value


def test_every_field_has_a_check_and_takes_its_default() -> None:
    default = CreateOptions()
    assert options_from(None, {field.name: getattr(default, field.name) for field in fields(default)}) == default
    for field in fields(default):
        with pytest.raises((TypeError, UsageError), match=field.name):
            options_from(None, {field.name: object()})


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"sise": "1M"}, "there is no option sise; did you mean size?"),
        ({"size": 1.5}, "size must be a number of bytes, or a text such as '500M', not 1.5"),
        ({"size": True}, "size must be a number of bytes, or a text such as '500M', not True"),
        ({"force": "yes"}, "force must be True or False, not 'yes'"),
        ({"exclude": "*.pyc"}, "exclude must be a list of texts, not one text, not '*.pyc'"),
        ({"owner": 1000}, "owner must be a pair (uid, gid), or a text such as '1000:1000' or 'me', not 1000"),
        ({"from_dir": 3}, "from_dir must be a path, not 3"),
    ],
)
def test_another_type_is_a_type_error(keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError) as caught:
        options_from(None, keywords)
    assert str(caught.value) == text
    with pytest.raises(TypeError, match=r"there is no option|must be"):
        create("/none/o.img", **keywords)


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"uuid": "xyz"}, "uuid xyz: not a UUID"),
        ({"owner": (-5, 1)}, "owner (-5, 1): user and group IDs are from 0 to 4294967294"),
        ({"owner": (1, 2**32 - 1)}, "owner (1, 4294967295): user and group IDs are from 0 to 4294967294"),
        ({"upper_owner": [2**40, 1]}, "upper_owner (1099511627776, 1): user and group IDs are from 0 to 4294967294"),
        ({"mode": -1}, "mode -1: must be permissions from 0 to 0o777"),
        ({"mode": 0o1000}, "mode 512: must be permissions from 0 to 0o777"),
        ({"source_date_epoch": -1}, "source_date_epoch -1: must be whole seconds since 1970, at most 4,294,967,295"),
        ({"source_date_epoch": 2**32}, "source_date_epoch 4294967296: must be whole seconds since 1970, at most 4,294,967,295"),
        ({"label": "\ud800"}, r"label '\ud800': cannot be written in the encoding of file names"),
        ({"label": b"a\0b"}, r"label a\x00b: contains a NUL byte"),
        ({"prefix": "\ud800"}, r"prefix '\ud800': cannot be written in the encoding of file names"),
        ({"exclude": ["a", "\ud800"]}, r"exclude '\ud800': cannot be written in the encoding of file names"),
    ],
)
def test_a_value_that_no_image_can_have_is_a_usage_error(tmp_path: Path, keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        create(tmp_path / "o.img", **{"size": "8M", **keywords})
    assert caught.value.message == text
    assert not (tmp_path / "o.img").exists()


def test_values_at_the_ends_of_their_ranges() -> None:
    made = options_from(None, {"owner": (0, 2**32 - 2), "mode": 0o777, "source_date_epoch": 2**32 - 1})
    assert (made.owner, made.mode, made.source_date_epoch) == ((0, 2**32 - 2), 0o777, 2**32 - 1)


def test_other_faults() -> None:
    with pytest.raises(TypeError, match="options must be CreateOptions, not str: name what it is, as in from_dir='overlay/'"):
        create("/none/o.img", "d")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="size 5Q: unknown unit Q"):
        options_from(None, {"size": "5Q"})
    with pytest.raises(UsageError, match="layout uper: must be one of 'auto', 'root', 'upper', 'data'"):
        options_from(None, {"layout": "uper"})
    with pytest.raises(TypeError, match="size must be a number of bytes"):
        options_from(CreateOptions(size=1.5), {})  # type: ignore[arg-type]
