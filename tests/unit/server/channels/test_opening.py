"""Aim: what a new channel must be. Method: the real rules with a complete configuration, a payer that signs what each test says,
and a chain whose outputs the test makes.
"""

import asyncio
import dataclasses

import orjson
import pytest
from coincurve import PrivateKey

from paychan.chain.base import FundingOutput, FundingRequest
from paychan.core.errors import Rejection, Unavailable
from paychan.core.network import TEST, decode_address, p2sh_address
from paychan.core.outpoint import make_outpoint
from paychan.core.payment import Payment
from paychan.core.script import Hash160, p2sh_script_pubkey, redeem_script
from paychan.core.sender import sign_payment
from paychan.core.units import DUST_LIMIT, LOCKTIME_MAX, LOCKTIME_THRESHOLD
from paychan.server.channels.lookups import Lookups
from paychan.server.channels.opening import COINBASE_MATURITY, Opening, OpenRequest
from paychan.server.channels.prices import Prices
from paychan.settings.load import load_server_config
from paychan.settings.models import ServerConfig
from tests.unit.settings.test_config import CONFIGS

NOW = 1_700_000_000
SERVER, CLIENT = PrivateKey(b"\x01" * 32).public_key.format(), PrivateKey(b"\x02" * 32)
PUBKEY = CLIENT.public_key.format()
CHANGE = "mmA2XECa7bVERzQKkyy1pNBQ3PC4HnxTC5"
VALUE = 1_000_000


@pytest.fixture(scope="module")
def config() -> ServerConfig:
    loaded = load_server_config(CONFIGS / "regtest" / "server.toml", {})
    return dataclasses.replace(loaded, funding_tx_min_conf=2, confirmations_from=((VALUE + 1, 6),), funding_value_max=10 * VALUE)


class Chain:
    """Finds what it is told to, and notes what was asked."""

    def __init__(self, *found: FundingOutput) -> None:
        self.found, self.asked = list(found), []

    async def find_funding(self, request: FundingRequest) -> list[FundingOutput]:
        self.asked.append(request)
        return self.found


def output(number: int = 0, value: int = VALUE, confirmations: int = 6, is_coinbase: bool = False) -> FundingOutput:
    return FundingOutput(make_outpoint(bytes([number]) * 32, number), value, confirmations, is_coinbase)


def opening(config: ServerConfig, *found: FundingOutput) -> Opening:
    return with_lookups(config, Chain(*found))


def with_lookups(config: ServerConfig, chain: object, prices: Prices | None = None) -> Opening:
    return Opening(config, Lookups(chain, 1000, lambda: 0.0), prices or Prices(config, chain, lambda: 0.0))


def soonest(config: ServerConfig) -> int:
    return NOW + config.settlement_period + config.duration_min


def query(config: ServerConfig, signed: Payment, **changes: str | None) -> str:
    values = {
        "client_pubkey": PUBKEY.hex(),
        "exp_time": str(soonest(config)),
        "change_address": CHANGE,
        "payment": signed.encode(),
        **changes,
    }
    return "&".join(f"{name}={value}" for name, value in values.items() if value is not None)


def request_for(config: ServerConfig, funding: FundingOutput, change_value: int) -> OpenRequest:
    """Return what a payer asks that gives up all but `change_value` satoshi of `funding`."""
    rules = opening(config)
    blank = OpenRequest(PUBKEY, soonest(config), decode_address(TEST, CHANGE), Payment(0, b"", 0x83), None)
    payment = sign_payment(rules.terms(blank, funding, SERVER, NOW), change_value, CLIENT)
    return rules.parse(query(config, payment), SERVER, NOW)


def refusal(config: ServerConfig, text: str, now: int = NOW) -> tuple[str, str]:
    with pytest.raises(Rejection) as caught:
        opening(config).parse(text, SERVER, now)
    return caught.value.code, caught.value.parameter


# --- the parameters ---


def test_what_is_asked_is_read(config):
    request = request_for(config, output(), 900_000)
    assert (request.client_pubkey, request.exp_time, request.outpoint) == (PUBKEY, soonest(config), None)
    assert request.change_script == decode_address(TEST, CHANGE)
    assert request.payment.change_value == 900_000


def test_the_outpoint_may_be_named(config):
    payment = request_for(config, output(), 900_000).payment
    text = query(config, payment, funding_txid="11" * 32, funding_vout="3")
    assert opening(config).parse(text, SERVER, NOW).outpoint == make_outpoint(b"\x11" * 32, 3)


@pytest.mark.parametrize("name", ["client_pubkey", "exp_time", "change_address", "payment"])
def test_each_parameter_is_needed(config, name):
    payment = request_for(config, output(), 900_000).payment
    assert refusal(config, query(config, payment, **{name: None})) == ("missing_parameter", name)


