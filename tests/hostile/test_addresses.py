"""Aim: one address that floods refuses no other, whatever it says of itself; a payer that shares it still pays. Method: two workers
with little time for failures, clients at addresses of their own (127.0.0.0/8 has many), a proxy that is trusted."""

import http.client
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.metrics import Scraper, listening, shows_all
from tests.ports import free_port
from tests.system import Client, running, wait_until

FLOODER, HONEST, PROXY = "127.0.0.66", "127.0.0.7", "127.0.0.99"
OPENS, FAILURES, CONNECTIONS = 20, 1, 12
LIMITS = (
    f'[limits]\ntrusted_proxies = ["{PROXY}"]\nexempt = ["127.0.0.1"]\nopens_per_minute = {OPENS}\n'
    f"failures_per_minute = {FAILURES}\nconnections = {CONNECTIONS}\n\n"
)


def client_at(address, port, **headers):
    """Return a client that connects from an address of this machine."""
    client = Client(port)
    client._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15, source_address=(address, 0))
    if headers:
        usual = client.request
        client.request = lambda method, target: usual(method, target, {name.replace("_", "-"): headers[name] for name in headers})
    return client


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    scraper = Scraper(free_port())
    ((beginning, text),) = listening(scraper.port)["server.toml"].items()
    changes = {"server.toml": {beginning: LIMITS + text}}
    with running(tmp_path_factory.mktemp("addresses"), 2, changes=changes, variant="little time") as system:
        wait_until(lambda: shows_all(scraper, 2), 20, "serving the metrics")
        yield system, scraper
        bugs = [line for line in system.output if "Traceback" in line or "internal error" in line]
        assert not bugs, bugs


@contextmanager
def flood(address, port, targets):
    """Send junk payments from an address, on kept connections, while the block runs; yield what it is told, by code."""
    told, is_over = {}, threading.Event()

    def run():
        client, number = client_at(address, port), 0
        while not is_over.is_set():
            number += 1
            try:
                code = client.request("PUT", targets[number % len(targets)]).code
                told[code] = told.get(code, 0) + 1
            except OSError:
                time.sleep(0.01)
        client.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("door", ["shared", "own"])
def test_a_flood_from_one_address_keeps_no_other_from_paying(place, door):
    """Through the shared port half of all payments are another worker's, which does not see who sent them."""
    system, scraper = place
    port = system.port if door == "shared" else system.own_ports()[0]
    payers = [system.payer(f"flooded {door} {number}") for number in range(4)]
    for payer in payers:
        assert payer.open().status == 201
    junk = [unsigned_target(payer) for payer in payers]
    before = scraper.value("paychan_limited_total", kind="payments")
    with flood(FLOODER, port, junk) as told:
        wait_until(lambda: told.get("too_many_refused", 0) > 3, 20, "refusing the flood")
        for payer in payers:
            payer.client = client_at(HONEST, port)
            assert [payer.pay().status for _ in range(5)] == [200] * 5
        neighbour = payers[0]
        neighbour.client = client_at(FLOODER, port)
        neighbour.newest = neighbour.sender.pay(1)
        deadline = time.monotonic() + 60
        while (answer := neighbour.resend()).status == 429:
            assert answer.headers["retry-after"] == "1" and time.monotonic() < deadline
            time.sleep(0.02)
        assert answer.status == 200
    assert told.keys() <= {"bad_signature", "too_many_refused", "too_many_failures"}
    assert scraper.value("paychan_limited_total", kind="payments") > before


def unsigned_target(payer):
    """Return the target of a payment of right form whose signature is another one's."""
    return payer.sender.channel_target(replace(payer.newest, change_value=payer.newest.change_value - 7))


def open_from(system, client, name):
    payer = system.payer(name)
    payer.client = client
    return payer.open()


@pytest.mark.parametrize("door", ["shared", "own"])
def test_opens_are_counted_by_address_and_a_forged_header_is_not_believed(place, door):
    system, scraper = place
    port = system.port if door == "shared" else system.own_ports()[0]
    flooder, honest = f"127.0.1.{66 if door == 'own' else 67}", f"127.0.1.{7 if door == 'own' else 8}"
    client = client_at(flooder, port, X_Forwarded_For=honest)  # on one connection, so at one worker
    answers = [open_from(system, client, f"open {door} {number}") for number in range(OPENS + 5)]
    assert [answer.status for answer in answers[:OPENS]] == [201] * OPENS
    late = {(answer.status, answer.code or answer.status) for answer in answers[OPENS:]}
    assert (429, "too_many_opens") in late and late <= {(429, "too_many_opens"), (201, 201)}  # one comes back in three seconds
    assert open_from(system, client_at(honest, port), f"open {door} honest").status == 201
    assert scraper.value("paychan_limited_total", kind="opens") > 0


@pytest.mark.parametrize("door", ["shared", "own"])
def test_clients_of_a_trusted_proxy_are_counted_one_by_one(place, door):
    system, _ = place
    port = system.port if door == "shared" else system.own_ports()[0]
    flooder, honest = (f"203.0.113.{number + (100 if door == 'own' else 0)}" for number in (66, 7))
    proxy = client_at(PROXY, port, X_Forwarded_For=f"{honest}, {flooder}")  # the client forges, the proxy adds who it is
    codes = {open_from(system, proxy, f"proxied {door} {number}").code for number in range(OPENS + 5)}
    assert "too_many_opens" in codes
    for chain in (honest, f"{flooder}, {honest}", f"{honest}, {PROXY}"):
        proxy = client_at(PROXY, port, X_Forwarded_For=chain)
        assert open_from(system, proxy, f"proxied {door} {chain}").status == 201


def test_connections_of_one_address_are_bounded(place):
    system, scraper = place
    port, address = system.own_ports()[0], "127.0.2.66"
    held = [client_at(address, port) for _ in range(CONNECTIONS)]
    assert [client.request("GET", "/healthz").status for client in held] == [200] * CONNECTIONS
    answer = client_at(address, port).request("GET", "/healthz")
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "too_many_connections", "1")
    assert client_at("127.0.2.7", port).request("GET", "/healthz").status == 200
    held.pop().close()
    wait_until(lambda: client_at(address, port).request("GET", "/healthz").status == 200, 5, "giving a place back")
    assert scraper.value("paychan_limited_total", kind="connections") > 0
    assert not any("127.0.2" in label for (_, labels) in scraper.samples() for _, label in labels)
