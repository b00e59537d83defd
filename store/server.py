"""The store's door: frames from workers and observers, turned into jobs for the sequencer and reads from the engine."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from paychan._fast.tally import Tally
from paychan.core.errors import ConfigError
from paychan.events.event import Event, Type
from paychan.metrics import families
from paychan.notify import Manager
from paychan.rpc.connection import FrameConnection, listen
from paychan.rpc.event_messages import (
    NoteChange,
    Stream,
    check_prefix,
    decode_after,
    encode_note_reply,
    encode_notes,
    encode_stream,
)
from paychan.rpc.store_messages import (
    PAYLOAD_MAX,
    RECEIVED_MAX,
    SETTLED_MAX,
    Hello,
    Lease,
    MessageError,
    OwnerTable,
    Scan,
    StoreMessage,
    Welcome,
    check_commit,
    check_funding,
    check_txid,
    decode_highest,
    decode_load,
    encode_found,
    encode_heartbeat_reply,
    encode_highest,
    encode_load_reply,
    encode_received,
    encode_settled,
)
from paychan.rpc.stores_messages import Life, StoreSeen, StoresSeen, encode_stores
from paychan.settings.models import StoreConfig
from paychan.settings.steering import FREEZE_NOTE

from .elsewhere import NOWHERE, Elsewhere
from .engines.interface import Engine, Kept, Reads
from .group import Group
from .identity import Identity
from .leases import NOBODY, Leases
from .retention import Retention
from .sequencer import NEVER, Answer, Sequencer, Step

log = logging.getLogger("paychan.store")
T = TypeVar("T")

UNSENT_BYTES_MAX = 16 << 20  # of answers that a client does not take; it is stuck, and would eat our memory
SESSIONS_MAX = 512  # two for each worker of the largest server on a reload, and observers; on TCP any local process may connect
REFUSAL_LINGER_S = 0.2  # between a refusal and the close, so that the text arrives
STOP_LOOK_S = 0.005  # between two looks whether the last group is durable
CHECKS_PER_LEASE = 4  # how often silence is looked for
OBSERVER = 0  # the worker number of those that own nothing


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _or_nothing(found: bytes | None) -> bytes:
    return found or b""


@dataclass(slots=True)
class Session:
    """One connection. `worker`: None before HELLO, OBSERVER, or the worker's number. `refused`: about to be closed."""

    connection: FrameConnection
    opened_ms: int
    worker: int | None = None
    refused: bool = False


class Refusal(Exception):
    """A client that must go; the text tells it why."""


