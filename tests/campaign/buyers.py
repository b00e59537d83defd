"""Buyers of the sales campaign: threads of one process, each with a purse of its own, that buy until they are told to finish.

    python -m tests.campaign.buyers DIRECTORY SHOP GATEWAY SEED

DIRECTORY keeps their purses and notebooks: whoever is killed and started again there goes on, either with what it was buying or
with something else. All that a buyer asks, presents and is answered it writes down on disk, before it goes on; what it presents
before it is sent, and what it is answered before its purse sees it. When DIRECTORY/finish is there, each buys one thing more of
both sellers, however long that takes, and notes what its purse has in the end.

    {"what": "ask", "id", "way", "method", "cost"}          cost: satoshi, of a metered request what it will use
    {"what": "try", "id", "channel", "change", "at"}        with this payment; change: what it leaves; at: unix seconds
    {"what": "answer", "id", "channel", "change", "status", "name", "accepted", "spent", "good", "at"}
    {"what": "end", "id"}
    {"what": "problem", "id", "error"}                      what no honest system makes a purse say
    {"what": "books", "channel", "signed", "acknowledged", "entered", "hold"}
"""

import itertools
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import requests
from requests.adapters import HTTPAdapter

from paychan.core.outpoint import format_outpoint
from paychan.mpp.credential import find_credential, parse_credential
from paychan.mpp.problems import parse_problem
from paychan.mpp.receipt import parse_receipt
from paychan.pay import httpx as with_httpx
from paychan.pay import requests as with_requests
from paychan.pay.budget import NO_LIMITS
from paychan.pay.purse import Purse
from tests.campaign.books import read_lines
from tests.campaign.shop import PRICES, Record, units_of

BUYERS = 3
DEADLINE = 3.0
PATIENCE, IMPATIENCE = 5.0, (0.02, 0.12)
"""Seconds that an answer is waited for; now and then so few that it is given up, though it was paid for."""

GIVES_UP, HANGS_UP, HANGS_UP_AGAIN, FAILS, IS_SLOW, TAKES_UP = 0.2, 0.15, 0.6, 0.15, 0.3, 0.5
"""Shares: of failed attempts, after which the thing is given up; of impatient attempts, the first and those after one; of goods
whose handler fails at first, and of slow ones; of restarts after which the buyer goes on with what it was buying."""


@dataclass(frozen=True)
class Wish:
    """One thing to buy. cost: what it will have cost, in satoshi."""

    ident: str
    way: str
    method: str
    target: str
    cost: int


class Notes:
    """A buyer's notebook. `ident`: of what it is buying."""

    def __init__(self, path: Path) -> None:
        self._record = Record(str(path))
        self.ident = ""

    def write(self, what: str, **more: object) -> None:
        self._record.write(what=what, id=self.ident, **more)

    def presenting(self, header: str | None) -> dict[str, object]:
        """Note that a payment is about to be sent; return which."""
        text = find_credential([header]) if header else None
        if text is None:
            return {}
        credential = parse_credential(text)
        payment = {"channel": format_outpoint(credential.outpoint), "change": credential.change_value}
        self.write("try", **payment, at=time.time())
        return payment

    def answered(self, payment: dict[str, object], status: int, headers: Any, body: bytes) -> None:
        if not payment:
            return
        name, accepted, spent, good = "", 0, 0, ""
        if 200 <= status < 300:
            receipt = parse_receipt(headers["payment-receipt"])
            accepted, spent, good = receipt.accepted, receipt.spent, body.decode()
        elif status in (402, 409):
            problem = parse_problem(body, status)
            name, accepted = problem.name, problem.amounts.get("acceptedCumulative", 0)
        told = {"status": status, "name": name, "accepted": accepted, "spent": spent, "good": good}
        self.write("answer", **payment, **told, at=time.time())


class _NotingTransport(httpx.HTTPTransport):
    """Each request has a connection of its own: so any of a shop's processes may get it."""

    def __init__(self, notes: Notes) -> None:
        super().__init__(limits=httpx.Limits(max_keepalive_connections=0))
        self._notes = notes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        payment = self._notes.presenting(request.headers.get("authorization"))
        response = super().handle_request(request)
        body = response.read()
        self._notes.answered(payment, response.status_code, response.headers, body)
        return response


class _NotingAdapter(HTTPAdapter):
    notes: Notes

    def send(self, request: requests.PreparedRequest, *rest: Any, **options: Any) -> requests.Response:
        payment = self.notes.presenting(request.headers.get("Authorization"))
        response = super().send(request, *rest, **{**options, "stream": False})
        self.notes.answered(payment, response.status_code, response.headers, response.content)
        return response


class _NotingPayer(with_requests.Payer, _NotingAdapter):
    """Whose own `send` is the payer's, and the one below it the noting one."""


Send = Callable[[str, str, float], int]
"""method, URL, seconds: sends one request and returns the answer's status. Raises OSError, httpx.TransportError."""


def by_httpx(purse: Purse, notes: Notes) -> Send:
    client = httpx.Client(auth=with_httpx.Payer(purse, deadline=DEADLINE), transport=_NotingTransport(notes))
    return lambda method, url, seconds: client.request(method, url, timeout=seconds).status_code


