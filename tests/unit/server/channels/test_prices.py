"""Aim: a channel pays for its own settlement, and who pays what it was told is never refused. Method: estimates and times that each
test says; the price against the real ladder and the real signer's policy."""

import asyncio
import dataclasses

import pytest
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.errors import Rejection, Unavailable
from paychan.core.fees import LADDER, FeeBounds, Stake, fee_limit, least_price, settlement_price, wanted_fee
from paychan.core.payment import Payment
from paychan.core.sender import sign_payment
from paychan.core.settlement import LONGEST_DESTINATION, SETTLEMENT_SIZE_MAX, settlement_size_max
from paychan.core.units import DUST_LIMIT
from paychan.rpc.signer_client import SignerRefused
from paychan.rpc.signer_messages import SettleRequest
from paychan.server.channels.prices import HOLD_SECONDS, TOLERANCE_PERCENT, Prices
from paychan.server.channels.proving import Proving
from paychan.settings.load import load_server_config
from signer.policy import Memory, objection
from tests.unit.doors import asynchronous
from tests.unit.server.channels.test_opening import VALUE, output, request_for, with_lookups
from tests.unit.settings.test_config import CONFIGS
from tests.unit.signer.test_signer_policy import CLIENT, EARLY, EXPIRY, POLICY

BOUNDS = FeeBounds(2, 500)
SIZE = SETTLEMENT_SIZE_MAX
LONGEST = b"\x51\x20" + b"\xcc" * 32


class Rig:
    """A source with an estimate, and a clock; `prices` looks at both."""

    def __init__(self, **changes):
        loaded = load_server_config(CONFIGS / "regtest" / "server.toml", {})
        fields = {"price_is_settlement": True, "base_price": 0, "fee_bounds": BOUNDS, "fee_per_byte": 40, **changes}
        self.config = dataclasses.replace(loaded, **fields)
        self.estimate, self.now, self.asked = 10, 1000.0, []
        self.prices = Prices(self.config, self, lambda: self.now)

    async def fee_per_byte(self, blocks):
        self.asked.append(blocks)
        if isinstance(self.estimate, Exception):
            raise self.estimate
        return self.estimate

    async def look(self, estimate, after=60.0):
        self.now += after
        self.estimate = estimate
        await self.prices.look()


def price(rate):
    return settlement_price(rate, BOUNDS, SIZE)


# --- what it is ---


def test_the_size_is_that_of_the_largest_settlement():
    keys = (key.public_key.format() for key in (PrivateKey(b"\x01" * 32), CLIENT))
    terms = ChannelTerms(bytes(36), *keys, 2**32 - 1, VALUE, LONGEST)
    assert settlement_size_max(terms, Payment(700, bytes(71), 0x83), LONGEST_DESTINATION) == SIZE


@pytest.mark.parametrize("floor", [1, 2, 3, 40, 500])
@pytest.mark.parametrize("estimate", [1, 2, 5, 36, 37, 100, 500, 10_000])
def test_the_price_pays_for_the_settlement_at_the_estimate_and_hardly_more(floor, estimate):
    bounds = FeeBounds(floor, 500)
    rate = min(max(estimate, floor), 500)
    asked = settlement_price(estimate, bounds, SIZE)
    first, last = LADDER[0], LADDER[-1]
    stake = Stake(asked, SIZE, SIZE + 524)
    assert fee_limit(stake, last, bounds) >= rate * SIZE  # before the expiry it can be paid
    assert wanted_fee(stake, first, estimate, bounds) >= floor * SIZE  # and the floor at once
    below = Stake(asked - 1, SIZE, SIZE + 524)
    too_little = floor * SIZE * 100 > below.received * first.share_percent
    assert too_little or fee_limit(below, last, bounds) < rate * SIZE


def test_the_prices_that_operators_read_of():
    assert [price(rate) for rate in (1, 2, 5, 10, 40)] == [2447, 2447, 2535, 4370, 15453]


@asynchronous
async def test_the_source_is_asked_for_the_first_rung_and_the_configured_rate_stands_for_what_it_does_not_know():
    rig = Rig()
    assert rig.prices.ask() == price(40) == rig.config.open_price  # it has not answered yet
    await rig.look(10)
    assert rig.asked == [LADDER[0].blocks] and rig.prices.ask() == price(10)
    await rig.look(None)
    assert rig.prices.ask() == price(40)
    await rig.look(3)
    with pytest.raises(Unavailable):
        await rig.look(Unavailable("chain_unavailable"))
    assert rig.prices.ask() == price(3)
    assert rig.asked == [LADDER[0].blocks] * 4  # never for a request


@asynchronous
async def test_a_base_is_added_and_not_tolerated_away():
    rig = Rig(base_price=100_000)
    await rig.look(100)
    assert rig.prices.ask() == 100_000 + price(100)
    assert rig.prices.least == 100_000 + price(100) * (100 - TOLERANCE_PERCENT) // 100


def test_a_fixed_price_is_what_is_configured():
    rig = Rig(price_is_settlement=False, base_price=70_000, price_add_settlement_fee=True)
    assert rig.prices.ask() == rig.prices.least == 70_000 + 331 * 40
    rig.prices.start()  # looks at nothing, and needs no loop
    assert rig.asked == []


