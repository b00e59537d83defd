"""Aim: of three explorers one may lie in every field and every byte, as often, as fast and as slowly as it likes: a channel opens
on what is there, and its settlement is signed and published all the same. Method: each answer of the liar is changed, by seeds; the
rest is what the server does, with the signer's real policy."""

import asyncio
import dataclasses
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from bitcoin.core import CTransaction
from coincurve import PrivateKey

from paychan.chain.base import BroadcastRefused, FundingOutput, FundingRequest
from paychan.chain.esplora import EsploraChain
from paychan.core.channel import ChannelTerms
from paychan.core.script import p2sh_script_pubkey
from paychan.core.sender import sign_payment
from paychan.core.settlement import settlement_size_max
from paychan.core.units import MAX_MONEY
from paychan.rpc.signer_messages import PAYLOAD_MAX, SettleRequest
from signer.policy import Memory, Policy, Signed, judge
from tests.chain.esplora_stand_in import EsploraStandIn, fake_hash
from tests.chain.test_esplora import VALUE, asynchronous, outpoint_of, servers_and_chain

SERVER, CLIENT = PrivateKey(b"\x11" * 32), PrivateKey(b"\x22" * 32)
DESTINATION = b"\x76\xa9\x14" + b"\xdd" * 20 + b"\x88\xac"
POLICY = Policy(SERVER, SERVER.public_key.format(), DESTINATION, 500, 95, 100, 6 * 3600, MAX_MONEY)
CHANGE_SCRIPT = b"\xa9\x14" + b"\xcc" * 20 + b"\x87"
TERMS = ChannelTerms(bytes(36), POLICY.pubkey, CLIENT.public_key.format(), 1_900_000_000, VALUE, CHANGE_SCRIPT)
SCRIPT = p2sh_script_pubkey(TERMS.redeem_script)
FEES = {69, 40}
"""What the two honest servers say, rounded up."""

