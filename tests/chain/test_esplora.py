"""Aim: the Esplora backend believes what enough servers say, and nothing else. Method: stand-ins made from the API's
documentation, one to four of them, over real sockets; each test changes what some of them tell. The pure rules are in
test_esplora_agreement.py, malformed answers in test_esplora_answers.py."""

import asyncio
import functools
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from bitcoin.core import CTransaction, CTxOut
from bitcoin.core.script import CScript

from paychan.chain import proof
from paychan.chain.base import (
    FUNDING_OUTPUTS_MAX,
    UNKNOWN,
    BroadcastRefused,
    FundingOutput,
    FundingRequest,
    FundingStatus,
    Spender,
)
from paychan.chain.esplora import PROOFS_MAX, EsploraChain
from paychan.core.channel import ChannelTerms
from paychan.core.errors import Unavailable
from paychan.core.funding import STRIPPED_SIZE_MAX, WHOLE_SIZE_MAX
from paychan.core.network import REGTEST, Network
from paychan.core.outpoint import make_outpoint
from paychan.core.script import p2sh_script_pubkey
from tests.chain.esplora_stand_in import BLOCK_SECONDS, START, EsploraStandIn, TinyChain, display

SERVER, CLIENT, EXP_TIME = b"\x02" * 33, b"\x03" * 33, 1_800_000_000
VALUE = 5_000_000
SCRIPT = p2sh_script_pubkey(ChannelTerms(bytes(36), SERVER, CLIENT, EXP_TIME, VALUE, b"").redeem_script)
SHORT = 0.3
"""Seconds that a silent server is waited for."""


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        asyncio.run(asyncio.wait_for(test(**arguments), 30))

    return run


@asynccontextmanager
async def servers_and_chain(
    count: int, agree: int, timeout: float = 5.0, network: Network = REGTEST, prefix: str = ""
) -> AsyncIterator[tuple[list[EsploraStandIn], EsploraChain]]:
    """Servers that tell one chain of a few blocks, and a backend on them."""
    model = TinyChain(network.name)
    model.mine(count=5)
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(EsploraStandIn(model, prefix)) for _ in range(count)]
        chain = EsploraChain(tuple(server.url for server in servers), agree, network, timeout=timeout)
        stack.push_async_callback(chain.stop)
        yield servers, chain


def outpoint_of(transaction: CTransaction, vout: int = 0) -> bytes:
    return make_outpoint(transaction.GetTxid(), vout)


def terms_of(transaction: CTransaction, vout: int = 0) -> ChannelTerms:
    return ChannelTerms(outpoint_of(transaction, vout), SERVER, CLIENT, EXP_TIME, VALUE, b"")


def by_script(script: bytes = SCRIPT) -> FundingRequest:
    return FundingRequest(CLIENT, EXP_TIME, script)


def by_outpoint(outpoint: bytes) -> FundingRequest:
    return FundingRequest(CLIENT, EXP_TIME, SCRIPT, outpoint)


async def refusal_of(question: Awaitable[object]) -> str:
    """Return the detail of the Unavailable that a question ends in."""
    with pytest.raises(Unavailable) as caught:
        await question
    assert caught.value.code == "chain_unavailable"
    return caught.value.detail


# --- starting, and the tip ---


@asynchronous
async def test_start_accepts_servers_of_the_right_network_below_a_path() -> None:
    async with servers_and_chain(2, 2, prefix="/testnet/api") as (servers, chain):
        await chain.start()
        assert servers[0].requests == ["GET /testnet/api/block-height/0"]


@asynchronous
async def test_wrong_network_counts_as_no_answer() -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        servers[0].model = TinyChain("live")
        await chain.start()
        servers[1].model = TinyChain("test")
        detail = await refusal_of(chain.start())
        assert f"{servers[0].host} is of another network than regtest" in detail
        assert "1 where 2 must agree" in detail


@asynchronous
async def test_a_server_that_was_silent_at_start_is_of_no_use_until_its_network_is_known() -> None:
    async with servers_and_chain(2, 1, timeout=SHORT) as (servers, chain):
        servers[1].silent = True
        await chain.start()
        servers[1].silent, servers[1].model = False, TinyChain("live")
        assert (await chain.tip()).height == 5
        assert set(servers[1].requests) == {"GET /block-height/0"}


