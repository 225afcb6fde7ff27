"""What people write on the command line: sizes, counts, owners, modes."""

from __future__ import annotations

import os
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifkit.cli.support import values
from sifkit.errors import UsageError

M = 1 << 20


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("500", 500 * M),
        ("500M", 500 * M),
        ("500m", 500 * M),
        ("500MiB", 500 * M),
        ("500mib", 500 * M),
        ("1.5G", 1536 * M),
        (".5g", 512 * M),
        ("64K", 65536),
        ("2T", 2 << 40),
        ("2 TiB", 2 << 40),
    ],
)
def test_sizes(text, wanted):
    assert values.size("--size", text) == wanted


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1e3", "1,5G", "0", "0.0M", "5X", "5MiBs", "5Mi", "1_000", "\u0661M", "9" * 40, "1.2.3"]
)
def test_bad_sizes_name_the_option_and_are_usage_errors(text):
    with pytest.raises(UsageError, match=r"^--size") as caught:
        values.size("--size", text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "decimal", "binary"), [("500MB", "500,000,000", "524,288,000"), ("2gb", "2,000,000,000", "2,147,483,648")]
)
def test_decimal_looking_units_are_refused_with_both_readings(text, decimal, binary):
    with pytest.raises(UsageError) as caught:
        values.size("--size", text)
    assert decimal in caught.value.message and binary in caught.value.message


def test_the_readings_offered_mean_what_they_say():
    with pytest.raises(UsageError) as caught:
        values.size("--size", "500MB")
    words = caught.value.hint.replace(",", " ").split()
    offered = [word for word in words if word[-1:] in "KM" and word[:-1].isdigit()]
    assert [values.size("--size", word) for word in offered] == [524_288_000, 500_000_768]  # the least K that holds it


@given(st.integers(1, 1 << 20), st.sampled_from("KMGT"))
def test_a_unit_is_a_power_of_1024(number, unit):
    assert values.size("-s", f"{number}{unit}") == number << (10 * ("KMGT".index(unit) + 1))


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_usage_error(text):
    try:
        assert values.size("-s", text) > 0
    except UsageError as error:
        assert error.message


@pytest.mark.parametrize(("text", "wanted"), [("500K", 500_000), ("1.5M", 1_500_000), ("17", 17), ("2g", 2_000_000_000)])
def test_counts_are_decimal(text, wanted):
    assert values.count("-N", text) == wanted


@pytest.mark.parametrize("text", ["0", "5G", "4294967296", "x", "1KiB", ""])
def test_bad_counts(text):
    with pytest.raises(UsageError, match=r"^-N"):
        values.count("-N", text)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no user numbers here")
def test_owners():
    import grp
    import pwd

    me = pwd.getpwuid(0)
    assert values.owner("--owner", "me") == (os.getuid(), os.getgid())
    assert values.owner("--owner", "70000:70001") == (70000, 70001)
    assert values.owner("--owner", me.pw_name) == (0, me.pw_gid)
    assert values.owner("--owner", f"{me.pw_name}:{grp.getgrgid(0).gr_name}") == (0, 0)
    assert values.owner("--owner", "4111222333") == (4111222333, 4111222333)


@pytest.mark.parametrize("text", ["", ":", "1:", ":1", "1:2:3", "no such user", "4294967295", "-1", "1:no-such-group"])
def test_bad_owners(text):
    with pytest.raises(UsageError, match="--owner"):
        values.owner("--owner", text)


@pytest.mark.parametrize("text", ["-1:0", "0:-1", "+5", "4294967295", "99999999999"])
def test_numbers_of_nobody_are_told_as_numbers(text):
    with pytest.raises(UsageError, match="user and group IDs are from 0 to 4294967294") as caught:
        values.owner("--owner", text)
    assert caught.value.message.startswith(f"--owner {text}: ")


def test_blank_values_are_seen():
    for text, says in ((" ", "--size ' ': not a size"), ("5 X", "--size '5 X': unknown unit X")):
        with pytest.raises(UsageError, match=says):
            values.size("--size", text)
    with pytest.raises(UsageError, match=r"^-J size=: not a size") as caught:
        values.journal_size("-J", "size=")
    assert "size=16M" in caught.value.hint


def test_every_refusal_has_a_hint():
    refusals = [
        lambda: values.size("-s", "0"),
        lambda: values.size("-s", "1MB"),
        lambda: values.count("-N", "0"),
        lambda: values.percent("-m", "99"),
        lambda: values.owner("-o", "no such user"),
        lambda: values.mode("--mode", "9"),
        lambda: values.label("-L", "x" * 17),
        lambda: values.choice("--layout", "zzz", ("a", "b")),
        lambda: values.boolean("V", "x"),
        lambda: values.epoch("E", "x"),
        lambda: values.globs("-X", "f", b"\0"),
    ]
    for refuse in refusals:
        with pytest.raises(UsageError) as caught:
            refuse()
        assert caught.value.hint


def test_modes():
    assert values.mode("--mode", "0644") == values.mode("--mode", "644") == 0o644
    for text in ("", "8", "99", "1777", "rw", "0o", "00000600"):
        with pytest.raises(UsageError, match="--mode"):
            values.mode("--mode", text)


def test_journal_size():
    assert values.journal_size("-J", "size=16") == values.journal_size("-J", "size=16M") == 16 * M
    for text in ("16", "size", "size=", "device=/dev/x", "size=1,location=2"):
        with pytest.raises(UsageError, match="-J"):
            values.journal_size("-J", text)


def test_uuid():
    text = "01234567-89ab-cdef-0123-456789abcdef"
    assert values.uuid("-U", text) == UUID(text)
    assert values.uuid("-U", "random") is None
    for bad in ("", "x", text + "0", "{" + text + "}"):
        with pytest.raises(UsageError, match="-U"):
            values.uuid("-U", bad)


def test_label():
    assert values.label("-L", "caf\u00e9") == "caf\u00e9".encode()
    with pytest.raises(UsageError, match="17 bytes"):
        values.label("-L", "x" * 17)


def test_epoch():
    assert values.epoch("E", "0") == 0
    assert values.epoch("E", "4294967295") == 2**32 - 1
    for bad in ("-1", "1.5", "4294967296", "now", "1" * 50):
        with pytest.raises(UsageError, match=r"^E="):
            values.epoch("E", bad)


def test_percent():
    assert values.percent("-m", "5") == values.percent("-m", "5%") == 5.0
    for bad in ("51", "-1", "nan", "inf", "x", "5M"):
        with pytest.raises(UsageError, match=r"^-m"):
            values.percent("-m", bad)


def test_choice_suggests():
    assert values.choice("--layout", "root", ("root", "upper")) == "root"
    with pytest.raises(UsageError) as caught:
        values.choice("--layout", "uper", ("root", "upper"))
    assert "upper" in caught.value.hint


def test_globs_of_a_file():
    data = b"# comment\n\n *.pyc \n\\#odd\nna\xffme\r\n"
    assert values.globs("--exclude-from", "f", data) == ("*.pyc", "#odd", os.fsdecode(b"na\xffme"))
