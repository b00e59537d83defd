"""Aim: the store's door: who is let in, what each frame is answered with and when. Method: the real server, engine and leases on an
event loop; connections that keep what is sent to them.
"""

import asyncio
import os
import time

import pytest

from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.errors import ConfigError
from paychan.core.funding import STRIPPED_SIZE_MAX, txid_without_witness
from paychan.core.network import TEST
from paychan.core.payment import Payment
from paychan.core.sharding import shard_of
from paychan.rpc.connection import Address
from paychan.rpc.event_messages import NoteChange
from paychan.rpc.store_messages import (
    LEASE_COUNT,
    RECEIVED_MAX,
    Entry,
    EntryStatus,
    Hello,
    OwnerTable,
    Scan,
    StoreMessage,
    Welcome,
    decode_found,
    decode_heartbeat_reply,
    decode_load_reply,
    decode_received,
    encode_commit,
    encode_load,
)
from paychan.rpc.stores_messages import Life, StoreSeen, StoresSeen, decode_stores
from paychan.settings.models import Common, StoreConfig
from paychan.settings.steering import FREEZE_NOTE
from store import keys
from store import server as server_module
from store.engines.rocksdb import RocksDB
from store.identity import Identity
from store.server import OBSERVER, REFUSAL_LINGER_S, UNSENT_BYTES_MAX, StoreServer
from tests.unit.doors import asynchronous, settle

SHARDS = 4
PUBKEY = b"\2" * 33
OUTPOINT = bytes(range(36))
SHARD = shard_of(OUTPOINT, SHARDS)
LEASE_MS = 200
OTHER_USERS = {1, 65533} - {os.geteuid()}


class Connection:
    """What a worker would see. `sent`: (kind, request id, payload) of each answer; refusals have the kind "refused"."""

    def __init__(self, server, uid=None):
        self._server, self._uid = server, uid
        self.sent, self.is_open, self.unsent_bytes = [], True, 0
        server._on_open(self)

    def peer_uid(self):
        return os.geteuid() if self._uid is None else self._uid

    def reply(self, kind, request_id, payload):
        self.sent.append((kind, request_id, payload))

    def refuse(self, request_id, text):
        self.sent.append(("refused", request_id, text))

    def send(self, kind, request_id, payload):
        self.sent.append((kind, request_id, payload))

    def close(self):
        if self.is_open:
            self.is_open = False
            asyncio.get_running_loop().call_soon(self._server._on_close, self)

    def ask(self, kind, payload=b"", request_id=7):
        self._server._on_frame(self, kind, request_id, payload)

    def hello(self, peer="unix:/worker", network="test", pubkey=PUBKEY):
        self.ask(StoreMessage.HELLO, Hello(network, pubkey, peer).encode())
        return self

    def taken(self, kind):
        """Take out and return the payloads of one kind that were sent."""
        found = [payload for sent, _, payload in self.sent if sent == kind]
        self.sent = [row for row in self.sent if row[0] != kind]
        return found

    def owners(self):
        return OwnerTable.decode(self.taken(StoreMessage.OWNERS)[-1])


class Rig:
    def __init__(self, tmp_path, number=0):
        self.engine = RocksDB(tmp_path / "db")
        common = Common("store.toml", TEST, tmp_path, False, None)
        config = StoreConfig(common, Address(path=str(tmp_path / "s")), SHARDS, LEASE_MS, PUBKEY, tmp_path / "signer.pub")
        self.server = StoreServer(config, Identity("test", PUBKEY, SHARDS, bytes(16)), self.engine, number)

    def connect(self, **who):
        return Connection(self.server, **who)


def opening(epoch=1, value=900):
    state = ChannelState(Phase.OPEN, Payment(value, b"s" * 70, 0x83)).serialize()
    terms = ChannelTerms(OUTPOINT, PUBKEY, b"\3" * 33, 600_000_000, 1000, b"").serialize()
    return Entry(SHARD, epoch, OUTPOINT, ABSENT, 1000, state, terms)


def commit(*entries):
    return encode_commit([entry.encode() for entry in entries])


# --- what who operates is told ---


