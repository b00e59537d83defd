"""The campaign against sellers and buyers: whoever is killed, goods served = charges = what the buyers' records say.

    python -m tests.campaign.sales --kills 1000 [--seconds S] [--victim all|buyer,shop,gateway,server,...] [--seed K]

Real processes: `paychan run` with two workers and a sellers' door; a FastAPI shop behind paychan.sell, in granian; `paychan
gateway` before an upstream; two programs of buyers with paychan.pay (buyers.py), which hang up, give up, go on after a restart,
and meet handlers that fail at first. SIGKILL hits one of them at a random moment, again and again; the system's own supervisor,
granian, or this campaign in an operator's place starts it again. After every ROUND_KILLS the buyers finish, and books.py, which
says exactly what is promised, judges every purchase and every channel. A violation stops the campaign; what led to it is kept.
"""

import argparse
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign.books import Line, Verdict, judge, read_lines
from tests.campaign.faults import kill_when_there
from tests.campaign.shop import PRICES
from tests.ports import free_port
from tests.selling import SOCKET, Seller, make_token, sell_changes
from tests.system import PATIENCE_FACTOR, ROOT, processes, running, wait_until

OURS = ("buyer", "shop", "gateway")
VICTIMS = (*OURS, "server", "worker", "store", "signer")
ROUND_KILLS = 50
BUYERS = 2
"""Programs of buyers, each with some threads."""

FINISH_SECONDS, SERVE_SECONDS = 30, 30
"""Within PATIENCE_FACTOR times as much all buyers finish; somebody is served again by each seller."""

REST_SECONDS = 3.0
"""Then nobody gives anything back any more: longer than all of a till's attempts take."""