def by_requests(purse: Purse, notes: Notes) -> Send:
    session, adapter = requests.Session(), _NotingPayer(purse, deadline=DEADLINE)
    adapter.notes = notes
    session.mount("http://", adapter)
    return lambda method, url, seconds: session.request(method, url, timeout=seconds).status_code


class Buyer:
    """One thread's. name: of its purse and notebook."""

    def __init__(self, directory: Path, name: str, sellers: dict[str, str], seed: str) -> None:
        self._name, self._sellers, self._rng = name, sellers, random.Random(seed)
        self._finish = directory / "finish"
        book = directory / f"{name}.notes"
        self._left = _unfinished(read_lines(book)) if book.exists() else None
        self._hung_up = ""  # on which purchase, last
        self._notes = Notes(book)
        self._purse = Purse(directory / name, NO_LIMITS)
        make = (by_httpx, by_requests)[int(name[-1]) % 2]
        self._send = make(self._purse, self._notes)

    def run(self) -> None:
        """Buy, and in the end tell what the purse has."""
        if self._left is not None and (self._rng.random() < TAKES_UP or _holds(self._left)):
            self._buy(self._left, is_last=False)
        for number in itertools.count():
            if self._finish.exists():
                break
            self._buy(self._wish(number), is_last=False)
        for way in self._sellers:
            ident = self._ident("last")
            self._buy(Wish(ident, way, "GET", f"/goods/{PRICES[0]}?id={ident}", PRICES[0]), is_last=True)
        self._tell()

    def _ident(self, more: object) -> str:
        return f"{self._name}-{time.time_ns()}-{more}"

    def _wish(self, number: int) -> Wish:
        rng, ident = self._rng, self._ident(number)
        if rng.random() < FAILS:
            ident += f"-f{rng.randint(1, 3)}"
        if rng.random() < IS_SLOW:
            ident += f"-s{rng.randint(1, 100)}"
        way = rng.choice(list(self._sellers))
        if way == "shop" and rng.random() < 0.25:
            return Wish(ident, way, "GET", f"/metered?id={ident}", units_of(ident))
        price, method = rng.choice(PRICES), rng.choice(("GET", "POST"))
        return Wish(ident, way, method, f"/goods/{price}?id={ident}", price)

    def _buy(self, wish: Wish, is_last: bool) -> None:
        self._notes.ident = wish.ident
        self._notes.write("ask", way=wish.way, method=wish.method, target=wish.target, cost=wish.cost)
        while not self._attempt(wish, is_last):
            if not is_last and self._rng.random() < GIVES_UP and not _holds(wish):
                break
            time.sleep(self._rng.uniform(0.01, 0.2))
        self._notes.write("end")

    def _attempt(self, wish: Wish, is_last: bool) -> bool:
        """Return whether nothing more need be tried."""
        hangs_up = not is_last and self._rng.random() < (HANGS_UP_AGAIN if self._hung_up == wish.ident else HANGS_UP)
        self._hung_up = wish.ident if hangs_up else ""
        seconds = self._rng.uniform(*IMPATIENCE) if hangs_up else PATIENCE
        try:
            status = self._send(wish.method, self._sellers[wish.way] + wish.target, seconds)
        except (httpx.TransportError, requests.RequestException):
            return False
        except Exception as error:
            self._notes.write("problem", error=f"{type(error).__name__}: {error}")
            return not is_last
        return status == 409 or 200 <= status < 300

    def _tell(self) -> None:
        for standing in self._purse.standings():
            record = standing.record
            if record.funding is None:
                continue
            acknowledged = record.funding.value - record.acknowledged.change_value if record.acknowledged else 0
            self._notes.write(
                "books",
                channel=format_outpoint(record.terms.outpoint),
                signed=standing.paid,
                acknowledged=acknowledged,
                entered=self._purse.ledger.signed_away(standing.name),
                hold=record.hold.code if record.hold else "",
            )


def _holds(wish: Wish) -> bool:
    """Return whether a purchase that is left as it is may be held for ten minutes. With four of them a channel sells nothing."""
    return wish.target.startswith("/metered")


def _unfinished(lines: list[dict[str, Any]]) -> Wish | None:
    """Return what a buyer was buying when it was killed."""
    begun = max((number for number, line in enumerate(lines) if line["what"] == "ask"), default=None)
    if begun is None or any(line["what"] == "end" or 200 <= line.get("status", 0) < 300 for line in lines[begun:]):
        return None
    ask = lines[begun]
    return Wish(ask["id"], ask["way"], ask["method"], ask["target"], ask["cost"])


def main() -> None:
    directory, shop, gateway, seed = Path(sys.argv[1]), *sys.argv[2:5]
    sellers = {"shop": shop, "gateway": gateway}
    buyers = [Buyer(directory, f"{directory.name}-{number}", sellers, f"{seed} {number}") for number in range(BUYERS)]
    threads = [threading.Thread(target=buyer.run) for buyer in buyers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
