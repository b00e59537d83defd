"""Aim: one settlement in the situations that the simulation found, each by itself. Method: the real machine, signer
policy and mempool rules; a store and a committer that do what they are told.
"""

import pytest

from paychan.core.channel import ChannelState, Phase
from paychan.core.settlement import LONGEST_DESTINATION, settlement_size_max
from paychan.rpc.store_messages import Stored

from .rig import EXPIRY, PERIOD, Rig


def test_a_settlement_goes_all_the_way():
    rig = Rig(1_000_000)
    assert rig.settle() == ""
    assert (rig.phase, rig.published_fee) == (Phase.BROADCAST, rig.fee)
    rig.mine(5)
    assert rig.settle() == ""
    assert rig.phase == Phase.BROADCAST
    rig.mine(1)
    assert rig.settle() == ""
    assert rig.phase == Phase.SETTLED


@pytest.mark.parametrize("share_max", [50, 20])
def test_a_fee_above_the_signers_bound_is_lowered_until_it_signs(share_max):
    rig = Rig(3_000, rate=100.0, share_max=share_max)
    rig.now = EXPIRY - 60  # the ladder would give 95 % away
    assert rig.settle() in ("", "settlement_refused")  # the network may find it too low
    assert rig.phase >= Phase.SIGNED
    assert 3_000 * share_max * 85 // 10_000 <= rig.fee <= 3_000 * share_max // 100


def test_an_evicted_settlement_comes_back_with_a_higher_fee():
    rig = Rig(1_000_000)
    rig.settle()
    before = rig.fee
    rig.dearer(100.0)
    assert rig.published_fee == 0
    assert rig.settle() == ""
    assert rig.published_fee == rig.fee >= 100 * 345 > 3 * before


def test_an_evicted_settlement_comes_back_as_it_was_when_the_signer_is_away():
    rig = Rig(1_000_000)
    rig.settle()
    before = rig.fee
    rig.chain.forget_mempool()
    rig.now = EXPIRY - 60
    rig.vault.is_up = False
    assert rig.settle() == ""
    assert rig.published_fee == before


def test_a_bump_that_was_durable_and_not_published_is_published():
    rig = Rig(1_000_000)
    rig.settle()
    before = rig.published_fee
    rig.now = EXPIRY - 60
    submit, rig.chain.submit = rig.chain.submit, lambda raw: 1 / 0
    with pytest.raises(ZeroDivisionError):
        rig.settle()
    rig.chain.submit = submit
    assert rig.fee > before == rig.published_fee
    assert rig.settle() == ""
    assert rig.published_fee == rig.fee


def test_a_settlement_that_was_buried_before_its_broadcast_was_written_down_is_won():
    rig = Rig(1_000_000)
    rig.settle()
    state = ChannelState.parse(rig.stored.state)
    signed = ChannelState(Phase.SIGNED, state.payment, state.settlement_txid)
    rig.stored = Stored(rig.stored.terms, signed.serialize(), rig.stored.settlement)
    rig.mine(6)
    assert rig.settle() == ""
    assert ChannelState.parse(rig.stored.state) == ChannelState(Phase.SETTLED, state.payment, state.settlement_txid)


def test_bumps_towards_the_expiry_are_all_relayed():
    rig, fees = Rig(30_000, rate=1.5), []
    for seconds_left in range(PERIOD, -600, -600):
        rig.now = EXPIRY - seconds_left
        assert rig.settle() == ""
        assert rig.published_fee == rig.fee
        fees.append(rig.fee)
    assert fees == sorted(fees)
    assert fees[0] == 2 * settlement_size_max(rig.terms, rig.payment, LONGEST_DESTINATION)
    assert fees[-1] > 13_000  # by then what waited has been raised, to nearly all that the signer allows
