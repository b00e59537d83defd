"""The form of log lines that `paychan.logs` promises, for tests that read what our processes wrote to standard error."""

import re

PROCESSES = "supervisor|signer|store|server|worker|node"
LINE = re.compile(
    rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) ({PROCESSES})\[\d+\] ([\w.]+): (\S.*)"
)


def unquiet(text: str) -> list[str]:
    """Return the lines of a log that have another form, or a level that a system's ordinary life gives no reason for."""
    found = [line for line in text.splitlines() if not (match := LINE.fullmatch(line)) or match[1] not in ("DEBUG", "INFO")]
    return found if text else ["nothing was logged"]
