"""Aim: nobody locks money up that the server will not open a channel on, and nothing is made or told before that is known.

Method: a real server with limits, on network regtest; a scripted one that tells what each test says, or only what v1 of 2016 told.
"""

import asyncio
import json
import time

import pytest

from paychan.client import (
    LIVE,
    REGTEST,
    TEST,
    AsyncChannel,
    Channel,
    ChannelMissing,
    InvalidAmount,
    Refused,
    ServerMisbehaved,
    StateError,
    WrongNetwork,
    parse_record,
    read_key,
)
from paychan.client.terms import BLOCK_SECONDS
from paychan.core.network import decode_address, p2pkh_address
from paychan.core.script import Hash160
from paychan.core.units import DUST_LIMIT, LOCKTIME_MAX, MAX_MONEY
from tests.client.payer_system import FEW, LARGEST, MANY, PATIENT, new_channel, running_with_limits
from tests.client.scripted_server import ScriptedServer
from tests.system import CHANGE_ADDRESS, WEEK

LIVE_ADDRESS = "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"
PRICE = 1000


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    with running_with_limits(tmp_path_factory.mktemp("limited")) as system:
        yield system


@pytest.fixture
def server():
    with ScriptedServer() as found:
        yield found


def telling(**more: object):
    """Have the scripted server add to its fundingInfo, or take away what is None."""

    def misbehave(method: str, answer: tuple):
        content = {key: value for key, value in {**answer[1], **more}.items() if value is not None}
        return answer[0], content, answer[2]

    return misbehave


@pytest.fixture
def create(tmp_path):
    """Return a function that makes a channel below a directory that is not there yet."""

    def make(port: int, network=TEST, expires_in: int = WEEK, address: str = "", value: int | None = None) -> Channel:
        directory, exp_time = tmp_path / "new", int(time.time()) + expires_in
        url = f"http://127.0.0.1:{port}"
        return Channel.create(directory / "c.json", url, directory / "c.key", network, exp_time, address, PATIENT, value)

    make.directory = tmp_path / "new"
    return make


def refusal(create, *arguments, **options) -> str:
    """Return the code with which a channel is refused, of which nothing was made then."""
    with pytest.raises(Refused) as caught:
        create(*arguments, **options)
    assert not create.directory.exists()
    return caught.value.code


# --- the network ---


def test_a_server_tells_its_network_and_the_wrong_one_is_refused_as_such(limited, create):
    for network, address in ((LIVE, ""), (TEST, ""), (LIVE, LIVE_ADDRESS), (LIVE, CHANGE_ADDRESS), (TEST, CHANGE_ADDRESS)):
        with pytest.raises(WrongNetwork) as caught:
            create(limited.port, network, address=address, value=LARGEST + 1)  # too much as well: the network goes first
        assert (caught.value.code, caught.value.networks) == ("wrong_network", ("regtest",))
        assert not create.directory.exists()
    with create(limited.port, REGTEST) as channel:
        assert channel.record.agreement.network is REGTEST


def test_a_server_of_2016_is_told_by_its_address_as_far_as_that_goes(server, create):
    with pytest.raises(WrongNetwork, match="is on test or testnet4 or signet or regtest, not on live") as caught:
        create(server.port, LIVE)
    assert caught.value.networks == ("test", "testnet4", "signet", "regtest")
    with create(server.port, REGTEST) as channel:  # its addresses look like network test's
        assert channel.record.agreement.funding_address.startswith("2")


def test_a_server_that_names_a_network_and_shows_another_address_lies(server, create):
    server.misbehave = telling(network="live")
    with pytest.raises(ServerMisbehaved, match="is not the channel's address"):
        create(server.port, LIVE)
    server.misbehave = telling(network="test", funding_address_copy=CHANGE_ADDRESS)
    with pytest.raises(ServerMisbehaved, match="is not the channel's address"):
        create(server.port)
    assert not create.directory.exists()


def test_a_network_that_we_do_not_know_is_named(server, create):
    server.misbehave = telling(network="liquid")
    with pytest.raises(WrongNetwork, match="liquid, not on test"):
        create(server.port)


def test_an_address_of_another_network_is_no_place_for_change(limited, server, create):
    assert refusal(create, limited.port, REGTEST, address=LIVE_ADDRESS) == "invalid_change_address"
    assert refusal(create, server.port, address="nonsense") == "invalid_change_address"


# --- the amount ---


def test_the_largest_amount_and_the_smallest_pass_and_one_satoshi_more_or_less_does_not(limited, create):
    least = 83240 + DUST_LIMIT
    assert refusal(create, limited.port, REGTEST, value=LARGEST + 1) == "funding_too_large"
    assert [refusal(create, limited.port, REGTEST, value=value) for value in (1, 83239, least - 1)] == ["too_small"] * 3
    with create(limited.port, REGTEST, value=least) as channel:
        assert channel.record.agreement.planned_value == least


