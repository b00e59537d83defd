"""Aim: every channel's newest payment is settled on the chain, once and for good. Method: the whole system beside a real node.

bcoin replaces no transaction by a fee, so the replaced version is taken out of its mempool by restarting the node; what
Bitcoin Core asks of a replacement is checked in tests/simulation. Blocks and settlements are judged by Core's own library too.
"""

import os
import signal

import pytest
from bitcoin.core import CTransaction

from paychan.core.outpoint import format_outpoint, txid_hex
from tests.chain.regtest_system import DAY, DEPTH, HOUR, OPEN_VALUE, Channel, Regtest, regtest
from tests.system import wait_until

EXPOSURE_MAX = 2_000_000
CHANGES = {
    "settlement": {"period_hours": "1"},
    "open": {"duration_hours_min": "0"},
    "exposure": {"channel_value_max": str(EXPOSURE_MAX)},
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    with regtest(tmp_path_factory.mktemp("settling"), CHANGES, workers=2) as chain:
        yield chain


@pytest.fixture(autouse=True)
def mended(chain):
    """Leave the next test a node that runs and can be reached."""
    yield
    chain.gate.open()
    if not chain.node.pid:
        chain.node.start()


@pytest.fixture(scope="module")
def settled(chain):
    """A channel whose settlement is final."""
    channel = chain.channel("settled").opened()
    closed(channel)
    chain.node.mine(DEPTH)
    channel.wait_for("no_such_payment")
    return channel


def closed(channel: Channel) -> str:
    """Close a channel; return the txid of its settlement, which waits in the mempool."""
    answer = channel.close()
    assert answer.status == 202, answer.body
    settlement = channel.regtest.spender(channel)
    assert txid_hex(settlement.GetTxid()) == answer.json["settlement_txid"]
    return str(answer.json["settlement_txid"])


def fee_of(channel: Channel, settlement: CTransaction) -> int:
    return channel.terms.funding_value - sum(output.nValue for output in settlement.vout)


# --- depth ---


def test_a_channel_is_settled_at_the_configured_depth_and_no_block_earlier(chain):
    deeper, later = chain.channel("deeper").opened(), chain.channel("later").opened()
    for channel in (deeper, later):
        assert [channel.pay(500).status for _ in range(3)] == [200] * 3
    closed(deeper)
    assert deeper.code == "channel_closing"
    chain.node.mine(1)
    closed(later)
    chain.node.mine(DEPTH - 1)
    deeper.wait_for("no_such_payment")
    assert later.code == "channel_closing"  # one block less
    chain.node.mine(1)
    later.wait_for("no_such_payment")
    for channel in (deeper, later):
        assert chain.check_spender(channel).vout[0].nValue == channel.terms.funding_value - OPEN_VALUE - 1500


def test_a_settlement_whose_block_is_reorganised_away_is_sent_and_confirmed_again(chain):
    channel, control = chain.channel("reorganised").opened(), chain.channel("control").opened()
    txid = closed(channel)
    chain.node.mine(DEPTH - 1)
    chain.gate.is_shut = True
    chain.node.reorganise(DEPTH - 1)
    chain.restart_node()
    assert chain.spender(channel) is None  # neither in a block nor in the mempool
    chain.gate.open()
    channel.wait_sent()
    assert txid_hex(chain.spender(channel).GetTxid()) == txid
    chain.node.mine(DEPTH - 2)
    closed(control)
    chain.node.mine(1)
    assert channel.code == "channel_closing"
    chain.node.mine(1)
    channel.wait_for("no_such_payment")
    assert txid_hex(chain.check_spender(channel).GetTxid()) == txid
    assert control.code == "channel_closing"


# --- trouble at every step ---


def begun(chain: Regtest, name: str) -> dict[str, Channel]:
    """Return channels that stand at each step of the settlement, held there by the gate."""
    steps = ("open", "closing", "signed", "sent", "broadcast")
    channels = {step: chain.channel(f"{name}-{step}") for step in steps}
    for channel in channels.values():
        channel.fund(confirmations=0)
    chain.node.mine()
    for channel in channels.values():
        channel.checked_open()
        assert channel.pay().status == 200
    closed(channels["broadcast"])
    for step, fault, code in (
        ("sent", {"lost": {"sendrawtransaction"}}, "chain_unavailable"),  # done, but nobody was told
        ("signed", {"refused": {"sendrawtransaction"}}, "settlement_refused"),
        ("closing", {"refused": {"estimatesmartfee", "sendrawtransaction"}}, "chain_unavailable"),
    ):
        chain.gate.open()
        for which, methods in fault.items():
            setattr(chain.gate, which, methods)
        answer = channels[step].close()
        assert (answer.status, answer.code) == (503, code), (step, answer.body)
        signed = f"signed {format_outpoint(channels[step].terms.outpoint)}"
        if step == "closing":
            assert not chain.logged(signed)
        else:
            wait_until(lambda signed=signed: chain.logged(signed), 10, f"{step}: the signer's line")
        assert (chain.spender(channels[step]) is None) == (step != "sent")
    return channels


@pytest.mark.parametrize("victim", ["signer", "store", "server", "worker", "supervisor", "node"])
def test_whatever_is_killed_channels_at_every_step_are_settled_by_themselves(chain, settled, victim):
    channels = begun(chain, f"{victim}-killed")
    if victim == "node":
        chain.restart_node()
    elif victim == "supervisor":
        os.kill(chain.system.process.pid, signal.SIGKILL)
        chain.system.process.wait(10)
        chain.system.output.clear()
        chain.system.start()
    else:
        chain.system.kill(victim)
    chain.gate.open()
    chain.node.mine(1, mempool=False)
    for step in ("closing", "signed", "sent", "broadcast"):
        channels[step].wait_sent()
    wait_until(lambda: chain.system.ready_workers() == 2, 20, "both workers")
    channels["open"].wait_for("")  # what was acknowledged is still there
    assert channels["open"].pay().status == 200
    closed(channels["open"])
    for channel in (*channels.values(), settled):
        channel.wait_settled(DEPTH)
        chain.check_spender(channel)
        fees = chain.fees_signed(channel)
        assert fees == sorted(set(fees))  # another version is signed where a block has come without the last, and pays more
    assert chain.fees_signed(channels["open"])


def test_a_close_while_the_node_is_down_is_answered_503_and_completes_by_itself(chain):
    channel = chain.channel("node-down").opened()
    chain.node.kill()
    answer = channel.close()
    assert (answer.status, answer.code) == (503, "chain_unavailable"), answer.body
    assert channel.code == "channel_closing"
    chain.node.start()
    channel.wait_sent()  # no request, and no new block
    chain.node.mine(DEPTH)
    channel.wait_for("no_such_payment")
    chain.check_spender(channel)


# --- nobody asks ---


def test_a_channel_that_holds_more_than_the_limit_is_settled_early(chain):
    channel = chain.channel("exposed").opened()
    assert channel.pay(EXPOSURE_MAX - OPEN_VALUE).status == 200
    assert channel.pay(0).status == 200  # at the limit, not above
    assert channel.pay(1000).status == 200  # what is above it is taken; it is the last one
    channel.wait_sent()
    assert channel.code == "channel_closing"
    chain.node.mine()
    chain.check_spender(channel)


def test_too_much_in_all_channels_settles_the_largest(tmp_path):
    with regtest(tmp_path, {"exposure": {"total_value_max": str(5 * OPEN_VALUE // 2)}}) as chain:
        channels = [chain.channel(f"total-{days}", days * DAY) for days in (1, 3, 2)]
        for channel in channels:
            channel.fund(confirmations=0)
        chain.node.mine()
        for channel in channels:
            assert [before.code for before in channels[: channels.index(channel)]] == [""] * channels.index(channel)
            channel.checked_open(OPEN_VALUE + 1000 * (channel is channels[1]))
        channels[1].wait_sent()
        chain.node.mine()
        chain.check_spender(channels[1])
        assert [channels[0].code, channels[2].code] == ["", ""]


def test_a_channel_near_its_expiry_by_the_chains_time_takes_no_payment_and_settles_by_itself(chain):
    channel, lasting = chain.channel("expiring", 400).opened(), chain.channel("lasting").opened()
    assert channel.pay().status == 200
    chain.pass_time(channel.terms.exp_time - HOUR - 60)
    assert channel.pay().status == 200  # a minute before
    chain.pass_time(channel.terms.exp_time - HOUR)
    channel.wait_sent()  # nobody has asked for it
    answer = channel.pay()
    assert (answer.status, answer.code) == (410, "channel_closing"), answer.body
    chain.node.mine(DEPTH)
    channel.wait_for("no_such_payment")
    chain.check_spender(channel)
    assert lasting.pay().status == 200


def test_a_settlement_that_waits_is_replaced_by_a_dearer_one_and_either_may_be_mined(chain):
    replaced, overtaken = chain.channel("replaced", 120).opened(), chain.channel("overtaken", 120).opened()
    first = {}
    for channel in (replaced, overtaken):
        closed(channel)
        first[channel.name] = chain.spender(channel)
    chain.gate.is_shut = True
    chain.restart_node()
    chain.pass_time(replaced.terms.exp_time - HOUR // 20)
    assert chain.waiting() == []
    # This node replaces nothing in its mempool: the old versions must not come there again before there are dearer ones.
    chain.gate.refused, chain.gate.is_shut = {"sendrawtransaction"}, False
    for channel in (replaced, overtaken):
        raised = f"{format_outpoint(channel.terms.outpoint)} pays .* satoshi for its settlement now"
        wait_until(lambda raised=raised: chain.logged(raised), 20, "a dearer one")
    chain.gate.open()
    second = {}
    for channel in (replaced, overtaken):
        channel.wait_sent()
        second[channel.name] = chain.spender(channel)
        assert fee_of(channel, second[channel.name]) >= fee_of(channel, first[channel.name]) * 5 // 4
        assert second[channel.name].vout[0] == first[channel.name].vout[0]  # the payer's change
        assert channel.close().json["settlement_txid"] == txid_hex(second[channel.name].GetTxid())
    mined = (second["replaced"].serialize(), first["overtaken"].serialize())
    chain.node.mine(1, transactions=mined, mempool=False)
    assert chain.waiting() == []
    chain.node.mine(DEPTH - 1)
    replaced.wait_for("no_such_payment")
    # Without txospenderindex the node does not name the older version: its depth is counted from when it is first seen.
    assert overtaken.close().status == 202 and overtaken.code == "channel_closing"
    chain.node.mine(DEPTH - 1)
    overtaken.wait_for("no_such_payment")
    assert chain.check_spender(replaced) == second["replaced"]
    assert chain.check_spender(overtaken) == first["overtaken"]


# --- judged by Bitcoin Core ---


def test_bitcoin_core_accepts_all_blocks_that_hold_our_settlements(chain):
    settled = [channel for channel in chain.channels if channel.newest and chain.spender(channel, mempool=False)]
    assert len(settled) >= 1
    for channel in settled:
        chain.check_spender(channel)
    assert chain.replay_in_core() == chain.node.height