@asynchronous
async def test_a_store_that_is_the_only_one_tells_of_itself_as_it_is_now(tmp_path):
    rig = Rig(tmp_path)
    worker, observer = rig.connect().hello(), rig.connect().hello(peer="")
    worker.ask(StoreMessage.COMMIT, commit(opening()))
    await settle()
    observer.ask(StoreMessage.STORES)
    (answer,) = observer.taken(StoreMessage.STORES)
    owners = dict.fromkeys(range(SHARDS + LEASE_COUNT), 1)
    itself = StoreSeen("", 0, True, Life.ALIVE, 0, 0, 0, 100, 0, {1: "unix:/worker"}, owners)
    assert decode_stores(answer) == StoresSeen(0, SHARDS, [itself])


@asynchronous
async def test_one_of_several_tells_of_all_as_it_saw_them_last_and_how_long_ago_that_was(tmp_path, monkeypatch):
    now_ms = 1000
    monkeypatch.setattr(server_module, "_now_ms", lambda: now_ms)
    rig = Rig(tmp_path, number=2)
    observer = rig.connect().hello(peer="")
    observer.ask(StoreMessage.STORES)
    assert decode_stores(observer.taken(StoreMessage.STORES)[0]).stores == [], "nothing was looked at yet"
    seen = [StoreSeen(name, number, number == 2, Life.ALIVE, 0, 1, 1, 0, 0, {}, {}) for number, name in ((1, "a"), (2, "b"))]
    rig.server.saw(seen)
    now_ms += 2500
    observer.ask(StoreMessage.STORES)
    assert decode_stores(observer.taken(StoreMessage.STORES)[0]) == StoresSeen(2500, SHARDS, seen)


@asynchronous
async def test_a_heartbeat_tells_of_a_freeze_that_this_store_has_taken_or_another_one(tmp_path):
    rig = Rig(tmp_path)
    worker, observer = rig.connect().hello(), rig.connect().hello(peer="")
    observer.ask(StoreMessage.NOTE, NoteChange(FREEZE_NOTE, None, b"frozen").encode())
    await settle()
    worker.ask(StoreMessage.HEARTBEAT)
    assert decode_heartbeat_reply(worker.taken(StoreMessage.HEARTBEAT)[0]) == ((0, 0), b"frozen")
    await rig.engine.note(FREEZE_NOTE, b"frozen", b"thawed", [])  # as through another machine's store
    following = asyncio.ensure_future(rig.server._follow_freeze())
    await settle()
    following.cancel()
    worker.ask(StoreMessage.HEARTBEAT)
    assert decode_heartbeat_reply(worker.taken(StoreMessage.HEARTBEAT)[0]) == ((0, 0), b"thawed")


# --- who is let in ---


@asynchronous
async def test_another_user_is_turned_away(tmp_path):
    rig = Rig(tmp_path)
    assert not any(rig.connect(uid=uid).is_open for uid in OTHER_USERS)
    assert all(rig.connect(uid=uid).is_open for uid in (0, os.geteuid()))


@asynchronous
async def test_a_worker_is_welcomed_and_told_what_it_owns_once_that_is_durable(tmp_path):
    rig = Rig(tmp_path)
    worker = rig.connect().hello()
    assert worker.sent == [(StoreMessage.HELLO, 7, Welcome(1, SHARDS, LEASE_MS).encode())]
    await settle()
    assert [request_id for kind, request_id, _ in worker.sent if kind == StoreMessage.OWNERS] == [0]
    assert worker.owners().owners == [(1, 1)] * (SHARDS + LEASE_COUNT)
    assert rig.engine.epochs(SHARDS) == [1] * (SHARDS + LEASE_COUNT)


@asynchronous
async def test_an_observer_owns_nothing_and_writes_nothing(tmp_path):
    rig = Rig(tmp_path)
    observer = rig.connect().hello(peer="")
    assert observer.sent == [(StoreMessage.HELLO, 7, Welcome(OBSERVER, SHARDS, LEASE_MS).encode())]
    worker = rig.connect().hello()
    await settle()
    assert worker.owners().workers == {1: "unix:/worker"}
    assert observer.taken(StoreMessage.OWNERS) == []
    for kind, payload in ((StoreMessage.COMMIT, commit()), (StoreMessage.KEEP_FUNDING, b"transaction")):
        observer = rig.connect().hello(peer="")
        observer.ask(kind, payload)
        assert observer.sent[-1] == ("refused", 7, b"an observer writes nothing")


