"""Aim: what is too large for the other process is refused by its sender, and costs neither the connection nor what else is in
flight on it. Method: both ends on a real socket, and the clients of store and signer over one that answers when the test says."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from paychan.core.payment import Payment
from paychan.rpc import signer_client
from paychan.rpc.connection import Address, ConnectionGone, FrameConnection, RemoteRefusal, TooLarge, connect, listen
from paychan.rpc.signer_client import ASKED_MAX, SignerClient, SignerRefused
from paychan.rpc.signer_messages import PAYLOAD_MAX, RefusalCode, SignerMessage
from paychan.rpc.store_client import StoreClient
from paychan.rpc.store_messages import PAYLOAD_MAX as STORE_PAYLOAD_MAX
from paychan.rpc.store_messages import Hello, StoreMessage, Unsettled, Welcome, encode_heartbeat_reply
from tests.differential.channels import make_sample
from tests.unit.doors import asynchronous

SAMPLE = make_sample("connection")
PAYMENT = Payment(SAMPLE.opening.change_value, SAMPLE.opening.signature, SAMPLE.opening.sighash_type)


class Other:
    """The process at the other end. `held`: requests that it has not answered; `lost`: connections that ended."""

    def __init__(self, payload_max):
        self._payload_max, self.held, self.lost, self.answers = payload_max, [], 0, {}

    def make(self):
        return FrameConnection(self._payload_max, self._on_frame, self._on_close)

    def _on_frame(self, connection, kind, request_id, payload):
        if kind in self.answers:
            connection.reply(kind, request_id, self.answers[kind])
        else:
            self.held.append((connection, kind, request_id, payload))

    def _on_close(self, _):
        self.lost += 1

    async def hold(self, count):
        """Wait until so many requests are held."""
        while len(self.held) < count:
            await asyncio.sleep(0.001)

    def answer(self, payload=b""):
        """Answer the request that came first."""
        connection, kind, request_id, _ = self.held.pop(0)
        connection.reply(kind, request_id, payload)


@asynccontextmanager
async def listening(tmp_path, payload_max):
    other, address = Other(payload_max), Address(path=str(tmp_path / "other.sock"))
    server = await listen(address, other.make)
    try:
        yield other, address
    finally:
        server.close()


async def up(link):
    link.start()
    while not link.is_up:
        await asyncio.sleep(0.001)
    return link


@asynchronous
async def test_a_request_that_is_too_large_is_not_sent_and_the_others_are_answered(tmp_path):
    async with listening(tmp_path, 100) as (other, address):
        connection = await connect(address, lambda: FrameConnection(100, lambda *_: None, lambda _: None))
        before = connection.call(1, bytes(100))
        with pytest.raises(TooLarge):
            await connection.call(1, bytes(101))
        after = connection.call(2, b"x")
        await other.hold(2)
        assert [payload for _, _, _, payload in other.held] == [bytes(100), b"x"]
        other.answer(b"first")
        other.answer(b"second")
        assert await asyncio.gather(before, after) == [b"first", b"second"]
        assert connection.is_open and other.lost == 0
        connection.close()


@asynchronous
async def test_an_answer_that_is_too_large_is_told_as_such(tmp_path):
    async with listening(tmp_path, 100) as (other, address):
        connection = await connect(address, lambda: FrameConnection(100, lambda *_: None, lambda _: None))
        calls = [connection.call(1), connection.call(1)]
        await other.hold(2)
        other.answer(bytes(101))
        other.answer(bytes(100))
        with pytest.raises(RemoteRefusal, match="the answer is too large"):
            await calls[0]
        assert await calls[1] == bytes(100)
        assert connection.is_open and other.lost == 0
        connection.close()


@asynchronous
async def test_a_settlement_that_is_too_large_for_the_signer_costs_no_payment_its_link(tmp_path):
    async with listening(tmp_path, PAYLOAD_MAX) as (other, address):
        other.answers[SignerMessage.PUBLIC_KEY] = SAMPLE.terms.server_pubkey
        client = SignerClient(address)
        link = await up(client.link)
        good = asyncio.ensure_future(client.settle(SAMPLE.terms, PAYMENT, 1000, b"proof"))
        await other.hold(1)
        with pytest.raises(SignerRefused, match="too large") as caught:
            await client.settle(SAMPLE.terms, PAYMENT, 1000, bytes(PAYLOAD_MAX))
        assert caught.value.refusal.code is RefusalCode.MALFORMED
        with pytest.raises(SignerRefused, match="too large"):
            await client.judge(SAMPLE.terms, PAYMENT, 1000, bytes(PAYLOAD_MAX))
        other.answer(b"signed")
        assert await good == b"signed"
        dry = asyncio.ensure_future(client.judge(SAMPLE.terms, PAYMENT, 1000, b"proof"))
        await other.hold(1)
        assert other.held[0][1] == SignerMessage.JUDGE
        other.answer()
        assert await dry is None
        assert link.is_up and other.lost == 0
        await link.stop()


@asynchronous
async def test_the_signer_has_few_requests_at_a_time_however_many_settlements_begin_at_once(tmp_path):
    """A thousand would else run out of time together, and close the link for it."""
    async with listening(tmp_path, PAYLOAD_MAX) as (other, address):
        other.answers[SignerMessage.PUBLIC_KEY] = SAMPLE.terms.server_pubkey
        client = SignerClient(address)
        link = await up(client.link)
        waiting = [asyncio.ensure_future(client.settle(SAMPLE.terms, PAYMENT, fee, b"")) for fee in range(3 * ASKED_MAX)]
        for left in range(3 * ASKED_MAX, 0, -1):
            await other.hold(min(left, ASKED_MAX))
            await asyncio.sleep(0.001)
            assert len(other.held) <= ASKED_MAX
            other.answer(b"signed")
        assert await asyncio.gather(*waiting) == [b"signed"] * len(waiting)
        await link.stop()


@asynchronous
async def test_a_signer_that_takes_too_long_ends_its_link_and_holds_nobody_back_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(signer_client, "ANSWER_SECONDS_MAX", 0.05)
    async with listening(tmp_path, PAYLOAD_MAX) as (other, address):
        other.answers[SignerMessage.PUBLIC_KEY] = SAMPLE.terms.server_pubkey
        client = SignerClient(address)
        link = await up(client.link)
        outcomes = await asyncio.gather(
            *(client.settle(SAMPLE.terms, PAYMENT, fee, b"") for fee in range(3 * ASKED_MAX)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {ConnectionGone}
        await link.stop()


@asynchronous
async def test_a_group_that_is_too_large_for_the_store_costs_no_worker_its_shards(tmp_path):
    async with listening(tmp_path, STORE_PAYLOAD_MAX) as (other, address):
        other.answers[StoreMessage.HELLO] = Welcome(1, 4, 30_000).encode()
        other.answers[StoreMessage.HEARTBEAT] = encode_heartbeat_reply(Unsettled())
        client = StoreClient(address, Hello("test", bytes(33), "here"), lambda *_: None, lambda: None)
        link = await up(client.link)
        with pytest.raises(RemoteRefusal):
            await client.commit(bytes(STORE_PAYLOAD_MAX + 1))
        good = asyncio.ensure_future(client.commit(b"group"))
        await other.hold(1)
        other.answer(b"\0")
        assert await good == b"\0"
        assert link.is_up and other.lost == 0
        await link.stop()
