"""Aim: what is counted is what happened, exactly, whoever answered and whatever became of it; and nobody who asks can do harm.

Method: a system whose metrics are served. A client sends every kind of payment through every door and counts the answers itself;
both counts must agree. Workers are killed and replaced under load. Odd clients are sent to the port.
"""

import os
import signal
import socket
import threading
import time
from collections import Counter

import orjson
import pytest

from tests.metrics import by_outcome, measured, shows_all
from tests.process import test_four_doors as doors
from tests.selling import Seller, channel_of, text_of
from tests.system import OPEN_AMOUNT, Client, wait_until

REFUSED = (b"GET /metrics", b"POST /metrics HTTP/1.1", b"GET /x HTTP/1.1", b"GET  /metrics HTTP/1.1")
"""Requests that the port does not answer with what is counted."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A system of one worker, where each payment is judged by the worker that it came to."""
    with measured(tmp_path_factory.mktemp("alone")) as (system, scraper):
        yield system, scraper


def outcome_of(kind: str, status: int, body: bytes) -> str:
    """Return what a client makes of an answer, in the metric's words."""
    if status >= 400:
        return orjson.loads(body)["code"]
    if status == 202:
        return "exhausted"
    return "repeated" if orjson.loads(body)["value_received"] == 0 else "accepted"


def play(system, ports, channel, door) -> Counter:
    """Send each kind of payment through a door, on an open channel and once it is closed; return the outcomes."""
    found: Counter = Counter()
    kinds = [*(kind for kind in doors.KINDS if kind != "exhaust"), "exhaust", *doors.KINDS]
    for kind in kinds:
        request = doors.make_request(channel, kind, 7)
        status, body = doors.send(ports, channel, door, request)
        doors.check(channel, request, (status, body))
        found["batch" if door.startswith("batch") and request.raw is not None else "port", outcome_of(kind, status, body)] += 1
    return found


@pytest.mark.parametrize(("door", "label"), [("granian", "shared"), ("owner", "own"), ("batch by owner", "own")])
def test_each_door_and_outcome_is_counted_as_the_client_counts_it(alone, door, label):
    system, scraper = alone
    ports = doors.Doors.of(system)
    before = scraper.samples()
    channel = open_on_one(system, ports)
    sent = play(system, ports, channel, door)
    ports.close()
    after = scraper.samples()
    for where, name in ((label, "port"), ("batch", "batch")):
        counted = Counter(by_outcome(after, door=where)) - Counter(by_outcome(before, door=where))
        assert counted == {outcome: count for (place, outcome), count in sent.items() if place == name}, where
    batches = sum(count for (place, _), count in sent.items() if place == "batch")
    asked = Counter(by_outcome(after, "paychan_requests_total")) - Counter(by_outcome(before, "paychan_requests_total"))
    assert asked == ({"done": batches + 1})  # each batch is a request, and so was the open
    received = after["paychan_received_satoshi_total", ()] - before["paychan_received_satoshi_total", ()]
    assert received == channel.sender.terms.funding_value  # all of it was given up in the end
    opened = after["paychan_opens_total", (("outcome", "opened"),)] - before["paychan_opens_total", (("outcome", "opened"),)]
    assert opened == 1


def open_on_one(system, ports):
    """Return an open channel of the only worker."""
    (port,) = ports.own
    payer = system.payer(f"metrics {next(doors.names)}")
    payer.newest = payer.sender.pay(doors.OPEN_AMOUNT)
    assert ports.shared.request("POST", payer.sender.open_target(payer.newest)).status == 201
    return doors.Channel(payer.sender, port, payer.sender.change_value, payer.newest)


