"""The sequencer: one line for commits and changes of ownership, and one group at a time that becomes durable.

Everything that arrives while a group is being written waits, in its socket or here, and forms the next one (group commit).
Changes of ownership stand in the same line: what was judged under an old epoch is durable before the new owner hears of
its epoch.

RocksDB writes on the event loop, not in a thread: rocksdict's `write` holds the interpreter's lock until the sync has
returned, so a thread would let nothing else run and cost 40 µs a group. PostgreSQL is awaited. With neither does a read see what is
not durable yet.
"""

import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from paychan._fast.group import StateCache
from paychan._fast.tally import NANOSECONDS_FROM, Tally
from paychan.metrics import families

from .ending import die as _die
from .engines.interface import Engine, Unread
from .group import Group, Reader
from .leases import NOT_HELD

log = logging.getLogger("paychan.store")

QUEUE_BYTES_MAX = 16 << 20
"""Of frames in one group: some 100 000 payments, a second or two of work. A worker has given up on more than that."""

NEVER = (1 << 64) - 1

Answer = Callable[[], None]
Job = Callable[[Group], Answer]
"""Is called with the group it belongs to, adds to it, and returns what to call once the group is durable."""

Step = Callable[[], Coroutine[Any, Any, None]]
"""Runs alone, while no group is judged or written."""


class Sequencer:
    """Runs jobs in the order of their arrival. `call_soon` is the event loop's: run this at the end of the turn."""

    def __init__(
        self,
        engine: Engine,
        shard_count: int,
        call_soon: Callable[[Callable[[], None]], object],
        on_stopped: Callable[[dict[int, str]], None] = lambda _: None,
        tally: Tally | None = None,
        threshold: int = NEVER,
    ) -> None:
        """on_stopped(shards): these have been stopped, each with the reason; what was durable before is.
        tally: where it is counted. threshold: satoshi received on a channel from where on it is told."""
        self._threshold = threshold
        self._tally = tally or Tally()
        self._on_stopped = on_stopped
        self._engine, self._shard_count, self._call_soon = engine, shard_count, call_soon
        self._epochs = engine.epochs(shard_count)
        self._cache = StateCache()
        self.unsettled = engine.unsettled()
        """What has been received on channels that are not settled, as of the last durable group."""
        self._open_spent = engine.open_spent()
        self._steps: list[Step] = []
        self._jobs: list[Job] = []
        self._commits: list[bytes] = []
        self._queued_bytes = 0
        self._is_writing = self._is_stepping = self._is_closed = False

    @property
    def is_idle(self) -> bool:
        """Whether everything that was added has been answered."""
        return not self._jobs and (self._is_stepping or not self._is_writing)

    def close(self) -> None:
        """The store ends, and nothing waits for an answer: what becomes of a step that is under way does not matter."""
        self._is_closed = True

    def has_room(self, size: int) -> bool:
        """Return whether a frame of `size` bytes may still be queued."""
        return self._queued_bytes + size <= QUEUE_BYTES_MAX

    def add(self, job: Job, size: int = 0, commit: bytes = b"") -> None:
        """Queue a job for the group that is written at the end of this turn, or after the one in flight. size: bytes that it holds
        in memory. commit: the payload of the COMMIT that it judges, if any."""
        if not self._jobs and not self._is_writing:
            self._call_soon(self.finish_group)
        self._jobs.append(job)
        self._queued_bytes += size
        if commit:
            self._commits.append(commit)

    def run_alone(self, step: Step) -> None:
        """Run a step when nothing is in flight, before the next group is judged. One that fails ends the process."""
        if not self._steps and not self._is_writing:
            self._call_soon(self.finish_group)
        self._steps.append(step)

    def hold(self, epochs: Mapping[int, int]) -> None:
        """Take leases in, which another store had, at these epochs. From a step only: what is cached of their shards is older than
        what that store wrote, and so is what a group under way has read."""
        self._cache.forget(lease for lease in epochs if lease < self._shard_count)
        for lease, epoch in epochs.items():
            self._epochs[lease] = epoch

    def let_go(self, leases: Iterable[int]) -> None:
        """Refuse all that comes for these leases as stale: another store has them. From a step only."""
        for lease in leases:
            self._epochs[lease] = NOT_HELD

    def finish_group(self) -> None:
        """Judge what waits, make it durable, answer it, unless a group is in flight: then it is the next one. Ends the process if
        that cannot be done."""
        if not self._is_writing:
            self._is_writing = True
            self._engine.run(self._write_group())

    async def _write_group(self) -> None:
        try:
            steps, self._steps = self._steps, []
            self._is_stepping = True
            for step in steps:
                await step()
            self._is_stepping = False
            jobs, commits, self._jobs, self._commits, self._queued_bytes = self._jobs, self._commits, [], [], 0
            began = time.monotonic_ns()
            group, answers, writes, stopped = await self._judge(jobs, commits)
            judged = time.monotonic_ns()
            if writes:
                await self._engine.put(writes)
                self._count(commits, judged - began, time.monotonic_ns() - judged)
            group.keep()
            if group.is_told:
                self._tally.add(families.EVENTS.at, len(group.events()))
            self.unsettled, self._open_spent = group.unsettled, group.open_spent
            stopped |= self._stopped()
            if stopped:
                self._on_stopped(stopped)
        except BaseException as error:
            if self._is_closed:
                return
            _die(error)
        self._is_writing = False
        if self._jobs or self._steps:
            self._call_soon(self.finish_group)
        for answer in answers:
            answer()

    def _count(self, commits: list[bytes], judging: int, writing: int) -> None:
        """Count a group that is durable. judging, writing: nanoseconds."""
        tally = self._tally
        tally.add(families.STORE_GROUPS.at)
        tally.add(families.STORE_FRAMES.at, len(commits))
        tally.add(families.STORE_BYTES.at, sum(map(len, commits)))
        tally.observe(families.STORE_JUDGE.at, NANOSECONDS_FROM, judging)
        tally.observe(families.STORE_SYNC.at, NANOSECONDS_FROM, writing)

    async def _judge(self, jobs: list[Job], commits: list[bytes]) -> tuple[Group, list[Answer], Any, dict[int, str]]:
        """Return a judged group, the answers to its jobs, what it writes, and the shards that were stopped on the way: if one
        was, the others' updates are judged again without it, as if nothing had been. So they are when more had to be read."""
        stopped: dict[int, str] = {}
        is_all_read = False
        reader = await self._engine.prepare(lambda: self._missing(commits, False))
        while True:
            group = self._new_group(reader)
            try:
                answers = [job(group) for job in jobs]
                writes = self._engine.take(group)
            except Unread:
                if is_all_read:
                    raise
                is_all_read = True
                reader = await self._engine.prepare(lambda: self._missing(commits, True))
            else:
                found = self._stopped()
                if not found:
                    return group, answers, writes, stopped
                stopped |= found
            group.undo()

    def _new_group(self, reader: Reader) -> Group:
        group = Group(reader, self._cache, self._epochs, self._shard_count, self.unsettled, self._open_spent)
        group.threshold = self._threshold
        return group

    def _missing(self, commits: list[bytes], is_all: bool) -> list[bytes]:
        """Return the channels that must be read before these COMMITs are judged. is_all: every one that they name."""
        missing: dict[bytes, None] = {}
        for payload in commits:
            self._cache.add_missing(missing, payload, is_all)
        return list(missing)

    def _stopped(self) -> dict[int, str]:
        found = self._cache.accounts.take_found()
        for shard, why in found.items():
            log.critical("shard %d is stopped: %s", shard, why)
            self._tally.add(families.STOPS.at)
        return found
