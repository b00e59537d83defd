"""Aim: a channel opens on exactly the funding that the node knows, and on nothing else. Method: the whole system and a real node.

Not from the node but from tests/node/core-calls.js: the wallet that finds outputs by address.
"""

import http.client
import json
import threading

import pytest
from bitcoin.core import CTxOut
from bitcoin.core.script import CScript

from paychan.core.outpoint import format_outpoint, make_outpoint, txid_of
from paychan.core.sender import sign_payment
from paychan.core.settlement import sign_settlement
from tests.chain.regtest_system import OPEN_VALUE, SERVER_KEY, VALUE, Channel, regtest
from tests.system import wait_until

BITCOIN = 10**8
HALVING = 150  # blocks, on regtest
FUNDING_MAX = 30 * BITCOIN  # between the coinbases before it and after it
ELSEWHERE = b"\x76\xa9\x14" + b"\x55" * 20 + b"\x88\xac"
CHANGES = {
    "open": {
        "funding_value_max": str(FUNDING_MAX),
        "confirmations_from": f"[[{BITCOIN // 10}, 2], [{BITCOIN}, 4]]",
    },
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    with regtest(tmp_path_factory.mktemp("open"), CHANGES, workers=2) as chain:
        yield chain


def refused(channel: Channel, code: str, **how: object) -> str:
    """Check that opening is refused with 400 and this code, and changes nothing; return the detail."""
    answer = channel.open(**how)
    assert (answer.status, answer.code) == (400, code), answer.body
    outpoint = format_outpoint(channel.terms.outpoint)
    assert channel.client.request("PUT", f"/v1/channels/{outpoint}?payment=AA").status in (400, 404)
    return str(answer.json["detail"])


# --- what opens ---


def test_an_open_that_gave_up_everything_and_lost_its_answer_is_told_that_the_channel_exists(chain):
    channel = chain.channel("lost answer")
    channel.ask_address()
    channel.fund()
    assert channel.open(VALUE, named=True).status == 202
    again = channel.open(VALUE, named=True)  # the funding output is spent in the mempool by now
    assert (again.status, again.code) == (409, "channel_exists"), again.body


@pytest.mark.parametrize("named", [False, True], ids=["by-address", "by-outpoint"])
def test_a_confirmed_output_opens_a_channel_that_takes_payments(chain, named):
    channel = chain.channel(f"opens-{named}")
    info = channel.ask_address()
    assert (info.status, info.json["funding_tx_min_conf"]) == (200, 1)
    channel.fund()
    answer = channel.open(named=named)
    assert answer.status == 201, answer.body
    assert answer.json["channel_value_left"] == VALUE - OPEN_VALUE
    assert answer.headers["location"].endswith(f"/v1/channels/{format_outpoint(channel.terms.outpoint)}")
    assert [channel.pay().status for _ in range(3)] == [200] * 3
    again = channel.open(named=named)
    assert (again.status, again.code) == (409, "channel_exists")


def test_the_node_is_told_of_an_address_when_an_open_needs_it_and_not_before(chain):
    channels = [chain.channel(f"asked-{number}") for number in range(20)]
    before = chain.gate.seen["importdescriptors"]
    assert [channel.ask_address().status for channel in channels] == [200] * 20
    for number, named in ((0, True), (1, False)):
        assert chain.gate.seen["importdescriptors"] == before
        channels[number].fund()
        assert channels[number].open(named=named).status == 201
    assert chain.gate.seen["importdescriptors"] == before + 1


def test_both_of_two_outputs_at_one_address_open_and_each_by_the_payment_that_signs_for_it(chain):
    first = chain.channel("twice")
    funding = first.fund(outputs=2)
    second = Channel(chain, "twice", first.terms.exp_time)
    second.rest_on(make_outpoint(txid_of(funding.outpoint), 1), VALUE)
    second.checked_open(20_000)
    first.checked_open(30_000)
    for channel in (second, first):
        assert channel.pay(5000).status == 200
    assert second.newest.change_value == VALUE - 25_000 and first.newest.change_value == VALUE - 35_000


def test_of_two_outputs_of_different_values_the_one_is_taken_that_the_payment_signs_for(chain):
    channel = chain.channel("sizes")
    channel.fund(1_000_000)
    funding = channel.fund(3_000_000)
    channel.checked_open(50_000)
    assert channel.newest.change_value == 2_950_000
    assert channel.terms.outpoint == funding.outpoint


@pytest.mark.parametrize(("value", "needed"), [(BITCOIN // 10 - 1, 1), (BITCOIN // 10, 2), (BITCOIN - 1, 2), (BITCOIN, 4)])
def test_the_more_a_funding_is_worth_the_more_confirmations_it_needs(chain, value, needed):
    channel = chain.channel(f"table-{value}")
    channel.fund(value, confirmations=0)
    for confirmations in range(needed):
        detail = refused(channel, "funding_unconfirmed", named=confirmations % 2 == 0)
        assert f"{confirmations} confirmations, needs {needed}" in detail
        chain.node.mine()
    channel.checked_open()


# --- the amount is the node's ---


def test_the_amount_is_what_the_node_says_not_what_the_payer_believes(chain):
    channel = chain.channel("believes")
    channel.fund(VALUE)
    channel.rest_on(channel.terms.outpoint, 1_000_000)  # the payer's own books
    answer = channel.open(10_000)
    assert (answer.status, answer.json["value_received"]) == (201, VALUE - 990_000), answer.body
    assert channel.close().status == 202
    channel.rest_on(channel.terms.outpoint, VALUE)
    chain.node.mine()
    settlement = chain.check_spender(channel)
    assert settlement.vout[0].nValue == 990_000 and settlement.vout[1].nValue > VALUE - 990_000 - 20_000


def test_a_payer_who_claims_more_than_was_funded_is_refused(chain):
    channel = chain.channel("claims")
    channel.fund(1_000_000)
    channel.rest_on(channel.terms.outpoint, 10 * VALUE)
    refused(channel, "change_value_range", named=True)
    channel.rest_on(channel.terms.outpoint, 1_000_000)
    channel.checked_open()


def test_a_funding_below_the_open_price_is_refused(chain):
    channel = chain.channel("poor")
    channel.fund(5000)
    assert "received 4000 satoshi" in refused(channel, "open_price_short", received=4000)


def test_an_initial_payment_below_the_open_price_is_refused(chain):
    channel = chain.channel("short")
    price = channel.ask_address().json["open_price"]
    channel.fund()
    refused(channel, "open_price_short", received=price - 1)
    channel.checked_open(price)


def test_a_payment_signed_for_another_output_is_refused(chain):
    channel = chain.channel("other-output")
    funding = channel.fund()
    payment = sign_payment(channel.terms, VALUE - OPEN_VALUE, channel.sender.key)
    channel.rest_on(make_outpoint(b"\x77" * 32, 0), VALUE)
    stray = sign_payment(channel.terms, VALUE - OPEN_VALUE, channel.sender.key)
    answer = channel.client.request("POST", channel.sender.open_target(stray))
    assert (answer.status, answer.code) == (400, "bad_signature"), answer.body
    channel.rest_on(funding.outpoint, VALUE)
    assert channel.client.request("POST", channel.sender.open_target(payment)).status == 201


def test_a_funding_above_the_most_that_is_accepted_is_refused(chain):
    channel = chain.channel("rich")
    channel.fund(FUNDING_MAX + 1, confirmations=4)
    refused(channel, "funding_too_large")
    channel = chain.channel("rich-enough")
    channel.fund(FUNDING_MAX, confirmations=4)
    channel.checked_open()


# --- what is no funding ---


@pytest.mark.parametrize("named", [False, True], ids=["by-address", "by-outpoint"])
def test_an_output_that_was_never_made_is_refused(chain, named):
    channel = chain.channel(f"never-{named}")
    channel.ask_address()
    channel.rest_on(make_outpoint(b"\x66" * 32, 0), VALUE)
    refused(channel, "funding_not_found", named=named)


def test_an_output_at_another_address_is_refused(chain):
    channel = chain.channel("elsewhere")
    channel.ask_address()
    funding = chain.node.fund(ELSEWHERE, VALUE)
    chain.node.mine()
    channel.rest_on(funding.outpoint, VALUE)
    refused(channel, "funding_not_found", named=True)
    refused(channel, "funding_not_found")


def test_one_channels_output_funds_no_other(chain):
    rightful, thief = chain.channel("rightful"), chain.channel("thief")
    rightful.fund()
    thief.ask_address()
    thief.rest_on(rightful.terms.outpoint, VALUE)
    refused(thief, "funding_not_found", named=True)
    rightful.checked_open()


@pytest.mark.parametrize("named", [False, True], ids=["by-address", "by-outpoint"])
def test_an_output_that_is_spent_already_is_refused_from_the_mempool_on(chain, named):
    channel = chain.channel(f"spent-{named}")
    channel.fund()
    payment = sign_payment(channel.terms, VALUE - OPEN_VALUE, channel.sender.key)
    spend = sign_settlement(channel.terms, payment, ELSEWHERE, 2000, SERVER_KEY)
    chain.node.rpc("sendrawtransaction", spend.hex())
    refused(channel, "funding_not_found", named=named)
    chain.node.mine()
    refused(channel, "funding_not_found", named=named)


@pytest.mark.parametrize("named", [False, True], ids=["by-address", "by-outpoint"])
def test_a_funding_that_is_double_spent_before_it_confirms_opens_nothing(chain, named):
    channel = chain.channel(f"double-{named}")
    funding = channel.fund(confirmations=0)
    refused(channel, "funding_unconfirmed", named=named)
    theft = chain.node.sign(chain.node.coin_of(funding.raw), [CTxOut(1_000_000, CScript(ELSEWHERE))])
    chain.node.mine(transactions=(theft,), mempool=False)
    refused(channel, "funding_not_found", named=named)


def test_a_coinbase_funds_a_channel_only_when_it_is_mature(chain):
    channel = chain.channel("coinbase")
    channel.ask_address()
    chain.node.mine(max(1, HALVING - chain.node.height))
    (block,) = chain.node.mine(script=channel.script)
    txid = chain.node.rpc("getblock", block)["tx"][0]
    value = int(chain.node.rpc("gettxout", txid, 0)["value"] * BITCOIN)
    channel.rest_on(make_outpoint(bytes.fromhex(txid)[::-1], 0), value)
    refused(channel, "funding_unconfirmed", named=True)
    chain.node.mine(98)
    refused(channel, "funding_immature", named=True)
    chain.node.mine()
    assert channel.open(named=True).status == 201
    assert channel.close().status == 202
    chain.node.mine()
    chain.check_spender(channel)


# --- the chain itself ---


def test_a_node_of_another_chain_is_named_in_readyz_and_log_and_nothing_opens(tmp_path):
    with regtest(tmp_path, is_ready=False) as chain:
        chain.gate.answers["getblockhash"] = "00" * 32
        system = chain.system
        system.process = system.spawn()
        threading.Thread(target=system._collect, args=(system.process,), daemon=True).start()

        def state() -> dict:
            try:
                return dict(chain.ready().json)
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                return {}

        wait_until(lambda: "another network" in state().get("detail", ""), 15, "naming the wrong network")
        assert state()["code"] == "chain_unavailable" and "regtest" in state()["detail"]
        assert chain.logged("chain source: The Bitcoin node is of another network than regtest")
        channel = chain.channel("wrong-chain")
        channel.rest_on(chain.node.fund(channel.script, VALUE).outpoint, VALUE)
        chain.node.mine()
        answer = channel.open(named=True)
        assert (answer.status, answer.code) == (503, "chain_unavailable"), answer.body
        assert not chain.logged("^ready ")
        chain.gate.open()  # the right node after all: no restart is needed
        wait_until(lambda: chain.logged("^ready "), 15, "becoming ready")
        channel.checked_open()