def test_what_is_sold_is_counted_as_the_seller_is_told(alone):
    system, scraper = alone
    payer = system.payer("metrics sold")
    assert payer.open(200_000).status == 201
    before = scraper.samples()
    seller = Seller(system, (system.state_dir / "run" / "sell.cookie").read_text().strip())
    channel, told, charged, returned = channel_of(payer), Counter(), 0, 0

    def ask(**sale) -> dict:
        answer = seller.ask({"channel": channel, **sale})
        outcome = answer.code or ("repeated" if answer.json["repeated"] else "accepted")
        told[outcome] += 1
        return answer.json

    payer.newest = payer.sender.pay(500)
    first = ask(do="charge", amount=300, key="a", payment=text_of(payer.newest))
    charged += first["spent"]  # with the open price, once
    ask(do="charge", amount=300, key="a")
    reserved = ask(do="reserve", amount=200, key="b", seconds=60)
    charged += 200
    ask(do="settle", amount=50, key="b", number=reserved["purchase"]["number"])
    returned += 150
    ask(do="charge", amount=10_000_000, key="c")
    ask(do="charge", amount=0, key="d")
    ask(do="nonsense")
    after = scraper.samples()
    assert Counter(by_outcome(after, door="sell")) - Counter(by_outcome(before, door="sell")) == told
    assert after["paychan_charged_satoshi_total", ()] - before["paychan_charged_satoshi_total", ()] == charged
    assert after["paychan_returned_satoshi_total", ()] - before["paychan_returned_satoshi_total", ()] == returned


def test_nothing_that_a_stranger_sends_makes_a_series(alone):
    system, scraper = alone
    before = scraper.samples()
    client, port = system.client(), Client(system.own_ports()[0])
    for number in range(30):
        for method, target in (
            ("PUT", f"/v1/channels/{number:064x}/{number}?payment=x{number}"),
            ("GET", f"/odd{number}"),
            ("DELETE", f"/v1/channels/{number:064x}/1?payment=y"),
            ("POST", f"/v1/channels/new?client_pubkey={number:066x}"),
        ):
            client.request(method, target, {"X-Outcome": f"o{number}", "Content-Length": "0"})
            port.request(method, target, {"Content-Length": "0"})
    samples = scraper.samples()
    known = {"invalid_base64", "no_such_route", "invalid_payment", "invalid_pubkey", "no_such_channel", "missing_parameter"}
    new = {dict(labels).get("outcome") for name, labels in samples.keys() - before.keys()}
    assert new <= known | {"invalid_exp_time"}
    text = scraper.text()
    assert f"{29:064x}" not in text and "odd29" not in text and "o29" not in text
    assert len(samples) < 800


def test_odd_clients_do_no_harm(alone):
    """Garbage, slow readers and senders, more connections than there may be: those are dropped, and the next scrape is answered."""
    system, scraper = alone

    def connect() -> socket.socket:
        made = socket.create_connection(("127.0.0.1", scraper.port), timeout=30)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        return made

    for garbage in (b"\0" * 20_000, b"\xff\n" * 500, *(line + b"\r\n\r\n" for line in REFUSED)):
        with connect() as odd:
            odd.sendall(garbage)
            odd.shutdown(socket.SHUT_WR)
            answer = odd.recv(100)
            assert b" 200 " not in answer
    silent = [connect() for _ in range(40)]
    slow = [connect() for _ in range(10)]
    for each in slow:
        each.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")  # and read nothing
    assert scraper.samples()
    more = [connect() for _ in range(40)]
    wait_until(lambda: _is_answered(scraper), 20, "a scrape after the silent ones were dropped")
    for each in (*silent, *slow, *more):
        each.close()
    assert system.ready_workers() == 1


def _is_answered(scraper) -> bool:
    try:
        return bool(scraper.text())
    except OSError:
        return False


def test_the_file_is_only_for_its_owner(alone):
    system, _ = alone
    state = (system.state_dir / "run" / "counts").stat()
    assert state.st_mode & 0o777 == 0o600 and state.st_uid == os.geteuid()


# --- several workers ---


class Load:
    """A payer that goes on paying, and counts what it was told. What was not answered is repeated."""

    def __init__(self, system, name: str) -> None:
        self.payer, self.system = system.payer(name), system
        assert self.payer.open().status == 201
        self.answered: Counter = Counter()
        self.received = OPEN_AMOUNT
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.payer.newest = self.payer.sender.pay(1)
            answer, _ = self.payer.client.persist("PUT", self.payer.sender.channel_target(self.payer.newest), 60)
            self.answered["accepted" if answer.json["value_received"] else "repeated"] += 1
            self.received += answer.json["value_received"]

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive()


