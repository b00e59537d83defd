"""Aim: we answer as the server of 2016 answered, but where a row of tests/conformance_table.py says why not.

Method: its 165 recorded requests, in order and byte for byte, against a real system with its key and its clock; signer and
store are killed where they were down then. Each case is compared with the recorded answer.
"""

import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.network import TEST, decode_address
from paychan.core.outpoint import format_outpoint
from paychan.core.units import DUST_LIMIT, MAX_MONEY
from tests.conformance_table import CODES_INSTEAD, DEVIATIONS
from tests.own_port_table import VERSION_OF_ANSWERS_TO_1_0
from tests.raw_http import RawAnswer, ask
from tests.settled import settled_change
from tests.system import CHANGE_ADDRESS, DOORS, ROOT, System, make_sender, running, wait_until

SERVER_KEY = "9b4b4cf8f8796ca8a3a8a3da5c73deeb7c558a89e3752b896349ec58c010879d"
CLOCK_START = 1795329876
HOST = "localhost:8000"
TXID = re.compile(r"[0-9a-f]{64}\Z")

CODES_BY_TEXT = {
    "Not Found": "no_such_route",
    "No such channel": "no_such_channel",
    "No such payment resource": "no_such_payment",
    "Channel already exists": "channel_exists",
    "Channel already existed, but has been settled": "channel_settled",
    "Channel is being closed": "channel_closing",
    "signature verification failed": "bad_signature",
    "Invalid payment. Please provide most recent channel payment.": "not_newest_payment",
    "Block number as channel expiration date is unsupported": "invalid_exp_time",
}
DETAILS_KEPT = {"Initial payment short": "open_price_short", "out-of-order payment": "out_of_order"}
"""Texts with numbers in them: by their beginning."""

ADDED_TO_FUNDING_INFO = {"network": "test", "funding_value_max": MAX_MONEY, "dust_limit": DUST_LIMIT}
"""What our fundingInfo has beside the recorded keys, and the two bounds of the expiry."""

GUILTY = re.compile(r'Missing (\w+) query|query arg "(\w+)"|(\w+): failed to decode path arg')


@dataclass
class Case:
    """One recorded request with its answer."""

    title: str
    method: str
    target: str
    status: int
    text: str
    headers: dict[str, str]
    body: str
    is_closed: bool

    @property
    def values(self) -> dict | None:
        """The JSON body of a recorded success, without the txid: we sign otherwise, so it differs."""
        if self.status >= 400 or not self.body.startswith("{"):
            return None
        return {key: value for key, value in json.loads(self.body).items() if key != "settlement_txid"}


def read_cases() -> list[Case]:
    cases = []
    for title, method, target, head, body, is_closed, _ in json.loads((ROOT / "tests/vectors/reference-golden.json").read_text()):
        status_line, *lines = head.split("\r\n")
        status, _, text = status_line.partition(" ")[2].partition(" ")
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        cases.append(Case(title, method, target, int(status), text, headers, body, is_closed))
    return cases


CASES = read_cases()
FIRST_WITHOUT_SIGNER = "SigningService down: close third with latest payment"
FIRST_WITHOUT_STORE = "ChanStore down: pay on fourth"
FIRST_AFTER_RESTART = "ChanStore and SigningService restarted (state reloaded from files): pay on fourth"


@dataclass
class Session:
    system: System
    answers: dict[str, RawAnswer]

    @property
    def door(self) -> str:
        return self.system.door


def take_down(system: System, name: str, code: str) -> None:
    """Kill a process and hold the supervisor, so that it stays down until `bring_up`."""
    os.kill(system.process.pid, signal.SIGSTOP)
    system.kill(name)
    wait_until(lambda: ask(system.port, "GET", "/readyz").code == code, 10, f"noticing that the {name} is down")


def bring_up(system: System) -> None:
    os.kill(system.process.pid, signal.SIGCONT)
    wait_until(lambda: system.ready_workers() == 1, 20, "restarting")


def replay(port: int, case: Case) -> RawAnswer:
    headers, version, body = {"Host": HOST}, "HTTP/1.1", b""
    if case.headers.get("Location") is None and "Host without port" in case.title:
        headers["Host"] = "localhost"
    if "HTTP/1.0" in case.title:
        version = "HTTP/1.0"
    if "gzip" in case.title:
        headers["Accept-Encoding"] = "gzip"
    if "body present" in case.title:
        body = b"hello"
    return ask(port, case.method, case.target, headers, version, body)


@pytest.fixture(scope="module", params=DOORS)
def session(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest):
    """The whole recorded session, played once."""
    answers: dict[str, RawAnswer] = {}
    env = {"PAYCHAN_CLOCK_START": str(CLOCK_START)}
    with running(tmp_path_factory.mktemp("golden"), env=env, signer_key=SERVER_KEY, door=request.param) as system:
        port = system.asked_port
        try:
            for case in CASES:
                if case.title == FIRST_WITHOUT_SIGNER:
                    take_down(system, "signer", "signer_unavailable")
                if case.title == FIRST_WITHOUT_STORE:
                    bring_up(system)
                    take_down(system, "store", "store_unavailable")
                if case.title == FIRST_AFTER_RESTART:
                    bring_up(system)
                answers[case.title] = replay(port, case)
        finally:
            os.kill(system.process.pid, signal.SIGCONT)
        yield Session(system, answers)