Lie = Callable[[random.Random, str, int, str], Awaitable[tuple[int, str] | bytes]]
STRANGE: list[Any] = [None, True, False, -1, 0, 1, 7, 10**6, 2**31, 2**63, 10**400, 0.5, 1e308]
STRANGE += ["", "0", "ab" * 32, "G" * 64, [], {}, [[]]]


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value inside a JSON document, itself included."""
    yield at
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[at[0]] = replaced(value[at[0]], at[1:], new)
    return copied


async def in_a_field(chance: random.Random, path: str, status: int, text: str) -> tuple[int, str]:
    try:
        document = json.loads(text)
    except ValueError:
        return status, str(chance.choice(STRANGE))
    for _ in range(chance.choice((1, 1, 3))):
        document = replaced(document, chance.choice(list(leaves(document))), chance.choice(STRANGE))
    return status, json.dumps(document)


async def in_a_byte(chance: random.Random, path: str, status: int, text: str) -> tuple[int, str] | bytes:
    if path.endswith("/hex") and chance.random() < 0.5:
        return status, in_hex(chance, text)
    at = chance.randrange(len(text) + 1)
    rest = chance.choice((text[at + 1 :], text[at:], "", text[at:] * 2, text[:at]))
    return chance.choice((200, status)), text[:at] + chance.choice(("", "0", "f", "\x00", "]", "ab" * 500)) + rest


def in_hex(chance: random.Random, text: str) -> str:
    """Change a transaction where its id sees it, or pad it where the id does not."""
    raw = bytes.fromhex(text)
    sizes = (0, 1, 300, 70_000, 600_000, 3_900_000)
    padding = chance.choice((b"\x00", b"\xff", b"\x01\x00")) * chance.choice(sizes)
    ways = (
        raw[:-4] + padding + raw[-4:],
        raw[:4] + b"\x00\x01" + raw[4:],
        raw[:6] + b"\xff" * 9 + padding,
        raw[:4] + padding + raw[4:],
        CTransaction.deserialize(raw).serialize() + padding,
    )
    return chance.choice(ways).hex()


async def in_its_status(chance: random.Random, path: str, status: int, text: str) -> tuple[int, str] | bytes:
    code = chance.choice((200, 204, 301, 400, 404, 429, 500, 503))
    body = chance.choice((text, "", "Transaction not found", fake_hash(chance.random())))
    if chance.random() < 0.3:
        return b"HTTP/1.1 %d X\r\n" % code + b"X: y\r\n" * chance.choice((0, 20_000)) + body.encode()
    return code, body


async def in_time(chance: random.Random, path: str, status: int, text: str) -> tuple[int, str] | bytes:
    """Answer at once or late, or never, and then what another question was asked for."""
    await asyncio.sleep(chance.choice((0, 0, 0.05, 0.3, 60)))
    return chance.choice(((status, text), (404, ""), (200, "[]"), (200, fake_hash(chance.random()))))


async def about_everything(chance: random.Random, path: str, status: int, text: str) -> tuple[int, str] | bytes:
    return await chance.choice((in_a_field, in_a_byte, in_its_status))(chance, path, status, text)


def consistent(chance: random.Random, liar: EsploraStandIn, funding: CTransaction) -> None:
    """Let the liar tell another chain, in which every answer fits the others."""
    model = liar.model = liar.model.copy()
    story = chance.choice(("spent", "buried spend", "gone", "deep", "short", "cheap", "dear", "silent about fees"))
    if "spen" in story:
        model.spend(funding, value=chance.randrange(1000))
    if story in ("buried spend", "deep"):
        model.mine(count=chance.randrange(1, 200))
    if story == "gone":
        model.blocks = [(name, time, [tx for tx in txs if tx != funding]) for name, time, txs in model.blocks]
    if story == "short":
        model.reorganise(3)
    fees = {"cheap": {"1": 0.0}, "dear": {"1": 999_999.0}, "silent about fees": {}}
    liar.fees = fees.get(story, liar.fees)


async def settled(chain: EsploraChain, terms: ChannelTerms) -> None:
    """Do what a server does from the look-up of an open to the settlement's publication."""
    named = FundingRequest(terms.client_pubkey, terms.exp_time, SCRIPT, terms.outpoint)
    expected = [FundingOutput(terms.outpoint, VALUE, 3)]
    await chain.start()
    assert (await chain.tip()).height == 8
    assert await chain.find_funding(named) == expected
    assert await chain.find_funding(dataclasses.replace(named, outpoint=None)) == expected
    status = await chain.funding_status(terms)
    assert (status.confirmations, status.is_spent) == (3, False)
    payment, proof = sign_payment(terms, VALUE // 2, CLIENT), await chain.funding_transaction(terms)
    rate = await chain.fee_per_byte(6)
    assert rate is not None and min(FEES) <= rate <= max(FEES)
    request = SettleRequest(terms, payment, rate * settlement_size_max(terms, payment, DESTINATION), proof)
    assert len(request.encode()) <= PAYLOAD_MAX
    signed = judge(POLICY, request, Memory(), TERMS.exp_time - 86_400)
    assert isinstance(signed, Signed)
    await chain.broadcast(signed.raw)
    status = await chain.funding_status(terms, signed.record.txid)
    assert (status.is_spent, status.spent_by) == (True, signed.record.txid)


async def one_liar(seed: str, lie: Lie | None) -> None:
    chance = random.Random(seed)
    async with servers_and_chain(3, 2, timeout=5 if lie is in_time else 20) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        servers[0].model.mine(count=3)
        liar, honest, other = chance.sample(servers, 3)
        honest.fees, other.fees = {"6": 68.285}, {"2": 80.0, "6": 40.0}
        liar.model = liar.model.copy()
        if lie is None:
            consistent(chance, liar, funding)
        else:
            liar.lie = lambda method, path, status, text: lie(chance, path, status, text)
        await settled(chain, dataclasses.replace(TERMS, outpoint=outpoint_of(funding)))
        assert honest.received == other.received != []


@pytest.mark.parametrize("lie", [in_a_field, in_a_byte, in_its_status, in_time, about_everything, None])
@asynchronous
async def test_one_liar_of_three_holds_up_neither_an_open_nor_a_settlement(lie: Lie | None) -> None:
    seeds = [f"{getattr(lie, '__name__', 'consistent')}/{number}" for number in range(20)]
    outcomes = await asyncio.gather(*(one_liar(seed, lie) for seed in seeds), return_exceptions=True)
    assert not {seed: outcome for seed, outcome in zip(seeds, outcomes, strict=True) if outcome is not None}


@asynchronous
async def test_a_liar_that_says_it_took_a_settlement_does_not_hide_that_the_others_refuse_it() -> None:
    """Who refuses says why, and what is refused for its fee can be signed again with more."""
    async with servers_and_chain(3, 2) as (servers, chain):
        raw = servers[0].model.pay(SCRIPT, VALUE, mempool=False).serialize()
        for server in servers[1:]:
            server.refusal = "mempool min fee not met"
        with pytest.raises(BroadcastRefused, match="mempool min fee not met") as caught:
            await chain.broadcast(raw)
        assert servers[0].host not in str(caught.value)
        servers[1].refusal = ""
        await chain.broadcast(raw)


@asynchronous
async def test_a_liar_that_refuses_does_not_hide_that_the_others_took_a_settlement() -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        servers[0].refusal = "txn-mempool-conflict"
        await chain.broadcast(servers[0].model.pay(SCRIPT, VALUE, mempool=False).serialize())
        assert len(servers[1].received) == len(servers[2].received) == 1
