"""Aim: nothing that waits in a worker or in the store grows without bound: what is beyond is answered 503 at once, or not read.
Method: each bound is reached, most of them lowered; the answers are held back by hand."""

import asyncio
from types import SimpleNamespace

import pytest

from paychan._fast import forward
from paychan._fast.batch import BATCH_BYTES_MAX
from paychan._fast.channel import ChannelTable
from paychan._fast.direct import PENDING_BYTES_MAX
from paychan._fast.forward import ForwardLink
from paychan._fast.frame import REPLY, encode_frame
from paychan.chain import wallets
from paychan.core.channel import Phase
from paychan.core.errors import Unavailable
from paychan.core.network import REGTEST
from paychan.rpc import connection as connection_module
from paychan.rpc.connection import ConnectionGone, FrameConnection
from paychan.rpc.store_messages import SCAN_LIMIT_MAX, StoreMessage
from paychan.server.channels import payments
from paychan.server.doors import direct
from paychan.server.doors.direct import DirectPort
from paychan.server.doors.peers import PAYLOAD_MAX
from paychan.server.protocol.replies import Reply, problem
from paychan.server.settlement import settling
from paychan.server.settlement.settler import CONCURRENT_MAX, Settler
from paychan.server.settlement.settling import Settling
from paychan.server.shards import loading
from paychan.server.shards.loading import Loaded, Loader
from paychan.settings.models import Users
from store import server as store_server
from store.engines.at_once import AtOnce
from store.server import StoreServer
from tests.differential.channels import SETTLEMENT_PERIOD, SHARD_COUNT, own_all
from tests.unit.doors import KINDS, Answer, Desk, asynchronous, settle
from tests.unit.fast.test_fast_direct import Scene
from tests.unit.server.shards.test_committer import HandStore


def is_overloaded(answer):
    return (answer.status, answer.code, answer.count) == (503, "overloaded", 1)


# --- a worker's payments ---


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_the_disks_line_is_bounded_within_one_turn_of_the_loop(kind):
    """The interlocks are looked at once in a turn, and one turn may bring any number of payments."""
    desk = Desk(HandStore())
    desk.committer.queue.waiting_max = 3
    paid = [desk.samples[0].sign(9_000_000 - number).raw for number in range(6)]
    answers = [desk.submit(kind, 0, raw) for raw in paid]
    await settle()
    assert [answer.count for answer in answers[:3]] == [0] * 3
    assert kind == "direct" or all(is_overloaded(answer) for answer in answers[3:])  # "direct" keeps the order of its answers
    while desk.store.in_flight:
        await desk.store.answer()
        await settle()
    assert [answer.status for answer in answers] == [200] * 3 + [503] * 3
    assert desk.committer.queue.waiting == 0
    again = desk.submit(kind, 0, paid[5])
    await settle()
    await desk.store.answer()
    assert again.status == 200 and again.json["value_received"] == 3


@asynchronous
async def test_a_batch_cannot_jump_the_line():
    desk = Desk(HandStore())
    desk.committer.queue.waiting_max = 4
    outpoint = desk.samples[0].terms.outpoint
    answers = [Answer() for _ in range(10)]
    desk.submit_batch([(outpoint, desk.samples[0].sign(9_000_000 - number).raw) for number in range(10)], answers)
    await settle()
    await desk.store.answer()
    assert [answer.status for answer in answers] == [200] * 4 + [503] * 6


class SilentStore:
    """Takes every reading and answers when it is told."""

    def __init__(self):
        self.asked = []

    async def load_many(self, outpoints):
        future = asyncio.get_running_loop().create_future()
        self.asked.append((outpoints, future))
        return await future


