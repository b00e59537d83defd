"""What the kernel allows: open files of the processes, and settings of the machine."""

import re
import resource
from dataclasses import dataclass
from pathlib import Path

from .machine import Machine, need_server_parts
from .verdicts import Verdict, bad, not_asked, ok, warning

OWN_FILES = 128
"""Of a worker: libraries, the event loop, the node, store, signer and other workers."""

FILES_BAD = 256
CLIENTS_MAX = 512
"""Connections of the signer, of the store (docs/LIMITS.md)."""

BACKLOG = 4096
"""Connections that come at once; what our doors ask the kernel for."""


def open_files(machine: Machine) -> list[Verdict]:
    """Judge this shell's bound, for a server that is started here, and that of the processes that run."""
    need_server_parts()
    from ..server.doors import direct, peer_port, sell  # a payer's installation has not what they need

    config = machine.server
    doors = [
        (direct, True),
        (direct, bool(config.direct_base_port)),
        (sell, config.sell.is_on),
        (peer_port, config.cluster is not None),
    ]
    need = OWN_FILES + sum(door.CONNECTIONS_MAX for door, is_on in doors if is_on)
    found = [judge_files("open files", "a process that is started from here", resource.getrlimit(resource.RLIMIT_NOFILE)[0], need)]
    for name, pid in machine.pids.items():
        if pid and (most := _files_of(pid)) is not None:
            found.append(judge_files(f"open files of the {name}", f"the {name} that runs", most, CLIENTS_MAX + OWN_FILES))
    return found


def _files_of(pid: int) -> int | None:
    try:
        match = re.search(r"(?m)^Max open files\s+(\d+)", Path(f"/proc/{pid}/limits").read_text())
    except OSError:
        return None
    return int(match[1]) if match else None


def judge_files(check: str, who: str, most: int, need: int) -> Verdict:
    """most: descriptors that a process may have; need: of one that has all connections that it takes."""
    text = f"{who} may have {most} open files"
    mend = f"LimitNOFILE={need} in its unit, or `ulimit -n {need}`"
    if 0 <= most < FILES_BAD:
        return bad(check, f"{text}, and needs {need} for all connections that it takes", mend)
    if 0 <= most < need:
        return warning(check, f"{text}, and needs {need} for all connections that it takes", mend)
    return ok(check, f"{text if most >= 0 else f'{who} may have any number of open files'}, and needs {need}")


@dataclass(frozen=True)
class Kernel:
    """None: the kernel does not tell."""

    somaxconn: int | None
    overcommit: int | None
    swap_kb: int | None


def ask() -> Kernel:
    try:
        swap = re.search(r"(?m)^SwapTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    except OSError:
        swap = None
    return Kernel(_number("net/core/somaxconn"), _number("vm/overcommit_memory"), int(swap[1]) if swap else None)


def _number(name: str) -> int | None:
    try:
        return int((Path("/proc/sys") / name).read_text())
    except (OSError, ValueError):
        return None


def kernel(_: Machine) -> list[Verdict]:
    return judge_kernel(ask())


def judge_kernel(kernel: Kernel) -> list[Verdict]:
    found = []
    if kernel.somaxconn is None:
        found.append(not_asked("somaxconn", "the kernel does not say"))
    elif kernel.somaxconn < BACKLOG:
        text = f"net.core.somaxconn is {kernel.somaxconn}: of connections that come at once, more than that are dropped"
        found.append(warning("somaxconn", text, f"sysctl -w net.core.somaxconn={BACKLOG}"))
    else:
        found.append(ok("somaxconn", f"net.core.somaxconn is {kernel.somaxconn}"))
    if kernel.overcommit == 2:
        text = "vm.overcommit_memory is 2: a process that forks may be refused memory that it never uses"
        found.append(warning("overcommit", text, "sysctl -w vm.overcommit_memory=0, or leave room (vm.overcommit_ratio)"))
    elif kernel.overcommit is not None:
        found.append(ok("overcommit", f"vm.overcommit_memory is {kernel.overcommit}"))
    if kernel.swap_kb:
        text = f"{kernel.swap_kb >> 10} MB of swap: the signer's key is locked in memory, payments in store and server are not"
        found.append(warning("swap", text, "encrypt it, or do without"))
    elif kernel.swap_kb == 0:
        found.append(ok("swap", "there is none"))
    return found
