"""Scene: what selling costs. Rows 12, 13, 14: a payment that comes with a charge beside one that comes alone; a paid FastAPI call
beside the same unpaid one; a paid route of the gateway beside a free one, which is a plain proxy.

Buyers pay exactly. What the server's books say after the last round is compared with what was signed.
"""

import base64
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

from bench.load.failure import Failed, await_
from bench.load.goods import GOOD, PRICE
from bench.load.measure import Lane
from bench.load.payers import Payer, Request
from bench.load.processes import Door, Instance, ask, spawn_command, stop_politely, worker_pids
from bench.load.scene import Scene, Step
from bench.load.store_feed import listens
from paychan.chain.debug import DEBUG_FUNDING_VALUE
from paychan.core.outpoint import format_outpoint
from paychan.mpp.challenge import Challenge, parse_challenges
from paychan.mpp.credential import Credential
from paychan.rpc.connection import Address
from tests.ports import free_port

CONNECTIONS = 32
CHARGED, ALONE = "payment with a charge", "payment alone"
CHARGED_LIST, ALONE_BATCH = "payments with charges, in lists", "payments alone, in batches"
PAID_CALL, FREE_CALL = "paid FastAPI call", "unpaid FastAPI call"
PAID_ROUTE, FREE_ROUTE = "paid route of the gateway", "free route of the gateway"
OVER = ((PAID_CALL, FREE_CALL), (PAID_ROUTE, FREE_ROUTE))


