"""`python -m tests.caged UNIT COMMAND..`: runs a command under the system call filter of a systemd unit, and without memory that is
both writable and executable, as systemd would have it there. Which calls the filter's groups have is asked of `systemd-analyze`.
"""

import ctypes
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

_PR_SET_MDWE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 65, 38, 22
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001
HEADERS = [*Path("/usr/include").glob("*/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h")]


def calls_of(group: str) -> set[str]:
    """Return the names of the system calls in a group of systemd's."""
    done = subprocess.run(["systemd-analyze", "--no-pager", "syscall-filter", group], capture_output=True, text=True, check=True)
    words = [line.strip() for line in done.stdout.splitlines()[1:]]
    names = [word for word in words if word and not word.startswith("#")]
    return set().union(*(calls_of(name) if name.startswith("@") else {name} for name in names))


def allowed_by(unit: str) -> set[str]:
    """Return what the lines SystemCallFilter= of a unit leave, and the start of a program."""
    allowed: set[str] = set()
    for line in re.findall(r"(?m)^SystemCallFilter=(.*)$", unit):
        for group in line.removeprefix("~").split():
            allowed = allowed - calls_of(group) if line.startswith("~") else allowed | calls_of(group)
    return allowed | calls_of("@default") | {"execve"}


def numbers() -> dict[str, int]:
    """Return the numbers of system calls on this machine; empty without the kernel's headers."""
    file = next((path for path in HEADERS if path.exists()), None)
    found = re.findall(r"#define __NR_(\w+)\s+(\d+)", file.read_text()) if file is not None else []
    return {name: int(number) for name, number in found}


def cage(unit: str) -> None:
    """Put this process, and all that come from it, behind the unit's filter."""
    known, step = numbers(), struct.Struct("<HBBI").pack
    steps = [step(0x20, 0, 0, 0)]
    for name in sorted(allowed_by(unit) & known.keys()):
        steps += [step(0x15, 0, 1, known[name]), step(0x06, 0, 0, _ALLOW)]
    program = b"".join([*steps, step(0x06, 0, 0, _REFUSE)])

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

    libc, loaded = ctypes.CDLL(None, use_errno=True), Program(len(program) // 8, program)
    if "MemoryDenyWriteExecute=yes" in unit:
        libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0)  # a kernel before 6.3 does not know it
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(loaded)):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    cage(Path(sys.argv[1]).read_text())
    os.execvp(sys.argv[2], sys.argv[2:])