@pytest.mark.parametrize(("value", "count"), [(999_999, FEW), (1_000_000, MANY), (LARGEST, MANY)])
def test_the_confirmations_that_the_amount_needs_are_known(limited, create, value, count):
    with create(limited.port, REGTEST, value=value) as channel:
        assert channel.record.agreement.confirmations == count
    with Channel(create.directory / "c.json") as channel:
        agreed = channel.record.agreement
        assert (agreed.confirmations, agreed.planned_value, agreed.funding_tx_min_conf) == (count, value, FEW)


def test_who_names_no_amount_learns_of_the_least_confirmations(limited, create):
    with create(limited.port, REGTEST) as channel:
        agreed = channel.record.agreement
        assert (agreed.confirmations, agreed.planned_value) == (FEW, None)


def test_a_server_of_2016_has_a_price_and_no_limit(server, create):
    assert refusal(create, server.port, value=PRICE + DUST_LIMIT - 1) == "too_small"
    with create(server.port, value=MAX_MONEY) as channel:
        assert channel.record.agreement.open_before is None
    assert all("funding_value=" in target for _, target in server.requests)


def test_the_server_s_own_dust_limit_counts(server, create):
    server.misbehave = telling(dust_limit=5000)
    assert refusal(create, server.port, value=PRICE + 4999) == "too_small"
    create(server.port, value=PRICE + 5000).release()


def test_a_limit_that_is_only_told_is_kept_to(server, create):
    server.misbehave = telling(funding_value_max=5000)
    assert refusal(create, server.port, value=5001) == "funding_too_large"
    create(server.port, value=5000).release()


@pytest.mark.parametrize("value", [0, -1, True, 1.5, MAX_MONEY + 1, "5"])
def test_what_is_no_amount_is_not_asked_about(server, create, value):
    with pytest.raises(InvalidAmount):
        create(server.port, value=value)
    assert not server.requests and not create.directory.exists()


def test_an_amount_that_is_refused_though_it_fits_what_is_told_is_refused(server, create):
    def refuse(method: str, answer: tuple):
        if "funding_value" in server.requests[-1][1]:
            return 400, {"code": "funding_too_large", "detail": "no"}, {}
        return None

    server.misbehave = refuse
    assert refusal(create, server.port, value=5000) == "funding_too_large"


# --- the expiry ---


def test_an_expiry_must_leave_time_for_the_confirmations(server, create):
    now, lead = int(time.time()), 7 * 3600
    server.misbehave = telling(exp_time_min=now + lead, exp_time_max=now + WEEK, confirmations_needed=6)
    most = lead + 6 * BLOCK_SECONDS
    assert refusal(create, server.port, expires_in=most - 5, value=5000) == "exp_time_too_soon"
    with create(server.port, expires_in=most + 5, value=5000) as channel:
        agreed = channel.record.agreement
        assert 0 <= agreed.open_before - (agreed.exp_time - lead) <= 5  # seconds that this test took


def test_expiries_beyond_what_is_told_are_refused(server, limited, create):
    now = int(time.time())
    server.misbehave = telling(exp_time_min=now + 10, exp_time_max=now + 1000)
    assert refusal(create, server.port, expires_in=5) == "exp_time_too_soon"
    assert refusal(create, server.port, expires_in=1100) == "exp_time_too_far"
    assert refusal(create, limited.port, REGTEST, expires_in=3600) == "exp_time_too_soon"
    assert refusal(create, limited.port, REGTEST, expires_in=100 * 86400) == "exp_time_too_far"
    assert refusal(create, server.port, expires_in=LOCKTIME_MAX) == "invalid_exp_time"


def test_the_last_moment_to_open_is_what_the_server_s_rule_says(limited, create):
    with create(limited.port, REGTEST, value=LARGEST) as channel:
        agreed = channel.record.agreement
        assert 0 <= agreed.open_before - (agreed.exp_time - 7 * 3600) <= 60


def test_a_bound_that_is_long_past_does_not_move_the_last_moment_behind_the_expiry(server, create):
    server.misbehave = telling(exp_time_min=0)
    with create(server.port) as channel:
        assert channel.record.agreement.open_before == channel.record.agreement.exp_time


# --- strictness ---


