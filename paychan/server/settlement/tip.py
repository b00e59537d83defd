"""This worker's view of the chain's tip: the interlock for opens and near expiry, and the clock's second source."""

import asyncio
import logging
from collections.abc import Callable

from ..._fast.tally import Tally
from ...chain.base import ChainBackend, Tip
from ...clock import Clock
from ...core.errors import Unavailable
from ...metrics import families
from ..background import Background

SILENT_POLLS_MAX = 3
"""Polls without an answer after which the source counts as silent."""

ANSWER_SECONDS_MAX = 10.0

log = logging.getLogger("paychan.chain")


class TipFollower(Background):
    """Polls the chain source. `generation` rises with every new best block, whether it extends the last one or replaces it."""

    def __init__(
        self,
        chain: ChainBackend,
        clock: Clock,
        poll_seconds: float,
        tip_age_max: int,
        on_move: Callable[[int], None],
        tally: Tally | None = None,
    ) -> None:
        self._tally = tally or Tally()
        self._chain, self._clock, self._on_move = chain, clock, on_move
        self._poll_seconds, self._tip_age_max = poll_seconds, tip_age_max
        self._seen_at = float("-inf")
        self._told = ""
        self.tip: Tip | None = None
        self.generation = 1
        self.trouble = "the chain source has not answered yet"
        """What is wrong with the source, empty if nothing is."""
        self.doubt = self.trouble
        """Why the chain cannot be trusted, empty if it can: the source is silent, or its tip is older than it may be."""

    async def stop(self) -> None:
        await super().stop()
        await self._chain.stop()

    @property
    def clock_doubt(self) -> str:
        """Why the time cannot be trusted, empty if it can."""
        return self._clock.doubt()

    @property
    def is_doubtful(self) -> bool:
        """Whether the chain cannot be trusted now; `doubt` says why."""
        return bool(self.doubt)

    async def _run(self) -> None:
        is_started = False
        while True:
            try:
                if not is_started:
                    await asyncio.wait_for(self._chain.start(), ANSWER_SECONDS_MAX)
                    is_started = True
                self._take(await asyncio.wait_for(self._chain.tip(), ANSWER_SECONDS_MAX))
                self._note("")
                self._tally.add(families.POLLS.cell("answered"))
            except Unavailable as error:
                is_started = False
                self._note(error.detail)
            except Exception as error:
                self._note(f"{type(error).__name__} while asking for the tip")
            self.doubt = self._judge()
            self._tell_of_the_clock()
            await asyncio.sleep(self._poll_seconds)

    def _judge(self) -> str:
        if self.tip is None:
            return self.trouble
        if asyncio.get_running_loop().time() - self._seen_at > SILENT_POLLS_MAX * self._poll_seconds:
            return self.trouble or "the chain source is silent"
        age = self._clock.now() - self.tip.time
        return f"the best block is {age} seconds old" if age > self._tip_age_max else ""

    def _tell_of_the_clock(self) -> None:
        doubt = self.clock_doubt
        if bool(doubt) != bool(self._told):
            log.warning("%s", doubt or "the time is in doubt no more")
        self._told = doubt

    def _take(self, tip: Tip) -> None:
        if self.tip is None or tip.block_hash != self.tip.block_hash:
            self.generation += 1
            self._on_move(self.generation)
        self.tip = tip
        self._seen_at = asyncio.get_running_loop().time()
        self._clock.observe(tip.time, tip.median_time_past)

    def _note(self, trouble: str) -> None:
        if trouble:
            self._tally.add(families.POLLS.cell("failed"))
        if trouble != self.trouble:
            log.log(logging.WARNING if trouble else logging.INFO, "chain source: %s", trouble or "answers")
        self.trouble = trouble