@asynchronous
async def test_those_who_wait_for_a_reading_are_bounded(monkeypatch):
    monkeypatch.setattr(loading, "WAITING_MAX", 5)
    store = SilentStore()
    loader = Loader(own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD)), SHARD_COUNT, store)
    ends = []
    for number in range(8):
        loader.want(bytes((number % 2,)) * 36, ends.append)
    assert ends == [Loaded.REFUSED] * 3
    with pytest.raises(Unavailable, match="overloaded"):
        await loader.load(bytes(36))
    while len(ends) < 8:
        await asyncio.sleep(0.001)
        for outpoints, future in store.asked:
            if not future.done():
                future.set_result([None] * len(outpoints))
    assert ends[3:] == [Loaded.MISSING] * 5
    loader.want(bytes(36), ends.append)
    assert len(ends) == 8  # there is room again


@asynchronous
async def test_those_that_a_task_looks_after_are_bounded(monkeypatch):
    monkeypatch.setattr(payments, "LATER_MAX", 2)
    desk = Desk(HandStore())
    gate, answers = asyncio.Event(), []

    async def finding():
        await gate.wait()
        return Reply(200, b"{}")

    for _ in range(5):
        desk.payments.answer_later(SimpleNamespace(answer=answers.append), finding())
    assert [reply.status for reply in answers] == [503] * 3 and b"overloaded" in answers[0].body
    gate.set()
    await settle()
    assert [reply.status for reply in answers[3:]] == [200, 200]
    desk.payments.answer_later(SimpleNamespace(answer=answers.append), finding())
    await settle()
    assert answers[-1].status == 200


@asynchronous
async def test_what_another_worker_owes_answers_to_is_bounded():
    """With the real bound: the other worker is stopped, and takes whatever comes without a word."""
    desk = Desk(HandStore())
    written = []
    wire = SimpleNamespace(write=written.append, is_closing=lambda: False, abort=lambda: None)
    gone, full = problem(Unavailable("owner_moved")), problem(Unavailable("overloaded"))
    link = ForwardLink(PAYLOAD_MAX, asyncio.get_running_loop().call_soon, Reply, print, gone, full)
    link.connection_made(wire)
    raw, sample = desk.samples[0].sign(9_000_000).raw, desk.samples[0]

    def ask():
        answer = Answer()
        link.ask(desk._future_request(sample.path, raw, answer), sample.terms.outpoint)
        return answer

    def sent():
        return sum(piece.count(b"?payment=") for piece in written)

    answers = [ask() for _ in range(forward.ASKED_MAX + 3)]
    await settle()
    assert sent() == forward.ASKED_MAX
    assert all(is_overloaded(answer) for answer in answers[forward.ASKED_MAX :])
    link.expire()
    assert is_overloaded(await answered(ask()))  # they may still be answered
    link.expire()
    await settle()
    assert {answer.code for answer in answers[: forward.ASKED_MAX]} == {"owner_moved"}
    last = ask()
    await settle()
    assert last.count == 0 and sent() == forward.ASKED_MAX + 1


async def answered(answer):
    await settle()
    return answer


# --- the own port ---


@asynchronous
async def test_the_bodies_of_one_connections_requests_are_bounded():
    scene = Scene()
    body = bytes(BATCH_BYTES_MAX)
    batch = b"POST /v1/payments HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for _ in range(10):
        if not scene.wire.is_paused:
            scene.connection.data_received(batch)
            await settle(2)
    assert scene.held * BATCH_BYTES_MAX < PENDING_BYTES_MAX + BATCH_BYTES_MAX
    assert scene.wire.is_paused and scene.held == 3
    for number in range(3):
        scene.release(number)
        await settle(4)
    assert not scene.wire.is_paused
    assert scene.held == 1  # the fourth had come before the reading stopped, and was kept
    scene.release(3)
    await settle(4)
    assert [status for status, _ in scene.answers] == [200] * 4


# --- between our processes ---


class Ends:
    """A transport that keeps what is written."""

    def __init__(self):
        self.written = []

    def is_closing(self):
        return False

    def write(self, data):
        self.written.append(data)


