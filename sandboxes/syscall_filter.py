"""The syscall allowlist as the kernel takes it: seccomp.json, compiled to classic BPF by libseccomp.

The Docker Engine compiles the same file by itself for runc. Where there is no engine (bubblewrap), or where
it does not help (init under gVisor), these bytes are loaded instead; the base image has them as
/opt/toolcrib/seccomp.bpf.

Rules:
    * only the native architecture is in the filter. A call by any other entry, such as `int 0x80` or x32 on
      x86_64, kills the process: AF_VSOCK was once reachable through the 32-bit entry;
    * what the list does not name fails with EPERM;
    * a name that this libseccomp or architecture does not know is left out when it would have been allowed,
      and is an error otherwise.

    FilterFailed         libseccomp is missing, too old, or refused a rule; says what to do
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandboxes.outcome import SandboxError

PROFILE = Path(__file__).parent / "seccomp.json"

_LIBRARY = "libseccomp.so.2"
_EPERM = 1
_KILL_PROCESS = 0x80000000
_ALLOW = 0x7FFF0000
_ATTRIBUTE_BAD_ARCH = 2  # SCMP_FLTATR_ACT_BADARCH of seccomp.h
_INSTRUCTION_BYTES = 8  # struct sock_filter
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_COMPARISONS = {  # enum scmp_compare of seccomp.h
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}


class FilterFailed(SandboxError):
    """The filter could not be made."""


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp` of seccomp.h."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def filter_bytes() -> bytes:
    """Give the filter for this machine's architecture: an array of `struct sock_filter`.

    Raises:
        FilterFailed: It could not be made.
    """
    return _compiled(PROFILE.read_text())


@functools.cache
def _compiled(profile: str) -> bytes:
    return compile_profile(json.loads(profile))


def compile_profile(profile: Mapping[str, Any]) -> bytes:
    """Compile a profile in the form that the Docker Engine takes.

    Args:
        profile: `defaultAction` and `syscalls`; its architectures are not read, only the native one counts.

    Raises:
        FilterFailed: libseccomp is missing or refused a rule.
    """
    library = _load()
    with _context(library, _action(profile["defaultAction"], None)) as context:
        _check(library.seccomp_attr_set(context, _ATTRIBUTE_BAD_ARCH, _KILL_PROCESS), "kill other entries")
        for rule in profile["syscalls"]:
            _add(library, context, rule)
        return _export(library, context)


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError as error:
        raise FilterFailed(
            f"{_LIBRARY} is missing: install libseccomp (Debian: apt-get install libseccomp2)"
        ) from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


@contextmanager
def _context(library: ctypes.CDLL, default_action: int) -> Iterator[int]:
    context = library.seccomp_init(default_action)
    if not context:
        raise FilterFailed("libseccomp refused the default action")
    try:
        yield context
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, rule: Mapping[str, Any]) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    wanted = [
        _Comparison(arg["index"], _COMPARISONS[arg["op"]], arg["value"], arg["valueTwo"])
        for arg in rule["args"]
    ]
    comparisons = (_Comparison * len(wanted))(*wanted)
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0 and action == _ALLOW:
            continue  # not on this architecture, or newer than this libseccomp: EPERM
        if number < 0:
            raise FilterFailed(f"this libseccomp does not know {name}: install version 2.5 or later")
        done = library.seccomp_rule_add_array(context, action, number, len(wanted), comparisons)
        _check(done, f"add the rule for {name}")


def _action(name: str, errno_value: int | None) -> int:
    if name == "SCMP_ACT_ALLOW":
        return _ALLOW
    if name == "SCMP_ACT_ERRNO":
        return 0x00050000 | (_EPERM if errno_value is None else errno_value)
    raise FilterFailed(f"{name}: the profile may only allow, or refuse with an error number")


def _export(library: ctypes.CDLL, context: int) -> bytes:
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(context, descriptor), "write the filter")
        size = os.fstat(descriptor).st_size
        if size == 0 or size % _INSTRUCTION_BYTES or size // _INSTRUCTION_BYTES > _MAX_INSTRUCTIONS:
            raise FilterFailed(f"libseccomp wrote a filter of {size} bytes, which the kernel would not take")
        return os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise FilterFailed(f"libseccomp could not {what}: {os.strerror(-result)}")
