"""The campaign against events and webhooks: processes killed at random moments under load, a receiver that fails, hangs and goes
away.

    python -m tests.campaign.events --kills 100 [--seed S]

Payers open channels, pay, spend everything, close; a webhook is told. After all of it every event must have been delivered once
or more and in order, the stream must be what the channels' final records and the payers say, and payments must have gone through
while the receiver hung. A violation is printed, and the exit status is 1.
"""

import argparse
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from paychan.core.channel import ChannelState, Phase
from paychan.core.outpoint import format_outpoint
from paychan.webhooks.signature import sign
from store import keys
from store.check import StoredRecords
from tests.operating import Operator, section
from tests.ports import free_port
from tests.selling import make_token
from tests.system import System, processes, running, wait_until

VICTIMS = ("store", "worker", "server", "operator", "receiver")
MODES = ("takes", "takes", "fails", "hangs", "breaks off")
SETTLE_SECONDS_MAX = 60
WEBHOOKS = ("", "[webhooks]", 'allow = ["127.0.0.0/8"]', "answer_seconds = 1")


class Receiver:
    """What webhooks are sent to. mode: what it does with the next ones; a number: the status of its answer. asked: the webhook-id
    of all that came, taken: the bodies that it answered 204, in order."""

    def __init__(self) -> None:
        self.port, self.secret = free_port(), ""
        self.mode: str | int = "takes"
        self.asked: list[str] = []
        self.taken: list[dict] = []
        self.wrong: list[str] = []
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.asked.append(self.headers["webhook-id"])
                if receiver.mode == "hangs":
                    time.sleep(2)
                elif isinstance(receiver.mode, int):
                    self.send_error(receiver.mode)
                elif receiver.mode in ("takes", "takes its time"):
                    time.sleep(0.05 * (receiver.mode == "takes its time"))
                    receiver.take(self.headers, body)
                    self.send_response(204)
                    self.end_headers()
                elif receiver.mode == "fails":
                    self.send_error(503)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, head, body: bytes) -> None:
        said = json.loads(body)
        if head["webhook-signature"] != sign(self.secret, head["webhook-id"], int(head["webhook-timestamp"]), body):
            self.wrong.append(f"event {said['id']}: the signature is of something else")
        self.taken.append(said)

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@dataclass
class Load:
    """Payers, one after the other in a thread. opened: outpoint to what was received, at least, of opens that were answered."""

    system: System
    name: str
    opened: dict[str, int] = field(default_factory=dict)
    paid: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            payer = self.system.payer(f"{self.name}-{number}")
            try:
                if not self._again(
                    payer.open, lambda payer=payer: payer.client.request("POST", payer.sender.open_target(payer.newest))
                ):
                    continue
                outpoint = format_outpoint(payer.sender.terms.outpoint)
                self.opened[outpoint] = 0
                for _ in range(5):
                    if self._again(payer.pay, payer.resend):
                        self.paid += 1
                if number % 3 == 1:
                    self._again(lambda payer=payer: payer.pay(payer.sender.change_value), payer.resend)
                elif number % 3 == 2:
                    self._again(payer.close, payer.close)
            finally:
                payer.client.close()

    def _again(self, first, again) -> bool:
        """Ask until there is an answer that is none of ours to repeat; return whether it was 200 or 201."""
        ask = first
        while not self._stop.is_set():
            try:
                answer = ask()
                if answer.status != 503:
                    return answer.status in (200, 201, 202)
            except OSError:
                pass
            ask = again
            time.sleep(0.02)
        return False


