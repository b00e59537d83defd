"""Removes the events that need not be kept, a few at a time: each look is a step of the sequencer."""

import asyncio
import logging
import time
from collections.abc import Callable

from paychan.events.endpoint import PREFIX, heard
from paychan.events.event import Event
from paychan.settings.models import EventsConfig

from .engines.interface import Engine
from .events import DROPPED_MAX, may_go
from .sequencer import Step

LOOK_SECONDS = 60.0

log = logging.getLogger("paychan.store")


class Retention:
    """One store's. run_alone: the sequencer's; is_ours(): whether this store is the one that does it, of all that are active."""

    def __init__(
        self, engine: Engine, run_alone: Callable[[Step], None], is_ours: Callable[[], bool], config: EventsConfig
    ) -> None:
        self._engine, self._run_alone, self._is_ours, self._config = engine, run_alone, is_ours, config

    async def run(self) -> None:
        """Look on, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            while self._is_ours() and await self._look():
                await asyncio.sleep(0)

    async def _look(self) -> bool:
        """Remove some; return whether there may be more."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def step() -> None:
            more = await self.drop_some(int(time.time()))
            if not done.done():
                done.set_result(more)

        self._run_alone(step)
        return await done

    async def drop_some(self, now: int) -> bool:
        """Remove up to DROPPED_MAX events; return whether there may be more. From a step. now: unix seconds."""
        engine, going = self._engine, 0
        notes = await engine.answer(lambda reads: reads.notes(PREFIX))
        kept = await engine.answer(lambda reads: reads.stream(0, DROPPED_MAX))
        try:
            up_to = heard(notes)
            for number, body in kept.events:
                if not may_go(Event.parse(body), number, kept.newest, up_to, now, self._config):
                    break
                going = number
        except (ValueError, TypeError) as error:
            log.error("events are kept, for what is written of them does not read: %s", error)
            return False
        if going:
            await engine.drop(going)
        return bool(going) and going == kept.events[-1][0]
