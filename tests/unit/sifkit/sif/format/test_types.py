"""Codes: values on disk, siftool's numbers, words; what is not known stays what it is."""

from __future__ import annotations

import pytest

from sifkit.sif import Arch, DataType, FormatType, FSType, HashType, MessageType, PartType, SBOMFormat, UnknownCodeError
from sifkit.sif.format.types import Code, arch_bytes, arch_from_bytes, as_code, describe, word_of

KINDS: list[type[Code]] = [DataType, FSType, PartType, Arch, HashType, FormatType, MessageType, SBOMFormat]


def members() -> list[Code]:
    return [member for kind in KINDS for member in kind.choices()]


@pytest.mark.parametrize("member", members(), ids=lambda member: f"{type(member).__name__}.{member.name}")
def test_every_way_to_name_a_code(member: Code) -> None:
    kind = type(member)
    ways = [member.word, member.word.upper(), f" {member.word}", *member.aliases]
    numbers = [str(member.number), hex(member.number), hex(member.value), str(int(member))]
    for given in [*ways, *numbers, member.number, int(member)]:
        assert kind.parse(given) is member
    assert as_code(kind, int(member)) is member
    assert describe(member) == member.text
    assert word_of(member) == member.word
    assert kind.what() and member.text


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("given", ["", "nothing", "0", "99", "-1", "0x", "0xzz", "1.5", "9" * 400, "\u0661", 0, 99, -1])
def test_what_names_nothing(kind: type[Code], given: str | int) -> None:
    with pytest.raises(UnknownCodeError) as caught:
        kind.parse(given)
    assert caught.value.exit_code == 2
    assert kind.choices()[0].word in caught.value.hint
    assert len(str(caught.value)) < 150


def test_words_and_numbers_are_unambiguous() -> None:
    for kind in KINDS:
        names = [name for member in kind for name in (member.word, *member.aliases)]
        assert len(set(names)) == len(names)
        assert len({member.number for member in kind}) == len({member.value for member in kind}) == len(list(kind))


def test_numbers_of_siftool() -> None:
    assert DataType.parse("4") is DataType.parse("0x4004") is DataType.PARTITION
    assert [member.number for member in DataType] == list(range(1, 12))
    assert Arch.parse("2") is Arch.AMD64
    assert Arch.parse("386") is Arch.I386
    assert SBOMFormat.parse("github") is SBOMFormat.GITHUB_JSON
    assert FSType.parse("6") is FSType.GOCRYPTFS_SQUASHFS


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", Arch.AMD64), ("aarch64", Arch.ARM64), ("i686", Arch.I386), ("ppc64le", Arch.PPC64LE), ("sparc", Arch.UNKNOWN)],
)
def test_machines(machine: str, arch: Arch) -> None:
    assert Arch.of_machine(machine) is arch


def test_codes_that_are_not_known() -> None:
    assert as_code(FSType, 99) == 99
    assert describe(99) == "Unknown (0x63)"
    assert describe(0) == "Unknown"
    assert describe(b"99\0") == "Unknown (0x393900)"
    assert word_of(99) == "99"
    assert word_of(b"99\0") == "0x393900"


def test_architectures_on_disk() -> None:
    for arch in Arch:
        assert arch_from_bytes(arch_bytes(arch)) is arch
    assert arch_bytes(Arch.AMD64) == b"02\0"
    for strange in (b"\0\0\0", b"99\0", b"2\0\0", b"02 "):
        assert arch_from_bytes(strange) == strange
        assert arch_bytes(arch_from_bytes(strange)) == strange