@asynchronous
async def test_tip_tells_height_hash_time_and_median_time_past() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        servers[0].model.mine(count=20)
        tip = await chain.tip()
        assert (tip.height, tip.time) == (25, START + 25 * BLOCK_SECONDS)
        assert tip.median_time_past == START + 20 * BLOCK_SECONDS
        assert tip.block_hash[::-1].hex() == servers[0].model.blocks[-1][0]


@asynchronous
async def test_tip_of_a_new_chain_is_its_first_block() -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        servers[0].model = TinyChain()
        assert (await chain.tip()).height == 0


@asynchronous
async def test_tip_is_the_best_block_that_enough_servers_have() -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        servers[0].model = servers[0].model.copy()
        servers[0].model.mine(count=3)
        assert (await chain.tip()).height == 5
        servers[1].model.mine()
        assert (await chain.tip()).height == 6


@asynchronous
async def test_two_servers_far_apart_contradict_each_other() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        servers[1].model = servers[1].model.copy()
        servers[1].model.mine(count=10)
        detail = await refusal_of(chain.tip())
        assert detail.startswith("The Esplora servers contradict each other: ")
        assert f"{servers[1].host} is at height 15" in detail


@asynchronous
async def test_one_liar_cannot_turn_the_clock() -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        honest = await chain.tip()
        liar = servers[0].model = servers[0].model.copy()
        liar.blocks[-1] = (liar.blocks[-1][0], START + 10**8, [])
        liar.blocks[-3:-1] = [(block[0], START + 10**8, []) for block in liar.blocks[-3:-1]]
        assert await chain.tip() == honest


@asynchronous
async def test_a_reorganisation_that_all_servers_saw_is_followed() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        before = await chain.tip()
        servers[0].model.reorganise(2)
        servers[0].model.mine(count=2)
        after = await chain.tip()
        assert after.height == before.height and after.block_hash != before.block_hash


@asynchronous
async def test_a_reorganisation_that_one_of_two_saw_leaves_the_common_block() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        servers[1].model = servers[1].model.copy()
        servers[1].model.reorganise(2)
        servers[1].model.mine(count=3)
        assert (await chain.tip()).height == 3


# --- silence ---


@asynchronous
async def test_one_silent_server_of_three_is_tolerated_in_every_question() -> None:
    async with servers_and_chain(3, 2, timeout=SHORT) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        servers[2].silent = True
        await chain.start()
        assert (await chain.tip()).height == 5
        assert len(await chain.find_funding(by_script())) == 1
        assert len(await chain.find_funding(by_outpoint(outpoint_of(funding)))) == 1
        assert await chain.funding_status(terms_of(funding)) == FundingStatus(0)
        assert await chain.funding_transaction(terms_of(funding)) == funding.serialize()
        assert await chain.fee_per_byte(6) == 69
        await chain.broadcast(servers[0].model.spend(funding, mempool=False).serialize())


@asynchronous
async def test_two_silent_servers_of_three_are_not() -> None:
    async with servers_and_chain(3, 2, timeout=SHORT) as (servers, chain):
        servers[1].silent = servers[2].silent = True
        detail = await refusal_of(chain.tip())
        assert f"{servers[1].host} did not answer in time" in detail and servers[0].host not in detail


@asynchronous
async def test_a_slow_server_is_not_waited_for_once_enough_agree() -> None:
    async with servers_and_chain(3, 2, timeout=20) as (servers, chain):
        servers[0].silent = True
        started = asyncio.get_running_loop().time()
        await chain.tip()
        assert asyncio.get_running_loop().time() - started < 10


@asynchronous
async def test_a_third_server_decides_between_two_however_late() -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        servers[1].model = servers[1].model.copy()
        servers[1].model.spend(funding)
        release = asyncio.Event()
        answer = servers[2]._serve

        async def late(*streams: Any) -> None:
            await release.wait()
            await answer(*streams)

        servers[2]._serve = late  # type: ignore[method-assign]
        asking = asyncio.create_task(chain.funding_status(terms_of(funding)))
        await asyncio.wait([asking], timeout=1.0)
        assert not asking.done()  # two answers, past the grace: undecided
        release.set()
        assert await asking == FundingStatus(0)


@asynchronous
async def test_servers_that_are_gone_are_named_without_a_traceback() -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        await servers[0].__aexit__()
        assert f"{servers[0].host} cannot be reached" in await refusal_of(chain.tip())


