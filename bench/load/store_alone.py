"""Scene: the store alone. Row 11: durable updates a second with 256 outstanding, from one client whose frames are made beforehand.

The store does not verify signatures (the worker did), so an update's signature is any bytes of the right length.
"""

import functools
import time

from bench.load.payers import Payer
from bench.load.populate import opened_payer, populate
from bench.load.processes import CpuClock, Instance
from bench.load.scene import Scene, Step
from bench.load.store_feed import StoreFeed
from paychan.core.channel import ChannelState, Phase
from paychan.core.payment import SIGHASH_CHANGE, Payment

ENTRIES, AHEAD = 64, 4
"""256 updates are outstanding: four frames of 64."""

SIGNATURE_SIZE = 70
SAMPLE, SPREAD = "store alone", "store alone, spread"
SPREAD_FACTOR = 20


class StoreAlone(Scene):
    """One store without a server; updates go to few channels in turn, and to many."""

    def start(self) -> None:
        self._instance = Instance(self.directory / "store")
        self.exits.callback(self._instance.stop)
        self._instance.start_store()
        key, few = self._instance.server_pubkey, self.size.few
        populate(self._instance.store_address, key, SPREAD_FACTOR * few)
        payers = [opened_payer(number, key) for number in range(SPREAD_FACTOR * few)]
        self._payers = {SAMPLE: payers[:few], SPREAD: payers[few:]}

    def steps(self) -> list[Step]:
        return [(name, functools.partial(self._measure, name)) for name in self._payers]

    def _measure(self, name: str) -> None:
        feed = StoreFeed(self._instance.store_address, self._instance.server_pubkey)
        try:
            frames = [self._frame(feed, self._payers[name]) for _ in range(self.size.updates // ENTRIES)]
            before = self.verify.seconds()
            cpu, begun, ours = CpuClock(self._instance.pids()), time.perf_counter(), time.process_time()
            updates = feed.commit(frames, AHEAD)
            seconds, used, ours = time.perf_counter() - begun, cpu.seconds()["store"], time.process_time() - ours
        finally:
            feed.close()
        verify = (before + self.verify.seconds()) / 2
        each = {"cpu": used / updates, "client_cpu": ours / updates}
        self.record.add(name, {"rate": updates / seconds, "verify": verify, **each})

    def _frame(self, feed: StoreFeed, payers: list[Payer]) -> bytes:
        """Return one frame of updates of the channels that are first in line, and send those to its end."""
        turn = payers[:ENTRIES]
        del payers[:ENTRIES]
        payers += turn
        return feed.frame([_update(feed, payer) for payer in turn])


def _update(feed: StoreFeed, payer: Payer) -> bytes:
    before, payer.left = payer.left, payer.left - 1
    state = ChannelState(Phase.OPEN, Payment(payer.left, bytes(SIGNATURE_SIZE), SIGHASH_CHANGE))
    return feed.entry(payer.terms.outpoint, Phase.OPEN, before, state.serialize())
