"""Aim: what the original's clients signed is accepted, to the satoshi, and ends in a settlement that pays it.

Method: the 300 recorded payments of 2016 over a fixture chain, and the 17 recorded debug channels, through three real processes
with the recorded server keys, the clock set to their time.
"""

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.outpoint import parse_outpoint
from paychan.core.script import p2sh_script_pubkey
from paychan.core.units import DUST_LIMIT
from tests.conformance_table import CHANNELS_REFUSED
from tests.settled import settled_change
from tests.system import ROOT, WEEK, System, make_sender, running

VECTORS = ROOT / "tests" / "vectors"
KEY_2016 = "456af7395529404380edc4fa35a161e096aa510610b98d3d219dc178dc58c1d7"
KEY_DEBUG = "9b4b4cf8f8796ca8a3a8a3da5c73deeb7c558a89e3752b896349ec58c010879d"
DEBUG_CLOCK_START = 1795329876

SESSION_2016 = json.loads((VECTORS / "original-48aa769-300.json").read_text())
CHANNELS = json.loads((VECTORS / "reference-channels.json").read_text())


def replace_file(path: Path, content: object) -> None:
    """Replace as an operator should: a reader sees the old file or the new one."""
    new = path.with_suffix(".new")
    new.write_text(content if isinstance(content, str) else json.dumps(content))
    os.replace(new, path)


# --- 300 payments of 2016 ---


@pytest.fixture(scope="module")
def funding_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("funding") / "funding.json"
    replace_file(path, {"outputs": []})
    return path


@pytest.fixture(scope="module")
def system_2016(tmp_path_factory, funding_file):
    server = {
        "backend = ": f'backend = "fixture"\nfixture_file = "{funding_file}"',
        "base_price = ": "base_price = 1000",
        "price_add_settlement_fee = ": "price_add_settlement_fee = false",
        "fee_per_byte = ": "fee_per_byte = 1",
    }
    clock = {"PAYCHAN_CLOCK_START": str(SESSION_2016["channel"]["exp_time"] - WEEK)}
    directory = tmp_path_factory.mktemp("of2016")
    with running(directory, env=clock, changes={"server.toml": server}, signer_key=KEY_2016) as system:
        yield system


def terms_of_2016() -> ChannelTerms:
    channel = SESSION_2016["channel"]
    return ChannelTerms(
        outpoint=parse_outpoint(channel["funding_txid"], str(channel["funding_vout"])),
        server_pubkey=bytes.fromhex(channel["server_pubkey"]),
        client_pubkey=bytes.fromhex(channel["client_pubkey"]),
        exp_time=channel["exp_time"],
        funding_value=channel["funding_value"],
        change_script=bytes.fromhex(channel["change_script"]),
    )


