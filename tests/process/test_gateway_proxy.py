"""Aim: what a gateway passes on is one request, whole, and without what ends at a hop; what it answers is what the upstream
answered, or visibly not all of it. Method: real processes; raw bytes from the client, and an upstream that tells what came over
the wire."""

import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.gateways import frame, free_config, handshake, parse, read_all, running_gateway, running_upstream, told
from tests.system import ROOT, resident_bytes, wait_until

HEAD = b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"


@pytest.fixture(scope="module")
def upstream():
    with running_upstream() as process:
        yield process


@pytest.fixture(scope="module")
def gateway(upstream, tmp_path_factory):
    quick = "limits = { answer_seconds_max = 1, idle_seconds_max = 2, body_seconds_max = 2 }"
    config = free_config(
        upstream,
        'path = "/*"',
        f'path = "/silent/*" | {quick}',
        f'path = "/slow/*" | {quick}',
        'path = "/echo/*" | websocket = true',
        'path = "/small" | limits = { body_bytes_max = 10 }',
        'path = "/get" | methods = ["GET"]',
        'path = "/mended/*" | request_headers = { set = { X-Key = "k" }, remove = ["cookie"] }'
        ' | response_headers = { set = { X-Said = "gateway" }, remove = ["x-upstream"] }',
        gateway='trusted_proxies = ["127.0.0.2"]',
    )
    with running_gateway(tmp_path_factory.mktemp("gateway"), config) as process:
        yield process


@pytest.fixture
def client(gateway):
    made = gateway.client()
    yield made
    made.close()


def names(asked):
    return [name.lower() for name, _ in asked["headers"]]


# --- requests ---


def test_a_request_and_its_answer_pass_through(client, gateway):
    answer = client.request("POST", "/a%20b/caf%C3%A9?q=%2F..%2F&r=[1]", {"X-Mine": "1", "Content-Type": "text/x"}, b"body")
    asked = told(answer)
    assert asked["line"] == ["POST", "/a%20b/caf%C3%A9?q=%2F..%2F&r=[1]", "HTTP/1.1"] and asked["body"] == "body"
    assert dict(asked["headers"])["x-mine"] == "1" and dict(asked["headers"])["content-length"] == "4"
    assert answer.headers["x-upstream"] == "yes"
    raw = gateway.raw(b"GET /x" + HEAD + b"\r\n")
    assert raw.count(b"set-cookie: ") == 2 and b"\r\nserver: granian" not in parse(raw).body


def test_the_upstream_is_told_who_asks_by_the_gateway_alone(client):
    lies = {
        "X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6", "X-Forwarded-Host": "evil",
        "X_Forwarded_For": "6", "X-HTTP-Method-Override": "DELETE", "X-Original-URL": "/admin", "X-Rewrite-URL": "/admin",
        "Paychan-Amount": "1000",
    }  # fmt: skip
    asked = told(client.request("GET", "/x", lies))
    headers = dict(asked["headers"])
    assert headers["x-forwarded-for"] == "127.0.0.1" and headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"].startswith("127.0.0.1:")
    assert "6.6.6.6" not in json.dumps(asked) and "evil" not in json.dumps(asked) and "admin" not in json.dumps(asked)
    assert not {"x_forwarded_for", "x-http-method-override", "paychan-amount"} & set(names(asked))


