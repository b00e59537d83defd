"""The sequencer: one line for commits and changes of ownership, and one group at a time that becomes durable.

Everything that arrives while a group is being written waits in its socket and forms the next one (group commit).
Changes of ownership stand in the same line: what was judged under an old epoch is on disk before the new owner hears of
its epoch.

The write runs on the event loop, not in a thread: rocksdict's `write` holds the interpreter's lock until the sync has
returned, so a thread would let nothing else run and cost 40 µs a group. So, too, no read sees what is not durable yet.
"""

import logging
import os
from collections.abc import Callable
from typing import NoReturn

from paychan._fast.group import StateCache
from paychan.exits import EXIT_FAILED

from . import keys
from .engine import Engine
from .group import Group

log = logging.getLogger("paychan.store")

QUEUE_BYTES_MAX = 16 << 20
"""Of frames in one group: some 100 000 payments, a second or two of work. A worker has given up on more than that."""

Answer = Callable[[], None]
Job = Callable[[Group], Answer]
"""Is called with the group it belongs to, adds to it, and returns what to call once the group is durable."""


class Sequencer:
    """Runs jobs in the order of their arrival. `call_soon` is the event loop's: run this at the end of the turn."""

    def __init__(
        self,
        engine: Engine,
        shard_count: int,
        call_soon: Callable[[Callable[[], None]], object],
        on_stopped: Callable[[dict[int, str]], None] = lambda _: None,
    ) -> None:
        """on_stopped(shards): these have been stopped, each with the reason; what was durable before is."""
        self._on_stopped = on_stopped
        self._engine, self._shard_count, self._call_soon = engine, shard_count, call_soon
        self._epochs = engine.epochs(shard_count)
        self._cache = StateCache()
        self.unsettled = engine.unsettled()
        """What has been received on channels that are not settled, as of the last durable group."""
        self._open_spent = engine.open_spent()
        self._jobs: list[Job] = []
        self._queued_bytes = 0

    def has_room(self, size: int) -> bool:
        """Return whether a frame of `size` bytes may still be queued."""
        return self._queued_bytes + size <= QUEUE_BYTES_MAX

    def add(self, job: Job, size: int = 0) -> None:
        """Queue a job for the group that is written at the end of this turn. size: bytes that it holds in memory."""
        if not self._jobs:
            self._call_soon(self.finish_group)
        self._jobs.append(job)
        self._queued_bytes += size

    def finish_group(self) -> None:
        """Judge what waits, make it durable, answer it. Ends the process if that cannot be done."""
        jobs, self._jobs, self._queued_bytes = self._jobs, [], 0
        try:
            group, answers, writes, stopped = self._judge(jobs)
            unsettled = group.unsettled
            if unsettled != self.unsettled:
                writes[keys.UNSETTLED] = keys.encode_unsettled(unsettled)
            if group.open_spent != self._open_spent:
                writes[keys.OPEN_SPENT] = keys.encode_spent(group.open_spent)
            if writes:
                self._engine.commit(writes)
            group.keep()
            self.unsettled, self._open_spent = unsettled, group.open_spent
            stopped |= self._stopped()
            if stopped:
                self._on_stopped(stopped)
        except BaseException as error:
            _die(error)
        for answer in answers:
            answer()

    def _judge(self, jobs: list[Job]) -> tuple[Group, list[Answer], dict[bytes, bytes | None], dict[int, str]]:
        """Return a judged group, the answers to its jobs, what it writes, and the shards that were stopped on the way: if one
        was, the others' updates are judged again without it, as if nothing had been."""
        stopped: dict[int, str] = {}
        while True:
            group = Group(self._engine, self._cache, self._epochs, self._shard_count, self.unsettled, self._open_spent)
            answers = [job(group) for job in jobs]
            writes = group.writes
            found = self._stopped()
            if not found:
                return group, answers, writes, stopped
            stopped |= found
            group.undo()

    def _stopped(self) -> dict[int, str]:
        found = self._cache.accounts.take_found()
        for shard, why in found.items():
            log.critical("shard %d is stopped: %s", shard, why)
        return found


def _die(error: BaseException) -> NoReturn:
    """End the process at once: no handler, no flush and no answer may follow.

    There is no second attempt: after a failed sync the next one may return without the lost bytes, and would
    acknowledge them. An error before the write (a damaged block, a bug) leaves epochs in memory ahead of the disk; a
    restart heals that.
    """
    try:
        log.critical("a group could not be written, the store ends: %s: %s", type(error).__name__, error)
    finally:
        os._exit(EXIT_FAILED)
