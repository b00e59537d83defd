"""The node backend against a real Bitcoin node: bcoin on regtest, with its own chain, mempool, scripts and reorganisations.

Answered by bcoin itself: gettxout, getrawtransaction, getblockchaininfo, blocks, what the mempool takes and why not.
Lent by tests/node/core-calls.js, so proven only in test_bitcoind_stand_in.py: the watching wallet, getnetworkinfo's version,
getindexinfo, estimatesmartfee's shape. Missing in bcoin: testmempoolaccept, gettransaction, replacement by fee.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bitcoin.core import CTxOut
from bitcoin.core.script import CScript
from coincurve import PrivateKey

from paychan.chain.base import UNKNOWN, BroadcastRefused, FundingRequest
from paychan.chain.bitcoind import BitcoindChain
from paychan.core.channel import ChannelTerms
from paychan.core.errors import Unavailable
from paychan.core.network import REGTEST, TEST, Network
from paychan.core.outpoint import make_outpoint, txid_of
from paychan.core.refund import sign_refund
from paychan.core.script import p2sh_script_pubkey, redeem_script
from paychan.core.sender import sign_payment
from paychan.core.settlement import settlement_txid, sign_settlement
from tests.node.bcoin_node import Funding, Node

SERVER, CLIENT = PrivateKey(b"\x01" * 32), PrivateKey(b"\x02" * 32)
VALUE = 10_000_000
FEE = 5_000
DESTINATION = b"\x76\xa9\x14" + b"\x33" * 20 + b"\x88\xac"
CHANGE = b"\x76\xa9\x14" + b"\x44" * 20 + b"\x88\xac"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as node:
        node.mine(130)
        yield node


class Backend:
    """A started backend whose methods run to their end; one event loop, as a worker has."""

    def __init__(self, node: Node, network: Network = REGTEST, wallet: str = "paychan-watch") -> None:
        self._loop = asyncio.new_event_loop()
        self.chain = BitcoindChain(node.host, node.port, network, user="x", password=node.api_key, wallet=wallet, timeout=10)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(coroutine)

    def close(self) -> None:
        self.run(self.chain.stop())
        self._loop.close()


@pytest.fixture
def backend(node: Node) -> Iterator[Backend]:
    backend = Backend(node)
    backend.run(backend.chain.start())
    yield backend
    backend.close()


@dataclass
class Channel:
    """A channel of its own script, by a distinct expiry, and what became of its funding."""

    node: Node
    exp_time: int

    def __post_init__(self) -> None:
        self.redeem = redeem_script(SERVER.public_key.format(), CLIENT.public_key.format(), self.exp_time)
        self.script = p2sh_script_pubkey(self.redeem)

    def request(self, outpoint: bytes | None = None) -> FundingRequest:
        return FundingRequest(CLIENT.public_key.format(), self.exp_time, self.script, outpoint)

    def fund(self, **how: Any) -> Funding:
        return self.node.fund(self.script, VALUE, **how)

    def terms(self, funding: Funding) -> ChannelTerms:
        keys = SERVER.public_key.format(), CLIENT.public_key.format()
        return ChannelTerms(funding.outpoint, *keys, self.exp_time, funding.value, CHANGE)


_expiry = 2_000_000_000


@pytest.fixture
def channel(node: Node) -> Channel:
    global _expiry
    _expiry += 1
    return Channel(node, _expiry)


def settlement(terms: ChannelTerms, change: int = 4_000_000) -> bytes:
    return sign_settlement(terms, sign_payment(terms, change, CLIENT), DESTINATION, FEE, SERVER)


@pytest.mark.parametrize("by_address", [False, True])
def test_funding_is_found_in_the_mempool_and_its_confirmations_counted(
    node: Node, backend: Backend, channel: Channel, by_address: bool
) -> None:
    assert backend.run(backend.chain.find_funding(channel.request())) == []
    funding = channel.fund()
    request = channel.request(None if by_address else funding.outpoint)
    (found,) = backend.run(backend.chain.find_funding(request))
    assert (found.outpoint, found.value, found.confirmations, found.is_coinbase) == (funding.outpoint, VALUE, 0, False)
    node.mine(3)
    (found,) = backend.run(backend.chain.find_funding(request))
    assert found.confirmations == 3


def test_an_address_that_nobody_paid_has_no_funding(backend: Backend, channel: Channel) -> None:
    assert backend.run(backend.chain.find_funding(channel.request())) == []


def test_all_outputs_at_one_address_are_found(node: Node, backend: Backend, channel: Channel) -> None:
    first = channel.fund(outputs=2)
    second = channel.fund()
    node.mine()
    found = backend.run(backend.chain.find_funding(channel.request()))
    expected = {first.outpoint, make_outpoint(first.txid, 1), second.outpoint}
    assert {output.outpoint for output in found} == expected and len(found) == 3


def test_a_machine_whose_wallet_was_never_asked_finds_what_was_paid_meanwhile(
    node: Node, backend: Backend, channel: Channel
) -> None:
    """Another machine has told the payer where to pay, and was asked first: this one looks back."""
    assert backend.run(backend.chain.find_funding(channel.request())) == []
    funding = channel.fund()
    node.mine(3)
    other = Backend(node, wallet="paychan-other")
    try:
        other.run(other.chain.start())
        (found,) = other.run(other.chain.find_funding(channel.request()))
    finally:
        other.close()
    assert (found.outpoint, found.confirmations) == (funding.outpoint, 3)


def test_an_output_to_another_script_is_no_funding(node: Node, backend: Backend, channel: Channel) -> None:
    other = Channel(node, channel.exp_time + 100_000)
    assert backend.run(backend.chain.find_funding(channel.request(other.fund().outpoint))) == []


def test_the_value_is_the_outputs_own(node: Node, backend: Backend, channel: Channel) -> None:
    for value in (20_999, 123_456_789, 1_000_000_001):
        funding = node.fund(channel.script, value)
        (found,) = backend.run(backend.chain.find_funding(channel.request(funding.outpoint)))
        assert found.value == value


def test_an_output_that_does_not_exist_is_no_funding(backend: Backend, channel: Channel) -> None:
    funding = channel.fund()
    beyond = make_outpoint(funding.txid, 9)
    assert backend.run(backend.chain.find_funding(channel.request(beyond))) == []
    assert backend.run(backend.chain.find_funding(channel.request(make_outpoint(b"\x55" * 32, 0)))) == []


def test_a_coinbase_to_the_channel_is_found_and_marked(node: Node, backend: Backend, channel: Channel) -> None:
    (block,) = node.mine(script=channel.script)
    txid = bytes.fromhex(node.rpc("getblock", block)["tx"][0])[::-1]
    (found,) = backend.run(backend.chain.find_funding(channel.request(make_outpoint(txid, 0))))
    assert found.is_coinbase and found.confirmations == 1
    assert backend.run(backend.chain.find_funding(channel.request())) == []  # by address: not before it is mature


@pytest.mark.parametrize("by_address", [False, True])
def test_funding_that_the_mempool_has_spent_is_not_offered(
    node: Node, backend: Backend, channel: Channel, by_address: bool
) -> None:
    assert backend.run(backend.chain.find_funding(channel.request())) == []
    funding = channel.fund()
    node.mine()
    backend.run(backend.chain.broadcast(settlement(channel.terms(funding))))
    request = channel.request(None if by_address else funding.outpoint)
    assert node.rpc("gettxout", funding.txid[::-1].hex(), 0) is not None  # bcoin's fault, which the backend sees through
    assert backend.run(backend.chain.find_funding(request)) == []


def test_a_double_spent_funding_disappears(node: Node, backend: Backend, channel: Channel) -> None:
    funding = channel.fund()
    terms = channel.terms(funding)
    assert backend.run(backend.chain.funding_status(terms)).confirmations == 0
    theft = node.sign(node.coin_of(funding.raw), [CTxOut(1_000_000, CScript(DESTINATION))])
    node.mine(1, transactions=(theft,), mempool=False)
    status = backend.run(backend.chain.funding_status(terms))
    assert (status.confirmations, status.is_spent) == (UNKNOWN, False)
    assert backend.run(backend.chain.find_funding(channel.request(funding.outpoint))) == []


def test_funding_status_follows_the_settlement_from_mempool_to_block_and_back(
    node: Node, backend: Backend, channel: Channel
) -> None:
    chain, run = backend.chain, backend.run
    funding = channel.fund()
    node.mine(2)
    terms = channel.terms(funding)
    unspent = run(chain.funding_status(terms))
    assert (unspent.confirmations, unspent.is_spent, unspent.spent_by) == (2, False, b"")
    raw = settlement(terms)
    txid = settlement_txid(raw)
    assert run(chain.confirmations(terms, txid)) == UNKNOWN
    run(chain.broadcast(raw))
    status = run(chain.funding_status(terms))
    assert (status.confirmations, status.is_spent, status.spent_by, status.spent_confirmations) == (2, True, txid, 0)
    assert run(chain.confirmations(terms, txid)) == 0
    node.mine(2)
    status = run(chain.funding_status(terms, txid))
    assert (status.confirmations, status.is_spent, status.spent_by, status.spent_confirmations) == (4, True, txid, 2)
    assert run(chain.confirmations(terms, txid)) == 2
    unnamed = run(chain.funding_status(terms))
    assert (unnamed.confirmations, unnamed.is_spent, unnamed.spent_by) == (4, True, b"")
    node.reorganise(2)  # three empty blocks instead: the settlement waits again
    status = run(chain.funding_status(terms, txid))
    assert (status.confirmations, status.is_spent, status.spent_by, status.spent_confirmations) == (5, True, txid, 0)
    assert run(chain.confirmations(terms, txid)) == 0


def test_a_refund_that_wins_by_reorganisation_is_seen_as_another_spender(node: Node, backend: Backend, channel: Channel) -> None:
    short = Channel(node, node.median_time - 10_000)
    funding = short.fund()
    node.mine()
    terms = short.terms(funding)
    raw, refund = settlement(terms), sign_refund(terms, FEE, CLIENT)
    backend.run(backend.chain.broadcast(raw))
    node.mine()
    node.reorganise(1, refund)
    txid = settlement_txid(raw)
    assert backend.run(backend.chain.confirmations(terms, txid)) == UNKNOWN
    status = backend.run(backend.chain.funding_status(terms, txid))
    assert (status.confirmations, status.is_spent, status.spent_by) == (3, True, b"")
    named = backend.run(backend.chain.funding_status(terms, settlement_txid(refund)))
    assert (named.spent_by, named.spent_confirmations) == (settlement_txid(refund), 2)


def test_a_funding_reorganised_away_counts_zero_again(node: Node, backend: Backend, channel: Channel) -> None:
    funding = channel.fund()
    node.mine()
    assert backend.run(backend.chain.funding_status(channel.terms(funding))).confirmations == 1
    node.reorganise(1)
    assert backend.run(backend.chain.funding_status(channel.terms(funding))).confirmations == 0
    node.mine()
    assert backend.run(backend.chain.funding_status(channel.terms(funding))).confirmations == 1


@pytest.mark.parametrize("when", ["in the mempool", "confirmed", "spent"])
def test_the_funding_transaction_is_given_whole(node: Node, backend: Backend, channel: Channel, when: str) -> None:
    funding = channel.fund()
    terms = channel.terms(funding)
    if when != "in the mempool":
        node.mine(2)
    if when == "spent":
        backend.run(backend.chain.broadcast(settlement(terms)))
        node.mine()
    assert backend.run(backend.chain.funding_transaction(terms)) == funding.raw


def test_a_funding_transaction_that_the_node_lacks_is_unavailable(backend: Backend, channel: Channel) -> None:
    kept = channel.fund(send=False)
    with pytest.raises(Unavailable, match="does not have the funding transaction"):
        backend.run(backend.chain.funding_transaction(channel.terms(kept)))


def test_broadcasting_again_is_no_error_in_mempool_block_or_after_being_spent(
    node: Node, backend: Backend, channel: Channel
) -> None:
    funding = channel.fund()
    raw = settlement(channel.terms(funding))
    for _ in range(2):
        backend.run(backend.chain.broadcast(raw))
    assert raw.hex() == node.rpc("getrawtransaction", settlement_txid(raw)[::-1].hex())
    node.mine()
    backend.run(backend.chain.broadcast(raw))
    spent = node.fund(node.script, 2_000_000)
    onward = node.sign(spent.outpoint, [CTxOut(1_900_000, CScript(DESTINATION))])
    backend.run(backend.chain.broadcast(onward))
    node.mine()
    backend.run(backend.chain.broadcast(onward))


def _bad_signature(terms: ChannelTerms) -> bytes:
    raw = bytearray(settlement(terms))
    raw[60] ^= 1  # inside the payer's signature
    return bytes(raw)


def test_a_bad_signature_is_refused_with_the_nodes_reason(node: Node, backend: Backend, channel: Channel) -> None:
    terms = channel.terms(channel.fund())
    with pytest.raises(BroadcastRefused, match="script-verify-flag"):
        backend.run(backend.chain.broadcast(_bad_signature(terms)))
    assert backend.run(backend.chain.funding_status(terms)).is_spent is False


def test_a_dust_output_is_refused_with_the_nodes_reason(node: Node, backend: Backend) -> None:
    coin = node.fund(node.script, 1_000_000)
    with pytest.raises(BroadcastRefused, match="dust"):
        backend.run(backend.chain.broadcast(node.sign(coin.outpoint, [CTxOut(100, CScript(DESTINATION))])))


def test_missing_inputs_are_refused(backend: Backend, channel: Channel) -> None:
    terms = channel.terms(channel.fund(send=False))
    with pytest.raises(BroadcastRefused, match="missing"):
        backend.run(backend.chain.broadcast(settlement(terms)))


def test_a_second_settlement_beside_the_first_is_refused(backend: Backend, channel: Channel) -> None:
    terms = channel.terms(channel.fund())
    backend.run(backend.chain.broadcast(settlement(terms)))
    with pytest.raises(BroadcastRefused, match="spent"):
        backend.run(backend.chain.broadcast(settlement(terms, change=3_000_000)))


def test_no_transaction_at_all_is_refused(backend: Backend) -> None:
    with pytest.raises(BroadcastRefused):
        backend.run(backend.chain.broadcast(b"\x01\x00"))


def test_a_refund_is_refused_until_the_median_time_has_passed_its_expiry(node: Node, backend: Backend) -> None:
    last = node.rpc("getblockheader", node.rpc("getbestblockhash"))["time"]
    channel = Channel(node, last + 3600)
    terms = channel.terms(channel.fund())
    node.mine()
    refund = sign_refund(terms, FEE, CLIENT)
    with pytest.raises(BroadcastRefused, match="non-final"):
        backend.run(backend.chain.broadcast(refund))
    node.set_time(channel.exp_time + 1)
    mined = 0
    while node.median_time <= channel.exp_time and mined < 12:
        with pytest.raises(BroadcastRefused, match="non-final"):
            backend.run(backend.chain.broadcast(refund))
        node.mine()
        mined += 1
    assert mined == 6
    backend.run(backend.chain.broadcast(refund))
    node.mine()
    assert backend.run(backend.chain.confirmations(terms, settlement_txid(refund))) == 1


def test_the_tip_is_the_nodes_with_its_median_time(node: Node, backend: Backend) -> None:
    (block,) = node.mine()
    if (header := node.rpc("getblockheader", block))["mediantime"] == header["time"]:  # six blocks of one second
        (block,) = node.mine()  # must be later
        header = node.rpc("getblockheader", block)
    tip = backend.run(backend.chain.tip())
    assert (tip.height, tip.block_hash[::-1].hex()) == (node.height, block)
    assert (tip.time, tip.median_time_past) == (header["time"], header["mediantime"])
    assert tip.median_time_past < tip.time


def test_a_node_that_has_seen_too_little_has_no_estimate(node: Node, backend: Backend) -> None:
    assert backend.run(backend.chain.fee_per_byte(6)) is None


def test_a_node_of_another_network_is_refused(node: Node) -> None:
    backend = Backend(node, TEST)
    with pytest.raises(Unavailable, match="another network than test"):
        backend.run(backend.chain.start())
    backend.close()


def test_a_wrong_password_is_unavailable_and_not_shown(node: Node) -> None:
    backend = Backend(node)
    backend.chain = BitcoindChain(node.host, node.port, REGTEST, user="x", password="hunter22", timeout=5)
    with pytest.raises(Unavailable, match="credentials") as caught:
        backend.run(backend.chain.start())
    assert "hunter22" not in str(caught.value)
    backend.close()


def test_a_killed_node_is_unavailable_and_serves_again_when_it_is_back(tmp_path: Path) -> None:
    with Node(blocks_file=tmp_path / "blocks") as node:
        node.mine(105)
        backend = Backend(node)
        backend.run(backend.chain.start())
        channel = Channel(node, _expiry + 500_000)
        assert backend.run(backend.chain.find_funding(channel.request())) == []
        funding = channel.fund()
        node.mine(2)
        height = node.height
        node.kill()
        for call in (backend.chain.tip(), backend.chain.find_funding(channel.request(funding.outpoint))):
            with pytest.raises(Unavailable, match="cannot be reached|closed the connection|broke off"):
                backend.run(call)
        node.start()
        assert backend.run(backend.chain.tip()).height == height
        (found,) = backend.run(backend.chain.find_funding(channel.request(funding.outpoint)))
        assert found.confirmations == 2
        (found,) = backend.run(backend.chain.find_funding(channel.request()))  # its wallet is gone: made and filled anew
        assert txid_of(found.outpoint) == funding.txid
        backend.close()


def test_many_requests_share_few_connections(node: Node, backend: Backend) -> None:
    channels = [Channel(node, _expiry + 1_000_000 + at) for at in range(40)]

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(backend.chain.find_funding(channel.request()) for channel in channels))

    assert backend.run(all_at_once()) == [[]] * 40
