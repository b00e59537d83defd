"""The system calls that the signer never makes, taken away by a filter in the kernel (seccomp BPF), for good.

What is listed is refused with EPERM; the rest is allowed. A list of what is allowed would be tighter, and would stop the signer
on the day when libc, Python or SQLite makes a call of another name: settlements have a time by which they must be signed.
The filter sees numbers, not pointers: it needs no library, and nothing that changes between two machines but the numbers.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import NamedTuple

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_CLONE_THREAD = 0x00010000
_X32_BIT = 0x40000000


class _Machine(NamedTuple):
    """audit_arch: the kernel's name of the machine's calling convention; column: of `_DENIED`."""

    audit_arch: int
    column: int
    clone: int


_MACHINES = {"x86_64": _Machine(0xC000003E, 0, 56), "aarch64": _Machine(0xC00000B7, 1, 220)}

_DENIED: dict[str, tuple[int | None, int | None]] = {
    # no new socket of any family, no way out; the listening one is there already
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    # no descriptor from somebody else, none to somebody else: a connected socket would do as well as one's own
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "sendmmsg": (307, 269),
    "recvmmsg": (299, 243),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    # a ring of requests would pass by this filter
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # no other program, no other process (threads: see below)
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "kill": (62, 129),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    # no part of the kernel that only exploits and tools have a use for
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "iopl": (172, None),
    "ioperm": (173, None),
    # no other identity, no other root, no namespace
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "capset": (126, 91),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
}
"""Numbers on x86-64 and on AArch64 (None: there is no such call)."""

_CLONE3 = 435
"""Its flags are behind a pointer, out of the filter's sight. "No such call" makes libc use `clone`, whose flags are not."""

# Classic BPF: u16 code, u8 jump if true, u8 jump if false, u32 constant
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data; of the first argument the low half
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000


def denied_numbers(machine: str) -> dict[str, int]:
    """Return the calls that are refused on a machine, by name."""
    column = _MACHINES[machine].column
    return {name: number for name, numbers in _DENIED.items() if (number := numbers[column]) is not None}


def program(machine: str) -> bytes:
    """Return the filter for a machine, one of `_MACHINES`. Another machine's calls (32-bit, x32) end the process."""
    arch, _, clone = _MACHINES[machine]
    step = struct.Struct("<HBBI").pack
    steps = [
        step(_LOAD, 0, 0, _ARCH_AT),
        step(_EQUAL, 1, 0, arch),
        step(_RETURN, 0, 0, _KILL),
        step(_LOAD, 0, 0, _NUMBER_AT),
        step(_AT_LEAST, 0, 1, _X32_BIT),
        step(_RETURN, 0, 0, _KILL),
        step(_EQUAL, 0, 1, _CLONE3),
        step(_RETURN, 0, 0, _FAIL | errno.ENOSYS),
    ]
    for number in denied_numbers(machine).values():
        steps += [step(_EQUAL, 0, 1, number), step(_RETURN, 0, 0, _FAIL | errno.EPERM)]
    steps += [
        step(_EQUAL, 0, 3, clone),
        step(_LOAD, 0, 0, _ARGUMENT_AT),
        step(_ANY_BIT, 1, 0, _CLONE_THREAD),
        step(_RETURN, 0, 0, _FAIL | errno.EPERM),
        step(_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(steps)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def apply_filter() -> None:
    """Put the filter on this thread and all that come from it. It cannot be taken off. Raises OSError.

    PR_SET_NO_NEW_PRIVS must be set, and there must be one thread only: another would go on without.
    """
    machine = platform.machine()
    if machine not in _MACHINES or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise OSError(errno.ENOSYS, f"the numbers of {machine} are not known here")
    if len(os.listdir("/proc/self/task")) > 1:
        raise OSError(errno.EBUSY, "another thread runs")
    steps = program(machine)
    loaded = _Program(len(steps) // 8, steps)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