def test_the_servers_own_key_is_no_payers(config):
    payment = request_for(config, output(), 900_000).payment
    assert refusal(config, query(config, payment, client_pubkey=SERVER.hex())) == ("pubkey_is_servers", "client_pubkey")


def test_an_expiry_leaves_time_to_pay_and_to_settle_and_has_an_end(config):
    payment = request_for(config, output(), 900_000).payment
    latest = NOW + config.duration_max

    def code(exp_time: int) -> str:
        try:
            opening(config).parse(query(config, payment, exp_time=str(exp_time)), SERVER, NOW)
        except Rejection as error:
            return error.code
        return ""

    assert [code(soonest(config) - 1), code(soonest(config))] == ["exp_time_too_soon", ""]
    assert [code(latest), code(latest + 1)] == ["", "exp_time_too_far"]
    assert code(NOW - 1) == "exp_time_too_soon"


def test_refused_expiries_are_told_in_hours(config):
    changed = dataclasses.replace(config, duration_min=3601, duration_max=48 * 3600 + 3599)
    payment = request_for(config, output(), 900_000).payment
    for exp_time, words in ((NOW, f"at least {changed.settlement_period_hours + 2} hours"), (NOW + 1_000_000, "at most 48 hours")):
        with pytest.raises(Rejection, match=words) as caught:
            opening(changed).parse(query(config, payment, exp_time=str(exp_time)), SERVER, NOW)
        assert caught.value.parameter == "exp_time"


# --- fundingInfo ---


def test_funding_info_tells_where_to_pay_and_what_it_costs(config):
    exp_time = soonest(config)
    reply = opening(config).funding_info(f"client_pubkey={PUBKEY.hex()}&exp_time={exp_time}", SERVER, NOW)
    redeem = redeem_script(SERVER, PUBKEY, exp_time)
    assert orjson.loads(reply.body) == {
        "server_pubkey": SERVER.hex(),
        "funding_address_copy": p2sh_address(config.common.network, Hash160(redeem)),
        "settlement_period_hours": config.settlement_period_hours,
        "funding_tx_min_conf": 2,
        "open_price": config.open_price,
        "network": "regtest",
        "funding_value_max": 10 * VALUE,
        "dust_limit": DUST_LIMIT,
        "exp_time_min": soonest(config),
        "exp_time_max": NOW + config.duration_max,
    }
    assert (reply.status, reply.location) == (200, f"/v1/channels/new?client_pubkey={PUBKEY.hex()}&exp_time={exp_time}")


def told(config: ServerConfig, value: object, exp_time: int | None = None, now: int = NOW) -> dict:
    """Return fundingInfo's answer about a funding value."""
    text = f"client_pubkey={PUBKEY.hex()}&exp_time={exp_time or soonest(config)}&funding_value={value}"
    return orjson.loads(opening(config).funding_info(text, SERVER, now).body)


@pytest.mark.parametrize(("value", "needed"), [(VALUE, 2), (VALUE + 1, 6), (10 * VALUE, 6)])
def test_funding_info_tells_the_confirmations_that_an_amount_needs_at_open(config, value, needed):
    assert told(config, value)["confirmations_needed"] == needed
    assert verdict(config, output(value=value, confirmations=needed - 1), 700_000) == "funding_unconfirmed"
    assert verdict(config, output(value=value, confirmations=needed), 700_000) == value - 700_000


@pytest.mark.parametrize(("beyond", "code"), [(1, "funding_too_large"), (-1, "open_price_short")])
def test_an_amount_with_which_no_channel_can_be_opened_is_refused_before_it_is_paid(config, beyond, code):
    edge = config.funding_value_max if beyond > 0 else config.open_price
    assert told(config, edge)["funding_value_max"] == config.funding_value_max
    with pytest.raises(Rejection) as caught:
        told(config, edge + beyond)
    assert (caught.value.code, caught.value.parameter) == (code, "funding_value")


def test_the_expiries_that_are_told_are_those_that_can_be_asked_for(config):
    long = dataclasses.replace(config, duration_max=1 << 40)
    for changed, latest in ((config, NOW + config.duration_max), (long, LOCKTIME_MAX)):
        first, last = (told(changed, VALUE)[key] for key in ("exp_time_min", "exp_time_max"))
        assert last == latest
        for good, bad in ((first, first - 1), (last, last + 1)):
            assert told(changed, VALUE, exp_time=good)["exp_time_min"] == first
            with pytest.raises(Rejection, match="exp_time"):
                told(changed, VALUE, exp_time=bad)
    early = LOCKTIME_THRESHOLD - 10 * config.settlement_period
    assert told(config, VALUE, exp_time=LOCKTIME_THRESHOLD, now=early)["exp_time_min"] == LOCKTIME_THRESHOLD


# --- which output ---


def find(rules: Opening, request: OpenRequest) -> FundingOutput:
    return asyncio.run(rules.find_funding(request, SERVER))


