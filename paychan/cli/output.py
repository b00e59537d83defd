"""What a command prints, and its exit status. One JSON object with `--json`, else `name: value` lines; errors go to stderr.

Exit statuses (stable): see EXIT_TEXT, which `paychan pay --help` shows too.
"""

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from ..client import (
    ChannelBusy,
    ChannelClosed,
    ChannelClosing,
    ClientError,
    OutcomeUnknown,
    ServerMisbehaved,
    StateBehindServer,
    StateError,
    Unreachable,
)
from ..pay.errors import BudgetExceeded, FundingNeeded, NotYetConfirmed, PurseBusy
from ..printing import say, show

EXIT_OK, EXIT_REFUSED, EXIT_USAGE, EXIT_UNKNOWN, EXIT_UNREACHABLE = 0, 1, 2, 3, 4
EXIT_CLOSED, EXIT_MISBEHAVED, EXIT_BEHIND, EXIT_BUSY, EXIT_STATE = 5, 6, 7, 8, 9
EXIT_UNFUNDED, EXIT_ABOVE_BUDGET, EXIT_STATUS = 11, 12, 13

EXIT_TEXT = """exit statuses:
  0 done
  1 refused, by the server or by a rule here; repeating it changes nothing
  2 wrong usage
  3 outcome unknown: the payment is kept, and sent again before any other; run the command `status NAME --resend`
  4 unreachable: this run sent nothing; a signed payment is kept, and sent first next time
  5 the channel is closing or closed
  6 the server broke the protocol; nothing more is signed on this channel
  7 the server holds a newer payment: this state file is an old copy
  8 another process uses this channel
  9 the state file or key file is missing, damaged or cannot be written
  10 done, but the result could not be written to standard output
  11 a new channel waits for its money, or for its confirmations: the same command works then
  12 the budget does not allow it; nothing was paid
  13 the server answers with an HTTP status of 400 or more"""

_STATUSES: tuple[tuple[type[ClientError], int], ...] = (
    (FundingNeeded, EXIT_UNFUNDED),
    (NotYetConfirmed, EXIT_UNFUNDED),
    (BudgetExceeded, EXIT_ABOVE_BUDGET),
    (PurseBusy, EXIT_BUSY),
    (Unreachable, EXIT_UNREACHABLE),
    (OutcomeUnknown, EXIT_UNKNOWN),
    (ChannelClosing, EXIT_CLOSED),
    (ChannelClosed, EXIT_CLOSED),
    (ServerMisbehaved, EXIT_MISBEHAVED),
    (StateBehindServer, EXIT_BEHIND),
    (ChannelBusy, EXIT_BUSY),
    (StateError, EXIT_STATE),
)


class UsageError(Exception):
    """Arguments that make no sense; `str()` is one line."""


class StatusError(Exception):
    """The server's last word was an HTTP status of 400 or more; `str()` is one line."""


class CommandError(Exception):
    """An operator's command that could not do what it was asked for; `str()` is one line."""


def exit_status(error: Exception) -> int:
    """Return the exit status that stands for `error`."""
    if isinstance(error, UsageError):
        return EXIT_USAGE
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), EXIT_REFUSED)


def utc(seconds: int) -> str:
    """Return unix seconds as people write them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def print_result(arguments: argparse.Namespace, result: dict[str, Any], extra: str = "") -> None:
    """Print what a command found. `extra`: text for people only."""
    if arguments.json:
        show(json.dumps(result))
        return
    lines = []
    for name, value in result.items():
        if isinstance(value, list):
            lines += ["  ".join(str(part) for part in item.values()) for item in value]
        elif value not in (None, "", False):
            lines.append(f"{name.replace('_', ' ')}: {value}")
    if extra:
        lines.append(extra)
    if lines:
        show("\n".join(lines))


def print_error(arguments: argparse.Namespace, code: str, detail: str, status: int) -> int:
    """Print an error in one line; return `status`. code: empty where the line names a file and key, or says all."""
    as_json = {"code": code or {2: "config"}.get(status, "refused"), "detail": detail, "exit_status": status}
    say(json.dumps(as_json) if arguments.json else f"paychan: {detail}{f' ({code})' if code else ''}")
    return status


def progress(arguments: argparse.Namespace, text: str) -> None:
    """Tell people what is being waited for."""
    if not arguments.json:
        say(text)
