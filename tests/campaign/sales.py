"""The campaign against sellers and buyers: whoever is killed, goods served = charges = what the buyers' records say.

    python -m tests.campaign.sales --kills 1000 [--machines 2] [--seconds S] [--victim all|buyer,shop,gateway,server,...] [--seed K]

Real processes: `paychan run` with two workers and a sellers' door; a FastAPI shop behind paychan.sell, in two processes of granian;
`paychan gateway` before an upstream; two programs of buyers with paychan.pay (buyers.py), which hang up, give up, go on after a
restart, and meet handlers that fail at first. SIGKILL hits one of them at a random moment, again and again; the system's own
supervisor, granian, or this campaign in an operator's place starts it again. After every ROUND_KILLS the buyers finish, and
books.py, which says exactly what is promised, judges every purchase and every channel. A violation stops the campaign; what led to
it is kept.

With --machines 2 or 3 they share a database with two standbys (fleet.py), and each has a shop at its own door (sellers.py). A whole
machine is killed then, too, with what it sells, and the database's primary and standbys.
"""

import argparse
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests import postgres
from tests.campaign import database
from tests.campaign.books import RETURN_SECONDS, Kills, Line, Verdict, judge, read_lines
from tests.campaign.faults import kill_when_there
from tests.campaign.sellers import Program, Sellers
from tests.fleet import Machine, fleet
from tests.selling import SOCKET, sell_changes
from tests.system import PATIENCE_FACTOR, System, running

OURS = ("buyer", "shop", "gateway")
VICTIMS = (*OURS, "server", "worker", "store", "signer")
OF_A_FLEET = (*VICTIMS, "machine", *database.VICTIMS)
ROUND_KILLS = 50
BUYERS = 2
"""Programs of buyers, each with some threads."""

FINISH_SECONDS, SERVE_SECONDS = 30, 30
"""Within PATIENCE_FACTOR times as much all buyers finish; somebody is served again by each seller."""

REST_SECONDS = 3.0
"""Then nobody gives anything back any more: longer than all of a till's attempts take."""