@dataclass
class Program:
    """A process with a session of its own, started again whenever it has ended by a signal."""

    command: list[str]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **self.env}, start_new_session=True
            )

    def tend(self) -> int | None:
        """Start it again if need be; return the status with which it ended by itself."""
        assert self.process is not None
        status = self.process.poll()
        if status is None or status >= 0:
            return status
        self.kill()  # what a dead parent has left behind would keep its port
        self.start()
        return None

    def kill(self) -> None:
        """SIGKILL to all that there is of it."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def kill_worker(self) -> bool:
        """SIGKILL to a granian's worker; return whether there was one."""
        assert self.process is not None
        workers = [pid for pid, parent, text in processes() if parent == self.process.pid and "resource_tracker" not in text]
        for pid in workers[-1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(workers)


@dataclass
class Report:
    """One campaign."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    seconds: float = 0.0

    @property
    def problems(self) -> list[str]:
        return self.verdict.problems

    def __str__(self) -> str:
        sums = self.verdict
        words = ("SERVED FREE", "CHARGED TWICE", "WRONG GOOD", "PAID IS NOT RECEIVED", "SIGNED AHEAD")
        found = {word.lower(): sum(word in problem for problem in sums.problems) for word in words}
        victims = ", ".join(f"{who} {count}" for who, count in sorted(self.kills.items()))
        return "\n".join(
            (
                f"{self.kills.total()} kills in {self.seconds:.0f} s: {victims}",
                f"{sums.channels} channels; goods served {sums.served} times; purchases: {sums.answered} answered, {sums.charged} "
                f"surely charged ({sums.satoshi} satoshi), {sums.unknown} of unknown outcome (of these charged: "
                f"{sums.charged_unanswered} satoshi), {sums.free} refused or given back; {sums.retried} presented more than once",
                f"{', '.join(f'{word} {count}' for word, count in found.items())}; problems {len(sums.problems)}",
            )
        )


class Campaign:
    """On one running system. say: takes lines of progress."""

    def __init__(self, directory: Path, victims: tuple[str, ...], seed: int, say: Callable[[str], None]) -> None:
        self._directory, self._victims, self._say = directory, victims, say
        self._rng, self.report = random.Random(seed), Report(seed)
        self._killed: list[tuple[float, str]] = []
        self._buyers: list[Program] = []
        self._ended: set[int] = set()

    def run(self, kills: int, seconds: float) -> Report:
        """Kill so often, or for so long: each of the victims as often as the others, in a random order."""
        begun = time.monotonic()
        self._plan = [self._victims[number % len(self._victims)] for number in range(kills)]
        self._rng.shuffle(self._plan)
        with running(self._directory, workers=2, changes=sell_changes(SOCKET)) as self._system, self._sellers():
            for number in range(10**6):
                left = min(ROUND_KILLS, kills - self.report.kills.total())
                if left <= 0 or self.report.problems or time.monotonic() - begun > seconds:
                    break
                self._round(number, left)
        self.report.seconds = time.monotonic() - begun
        return self.report

    # --- processes ---

    @contextmanager
    def _sellers(self) -> Iterator[None]:
        """Run shop, upstream and gateway."""
        system, place = self._system, self._directory
        door, token = system.state_dir.absolute() / "run" / "sell.sock", make_token(system, "campaign")
        wait_until(door.exists, 20, "opening the sellers' door")
        self._seller = Seller(system, token)
        self._records = {way: place / f"{way}.record" for way in ("shop", "gateway")}
        ports = {name: free_port() for name in ("shop", "upstream", "gateway")}
        self._urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        env = {"PAYCHAN_DOOR": str(door), "PAYCHAN_TOKEN": token}
        file = write_gateway(place, ports["gateway"], door, token, self._urls["upstream"])
        self._programs = {
            "shop": Program(granian("app", ports["shop"]), place / "shop.log", {**env, "PAYCHAN_SHOP": str(self._records["shop"])}),
            "upstream": Program(
                granian("upstream", ports["upstream"]), place / "upstream.log", {"PAYCHAN_SHOP": str(self._records["gateway"])}
            ),
            "gateway": Program([sys.executable, "-m", "paychan", "gateway", str(file)], place / "gateway.log"),
        }
        try:
            for program in self._programs.values():
                program.start()
            wait_until(lambda: all(record.exists() for record in self._records.values()), 20, "starting the sellers")
            yield
        finally:
            for program in (*self._programs.values(), *self._buyers):
                program.kill()

    def _tend(self) -> None:
        """Start again what is killed. A seller that ended by itself has met a system that was not there: it is tried again."""
        for program in self._programs.values():
            if program.tend() is not None:
                time.sleep(0.1)
                program.start()
        for number, buyer in enumerate(self._buyers):
            if number not in self._ended and (status := buyer.tend()) is not None:
                self._ended.add(number)
                if status or not self._finishing:
                    self.report.problems.append(f"a buyer ended with {status}: {buyer.log}")

    def _served(self) -> tuple[int, ...]:
        return tuple(record.stat().st_size for record in self._records.values())

    def _wait_for_service(self) -> None:
        """Return when each seller has served something more."""
        before, deadline = self._served(), time.monotonic() + PATIENCE_FACTOR * SERVE_SECONDS
        while not all(now > then for now, then in zip(self._served(), before, strict=True)):
            self._tend()
            if time.monotonic() > deadline:
                raise AssertionError(f"nobody is served any more: {before} bytes of goods, now {self._served()}")
            time.sleep(0.02)

    # --- a round ---

    def _round(self, number: int, kills: int) -> None:
        place = self._directory / f"round-{number}"
        place.mkdir()
        offsets = dict(zip(self._records, self._served(), strict=True))
        self._finishing, self._ended, self._buyers = False, set(), []
        where = "the beginning"
        try:
            for index in range(BUYERS):
                self._add_buyer(place, index)
            self._wait_for_service()
            for _ in range(kills):
                where = f"kill {self.report.kills.total() + 1}, {self._kill()}"
            where = f"round {number}"
            self._finish(place)
        except Exception as error:
            self.report.problems.append(f"{where}: {type(error).__name__}: {error}")
        self.report.verdict.merge(self._judge(place, offsets))
        if self.report.problems:
            self.report.problems.append(f"seed {self.report.seed}; what happened is in {self._keep()}")
        for buyer in self._buyers:
            buyer.kill()
        sums = self.report.verdict
        self._say(f"{self.report.kills.total()} kills, {sums.channels} channels, {sums.answered} purchases answered")

    def _add_buyer(self, place: Path, index: int) -> None:
        directory = place / f"{place.name}-{index}"
        directory.mkdir()
        urls = (self._urls["shop"], self._urls["gateway"])
        seed = f"{self.report.seed} {place.name} {index}"
        buyer = Program([sys.executable, "-m", "tests.campaign.buyers", str(directory), *urls, seed], place / f"buyer-{index}.log")
        buyer.start()
        self._buyers.append(buyer)

    def _kill(self) -> str:
        """Wait for a random moment and kill somebody; see that what has no supervisor is started again."""
        if self._rng.random() < 0.5:  # the others hit a system that is still busy with the last
            self._wait_for_service()
        until = time.monotonic() + self._rng.uniform(0, 0.8)
        while time.monotonic() < until:
            self._tend()
            time.sleep(0.02)
        victim = self._plan[self.report.kills.total()]
        self._killed.append((time.time(), victim))
        if victim not in OURS:
            kill_when_there(self._system, victim, self._rng)
        else:
            program = self._rng.choice(self._buyers) if victim == "buyer" else self._programs[victim]
            if victim == "buyer" or self._rng.random() < 0.5 or not program.kill_worker():
                program.kill()
        self._killed.append((time.time(), victim))
        self.report.kills[victim] += 1
        return victim

    def _finish(self, place: Path) -> None:
        """Have all buyers finish, and wait until everything is at rest."""
        self._finishing = True
        for index in range(BUYERS):
            (place / f"{place.name}-{index}" / "finish").touch()
        deadline = time.monotonic() + PATIENCE_FACTOR * FINISH_SECONDS
        while len(self._ended) < BUYERS:
            self._tend()
            if time.monotonic() > deadline:
                raise AssertionError("the buyers did not finish")
            time.sleep(0.05)
        time.sleep(REST_SECONDS)

    def _judge(self, place: Path, offsets: dict[str, int]) -> Verdict:
        notes = [read_lines(book) for book in sorted(place.glob("*/*.notes"))]
        records = {way: read_lines(record, offsets[way]) for way, record in self._records.items()}
        channels = {line["channel"] for lines in notes for line in lines if line["what"] == "try"}
        books = {channel: self._ask(f"/v1/sell/channels/{channel}") for channel in channels}
        known = {channel: book for channel, book in books.items() if book}
        return judge(notes, records, known, int(self._ask("/v1/sell/terms")["open_price"]), self._killed)

    def _ask(self, target: str) -> Line:
        """Return what the sellers' door says, {} if it knows no such thing."""
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                answer = self._seller.request("GET", target)
                if answer.status in (200, 404):
                    return answer.json if answer.status == 200 else {}
            assert time.monotonic() < deadline, f"no answer to {target}"
            time.sleep(0.05)

    def _keep(self) -> Path:
        """Copy what led to a violation, but for what keeps keys."""
        place = Path(tempfile.mkdtemp(prefix=f"paychan-sales-{self.report.seed}-"))
        ignore = shutil.ignore_patterns("state", "*.sock", "*.key", "*.lock")
        shutil.copytree(self._directory, place / "campaign", ignore=ignore)
        (place / "system.log").write_text("".join(self._system.output[-5000:]))
        (place / "killed").write_text("\n".join(f"{at:.3f} {who}" for at, who in self._killed))
        return place


def granian(name: str, port: int) -> list[str]:
    """Return the command that serves an application of shop.py."""
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--respawn-failed-workers", "--no-ws"]
    return [str(Path(sys.executable).parent / "granian"), "--interface", "asgi", *where, f"tests.campaign.shop:{name}"]


def write_gateway(place: Path, port: int, door: Path, token: str, upstream: str) -> Path:
    """Write the gateway's file; return where."""
    secret = place / "gateway.token"
    secret.touch(mode=0o600)
    secret.write_text(token)
    text = f'[gateway]\nport = {port}\nrealm = "sales"\n[seller]\nsocket = "{door}"\ntoken_file = "{secret}"\n'
    text += f'[upstreams.goods]\nurl = "{upstream}"\n'
    text += "".join(f'[[routes]]\npath = "/goods/{price}"\nprice = {price}\n' for price in PRICES)
    file = place / "gateway.toml"
    file.write_text(text)
    return file


def campaign(
    directory: Path,
    kills: int,
    seed: int,
    victims: tuple[str, ...] = VICTIMS,
    seconds: float = float("inf"),
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Kill so often, or for so many seconds if that is less."""
    return Campaign(directory, victims, seed, say).run(kills, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round after so long")
    parser.add_argument("--victim", default="all", help=f"of {', '.join(VICTIMS)}")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    arguments = parser.parse_args()
    victims = VICTIMS if arguments.victim == "all" else tuple(arguments.victim.split(","))
    if set(victims) - set(VICTIMS):
        parser.error(f"victims: {', '.join(VICTIMS)}")
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="paychan-sales-") as place:
        report = campaign(
            Path(place), arguments.kills, arguments.seed, victims, arguments.seconds, lambda text: print(text, flush=True)
        )
    print(report)
    for problem in report.problems[:40]:
        print(f"  {problem}")
    return int(bool(report.problems))


if __name__ == "__main__":
    sys.exit(main())