@pytest.mark.parametrize(
    "told",
    [
        {"network": 5},
        {"network": ""},
        {"network": "\x1b[31m"},
        {"network": "é"},
        {"network": "n" * 21},
        {"funding_value_max": "10"},
        {"funding_value_max": -1},
        {"funding_value_max": 1.5},
        {"funding_value_max": True},
        {"funding_value_max": MAX_MONEY + 1},
        {"dust_limit": -1},
        {"dust_limit": False},
        {"confirmations_needed": -1},
        {"confirmations_needed": 1001},
        {"confirmations_needed": "3"},
        {"exp_time_min": -1},
        {"exp_time_min": 1e9},
        {"exp_time_min": LOCKTIME_MAX + 1},
        {"exp_time_max": "soon"},
    ],
    ids=str,
)
def test_figures_without_sense_are_refused(server, create, told):
    server.misbehave = telling(**told)
    with pytest.raises(ServerMisbehaved):
        create(server.port, value=5000)
    assert not create.directory.exists()


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>welcome</html>", {}),
        (200, b"", {}),
        (200, [1, 2], {}),
        (200, {"alive": True}, {}),
        (301, b"", {"Location": "https://pay.example.com/"}),
        (204, b"", {}),
        (401, b"", {}),
        (404, b"<h1>not here</h1>", {}),
        (404, {"code": "no_such_route", "detail": "No such resource"}, {}),
        (404, {"error": "nothing here"}, {}),
    ],
    ids=str,
)
def test_what_is_no_payment_channel_server_is_told_by_its_url(server, create, answer):
    server.misbehave = lambda method, right: answer
    with pytest.raises(Refused, match=rf"http://127.0.0.1:{server.port} is no payment channel server") as caught:
        create(server.port)
    assert caught.value.code == "no_channel_server" and not create.directory.exists()


# --- what is made ---


def test_the_key_is_made_with_the_channel_and_its_address_takes_the_change(server, create):
    with create(server.port) as channel:
        pubkey = read_key(create.directory / "c.key").public_key.format()
        agreed = channel.record.agreement
        assert agreed.client_pubkey == pubkey and channel.record.key_file == "c.key"
        assert agreed.change_script == decode_address(TEST, p2pkh_address(TEST, Hash160(pubkey)))
    key = (create.directory / "c.key").read_bytes()
    (create.directory / "c.json").rename(create.directory / "other.json")
    with create(server.port) as channel:
        assert channel.record.agreement.client_pubkey == pubkey
    assert (create.directory / "c.key").read_bytes() == key


def test_a_channel_that_exists_is_not_agreed_on_again(server, create):
    create(server.port).release()
    state, requests = (create.directory / "c.json").read_bytes(), len(server.requests)
    with pytest.raises(Refused) as caught:
        create(server.port)
    assert caught.value.code == "channel_exists" and len(server.requests) == requests
    assert (create.directory / "c.json").read_bytes() == state


def test_one_that_came_meanwhile_is_not_written_over(server, create):
    def meanwhile(method: str, answer: tuple) -> None:
        create.directory.mkdir(exist_ok=True)
        (create.directory / "c.json").write_text("somebody else's")

    server.misbehave = meanwhile
    with pytest.raises(Refused) as caught:
        create(server.port)
    assert caught.value.code == "channel_exists"
    assert (create.directory / "c.json").read_text() == "somebody else's"
    assert not (create.directory / "c.key").exists()


def test_the_asyncio_face_agrees_by_the_same_rules(limited, tmp_path):
    async def create(value: int) -> AsyncChannel:
        url, exp_time = f"http://127.0.0.1:{limited.port}", int(time.time()) + WEEK
        return await AsyncChannel.create(tmp_path / "c", url, tmp_path / "k", REGTEST, exp_time, funding_value=value)

    async def live() -> None:
        with pytest.raises(Refused, match="at most 10000000"):
            await create(LARGEST + 1)
        assert not list(tmp_path.iterdir())
        async with await create(LARGEST) as channel:
            assert channel.record.agreement.confirmations == MANY
            with pytest.raises(Refused, match="network test only"):
                await channel.fund_debug()

    asyncio.run(live())


def test_a_missing_channel_is_missing_and_leaves_nothing(tmp_path):
    for path in (tmp_path / "no.json", tmp_path / "deep" / "er" / "no.json"):
        with pytest.raises(ChannelMissing) as caught:
            Channel(path)
        assert caught.value.code == "channel_missing" and isinstance(caught.value, StateError)
    assert not list(tmp_path.iterdir())


def test_a_channel_of_an_earlier_version_is_read_and_an_edited_one_is_not(server, tmp_path):
    new_channel(tmp_path, server.port).release()
    content = json.loads((tmp_path / "c.json").read_text())
    added = {"planned_value": None, "confirmations_needed": None, "open_before": None}
    assert {key: content[key] for key in added} == added
    for key in added:
        del content[key]
    assert parse_record(json.dumps(content).encode()).agreement.confirmations == 0
    exp_time = content["exp_time"]
    edits = [("planned_value", bad) for bad in (-1, "5", 1.5, True, MAX_MONEY + 1)]
    edits += [("confirmations_needed", bad) for bad in (-1, "3", 1001)] + [("funding_tx_min_conf", bad) for bad in (None, "1", -1)]
    edits += [("open_before", bad) for bad in (-1, exp_time + 1, "x")] + [("settlement_period_hours", bad) for bad in (None, 10**9)]
    for key, bad in edits:
        with pytest.raises(StateError, match=key):
            parse_record(json.dumps({**content, key: bad}).encode())
    with pytest.raises(StateError, match="damaged"):
        parse_record(json.dumps({**content, "funding": None}).encode())
