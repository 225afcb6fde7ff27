"""Filter of ``--fakeroot``, run by a small machine for the instructions that it uses."""

from __future__ import annotations

import errno
import struct

import pytest

from sifkit.runtime import launch, sys
from sifkit.runtime.container import seccomp
from sifkit.runtime.container.seccomp import filter_program
from tests.support.plan_runner import plan_of

ALLOWED, ANSWERED = "to the kernel", "answered with 0"
X32 = 0x4000_0000
PROGRAM = list(struct.iter_unpack("=HBBI", filter_program()))


def decide(architecture: int, number: int) -> str:
    """Decision of the program on a call."""
    data = struct.pack("=iI", number, architecture)
    accumulator = at = 0
    while True:
        code, if_true, if_false, operand = PROGRAM[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x15:
            at += if_true if accumulator == operand else if_false
        else:
            assert code == 0x06
            return {0x7FFF_0000: ALLOWED, 0x0005_0000: ANSWERED}[operand]


@pytest.mark.parametrize(
    ("architecture", "answered", "allowed"),
    [
        # chown, fchownat, setuid, setresgid, setgroups; read, openat, mknod, getuid
        (0xC000_003E, (92, 260, 105, 119, 116), (0, 257, 133, 102)),
        (0xC000_003E, tuple(X32 | number for number in (92, 260, 105, 119, 116)), (X32, X32 | 257, X32 | 133)),
        (0x4000_0003, (182, 212, 298, 23, 213, 210, 206), (3, 295, 14, 199, 92, 105)),
        (0xC000_00B7, (55, 54, 146, 149, 159), (63, 56, 33, 174, 92)),
        (0x4000_0028, (182, 212, 325, 23, 213, 210, 206), (3, 322, 14, 199)),
        (0xC000_00F3, (55, 54, 146, 149, 159), (63, 56, 33, 174)),
        (0xC000_0015, (181, 289, 23, 169, 81), (3, 286, 14, 24)),
        (0x8000_0016, (212, 291, 213, 210, 206), (3, 288, 14, 199)),
        (0x1234, (), (92, 54, 212)),
    ],
    ids=["x86-64", "x32", "i386", "aarch64", "arm", "riscv64", "ppc64le", "s390x", "another"],
)
def test_calls_of_each_architecture(architecture: int, answered: tuple[int, ...], allowed: tuple[int, ...]) -> None:
    assert {number: decide(architecture, number) for number in answered} == dict.fromkeys(answered, ANSWERED)
    assert {number: decide(architecture, number) for number in allowed} == dict.fromkeys(allowed, ALLOWED)


def test_every_number_of_the_tables_and_no_other() -> None:
    for architecture, numbers in seccomp.CALLS.items():
        assert len(set(numbers)) == len(numbers)
        found = {number for number in range(512) if decide(architecture, number) == ANSWERED}
        assert found == set(numbers)


def test_a_kernel_without_filters_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(program: bytes) -> None:
        raise OSError(errno.EINVAL, "Invalid argument", "prctl SECCOMP")

    monkeypatch.setattr(sys, "set_seccomp_filter", refuse)
    notes: list[str] = []
    plan = plan_of("view", ["true"], [])
    assert launch._last_steps(plan, notes.append) is None
    steps = launch._last_steps(plan._replace(fakeroot=True), notes.append)
    assert steps is not None
    steps()
    (note,) = notes
    assert note.startswith("--fakeroot: changes of owners and users fail") and note.endswith(": Invalid argument")
