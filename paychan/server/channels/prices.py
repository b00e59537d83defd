"""What a channel's opening must pay. By default that is what its settlement costs at today's estimate: a channel pays for itself,
even if nothing more is paid on it, and is asked for no more than that.

The estimate is looked at once in a while, never for a request. A price that was told holds for as long as a payer needs to have its
funding confirmed; and each worker looks by itself, so a little less is taken, too. The loss is bounded: the settlement of a channel
that pays too little waits for its share of the fee to grow, or for lower fees; it can always be signed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from ...chain.base import ChainBackend
from ...core.errors import Unavailable
from ...core.fees import LADDER, least_price, settlement_price
from ...core.settlement import SETTLEMENT_SIZE_MAX
from ...settings.models import ServerConfig
from ..background import Background

LOOK_SECONDS = 60.0
"""Between two looks at the estimate, which changes with blocks."""

RETRY_SECONDS = 1.0
"""Until the source has answered for the first time."""

ANSWER_SECONDS_MAX = 10.0

HOLD_SECONDS = 6 * 3600.0
"""How long a price is taken after it was asked: six confirmations take an hour on average, and hardly ever so long."""

TOLERANCE_PERCENT = 20
"""By so much less than the lowest price that this worker knows of lately is taken: another may have seen a lower estimate."""

log = logging.getLogger("paychan.prices")


class Prices(Background):
    """The open price of one worker. `clock`: monotonic seconds."""

    def __init__(self, config: ServerConfig, chain: ChainBackend, clock: Callable[[], float]) -> None:
        self._config, self._chain, self._clock = config, chain, clock
        self._now = config.open_price
        self._held: deque[tuple[float, int]] = deque()  # when a price was last asked, and it: both rise
        self._tell: Callable[[int], None] = lambda _: None

    def start(self) -> None:
        if self._config.price_is_settlement:
            super().start()

    def follow(self, tell: Callable[[int], None]) -> None:
        """Have `tell` hear the least opening payment (satoshi), now and after each look."""
        self._tell = tell
        tell(self.least)

    def ask(self) -> int:
        """Return the open price, to be told to a payer, in satoshi."""
        self._hold()
        return self._now

    @property
    def least(self) -> int:
        """The least opening payment that is taken now, satoshi."""
        config = self._config
        if not config.price_is_settlement:
            return self._now
        self._forget()
        lowest = min(self._now, self._held[0][1] if self._held else self._now)
        tolerated = (lowest - config.base_price) * (100 - TOLERANCE_PERCENT) // 100
        return config.base_price + max(tolerated, least_price(config.fee_bounds, SETTLEMENT_SIZE_MAX))

    async def look(self) -> None:
        """Take the source's estimate, or the configured rate where it has none. Raises Unavailable: the price stays."""
        config = self._config
        try:
            estimate = await asyncio.wait_for(self._chain.fee_per_byte(LADDER[0].blocks), ANSWER_SECONDS_MAX)
        except TimeoutError as error:
            raise Unavailable("chain_unavailable") from error
        rate = config.fee_per_byte if estimate is None else estimate
        self._now = config.base_price + settlement_price(rate, config.fee_bounds, SETTLEMENT_SIZE_MAX)
        self._hold()
        self._tell(self.least)

    def _hold(self) -> None:
        while self._held and self._held[-1][1] >= self._now:
            self._held.pop()
        self._held.append((self._clock(), self._now))
        self._forget()

    def _forget(self) -> None:
        while self._held and self._clock() - self._held[0][0] > HOLD_SECONDS:
            self._held.popleft()

    async def _run(self) -> None:
        pause = RETRY_SECONDS
        while True:
            try:
                await self.look()
                pause = LOOK_SECONDS
            except Unavailable:
                pass  # the tip's follower tells; no channel opens meanwhile
            except Exception:
                log.exception("a look at the estimate failed; the next one follows")
            await asyncio.sleep(pause)