@asynchronous
async def test_it_looks_by_itself_whatever_comes_and_ends_when_it_is_told_to():
    rig = Rig()
    rig.estimate = RuntimeError("a bug")
    rig.prices.start()
    try:
        while not rig.asked:
            await asyncio.sleep(0)
        rig.estimate = 7
        async with asyncio.timeout(10):
            while rig.prices.ask() != price(7):
                await asyncio.sleep(0.05)
    finally:
        await rig.prices.stop()
    assert rig.prices._task.cancelled()


# --- what was told ---


@asynchronous
async def test_what_was_told_is_taken_for_six_hours_after_it_was_told_last():
    rig = Rig()
    await rig.look(20)
    told = rig.prices.ask()
    for _ in range(5 * 60):
        await rig.look(90)
    assert rig.prices.ask() == price(90) and rig.prices.least <= told
    await rig.look(90, after=HOLD_SECONDS)
    assert rig.prices.least == price(90) * (100 - TOLERANCE_PERCENT) // 100 > told


@asynchronous
async def test_a_price_that_stays_is_held_from_its_last_moment_on():
    rig = Rig()
    for estimate in (20, 20, 20, 90):
        await rig.look(estimate, after=HOLD_SECONDS / 2)
    rig.now += HOLD_SECONDS / 2 - 1
    assert rig.prices.least <= price(20)
    rig.now += 2
    assert rig.prices.least > price(20)


@asynchronous
async def test_a_worker_that_has_not_seen_the_dip_takes_what_another_told():
    """Both look once a minute, but not at the same moment."""
    told, asked = Rig(), Rig()
    await told.look(17)
    await asked.look(20)
    assert asked.prices.least <= told.prices.ask() < asked.prices.ask()
    await asked.look(30)
    assert asked.prices.least <= told.prices.ask()


@asynchronous
async def test_a_restart_forgets_no_more_than_the_tolerance():
    rig = Rig()
    await rig.look(50)
    assert rig.prices.least == price(50) * (100 - TOLERANCE_PERCENT) // 100  # the configured rate, that nobody was told, is none


@asynchronous
async def test_an_open_pays_what_was_told_and_not_less():
    rig = Rig()
    await rig.look(20)
    rules = with_lookups(rig.config, rig, rig.prices)
    key = PrivateKey(b"\x01" * 32).public_key.format()
    await rig.look(30)

    def received(value):
        request = request_for(rig.config, output(), VALUE - value)
        return rules.check(rules.terms(request, output(), key, 0), request.payment, output())

    least = rig.prices.least
    assert least < price(20) and [received(value) for value in (least, price(20))] == [least, price(20)]
    with pytest.raises(Rejection, match=f"open price is {price(30)} satoshi, received {least - 1}") as caught:
        received(least - 1)
    assert caught.value.code == "open_price_short"


# --- what it is worth ---


@pytest.mark.parametrize("script", [LONGEST, b"\xa9\x14" + b"\xcc" * 20 + b"\x87"], ids=["longest", "shorter"])
@pytest.mark.parametrize("share", [LADDER[0].share_percent, 50, 95])
@pytest.mark.parametrize("floor", [1, 2, 3, 7, 100])
@asynchronous
async def test_who_pays_the_least_that_is_taken_is_never_refused_as_not_worth_its_settlement(floor, share, script):
    bounds = FeeBounds(floor, 500)
    policy = dataclasses.replace(POLICY, fee_per_byte_max=500, fee_share_percent_max=share)
    keys = policy.pubkey, CLIENT.public_key.format()

    class Signer:
        async def judge(self, terms, payment, fee, proof):
            request = SettleRequest(terms, payment, fee, proof)
            refused = objection(dataclasses.replace(policy, waive_funding_proof=True), request, Memory(), EARLY)
            if refused is not None:
                raise SignerRefused(refused)

    async def prove(received):
        terms = ChannelTerms(bytes(36), *keys, EXPIRY, VALUE * 10, script)
        await Proving(None, Signer(), None, floor)._judge(terms, sign_payment(terms, VALUE * 10 - received, CLIENT), b"")

    for estimate in (1, floor, 10 * floor, 10_000):
        rig = Rig(fee_bounds=bounds)
        await rig.look(estimate)
        assert rig.prices.least >= least_price(bounds, SIZE) >= floor * SIZE + DUST_LIMIT
        await prove(rig.prices.least)
        await prove(rig.prices.ask())


# --- who hears of it ---


@asynchronous
async def test_who_follows_hears_the_least_that_is_taken_now_and_after_each_look():
    rig, told = Rig(), []
    rig.prices.follow(told.append)
    await rig.look(10)
    rig.prices.ask()
    await rig.look(100)
    await rig.look(100, after=HOLD_SECONDS + 1)
    with pytest.raises(Unavailable):
        await rig.look(Unavailable("chain_unavailable"))
    tolerated = [price(rate) * (100 - TOLERANCE_PERCENT) // 100 for rate in (40, 10, 10, 100)]
    assert told == [max(one, least_price(BOUNDS, SIZE)) for one in tolerated]
