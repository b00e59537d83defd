"""The form of log lines that `paychan.logs` promises, for tests that read what our processes wrote to standard error."""

import re
from datetime import datetime, timedelta

from paychan.server.serving import WORKER_STOP_SECONDS_MAX

PROCESSES = "supervisor|signer|store|server|worker|node"
LINE = re.compile(
    rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) ({PROCESSES})\[\d+\] ([\w.]+): (\S.*)"
)


STOPPING, KILLING = "granian: Stopping old worker", "granian: Killing old worker"


def unquiet(text: str) -> list[str]:
    """Return the lines of a log that have another form, or a level that a system's ordinary life gives no reason for."""
    lines = text.splitlines()
    found = [line for line in lines if not (match := LINE.fullmatch(line)) or match[1] not in ("DEBUG", "INFO")]
    return [line for line in found if not _is_said_of_a_dead_worker(line, lines)] if text else ["nothing was logged"]


def _is_said_of_a_dead_worker(line: str, lines: list[str]) -> bool:
    """Whether granian says that it kills a worker which has ended: another thread of its was told first, and this one waits only a
    millisecond for that. It is said before the time is over in which a worker may stop."""
    if KILLING not in line:
        return False
    stopping = [other for other in lines[: lines.index(line)] if STOPPING in other][-1]
    return _time_of(line) - _time_of(stopping) < timedelta(seconds=WORKER_STOP_SECONDS_MAX)


def _time_of(line: str) -> datetime:
    return datetime.fromisoformat(line.split()[0])