@pytest.mark.parametrize(
    ("kind", "payload", "why"),
    [
        (StoreMessage.HELLO, Hello("live", PUBKEY, "x").encode(), b"this store is of network test"),
        (StoreMessage.HELLO, Hello("test", b"\3" * 33, "x").encode(), b"this store belongs to another server key"),
        (StoreMessage.HELLO, b"", b""),
        (StoreMessage.HEARTBEAT, b"", b"HELLO comes first"),
        (99, b"", b"frame type 99 is unknown"),
    ],
)
@asynchronous
async def test_who_says_nonsense_is_told_why_and_cut_off(tmp_path, kind, payload, why):
    rig = Rig(tmp_path)
    stranger = rig.connect()
    stranger.ask(kind, payload)
    ((told, request_id, text),) = stranger.sent
    assert (told, request_id) == ("refused", 7) and why in text
    stranger.hello()  # too late
    assert len(stranger.sent) == 1 and stranger.is_open
    while stranger.is_open:
        await asyncio.sleep(REFUSAL_LINGER_S / 4)


@asynchronous
async def test_hello_comes_once(tmp_path):
    worker = Rig(tmp_path).connect().hello().hello()
    assert worker.sent[-1] == ("refused", 7, b"HELLO comes once")


# --- ownership ---


@asynchronous
async def test_who_leaves_leaves_its_shards_to_the_others(tmp_path):
    rig = Rig(tmp_path)
    first, second = rig.connect().hello("unix:/a"), rig.connect().hello("unix:/b")
    await settle()
    assert first.owners().workers == {1: "unix:/a", 2: "unix:/b"} == second.owners().workers
    first.close()
    await settle()
    table = second.owners()
    assert table.workers == {2: "unix:/b"}
    assert {worker for worker, _ in table.owners} == {2}


@asynchronous
async def test_an_observer_leaves_without_a_trace(tmp_path):
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    rig = Rig(tmp_path)
    worker, observer = rig.connect().hello(), rig.connect().hello(peer="")
    await settle()
    worker.sent.clear()
    observer.close()
    await settle()
    assert (worker.sent, complaints) == ([], [])


@asynchronous
async def test_silence_ends_a_connection_and_any_frame_is_a_sign_of_life(tmp_path, monkeypatch):
    now = [0]
    monkeypatch.setattr(server_module, "_now_ms", lambda: now[0])
    rig = Rig(tmp_path)
    silent, lively, nameless, observer = rig.connect().hello(), rig.connect().hello(), rig.connect(), rig.connect().hello(peer="")
    watch = asyncio.ensure_future(rig.server._watch_silence())
    for _ in range(12):
        now[0] += LEASE_MS // 8
        lively.ask(StoreMessage.HEARTBEAT)
        for _ in range(3):  # longer than between two looks
            await asyncio.sleep(LEASE_MS / 8 / 1000)
    assert [connection.is_open for connection in (silent, lively, nameless, observer)] == [False, True, False, True]
    watch.cancel()


@asynchronous
async def test_the_stores_own_absence_is_nobodys_silence(tmp_path, monkeypatch):
    now = [0]
    monkeypatch.setattr(server_module, "_now_ms", lambda: now[0])
    rig = Rig(tmp_path)
    worker = rig.connect().hello()
    watch = asyncio.ensure_future(rig.server._watch_silence())
    await settle()
    now[0] += 10 * LEASE_MS
    await asyncio.sleep(LEASE_MS / 1000)
    assert worker.is_open
    watch.cancel()


# --- frames ---