def totals(samples) -> dict:
    """Return what must never fall."""
    return {key: value for key, value in samples.items() if key[0].endswith(("_total", "_count", "_bucket", "_sum"))}


def test_totals_never_fall_while_workers_are_killed_and_replaced(tmp_path):
    """Payments that were answered are counted, however their worker ended. A payment whose answer was lost may be counted twice, as
    accepted and as repeated: that is what happened."""
    with measured(tmp_path, workers=2) as (system, scraper):
        loads = [Load(system, f"metrics load {number}") for number in range(4)]
        before = totals(scraper.samples())
        for how in ("kill", "reload", "kill", "reload"):
            starts = _starts(scraper) + (1 if how == "kill" else 2)
            if how == "kill":
                system.kill("worker")
            else:
                os.kill(system.child_pid("server"), signal.SIGHUP)
            wait_until(lambda starts=starts: _starts(scraper) >= starts and shows_all(scraper, 2), 30, f"{starts} starts")
            after = totals(scraper.samples())
            fallen = {key: (value, after.get(key)) for key, value in before.items() if after.get(key, -1) < value}
            assert not fallen
            before = after
        for load in loads:
            load.stop()
        samples = scraper.samples()
        told = sum((load.answered for load in loads), Counter())
        counted = Counter()
        for door in ("shared", "own", "forwarded"):
            counted += Counter(by_outcome(samples, door=door))
        assert counted["accepted"] + counted["repeated"] >= told["accepted"] + told["repeated"]
        assert samples["paychan_received_satoshi_total", ()] >= sum(load.received for load in loads)


def _starts(scraper) -> float:
    return scraper.value("paychan_process_starts_total", role="worker")


def test_two_workers_count_each_payment_once(tmp_path):
    """Whoever it came to: where it is judged it has its outcome, where it was passed on it is `passed_on`."""
    with measured(tmp_path, workers=2) as (system, scraper):
        ports = doors.Doors.of(system)
        sent: Counter = Counter()
        for number in range(6):
            payer = system.payer(f"metrics two {number}")
            assert payer.open().status == 201
            for client in (ports.shared, *ports.own.values()):
                payer.newest = payer.sender.pay(3)
                target = payer.sender.channel_target(payer.newest)
                for _ in range(2):
                    answer = client.request("PUT", target, {"Content-Length": "0"})
                    sent[outcome_of("", answer.status, answer.body)] += 1
        samples = scraper.samples()
        assert by_outcome(samples, door="own")["passed_on"] == 12  # of each channel one of the two ports is not its owner's
        judged = Counter()
        for door in ("shared", "own", "forwarded"):
            judged += Counter(by_outcome(samples, door=door))
        passed_on = judged.pop("passed_on")
        assert judged == sent
        assert sum(by_outcome(samples, door="forwarded").values()) == passed_on
        assert sum(by_outcome(samples, door="shared").values()) == 12
        ports.close()


def test_what_was_counted_is_shown_when_all_workers_are_stopped_or_dead(tmp_path):
    with measured(tmp_path) as (system, scraper):
        payer = system.payer("metrics stopped")
        assert payer.open().status == 201 and payer.pay().status == 200
        worker = system.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)
        try:
            time.sleep(1.5)
            samples = scraper.samples()
        finally:
            os.kill(worker, signal.SIGCONT)
        assert by_outcome(samples, door="shared") == {"accepted": 1}
        assert samples["paychan_worker_silence_seconds", ()] > 1
        server = system.child_pid("server")
        os.kill(server, signal.SIGSTOP)  # so that it makes no new worker
        try:
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: scraper.value("paychan_processes", role="worker") == 0, 10, "the worker's end")
            samples = scraper.samples()
        finally:
            os.kill(server, signal.SIGCONT)
        assert by_outcome(samples, door="shared") == {"accepted": 1}
        assert ("paychan_ready", ()) not in samples  # nobody is there who could say so
