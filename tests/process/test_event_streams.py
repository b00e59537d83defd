"""Aim: whoever follows the events misses none and gets none twice, live, and wherever it went away; who is told by webhooks is told
as docs/EVENTS.md says, and no more once its endpoint is removed. Method: one real system, readers and receivers on real sockets."""

import asyncio
import http.client
import json
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from paychan.core.outpoint import format_outpoint
from paychan.events.endpoint import ENDPOINTS_MAX
from paychan.events.event import NUMBER_MAX
from store.engines.rocksdb import RocksDB
from tests.campaign.events import Receiver, judge_deliveries, stream
from tests.operating import Operator, section
from tests.ports import free_port
from tests.postgres import embedded_only
from tests.selling import make_token, token_command
from tests.system import running, wait_until

WEBHOOKS = ("", "[webhooks]", 'allow = ["127.0.0.0/8"]', "answer_seconds = 1")
READ_SECONDS_MAX = 75


@dataclass
class World:
    system: object
    steer: Operator
    watch: Operator
    payers: int = 0

    def live(self, close=True):
        """Have a channel opened, paid on and closed; return its outpoint, once all that comes of it is told."""
        self.payers += 1
        payer = self.system.payer(f"told {self.payers}")
        assert payer.open().status == 201 and payer.pay().status == 200
        outpoint, last = format_outpoint(payer.sender.terms.outpoint), "channel.opened"
        if close:
            assert payer.close().status == 202
            last = "channel.settled"

        def is_told():
            return any(event.get("outpoint") == outpoint and event["type"] == last for event in stream(self.watch))

        wait_until(is_told, 30, f"{last} of a channel")
        return outpoint

    def newest(self):
        return stream(self.watch)[-1]["id"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    port = free_port()
    with running(tmp_path_factory.mktemp("told"), 1, changes={"server.toml": section(port, *WEBHOOKS)}) as system:
        wait_until(Operator(port).is_there, 60, "serving the operator's API")
        steer, watch = (Operator(port, make_token(system, f"of-{scope}", scope)) for scope in ("steer", "watch"))
        world = World(system, steer, watch)
        world.live()
        yield world
        log = "".join(system.output)
        assert "Traceback" not in log and "internal error" not in log and "whsec_" not in log


class Reader:
    """Reads a stream of server-sent events."""

    def __init__(self, operator, after=None, last=None, method="GET"):
        self._connection = http.client.HTTPConnection("127.0.0.1", operator.port, timeout=READ_SECONDS_MAX)
        head = {"Authorization": f"Bearer {operator.token}", "Accept": "text/event-stream"}
        head |= {"Last-Event-ID": str(last)} if last is not None else {}
        query = "" if after is None else f"?after={after}"
        self._connection.request(method, f"/operator/v1/events{query}", headers=head)
        self.answer = self._connection.getresponse()
        self.status = self.answer.status

    def line(self):
        """Return the next line, empty at the end."""
        return self.answer.readline().decode().rstrip("\n") if self.answer.fp else ""

    def next(self):
        """Return the next event, None at the end."""
        said = {}
        while line := self.answer.readline().decode():
            if line == "\n" and said:
                event = json.loads(said["data"])
                assert (said["id"], said["event"]) == (str(event["id"]), event["type"])
                return event
            name, _, value = line.rstrip("\n").partition(": ")
            said |= {name: value} if name else {}
        return None

    def take(self, count):
        return [self.next() for _ in range(count)]

    def close(self):
        self.answer.close()
        self._connection.close()


@contextmanager
def reading(*arguments, **options):
    reader = Reader(*arguments, **options)
    try:
        yield reader
    finally:
        reader.close()


# --- following ---


def test_a_stream_tells_live_what_pages_tell(world):
    after = world.newest()
    with reading(world.watch, after) as reader:
        assert reader.status == 200 and reader.answer.getheader("content-type") == "text/event-stream"
        assert reader.line() == ": quiet", "who has all is told at once that the stream is there"
        outpoint = world.live()
        told = [event for event in stream(world.watch) if event["id"] > after]
        assert reader.take(len(told)) == told
    kinds = [event["type"] for event in told if event.get("outpoint") == outpoint]
    assert kinds == ["channel.opened", "channel.closing", "channel.settlement_broadcast", "channel.settled"]


def test_who_goes_away_anywhere_goes_on_and_misses_none_nor_gets_one_twice(world):
    seen, last = [], 0
    for round_ in range(6):
        options = {"last": last, "after": 0} if round_ % 2 and last else {"after": last}  # the id counts, not the old query
        with reading(world.watch, **options) as reader:
            seen += reader.take(1 + round_ % 3)
        last = seen[-1]["id"]
        world.live(close=False)
    all_of_them = stream(world.watch)
    with reading(world.watch, last=last) as reader:
        seen += reader.take(len(all_of_them) - len(seen))
    assert seen == all_of_them


NONSENSE = ("-1", "1.5", "x", "", "%D9%A3", "1e3", " 1", "9" * 17, str(NUMBER_MAX + 1), "1&after=2")


@pytest.mark.parametrize("after", NONSENSE)
def test_a_cursor_that_is_none_is_refused(world, after):
    page = world.watch.ask("GET", f"/events?after={after.replace(' ', '+')}")
    assert (page.status, page.json["code"]) == (400, "invalid_query")
    with reading(world.watch, after.replace(" ", "+")) as reader:
        assert reader.status == 400
    if after and after.isascii() and "&" not in after and "%" not in after:
        with reading(world.watch, last=after) as reader:
            assert (reader.status == 400) is (after != " 1")  # blanks around a field's value are none of it


def test_a_cursor_from_the_future_is_refused_and_says_what_is_newest(world):
    newest = world.newest()
    refused = world.watch.ask("GET", f"/events?after={newest + 1000}")
    assert (refused.status, refused.json["code"]) == (400, "invalid_query") and "the newest is" in refused.json["detail"]
    with reading(world.watch, last=newest + 1000) as reader:
        assert reader.status == 400
    assert world.watch.ask("GET", f"/events?after={newest}").status == 200
    for limit in (0, 501, -1, "x"):
        assert world.watch.ask("GET", f"/events?limit={limit}").json["code"] == "invalid_query"


def test_head_tells_of_a_stream_and_does_not_begin_one(world):
    with reading(world.watch, 0, method="HEAD") as reader:
        assert (reader.status, reader.answer.read()) == (200, b"")


def test_a_token_that_is_taken_back_hears_no_event_more(world):
    after = world.newest()
    short = Operator(world.watch.port, make_token(world.system, "short", "watch"))
    with reading(short, after) as reader, reading(world.watch, after) as other:
        assert reader.line() == other.line() == ": quiet"
        assert token_command(world.system, "revoke", "short").returncode == 0
        world.live(close=False)
        assert reader.next() is None, "the stream has ended"
        assert other.next()["type"] == "channel.opened"


# --- webhooks ---


@contextmanager
def hooked(world, mode="takes", **asked):
    """Make an endpoint with a receiver behind it; yield both."""
    receiver = Receiver()
    receiver.mode = mode
    receiver.start()
    made = world.steer.ask("POST", "/webhooks", {"url": f"http://127.0.0.1:{receiver.port}/hook", **asked})
    assert made.status == 201, made.body
    receiver.secret = made.json["secret"]
    try:
        yield receiver, made.json
    finally:
        world.steer.ask("DELETE", f"/webhooks/{made.json['id']}")
        receiver.stop()


def shown(world, endpoint):
    return next((row for row in world.watch.ask("GET", "/webhooks").json["webhooks"] if row["id"] == endpoint["id"]), None)


def test_an_endpoint_is_told_all_in_order_and_its_secret_is_told_once(world):
    with hooked(world, after=0) as (receiver, made), hooked(world, types=["channel.closing"]) as (choosy, _):
        outpoint = world.live()
        events = stream(world.watch)
        wait_until(lambda: len(receiver.taken) >= len(events) and choosy.taken, 30, "all deliveries")
        assert receiver.wrong == choosy.wrong == [] and judge_deliveries(events, receiver.taken) == []
        assert [(event["type"], event["outpoint"]) for event in choosy.taken] == [("channel.closing", outpoint)]
        wait_until(lambda: shown(world, made)["cursor"] == world.newest(), 10, "noting how far it is")
        attempts = world.watch.ask("GET", f"/webhooks/{made['id']}/deliveries").json["deliveries"]
        assert [row["event"] for row in attempts] == [event["id"] for event in reversed(events)][: len(attempts)]
        assert all((row["status"], row["why"]) == (204, "") for row in attempts)
        for path in ("/webhooks", f"/webhooks/{made['id']}/deliveries"):
            assert made["secret"].encode() not in world.steer.ask("GET", path).body
        assert "secret" not in shown(world, made)


def test_who_hangs_is_behind_and_nobody_else_is_and_nothing_overtakes(world):
    with hooked(world, mode="hangs") as (slow, made), hooked(world) as (quick, other):
        for _ in range(3):
            world.live(close=False)
        wait_until(lambda: len(quick.taken) == 3 and shown(world, made)["attempts"], 30, "the other's deliveries")
        row = shown(world, made)
        assert slow.taken == [] and set(slow.asked) == {f"evt_{row['cursor'] + 1}"}, "it is asked for the first one alone"
        assert row["failing_since_at"] and "no answer within 1 s" in row["why"]
        slow.mode = "takes"
        world.steer.ask("POST", f"/webhooks/{made['id']}/redeliver", {})  # no need to wait for the next attempt
        wait_until(lambda: len(slow.taken) == 3, 30, "what it had missed")
        assert [event["id"] for event in slow.taken] == [event["id"] for event in quick.taken]
        wait_until(lambda: not shown(world, made)["failing_since_at"], 10, "being well again")
        assert shown(world, other)["failing_since_at"] == 0


def test_one_event_is_sent_again_now_and_all_since_one_in_their_order(world):
    with hooked(world, after=world.newest()) as (receiver, made):
        path = f"/webhooks/{made['id']}/redeliver"
        for _ in range(3):
            world.live(close=False)
        wait_until(lambda: len(receiver.taken) == 3, 30, "deliveries")
        one, two, three = (event["id"] for event in receiver.taken)
        told = world.steer.ask("POST", path, {"event": one}).json["delivery"]
        assert (told["event"], told["status"], told["why"]) == (one, 204, "")
        assert [event["id"] for event in receiver.taken] == [one, two, three, one] and receiver.asked[-1] == f"evt_{one}"
        receiver.mode = 500
        assert world.steer.ask("POST", path, {"event": two}).json["delivery"]["why"] == "answered 500"
        assert shown(world, made)["attempts"] == 0, "the order of all others is not its business"
        receiver.mode = "takes"
        wait_until(lambda: shown(world, made)["cursor"] >= three, 10, "noting how far it is")
        assert world.steer.ask("POST", path, {"after": one}).json["cursor"] == one
        wait_until(lambda: len(receiver.taken) == 6, 30, "all since the first one")
        assert [event["id"] for event in receiver.taken[4:]] == [two, three]
        bad = ({"event": 0}, {"event": three + 1000}, {"event": one, "after": 0}, {"event": True}, {"after": -1}, {"more": 1})
        assert {world.steer.ask("POST", path, body).json["code"] for body in bad} == {"invalid_command"}
        assert world.watch.ask("POST", path, {"event": one}).json["code"] == "token_scope"


def test_who_says_gone_is_given_up_and_can_be_tried_again(world):
    with hooked(world, mode=410) as (receiver, made):
        world.live(close=False)
        wait_until(lambda: not shown(world, made)["is_enabled"], 30, "giving it up")
        (said,) = (event for event in stream(world.watch) if event["type"] == "webhook.disabled")
        assert said["data"]["webhook"] == made["id"] and said["data"]["why"] == "answered 410"
        receiver.mode = "takes"
        again = world.steer.ask("POST", f"/webhooks/{made['id']}/redeliver", {}).json
        assert again["is_enabled"] and again["failing_since_at"] == 0
        wait_until(lambda: [event["type"] for event in receiver.taken[:2]] == ["channel.opened", "webhook.disabled"], 30, "both")


def test_a_removed_endpoint_is_sent_nothing_once_that_is_answered(world):
    for _ in range(6):
        world.live(close=False)
    with hooked(world, mode="takes its time", after=0) as (receiver, made), hooked(world) as (other, _):
        wait_until(lambda: len(receiver.asked) > 1, 30, "its deliveries")
        assert world.steer.ask("DELETE", f"/webhooks/{made['id']}").json["id"] == made["id"]
        by_then = len(receiver.asked)
        world.live(close=False)
        wait_until(lambda: other.taken, 30, "telling another endpoint")
        assert len(receiver.asked) - by_then <= 1, "one may have been on its way"
        assert shown(world, made) is None
        for method, path in (("DELETE", ""), ("POST", "/redeliver"), ("GET", "/deliveries")):
            asked = world.steer.ask(method, f"/webhooks/{made['id']}{path}", {} if method == "POST" else None)
            assert (asked.status, asked.json["code"]) == (404, "no_such_route")


INSIDE = ("https://10.0.0.1/", "http://169.254.169.254/", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "http://1.1.1.1/")
NO_URL = (
    "",
    "x",
    "ftp://127.0.0.1/",
    "https://a:b@127.0.0.1/",
    "https://127.0.0.1/#x",
    "https://127.0.0.1\\x",
    "file:///etc/passwd",
)
WRONG = (
    {"types": ["channel.lots"]}, {"types": "channel.lost"}, {"types": [1]}, {"secret": ""}, {"secret": "whsec_eA=="},
    {"after": -1}, {"after": NUMBER_MAX}, {"after": 1.5}, {"more": 1},
)  # fmt: skip


def test_targets_inside_and_other_nonsense_are_refused_and_make_nothing(world):
    before = world.watch.ask("GET", "/webhooks").json
    bodies = [{"url": url} for url in (*INSIDE, *NO_URL, "https://a/" + "x" * 2048, 7)]
    bodies += [{"url": "http://127.0.0.1:1/", **wrong} for wrong in WRONG] + [{}]
    for body in bodies:
        refused = world.steer.ask("POST", "/webhooks", body)
        assert (refused.status, refused.json["code"]) == (400, "invalid_command"), body
    assert world.watch.ask("GET", "/webhooks").json == before


def test_a_name_that_leads_inside_is_looked_at_when_it_is_connected_to(world):
    made = world.steer.ask(
        "POST", "/webhooks", {"url": "https://0x0a000001/", "after": 0}
    ).json  # 10.0.0.1, as the C library has it

    def attempts():
        return world.watch.ask("GET", f"/webhooks/{made['id']}/deliveries").json["deliveries"]

    wait_until(attempts, 30, "an attempt")
    assert attempts()[0]["status"] == 0 and attempts()[0]["why"] in (
        "points inside",
        "cannot be reached: Name or service not known",
    )
    assert world.steer.ask("DELETE", f"/webhooks/{made['id']}").status == 200


def test_there_are_so_many_endpoints_at_most(world):
    made = [
        world.steer.ask("POST", "/webhooks", {"url": "http://127.0.0.1:1/", "types": ["channel.lost"]})
        for _ in range(ENDPOINTS_MAX)
    ]
    assert {answer.status for answer in made} == {201} and len({answer.json["secret"] for answer in made}) == ENDPOINTS_MAX
    refused = world.steer.ask("POST", "/webhooks", {"url": "http://127.0.0.1:1/"})
    assert (refused.status, refused.json["code"]) == (400, "invalid_command") and str(ENDPOINTS_MAX) in refused.json["detail"]
    for answer in made:
        assert world.steer.ask("DELETE", f"/webhooks/{answer.json['id']}").status == 200
    assert world.watch.ask("GET", "/webhooks").json["webhooks"] == []


# --- last, for it stops the system ---


@embedded_only
def test_who_was_away_for_longer_than_events_are_kept_is_told_so(world):
    told = [event["id"] for event in stream(world.watch)]
    kept = told[len(told) // 2]
    world.system.stop()
    engine = RocksDB(world.system.state_dir / "store" / "db")
    asyncio.run(engine.drop(kept - 1))
    engine.close()
    world.system.start()
    wait_until(world.watch.is_there, 60, "serving the operator's API again")
    wait_until(lambda: world.watch.ask("GET", "/events").status == 200, 60, "the store")
    for after in (told[0], kept - 2):
        gone = world.watch.ask("GET", f"/events?after={after}")
        assert (gone.status, gone.json["code"]) == (410, "events_gone") and f"after={kept - 1}" in gone.json["detail"]
        with reading(world.watch, last=after) as reader:
            assert reader.status == 410
    for after in (0, kept - 1):
        assert world.watch.ask("GET", f"/events?after={after}").json["events"][0]["id"] == kept
        with reading(world.watch, after) as reader:
            assert reader.next()["id"] == kept
