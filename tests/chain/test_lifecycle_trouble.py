"""Aim: reorganisations, double spends, refunds and a node that is away cost no acknowledged money and are named to whoever asks.
Method: the whole system beside a real node, whose chain the tests rewrite and whose process they kill.
"""

from contextlib import suppress

import pytest
from bitcoin.core import CTransaction, CTxOut
from bitcoin.core.script import CScript

from paychan.core.outpoint import format_outpoint
from paychan.core.refund import sign_refund
from paychan.core.sender import sign_payment
from paychan.core.settlement import sign_settlement
from tests.chain.regtest_system import DAY, DEPTH, HOUR, SERVER_KEY, regtest
from tests.node.bcoin_node import NodeError
from tests.system import wait_until

ELSEWHERE = b"\x76\xa9\x14" + b"\x55" * 20 + b"\x88\xac"
REFUND_FEE = 1000
CHANGES = {"settlement": {"period_hours": "1"}, "open": {"duration_hours_min": "0"}}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    with regtest(tmp_path_factory.mktemp("trouble"), CHANGES) as chain:
        yield chain


@pytest.fixture(autouse=True)
def mended(chain):
    """Leave the next test a node that runs and can be reached."""
    yield
    chain.gate.open()
    if not chain.node.pid:
        chain.node.start()
    wait_until(lambda: chain.system.ready_workers() == 1, 20, "being ready again")


def wait_for_payment(channel, status: int, code: str, seconds: float = 15) -> None:
    """Wait until a payment of nothing more is answered so."""

    def is_so() -> bool:
        with suppress(OSError):
            answer = channel.pay(0)
            return (answer.status, answer.code) == (status, code)
        return False

    wait_until(is_so, seconds, f"{channel.name}: {status} {code}")


# --- the funding transaction goes ---


def test_a_funding_that_is_reorganised_away_freezes_its_channel_until_it_is_mined_again(chain):
    channel = chain.channel("frozen").opened()
    steady = chain.channel("steady")
    assert channel.pay().status == 200
    chain.node.reorganise(1)
    wait_for_payment(channel, 503, "funding_disappeared")
    assert "not confirmed any more" in channel.pay().json["detail"]
    wait_until(lambda: chain.logged(f"{format_outpoint(channel.terms.outpoint)} has disappeared"), 10, "the log")
    chain.node.mine()
    wait_for_payment(channel, 200, "")
    assert channel.newest.change_value == channel.terms.funding_value - 101_000  # nothing was lost meanwhile
    steady.opened()
    assert channel.pay().status == 200
    assert channel.close().status == 202
    chain.node.mine()
    chain.check_spender(channel)


def test_a_funding_that_is_reorganised_into_a_later_block_goes_on_being_paid_on(chain):
    channel = chain.channel("moved")
    funding = channel.fund()
    channel.checked_open()
    chain.node.reorganise(1, funding.raw)
    for _ in range(3):
        assert channel.pay().status == 200
    assert channel.close().status == 202
    chain.node.mine()
    chain.check_spender(channel)


def test_a_funding_that_is_double_spent_by_a_reorganisation_takes_no_more_payments(chain):
    channel, other = chain.channel("stolen"), chain.channel("untouched").opened()
    funding = channel.fund()
    channel.checked_open()
    assert channel.pay().status == 200
    theft = chain.node.sign(chain.node.coin_of(funding.raw), [CTxOut(1_000_000, CScript(ELSEWHERE))])
    chain.node.reorganise(1, theft)
    wait_for_payment(channel, 503, "funding_disappeared")
    chain.node.mine(DEPTH)
    wait_for_payment(channel, 503, "funding_disappeared")
    assert channel.open(named=True).code == "channel_exists"
    assert channel.close().status == 503
    assert channel.pay().code == "channel_closing"
    assert chain.spender(channel) is None
    assert other.pay().status == 200