@asynchronous
async def test_trouble_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        servers[0].overrides["/blocks"] = (503, "busy")
        for _ in range(3):
            await chain.tip()
        servers[0].overrides.clear()
        await chain.tip()
        assert [record.message for record in caplog.records if record.name == "paychan.chain"] == [
            f"Esplora server: {servers[0].host} answers with HTTP status 503",
            f"Esplora server {servers[0].host} answers again",
        ]


# --- finding funding ---


@asynchronous
async def test_funding_is_found_by_script_and_by_outpoint_in_mempool_and_chain() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, 700, VALUE)
        outpoint = outpoint_of(funding, 1)
        for confirmations in (0, 1, 2):
            expected = FundingOutput(outpoint, VALUE, confirmations)
            assert await chain.find_funding(by_outpoint(outpoint)) == [expected]
            small = FundingOutput(outpoint_of(funding, 0), 700, confirmations)
            assert await chain.find_funding(by_script()) == [expected, small]
            servers[0].model.mine()


@asynchronous
async def test_nothing_is_found_where_nothing_pays_to_the_script() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        other = servers[0].model.pay(b"\xa9\x14" + bytes(20) + b"\x87", VALUE)
        assert await chain.find_funding(by_script()) == []
        assert await chain.find_funding(by_outpoint(outpoint_of(other))) == []
        assert await chain.find_funding(by_outpoint(outpoint_of(other, 7))) == []
        assert await chain.find_funding(by_outpoint(make_outpoint(b"\x07" * 32, 0))) == []


@asynchronous
async def test_a_mempool_spend_takes_the_output_away() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        servers[0].model.mine()
        servers[0].model.spend(funding)
        assert await chain.find_funding(by_script()) == []
        assert await chain.find_funding(by_outpoint(outpoint_of(funding))) == []


@asynchronous
async def test_coinbase_outputs_are_told_as_such() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        coinbase = servers[0].model.pay(SCRIPT, VALUE, coinbase=True)
        servers[0].model.mine(coinbase)
        expected = [FundingOutput(outpoint_of(coinbase), VALUE, 1, is_coinbase=True)]
        assert await chain.find_funding(by_script()) == expected
        assert await chain.find_funding(by_outpoint(outpoint_of(coinbase))) == expected


@asynchronous
async def test_many_small_outputs_do_not_crowd_out_the_payers() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        servers[0].model.pay(SCRIPT, *[700] * 50)
        funding = servers[0].model.pay(SCRIPT, VALUE)
        servers[0].model.pay(SCRIPT, *[701] * 50)
        found = await chain.find_funding(by_script())
        assert len(found) == FUNDING_OUTPUTS_MAX
        assert found[0].outpoint == outpoint_of(funding)


@asynchronous
async def test_an_output_that_one_of_two_servers_shows_is_a_contradiction() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        servers[1].model = servers[1].model.copy()
        funding = servers[1].model.pay(SCRIPT, VALUE)
        servers[1].model.mine()
        for request in (by_script(), by_outpoint(outpoint_of(funding))):
            detail = await refusal_of(chain.find_funding(request))
            assert "contradict each other" in detail and servers[1].host in detail


@asynchronous
async def test_one_liar_of_three_neither_invents_nor_hides_funding() -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        real = servers[1].model.pay(SCRIPT, VALUE)
        servers[1].model.mine()
        liar = servers[0].model = TinyChain()
        liar.mine(count=100)
        invented = liar.pay(SCRIPT, 10 * VALUE, mempool=False)
        liar.mine(invented)
        assert await chain.find_funding(by_script()) == [FundingOutput(outpoint_of(real), VALUE, 1)]
        assert await chain.find_funding(by_outpoint(outpoint_of(real))) == [FundingOutput(outpoint_of(real), VALUE, 1)]
        assert await chain.find_funding(by_outpoint(outpoint_of(invented))) == []


@asynchronous
async def test_one_liar_of_three_cannot_add_confirmations() -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        funding = servers[1].model.pay(SCRIPT, VALUE)
        servers[0].model = servers[0].model.copy()
        servers[0].model.mine(count=100)
        assert await chain.find_funding(by_script()) == [FundingOutput(outpoint_of(funding), VALUE, 0)]
        assert await chain.funding_status(terms_of(funding)) == FundingStatus(0)


