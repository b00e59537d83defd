"""Aim: a first call of five satoshi costs no more than its channel's settlement. Method: a real system, asked by the client library
for its price and paid exactly that; the settlement that comes of it."""

import time

import pytest

from paychan.client import Channel, Refused
from paychan.core.fees import FeeBounds, settlement_price
from paychan.core.network import TEST
from paychan.core.settlement import SETTLEMENT_SIZE_MAX
from tests.client.payer_system import PATIENT
from tests.settled import settled_change
from tests.system import CHANGE_ADDRESS, WEEK, running

RATE = 7


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """config/debug with the default of real chains; its source's estimate is the configured rate."""
    changes = {
        "base_price = ": "",
        "price_add_settlement_fee = ": 'price = "settlement"',
        "fee_per_byte = ": f"fee_per_byte = {RATE}",
    }
    with running(tmp_path_factory.mktemp("system"), workers=2, changes={"server.toml": changes}) as found:
        yield found


@pytest.fixture
def channel(system, tmp_path):
    terms = (f"http://127.0.0.1:{system.port}", tmp_path / "key", TEST, int(time.time()) + WEEK, CHANGE_ADDRESS, PATIENT)
    with Channel.create(tmp_path / "channel", *terms) as channel:
        channel.fund_debug()
        yield channel


def test_the_price_is_the_settlement_s_and_part_of_what_was_paid(system, channel):
    price = channel.record.agreement.open_price
    assert price == settlement_price(RATE, FeeBounds(1, 1000), SETTLEMENT_SIZE_MAX) == RATE * SETTLEMENT_SIZE_MAX + 700
    assert channel.open().paid_value == price
    assert channel.pay(5).paid_value == price + 5
    closed = channel.close_channel()
    raw = system.broadcast()[closed.settlement_txid]
    assert settled_change(raw, closed.settlement_txid, channel.record.terms) == channel.record.change_value


def test_more_than_a_fifth_below_is_refused_and_changes_nothing(channel):
    price = channel.record.agreement.open_price
    object.__setattr__(channel.record.agreement, "open_price", 1)  # as if an agreement said so
    with pytest.raises(Refused, match=f"open price is {price} satoshi") as caught:
        channel.open(price * 79 // 100)
    assert caught.value.code == "open_price_short"
    assert channel.open(price).paid_value == price
