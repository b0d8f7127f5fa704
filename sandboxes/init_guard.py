"""What a handler may not do to PID 1 where the kernel does not protect it: instructions before the filter.

On Linux, PID 1 gets no signal of its own namespace that it has no handler for. gVisor's sentry does not know
that rule: a handler of the same uid could stop init, which then keeps no deadline. `guard` puts these
refusals before a compiled filter, so that one program goes into the image:

    kill, tkill, tgkill, pidfd_open   of process 1
    fcntl F_SETOWN, F_SETOWN_EX, F_SETSIG   a socket would send init the signal
    clone CLONE_PARENT                the child would be init's, its end a signal of the handler's choice

The numbers are those of linux/fcntl.h, linux/sched.h and each architecture's unistd.h; the instructions are
those of linux/filter.h. Arguments are read by their low 32 bits, as the kernel reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandboxes.outcome import SandboxError

INIT = 1

_INSTRUCTION = struct.Struct("<HBBI")  # struct sock_filter: code, jump if true, jump if false, operand
_LOAD, _JUMP, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x05, 0x15, 0x45, 0x06
_REFUSE = 0x00050000 | 1  # SECCOMP_RET_ERRNO with EPERM
_NUMBER_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 16  # struct seccomp_data

_CALLS: Mapping[str, Mapping[str, int]] = {
    "x86_64": {"kill": 62, "tkill": 200, "tgkill": 234, "pidfd_open": 434, "fcntl": 72, "clone": 56},
    "aarch64": {"kill": 129, "tkill": 130, "tgkill": 131, "pidfd_open": 434, "fcntl": 25, "clone": 220},
}


class GuardFailed(SandboxError):
    """There is no guard for this architecture."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that is refused.

    Attributes:
        call: The system call's name.
        argument: Which one is looked at, from 0.
        values: Refused when it is one of these.
        bits: Refused when any of these is set in it.
        stops: The attack.
    """

    call: str
    argument: int
    values: Sequence[int] = ()
    bits: int = 0
    stops: str = ""


REFUSALS: tuple[Refusal, ...] = (
    Refusal("kill", 0, (INIT,), stops="SIGSTOP to init: no deadline any more"),
    Refusal("tkill", 0, (INIT,), stops="the same, by thread"),
    Refusal("tgkill", 0, (INIT,), stops="the same, by thread group"),
    Refusal("pidfd_open", 0, (INIT,), stops="the same, by descriptor"),
    Refusal("fcntl", 1, (8, 10, 15), stops="init as the owner of a socket whose signal is SIGSTOP"),
    Refusal("clone", 0, bits=0x8000, stops="a child of init whose end is a signal of one's choice"),
)


def guard(filter_program: bytes, architecture: str) -> bytes:
    """Put the refusals before a filter.

    Args:
        filter_program: An array of `struct sock_filter`; it goes on where nothing is refused.
        architecture: As `os.uname().machine` says it.

    Raises:
        GuardFailed: There are no numbers for that architecture.
    """
    numbers = _CALLS.get(architecture)
    if numbers is None:
        raise GuardFailed(f"no guard of init for {architecture}: use one of {', '.join(sorted(_CALLS))}")
    return b"".join(_refuse(refusal, numbers[refusal.call]) for refusal in REFUSALS) + filter_program


def _refuse(refusal: Refusal, number: int) -> bytes:
    """Refuse one thing, or go on behind these instructions."""
    tests = [(_JUMP_EQUAL, value) for value in refusal.values]
    if refusal.bits:
        tests.append((_JUMP_SET, refusal.bits))
    program = [
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        (_JUMP_EQUAL, 0, len(tests) + 3, number),  # another call: go on behind
        (_LOAD, 0, 0, _FIRST_ARGUMENT_OFFSET + 8 * refusal.argument),
    ]
    for place, (code, operand) in enumerate(tests):
        program.append((code, len(tests) - place, 0, operand))  # to the refusal, past the jump before it
    program += [(_JUMP, 0, 0, 1), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)
