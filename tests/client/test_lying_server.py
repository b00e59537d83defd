"""Aim: whatever a server answers, it never holds more than one payment beyond what the payer meant. Method: a scripted liar."""

import json
import time

import pytest

from paychan.chain.debug import DEBUG_FUNDING_VALUE
from paychan.client import (
    Channel,
    ChannelClosed,
    ClientError,
    OutcomeUnknown,
    Refused,
    ServerMisbehaved,
    StateBehindServer,
    create_key,
    parse_record,
)
from paychan.core.network import TEST
from paychan.core.payment import decode_payment
from tests.client.payer_system import PATIENT, QUICK, new_channel
from tests.client.scripted_server import CUT, TXID, ScriptedServer, result
from tests.system import CHANGE_ADDRESS, WEEK

PRICE = 1000
STEP = 10


@pytest.fixture
def server():
    with ScriptedServer() as found:
        yield found


def left(server, status: int = 200, **changes: object) -> tuple:
    return status, {**result("open", server.change, STEP, None), **changes}, {}


LIES = {
    "too little left": lambda s: left(s, channel_value_left=s.change - 1),
    "too much left": lambda s: left(s, channel_value_left=s.change + 1),
    "a float": lambda s: left(s, channel_value_left=float(s.change)),
    "text": lambda s: left(s, channel_value_left=str(s.change)),
    "true": lambda s: left(s, value_received=True),
    "negative": lambda s: left(s, value_received=-1),
    "closed though open": lambda s: left(s, channel_status="closed"),
    "closed": lambda s: left(s, 202, channel_status="closed", settlement_txid=TXID),
    "closed with 200": lambda s: left(s, channel_status="closed", settlement_txid=TXID),
    "open with a txid": lambda s: left(s, settlement_txid=TXID),
    "no object": lambda s: (200, [1], {}),
    "garbage": lambda s: (200, b"<html>log in to this network</html>", {}),
    "nothing": lambda s: (200, b"", {}),
    "too long": lambda s: (200, b" " * 5000 + b"{}", {}),
    "deep": lambda s: (200, b"[" * 4000, {}),
    "redirect": lambda s: (307, b"", {"Location": "http://127.0.0.1:1/v1/"}),
    "see other": lambda s: (303, b"", {"Location": "/v1/channels/"}),
    "no content": lambda s: (204, b"", {}),
    "a POST's status": lambda s: left(s, 201, channel_value_left=0),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_lie_about_a_payment_is_the_last_that_it_gets(server, tmp_path, lie):
    with new_channel(tmp_path, server.port) as channel:
        server.misbehave = lambda method, answer: lie(server)
        for _ in range(3):
            with pytest.raises(ServerMisbehaved):
                channel.pay(STEP)
        requests = len(server.requests)
    with Channel(tmp_path / "c.json", PATIENT) as channel:
        with pytest.raises(ServerMisbehaved):
            channel.pay(STEP)
        assert len(server.requests) == requests, "nothing more was sent"
        assert server.best_change == DEBUG_FUNDING_VALUE - PRICE - STEP
        server.misbehave = lambda method, answer: None
        channel.resume()
        assert channel.pay(STEP).paid_value == PRICE + 2 * STEP


@pytest.mark.parametrize("claimed", [0, STEP - 1])
def test_a_server_that_says_it_received_less_gets_no_more(server, tmp_path, claimed):
    with new_channel(tmp_path, server.port) as channel:
        server.misbehave = lambda method, answer: left(server, value_received=claimed)
        for _ in range(3):
            with pytest.raises(StateBehindServer):
                channel.pay(STEP)
        assert server.best_change == DEBUG_FUNDING_VALUE - PRICE - STEP


def test_value_received_is_never_taken_for_what_was_paid(server, tmp_path):
    with new_channel(tmp_path, server.port) as channel:
        server.misbehave = lambda method, answer: left(server, value_received=10**12)
        assert channel.pay(STEP).paid_value == PRICE + STEP
        assert channel.pay(STEP).change_value == server.best_change == DEBUG_FUNDING_VALUE - PRICE - 2 * STEP


def cheat_info(**changes: object):
    return lambda method, answer: (answer[0], {**answer[1], **changes}, {}) if method == "GET" else None


@pytest.mark.parametrize(
    "changes",
    [
        {"funding_address_copy": "2MsFDzHRUAMpjHxKyoEHU3aMCMsVtMqs1PV"},
        {"funding_address_copy": None},
        {"server_pubkey": "02" + "00" * 32},
        {"server_pubkey": "02ba"},
        {"server_pubkey": 5},
        {"open_price": -1},
        {"open_price": 1.5},
        {"open_price": True},
        {"settlement_period_hours": -1},
        {"funding_tx_min_conf": 10**9},
    ],
    ids=str,
)
def test_false_terms_are_refused_before_any_money_moves(server, tmp_path, changes):
    server.misbehave = cheat_info(**changes)
    with pytest.raises(ServerMisbehaved):
        new_channel(tmp_path, server.port)
    assert not (tmp_path / "c.json").exists()


def test_a_price_raised_after_the_agreement_is_not_paid(server, tmp_path):
    server.misbehave = lambda method, answer: (
        (400, {"code": "open_price_short", "detail": "open price is 999999999"}, {}) if method == "POST" else None
    )
    with pytest.raises(Refused):
        new_channel(tmp_path, server.port)
    assert server.best_change == DEBUG_FUNDING_VALUE - PRICE


def test_closing_a_channel_whose_opening_was_refused_says_that_it_is_not_open(server, tmp_path):
    def refuse(method: str, answer: tuple) -> tuple | None:
        refusals = {"POST": (400, {"code": "funding_not_found"}, {}), "DELETE": (404, {"code": "no_such_channel"}, {})}
        return refusals.get(method)

    with new_channel(tmp_path, server.port, is_open=False) as channel:
        server.misbehave = refuse
        for tries in range(2):
            with pytest.raises(Refused, match="the channel is not open, so there is nothing to close") as refusal:
                channel.close_channel()
            assert refusal.value.code == "not_open"
            if not tries:
                with pytest.raises(Refused):
                    channel.open()


def test_another_channel_s_location_is_not_followed(server, tmp_path):
    server.misbehave = lambda method, answer: (
        (201, answer[1], {"Location": f"http://thief.invalid/v1/channels/{TXID}/0"}) if method == "POST" else None
    )
    with pytest.raises(ServerMisbehaved, match="another channel"):
        new_channel(tmp_path, server.port)


def storm(count: int, answer: object):
    """Take the request in, and answer `count` times with `answer` instead."""
    seen = []

    def misbehave(method: str, right: tuple) -> object:
        seen.append(method)
        return answer if len(seen) <= count else None

    return misbehave


UNAVAILABLE = (503, {"code": "store_unavailable"}, {"Retry-After": "0"})


@pytest.mark.parametrize("answer", [CUT, UNAVAILABLE, (500, b"", {}), (502, b"<html>", {}), (429, b"", {})], ids=str)
def test_unknown_outcomes_are_sent_again_with_the_same_bytes_and_count_once(server, tmp_path, answer):
    with new_channel(tmp_path, server.port) as channel:
        del server.requests[:]
        server.misbehave = storm(4, answer)
        assert channel.pay(STEP).paid_value == PRICE + STEP
        assert len(server.requests) == 5 and len(set(server.requests)) == 1
        server.misbehave = storm(2, answer)
        assert channel.close_channel().paid_value == PRICE + STEP


def test_an_open_whose_answer_was_lost_goes_on_with_the_channel(server, tmp_path):
    server.misbehave = storm(0, None)
    with new_channel(tmp_path, server.port, is_open=False) as channel:
        server.misbehave = storm(1, CUT)
        assert channel.open().paid_value == PRICE
        assert [method for method, _ in server.requests] == ["GET", "POST", "POST", "PUT"]
        assert channel.pay(STEP).paid_value == PRICE + STEP


@pytest.mark.parametrize("answer", [CUT, UNAVAILABLE], ids=str)
def test_nothing_is_signed_while_an_outcome_is_unknown(server, tmp_path, answer):
    with new_channel(tmp_path, server.port, policy=QUICK) as channel:
        server.misbehave = lambda method, right: answer
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                channel.pay(STEP)
    assert server.best_change == DEBUG_FUNDING_VALUE - PRICE - STEP
    server.misbehave = lambda method, right: None
    with Channel(tmp_path / "c.json", PATIENT) as channel:
        outcome = channel.pay(STEP)
        assert (outcome.recovered, outcome.paid_value) == (STEP, PRICE + 2 * STEP)


def test_a_slow_server_is_given_up_at_the_deadline(server, tmp_path):
    with new_channel(tmp_path, server.port, policy=QUICK) as channel:
        server.misbehave = lambda method, right: time.sleep(0.4)
        before = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            channel.pay(STEP)
        assert time.monotonic() - before < PATIENT.deadline


@pytest.mark.parametrize("has_it", [True, False])
def test_a_channel_that_closed_meanwhile_tells_whether_the_payment_counted(server, tmp_path, has_it):
    with new_channel(tmp_path, server.port, policy=QUICK) as channel:
        held, change = server.held, server.change
        server.misbehave = lambda method, right: CUT
        with pytest.raises(OutcomeUnknown):
            channel.pay(STEP)
        server.is_closed = True
        if not has_it:
            server.held, server.change = held, change
        server.misbehave = lambda method, right: None
        with pytest.raises(ChannelClosed):
            channel.pay(STEP)
        assert channel.record.paid_value == PRICE + (STEP if has_it else 0)
        assert channel.record.settlement_txid == TXID


def test_a_payment_to_the_last_satoshi_whose_answer_was_lost(server, tmp_path):
    with new_channel(tmp_path, server.port) as channel:
        server.misbehave = storm(1, CUT)
        outcome = channel.pay(channel.record.change_value)
        assert (outcome.status, outcome.change_value, outcome.settlement_txid) == ("closed", 0, TXID)


def test_the_state_is_on_disk_before_the_payment_is_sent(server, tmp_path):
    seen = []

    def look(method: str, payment: str) -> None:
        record = parse_record((tmp_path / "c.json").read_bytes())
        assert not (tmp_path / "c.json.tmp").exists()
        seen.append((method, decode_payment(payment) == record.signed, record.is_pending))

    server.on_arrival = look
    with new_channel(tmp_path, server.port) as channel:
        channel.pay(1)
        channel.pay(2)
        channel.close_channel()
    assert seen == [("POST", True, True), ("PUT", True, True), ("PUT", True, True), ("DELETE", True, False)]


def test_a_state_that_cannot_be_written_sends_nothing(server, tmp_path):
    with new_channel(tmp_path, server.port) as channel:
        requests = len(server.requests)
        (tmp_path / "c.json.tmp").mkdir()
        with pytest.raises(ClientError) as error:
            channel.pay(STEP)
        assert error.value.code == "state_error"
        assert len(server.requests) == requests and not channel.record.is_pending
        (tmp_path / "c.json.tmp").rmdir()
        assert channel.pay(STEP).paid_value == PRICE + STEP


def test_a_refusal_is_shown_without_control_characters(server, tmp_path):
    with new_channel(tmp_path, server.port) as channel:
        server.misbehave = lambda method, right: (400, {"code": "bad_signature", "detail": "\x1b[31mno\n"}, {})
        with pytest.raises(Refused) as refusal:
            channel.pay(STEP)
        assert (refusal.value.code, refusal.value.detail) == ("bad_signature", "?[31mno?")
        assert channel.record.pending_value == STEP


@pytest.mark.parametrize("field", ["server_pubkey", "exp_time", "change_address", "signed", "funding", "funding_address", "phase"])
def test_an_edited_state_is_refused(server, tmp_path, field):
    with new_channel(tmp_path, server.port):
        pass
    path = tmp_path / "c.json"
    content = json.loads(path.read_text())
    content[field] = {
        "server_pubkey": content["client_pubkey"],
        "exp_time": content["exp_time"] + 1,
        "change_address": "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY",
        "signed": {**(content["signed"]), "change_value": 1},
        "funding": {**content["funding"], "value": 5},
        "funding_address": CHANGE_ADDRESS,
        "phase": "new",
    }[field]
    path.write_text(json.dumps(content))
    with pytest.raises(ClientError) as error:
        Channel(path)
    assert error.value.code == "state_error"


def test_a_key_that_others_may_read_is_refused(server, tmp_path):
    create_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ClientError, match="0600"):
        url = f"http://127.0.0.1:{server.port}"
        Channel.create(tmp_path / "c.json", url, tmp_path / "key", TEST, int(time.time()) + WEEK, CHANGE_ADDRESS)