def test_a_trusted_proxy_is_believed(gateway):
    with socket.create_connection(("127.0.0.1", gateway.port), source_address=("127.0.0.2", 0)) as connection:
        connection.sendall(b"GET /x" + HEAD + b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n")
        headers = dict(told(parse(read_all(connection)))["headers"])
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("1.2.3.4, 127.0.0.2", "https")


def test_what_ends_at_a_hop_is_not_passed_on(gateway):
    fields = b"Connection: close, X-Mine, Content-Length, Host\r\nX-Mine: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n"
    fields += b"Proxy-Authorization: x\r\n"
    fields += b"Upgrade: h2c\r\nHTTP2-Settings: x\r\nTrailer: X\r\nContent-Length: 2\r\nProxy-Connection: x\r\n"
    asked = told(parse(gateway.raw(b"POST /x HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\nab")))
    dropped = {"x-mine", "te", "keep-alive", "proxy-authorization", "upgrade", "http2-settings", "trailer", "proxy-connection"}
    assert not dropped & set(names(asked)) and asked["body"] == "ab"


def test_no_credential_of_a_payment_reaches_the_upstream(client):
    money = {"Payment-Authorization": "secret", "Payment-Receipt": "secret", "Accept-Payment": "secret"}
    for value in ("Payment secret", "payment secret", "PAYMENT\tsecret", "Basic abc, Payment secret"):
        asked = told(client.request("GET", "/x", {"Authorization": value, **money}))
        assert "secret" not in json.dumps(asked) and "authorization" not in names(asked)
    assert dict(told(client.request("GET", "/x", {"Authorization": "Bearer mine"}))["headers"])["authorization"] == "Bearer mine"


def test_the_operators_fields_replace_and_remove(client):
    answer = client.request("GET", "/mended/x", {"Cookie": "a", "X-Key": "theirs"})
    asked = told(answer)
    assert [value for name, value in asked["headers"] if name.lower() == "x-key"] == ["k"] and "cookie" not in names(asked)
    assert answer.headers["x-said"] == "gateway" and "x-upstream" not in answer.headers


REFUSED = {
    "two lengths": (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "length and chunked": (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
    "chunked": (b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
    "two codings": (b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "unknown coding": (b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n", 400),
    "obscured coding": (b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "length with a sign": (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\na", 400),
    "length in a list": (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\na", 400),
    "space before the colon": (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length : 1\r\n\r\na", 400),
    "folded field": (b"GET /x HTTP/1.1\r\nHost: h\r\nX-A: b\r\n c\r\n\r\n", 400),
    "no host": (b"GET /x HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /x HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
    "no host at all in 1.0": (b"GET /x HTTP/1.0\r\n\r\n", 400),
    "host with a path": (b"GET /x HTTP/1.1\r\nHost: h/x\r\n\r\n", 400),
    "another host in the target": (b"GET http://other/x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "two slashes": (b"GET //x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "dot segments": (b"GET /a/%2e%2e/x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "not a path": (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "a tunnel": (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    "a trace": (b"TRACE /x HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    "a method in small letters": (b"get /x HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    "another expectation": (b"POST /x HTTP/1.1\r\nHost: h\r\nExpect: 200-maybe\r\nContent-Length: 1\r\n\r\na", 417),
    "a body that is too large": (b"POST /small HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n12345678901", 413),
    "a method that is not taken": (b"POST /get HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 405),
}


@pytest.fixture(scope="module")
def refused(gateway, upstream):
    """All of them sent at once, for each connection is listened to until it has been silent for a while: (answers, what the
    upstream was asked)."""
    upstream.log()
    with ThreadPoolExecutor(len(REFUSED)) as pool:
        answers = pool.map(lambda row: parse(gateway.raw(row[0], seconds=4)), REFUSED.values())
        return dict(zip(REFUSED, answers, strict=True)), upstream.log()


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused_and_nobody_is_asked(refused, name):
    answers, asked = refused
    assert answers[name].status == REFUSED[name][1]
    assert asked == []


def test_an_absolute_target_is_the_path_in_it(gateway):
    assert told(parse(gateway.raw(b"GET http://h:80/x?y HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")))["line"][1] == "/x?y"


def test_what_follows_a_refused_body_is_not_taken_for_a_request(gateway, upstream):
    upstream.log()
    inner = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    small = b"POST /small HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(inner)
    for head in (small, REFUSED["two lengths"][0], REFUSED["chunked"][0]):
        gateway.raw(head + inner, seconds=2)
    assert upstream.log() == []


def test_a_body_is_asked_for_when_somebody_wants_it(gateway):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"POST /x" + HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abc")
        assert told(parse(read_all(connection)))["body"] == "abc"
    refused = gateway.raw(b"POST /small" + HEAD + b"Expect: 100-continue\r\nContent-Length: 30\r\n\r\n")
    assert parse(refused).status == 413


def test_a_body_that_ends_early_is_never_whole_to_the_upstream(gateway, upstream):
    upstream.log()
    gateway.raw(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc", seconds=2, shut=True)
    wait_until(lambda: any(line[0] == "broken" for line in (entry["line"] for entry in upstream.log())), 10, "breaking off")


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(gateway):
    answer = parse(gateway.raw(b"POST /slow/x" + HEAD + b"Content-Length: 10\r\n\r\nabc", seconds=30))
    assert answer.status == 408, answer.body


def test_an_upstream_may_answer_before_it_has_read_the_body(gateway):
    answer = parse(gateway.raw(b"POST /early" + HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000, seconds=5))
    assert (answer.status, answer.body) == (413, b"too much")


# --- answers ---


def test_statuses_pass_through(client):
    for status in (200, 204, 206, 301, 304, 400, 404, 416, 500, 503):
        answer = client.request("GET", f"/status/{status}")
        assert answer.status == status and answer.body == (b"" if status in (204, 304) else b"told so")


def test_head_has_the_length_and_no_body(gateway):
    answer = parse(gateway.raw(b"HEAD /x" + HEAD + b"\r\n"))
    assert answer.status == 200 and answer.body == b"" and int(answer.headers["content-length"]) > 10


def test_an_answers_fields_that_end_at_a_hop_or_speak_of_payments_are_dropped(client):
    headers = client.request("GET", "/headers").headers
    assert headers["x-kept"] == "yes" and headers["www-authenticate"] == "Basic realm=x"
    assert not {"x-hop", "keep-alive", "trailer", "payment-receipt"} & set(headers)


def test_letters_in_an_answers_fields_do_no_harm(gateway):
    raw = gateway.raw(b"GET /letters" + HEAD + b"\r\n")
    assert raw.startswith(b"HTTP/1.1 200") and b"x-kept: yes" in raw and "x-utf: \u65e5".encode() in raw and b"x-latin" not in raw


def test_an_interim_answer_is_not_taken_for_the_answer(client):
    answer = client.request("GET", "/hints")
    assert (answer.status, answer.body) == (200, b"after hints")


@pytest.mark.parametrize("path, status", [("/drop", 502), ("/silent/x", 504), ("/short/10/100", 502), ("/cut/0", 502)])
def test_an_upstream_that_fails_before_the_answer_is_begun_is_said_to(client, path, status):
    answer = client.request("GET", path)
    assert answer.status == status and answer.code in ("upstream_failed", "upstream_timeout")


@pytest.mark.parametrize("path", ["/cut/3", "/cut/20"])
def test_an_answer_that_breaks_off_is_not_ended_as_if_it_were_whole(gateway, path):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = parse(read_all(connection))
        assert answer.status == 200 and answer.body and not answer.body.endswith(b"0\r\n\r\n")
        assert has_ended(connection)


def has_ended(connection):
    """Return whether the other side has ended a connection, rather than fallen silent."""
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_nor_is_one_of_a_known_length_made_longer(gateway):
    answer = parse(gateway.raw(b"GET /short/100000/200000 HTTP/1.1\r\nHost: h\r\n\r\n"))
    assert answer.status == 200 and len(answer.body) < int(answer.headers["content-length"])


def test_a_slow_client_holds_the_upstream_back(gateway, upstream):
    """40 MB from an upstream, for a client that takes nothing: they do not pile up in the gateway."""
    worker = int(next(line for line in gateway.output if "Spawning worker" in line).rpartition(" ")[2])
    before = resident_bytes(worker)
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(b"GET /big/40000000 HTTP/1.1\r\nHost: h\r\n\r\n")
        seen = -1

        def sent():
            lines = [entry["line"] for entry in upstream.client().request("GET", "/peek").json]
            return max((int(line[1]) for line in lines if line[0] == "sent"), default=0)

        def stands_still():
            nonlocal seen
            last, seen = seen, sent()
            time.sleep(0.3)
            return last == seen > 0

        wait_until(stands_still, 20, "standing still")
        assert seen < 30_000_000 and resident_bytes(worker) - before < 20_000_000
        assert len(read_until_end(connection, 40_000_000)) > 40_000_000
    upstream.log()


def read_until_end(connection, size):
    got = bytearray()
    while len(got) < size and (piece := connection.recv(1 << 20)):
        got += piece
    return got + connection.recv(1 << 20) if len(got) == size else got


def test_events_come_as_they_happen(gateway):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"GET /events/0 HTTP/1.1\r\nHost: h\r\n\r\n")
        got = b""
        while b"event 3" not in got:
            got += connection.recv(1000)
    assert b"text/event-stream" in got


def test_an_upstream_learns_that_the_client_is_gone(gateway, upstream):
    upstream.log()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"GET /events/0 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert connection.recv(1000)
    wait_until(lambda: ["broken", "ConnectionResetError"] in [entry["line"] for entry in upstream.log()], 10, "closing")


# --- WebSocket ---


def test_a_websocket_passes_through(gateway, upstream):
    upstream.log()
    connection, status = handshake(gateway, "/echo/x", "Authorization: Payment secret", "Cookie: a=1")
    with connection:
        assert status == 101
        connection.sendall(frame(b"hello"))
        assert connection.recv(100) == b"\x81\x05hello"
        connection.sendall(frame(b"close"))
        assert connection.recv(100)[0] == 0x88
    (asked,) = [entry for entry in upstream.log() if entry["line"][0] == "GET"]
    assert "cookie" in names(asked) and "secret" not in json.dumps(asked) and "x-forwarded-for" in names(asked)


def test_a_websocket_ends_when_the_client_is_gone(gateway, upstream):
    upstream.log()
    connection, _ = handshake(gateway, "/echo/x")
    connection.close()
    wait_until(lambda: len(upstream.log()) >= 1, 10, "closing")


@pytest.mark.parametrize(
    "path, fields, status",
    [("/x", (), 404), ("/echo/x", ("Sec-WebSocket-Protocol: a",), 501), ("/echo/../x", (), 400), ("/get", (), 404)],
)
def test_a_handshake_that_is_not_passed_on_is_refused(gateway, path, fields, status):
    connection, refused = handshake(gateway, path, *fields)
    connection.close()
    assert refused == status


# --- the gateway itself ---


def test_health_and_readiness(client):
    assert client.request("GET", "/healthz").body == b"ok\n" and client.request("GET", "/readyz").status == 200


def test_it_stops_in_order(upstream, tmp_path):
    """A request that is under way is answered; a stream that has no end is ended, visibly; the exit status is 0."""
    config = free_config(upstream, 'path = "/*"', gateway="stop_seconds = 1")
    with running_gateway(tmp_path, config) as gateway:
        streams = [socket.create_connection(("127.0.0.1", gateway.port), timeout=20) for _ in range(3)]
        for stream in streams:
            stream.sendall(b"GET /events/0 HTTP/1.1\r\nHost: h\r\n\r\n")
            assert stream.recv(1000)
        short = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
        short.sendall(b"GET /events/20 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert short.recv(1000)
        assert gateway.stop() == 0
        assert all(not read_all(stream).endswith(b"0\r\n\r\n") for stream in streams)
        assert read_all(short).endswith(b"0\r\n\r\n")


def test_no_more_than_allowed_are_under_way(upstream, tmp_path):
    one = 'path = "/events/*" | limits = { concurrency_max = 1 }'
    config = free_config(upstream, 'path = "/*"', one, gateway="concurrency_max = 2")
    with running_gateway(tmp_path, config) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as stream:
            stream.sendall(b"GET /events/0 HTTP/1.1\r\nHost: h\r\n\r\n")
            assert stream.recv(1000)
            refused = gateway.client().request("GET", "/events/1")
            assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "overloaded", "1")
            assert gateway.client().request("GET", "/x").status == 200
        wait_until(lambda: gateway.client().request("GET", "/events/1").status == 200, 10, "making room")


def test_nothing_of_a_request_is_logged(gateway, client):
    client.request("GET", "/drop?secret-in-query", {"Authorization": "Payment secret-credential"})
    assert not [line for line in gateway.output if "secret" in line]


def test_a_bad_file_is_refused_with_all_that_is_wrong(tmp_path):
    (tmp_path / "gateway.toml").write_text("[gateway]\nport = 0\nx = 1\n")
    command = [sys.executable, "-m", "paychan", "gateway", str(tmp_path / "gateway.toml")]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and len(done.stdout.splitlines()) == 4
    assert subprocess.run(command, capture_output=True, cwd=ROOT, check=False).returncode == 2