@asynchronous
async def test_an_update_is_answered_when_it_is_durable(tmp_path):
    rig = Rig(tmp_path)
    worker = rig.connect().hello()
    await settle()
    worker.sent.clear()
    worker.ask(StoreMessage.COMMIT, commit(opening(), opening()))
    assert worker.sent == [] and rig.engine.states([OUTPOINT]) == [None]
    await settle()
    assert worker.sent == [(StoreMessage.COMMIT, 7, bytes([EntryStatus.OK, EntryStatus.CONFLICT]))]
    assert rig.engine.states([OUTPOINT]) == [opening().state]
    worker.ask(StoreMessage.HEARTBEAT)
    assert decode_heartbeat_reply(worker.taken(StoreMessage.HEARTBEAT)[0]) == ((100, 0), b"")


@asynchronous
async def test_a_funding_transaction_is_kept_under_its_id_and_answered_when_it_is_durable(tmp_path):
    rig = Rig(tmp_path)
    worker = rig.connect().hello()
    await settle()
    worker.sent.clear()
    transactions = [b"one", bytes(STRIPPED_SIZE_MAX)]
    for transaction in transactions:
        worker.ask(StoreMessage.KEEP_FUNDING, transaction)
    assert worker.sent == [] and rig.engine.funding(txid_without_witness(b"one")) is None
    await settle()
    assert worker.sent == [(StoreMessage.KEEP_FUNDING, 7, b"")] * 2
    for transaction in transactions:
        worker.ask(StoreMessage.LOAD_FUNDING, txid_without_witness(transaction))
    worker.ask(StoreMessage.LOAD_FUNDING, bytes(32))
    assert worker.taken(StoreMessage.LOAD_FUNDING) == [*transactions, b""]


@asynchronous
async def test_a_funding_transaction_that_many_channels_have_is_written_once(tmp_path, monkeypatch):
    rig, written = Rig(tmp_path), []
    worker = rig.connect().hello()
    await settle()
    usual = rig.engine.commit
    monkeypatch.setattr(rig.engine, "commit", lambda writes: (written.append(dict(writes)), usual(writes)))
    for _ in range(3):
        worker.ask(StoreMessage.KEEP_FUNDING, b"one")
        worker.ask(StoreMessage.KEEP_FUNDING, b"one")
        await settle()
    assert written == [{keys.FUNDING + txid_without_witness(b"one"): b"one"}]
    assert len(worker.taken(StoreMessage.KEEP_FUNDING)) == 6


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (StoreMessage.KEEP_FUNDING, b""),
        (StoreMessage.KEEP_FUNDING, bytes(STRIPPED_SIZE_MAX + 1)),
        (StoreMessage.LOAD_FUNDING, b""),
        (StoreMessage.LOAD_FUNDING, bytes(31)),
        (StoreMessage.LOAD_FUNDING, bytes(36)),
    ],
)
@asynchronous
async def test_what_is_no_funding_transaction_or_no_txid_is_refused(tmp_path, kind, payload):
    worker = Rig(tmp_path).connect().hello()
    worker.ask(kind, payload)
    assert worker.sent[-1][0] == "refused" and kind.name.encode() in worker.sent[-1][2]


@asynchronous
async def test_what_is_no_commit_never_reaches_the_others_group(tmp_path):
    rig = Rig(tmp_path)
    good, bad = rig.connect().hello(), rig.connect().hello()
    await settle()
    epoch = rig.engine.epochs(SHARDS)[SHARD]
    good.ask(StoreMessage.COMMIT, commit(opening(epoch)))
    bad.ask(StoreMessage.COMMIT, commit(opening(epoch))[:-1])
    await settle()
    assert good.taken(StoreMessage.COMMIT) == [bytes([EntryStatus.OK])]
    assert bad.sent[-1][0] == "refused" and b"COMMIT" in bad.sent[-1][2]


@asynchronous
async def test_a_heartbeat_has_its_requests_number(tmp_path):
    worker = Rig(tmp_path).connect().hello()
    worker.ask(StoreMessage.HEARTBEAT, request_id=9)
    assert worker.sent[-1][:2] == (StoreMessage.HEARTBEAT, 9)


@asynchronous
async def test_more_than_the_queue_holds_is_refused_and_nobody_is_cut_off(tmp_path, monkeypatch):
    rig = Rig(tmp_path)
    worker = rig.connect().hello()
    await settle()
    monkeypatch.setattr(rig.server._sequencer, "has_room", lambda size: False)
    for kind, payload in ((StoreMessage.COMMIT, commit(opening())), (StoreMessage.KEEP_FUNDING, b"one")):
        worker.ask(kind, payload)
        assert worker.sent[-1] == ("refused", 7, b"too many updates wait")
    worker.ask(StoreMessage.HEARTBEAT)
    assert len(worker.taken(StoreMessage.HEARTBEAT)) == 1


