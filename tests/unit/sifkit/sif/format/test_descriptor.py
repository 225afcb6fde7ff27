"""Descriptors as values."""

from __future__ import annotations

from sifkit.sif import DataType, Descriptor


def test_the_slot_does_not_count_in_comparisons() -> None:
    one = Descriptor(data_type=DataType.GENERIC, id=1, offset=10, size=2, size_with_padding=2, created=0, modified=0, slot=3)
    same = one._replace(slot=4)
    assert one == same and (one != same) is False
    assert hash(one) == hash(one._replace(slot=4))
    assert one != one._replace(size=3) and one != tuple(one)
    assert Descriptor.parse(one.pack(), slot=9) == one