def test_a_funding_output_that_somebody_spent_takes_no_more_payments_and_its_channel_ends(chain):
    channel = chain.channel("spent").opened()
    assert channel.pay().status == 200
    early = sign_payment(channel.terms, channel.terms.funding_value - 50_000, channel.sender.key)
    spend = sign_settlement(channel.terms, early, ELSEWHERE, 2000, SERVER_KEY)  # as whoever stole the server's key could
    chain.node.mine(transactions=(spend,), mempool=False)
    wait_until(lambda: channel.pay(0).status == 410, 15, "refusing payments")
    assert channel.pay().code in ("funding_spent", "channel_closing")
    wait_until(lambda: chain.logged(f"{format_outpoint(channel.terms.outpoint)} has been spent"), 10, "the log")
    channel.wait_for("channel_closing")
    answer = channel.close()
    assert (answer.status, answer.code) == (410, "funding_spent")
    chain.node.mine(DEPTH)
    channel.wait_for("no_such_payment")
    assert not chain.logged(f"signed {format_outpoint(channel.terms.outpoint)}")  # it would have been in vain


# --- the node goes ---


def test_without_the_node_nothing_opens_and_only_what_is_far_from_its_expiry_is_paid_on(chain):
    far, near = chain.channel("far", DAY), chain.channel("near", 5 * HOUR)
    late, new = chain.channel("late"), chain.channel("new")
    for channel in (far, near, late):
        channel.fund(confirmations=0)
    chain.node.mine()
    height = chain.node.height  # each worker sees the block before the channels open: their funding needs no second look
    wait_until(lambda: all(chain.ready().json["chain"]["height"] == height for _ in range(8)), 15, "the block to be seen")
    for channel in (far, near):
        channel.checked_open()
        assert channel.pay().status == 200
    chain.node.kill()
    answer = late.open()
    assert (answer.status, answer.code) == (503, "chain_unavailable"), answer.body
    wait_for_payment(near, 503, "chain_unavailable")
    answer = chain.ready()
    assert (answer.status, answer.code) == (503, "chain_unavailable"), answer.body
    assert "Bitcoin node" in answer.json["detail"]
    assert chain.logged("chain source: The Bitcoin node")
    for _ in range(5):
        assert far.pay().status == 200
    assert late.open().code == "chain_unavailable"
    assert new.ask_address().code == "chain_unavailable"
    chain.node.start()
    wait_until(lambda: chain.ready().status == 200, 15, "being ready again")
    for channel in (far, near):
        assert channel.pay().status == 200
    late.checked_open()


def test_without_the_node_a_channel_whose_funding_was_not_looked_at_since_the_start_takes_no_payment(chain):
    channel = chain.channel("unchecked").opened()
    assert channel.pay().status == 200
    chain.node.kill()
    chain.system.kill("worker")
    wait_for_payment(channel, 503, "chain_unavailable", 20)
    chain.node.start()
    wait_for_payment(channel, 200, "", 20)


# --- the payer's refund ---


def test_a_refund_is_refused_before_the_expiry_and_accepted_after_it_and_ends_the_channel(chain):
    channel = chain.channel("refunded", 300).opened()
    assert channel.pay().status == 200
    refund = sign_refund(channel.terms, REFUND_FEE, channel.sender.key)
    chain.gate.is_shut = True  # a server that sees no chain for so long cannot settle
    for until in (channel.terms.exp_time - 600, channel.terms.exp_time):
        chain.pass_time(until - 1)
        with pytest.raises(NodeError, match="non-final"):
            chain.node.rpc("sendrawtransaction", refund.hex())
        assert chain.spender(channel) is None
    chain.pass_time(channel.terms.exp_time + 1)
    chain.node.rpc("sendrawtransaction", refund.hex())
    chain.node.mine()
    spender = chain.spender(channel, mempool=False)
    assert spender == CTransaction.deserialize(refund)
    assert [output.nValue for output in spender.vout] == [channel.terms.funding_value - REFUND_FEE]
    chain.gate.open()
    channel.wait_for("channel_closing")
    # the depth of a spender that the node does not name counts from when the channel's owner first saw the spend
    wait_until(lambda: channel.close().code == "funding_spent", 15, "seeing the spend")
    chain.node.mine(DEPTH)
    channel.wait_for("no_such_payment")
    assert chain.ready().status == 200


def test_bitcoin_core_accepts_all_blocks_of_this_chain(chain):
    assert chain.replay_in_core() == chain.node.height