@asynchronous
async def test_an_amount_that_all_servers_lie_about_is_caught_by_the_transaction() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        row = servers[0]._unspent(sha256(SCRIPT).hexdigest())[0]
        row["value"] = VALUE + 1
        for server in servers:
            server.overrides["/scripthash"] = (200, json.dumps([row]))
        assert "list an output otherwise" in await refusal_of(chain.find_funding(by_script()))
        (found,) = await chain.find_funding(by_outpoint(outpoint_of(funding)))
        assert found.value == VALUE


@asynchronous
@pytest.mark.parametrize("value", [0, 21_000_000 * 10**8])
async def test_amounts_at_the_edges_are_taken(value: int) -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, value)
        assert await chain.find_funding(by_script()) == [FundingOutput(outpoint_of(funding), value, 0)]


@asynchronous
@pytest.mark.parametrize("value", [-1, 21_000_000 * 10**8 + 1])
async def test_amounts_beyond_the_edges_are_refused_in_transactions_too(value: int) -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, value)
        assert await chain.find_funding(by_outpoint(outpoint_of(funding))) == []


# --- what became of funding ---


@asynchronous
async def test_funding_status_follows_a_spend_from_the_mempool_into_blocks() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        model = servers[0].model
        funding = model.pay(SCRIPT, VALUE)
        model.mine(count=2)
        assert await chain.funding_status(terms_of(funding)) == FundingStatus(2)
        spender = model.spend(funding)
        assert await chain.funding_status(terms_of(funding)) == FundingStatus(2, True, spender.GetTxid(), 0)
        model.mine()
        assert await chain.funding_status(terms_of(funding)) == FundingStatus(3, True, spender.GetTxid(), 1)


@asynchronous
async def test_a_funding_transaction_that_a_reorganisation_took_is_unknown_until_it_returns() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        model = servers[0].model
        funding = model.pay(SCRIPT, VALUE)
        model.mine(count=2)
        model.reorganise(2)
        assert await chain.funding_status(terms_of(funding)) == FundingStatus(0)
        model.mempool.clear()
        assert await chain.funding_status(terms_of(funding)) == FundingStatus(UNKNOWN)
        model.mine(funding)
        assert await chain.funding_status(terms_of(funding)) == FundingStatus(1)


@asynchronous
async def test_spent_on_one_of_two_servers_is_a_contradiction() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        servers[1].model = servers[1].model.copy()
        servers[1].model.spend(funding)
        assert "contradict each other" in await refusal_of(chain.funding_status(terms_of(funding)))


@asynchronous
async def test_our_own_settlement_seen_by_too_few_is_published_again() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        servers[1].model = servers[1].model.copy()
        settlement = servers[1].model.spend(funding)
        assert await chain.funding_status(terms_of(funding), settlement.GetTxid()) == FundingStatus(0)
        await chain.broadcast(settlement.serialize())
        status = await chain.funding_status(terms_of(funding), settlement.GetTxid())
        assert status == FundingStatus(0, True, settlement.GetTxid(), 0)


@asynchronous
async def test_one_liar_of_three_neither_ends_nor_delays_a_settlement() -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        funding = servers[1].model.pay(SCRIPT, VALUE)
        servers[1].model.mine()
        liar = servers[0].model = servers[0].model.copy()
        liar.spend(funding)
        liar.mine(count=50)
        assert await chain.funding_status(terms_of(funding)) == FundingStatus(1)


@asynchronous
async def test_two_spenders_on_two_servers_are_a_spend_without_a_name() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        servers[1].model = servers[1].model.copy()
        servers[0].model.spend(funding, value=1)
        servers[1].model.spend(funding, value=2)
        servers[1].model.mine(count=2)
        assert await chain.funding_status(terms_of(funding)) == FundingStatus(0, True, b"", 0)


@asynchronous
async def test_a_server_that_tells_of_a_spend_before_the_funding_is_understood() -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        spender = servers[0].model.spend(funding)
        servers[0].model.mine(count=2)
        servers[0].overrides[f"/tx/{display(funding.GetTxid())}/status"] = (200, '{"confirmed":false}')
        assert await chain.funding_status(terms_of(funding)) == FundingStatus(2, True, spender.GetTxid(), 2)