@asynchronous
async def test_the_calls_of_one_connection_are_bounded_and_those_given_up_make_room(monkeypatch):
    monkeypatch.setattr(connection_module, "CALLS_MAX", 3)
    end = FrameConnection(1000, lambda *_: None, lambda _: None)
    end.connection_made(Ends())
    calls = [end.call(1) for _ in range(4)]
    with pytest.raises(ConnectionGone):
        await calls[3]
    calls[0].cancel()
    fresh = end.call(1)
    assert not fresh.done() and len(end._calls) == 3
    end.data_received(encode_frame(1 + REPLY, 2, b"x"))
    assert await calls[1] == b"x"


@asynchronous
async def test_the_stores_connections_are_bounded(monkeypatch):
    monkeypatch.setattr(store_server, "SESSIONS_MAX", 2)
    server = StoreServer.__new__(StoreServer)
    server._sessions, server._leases = {}, None
    server._config = SimpleNamespace(common=SimpleNamespace(users=Users()))

    class Connection:
        is_closed = False

        def peer_uid(self):
            return None

        def close(self):
            self.is_closed = True

    connections = [Connection() for _ in range(4)]
    for connection in connections:
        server._on_open(connection)
    assert [connection.is_closed for connection in connections] == [False, False, True, True]


@asynchronous
async def test_settlements_under_way_are_bounded(monkeypatch):
    monkeypatch.setattr(settling, "RUNNING_MAX", 2)
    machine = Settling(None, None, SHARD_COUNT, None, None, None, None, None)
    gate = asyncio.Event()

    async def drive(outpoint):
        await gate.wait()
        return outpoint

    monkeypatch.setattr(machine, "_drive", drive)
    first = [asyncio.ensure_future(machine.settle(key)) for key in (b"a", b"b", b"a")]
    await settle()
    with pytest.raises(Unavailable, match="overloaded"):
        await machine.settle(b"c")
    gate.set()
    assert await asyncio.gather(*first) == [b"a", b"b", b"a"]
    assert await machine.settle(b"c") == b"c"


class Pages:
    """A store with a long index: every page of it is counted."""

    def __init__(self, count, failing_page=-1):
        self.count, self.given, self.failing_page = count, 0, failing_page

    async def due(self):
        return []

    async def pages(self, kind, before=0):
        if kind == StoreMessage.SCAN_UNFINISHED:
            return
        for start in range(0, self.count, SCAN_LIMIT_MAX):
            if self.given == self.failing_page:
                raise ConnectionGone
            self.given += 1
            yield [(Phase.OPEN, number.to_bytes(36, "big")) for number in range(start, min(start + SCAN_LIMIT_MAX, self.count))]


def sweeper(store, settle_one):
    return Settler(None, store, SimpleNamespace(generation=0), settle_one, 100, store, lambda: 0)


@asynchronous
async def test_a_sweep_holds_a_page_however_much_is_due(monkeypatch):
    gate, running, done = asyncio.Event(), set(), []

    async def settle_one(outpoint):
        running.add(outpoint)
        assert len(running) <= CONCURRENT_MAX
        await gate.wait()
        running.discard(outpoint)
        done.append(outpoint)

    store = Pages(3 * SCAN_LIMIT_MAX)
    sweep = asyncio.ensure_future(sweeper(store, settle_one)._sweep())
    await settle(100)
    assert (store.given, len(running)) == (1, CONCURRENT_MAX)
    assert len(asyncio.all_tasks()) < CONCURRENT_MAX + 5
    gate.set()
    await sweep
    assert sorted(done) == [number.to_bytes(36, "big") for number in range(3 * SCAN_LIMIT_MAX)]


@asynchronous
async def test_a_sweep_that_breaks_off_gives_back_its_places():
    async def settle_one(_):
        await asyncio.sleep(3600)

    settler = sweeper(None, settle_one)
    for _ in range(3):
        settler._store = Pages(CONCURRENT_MAX - 1, failing_page=0)
        settler._store.pages = broken_after(settler._store.count)
        with pytest.raises(ConnectionGone):
            await settler._sweep()
        await settle()
        assert settler._places._value == CONCURRENT_MAX