def test_the_recorded_session_is_complete():
    assert len(CASES) == len({case.title for case in CASES}) == 165
    titles = {case.title for case in CASES}
    assert {FIRST_WITHOUT_SIGNER, FIRST_WITHOUT_STORE, FIRST_AFTER_RESTART} <= titles


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_the_answer_is_the_recorded_one_or_the_tables(session, case):
    ours = session.answers[case.title]
    row = DEVIATIONS.get(case.title)
    if case.method == "HEAD":
        assert (ours.status, ours.body) == (row.status if row else case.status, b"")
        return
    assert (ours.status, ours.code) == ((row.status, row.code) if row else (case.status, ours.code))
    if ours.status >= 400:
        check_problem(case, ours, row is not None)
    else:
        check_success(case, ours, (row.values or {}) if row else {})


def check_problem(case: Case, ours: RawAnswer, has_row: bool) -> None:
    assert ours.code
    assert ours.json["status"] == ours.status
    assert ours.json["detail"]
    if has_row:
        return
    guilty = GUILTY.match(case.text) or GUILTY.search(case.text)
    if guilty:
        assert ours.json["parameter"] == next(filter(None, guilty.groups()))
    elif case.text in CODES_BY_TEXT:
        assert ours.code == CODES_INSTEAD.get(case.title, CODES_BY_TEXT[case.text])
    else:
        code = next(code for beginning, code in DETAILS_KEPT.items() if case.text.startswith(beginning))
        assert (ours.code, ours.json["detail"]) == (code, case.text)


def check_success(case: Case, ours: RawAnswer, changed_values: dict[str, int]) -> None:
    assert ours.headers.get("content-type") == ("application/json" if ours.body else None)
    values = ours.json
    txid = values.pop("settlement_txid", None)
    if case.method == "GET" and case.target.startswith("/v1/fundingInfo"):
        soonest, latest = values.pop("exp_time_min"), values.pop("exp_time_max")
        assert 7 * 3600 <= soonest - CLOCK_START < latest - CLOCK_START
        added = {key: values.pop(key) for key in ADDED_TO_FUNDING_INFO}
        assert added == ADDED_TO_FUNDING_INFO
    if case.values is not None:
        assert values == case.values | changed_values
    if values.get("channel_status") == "closed":
        assert TXID.match(txid)
    else:
        assert txid is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_headers_are_the_recorded_ones(session, case):
    ours = session.answers[case.title]
    assert ours.has_cors  # recorded on most answers, and missed by browsers on the others
    assert ours.version == (VERSION_OF_ANSWERS_TO_1_0[session.door] if case.is_closed else "HTTP/1.1")
    recorded = case.headers.get("Location")
    if case.title not in DEVIATIONS:
        with_port = recorded and recorded.replace("http://localhost/", f"http://{HOST}/")
        assert ours.headers.get("location") == with_port  # the original lost the port


def test_every_row_of_the_tables_is_a_deviation(session):
    by_title = {case.title: case for case in CASES}
    assert set(CODES_INSTEAD) <= set(by_title)
    for title, row in DEVIATIONS.items():
        case = by_title[title]
        assert row.reason
        is_other_status = row.status != case.status
        assert is_other_status or row.values, f"{title} does not deviate"
        if row.values:
            assert not row.values.items() <= case.values.items(), f"{title} does not deviate"


def test_settlements_are_stable_and_signed_all(session):
    answers, broadcast = session.answers, session.system.broadcast()
    first, again = answers["close with the latest payment"], answers["close again with the latest payment"]
    assert first.json == again.json
    closed = [answer.json for answer in answers.values() if answer.json.get("channel_status") == "closed"]
    assert {answer["settlement_txid"] for answer in closed} == set(broadcast)
    recorded = {channel["name"]: channel for channel in json.loads((ROOT / "tests/vectors/reference-channels.json").read_text())}
    terms_by_outpoint = {}
    for channel in recorded.values():
        if channel["exp_time"] >= 500_000_000:
            terms = terms_of(channel)
            terms_by_outpoint[format_outpoint(terms.outpoint)] = terms
    settled = 0
    for case in CASES:
        answer = answers[case.title].json
        if answer.get("channel_status") != "closed":
            continue
        place = case.target.split("?")[0].removeprefix("/v1/channels/")
        terms = terms_of(recorded["open_exhausts"]) if place == "new" else terms_by_outpoint[place]
        txid = answer["settlement_txid"]
        assert settled_change(broadcast[txid], txid, terms) == answer["channel_value_left"]
        settled += 1
    assert settled == len(closed) == 10


def terms_of(channel: dict) -> ChannelTerms:
    key = PrivateKey(bytes.fromhex(channel["client_privkey"]))
    server_pubkey = PrivateKey(bytes.fromhex(SERVER_KEY)).public_key.format()
    terms = make_sender(server_pubkey, key, channel["exp_time"]).terms
    assert terms.change_script == decode_address(TEST, CHANGE_ADDRESS)
    return terms


def test_the_log_holds_no_trouble_and_no_payment(session):
    log = "".join(session.system.output)
    assert "signer ended with status -9" in log  # so the log is really read
    for word in ("Traceback", "internal error", " 500 "):
        assert word not in log
    for case in CASES:
        payment = case.target.partition("payment=")[2].partition("&")[0]
        assert len(payment) < 20 or payment[:20] not in log


def test_the_log_is_not_searched_in_vain():
    assert sum(len(case.target.partition("payment=")[2]) > 80 for case in CASES) > 60
    assert Path(ROOT / "tests/vectors").is_dir()