@asynchronous
@pytest.mark.parametrize("padding", [b"", b"\x00", bytes(600_000), bytes(WHOLE_SIZE_MAX - 200)], ids=len)
async def test_a_liar_cannot_pad_a_funding_transaction_with_witness(padding: bytes) -> None:
    """The id does not cover it; and the first answer whose id is right is taken."""
    async with servers_and_chain(3, 2) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        servers[0].witness, servers[1].silent, servers[2].silent = padding, True, True
        assert await chain.funding_transaction(terms_of(funding)) == funding.serialize()
        (found,) = await _alone(servers[0], lambda chain: chain.find_funding(by_outpoint(outpoint_of(funding))))
        assert found == FundingOutput(outpoint_of(funding), VALUE, 0)


async def _alone(server: EsploraStandIn, ask: Callable[[EsploraChain], Awaitable[Any]]) -> Any:
    """Ask one server alone."""
    chain = EsploraChain((server.url,), 1, REGTEST)
    try:
        return await ask(chain)
    finally:
        await chain.stop()


@asynchronous
async def test_a_funding_transaction_of_any_size_that_consensus_allows_is_taken_and_none_larger() -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        outputs = (STRIPPED_SIZE_MAX - 100) // len(CTxOut(VALUE, CScript(SCRIPT)).serialize())
        greatest = servers[0].model.pay(SCRIPT, *[VALUE] * outputs)
        servers[0].model.mine()
        servers[0].witness = b"\x00"
        last = outpoint_of(greatest, outputs - 1)
        assert await chain.find_funding(by_outpoint(last)) == [FundingOutput(last, VALUE, 1)]
        assert await chain.funding_transaction(terms_of(greatest)) == greatest.serialize()
        larger = servers[0].model.pay(SCRIPT, *[VALUE] * (outputs + 5))
        servers[0].model.mine()
        for witness in (b"", b"\x00"):
            servers[0].witness = witness
            assert "another transaction" in await refusal_of(chain.funding_transaction(terms_of(larger)))


@asynchronous
async def test_an_open_asks_for_its_transaction_once_and_no_more_are_kept_than_a_few() -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        fundings = [servers[0].model.pay(SCRIPT, VALUE + number) for number in range(PROOFS_MAX + 1)]
        for funding in fundings:
            await chain.find_funding(by_outpoint(outpoint_of(funding)))
            servers[0].requests.clear()
            assert await chain.funding_transaction(terms_of(funding)) == funding.serialize()
            assert servers[0].requests == []
        for funding, is_kept in ((fundings[0], False), (fundings[-1], True)):
            servers[0].requests.clear()
            await chain.funding_transaction(terms_of(funding))
            assert (servers[0].requests == []) == is_kept


@asynchronous
async def test_what_a_large_transaction_takes_to_read_no_other_question_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        large = servers[0].model.pay(SCRIPT, *[VALUE] * 5000)
        loop_thread, seen = threading.get_ident(), list[bool]()
        usual = proof.without_witness
        monkeypatch.setattr(
            proof, "without_witness", lambda *given: (seen.append(threading.get_ident() == loop_thread), usual(*given))[1]
        )
        assert await chain.funding_transaction(terms_of(large)) == large.serialize()
        assert await chain.funding_transaction(terms_of(servers[0].model.pay(SCRIPT, VALUE)))
        assert seen == [False, True]


@asynchronous
async def test_a_funding_transaction_is_proven_by_its_id() -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        funding, other = servers[0].model.pay(SCRIPT, VALUE), servers[0].model.pay(SCRIPT, VALUE)
        for server in servers[:2]:
            server.overrides["/tx/"] = (200, other.serialize().hex())
        assert await chain.funding_transaction(terms_of(funding)) == funding.serialize()
        servers[2].model = TinyChain()
        chain = EsploraChain(tuple(server.url for server in servers), 2, REGTEST)
        detail = await refusal_of(chain.funding_transaction(terms_of(funding)))
        await chain.stop()
        assert f"{servers[0].host}'s answer is not understood: it gave another transaction" in detail


# --- fees ---


@asynchronous
@pytest.mark.parametrize("blocks, fee", [(0, None), (1, 91), (2, 88), (5, 88), (6, 69), (9, 69), (12, 2), (1000, 1)])
async def test_fee_is_that_of_the_nearest_shorter_target_rounded_up(blocks: int, fee: int | None) -> None:
    async with servers_and_chain(1, 1) as (_, chain):
        assert await chain.fee_per_byte(blocks) == fee


