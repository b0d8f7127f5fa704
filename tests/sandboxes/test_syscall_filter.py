"""The compiled syscall filter, on a real process that loads it."""

from __future__ import annotations

import errno
import platform
import signal
import subprocess
import sys

import pytest

from sandboxes import syscall_filter
from sandboxes.syscall_filter import FilterFailed, compile_profile, filter_bytes

LOAD = """
import ctypes, errno, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
code = sys.stdin.buffer.read()
if code:
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, program, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
def call(number, *arguments):
    libc.syscall.restype = ctypes.c_long
    return 0 if libc.syscall(number, *arguments) >= 0 else ctypes.get_errno()
def run_machine_code(code):
    import mmap
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""

# AF_VSOCK by the 32-bit entry: socket(AF_VSOCK, SOCK_STREAM, 0) with eax 359, ebx 40, ecx 1, edx 0.
VSOCK_BY_INT_80 = "print(run_machine_code(bytes.fromhex('53b867010000bb28000000b90100000031d2cd805bc3')))"

on_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers and entries of x86_64")


def run(program: str, filtered: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program after it has loaded the filter, or none."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOAD + program],
        input=filter_bytes() if filtered else b"",
        capture_output=True,
        timeout=30,
        check=False,
    )
    return subprocess.CompletedProcess([], done.returncode, done.stdout.decode(), done.stderr.decode())


def test_lets_an_interpreter_work():
    program = "import threading; t = threading.Thread(target=print, args=('hello',)); t.start(); t.join()"
    assert run(program).stdout == "hello\n"


def test_lets_a_file_be_copied_with_its_attributes(tmp_path):
    (tmp_path / "a").write_text("hello")
    program = f"import shutil; print(open(shutil.copy2('{tmp_path}/a', '{tmp_path}/b')).read())"
    assert run(program).stdout == "hello\n"


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET", "AF_INET6"])
def test_allows_sockets_of_families_that_a_tool_needs(family):
    assert run(f"socket.socket(socket.{family}).close(); print('made')").stdout == "made\n"


@pytest.mark.parametrize("family", ["AF_VSOCK", "AF_NETLINK", "AF_PACKET", "AF_ALG"])
def test_refuses_other_families(family):
    said = run(
        f"try: socket.socket(socket.{family}, socket.SOCK_RAW)\nexcept OSError as e: print(e.errno)"
    ).stdout
    assert said == f"{errno.EPERM}\n"


@on_x86_64
@pytest.mark.parametrize(
    ("name", "number", "arguments"),
    [
        ("ptrace", 101, "0, 0, 0, 0"),
        ("unshare", 272, "0"),
        ("clone for a namespace", 56, "0x10000000, 0, 0, 0, 0"),
        ("memfd_create", 319, "b'x', 0"),
        ("io_uring_setup", 425, "1, 0"),
        ("bpf", 321, "0, 0, 0"),
        ("keyctl", 250, "0, 0, 0"),
        ("userfaultfd", 323, "0"),
        ("mount", 165, "0, 0, 0, 0, 0"),
        ("process_vm_writev", 311, "1, 0, 0, 0, 0, 0"),
        ("pidfd_getfd", 438, "0, 0, 0"),
        ("sched_setscheduler", 144, "0, 0, 0"),
        ("prlimit64 of another process", 302, "1, 7, 0, 0"),
    ],
)
def test_refuses(name, number, arguments):
    assert run(f"print(call({number}, {arguments}))").stdout == f"{errno.EPERM}\n", name


@on_x86_64
def test_says_that_clone3_is_not_there_so_that_libc_uses_clone():
    assert run("print(call(435, 0, 0))").stdout == f"{errno.ENOSYS}\n"


@on_x86_64
def test_kills_who_uses_the_32_bit_entry():
    assert run(VSOCK_BY_INT_80).returncode == -signal.SIGSYS


@on_x86_64
def test_32_bit_entry_reaches_the_kernel_without_the_filter():
    done = run(VSOCK_BY_INT_80, filtered=False)
    if done.returncode == -signal.SIGSEGV:
        pytest.skip("this kernel has no 32-bit entry")
    assert done.returncode == 0, done


@on_x86_64
def test_kills_who_uses_the_x32_entry():
    assert run("print(call(0x40000000 + 39))").returncode == -signal.SIGSYS


def test_gives_the_same_bytes_each_time():
    syscall_filter._compiled.cache_clear()
    first = filter_bytes()
    syscall_filter._compiled.cache_clear()
    assert filter_bytes() == first and len(first) % 8 == 0


def test_says_what_to_install_when_libseccomp_is_missing(monkeypatch):
    monkeypatch.setattr(syscall_filter, "_LIBRARY", "libseccomp-that-is-not-there.so.2")
    with pytest.raises(FilterFailed, match="apt-get install libseccomp2"):
        compile_profile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []})


def test_refuses_a_profile_that_does_anything_but_allow_or_refuse():
    with pytest.raises(FilterFailed, match="SCMP_ACT_LOG"):
        compile_profile({"defaultAction": "SCMP_ACT_LOG", "syscalls": []})


def test_refuses_a_rule_against_a_call_that_it_does_not_know():
    rule = {"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO", "args": []}
    with pytest.raises(FilterFailed, match="no_such_call"):
        compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
