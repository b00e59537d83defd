"""What keeps the signer's key out of swap, of core dumps, and of other programs: asked of the kernel, of the signer that runs."""

import re
import resource
from dataclasses import dataclass
from pathlib import Path

from .machine import Machine
from .verdicts import Verdict, bad, not_asked, ok, warning

LOCKED_KB_MIN = 64
"""For the pages that hold the key, and what reading it left."""


@dataclass(frozen=True)
class Signer:
    """The signer that runs, as /proc tells of it: kB of memory that are locked; the kind of system call filter (2: a filter);
    whether privileges can be gained."""

    locked_kb: int
    filter: int
    no_new_privileges: bool


def ask(pid: int) -> Signer:
    """Raises OSError, if the process is gone."""
    fields = dict(re.findall(r"(?m)^(\w+):\s+(\d+)", Path(f"/proc/{pid}/status").read_text()))
    return Signer(int(fields.get("VmLck", 0)), int(fields.get("Seccomp", 0)), fields.get("NoNewPrivs") == "1")


def signer(machine: Machine) -> list[Verdict]:
    found = [judge_limit(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0], required=machine.signer.hardening_required)]
    pid = machine.pids.get("signer", 0)
    return [*found, *(judge(ask(pid)) if pid else [not_asked("running", "no signer runs at a Unix socket of this configuration")])]


def judge_limit(most: int, *, required: bool) -> Verdict:
    """most: bytes that this shell's processes may lock, -1: any number. required: the signer does not start without."""
    if 0 <= most < LOCKED_KB_MIN << 10:
        verdict = bad if required else warning
        return verdict(
            "lock",
            f"a process that is started from here may lock {most} bytes",
            "LimitMEMLOCK=infinity in its unit, or `ulimit -l unlimited`",
        )
    return ok("lock", "the key's memory can be locked")


def judge(signer: Signer) -> list[Verdict]:
    mend = "see its line `hardened: ...` in the log: the kernel or the container refuses something"
    found = []
    if signer.locked_kb:
        found.append(ok("locked", f"the signer has {signer.locked_kb} kB of its memory locked"))
    else:
        found.append(warning("locked", "the signer that runs has no memory locked: its key may be swapped out", mend))
    if signer.filter == 2 and signer.no_new_privileges:
        found.append(ok("filter", "the signer that runs filters its system calls, and gains no privileges"))
    else:
        found.append(warning("filter", "the signer that runs does not filter its system calls", mend))
    return found