@asynchronous
async def test_fee_is_the_median_of_the_servers_and_of_two_the_lower() -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        servers[0].fees, servers[1].fees, servers[2].fees = {"2": 900_000}, {"2": 12}, {}
        assert await chain.fee_per_byte(2) == 12
        servers[2].fees = {"2": 20.1}
        assert await chain.fee_per_byte(2) == 21
        servers[1].overrides["/fee-estimates"] = (503, "")
        assert await chain.fee_per_byte(2) == 21


@asynchronous
async def test_a_liar_beside_a_server_that_is_late_is_not_believed_a_higher_fee() -> None:
    async with servers_and_chain(3, 2, timeout=20) as (servers, chain):
        servers[0].fees, servers[1].fees, servers[2].silent = {"2": 900_000}, {"2": 12}, True
        assert await chain.fee_per_byte(2) == 12


NO_ESTIMATES: list[dict[str, float]] = [{}, {"144": 2.0, "1008": 1.0}]
"""What the explorers of two people's bug reports said, on the live network."""


@asynchronous
@pytest.mark.parametrize("fees", NO_ESTIMATES, ids=["empty", "sparse"])
async def test_servers_without_an_estimate_for_so_few_blocks_have_none(fees: dict[str, float]) -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        servers[0].fees = servers[1].fees = fees
        for third in (*NO_ESTIMATES, {"1": 900_000}):  # one alone is not believed
            servers[2].fees = third
            for blocks in (1, 2, 3, 6):
                assert await chain.fee_per_byte(blocks) is None
        servers[0].fees = servers[2].fees = {"2": 12}
        assert (await chain.fee_per_byte(1), await chain.fee_per_byte(6)) == (None, 12)


# --- broadcasting ---


@asynchronous
async def test_broadcast_reaches_every_server_and_may_be_repeated() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        servers[1].model = servers[1].model.copy()
        transaction = servers[0].model.pay(SCRIPT, VALUE, mempool=False)
        for _ in range(2):
            await chain.broadcast(transaction.serialize())
        assert [server.received for server in servers] == [[transaction.serialize()] * 2] * 2


@asynchronous
@pytest.mark.parametrize(
    "reason",
    [
        "txn-already-known",
        "txn-already-in-mempool",
        "Transaction already in block chain",
        "Transaction outputs already in utxo set",
    ],
)
async def test_broadcast_of_what_is_known_already_is_no_error(reason: str) -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        servers[0].refusal = reason
        await chain.broadcast(servers[0].model.pay(SCRIPT, VALUE).serialize())


@asynchronous
async def test_broadcast_of_what_is_in_a_block_and_spent_is_no_error() -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        transaction = servers[0].model.pay(SCRIPT, VALUE)
        servers[0].refusal = "bad-txns-inputs-missingorspent"
        with pytest.raises(BroadcastRefused):
            await chain.broadcast(transaction.serialize())
        servers[0].model.mine()
        await chain.broadcast(transaction.serialize())


@asynchronous
async def test_one_server_that_takes_a_transaction_is_enough() -> None:
    async with servers_and_chain(3, 2, timeout=SHORT) as (servers, chain):
        servers[0].refusal, servers[1].silent = "min relay fee not met", True
        await chain.broadcast(servers[0].model.pay(SCRIPT, VALUE).serialize())
        assert len(servers[2].received) == 1


@asynchronous
@pytest.mark.parametrize(("saying", "for_fee"), [(0, False), (1, False), (2, True), (3, True)])
async def test_that_a_transaction_pays_too_little_is_believed_of_enough_servers(saying: int, for_fee: bool) -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        for number, server in enumerate(servers):
            server.refusal = "insufficient fee, rejecting replacement" if number < saying else "bad-txns-inputs-missingorspent"
        with pytest.raises(BroadcastRefused) as caught:
            await chain.broadcast(servers[0].model.pay(SCRIPT, VALUE).serialize())
        assert caught.value.for_fee is for_fee


@asynchronous
async def test_a_spender_is_proven_by_its_bytes_and_nothing_is_believed_of_what_hangs_on_it() -> None:
    async with servers_and_chain(2, 2, timeout=SHORT) as (servers, chain):
        transaction = servers[0].model.pay(SCRIPT, VALUE)
        assert await chain.spender(transaction.GetTxid()) == Spender(transaction.serialize())
        assert await chain.spender(bytes(32)) == Spender()
        assert await chain.relay_fee_per_kb() is None


