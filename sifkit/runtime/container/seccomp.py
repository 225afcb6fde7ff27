"""Seccomp filter of ``--fakeroot``: changes of owners and of identity succeed, and change nothing.

A user namespace of a plain user has one user and one group. The kernel refuses chown to another owner, setgroups, and a change
to another user, and most package managers end there. The filter answers these calls with 0, as root would see it: files stay
root's, processes stay root. A call that would fail for root, too, such as one on a missing file, is answered with 0 too. All
other calls go to the kernel; mknod of a device is refused there.

The calls for root itself are answered, too: overlayfs would copy up a file of a lower layer to give it the owner that it has.

Sources: seccomp(2), seccomp_filter in the kernel's documentation; Linux ``include/uapi/linux/seccomp.h``, ``filter.h`` and
``audit.h``; numbers of system calls from each architecture's ``asm/unistd.h`` (6.1).
"""

from __future__ import annotations

import os
import struct

from .. import sys

__all__ = ["answer_as_root", "filter_program"]

BPF_LOAD, BPF_AND, BPF_JUMP_IF_EQUAL, BPF_RETURN = 0x20, 0x54, 0x15, 0x06
NUMBER_OFFSET, ARCHITECTURE_OFFSET = 0, 4
"""Offsets in ``struct seccomp_data``."""
ALLOW, ANSWER_0 = 0x7FFF_0000, 0x0005_0000
"""SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with the error 0."""
_instruction = struct.Struct("=HBBI")
"""``struct sock_filter``: code, jump if true, jump if false, operand."""

BITS_64, LITTLE_ENDIAN = 0x8000_0000, 0x4000_0000
X86_64, I386 = 62 | BITS_64 | LITTLE_ENDIAN, 3 | LITTLE_ENDIAN
AARCH64, ARM = 183 | BITS_64 | LITTLE_ENDIAN, 40 | LITTLE_ENDIAN
RISCV64, PPC64LE, S390X = 243 | BITS_64 | LITTLE_ENDIAN, 21 | BITS_64 | LITTLE_ENDIAN, 22 | BITS_64
WITHOUT_X32 = 0xBFFF_FFFF
"""Clears the bit by which x32 differs from x86-64: the calls here have the same numbers."""

# chown lchown fchown, fchownat; setuid setgid, setreuid setregid, setresuid setresgid, setfsuid setfsgid; setgroups
_OLD_32 = (182, 16, 95, 23, 46, 70, 71, 164, 170, 138, 139, 81)
"""Of the first 32-bit architectures, with identities of 16 bits; without fchownat."""
_NEW_32 = (212, 198, 207, 213, 214, 203, 204, 208, 210, 215, 216, 206)
"""The same with identities of 32 bits."""
_GENERIC = (55, 54, 146, 144, 145, 143, 147, 149, 151, 152, 159)
"""Of architectures that are younger than ``include/uapi/asm-generic/unistd.h``."""
CALLS: dict[int, tuple[int, ...]] = {
    X86_64: (92, 94, 93, 260, 105, 106, 113, 114, 117, 119, 122, 123, 116),
    I386: (*_OLD_32, *_NEW_32, 298),
    AARCH64: _GENERIC,
    ARM: (*_OLD_32, *_NEW_32, 325),
    RISCV64: _GENERIC,
    PPC64LE: (181, 16, 95, 289, 23, 46, 70, 71, 164, 169, 138, 139, 81),
    S390X: (*_NEW_32, 291),
}
"""Numbers of the calls that are answered, by AUDIT_ARCH: a process may run programs of another one."""


def answer_as_root() -> None:
    """Install the filter in this process, for it and all that it starts, after ``sys.set_no_new_privileges``.

    Raises OSError: the kernel has no filters, or the architecture no numbers above.
    """
    sys.set_seccomp_filter(filter_program())
    os.setgroups([])  # the kernel refuses it in a user namespace of one group: the filter has answered


def filter_program() -> bytes:
    """Return the program: the architecture selects the numbers that are compared."""
    program = _code(BPF_LOAD, ARCHITECTURE_OFFSET)
    for architecture, numbers in CALLS.items():
        load = _code(BPF_LOAD, NUMBER_OFFSET)
        if architecture == X86_64:
            load += _code(BPF_AND, WITHOUT_X32)
        compares = b"".join(_code(BPF_JUMP_IF_EQUAL, number, if_true=len(numbers) - at) for at, number in enumerate(numbers))
        section = load + compares + _code(BPF_RETURN, ALLOW) + _code(BPF_RETURN, ANSWER_0)
        program += _code(BPF_JUMP_IF_EQUAL, architecture, if_false=len(section) // _instruction.size) + section
    return program + _code(BPF_RETURN, ALLOW)


def _code(code: int, operand: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction; the jumps skip so many others."""
    return _instruction.pack(code, if_true, if_false, operand)