def test_of_several_outputs_the_one_is_taken_that_the_payment_signs_for(config):
    outputs = [output(number, VALUE + number) for number in range(4)]
    for wanted in outputs:
        assert find(opening(config, *outputs), request_for(config, wanted, 900_000)) == wanted


def test_a_payment_that_signs_for_none_of_them_is_judged_on_the_first(config):
    outputs = [output(number) for number in range(3)]
    assert find(opening(config, *outputs), request_for(config, output(9), 900_000)) == outputs[0]


def test_an_output_that_is_not_there_opens_nothing(config):
    with pytest.raises(Rejection) as caught:
        find(opening(config), request_for(config, output(), 900_000))
    assert caught.value.code == "funding_not_found"


def test_the_script_that_is_looked_for_holds_both_keys_and_the_expiry(config):
    chain = Chain(output())
    named = output().outpoint
    request = dataclasses.replace(request_for(config, output(), 900_000), outpoint=named)
    find(with_lookups(config, chain), request)
    script = p2sh_script_pubkey(redeem_script(SERVER, PUBKEY, soonest(config)))
    assert chain.asked == [FundingRequest(PUBKEY, soonest(config), script, named)]


def test_a_named_output_is_not_looked_up_for_who_has_not_signed(config):
    chain = Chain(output())
    request = dataclasses.replace(request_for(config, output(9), 900_000), outpoint=output().outpoint)
    with pytest.raises(Rejection) as caught:
        find(with_lookups(config, chain), request)
    assert (caught.value.code, caught.value.parameter) == ("bad_signature", "payment")
    assert chain.asked == []


def test_a_chain_that_is_silent_is_no_answer(config):
    class Silent:
        async def find_funding(self, request):
            raise Unavailable("chain_unavailable")

    with pytest.raises(Unavailable):
        find(with_lookups(config, Silent()), request_for(config, output(), 900_000))


def test_the_terms_are_those_of_the_output_and_of_the_request(config):
    request = request_for(config, output(), 900_000)
    terms = opening(config).terms(request, output(3, 777_777), SERVER, NOW + 5)
    assert (terms.outpoint, terms.funding_value, terms.opened_at) == (output(3).outpoint, 777_777, NOW + 5)
    assert (terms.server_pubkey, terms.client_pubkey, terms.exp_time) == (SERVER, PUBKEY, soonest(config))
    assert terms.change_script == request.change_script


# --- the judgement ---


def verdict(config: ServerConfig, funding: FundingOutput, change_value: int, signed_for: FundingOutput | None = None) -> str | int:
    """Return what the opening payment is worth, or with which code it is refused."""
    rules, request = opening(config), request_for(config, signed_for or funding, change_value)
    try:
        return rules.check(rules.terms(request, funding, SERVER, NOW), request.payment, funding)
    except Rejection as error:
        return error.code


def test_a_good_opening_is_worth_what_it_gives_up(config):
    assert verdict(config, output(), VALUE - config.open_price - 1) == config.open_price + 1


def test_the_open_price_is_the_least(config):
    assert verdict(config, output(), VALUE - config.open_price) == config.open_price
    assert verdict(config, output(), VALUE - config.open_price + 1) == "open_price_short"


def test_the_price_is_told_to_who_pays_less(config):
    request = request_for(config, output(), VALUE - 1)
    rules = opening(config)
    with pytest.raises(Rejection, match=f"open price is {config.open_price} satoshi, received 1 satoshi") as caught:
        rules.check(rules.terms(request, output(), SERVER, NOW), request.payment, output())
    assert caught.value.parameter == "payment"


@pytest.mark.parametrize(("value", "needed"), [(VALUE, 2), (VALUE + 1, 6)])
def test_larger_outputs_need_more_confirmations(config, value, needed):
    assert verdict(config, output(value=value, confirmations=needed - 1), 700_000) == "funding_unconfirmed"
    assert verdict(config, output(value=value, confirmations=needed), 700_000) == value - 700_000


def test_a_coinbase_must_be_mature(config):
    assert COINBASE_MATURITY == 100
    assert verdict(config, output(confirmations=COINBASE_MATURITY - 1, is_coinbase=True), 700_000) == "funding_immature"
    assert verdict(config, output(confirmations=COINBASE_MATURITY, is_coinbase=True), 700_000) == VALUE - 700_000


def test_no_channel_holds_more_than_is_configured(config):
    assert verdict(config, output(value=10 * VALUE), 700_000) == 10 * VALUE - 700_000
    assert verdict(config, output(value=10 * VALUE + 1), 700_000) == "funding_too_large"


def test_nobody_keeps_more_than_was_funded(config):
    assert verdict(config, output(), VALUE + 1) == "change_value_range"
    assert verdict(config, output(), VALUE) == "open_price_short"


def test_a_payment_for_another_output_is_not_signed(config):
    assert verdict(config, output(), 700_000, signed_for=output(5)) == "bad_signature"