class Selling(Scene):
    """One worker and its sellers' door, a shop that is free, one that is not, and a gateway before the free one."""

    def start(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._payers: list[Payer] = []
        self._count = min(CONNECTIONS, self.size.main)
        self._door = "127.0.0.1", free_port()
        self._system = Instance(self.directory / "system", sell_port=self._door[1])
        self.exits.callback(self._system.stop)
        self._system.start()
        run = self.directory / "system" / "state" / "run"
        await_((run / "sell.cookie").exists, 30, "opening the sellers' door")
        self._token = (run / "sell.cookie").read_text().strip()
        status, _, terms = ask(self._door, "GET", "/v1/sell/terms", headers={"Authorization": f"Bearer {self._token}"})
        if status != 200:
            raise Failed(f"the sellers' door does not tell its terms: {status}")
        self._open_price = int(terms["open_price"])
        self._add_sales()
        self._add_calls(run / "sell.sock")

    def _opened(self, kind: str) -> tuple[list[Payer], list[Door]]:
        payers = [Payer(f"selling {kind}", number, self._system.server_pubkey) for number in range(self._count)]
        self._payers += payers
        return payers, self._system.open(payers, self._open_price)

    def _add_sales(self) -> None:
        pids, batch = self._system.pids(), self.size.batch
        payers, doors = self._opened(ALONE)
        self._lanes[ALONE] = Lane(ALONE, doors, pids, lambda number, count: payers[number].pay(count))
        self._add_lane(CHARGED, [self._door], pids, self._sale)
        batched, doors = self._opened(ALONE_BATCH)
        self._lanes[ALONE_BATCH] = Lane(
            ALONE_BATCH, doors, pids, lambda number, count: [batched[number].batch(batch) for _ in range(count)]
        )
        self._add_lane(CHARGED_LIST, [self._door], pids, functools.partial(self._list, batch))

    def _add_lane(
        self, name: str, door: list[Door], pids: dict[str, list[int]], make: Callable[[Payer], Request], needle: bytes = b""
    ) -> None:
        payers, _ = self._opened(name)
        self._lanes[name] = Lane(
            name, door * self._count, pids, lambda number, count: [make(payers[number]) for _ in range(count)], needle
        )

    def _sale(self, payer: Payer) -> Request:
        sale = _charge(payer)
        return self._ask(json.dumps(sale).encode()), False, [(200, payer.left, PRICE)]

    def _list(self, size: int, payer: Payer) -> Request:
        sales, left = [_charge(payer) for _ in range(size)], payer.left
        return self._ask(json.dumps(sales).encode()), False, [(200, left + size - 1, PRICE)]

    def _ask(self, body: bytes) -> bytes:
        head = f"POST /v1/sell HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._token}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    # --- shops ---

    def _add_calls(self, socket: Path) -> None:
        free, paid = (self._shop(name, {"PAYCHAN_DOOR": str(socket)}) for name in ("free", "paid"))
        port = free_port()
        file = self.directory / "gateway.toml"
        file.write_text(_gateway(port, socket, free[0]))
        gateway = self._program([sys.executable, "-m", "paychan", "gateway", str(file)], port, {})
        system, needle = self._system.pids(), GOOD.encode()
        both = {"upstream": free[1], "gateway": gateway[1]}
        self._add_free(FREE_CALL, free[0], "/good", {"shop": free[1]})
        self._add_paid(PAID_CALL, paid[0], {"shop": paid[1], **system}, needle)
        self._add_free(FREE_ROUTE, gateway[0], "/free/good", both)
        self._add_paid(PAID_ROUTE, gateway[0], {**both, **system}, needle)

    def _shop(self, name: str, env: dict[str, str]) -> tuple[Door, list[int]]:
        port = free_port()
        granian = [str(Path(sys.executable).parent / "granian"), "--interface", "asgi", "--loop", "uvloop", "--no-ws"]
        where = ["--http", "1", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        return self._program([*granian, *where, f"bench.load.goods:{name}"], port, env)

    def _program(self, command: list[str], port: int, env: dict[str, str]) -> tuple[Door, list[int]]:
        process = spawn_command(command, log=self.directory / "log", env=env)
        self.exits.callback(stop_politely, [process])
        await_(lambda: listens(Address(host="127.0.0.1", port=port)), 60, f"starting {command[-1]}")
        return ("127.0.0.1", port), worker_pids(process.pid)

    def _add_free(self, name: str, door: Door, target: str, pids: dict[str, list[int]]) -> None:
        request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), False, [(200, None, None)]
        self._lanes[name] = Lane(name, [door] * self._count, pids, lambda _, count: [request] * count, GOOD.encode())

    def _add_paid(self, name: str, door: Door, pids: dict[str, list[int]], needle: bytes) -> None:
        status, headers, _ = ask(door, "GET", "/good")
        if status != 402:
            raise Failed(f"{name}: no payment is asked for, but {status}")
        (challenge,) = parse_challenges([headers["www-authenticate"]])
        self._add_lane(name, [door], pids, functools.partial(_call, challenge), needle)

    # --- in each round ---

    def steps(self) -> list[Step]:
        return [(name, functools.partial(self._measure, name)) for name in self._lanes]

    def _measure(self, name: str) -> None:
        self.record.add(name, self._lanes[name].measure(self.size.seconds, self.verify))

    def finish(self) -> None:
        """Compare what was sold with what the books say: whatever was answered was paid for, once. Raises Failed."""
        for payer in self._payers:
            channel = format_outpoint(payer.terms.outpoint)
            headers = {"Authorization": f"Bearer {self._token}"}
            status, _, book = ask(self._door, "GET", f"/v1/sell/channels/{channel}", headers=headers)
            if status != 200 or book["spent"] > book["received"] or book["received"] > DEBUG_FUNDING_VALUE - payer.left:
                raise Failed(f"the books of channel {channel} are wrong: {status} {book}")


def _charge(payer: Payer) -> dict[str, object]:
    (raw,) = payer.sign(1, PRICE)
    text = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    key = f"{payer.left}"
    return {"do": "charge", "channel": format_outpoint(payer.terms.outpoint), "key": key, "amount": PRICE, "payment": text}


def _call(challenge: Challenge, payer: Payer) -> Request:
    (raw,) = payer.sign(1, PRICE)
    credential = Credential(challenge, "voucher", payer.terms.outpoint, raw)
    request = f"GET /good HTTP/1.1\r\nHost: localhost\r\nAuthorization: {credential.render()}\r\n\r\n"
    return request.encode(), False, [(200, None, None)]


def _gateway(port: int, socket: Path, upstream: Door) -> str:
    head = f'[gateway]\nport = {port}\nrealm = "bench"\n[seller]\nsocket = "{socket}"\n'
    head += f'[upstreams.goods]\nurl = "http://{upstream[0]}:{upstream[1]}"\n'
    return head + f'[[routes]]\npath = "/good"\nprice = {PRICE}\n[[routes]]\npath = "/*"\nfree = true\n'
