"""The deliveries: each endpoint is told of the events after its cursor, one after the other; the next one when this one was taken.

An endpoint is a note in the store. Its cursor is moved there after deliveries, on condition that nobody else has changed the
note: so an event is told once or more, whoever dies when; two processes that deliver at once tell twice, and one of them then
begins anew from what the other wrote. Nothing here is waited for by anybody: an endpoint that hangs is behind, and that is all.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from .._fast.tally import Tally
from ..events.endpoint import PREFIX, Endpoint
from ..events.event import Event, Numbered, Type
from ..metrics import families
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.event_messages import NoteChange
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import MessageError
from ..server.background import Background
from ..settings.models import WebhooksConfig
from .posting import NotTaken, post
from .signature import fields
from .target import parse_target

LOOK_SECONDS = 0.5
"""Between two looks at endpoints and newest event: so long an event may take to be sent."""

RETRY_SECONDS_MAX = 3600.0
"""Between two attempts; the first comes a second after the failure, and each pause is twice the one before."""

PAGE = 100
"""Events read at once."""

SAVE_SECONDS = 0.5
"""A cursor is written so often at most; what was sent since is sent again after a crash."""

SHOWN_MAX = 100
"""Attempts of each endpoint that are remembered, in memory."""

KNOWN_MAX = 16
"""Notes of our own that are told from somebody else's: what is read of one may be so many writes old."""

GONE = 410
"""Tells, by Standard Webhooks, that the endpoint wants no more."""

log = logging.getLogger("paychan.webhooks")


@dataclass(frozen=True)
class Attempt:
    """status: of the answer, 0: there was none; why: empty if it was taken. at: unix seconds."""

    event: int
    at: int
    status: int
    why: str
    milliseconds: int


class Changed(Exception):
    """An endpoint's note is not what we wrote last: somebody else has changed it."""


def pause(attempts: int) -> float:
    """Return how many seconds to wait after so many attempts in vain."""
    return min(2.0 ** min(attempts - 1, 20), RETRY_SECONDS_MAX)


async def send(endpoint: Endpoint, event: Numbered, config: WebhooksConfig, at: int) -> Attempt:
    """Send an event once. at: unix seconds. Raises nothing that an endpoint could cause."""
    began, status = time.monotonic(), 0
    body = json.dumps(event.members(), separators=(",", ":")).encode()
    try:
        head = fields(endpoint.secret, f"evt_{event.number}", at, body)
        status = await post(parse_target(endpoint.url), head, body, config.allowed, config.answer_seconds)
        why = "" if 200 <= status < 300 else f"answered {status}"
    except (NotTaken, ValueError) as error:
        why = str(error)
    return Attempt(event.number, at, status, why, int((time.monotonic() - began) * 1000))


def remember(attempt: Attempt, attempts: "deque[Attempt]", tally: Tally) -> None:
    """Remember an attempt, and count it."""
    attempts.append(attempt)
    tally.add(families.DELIVERIES.cell("failed" if attempt.why else "taken"))