@asynchronous
async def test_reads_are_answered_at_once(tmp_path):
    rig = Rig(tmp_path)
    worker = rig.connect().hello()
    await settle()
    worker.ask(StoreMessage.COMMIT, commit(opening()))
    await settle()
    worker.ask(StoreMessage.LOAD, encode_load([OUTPOINT, bytes(36)]))
    found, nothing = decode_load_reply(worker.taken(StoreMessage.LOAD)[0])
    assert (found.state, found.terms, nothing) == (opening().state, opening().extra, None)
    for kind, expected in ((StoreMessage.SCAN_EXPIRING, [(600_000_000, OUTPOINT)]), (StoreMessage.SCAN_UNFINISHED, [])):
        worker.ask(kind, Scan(10, 600_000_001).encode())
        assert decode_found(worker.taken(kind)[0]) == expected
    worker.ask(StoreMessage.SCAN_RECEIVED, Scan(RECEIVED_MAX, 600_000_001).encode())
    assert decode_received(worker.taken(StoreMessage.SCAN_RECEIVED)[0]) == [(600_000_000, 100, OUTPOINT)]


@asynchronous
async def test_a_read_that_fails_is_refused_alone(tmp_path, monkeypatch):
    rig = Rig(tmp_path)
    worker = rig.connect().hello()

    def fail(_):
        raise OSError("injected")

    monkeypatch.setattr(rig.engine, "load", fail)
    worker.ask(StoreMessage.LOAD, encode_load([OUTPOINT]))
    assert worker.sent[-1] == ("refused", 7, b"the store cannot read this")
    worker.ask(StoreMessage.HEARTBEAT)
    assert worker.is_open and len(worker.taken(StoreMessage.HEARTBEAT)) == 1


@asynchronous
async def test_who_takes_no_answers_is_cut_off(tmp_path):
    worker = Rig(tmp_path).connect().hello()
    assert UNSENT_BYTES_MAX == 16 * 1024 * 1024
    worker.unsent_bytes = UNSENT_BYTES_MAX
    worker.ask(StoreMessage.LOAD, encode_load([OUTPOINT]))
    assert len(worker.taken(StoreMessage.LOAD)) == 1
    worker.unsent_bytes += 1
    worker.ask(StoreMessage.LOAD, encode_load([OUTPOINT]))
    assert worker.sent[-1] == ("refused", 7, b"answers are not taken")


# --- the end ---


@asynchronous
async def test_at_the_end_what_waits_is_written_and_answered_and_nothing_else_is_taken(tmp_path):
    rig, before = Rig(tmp_path), asyncio.all_tasks()
    stop = asyncio.Event()
    run = asyncio.ensure_future(rig.server.run(stop))
    await settle()
    worker = rig.connect().hello()
    await settle()
    worker.sent.clear()
    stop.set()
    worker.ask(StoreMessage.COMMIT, commit(opening()))
    await run
    assert worker.sent == [(StoreMessage.COMMIT, 7, bytes([EntryStatus.OK]))]
    assert not worker.is_open
    assert rig.engine.epochs(SHARDS) == [1] * (SHARDS + LEASE_COUNT)  # who is sent away at the end leaves nothing to others
    late = rig.connect()
    late.hello()
    assert late.sent == []
    await settle()
    assert asyncio.all_tasks() == before
    with pytest.raises(OSError):
        await asyncio.open_unix_connection(str(tmp_path / "s"))


@asynchronous
async def test_an_address_that_is_no_good_is_named(tmp_path):
    rig = Rig(tmp_path)
    (tmp_path / "s").mkdir()
    with pytest.raises(ConfigError, match=r"^store\.toml: store\.address: "):
        await rig.server.run(asyncio.Event())


def test_time_is_in_milliseconds():
    assert abs(server_module._now_ms() - 1000 * time.monotonic()) < 60_000
