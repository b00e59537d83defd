"""Aim: whoever has a token of a scope can do what it may and nothing else; what an operator changes holds at once, on all workers,
over restarts, and costs no payment. Method: one system with two workers, asked over HTTP; the routes come from the table."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from paychan.core.outpoint import format_outpoint
from paychan.operator.routes import ROUTES, SCOPES, Scope
from tests.certificates import make as make_certificates
from tests.operating import Operator, command, filled, operated, section
from tests.ports import free_port
from tests.selling import Seller, make_token, token_command
from tests.system import ROOT, make_config, wait_until

ABSENT = "0" * 64
WORKERS = 2


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    with operated(tmp_path_factory.mktemp("operated"), WORKERS) as (system, operators):
        yield system, operators
        log = "".join(system.output)
        assert "Traceback" not in log and "internal error" not in log
        assert not any(operator.token in log for operator in operators.values()), "a token is in the log"


@pytest.fixture
def system(both):
    return both[0]


@pytest.fixture
def steer(both):
    return both[1]["steer"]


def channel_of(payer):
    return format_outpoint(payer.sender.terms.outpoint)


# --- who may what ---


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_each_scope_may_do_what_it_may_and_nothing_else(both, route):
    """What acts is given a body that makes no sense: it is looked at after the token, and changes nothing."""
    _, operators = both
    raw = b"[]" if route.method in ("POST", "PUT", "PATCH") else None
    for scope, operator in operators.items():
        answer = operator.ask(route.method, filled(route), raw=raw, root="")
        rank = SCOPES.get(scope, Scope.NONE)
        if rank >= route.scope:
            assert answer.status not in (401, 403), (scope, answer.body)
        else:
            assert (answer.status, answer.json["code"]) == (403, "token_scope"), scope
    strangers = (Operator(operators["watch"].port), Operator(operators["watch"].port, "pct_" + "x" * 43))
    for stranger, code in zip(strangers, ("token_missing", "token_unknown"), strict=True):
        answer = stranger.ask(route.method, filled(route), raw=raw, root="")
        if route.scope is Scope.NONE:
            assert answer.status in (200, 404)
        else:
            assert (answer.status, answer.json["code"], answer.headers["www-authenticate"]) == (401, code, "Bearer")


def test_a_token_is_worth_nothing_from_its_revocation_on(both):
    system, operators = both
    made = Operator(operators["watch"].port, make_token(system, "short", "watch"))
    assert made.ask("GET", "/limits").status == 200
    assert token_command(system, "revoke", "short").returncode == 0
    assert made.ask("GET", "/limits").json["code"] == "token_unknown"


def test_operators_tokens_are_worth_nothing_at_the_sellers_door(both):
    system, operators = both
    for scope in SCOPES:
        answer = Seller(system, operators[scope].token).request("GET", "/v1/sell/channels")
        assert (answer.status, answer.json["code"]) == (403, "token_scope")


# --- looking ---


def test_status_tells_of_each_worker(both):
    system, operators = both
    found = operators["watch"].ask("GET", "/status").json
    assert {row["pid"] for row in found["workers"]} == set(system.worker_pids())
    assert all(row["is_ready"] and row["number"] for row in found["workers"])
    assert found["shards"]["owned"] == found["shards"]["total"] == sum(row["shards"] for row in found["workers"])
    assert found["ready"] == {"is_ready": True, "code": "", "detail": ""}
    assert (found["store"]["is_up"], found["signer"]["is_up"], found["network"]) == (True, True, "test")


def test_counts_are_those_of_the_payments(both):
    system, operators = both

    def taken():
        rows = operators["watch"].ask("GET", "/counts").json["families"]["paychan_payments_total"]
        return sum(row["value"] for row in rows if row["labels"]["outcome"] == "accepted")

    payer, before = system.payer("counted"), taken()
    assert payer.open().status == 201
    assert [payer.pay().status for _ in range(5)] == [200] * 5
    assert taken() == before + 5
    latency = operators["watch"].ask("GET", "/counts").json["families"]["paychan_payment_seconds"][0]
    assert latency["buckets"][-1] == [None, latency["count"]] and latency["count"] >= 5


# --- bad input ---

BODIES = (
    b"", b"x", b"[]", b"null", b"\xff", b"[" * 10_000, b'{"is_frozen": 1}', b'{"is_frozen": "true"}', b'{"why": "x"}',
    b'{"is_frozen": true, "more": 1}', b'{"is_frozen": true, "why": "a\\nb"}',
    json.dumps({"is_frozen": True, "why": "x" * 201}).encode(),
)  # fmt: skip


@pytest.mark.parametrize("raw", BODIES, ids=lambda raw: repr(raw[:30]))
def test_bad_bodies_are_refused_and_change_nothing(steer, raw):
    before = steer.ask("GET", "/limits").json["revision"]
    for method, path in (("PUT", "/opens"), ("POST", "/drain"), ("PATCH", "/limits")):
        answer = steer.ask(method, path, raw=raw)
        assert (answer.status, answer.json["code"]) == (400, "invalid_command"), (path, answer.body)
        assert answer.headers["content-type"] == "application/problem+json"
    assert steer.ask("GET", "/limits").json["revision"] == before


def test_bad_requests_get_the_codes_of_every_other_door(steer):
    asked = [
        (steer.ask("GET", "/status", raw=b"x"), 400, "body_not_allowed"),
        (steer.ask("PUT", "/opens", raw=b"x" * 70_000), 413, "body_too_large"),
        (steer.ask("DELETE", "/status"), 404, "no_such_route"),
        (steer.ask("GET", "/status/"), 404, "no_such_route"),
        (steer.ask("GET", "/../v1/status"), 404, "no_such_route"),
        (steer.ask("POST", f"/channels/{ABSENT}/01/settle", {}), 400, "invalid_vout"),
        (steer.ask("POST", "/channels/xyz/1/settle", {}), 400, "invalid_txid"),
        (steer.ask("POST", f"/channels/{ABSENT}/1/settle", {}), 404, "no_such_channel"),
        (steer.ask("POST", "/drain", {"worker": 60_000}), 404, "no_such_worker"),
        (steer.ask("POST", "/drain", {"worker": 0}), 404, "no_such_worker"),
        (steer.ask("POST", "/drain", {"worker": 1, "machine": True}), 400, "invalid_command"),
        (steer.ask("POST", "/drain", {"machine": True}), 409, "no_other_machine"),
    ]
    for answer, status, code in asked:
        assert (answer.status, answer.json["code"]) == (status, code)
    connection = http.client.HTTPConnection("127.0.0.1", steer.port, timeout=10)
    connection.putrequest("PUT", "/operator/v1/opens")
    connection.putheader("Authorization", f"Bearer {steer.token}")
    connection.endheaders()
    assert json.loads(connection.getresponse().read())["code"] == "length_required"


# --- freezing ---


def test_freezing_stops_openings_and_nothing_else_also_after_a_restart(system, steer):
    old, other, new = (system.payer(f"frozen {name}") for name in ("old", "other", "new"))
    opening = old.open()
    assert opening.status == 201 and other.open().status == 201
    told = steer.ask("PUT", "/opens", {"is_frozen": True, "why": "a trial"}).json
    assert told["opens"]["is_frozen"] and told["not_yet"] == []
    for number in range(4):  # both workers, whichever has the shard
        assert system.payer(f"frozen {number}").open().json["code"] == "opens_frozen"
    refused = new.open()
    assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (503, "opens_frozen", "1")
    lost_answer = old.client.request("POST", old.sender.open_target(old.newest))
    assert lost_answer.json["code"] == "channel_exists", "who lost the answer to an open is told, all the same"
    assert old.pay().status == 200 and old.resend().status == 200
    for pid in system.worker_pids():
        os.kill(pid, signal.SIGKILL)
    system.restart()
    wait_until(steer.is_there, 60, "serving the operator's API again")
    for payer in (old, other, new):
        payer.client = system.client()
    assert steer.ask("GET", "/status").json["opens"] == told["opens"]
    assert new.client.request("POST", new.sender.open_target(new.newest)).json["code"] == "opens_frozen"
    assert old.pay().status == 200
    assert old.close().status == 202, "a payer closes"
    assert steer.ask("POST", f"/channels/{channel_of(other)}/settle", {}).status == 202, "an operator settles"
    thawed = {"is_frozen": False, "since_at": None, "why": "", "holds_for": ""}
    assert steer.ask("PUT", "/opens", {"is_frozen": False}).json["opens"] == thawed
    assert new.client.request("POST", new.sender.open_target(new.newest)).status == 201


def test_a_worker_that_is_stopped_is_named_and_obeys_once_it_goes_on(system, steer):
    stopped = system.worker_pids()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        told = steer.ask("PUT", "/opens", {"is_frozen": True}).json
        assert told["not_yet"] == [stopped]
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: steer.ask("PUT", "/opens", {"is_frozen": True}).json["not_yet"] == [], 20, "obeying")
    wait_until(lambda: system.ready_workers() == WORKERS, 20, "its shards")
    for number in range(4):
        assert system.payer(f"stopped {number}").open().json["code"] == "opens_frozen"
    steer.ask("PUT", "/opens", {"is_frozen": False})


# --- limits ---


def test_limits_only_tighten_and_hold_at_once_on_every_worker(system, steer):
    configured = steer.ask("GET", "/limits").json["limits"]
    for name, row in configured.items():
        if row["configured"] is None or name == "funding_tx_min_conf":
            continue
        looser = steer.ask("PATCH", "/limits", {name: row["configured"] + 1})
        assert looser.status in (400, 409), name  # out of range, or looser than server.toml
    assert steer.ask("PATCH", "/limits", {"duration_hours_max": 876_001}).json["code"] == "limit_looser"
    for bad in (True, 1.5, "1", -1, [], 1 << 70):
        assert steer.ask("PATCH", "/limits", {"funding_value_max_satoshi": bad}).status == 400, bad
    both = {"funding_value_max_satoshi": 1000, "no_such": 1}
    assert steer.ask("PATCH", "/limits", both).status == 400, "one that makes no sense, and none is set"
    assert steer.ask("GET", "/limits").json["limits"] == configured
    told = steer.ask("PATCH", "/limits", {"funding_value_max_satoshi": 1000}).json
    assert told["limits"]["funding_value_max_satoshi"]["now"] == 1000 and told["not_yet"] == []
    for number in range(4):
        assert system.payer(f"limited {number}").open().json["code"] == "funding_too_large"
    assert steer.ask("PATCH", "/limits", {"funding_value_max_satoshi": None}).status == 200
    assert system.payer("limited 0").open().status == 201


def test_a_lower_exposure_settles_what_holds_more_and_more_money_is_refused(system, steer):
    rich, poor = system.payer("rich"), system.payer("poor")
    assert rich.open(900_000).status == 201 and poor.open(100_000).status == 201
    assert steer.ask("PATCH", "/limits", {"channel_value_max_satoshi": 800_000}).json["not_yet"] == []
    wait_until(lambda: rich.pay().status in (404, 410), 30, "settling what holds more than it may")
    assert poor.pay().status == 200
    assert poor.pay(800_000).status == 200, "a payment over it is taken, and its channel settled"
    wait_until(lambda: poor.pay().status in (404, 410), 30, "settling it")
    steer.ask("PATCH", "/limits", {"channel_value_max_satoshi": None})


# --- draining ---


def test_a_drained_worker_is_replaced_and_no_payment_is_lost(system, steer):
    payers = [system.payer(f"drained {number}") for number in range(4)]
    assert [payer.open().status for payer in payers] == [201] * 4
    before = steer.ask("GET", "/status").json["workers"]
    wanted = {"worker": before[0]["number"]}
    wait_until(lambda: steer.ask("POST", "/drain", wanted).status == 202, 20, "draining one that is old enough")
    for _ in range(20):
        for payer in payers:
            payer.newest = payer.sender.pay(1)
            wait_until(lambda payer=payer: paid(system, payer), 20, "paying")

    def is_replaced():
        workers = steer.ask("GET", "/status").json["workers"]
        numbers = {row["number"] for row in workers if row["is_ready"]}
        return len(numbers) == WORKERS and before[0]["number"] not in numbers

    wait_until(is_replaced, 30, "a successor")
    for payer in payers:
        assert payer.resend().json["channel_value_left"] == payer.newest.change_value


def paid(system, payer):
    """Send the newest payment; False where a client repeats it."""
    try:
        return payer.resend().status == 200
    except (OSError, http.client.HTTPException):
        payer.client = system.client()
        return False


# --- commands ---


def test_commands_do_the_same_from_another_machine_as_on_the_spot(system, steer, tmp_path):
    server, here = ("--server", f"http://127.0.0.1:{steer.port}"), (str(system.config_dir),)
    file = tmp_path / "token"
    file.write_text(f"{steer.token}\n")
    for place in (here, (*server, "--token-file", str(file))):
        assert command(system, "freeze", *place, "--why", "by command").stdout == "openings are frozen on this machine\n"
        seen = command(system, "overview", *place).stdout
        assert re.search(r"openings frozen on this machine since .* by command\n", seen)
        assert f"pid {system.worker_pids()[0]} ready" in seen
        assert command(system, "thaw", *place).stdout == "channels are opened again\n"
        told = command(system, "limits", *place, "--set", "duration_hours_max=5000").stdout
        assert "duration_hours_max: 5000 (server.toml: 876000)" in told
        assert steer.ask("PATCH", "/limits", {"duration_hours_max": None}).status == 200
        refused = command(system, "limits", *place, "--set", "duration_hours_max=900000")
        assert (refused.returncode, "limit_looser" in refused.stderr) == (1, True)
    assert "no_such_worker" in command(system, "drain", *here, "--worker", "60000").stderr
    payer = system.payer("settled by command")
    payer.open()
    done = command(system, "settle", *server, channel_of(payer), token=steer.token)
    assert done.returncode == 0 and len(done.stdout.strip()) == 64
    assert command(system, "settle", *server, f"{ABSENT}/1", token=steer.token).returncode == 1
    wrong = command(system, "overview", *server, token="pct_wrong")
    assert (wrong.returncode, "token_unknown" in wrong.stderr, "pct_wrong" in wrong.stderr) == (1, True, False)


def test_over_tls_the_certificate_is_checked(system, steer, tmp_path):
    place = make_certificates(tmp_path / "certificates", "127.0.0.1") / "127.0.0.1"
    port = free_port()
    changes = section(port, f'certificate = "{place}/peer.crt"', f'key = "{place}/peer.key"')
    config = make_config(tmp_path / "config", {"server.toml": changes})
    process = subprocess.Popen(
        [sys.executable, "-m", "paychan", "operator", str(config)],
        cwd=ROOT, env={**os.environ, "PAYCHAN_STATE_DIR": str(system.state_dir)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        server = ("--server", f"https://127.0.0.1:{port}")

        def overview(*more):
            return command(system, "overview", *server, *more, token=steer.token)

        wait_until(lambda: overview("--ca", f"{place}/ca.crt").returncode == 0, 60, "serving it over TLS")
        stranger = overview()
        assert stranger.returncode == 1 and "CERTIFICATE_VERIFY_FAILED" in stranger.stderr
        plain = command(system, "overview", "--server", f"http://127.0.0.1:{port}", token=steer.token)
        assert plain.returncode == 1 and "gives no answer" in plain.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_who_did_what_is_in_the_log(system, steer):
    """Last, for it looks at what the tests before did since the system was started again."""
    steer.ask("PUT", "/opens", {"is_frozen": False})
    time.sleep(0.5)
    log = "".join(system.output)
    assert "of-steer: thaw openings" in log and "Bearer" not in log and "pct_" not in log
