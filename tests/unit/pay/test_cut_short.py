"""Aim: a payer that ends between any two lines of what writes goes on with nothing paid twice, and never signed more than one
purchase ahead. Method: cut_short.py, against the shop over HTTP, which looks at each payment."""

import os
import subprocess
import sys

from paychan.pay.budget import NO_LIMITS
from paychan.pay.purse import Purse
from tests.system import ROOT
from tests.unit.pay.http_shop import serving
from tests.unit.pay.shop import OPEN_PRICE, PRICE

STEP = int(os.environ.get("PAYCHAN_CUT_STEP", "4"))
"""Every line takes some minutes (1); every fourth is what the suite has time for."""


def watch(shop, ahead):
    """Note by how much each payment is ahead of what the shop has."""

    def trouble(shop, step):
        if step.headers:
            from paychan.core.payment import parse_payment
            from paychan.mpp.credential import parse_credential

            credential = parse_credential(step.headers["Authorization"].removeprefix("Payment "))
            channel = shop.channels.get(credential.outpoint)
            has = channel.accepted if channel else OPEN_PRICE
            ahead.append(shop.funding_value - parse_payment(credential.payment).change_value - has)

    shop.trouble = trouble


def run(purse, shop, *numbers):
    command = [sys.executable, "-m", "tests.unit.pay.cut_short", str(purse), shop.origin, *map(str, numbers)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    return map(int, done.stdout.split())


def signed(purse):
    return {s.name: s.record.funding.value - s.record.signed.change_value for s in purse.standings() if s.record.signed}


def test_a_purchase_that_is_cut_short_at_any_line(tmp_path):
    with serving() as shop:
        ahead = []
        watch(shop, ahead)
        list(run(tmp_path / "purse", shop, 100_000, 100_001, 1))  # opens the channel
        cut, bought = run(tmp_path / "purse", shop, 1, 100_000, STEP)
        assert cut > 200 // STEP
        purse = Purse(tmp_path / "purse", NO_LIMITS)
        (channel,) = shop.channels.values()
        assert max(ahead) == PRICE
        assert channel.accepted == channel.spent == OPEN_PRICE + shop.served * PRICE
        (value,) = signed(purse).values()
        (name,) = purse.names()
        assert value == channel.accepted == purse.ledger.signed_away(name)
        assert cut + bought <= shop.served <= 2 * (cut + bought) + 2


def test_an_opening_that_is_cut_short_at_any_line(tmp_path):
    with serving() as shop:
        ahead = []
        watch(shop, ahead)
        cut, _ = run(tmp_path / "purse-{}", shop, 1, 100_000, 3 * STEP)
        assert cut > 80 // STEP
        assert max(ahead) == PRICE
        for directory in tmp_path.iterdir():
            purse = Purse(directory, NO_LIMITS)
            ours = signed(purse)
            assert len(ours) == 1, "one channel was opened, however often it was begun"
            for name, value in ours.items():
                assert value == purse.ledger.signed_away(name)
        assert all(channel.accepted == channel.spent for channel in shop.channels.values())