class StoreServer:
    """All connections of one store process. Made on a running event loop."""

    def __init__(
        self,
        config: StoreConfig,
        identity: Identity,
        engine: Engine,
        number: int = 0,
        tally: Tally | None = None,
        manager: Manager | None = None,
    ) -> None:
        """number: this store's among several, 0 where it is the only one. manager: is told that it serves, and that it lives."""
        self._tally, self._manager = tally or Tally(), manager or Manager({})
        self._config, self._identity, self._engine = config, identity, engine
        call_soon = asyncio.get_running_loop().call_soon
        threshold = NEVER if config.events.channel_value is None else config.events.channel_value
        self._sequencer = Sequencer(engine, identity.shard_count, call_soon, self._on_stopped, self._tally, threshold)
        self._leases = Leases(identity.shard_count, engine.epochs(identity.shard_count), number)
        self._own, self._elsewhere, self._version = self._leases.table(), NOWHERE, 0
        self._is_only, self._seen, self._looked_ms = not number, list[StoreSeen](), _now_ms()
        self._freeze = b""
        self._sessions: dict[FrameConnection, Session] = {}
        self._stopping = False
        self._handlers: dict[int, Callable[[Session, int, bytes], None]] = {
            StoreMessage.HELLO: self._hello,
            StoreMessage.COMMIT: self._commit,
            StoreMessage.LOAD: self._load,
            StoreMessage.SCAN_EXPIRING: self._scan_expiring,
            StoreMessage.SCAN_UNFINISHED: self._scan_unfinished,
            StoreMessage.SCAN_RECEIVED: self._scan_received,
            StoreMessage.HEARTBEAT: self._heartbeat,
            StoreMessage.KEEP_FUNDING: self._keep_funding,
            StoreMessage.LOAD_FUNDING: self._load_funding,
            StoreMessage.HIGHEST: self._highest,
            StoreMessage.SCAN_SETTLED: self._scan_settled,
            StoreMessage.EVENTS: self._events,
            StoreMessage.NOTE: self._note,
            StoreMessage.NOTES: self._notes,
            StoreMessage.STORES: self._stores,
        }
        self._retention = Retention(engine, self.run_alone, self._is_telling, config.events)

    async def run(self, stop: asyncio.Event, leave: Callable[[], Awaitable[None]] | None = None) -> None:
        """Serve until `stop` is set, then `leave()`, and finish the group in flight. Raises ConfigError if the address is no
        good."""
        config = self._config
        try:
            listener = await listen(config.address, self._make_connection)
        except OSError as error:
            raise ConfigError(f"{config.common.source}: store.address: {config.address}: {error.strerror}") from error
        log.info("store %s of network %s ready at %s", self._identity.store_id.hex(), self._identity.network, config.address)
        self._manager.ready(f"serves at {config.address}")
        tasks = [asyncio.create_task(self._watch_silence()), asyncio.create_task(self._prove_life())]
        tasks += [asyncio.create_task(self._retention.run()), asyncio.create_task(self._follow_freeze())]
        await stop.wait()
        self._manager.stopping()
        if leave is not None:
            await leave()
        self._stopping = True
        for task in tasks:
            task.cancel()
        listener.close()
        self._sequencer.finish_group()
        while not self._sequencer.is_idle:
            await asyncio.sleep(STOP_LOOK_S)
        self._sequencer.close()
        await asyncio.sleep(0)  # uvloop sends at the end of a turn: the last answers leave here
        for connection in list(self._sessions):
            connection.close()

    async def _follow_freeze(self) -> None:
        """Know whether openings are frozen everywhere: the store of any machine may have taken the note. A look that fails changes
        nothing; who opens a channel asks for himself."""

        async def look(looked: asyncio.Event) -> None:
            try:
                self._freeze = (await self._engine.answer(lambda reads: reads.notes(FREEZE_NOTE))).get(FREEZE_NOTE, b"")
            except Exception as error:
                log.error("a read failed: %s: %s", type(error).__name__, error)
            looked.set()

        while True:
            looked = asyncio.Event()
            self._engine.run(look(looked))  # a read is never cancelled
            await looked.wait()
            await asyncio.sleep(self._config.lease_ms / CHECKS_PER_LEASE / 1000)

    async def _prove_life(self) -> None:
        """Feed the watchdog each time that a job has gone through the line of groups: all that stood before it is durable."""
        while seconds := self._manager.beat_seconds:
            passed = asyncio.Event()
            self._sequencer.add(lambda _, passed=passed: passed.set)  # type: ignore[misc]  # a default binds it
            await passed.wait()
            self._manager.alive()
            await asyncio.sleep(seconds)

    # connections

    def _make_connection(self) -> FrameConnection:
        return FrameConnection(PAYLOAD_MAX, self._on_frame, self._on_close, self._on_open)

    def _on_open(self, connection: FrameConnection) -> None:
        if connection.peer_uid() not in (None, 0, os.geteuid(), self._config.common.users.server):
            log.warning("a process of another user was turned away")
            connection.close()
        elif len(self._sessions) >= SESSIONS_MAX:
            log.warning("a connection was turned away: there are %d", len(self._sessions))
            connection.close()
        self._sessions[connection] = Session(connection, _now_ms())

    def _on_close(self, connection: FrameConnection) -> None:
        session = self._sessions.pop(connection)
        if session.worker and not self._stopping:
            self._leases.leave(session.worker)
            log.info("worker %d left", session.worker)
            self._change_owners()

    def _on_frame(self, connection: FrameConnection, kind: int, request_id: int, payload: bytes) -> None:
        session = self._sessions[connection]
        if self._stopping or session.refused or not connection.is_open:
            return
        if session.worker:
            self._leases.saw(session.worker, _now_ms())
        try:
            handler = self._handlers.get(kind)
            if handler is None:
                raise Refusal(f"frame type {kind} is unknown")
            if session.worker is None and kind != StoreMessage.HELLO:
                raise Refusal("HELLO comes first")
            handler(session, request_id, payload)
        except (Refusal, MessageError) as error:
            self._turn_away(session, request_id, str(error))

    def _turn_away(self, session: Session, request_id: int, why: str) -> None:
        log.warning("a client was refused: %s", why)
        session.refused = True
        session.connection.refuse(request_id, why.encode())
        asyncio.get_running_loop().call_later(REFUSAL_LINGER_S, session.connection.close)

    async def _watch_silence(self) -> None:
        """Close the connections of workers whose lease has run out, and of those that never say who they are."""
        lease_ms = self._config.lease_ms
        before = _now_ms()
        while True:
            await asyncio.sleep(lease_ms / CHECKS_PER_LEASE / 1000)
            now = _now_ms()
            if now - before > lease_ms // 2:
                self._leases.forgive_silence(now)
            before = now
            silent = set(self._leases.silent(now, lease_ms))
            for session in list(self._sessions.values()):
                nameless = session.worker is None and now - session.opened_ms > lease_ms
                if nameless or session.worker in silent:
                    log.warning("a silent connection is closed (worker %s)", session.worker)
                    session.connection.close()

    # frames

    def _hello(self, session: Session, request_id: int, payload: bytes) -> None:
        hello, identity = Hello.decode(payload), self._identity
        if session.worker is not None:
            raise Refusal("HELLO comes once")
        if hello.network != identity.network:
            raise Refusal(f"this store is of network {identity.network}")
        if hello.server_pubkey != identity.server_pubkey:
            raise Refusal("this store belongs to another server key")
        is_worker = hello.peer_address != ""
        session.worker = self._leases.join(hello.peer_address, _now_ms()) if is_worker else OBSERVER
        welcome = Welcome(session.worker, identity.shard_count, self._config.lease_ms)
        session.connection.reply(StoreMessage.HELLO, request_id, welcome.encode())
        if is_worker:
            log.info("worker %d joined", session.worker)
            self._change_owners()

    def _change_owners(self) -> None:
        """Share the leases out anew; the table goes to all workers once the new epochs are durable."""
        raised, own = self._leases.rebalance(), self._leases.table()

        def job(group: Group) -> Answer:
            group.raise_epochs(self._leases.still(raised))
            group.owners = own.encode()
            self._tally.add(families.EPOCHS.at, len(raised))
            return lambda: self._publish(own)

        self._sequencer.add(job)

    def _on_stopped(self, shards: dict[int, str]) -> None:
        """Tell all workers, in the table that they have: a newer one may be waiting for its epochs to be durable."""
        self._leases.stop(shards)
        events = [Event(Type.SHARD_STOPPED, {"shard": shard, "why": why}) for shard, why in shards.items()]
        self.run_alone(lambda: self._engine.tell_of(events))
        self._tally.add(families.EVENTS.at, len(events))
        self._publish(replace(self._own, stopped=self._own.stopped | shards))

    def _publish(self, own: OwnerTable) -> None:
        """Send all workers the owners of all leases. own: those of ours, all of whose epochs are durable."""
        self._own, self._version = own, self._version + 1
        owners = self._elsewhere.joined(own, self._version).encode()
        for session in self._sessions.values():
            if session.worker:
                session.connection.send(StoreMessage.OWNERS, 0, owners)

    # what several stores do with each other (engines/postgres/sharing.py); called from steps

    def run_alone(self, step: Step) -> None:
        """See `Sequencer`."""
        self._sequencer.run_alone(step)

    def kinds(self) -> tuple[range, range]:
        """See `Leases`."""
        return self._leases.kinds()

    def holds(self, lease: int) -> bool:
        """Return whether a lease is this store's."""
        return self._leases.holds(lease)

    def in_turns(self) -> list[int]:
        """See `Leases`."""
        return self._leases.in_turns()

    def hold(self, epochs: Mapping[int, int]) -> None:
        """Take leases in from another store, at these epochs, and give them to workers."""
        self._sequencer.hold(epochs)
        self._leases.hold(epochs)
        self._change_owners()

    def let_go(self, leases: Iterable[int]) -> None:
        """Leases were given to another store: refuse what comes for them from now on."""
        gone = set(leases)
        self._sequencer.let_go(gone)
        self._leases.let_go(gone)
        owners = [(NOBODY, 0) if lease in gone else owner for lease, owner in enumerate(self._own.owners)]
        self._own = replace(self._own, owners=owners)

    def hear(self, elsewhere: Elsewhere) -> None:
        """Note what the other stores have."""
        is_news = replace(elsewhere, unsettled=self._elsewhere.unsettled) != self._elsewhere
        self._elsewhere = elsewhere
        if is_news:
            self._publish(self._own)

    def saw(self, stores: list[StoreSeen]) -> None:
        """Note all stores as a look has found them, for who operates."""
        self._seen, self._looked_ms = stores, _now_ms()

    def _stores(self, session: Session, request_id: int, _: bytes) -> None:
        """Tell of all stores: as the last look found them, or of this one alone, as it is now."""
        age_ms, stores = (0, [self._itself()]) if self._is_only else (_now_ms() - self._looked_ms, self._seen)
        answer = encode_stores(StoresSeen(age_ms, self._identity.shard_count, stores))
        session.connection.reply(StoreMessage.STORES, request_id, answer)

    def _itself(self) -> StoreSeen:
        unsettled, owners = self._sequencer.unsettled, {lease: worker for lease, (worker, _) in enumerate(self._own.owners)}
        return StoreSeen("", 0, True, Life.ALIVE, 0, 0, 0, unsettled.open, unsettled.begun, self._own.workers, owners)

    def _commit(self, session: Session, request_id: int, payload: bytes) -> None:
        check_commit(payload)
        self._write(session, StoreMessage.COMMIT, request_id, payload, lambda group: group.judge(payload), payload)

    def _keep_funding(self, session: Session, request_id: int, payload: bytes) -> None:
        transaction = check_funding(payload)
        self._write(session, StoreMessage.KEEP_FUNDING, request_id, payload, lambda group: group.keep_funding(transaction))

    def _write(
        self,
        session: Session,
        kind: StoreMessage,
        request_id: int,
        payload: bytes,
        write: Callable[[Group], bytes | None],
        commit: bytes = b"",
    ) -> None:
        """Queue a frame's writes for the next group; its answer, what `write` returns, goes out once they are durable. commit: as
        for `Sequencer.add`."""
        if session.worker == OBSERVER:
            raise Refusal("an observer writes nothing")
        connection = session.connection
        if not self._sequencer.has_room(len(payload)):
            connection.refuse(request_id, b"too many updates wait")
            return

        def job(group: Group) -> Answer:
            answer = write(group) or b""
            return lambda: connection.reply(kind, request_id, answer)

        self._sequencer.add(job, len(payload), commit)

    def _load_funding(self, session: Session, request_id: int, payload: bytes) -> None:
        txid = check_txid(payload)
        self._read(session, StoreMessage.LOAD_FUNDING, request_id, lambda reads: reads.funding(txid), _or_nothing)

    def _load(self, session: Session, request_id: int, payload: bytes) -> None:
        outpoints = decode_load(payload)
        self._read(session, StoreMessage.LOAD, request_id, lambda reads: reads.load(outpoints), encode_load_reply)

    def _scan_expiring(self, session: Session, request_id: int, payload: bytes) -> None:
        ask = Scan.decode(payload)
        self._read(
            session,
            StoreMessage.SCAN_EXPIRING,
            request_id,
            lambda reads: reads.scan_expiring(ask.before, ask.after_number, ask.after, ask.limit),
            encode_found,
        )

    def _scan_unfinished(self, session: Session, request_id: int, payload: bytes) -> None:
        ask = Scan.decode(payload)
        self._read(
            session,
            StoreMessage.SCAN_UNFINISHED,
            request_id,
            lambda reads: reads.scan_unfinished(ask.after, ask.limit),
            encode_found,
        )

    def _scan_received(self, session: Session, request_id: int, payload: bytes) -> None:
        ask = Scan.decode(payload, RECEIVED_MAX)
        self._read(
            session,
            StoreMessage.SCAN_RECEIVED,
            request_id,
            lambda reads: reads.scan_received(ask.before, ask.after_number, ask.after, ask.limit),
            encode_received,
        )

    def _scan_settled(self, session: Session, request_id: int, payload: bytes) -> None:
        ask = Scan.decode(payload, SETTLED_MAX)
        self._read(
            session,
            StoreMessage.SCAN_SETTLED,
            request_id,
            lambda reads: reads.scan_settled(ask.after_number, ask.after, ask.limit),
            encode_settled,
        )

    def _highest(self, session: Session, request_id: int, payload: bytes) -> None:
        seconds = decode_highest(payload)
        self._read(session, StoreMessage.HIGHEST, request_id, lambda reads: reads.highest(seconds), encode_highest)

    def _is_telling(self) -> bool:
        """Whether this store is the one, of all that are active, beside which events are delivered and removed."""
        return self.holds(self._identity.shard_count + Lease.SETTLER)

    def _events(self, session: Session, request_id: int, payload: bytes) -> None:
        after, limit = decode_after(payload)

        def encode(kept: Kept) -> bytes:
            return encode_stream(Stream(kept.oldest, kept.newest, self._is_telling(), kept.events))

        self._read(session, StoreMessage.EVENTS, request_id, lambda reads: reads.stream(after, limit), encode)

    def _notes(self, session: Session, request_id: int, payload: bytes) -> None:
        prefix = check_prefix(payload)
        self._read(session, StoreMessage.NOTES, request_id, lambda reads: reads.notes(prefix), encode_notes)

    def _note(self, session: Session, request_id: int, payload: bytes) -> None:
        """Replace a note. Also for observers: no money hangs on one."""
        change = NoteChange.decode(payload)

        async def step() -> None:
            is_done, now = await self._engine.note(change.name, change.expected, change.value, change.events)
            self._tally.add(families.EVENTS.at, len(change.events) if is_done else 0)
            if change.name == FREEZE_NOTE:
                self._freeze = now or b""
            session.connection.reply(StoreMessage.NOTE, request_id, encode_note_reply(is_done, now))

        self.run_alone(step)

    def _read(
        self, session: Session, kind: StoreMessage, request_id: int, ask: Callable[[Reads], T], encode: Callable[[T], bytes]
    ) -> None:
        """Answer a read. A failing one (a damaged block) is refused alone: other channels can still be served."""
        connection = session.connection
        if connection.unsent_bytes > UNSENT_BYTES_MAX:
            raise Refusal("answers are not taken")

        async def read() -> None:
            try:
                answer = encode(await self._engine.answer(ask))
            except Exception as error:
                log.error("a read failed: %s: %s", type(error).__name__, error)
                connection.refuse(request_id, b"the store cannot read this")
                return
            connection.reply(kind, request_id, answer)

        self._engine.run(read())

    def _heartbeat(self, session: Session, request_id: int, _: bytes) -> None:
        total = self._elsewhere.total(self._sequencer.unsettled)
        session.connection.reply(StoreMessage.HEARTBEAT, request_id, encode_heartbeat_reply(total, self._freeze))
