"""A simulated payer: funds a channel, pays, closes or falls silent, and takes its refund as soon as the chain lets it."""

import asyncio
import contextlib
import json
import math
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from bitcoin.base58 import CBase58Data
from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut, Hash160
from bitcoin.core.script import CScript
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.network import TEST
from paychan.core.outpoint import make_outpoint
from paychan.core.payment import Payment
from paychan.core.refund import sign_refund
from paychan.core.script import p2sh_script_pubkey
from paychan.core.sender import Sender
from paychan.core.units import DUST_LIMIT
from paychan.server.protocol.replies import Reply
from paychan.server.worker import Worker

from .attacks import Pinner
from .auditor import EARLY_SECONDS, Auditor
from .blockchain import BlockChain, Refused

REFUND_SIZE = 310  # bytes, about
PINNERS = 0.15


class Front(Protocol):
    """The way to the server: `ask` gives None if no answer came."""

    async def ask(self, request: Callable[[Worker], Awaitable[Reply]]) -> Reply | None: ...


def make_channel(
    chance: random.Random, number: int, server_pubkey: bytes, exp_time: int, value: int = 0, size: int = 0
) -> tuple[Sender, bytes]:
    """Return the payer's side of a new channel, and its funding transaction. value: satoshi; 0: drawn. size: bytes of the
    transaction, 0: as few as can be."""
    key = PrivateKey(chance.randbytes(32))
    pubkey = key.public_key.format()
    is_p2sh = chance.random() < 0.5
    script_hash = Hash160(pubkey)
    script = b"\xa9\x14" + script_hash + b"\x87" if is_p2sh else b"\x76\xa9\x14" + script_hash + b"\x88\xac"
    address = CBase58Data.from_bytes(script_hash, TEST.p2sh_version if is_p2sh else TEST.p2pkh_version)
    value = value or round(math.exp(chance.uniform(math.log(8_000), math.log(20_000_000))))
    terms = ChannelTerms(bytes(36), server_pubkey, pubkey, exp_time, value, script)
    output = CTxOut(value, CScript(p2sh_script_pubkey(terms.redeem_script)))
    vout = chance.randint(0, 1)
    others = [CTxOut(5000, CScript(b"\x51"))] * vout
    source, outputs = CTxIn(COutPoint(chance.randbytes(32), number)), [*others, output]
    tx = CTransaction([source], outputs)
    if size:
        tx = CTransaction([source], [*outputs, _padding(size - len(tx.serialize()))])
    terms = ChannelTerms(make_outpoint(tx.GetTxid(), vout), server_pubkey, pubkey, exp_time, value, script)
    return Sender(terms, key, str(address)), tx.serialize()


def _padding(size: int) -> CTxOut:
    """Return an output of about so many bytes: nodes do not relay such scripts, but a miner may put them into a block."""
    return CTxOut(0, CScript(b"\x6a" * max(1, size - 13)))