class Deliverer(Background):
    """All endpoints of one process. It delivers while the store says that this is where it is done."""

    def __init__(
        self, store: StoreClient, config: WebhooksConfig, tally: Tally | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._store, self._config, self._tally, self._now = store, config, tally or Tally(), now
        self._lines: dict[str, Line] = {}
        self._attempts: dict[str, deque[Attempt]] = {}
        self._removed: set[str] = set()
        """Endpoints that were removed here: a look that had begun before must not bring them back."""
        self.newest = 0

    async def stop(self) -> None:
        await super().stop()
        await self._keep({})

    async def forget(self, name: str) -> None:
        """An endpoint was removed: from now on this process sends nothing to it."""
        self._removed.add(name)
        self._attempts.pop(name, None)
        if (line := self._lines.pop(name, None)) is not None:
            await line.stop()

    async def tell_once(self, endpoint: Endpoint, event: Numbered) -> Attempt:
        """Send an endpoint one event, whatever it was told of and is to be told of; return what came of it."""
        attempt = await send(endpoint, event, self._config, int(self._now()))
        remember(attempt, self._attempts.setdefault(endpoint.name, deque(maxlen=SHOWN_MAX)), self._tally)
        return attempt

    def attempts(self, name: str) -> list[Attempt]:
        """Return an endpoint's latest attempts since this process began, the newest first."""
        return list(reversed(self._attempts.get(name, ())))

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except (ConnectionGone, RemoteRefusal, MessageError):
                await self._keep({})  # the store is away
            except Exception as error:
                log.error("internal error in the webhooks: %s", type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        stream = await self._store.events(self.newest, 1)
        self.newest = stream.newest
        removed = self._removed.copy()
        notes = await self._store.notes(PREFIX) if stream.is_ours else {}
        found: dict[str, tuple[Endpoint, bytes]] = {}
        for name, note in notes.items():
            try:
                endpoint = Endpoint.parse(note)
            except (ValueError, TypeError):
                log.error("the note %s is no endpoint", name)
                continue
            if endpoint.is_enabled and name not in self._removed:
                found[name] = endpoint, note
        self._removed -= removed  # what was read after that has none of them
        await self._keep(found)
        self._measure([endpoint for endpoint, _ in found.values()])

    async def _keep(self, found: dict[str, tuple[Endpoint, bytes]]) -> None:
        """Have a line for each enabled endpoint, and no other."""
        for name, line in list(self._lines.items()):
            if name not in found or line.is_done or found[name][1] not in line.written:
                del self._lines[name]
                await line.stop()
        for name, (endpoint, note) in found.items():
            if name not in self._lines:
                attempts = self._attempts.setdefault(name, deque(maxlen=SHOWN_MAX))
                self._lines[name] = Line(self._store, self._config, self._tally, self._now, endpoint, note, attempts)
                self._lines[name].start()
            self._lines[name].wake(self.newest)

    def _measure(self, endpoints: list[Endpoint]) -> None:
        now = int(self._now())
        waiting = [now - endpoint.failing_since_at for endpoint in endpoints if endpoint.failing_since_at]
        self._tally.set(families.UNDELIVERED.at, max(waiting, default=0))


class Line(Background):
    """What one endpoint is told. note: as the store has it. written: the notes that we know: any other one is somebody else's."""

    def __init__(
        self,
        store: StoreClient,
        config: WebhooksConfig,
        tally: Tally,
        now: Callable[[], float],
        endpoint: Endpoint,
        note: bytes,
        attempts: "deque[Attempt]",
    ) -> None:
        self._store, self._config, self._tally, self._now = store, config, tally, now
        self._endpoint, self._note, self._saved_at = endpoint, note, 0.0
        self._newest = asyncio.Event()
        self._goal = 0
        self.written: deque[bytes] = deque([note], maxlen=KNOWN_MAX)
        self.attempts, self.is_done = attempts, False

    def wake(self, newest: int) -> None:
        """There are events up to this number."""
        self._goal = max(self._goal, newest)
        if self._goal > self._endpoint.cursor:
            self._newest.set()

    async def _run(self) -> None:
        try:
            while self._endpoint.is_enabled:
                await self._newest.wait()
                self._newest.clear()
                await self._tell_all()
                await self._save()
        except Changed:
            pass  # begin anew from what is written
        except (ConnectionGone, RemoteRefusal, MessageError):
            pass  # the store is away: what was sent since the last save is sent again
        except Exception as error:
            log.error("internal error in a webhook: %s", type(error).__name__)
        finally:
            self.is_done = True

    async def _tell_all(self) -> None:
        while self._endpoint.is_enabled:
            stream = await self._store.events(self._endpoint.cursor, PAGE)
            for number, body in stream.events:
                event = Event.parse(body)
                if self._endpoint.wants(event.type):
                    await self._tell(Numbered(number, event))
                if self._is_given_up():
                    return
                self._endpoint = replace(self._endpoint, cursor=number)
                if self._now() - self._saved_at > SAVE_SECONDS:
                    await self._save()
            if len(stream.events) < PAGE:
                return

    def _is_given_up(self) -> bool:
        return not self._endpoint.is_enabled

    async def _tell(self, event: Numbered) -> None:
        """Send one event until it is taken, or the endpoint is given up."""
        while not await self._try(event):
            if self._is_given_up():
                return
            await asyncio.sleep(pause(self._endpoint.attempts))
        if self._endpoint.failing_since_at:
            log.info("endpoint %s takes deliveries again", self._endpoint.id)
            self._endpoint = replace(self._endpoint, failing_since_at=0, attempts=0, why="")

    async def _try(self, event: Numbered) -> bool:
        endpoint = self._endpoint
        attempt = await send(endpoint, event, self._config, int(self._now()))
        remember(attempt, self.attempts, self._tally)
        at, status, why = attempt.at, attempt.status, attempt.why
        if not why:
            return True
        since = endpoint.failing_since_at or at
        self._endpoint = replace(
            endpoint, cursor=event.number - 1, failing_since_at=since, attempts=endpoint.attempts + 1, tried_at=at, why=why[:200]
        )
        if not endpoint.failing_since_at:
            log.warning("endpoint %s does not take event %d: %s; it is tried again", endpoint.id, event.number, why)
        if status == GONE or at - since >= self._config.give_up_seconds:
            await self._disable(at)
        else:
            await self._save()
        return False

    async def _disable(self, at: int) -> None:
        endpoint = self._endpoint = replace(self._endpoint, is_enabled=False)
        data = {"webhook": endpoint.id, "failing_since_at": endpoint.failing_since_at, "why": endpoint.why}
        log.error("endpoint %s is disabled: %s, since %d", endpoint.id, endpoint.why, endpoint.failing_since_at)
        self._tally.add(families.DELIVERIES.cell("disabled"))
        await self._save([Event(Type.WEBHOOK_DISABLED, data, at=at)])

    async def _save(self, events: list[Event] | None = None) -> None:
        """Write how far the endpoint is. Raises Changed if somebody else has written it."""
        note = self._endpoint.encode()
        if note == self._note:
            return
        self.written.append(note)  # before it is written: who looks meanwhile must know it
        is_done, _ = await self._store.note(NoteChange(self._endpoint.name, self._note, note, events or []))
        if not is_done:
            raise Changed
        self._note, self._saved_at = note, self._now()