@asynchronous
async def test_refusals_carry_the_nodes_reason_cleaned_and_bounded_and_never_the_transaction() -> None:
    async with servers_and_chain(2, 2, timeout=SHORT) as (servers, chain):
        raw = servers[0].model.pay(SCRIPT, VALUE).serialize()
        servers[0].refusal = "min relay fee not met\r\n\x1b[31m" + raw.hex() + "x" * 10_000
        servers[1].silent = True
        with pytest.raises(BroadcastRefused) as caught:
            await chain.broadcast(raw)
        text = str(caught.value)
        assert "min relay fee not met" in text and servers[0].host in text
        assert len(text) <= 200 and text.isprintable() and raw.hex()[:65] not in text


@asynchronous
async def test_broadcast_that_no_server_answered_is_unavailable() -> None:
    async with servers_and_chain(2, 2, timeout=SHORT) as (servers, chain):
        servers[0].silent = True
        servers[1].overrides["/tx"] = (429, "Too many requests")
        detail = await refusal_of(chain.broadcast(servers[0].model.pay(SCRIPT, VALUE).serialize()))
        assert f"{servers[0].host} did not answer in time" in detail
        assert f"{servers[1].host} answers with HTTP status 429" in detail


@asynchronous
async def test_a_server_that_takes_another_transaction_has_not_taken_ours() -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        servers[0].overrides["/tx"] = (200, "ab" * 32)
        detail = await refusal_of(chain.broadcast(servers[0].model.pay(SCRIPT, VALUE).serialize()))
        assert "names another transaction" in detail


# --- connections ---


@asynchronous
async def test_connections_are_kept_and_made_anew_when_the_server_hung_up() -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        for _ in range(5):
            await chain.tip()
        assert servers[0].connections == 1
        await servers[0].hang_up()
        await chain.tip()
        assert servers[0].connections == 2


def certificate_of(address: str, directory: Path) -> tuple[str, ssl.SSLContext]:
    """Return the file of a new certificate for an IP address, and the context of who serves with it."""
    key, certificate = str(directory / f"{address}.key"), str(directory / f"{address}.pem")
    making = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=stand-in"]
    making += ["-addext", f"subjectAltName=IP:{address}", "-keyout", key, "-out", certificate]
    subprocess.run(making, check=True, capture_output=True)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    return certificate, serving


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
@asynchronous
async def test_https_serves_only_whom_the_certificate_names(tmp_path: Path) -> None:
    """No name is looked up for it: a small machine has none, not even localhost."""
    for address, is_named in (("127.0.0.1", True), ("127.0.0.2", False)):
        certificate, serving = certificate_of(address, tmp_path)
        async with EsploraStandIn(TinyChain(), tls=serving) as server:
            trusting = EsploraChain((server.url,), 1, REGTEST, tls=ssl.create_default_context(cafile=certificate))
            if is_named:
                for _ in range(2):
                    assert (await trusting.tip()).height == 0
                assert server.connections == 1
            else:
                assert "cannot prove who it is" in await refusal_of(trusting.tip())
            assert "cannot prove who it is" in await refusal_of(EsploraChain((server.url,), 1, REGTEST).tip())
            await trusting.stop()


@asynchronous
async def test_many_questions_at_once_share_a_few_connections() -> None:
    async with servers_and_chain(2, 2) as (servers, chain):
        fundings = [servers[0].model.pay(SCRIPT, VALUE) for _ in range(50)]
        servers[0].model.mine()
        found = await asyncio.gather(*(chain.funding_status(terms_of(funding)) for funding in fundings))
        assert found == [FundingStatus(1)] * 50
        assert all(server.connections <= 8 for server in servers)


@pytest.mark.parametrize(
    "url",
    ["ftp://a.example", "a.example", "https://", "https://u:p@a.example", "https://a.example/?x", "https://a.example/#x"]
    + ["https://a.example/a b", "https://a.example:port", "https://a.example/\r\nHost: b"],
)
def test_urls_that_are_more_or_less_than_a_place_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        EsploraChain((url,), 1, REGTEST)


def test_agreement_must_be_possible_and_not_with_oneself() -> None:
    for urls, agree in ((("http://a.example",), 0), (("http://a.example",), 2), (("http://a.example", "https://A.example/api"), 2)):
        with pytest.raises(ValueError):
            EsploraChain(urls, agree, REGTEST)
