"""Aim: an open is refused for its expiry only by a time that has been held against the chain. Method: the worker's own reading of
the request, with the real rules, clock and follower of the tip."""

import asyncio
import base64
from types import SimpleNamespace

import pytest

from paychan.chain.base import Tip
from paychan.clock import Clock
from paychan.core.errors import PaychanError
from paychan.core.network import REGTEST, p2pkh_address
from paychan.server.channels.opening import Opening
from paychan.server.channels.prices import Prices
from paychan.server.settlement.tip import TipFollower
from paychan.server.worker import Worker
from tests.differential.channels import NOW, make_sample
from tests.unit.settings.test_config import CONFIGS, load_server_config

YEAR = 365 * 24 * 3600


class Reader:
    """What `Worker._parse_open` needs of a worker, whose wall clock is wrong by `error` seconds."""

    def __init__(self, error: int) -> None:
        self.error = error
        self._clock = Clock(lambda: NOW + self.error, 0, 10_800, lambda: 0.0)
        config = load_server_config(CONFIGS / "regtest" / "server.toml", {})
        self._opening = Opening(config, None, Prices(config, None, lambda: 0.0))
        self._tip = TipFollower(SimpleNamespace(), self._clock, 3.0, 10_800, lambda _: None)

    async def see_block(self) -> None:
        self._tip._take(Tip(700_000, bytes(32), NOW, NOW - 3600))
        self._tip._note("")
        self._tip.doubt = self._tip._judge()

    def parse(self, hours: int) -> str:
        sample = make_sample("expiry", exp_time=NOW + hours * 3600)
        terms = sample.terms
        payment = base64.urlsafe_b64encode(sample.opening.raw).decode()
        query = f"client_pubkey={terms.client_pubkey.hex()}&exp_time={terms.exp_time}&payment={payment}"
        query += f"&change_address={p2pkh_address(REGTEST, bytes(20))}"
        try:
            Worker._parse_open(self, query, terms.server_pubkey)
        except PaychanError as error:
            return error.code
        return ""


@pytest.mark.parametrize("error", [0, -600, -30 * YEAR, 30 * YEAR])
def test_before_a_block_was_seen_no_expiry_is_refused_for_good(error):
    codes = {Reader(error).parse(hours) for hours in (-10, 48, 24 * 4000)}
    assert codes <= {"", "chain_unavailable"} and "chain_unavailable" in codes


@pytest.mark.parametrize("error", [0, -600, -30 * YEAR])
def test_once_a_block_was_seen_an_expiry_is_judged_by_it(error):
    reader = Reader(error)
    asyncio.run(reader.see_block())
    assert [reader.parse(hours) for hours in (-10, 48, 24 * 4000)] == ["exp_time_too_soon", "", "exp_time_too_far"]


def test_a_clock_far_beyond_the_chain_judges_nothing():
    reader = Reader(30 * YEAR)
    asyncio.run(reader.see_block())
    assert {reader.parse(hours) for hours in (-10, 48, 24 * 4000)} == {"clock_doubtful"}