class Payer:
    """One payer with one channel. open_price: satoshi. `now()`: true unix seconds."""

    def __init__(
        self,
        chance: random.Random,
        sender: Sender,
        funding: bytes,
        front: Front,
        chain: BlockChain,
        auditor: Auditor,
        now: Callable[[], float],
        open_price: int,
    ) -> None:
        self._chance, self._sender, self._funding, self._front = chance, sender, funding, front
        self._chain, self._auditor, self._now, self._open_price = chain, auditor, now, open_price
        self._payment: Payment | None = None

    async def live(self, starts_in: float, last_payment_at: float) -> None:
        """Run the channel's whole life. last_payment_at: unix seconds after which the payer does nothing but refund."""
        await asyncio.sleep(starts_in)
        outpoint = self._sender.terms.outpoint
        self._auditor.expect(self._sender.terms)
        self._chain.fund(self._sender.terms, self._funding)
        await asyncio.sleep(self._chance.uniform(60, 3000))
        ends = self._chance.choice(("close", "exhaust", "silence", "silence"))
        pinning = asyncio.ensure_future(self._pin(outpoint)) if self._chance.random() < PINNERS else None
        if await self._open(last_payment_at):
            await self._pay_on(last_payment_at, ends)
        await self._refund(outpoint)
        if pinning is not None:
            pinning.cancel()

    async def _pin(self, outpoint: bytes) -> None:
        """Hang as much on the change as the rules let it be, at a price below that of blocks, wherever a settlement is seen."""
        chance = self._chance
        rate, count = math.exp(chance.uniform(math.log(0.1), math.log(10))), chance.choice((1, 2, 24, 63))
        size = chance.choice((100_000, 100_000, chance.randint(1_000, 100_000)))
        told = partial(self._auditor.pinned, outpoint)
        pinner = Pinner(self._chain, outpoint, rate, count, size, told)
        patience = chance.choice((5, 30, 300))  # the quickest, too, is there before the next sweep
        while True:
            await asyncio.sleep(patience)
            pinner.rate = min(rate, max(0.1, 0.9 * self._chain.market.rate))
            pinner.strike()

    async def _pause(self, low: float, high: float) -> None:
        await asyncio.sleep(self._chance.uniform(low, high))

    # --- opening and paying ---

    async def _open(self, until: float) -> bool:
        room = self._sender.change_value - self._open_price
        payment = self._payment = self._sender.pay(self._open_price + self._chance.randint(0, room // 4))
        query = self._sender.open_target(payment).partition("?")[2]
        if self._chance.random() < 0.3:  # a liar: the server must ask the chain
            query += f"&funding_value={10 * self._sender.terms.funding_value}&value={10 * self._sender.terms.funding_value}"
        while self._now() < until:
            reply = await self._front.ask(lambda worker: worker.open(query))
            if reply is not None and reply.status in (201, 202, 409):
                if reply.status != 409:
                    self._take(payment, reply)
                return reply.status != 202
            if reply is not None and _code(reply) == "exp_time_too_soon" and self._now() > until - EARLY_SECONDS:
                return False  # it was kept from opening for long, and the server's clock may be ahead
            if reply is not None and reply.status != 503 and _code(reply) not in ("funding_not_found", "funding_unconfirmed"):
                self._auditor.breach(self._sender.terms.outpoint, f"a good open was refused: {_code(reply)}")
                return False
            await self._pause(20, 400)
        return False

    def _take(self, payment: Payment, reply: Reply) -> None:
        left = json.loads(reply.body)["channel_value_left"]
        self._auditor.acknowledged(self._sender.terms.outpoint, payment.change_value, left)

    async def _pay_on(self, until: float, ends: str) -> None:
        for step in range(self._chance.randint(0, 12)):
            await self._pause(1, 2 * 3600 if step % 3 else 60)
            most = self._sender.change_value - DUST_LIMIT
            if self._now() > until or most < 1:
                break
            amount = max(1, round(most * self._chance.random() ** 4))
            if not await self._pay(amount):
                return
        await self._pause(1, 3600)
        if ends == "exhaust":
            await self._pay(self._sender.change_value)
        elif ends == "close":
            await self._close()

    async def _pay(self, amount: int) -> bool:
        """Pay, and repeat the same payment until it is answered; return whether the channel goes on."""
        payment = self._payment = self._sender.pay(amount)
        path, _, query = self._sender.channel_target(payment).partition("?")
        for _ in range(8):
            reply = await self._front.ask(lambda worker: worker.pay(path, query))
            if reply is not None and reply.status in (200, 202):
                self._take(payment, reply)
                return reply.status == 200
            if reply is not None and reply.status in (404, 410):
                return False
            if reply is not None and reply.status != 503:
                self._auditor.breach(self._sender.terms.outpoint, f"a good payment was refused: {_code(reply)}")
                return False
            await self._pause(1, 90)
        return True

    async def _close(self) -> None:
        assert self._payment is not None, "a channel is opened with a payment"
        path, _, query = self._sender.channel_target(self._payment).partition("?")
        self._auditor.accounts[self._sender.terms.outpoint].may_close = True
        for _ in range(3):
            reply = await self._front.ask(lambda worker: worker.close(path, query))
            if reply is not None and reply.status != 503:
                return
            await self._pause(1, 900)

    # --- the refund ---

    async def _refund(self, outpoint: bytes) -> None:
        """Race the settlement from the moment the lock time allows it, and pay well for it."""
        terms, chain = self._sender.terms, self._chain
        late = self._chance.choice((0, 0, 0, 3 * 3600))
        while chain.median_time_past <= terms.exp_time + late:
            await self._pause(60, 400)
        while (spender := chain.spender(outpoint, chain.miners)) is None or chain.confirmations(spender.txid) < 6:
            rate = 1.5 * max(chain.market.rate, chain.minimum, spender.fee_rate + 5 if spender else 1)
            fee = min(round(rate * REFUND_SIZE), terms.funding_value - DUST_LIMIT)
            with contextlib.suppress(Refused):
                chain.publish(sign_refund(terms, fee, self._sender.key))
            await self._pause(200, 900)


class Hoarder(Payer):
    """Fills the server's limit for all channels with his own, each with as much as one may hold, and pays no more: whoever pays a
    little beside him brings the sum above it."""

    def __init__(self, *parts: Any, hoard: int) -> None:
        """hoard: satoshi."""
        super().__init__(*parts)
        self._hoard = hoard

    async def _pay_on(self, until: float, ends: str) -> None:
        missing = self._hoard - (self._sender.terms.funding_value - self._sender.change_value)
        if missing > 0:
            await self._pay(missing)


def _code(reply: Reply) -> str:
    return json.loads(reply.body)["code"]