def kill(system: System, receiver: Receiver, victim: str) -> None:
    if victim == "receiver":
        receiver.stop()
        receiver.start()
    elif victim == "operator":
        found = [pid for pid, parent, command in processes() if parent == system.process.pid and "-m paychan.operator" in command]
        for pid in found:
            for child, parent, _ in processes():
                if parent == pid:
                    os.kill(child, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
    else:
        system.kill(victim)


def persist(operator: Operator, method: str, path: str, content: object = None) -> dict:
    """Ask until it is answered."""
    found: list[dict] = []

    def ask() -> bool:
        try:
            answer = operator.ask(method, path, content)
        except OSError:
            return False
        if answer.status in (200, 201):
            found.append(answer.json)
        return bool(found)

    wait_until(ask, 60, f"an answer to {method} {path}")
    return found[0]


def stream(operator: Operator) -> list[dict]:
    events, after = [], 0
    while page := persist(operator, "GET", f"/events?after={after}&limit=500")["events"]:
        events += page
        after = page[-1]["id"]
    return events


def judge_deliveries(events: list[dict], taken: list[dict]) -> list[str]:
    """Return what is wrong with what a receiver took: each event once or more, in order, as the stream has it."""
    first = list({said["id"]: said for said in taken}.values())
    problems = []
    if [said["id"] for said in first] != [said["id"] for said in events]:
        missing = {said["id"] for said in events} - {said["id"] for said in first}
        order = [said["id"] for said in first][:50]
        problems.append(f"OUT OF ORDER, LOST OR INVENTED: missing {sorted(missing)[:10]}, order {order}")
    known = {said["id"]: said for said in events}
    problems += [f"event {said['id']} was told otherwise" for said in taken if known.get(said["id"]) != said]
    return problems


def judge_stream(events: list[dict], states: dict[str, ChannelState], opened: dict[str, int]) -> list[str]:
    """Return what is wrong with a stream, by the channels' records at the end and what payers were answered."""
    problems = []
    of: dict[str, Counter[str]] = {}
    for event in events:
        if event["type"].startswith("channel.") and event["type"] != "channel.expiring":
            of.setdefault(event["outpoint"], Counter())[event["type"]] += 1
    problems += [f"{name}: INVENTED, there is no such channel" for name in of.keys() - states.keys()]
    problems += [f"{name}: LOST, its opening was answered" for name in opened.keys() - of.keys()]
    for name, state in states.items():
        must = Counter({"channel.opened": 1})
        if state.phase > Phase.OPEN:
            must["channel.closing"] = 1
            must["channel.exhausted"] = int(not state.payment.change_value)
        told = Counter(of.get(name, Counter()))
        broadcast = told.pop("channel.settlement_broadcast", 0)
        ended = told.pop("channel.settled", 0) + told.pop("channel.lost", 0)
        if ended != (state.phase == Phase.SETTLED) or (broadcast != 1 if state.phase == Phase.BROADCAST else broadcast > 1):
            problems.append(f"{name}: {ended} ends and {broadcast} broadcasts are told, and it is {state.phase.name}")
        if +told != +must:
            problems.append(f"{name}: told {dict(told)}, must be {dict(must)}")
    return problems


def states_in(state_dir: Path) -> dict[str, ChannelState]:
    with closing(StoredRecords(state_dir / "store" / "db")) as records:
        return {format_outpoint(key[1:]): ChannelState.parse(value) for key, value in records.walk(keys.STATE)}


@contextmanager
def receiving():
    receiver = Receiver()
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


def run(directory: Path, kills: int, seed: int, say) -> list[str]:
    """Run one campaign; return what was wrong."""
    chance, counts = random.Random(seed), Counter()
    with receiving() as receiver:
        port = free_port()
        with running(directory, 1, changes={"server.toml": section(port, *WEBHOOKS)}) as system:
            wait_until(Operator(port).is_there, 60, "serving the operator's API")
            steer = Operator(port, make_token(system, "of-steer", "steer"))
            made = persist(steer, "POST", "/webhooks", {"url": f"http://127.0.0.1:{receiver.port}/", "after": 0})
            receiver.secret, endpoint = made["secret"], made["id"]
            load = Load(system, f"events-{seed}")
            load.start()
            try:
                while_hanging = 0
                for number in range(kills):
                    receiver.mode = MODES[number % len(MODES)] if number < len(MODES) else chance.choice(MODES)
                    victim = VICTIMS[number % len(VICTIMS)]
                    time.sleep(chance.uniform(0.05, 0.4))
                    before = load.paid
                    kill(system, receiver, victim)
                    counts[victim] += 1
                    wait_until(lambda before=before: load.paid > before + 2, 60, f"payments after {victim} was killed")
                    while_hanging += receiver.mode == "hangs"
                    done = f"{load.paid} payments, {len(receiver.taken)} deliveries"
                    say(f"{number + 1} of {kills}: {victim}, the receiver {receiver.mode}; {done}")
            finally:
                load.stop()
            receiver.mode = "takes"
            persist(steer, "POST", f"/webhooks/{endpoint}/redeliver", {})  # no need to wait for the next attempt

            def is_told() -> bool:
                page = persist(steer, "GET", "/webhooks")["webhooks"]
                newest = stream(steer)[-1]["id"]
                return page[0]["cursor"] == newest

            wait_until(is_told, SETTLE_SECONDS_MAX, "all deliveries")
            events = stream(steer)
            system.stop()
        problems = receiver.wrong + judge_deliveries(events, receiver.taken[:])
        problems += judge_stream(events, states_in(system.state_dir), load.opened)
        if kills > len(MODES) and not while_hanging:
            problems.append("no payment went through while the receiver hung")
    again = len(receiver.taken) - len(events)
    say(f"{dict(counts)}; {load.paid} payments on {len(load.opened)} channels, {len(events)} events, {again} told again")
    say(f"problems {len(problems)}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill processes under load, and see that each event is told.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="events-") as place:
        problems = run(Path(place), options.kills, options.seed, lambda text: print(text, flush=True))
    for problem in problems[:20]:
        print(problem)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