def broken_after(count):
    async def pages(kind, before=0):
        yield [(Phase.CLOSING, number.to_bytes(36, "big")) for number in range(count)]
        raise ConnectionGone

    return pages


def test_a_client_of_the_store_that_takes_no_answers_is_turned_away():
    server = StoreServer.__new__(StoreServer)
    answers = []
    end = SimpleNamespace(unsent_bytes=store_server.UNSENT_BYTES_MAX, reply=lambda *answer: answers.append(answer))
    session = SimpleNamespace(connection=end)
    server._engine = AtOnce()
    server._read(session, StoreMessage.LOAD, 7, lambda _: b"found", bytes)
    assert answers == [(StoreMessage.LOAD, 7, b"found")]
    end.unsent_bytes += 1
    with pytest.raises(store_server.Refusal, match="not taken"):
        server._read(session, StoreMessage.LOAD, 8, lambda _: b"found", bytes)


# --- others ---


@asynchronous
async def test_the_scripts_that_wait_for_the_nodes_wallet_are_bounded(monkeypatch):
    monkeypatch.setattr(wallets, "PENDING_MAX", 2)
    watching = wallets.WatchingWallets(None, None, "w", 10, lambda: 0.0)
    gate, imported = asyncio.Event(), []

    async def take(scripts):
        await gate.wait()
        imported.extend(scripts)

    monkeypatch.setattr(watching, "_import", take)
    first = asyncio.ensure_future(watching.watch(b"first"))
    await settle()  # under way, and no longer waiting
    waiting = [asyncio.ensure_future(watching.watch(script)) for script in (b"a", b"b", b"a")]
    await settle()
    with pytest.raises(Unavailable, match="chain_unavailable"):
        await watching.watch(b"c")
    gate.set()
    await asyncio.gather(first, *waiting)
    assert imported == [b"first", b"a", b"b"]


@asynchronous
async def test_the_addresses_that_strangers_have_the_nodes_wallet_look_for_are_bounded(monkeypatch):
    now, imported = [0.0], []
    watching = wallets.WatchingWallets(None, REGTEST, "w", 10, lambda: now[0])

    async def take(scripts):
        imported.extend(scripts)
        watching._known.update(dict.fromkeys(scripts, "w-1"))

    async def loaded():
        return [1]

    async def largest(*_):
        return {}

    monkeypatch.setattr(watching, "_import", take)
    monkeypatch.setattr(watching, "_loaded", loaded)
    monkeypatch.setattr(watching, "_largest", largest)

    async def ask(number):
        await watching.unspent(b"\xa9\x14" + number.to_bytes(20, "big") + b"\x87")

    for number in range(wallets.ASKED_BURST_MAX):
        await ask(number)
    for _ in range(3):
        with pytest.raises(Unavailable, match="overloaded.*name the funding output"):
            await ask(10**6)
    await ask(5)  # is looked for already
    await watching.watch(b"of a channel that was paid for")
    now[0] += 60
    for number in range(wallets.ASKED_PER_MINUTE):
        await ask(10**6 + number)
    with pytest.raises(Unavailable):
        await ask(10**7)
    now[0] -= 10**9  # a clock that jumps gives nothing
    with pytest.raises(Unavailable):
        await ask(10**7)
    now[0] += 10**10
    for number in range(wallets.ASKED_BURST_MAX):
        await ask(10**8 + number)
    with pytest.raises(Unavailable):
        await ask(10**9)
    assert len(imported) == 2 * wallets.ASKED_BURST_MAX + wallets.ASKED_PER_MINUTE + 1


def test_the_responses_that_are_kept_for_a_second_are_bounded():
    port = DirectPort(SimpleNamespace(direct_base_port=0, public_url="", http_host="h", direct_public_host=""), None)
    request = SimpleNamespace(is_last=False, wants_no_body=False, host=b"h")
    for number in range(direct.RENDERED_MAX + 10):
        assert b"%d" % number in port._render(Reply(400, b"%d" % number), request)
    assert len(port._rendered) <= direct.RENDERED_MAX
