"""Aim: a process that holds a key gives up dumps and privileges. Method: a subprocess that asks the kernel afterwards."""

import subprocess
import sys
from pathlib import Path

ASK = """
import ctypes, resource
from signer.hardening import forbid_dumps, lock_memory
forbid_dumps()
libc = ctypes.CDLL(None)
print(libc.prctl(3, 0, 0, 0, 0), libc.prctl(39, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
print(type(lock_memory()).__name__)
"""


def test_no_dumps_no_new_privileges_and_a_locked_memory_if_allowed():
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", ASK], cwd=root, capture_output=True, text=True, timeout=20, check=True
    )
    assert ended.stdout.split() == ["0", "1", "0", "0", "str"]  # PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS, core limits
