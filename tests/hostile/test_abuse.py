"""Aim: under abuse, good traffic is answered rightly, and connections and memory stay bounded. Method: all attacks of abuse.py at
once
for a short while, beside a payer, through both doors; requests within requests, also behind nginx where it is installed. No
timings here:
those are what `python -m tests.hostile.abuse` is for."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections import Counter
from dataclasses import replace

import pytest

from tests.chain.core_stand_in import TIP_HEIGHT
from tests.hostile import abuse, counted_node
from tests.ports import free_port
from tests.system import Client, running, wait_until

FORM_CODES = ("invalid_payment", "invalid_base64", "invalid_der", "high_s", "invalid_sighash_type", "change_value_range")
MEMORY_GROWTH_MAX = 60_000_000
"""Bytes, of all processes: buffers of 4096 connections, batches under way, the caches' first filling; a leak is far more."""


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    own_port = free_port()
    changes = {"server.toml": {"base_port": f"base_port = {own_port}"}}
    with running(tmp_path_factory.mktemp("abuse"), changes=changes) as system:
        slow = {}
        for door, port in (("shared", system.port), ("own", own_port)):  # to be judged last: so long a body may take
            slow[door] = socket.create_connection(("127.0.0.1", port), timeout=100)
            slow[door].sendall(b"POST /v1/payments HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nab")
        yield system, {"shared": system.port, "own": own_port}, slow
        bugs = [number for number, line in enumerate(system.output) if "Traceback" in line or "internal error" in line]
        assert not bugs, "".join(system.output[bugs[0] : bugs[0] + 30])


@pytest.mark.parametrize("door", ["shared", "own"])
def test_good_payments_count_under_attack(doors, door):
    system, ports, _ = doors
    assert {attack.__name__ for attack in abuse.REVIEWED} < set(abuse.ATTACKS)
    told = Counter()
    for _ in range(10):  # two seconds may be too short for a whole batch, on a busy machine
        row = abuse.measure(abuse.place_of(system), "everything", ports[door], rounds=1, seconds=2)
        assert row.troubles == []
        assert row.times["with"]
        before, after = row.memory
        assert after - before < MEMORY_GROWTH_MAX
        assert row.victim == (200, 100)
        told += row.told
        if told["bad_signature"] and told["no_such_channel"]:
            break
    assert [code for code in abuse.TELLING if told[code]] == []
    assert told["bad_signature"] > 0 and told["no_such_channel"] > 0


STRANGERS = (abuse.unknown_batches, abuse.junk_batches, abuse.junk_batches_on_many, abuse.probing, abuse.unsigned_opens)


def test_who_has_not_signed_causes_no_look_up_and_is_told_nothing(tmp_path):
    """After a new block every channel's output is to be looked at again, for the payer; for strangers it is not."""
    with counted_node.served(tmp_path, free_port(), is_still=True) as (system, node):
        place = abuse.Place(system, lambda name: counted_node.funded_payer(system, node, name), node.asked)
        scene, victim, signed = place.scene(system.port)
        node.find_block()
        wait_until(lambda: system.client().request("GET", "/readyz").json["chain"]["height"] > TIP_HEIGHT, 10, "the new block")
        node.asked()
        told = Counter()
        while told["no_such_channel"] <= abuse.BATCH:  # a busy machine takes some rounds to be asked as much
            for attack in STRANGERS:
                one = replace(scene, seconds=0.3, told=Counter())
                assert asyncio.run(attack(one)) > 0
                told += one.told
        asked = node.asked()
        assert asked["made up"] == 0
        assert asked["gettxout"] <= 8 * abuse.CHANNELS  # the server's own look at each after a block; the requests were thousands
        assert set(told) <= {"bad_signature", "too_many_failures", "no_such_channel", "overloaded", *FORM_CODES}
        assert told["bad_signature"]
        answer, _ = victim.client.persist("PUT", victim.sender.channel_target(signed))
        assert (answer.status, answer.json["value_received"]) == (200, 100)


def payments_that_count(system, port, case_name):
    """Send one request with another in it; return whether the inner one, a good payment, counted."""
    payer = system.payer(f"smuggled {case_name} {port}")
    assert payer.open().status == 201
    payment = payer.sender.pay(1)
    inner = abuse.put(payer.sender.channel_target(payment))
    case = abuse.smuggling_cases(inner)[case_name]

    async def send():
        return await abuse.Scene(port, 5).send(case)

    answer = asyncio.run(send())
    probe = system.client().request("PUT", payer.sender.channel_target(payment))
    assert probe.status == 200
    return answer, probe.json["value_received"] == 0


CASES = list(abuse.smuggling_cases(b""))


@pytest.mark.parametrize("case", CASES)
def test_a_request_within_a_request_is_none_at_the_own_port(doors, case):
    system, ports, _ = doors
    answer, counted = payments_that_count(system, ports["own"], case)
    assert not counted
    assert answer.count(b"HTTP/1.1 ") == 1 and answer[9:10] in (b"4", b"5")


@pytest.mark.parametrize("case", CASES)
def test_a_request_within_a_request_is_none_at_the_shared_port(doors, case):
    system, ports, _ = doors
    answer, counted = payments_that_count(system, ports["shared"], case)
    assert not counted, answer


NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


@pytest.fixture(scope="module")
def proxied(doors, tmp_path_factory):
    """nginx before each door; its ports by door."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    directory = tmp_path_factory.mktemp("nginx")
    ports = {door: free_port() for door in doors[1]}
    servers = "".join(
        f"server {{ listen 127.0.0.1:{ports[door]}; location / {{ proxy_pass http://{door}_door; proxy_http_version 1.1;"
        f' proxy_set_header Connection ""; }} }} upstream {door}_door {{ server 127.0.0.1:{port}; keepalive 8; }}\n'
        for door, port in doors[1].items()
    )
    temporary = "".join(f"{name}_temp_path {directory}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/pid; error_log {directory}/error.log; worker_processes 1; master_process off;\n"
        f"events {{ worker_connections 256; }}\nhttp {{ access_log off; {temporary} {servers} }}\n"
    )
    process = subprocess.Popen([NGINX, "-c", str(directory / "nginx.conf"), "-e", f"{directory}/error.log"], stderr=subprocess.PIPE)

    def listens() -> bool:
        assert process.poll() is None, (directory / "error.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", ports["own"])) == 0

    try:
        wait_until(listens, 5, "starting nginx")
        yield ports
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("door", ["shared", "own"])
def test_a_request_within_a_request_is_none_behind_nginx(doors, proxied, door, case):
    system, *_ = doors
    answer, counted = payments_that_count(system, proxied[door], case)
    assert not counted, answer
    assert Client(proxied[door]).request("GET", "/healthz").status == 200  # the kept connection behind it is not out of step


def test_connections_are_bounded_and_given_back(doors):
    """Beyond the cap connections are closed at once; when the others end, there is room again."""
    _, ports, _ = doors
    held = [socket.create_connection(("127.0.0.1", ports["own"])) for _ in range(300)]
    assert Client(ports["own"]).request("GET", "/healthz").status == 200
    for connection in held:
        connection.close()
    time.sleep(0.1)
    assert Client(ports["own"]).request("GET", "/healthz").status == 200


@pytest.mark.parametrize("door", ["shared", "own"])
def test_a_body_that_does_not_come_is_given_up(doors, door):
    """granian bounds the time of headers only, so a body could hold a connection for ever; and one that broke off left a
    traceback."""
    answer = doors[2][door].recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ") and b'"request_timeout"' in answer
    assert doors[2][door].recv(1) == b""  # closed
