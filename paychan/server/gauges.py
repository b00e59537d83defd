"""What a worker is like now, once a second, into its slot of the counts' file. Payments are counted where they are answered."""

import asyncio
import logging
import time
from collections.abc import Callable

from .._fast.tally import Tally
from ..metrics import families
from ..metrics.families import Family
from .background import Background

GAUGES_SECONDS = 1.0

log = logging.getLogger("paychan.gauges")


class Gauges(Background):
    """look() returns the gauges' values; a dict is of a label's values. A negative one is a bug, and shown as zero."""

    def __init__(self, tally: Tally, look: Callable[[], dict[Family, int | dict[str, int]]]) -> None:
        self._tally, self._look = tally, look

    async def stop(self) -> None:
        """Stop. What was shown last must not be taken for what is."""
        await super().stop()
        self._tally.set(families.BEAT_AT, 0)

    async def _run(self) -> None:
        while True:
            try:
                self.renew()
            except Exception as error:
                log.error("internal error in the gauges: %s", type(error).__name__)
            await asyncio.sleep(GAUGES_SECONDS)

    def renew(self) -> None:
        """Write all of them."""
        for family, found in self._look().items():
            if isinstance(found, int):
                self._tally.set(family.at, max(0, found))
            else:
                for value in family.values:
                    self._tally.set(family.cell(value), max(0, found.get(value, 0)))
        self._tally.set(families.BEAT_AT, time.time_ns())
