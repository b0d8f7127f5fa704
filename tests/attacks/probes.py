"""What the kernel at hand does not have, so that no attack can be about it."""

from __future__ import annotations

import ctypes
import errno


def missing(*numbers: int) -> str | None:
    """Say that this kernel has none of these calls, asked with arguments that no call takes."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in numbers:
        ctypes.set_errno(0)
        result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
        if result != -1 or ctypes.get_errno() != errno.ENOSYS:
            return None
    return f"this kernel has no call {' or '.join(map(str, numbers))}"
