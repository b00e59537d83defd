"""Aim: channels worth more than their fee are confirmed before expiry, whatever fails. Method: small simulated worlds, each held
against the auditor; the same seed twice; and an auditor that must see planted breaches. The campaign is `settle.py`.
"""

import pytest

from paychan.clock import Clock
from paychan.core.channel import ChannelState, Phase
from paychan.core.payment import Payment
from store import keys

from .settle import CONFIRMATIONS, HOARD, HOARDED_UNSETTLED_MAX, World, hoarded_config, make_config, run_world

SEEDS = [f"suite/{number}" for number in range(2)]
CHANNELS = 10


@pytest.mark.parametrize("seed", SEEDS)
def test_every_channel_worth_its_fee_is_settled_before_expiry(seed):
    world = run_world(seed, CHANNELS)
    assert world.auditor.violations == []
    assert world.summary.opened == CHANNELS
    assert world.summary.settled + world.summary.refunded == CHANNELS


def test_whoever_fills_the_limit_is_settled_and_no_smaller_channel_for_him():
    """And while more is unsettled than may be, nothing is taken; the payers come again."""
    world = World("hoarded/0", 18, hoarded_config())
    world.run()
    assert world.auditor.violations == []
    early = [received for _, _, received in world.auditor.exposure.early]
    assert early.count(HOARD) and world.auditor.exposure.most_unsettled > HOARDED_UNSETTLED_MAX - HOARD


def test_the_same_seed_replays_the_same_run():
    assert run_world("replayed", 4).trace == run_world("replayed", 4).trace


def test_the_auditor_sees_channels_whose_clock_is_the_wall_alone(monkeypatch):
    observe = Clock.observe
    monkeypatch.setattr(Clock, "observe", lambda self, block_time, _: observe(self, block_time, 0))
    world = World("wall alone", 6, make_config())
    world._wall = [(0, -12 * 3600.0)]
    world.run()
    assert any("refund" in violation for violation in world.auditor.violations)


def _settled_world() -> World:
    world = run_world("planted", 3)
    assert world.auditor.violations == []
    return world


def test_the_auditor_sees_planted_breaches():
    world = _settled_world()
    auditor = world.auditor
    outpoint, account = next((outpoint, account) for outpoint, account in auditor.accounts.items() if account.phase)
    raw = world.disk.load(outpoint).settlement

    def seen(write: dict) -> str:
        auditor.violations.clear()
        auditor.see_writes(write)
        return " ".join(auditor.violations)

    stays = ChannelState.parse(auditor.data[keys.STATE + outpoint])
    worse = Payment(stays.payment.change_value + 1, stays.payment.signature, stays.payment.sighash_type)
    assert "rose" in seen({keys.STATE + outpoint: ChannelState(Phase.SETTLED, worse, stays.settlement_txid).serialize()})
    assert "went back" in seen({keys.STATE + outpoint: ChannelState(Phase.OPEN, stays.payment).serialize()})
    assert "of fee" in seen({keys.SETTLEMENT + outpoint: raw})
    world.chain.depths[outpoint] = CONFIRMATIONS - 1
    assert "never deeper" in seen({keys.STATE + outpoint: stays.serialize()})
    account.lowest -= account.lowest
    auditor.violations.clear()
    auditor.judge()
    if stays.payment.change_value:
        assert "acknowledged was 0" in " ".join(auditor.violations)
