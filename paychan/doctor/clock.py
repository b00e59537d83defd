"""Time: the wall clock against the chain, against the time that was kept, and against a clock that nobody sets."""

import ctypes
import time
from dataclasses import dataclass

from ..clock import Clock
from ..server.settlement.highwater import read_highest
from . import node
from .machine import Machine
from .verdicts import NotAsked, Verdict, bad, not_asked, ok, warning

MEASURED_SECONDS = 0.25
STEP_SECONDS_MAX = 0.05
"""By so much the wall clock may run apart from the monotonic one while it is looked at: more is a clock that is being set."""

TIME_ERROR = 5
_TIMEX_BYTES = 512
"""More than any kernel's struct timex; its first field, the modes, stays 0: nothing is set."""


@dataclass(frozen=True)
class Pace:
    """step: seconds by which the wall clock ran apart. is_kept: whether something keeps it right, if the kernel tells."""

    step: float
    is_kept: bool | None


def ask() -> Pace:
    """Watch both clocks for a moment."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(MEASURED_SECONDS)
    step = (time.time() - wall) - (time.monotonic() - steady)
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return Pace(step, None if state < 0 else state != TIME_ERROR)


def pace(_: Machine) -> list[Verdict]:
    return judge_pace(ask())


def judge_pace(pace: Pace) -> list[Verdict]:
    found = []
    if abs(pace.step) > STEP_SECONDS_MAX:
        found.append(
            warning("pace", f"the wall clock was set by {pace.step:.2f} s while we looked", "see what sets it (timedatectl)")
        )
    else:
        found.append(ok("pace", "the wall clock and the monotonic clock run alike"))
    if pace.is_kept is None:
        found.append(not_asked("kept", "the kernel does not say"))
    elif pace.is_kept:
        found.append(ok("kept", "something keeps the clock right"))
    else:
        found.append(
            warning(
                "kept",
                "the kernel knows nothing that keeps the clock right",
                "run chrony or systemd-timesyncd, unless the host does",
            )
        )
    return found


def chain(machine: Machine) -> list[Verdict]:
    """Hold the wall clock, and the time that was kept, against the best block, as the server does."""
    config = machine.server
    if config.common.debug:
        raise NotAsked("in debug mode clocks start where they are told")
    file = config.common.state_dir / "clock"
    clock = Clock(lambda: int(time.time()), read_highest(file), config.chain.tip_age_max)
    found = []
    if ahead := clock.kept_ahead():
        mend = f"if the wall clock is right: stop the server, remove {file}, start again"
        found.append(warning("kept time", f"{file} is {ahead} seconds ahead of the wall clock", mend))
    else:
        found.append(ok("kept time", "the time of earlier runs is not ahead of the wall clock"))
    answer = node.ask(config)
    if answer.tip is None:
        return [*found, not_asked("chain", "the source of the chain tells no best block")]
    clock.observe(answer.tip.time, answer.tip.median_time_past)
    return [*found, judge_chain(clock.doubt(), answer.tip.median_time_past - int(time.time()))]


def judge_chain(doubt: str, behind: int) -> Verdict:
    """doubt: of the server's clock. behind: seconds by which the wall clock is behind what the chain has certainly reached."""
    if doubt:
        return bad("chain", doubt, "see the clock (timedatectl) and the node; nothing opens or settles by such a time")
    if behind > 0:
        return bad("chain", f"the wall clock is {behind} seconds behind the chain's median time", "set the clock (timedatectl)")
    return ok("chain", "the wall clock and the chain agree")
