"""Aim: a store that stops under load has everybody answered 503, nothing grows meanwhile, and afterwards nothing is missing.
Method: a real system with two workers; payers whose histories are judged, and a flood on many connections to both kinds of door."""

import asyncio
import os
import secrets
import signal
import threading
from collections import Counter
from contextlib import suppress

from tests.campaign.load import Account, Load, PatientClient
from tests.system import System, resident_bytes, running, wait_until

SEED = int(os.environ.get("PAYCHAN_SEED", secrets.randbelow(1 << 32)))
CONNECTIONS = 120
CHANNELS = 12
PAYMENTS = 40
MORE_ANSWERS = 2000
GROWTH_MAX = 16 << 20
UNAVAILABLE = {"store_unavailable", "owner_moved", "overloaded"}


class Flood(threading.Thread):
    """Connections that send payments one after the other, for ever; `answers`: (status, code) of all, since the last `begin`."""

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        ports = [system.port, *system.own_ports()]
        self._ports = [ports[number % len(ports)] for number in range(CONNECTIONS)]
        client = PatientClient(system.port)
        accounts = [Account.of(system, f"flood-{number}") for number in range(CHANNELS)]
        for account in accounts:
            account.open(client)
        self._requests = [
            f"PUT {account.sender.channel_target(account.sender.pay(1))} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
            for _ in range(PAYMENTS)
            for account in accounts
        ]
        self._loop = asyncio.new_event_loop()
        self.begin()

    def begin(self) -> None:
        self.answers: Counter[tuple[int, str]] = Counter()
        self.unavailable = [0] * CONNECTIONS

    def is_refused(self) -> bool:
        """Whether every connection was answered 503 since nobody was answered anything else (a replay needs no store, while the
        worker may still think that there is one)."""
        if {status for status, _ in self.answers} - {503}:
            self.begin()
        return min(self.unavailable) >= 5

    @property
    def count(self) -> int:
        return sum(self.answers.values())

    def run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._all())

    async def _all(self) -> None:
        self._task = asyncio.current_task()
        await asyncio.gather(*(self._one(number) for number in range(CONNECTIONS)))

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self.join()

    async def _one(self, number: int) -> None:
        turn = number
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._ports[number])
                try:
                    while True:
                        writer.write(self._requests[turn % len(self._requests)])
                        await self._read(number, reader)
                        turn += CONNECTIONS + 1
                finally:
                    writer.close()
            await asyncio.sleep(0.1)

    async def _read(self, number: int, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = next(int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
        body = await reader.readexactly(size)
        status = int(head[9:12])
        code = body.partition(b'"code":"')[2].partition(b'"')[0].decode()
        self.answers[status, code] += 1
        self.unavailable[number] += status == 503


def test_a_store_that_stops_under_load_costs_patience_and_nothing_else(tmp_path):
    with running(tmp_path, workers=2) as system, Load(system, SEED, threads=3, shared=2) as load:
        workers = system.worker_pids()
        flood = Flood(system)
        flood.start()
        wait_until(lambda: flood.answers[200, ""] > CONNECTIONS, 20, "the flood")
        load.wait_for_progress(3)

        store = system.kill("store", signal.SIGSTOP)
        try:
            flood.begin()
            wait_until(flood.is_refused, 20, "every connection's 503, and nothing else")
            before = [resident_bytes(pid) for pid in workers]
            flood.begin()
            wait_until(lambda: flood.count > MORE_ANSWERS, 20, "answers without a store")
            assert {status for status, _ in flood.answers} == {503}, flood.answers
            assert {code for _, code in flood.answers} <= UNAVAILABLE, flood.answers
            grown = [resident_bytes(pid) - old for pid, old in zip(workers, before, strict=True)]
            assert max(grown) < GROWTH_MAX, grown
        finally:
            os.kill(store, signal.SIGCONT)

        load.wait_for_progress(3)
        flood.begin()
        wait_until(lambda: flood.answers[200, ""] + flood.answers[400, "out_of_order"] > CONNECTIONS, 20, "the flood's return")
        flood.stop()
        assert system.worker_pids() == workers
        verdict = load.close_and_judge()
        assert verdict.problems == [], f"seed {SEED}"
        assert system.client().request("GET", "/readyz").json["stopped_shards"] == {}