def test_300_payments_of_2016_are_accepted_and_settled(system_2016: System, funding_file: Path):
    channel, payments = SESSION_2016["channel"], SESSION_2016["payments"]
    assert len(payments) == 300
    terms = terms_of_2016()
    assert terms.redeem_script.hex() == channel["redeem_script"]
    assert system_2016.server_pubkey == terms.server_pubkey
    client = system_2016.client()
    keys = f"client_pubkey={channel['client_pubkey']}&exp_time={channel['exp_time']}"
    open_target = f"/v1/channels/new?{keys}&change_address={channel['change_address']}&payment={payments[0]['payment']}"
    resource = f"/v1/channels/{channel['funding_txid']}/{channel['funding_vout']}"

    info = client.request("GET", f"/v1/fundingInfo?{keys}")
    assert info.json["funding_address_copy"] == channel["funding_address"]
    assert info.json["open_price"] == 1000

    # The file of funding outputs is read again whenever it was replaced, and a broken one is our trouble.
    answer = client.request("POST", open_target)
    assert (answer.status, answer.code) == (400, "funding_not_found")
    replace_file(funding_file, "{broken")
    answer = client.request("POST", open_target)
    assert (answer.status, answer.code) == (503, "chain_unavailable")
    output = {
        "txid": channel["funding_txid"],
        "vout": channel["funding_vout"],
        "value": channel["funding_value"],
        "script_pubkey": p2sh_script_pubkey(bytes.fromhex(channel["redeem_script"])).hex(),
        "confirmations": 1,
    }
    replace_file(funding_file, {"outputs": [output]})

    for number, payment in enumerate(payments):
        if number == 0:
            answer = client.request("POST", open_target)
            assert answer.status == 201, answer.body
            assert answer.headers["location"] == f"http://127.0.0.1:{system_2016.port}{resource}"
        else:
            answer = client.request("PUT", f"{resource}?payment={payment['payment']}")
            assert answer.status == 200, (number, answer.body)
        assert answer.json == {
            "channel_status": "open",
            "channel_value_left": payment["change_value"],
            "value_received": payment["value_received"],
            "settlement_txid": None,
        }
    assert sum(payment["value_received"] for payment in payments) == 1299

    answer = client.request("DELETE", f"{resource}?payment={payments[-1]['payment']}")
    assert answer.status == 202
    left = payments[-1]["change_value"]
    txid = answer.json["settlement_txid"]
    assert (answer.json["channel_value_left"], answer.json["value_received"]) == (left, 0)
    assert settled_change(system_2016.broadcast()[txid], txid, terms) == left


# --- the 17 debug channels ---


@pytest.fixture(scope="module")
def debug_system(tmp_path_factory):
    clock = {"PAYCHAN_CLOCK_START": str(DEBUG_CLOCK_START)}
    with running(tmp_path_factory.mktemp("debug"), env=clock, signer_key=KEY_DEBUG) as system:
        yield system


def target_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def test_the_table_of_refused_channels_names_recorded_ones():
    names = [channel["name"] for channel in CHANNELS]
    assert len(names) == len(set(names)) == 17
    assert set(CHANNELS_REFUSED) < set(names)


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel["name"])
def test_a_recorded_channel(debug_system: System, channel: dict):
    """The amounts follow from the recorded ones; a change below 700 is given up by the payer's library."""
    client = debug_system.client()
    code = CHANNELS_REFUSED.get(channel["name"], "")
    requests = [("POST", channel["open_url"], channel["initial_amount"])]
    requests += [("PUT", url, amount) for url, amount in zip(channel["payment_urls"], channel["later_amounts"], strict=True)]
    left, is_closed = 12_345_678_900_000, False
    for method, url, amount in requests:
        answer = client.request(method, target_of(url))
        if code:
            assert (answer.status, answer.code) == ((400, code) if method == "POST" else (404, "no_such_channel"))
            continue
        if is_closed:
            assert (answer.status, answer.code) == (404, "no_such_payment")
            continue
        new_left = max(left - amount, 0)
        new_left = new_left if new_left >= DUST_LIMIT else 0
        is_closed = new_left == 0
        assert answer.status == (202 if is_closed else 201 if method == "POST" else 200)
        values = answer.json
        txid = values.pop("settlement_txid")
        status = "closed" if is_closed else "open"
        assert values == {"channel_status": status, "channel_value_left": new_left, "value_received": left - new_left}
        left = new_left
        if is_closed:
            check_broadcast(debug_system, channel, txid, 0)
    if not code and not is_closed:
        newest = requests[-1][1].rpartition("payment=")[2]
        place = f"{channel['redeem_or_funding_txid']}/{channel['vout']}"
        answer = client.request("DELETE", f"/v1/channels/{place}?payment={newest}")
        assert (answer.status, answer.json["channel_value_left"]) == (202, left)
        check_broadcast(debug_system, channel, answer.json["settlement_txid"], left)


def check_broadcast(system: System, channel: dict, txid: str, left: int) -> None:
    key = PrivateKey(bytes.fromhex(channel["client_privkey"]))
    terms = make_sender(system.server_pubkey, key, channel["exp_time"]).terms
    assert settled_change(system.broadcast()[txid], txid, terms) == left
