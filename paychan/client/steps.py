"""What the core asks its driver to do, and how it repeats a request while the outcome is unknown. No I/O, no clock of its own.

An operation is a generator: it yields a step, and is sent that step's result. So the order of saving and sending stands once,
and the blocking and the asyncio face cannot differ in it.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from .errors import OutcomeUnknown, Unreachable
from .wire import NoReply, Reply

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """Send a request; the result is a Reply or NoReply. `timeout`: seconds."""

    method: str
    target: str
    timeout: float


@dataclass(frozen=True)
class Wait:
    """Wait; no result."""

    seconds: float


@dataclass(frozen=True)
class Save:
    """Make the state durable before anything else happens; no result."""

    content: bytes


Step = Send | Wait | Save
Steps = Generator[Step, Reply | NoReply | None, T]


@dataclass(frozen=True)
class RetryPolicy:
    """How long an unknown outcome is pursued. All in seconds.

    timeout: for one attempt. deadline: for all of them. Waits double from `wait_first` to `wait_max`, each shortened by up to
    half at random, so that payers of a server that comes back do not all return at once.
    """

    timeout: float = 10.0
    deadline: float = 30.0
    wait_first: float = 0.1
    wait_max: float = 5.0


@dataclass(frozen=True)
class Chances:
    """Time and randomness, as the driver has them: `clock` in seconds, `fraction` from 0 to 1."""

    clock: Callable[[], float]
    fraction: Callable[[], float]


_PASSING = frozenset((408, 425, 429))
"""Statuses below 500 after which the same request may succeed."""


def persist(method: str, target: str, server_url: str, policy: RetryPolicy, chances: Chances) -> Steps[tuple[Reply, bool]]:
    """Send one request, the same bytes each time, until it has a definite answer.

    server_url: what an error calls the server.
    Returns the answer, and whether the server may have seen the request before: then it may count it as a repetition.
    Raises OutcomeUnknown, or Unreachable if no attempt got as far as sending.
    """
    deadline = chances.clock() + policy.deadline
    wait, is_sent = policy.wait_first, False
    while True:
        timeout = max(min(policy.timeout, deadline - chances.clock()), 0.001)
        outcome = yield Send(method, target, timeout)
        if outcome is None:
            raise TypeError("the driver has sent no result for a Send")
        if isinstance(outcome, Reply) and outcome.status < 500 and outcome.status not in _PASSING:
            return outcome, is_sent
        is_sent = is_sent or isinstance(outcome, Reply) or outcome.is_sent
        pause = max(wait * (1 - chances.fraction() / 2), _retry_after(outcome, policy))
        if chances.clock() + pause >= deadline:
            why = f" answers {outcome.status}" if isinstance(outcome, Reply) else f": {outcome.reason}"
            raise (OutcomeUnknown if is_sent else Unreachable)(server_url + why)
        yield Wait(pause)
        wait = min(wait * 2, policy.wait_max)


def _retry_after(outcome: Reply | NoReply, policy: RetryPolicy) -> float:
    text = outcome.headers.get("retry-after", "") if isinstance(outcome, Reply) else ""
    return min(float(text), policy.wait_max) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
