"""A real database filled with channels, and the store's reads of it without a process between: for tests and measurements of the
operator's books. Records are written directly, as the store would have written them; their payments are signed by nobody."""

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

from paychan.core.channel import ChannelState, ChannelTerms, Phase
from paychan.core.outcome import Outcome
from paychan.core.payment import Payment
from paychan.rpc.store_messages import SETTLED_MAX, Scan, Stored, StoreMessage
from store import keys
from store.engines.rocksdb import RocksDB

PUBKEY = b"\2" * 33
FUNDING = 5_000_000
DAY = 86_400
AT_ONCE = 5000


class FilledStore:
    """Answers what `operator/following.py` asks. questions: how many; seconds: of the processor, what
    the database took for them."""

    def __init__(self, directory: Path, now: int) -> None:
        self.engine, self.now = RocksDB(directory, sync=False), now
        self.questions, self.seconds = 0, 0.0

    def fill(self, count: int, settled: int = 0, seed: int = 1) -> None:
        """Write `count` unsettled channels, most of them open, and `settled` ones."""
        rng = random.Random(seed)
        writes: dict[bytes, bytes | None] = {}
        for number in range(count + settled):
            phase = Phase.SETTLED if number >= count else Phase(rng.choices((1, 2, 4), (96, 1, 3))[0])
            writes |= self.records(number, phase, rng)
            if len(writes) > AT_ONCE:
                self.engine.commit(writes)
                writes = {}
        self.engine.commit(writes)

    def records(self, number: int, phase: Phase, rng: random.Random) -> dict[bytes, bytes | None]:
        """Return what the store has of a channel."""
        outpoint = rng.randbytes(32) + (number % 5).to_bytes(4, "little")
        received = rng.randrange(1, FUNDING)
        opened_at = self.now - rng.randrange(60 * DAY)
        terms = ChannelTerms(outpoint, PUBKEY, b"\3" * 33, self.now + rng.randrange(1, 40 * DAY), FUNDING, b"\xa9" * 23, opened_at)
        txid = rng.randbytes(32) if phase >= Phase.SIGNED else b""
        state = ChannelState(phase, Payment(FUNDING - received, rng.randbytes(70), 0x83), txid)
        found: dict[bytes, bytes | None] = {keys.TERMS + outpoint: terms.serialize(), keys.STATE + outpoint: state.serialize()}
        if phase == Phase.OPEN:
            found[keys.expiring_key(terms.exp_time, outpoint)] = b""
        elif phase != Phase.SETTLED:
            found[keys.UNFINISHED + outpoint] = bytes((phase,))
        else:
            outcome = Outcome(self.now - rng.randrange(50 * DAY), opened_at, received, min(received, 3000))
            found[keys.done_key(outcome.settled_at, outpoint)] = outcome.serialize()
        return found

    async def page(self, kind: StoreMessage, ask: Scan) -> list[tuple[int, bytes]]:
        if kind == StoreMessage.SCAN_EXPIRING:
            return self._timed(self.engine.scan_expiring, ask.before, ask.after_number, ask.after, ask.limit)
        return self._timed(self.engine.scan_unfinished, ask.after, ask.limit)

    async def load_many(self, outpoints: list[bytes]) -> list[Stored | None]:
        return self._timed(self.engine.load, outpoints)

    async def settled_since(self, time: int) -> AsyncIterator[list[tuple[int, bytes, bytes]]]:
        after = time, bytes(36)
        while True:
            page = self._timed(self.engine.scan_settled, *after, SETTLED_MAX)
            yield page
            if len(page) < SETTLED_MAX:
                return
            after = page[-1][:2]

    def _timed(self, read, *arguments):
        began = time.thread_time()
        try:
            return read(*arguments)
        finally:
            self.questions += 1
            self.seconds += time.thread_time() - began