AWAY_SECONDS = 20.0
"""Of a fleet: so long after a kill a charge may not be given back yet. Others must first find a store silent for its lease."""


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
    """On running machines. say: takes lines of progress."""

    def __init__(self, directory: Path, victims: tuple[str, ...], machines: int, seed: int, say: Callable[[str], None]) -> None:
        self._directory, self._victims, self._count, self._say = directory, victims, machines, say
        self._rng, self.report = random.Random(seed), Report(seed)
        self._killed: list[tuple[float, str]] = []
        self._buyers: list[Program] = []
        self._ended: set[int] = set()

    def run(self, kills: int, seconds: float) -> Report:
        """Kill so often, or for so long: each of the victims as often as the others, in a random order."""
        begun = time.monotonic()
        self._plan = [self._victims[number % len(self._victims)] for number in range(kills)]
        self._rng.shuffle(self._plan)
        with self._systems() as self._machines:
            self._sellers = Sellers(self._directory, self._machines)
            try:
                self._sellers.start()
                for number in range(10**6):
                    left = min(ROUND_KILLS, kills - self.report.kills.total())
                    if left <= 0 or self.report.problems or time.monotonic() - begun > seconds:
                        break
                    self._round(number, left)
            finally:
                self._sellers.kill()
                for buyer in self._buyers:
                    buyer.kill()
        self.report.seconds = time.monotonic() - begun
        return self.report

    @contextmanager
    def _systems(self) -> Iterator[list[System]]:
        """Run one system, or a fleet of machines."""
        if self._count == 1:
            with running(self._directory, workers=2, changes=sell_changes(SOCKET)) as system:
                yield [system]
        else:
            with fleet(self._directory, self._count, workers=2, lease_ms=database.LEASE_MS) as whole:
                yield [*whole.machines]

    def _tend(self) -> None:
        """Start again what is killed."""
        self._sellers.tend()
        for number, buyer in enumerate(self._buyers):
            if number not in self._ended and (status := buyer.tend()) is not None:
                self._ended.add(number)
                if status or not self._finishing:
                    self.report.problems.append(f"a buyer ended with {status}: {buyer.log}")

    def _wait_for_service(self) -> None:
        """Return when something more was bought in each way."""
        before, deadline = self._sellers.served(), time.monotonic() + PATIENCE_FACTOR * SERVE_SECONDS
        while not all(now > then for now, then in zip(self._sellers.served(), before, strict=True)):
            self._tend()
            if time.monotonic() > deadline:
                raise AssertionError(f"nobody is served any more: {before} bytes of goods, now {self._sellers.served()}")
            time.sleep(0.02)

    # --- a round ---

    def _round(self, number: int, kills: int) -> None:
        place = self._directory / f"round-{number}"
        place.mkdir()
        offsets = dict(zip(self._sellers.records, self._sellers.served(), strict=True))
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
        urls = (self._sellers.urls["shop"], self._sellers.urls["gateway"])
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
        self._strike(victim)
        self.report.kills[victim] += 1
        return victim

    def _strike(self, victim: str) -> None:
        number = self._rng.randrange(len(self._machines))
        if victim == "machine":
            self._lose(number)
            return
        self._killed.append((time.time(), victim))
        if victim in database.VICTIMS:
            database.kill(victim, self._rng)
        elif victim not in OURS:
            kill_when_there(self._machines[number], victim, self._rng)
        else:
            program = self._rng.choice(self._buyers) if victim == "buyer" else self._sellers.any_of(victim, self._rng)
            if victim == "buyer" or self._rng.random() < 0.5 or not program.kill_worker(self._rng):
                program.kill()
        self._killed.append((time.time(), victim))

    def _lose(self, number: int) -> None:
        """Kill a whole machine, with what it sells; it is started again at once, or when others have taken its shards."""
        machine, ways = self._machines[number], [name.rstrip("0123456789") for name in self._sellers.of_machine[number]]
        assert isinstance(machine, Machine)
        self._killed += [(time.time(), who) for who in ("machine", *ways)]
        machine.lose_power()
        for name in self._sellers.of_machine[number]:
            self._sellers.programs[name].kill()
        time.sleep(self._rng.choice((0.0, 1.5 * database.LEASE_MS / 1000)))
        machine.start_again()
        self._killed += [(time.time(), who) for who in ("machine", *ways)]

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
        records = {way: read_lines(record, offsets[way]) for way, record in self._sellers.records.items()}
        channels = {line["channel"] for lines in notes for line in lines if line["what"] == "try"}
        books = {channel: self._ask(f"/v1/sell/channels/{channel}") for channel in channels}
        known = {channel: book for channel, book in books.items() if book}
        killed = Kills(self._killed, RETURN_SECONDS if self._count == 1 else AWAY_SECONDS)
        return judge(notes, records, known, int(self._ask("/v1/sell/terms")["open_price"]), killed)

    def _ask(self, target: str) -> Line:
        """Return what the sellers' door says, {} if it knows no such thing."""
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                answer = self._sellers.doors[0].request("GET", target)
                if answer.status in (200, 404):
                    return answer.json if answer.status == 200 else {}
            assert time.monotonic() < deadline, f"no answer to {target}"
            time.sleep(0.05)

    def _keep(self) -> Path:
        """Copy what led to a violation, but for what keeps keys."""
        place = Path(tempfile.mkdtemp(prefix=f"paychan-sales-{self.report.seed}-"))
        ignore = shutil.ignore_patterns("state", "*.sock", "*.key", "*.lock")
        shutil.copytree(self._directory, place / "campaign", ignore=ignore)
        for number, machine in enumerate(self._machines):
            (place / f"system{number}.log").write_text("".join(machine.output[-5000:]))
        (place / "killed").write_text("\n".join(f"{at:.3f} {who}" for at, who in self._killed))
        return place


def campaign(
    directory: Path,
    kills: int,
    seed: int,
    victims: tuple[str, ...] = VICTIMS,
    machines: int = 1,
    seconds: float = float("inf"),
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Kill so often, or for so many seconds if that is less."""
    if machines > 1:
        postgres.share(postgres.Cluster(standbys=2, lease_ms=database.LEASE_MS))
    return Campaign(directory, victims, machines, seed, say).run(kills, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round after so long")
    parser.add_argument("--victim", default="all", help=f"of {', '.join(OF_A_FLEET)}")
    parser.add_argument("--machines", type=int, default=1, choices=(1, 2, 3))
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    arguments = parser.parse_args()
    known = VICTIMS if arguments.machines == 1 else OF_A_FLEET
    victims = known if arguments.victim == "all" else tuple(arguments.victim.split(","))
    if set(victims) - set(known):
        parser.error(f"victims: {', '.join(known)}")
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="paychan-sales-") as place:
        wanted = (arguments.kills, arguments.seed, victims, arguments.machines, arguments.seconds)
        report = campaign(Path(place), *wanted, lambda text: print(text, flush=True))
    print(report)
    for problem in report.problems[:40]:
        print(f"  {problem}")
    return int(bool(report.problems))


if __name__ == "__main__":
    sys.exit(main())
