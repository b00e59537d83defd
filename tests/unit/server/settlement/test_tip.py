"""Aim: the follower says when the chain cannot be trusted, and when its tip has moved. Method: the real follower on a simulated
loop, with a chain source that does what each test says.
"""

import asyncio
from collections.abc import Callable

from paychan.chain.base import Tip
from paychan.clock import Clock
from paychan.core.errors import Unavailable
from paychan.server.settlement.tip import ANSWER_SECONDS_MAX, SILENT_POLLS_MAX, TipFollower
from tests.simulation.loop import SimulatedLoop

POLL = 5
AGE_MAX = 3 * 3600
START = 1_700_000_000


class Source:
    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.height, self.branch, self.stamp, self.past = 100, 0, START, START - 3000
        self.error: Exception | None = None
        self.hangs = False
        self.starts = self.stops = 0

    async def start(self) -> None:
        self.starts += 1
        await self._answer()

    async def stop(self) -> None:
        self.stops += 1

    async def tip(self) -> Tip:
        await self._answer()
        return Tip(self.height, bytes((self.height, self.branch)), self.stamp, self.past)

    async def _answer(self) -> None:
        if self.hangs:
            await self._loop.create_future()
        if self.error:
            raise self.error


class Rig:
    """A follower, and `wait` to let simulated time pass."""

    def __init__(self) -> None:
        self.loop = SimulatedLoop()
        self.source, self.moves = Source(self.loop), []
        self.wall_offset = 0
        self.clock = Clock(lambda: int(START + self.loop.time() + self.wall_offset), 0, AGE_MAX, self.loop.time)
        self.follower = TipFollower(self.source, self.clock, POLL, AGE_MAX, self.moves.append)

    async def wait(self, polls: float = 1) -> None:
        await asyncio.sleep(polls * POLL)


def simulated(test: Callable) -> Callable[[], None]:
    def run() -> None:
        rig = Rig()

        async def whole() -> None:
            rig.follower.start()
            await asyncio.sleep(0.1)
            await test(rig)
            await rig.follower.stop()

        rig.loop.run_until_complete(whole())
        rig.loop.close()
        assert rig.source.stops == 1

    run.__name__ = test.__name__
    return run


def test_before_the_first_answer_nothing_is_trusted():
    rig = Rig()
    assert rig.follower.is_doubtful
    rig.loop.close()


@simulated
async def test_a_good_answer_is_trusted(rig):
    assert not rig.follower.is_doubtful
    assert rig.follower.trouble == ""
    assert rig.follower.tip.height == 100


@simulated
async def test_the_generation_rises_with_each_new_best_block_only(rig):
    generation = rig.follower.generation
    assert rig.moves == [generation]
    await rig.wait(5)
    assert rig.follower.generation == generation
    rig.source.height += 1
    await rig.wait()
    assert rig.moves == [generation, generation + 1]


@simulated
async def test_a_reorganisation_of_the_same_or_lower_height_counts(rig):
    rig.source.branch += 1
    await rig.wait()
    rig.source.height -= 1
    await rig.wait()
    assert len(rig.moves) == 3
    assert rig.moves == sorted(set(rig.moves))


@simulated
async def test_a_short_silence_is_forgiven_and_a_long_one_is_not(rig):
    rig.source.error = Unavailable("chain_unavailable", "no answer")
    await rig.wait(SILENT_POLLS_MAX - 1)
    assert not rig.follower.is_doubtful
    assert rig.follower.trouble == "no answer"
    await rig.wait(3)
    assert rig.follower.doubt == "no answer"
    rig.source.error = None
    await rig.wait()
    assert not rig.follower.is_doubtful


@simulated
async def test_a_source_that_hangs_is_silent(rig):
    rig.source.hangs = True
    await asyncio.sleep(2 * (ANSWER_SECONDS_MAX + POLL) + 1)
    assert "TimeoutError" in rig.follower.doubt
    rig.source.hangs = False
    await asyncio.sleep(ANSWER_SECONDS_MAX + POLL)
    assert not rig.follower.is_doubtful


@simulated
async def test_any_other_error_is_survived(rig):
    rig.source.error = ValueError("nonsense")
    await rig.wait(6)
    assert "ValueError" in rig.follower.doubt
    rig.source.error = None
    await rig.wait()
    assert not rig.follower.is_doubtful


@simulated
async def test_a_stale_tip_is_not_trusted(rig):
    await asyncio.sleep(AGE_MAX + POLL)
    assert "seconds old" in rig.follower.doubt
    rig.source.height, rig.source.stamp = 101, int(START + rig.loop.time())
    await rig.wait()
    assert not rig.follower.is_doubtful


@simulated
async def test_start_is_repeated_after_each_silence(rig):
    assert rig.source.starts == 1
    await rig.wait(3)
    assert rig.source.starts == 1
    rig.source.error = Unavailable("chain_unavailable", "away")
    await rig.wait(3)
    assert rig.source.starts >= 3
    rig.source.error = None
    await rig.wait()
    starts = rig.source.starts
    await rig.wait(5)
    assert rig.source.starts == starts


def test_a_start_that_fails_is_retried_until_the_source_comes_up():
    rig = Rig()
    rig.source.error = Unavailable("chain_unavailable", "wrong network")

    async def whole() -> None:
        rig.follower.start()
        await rig.wait(4.5)
        assert rig.follower.doubt == "wrong network"
        assert rig.source.starts == 5
        assert rig.follower.tip is None
        rig.source.error = None
        await rig.wait()
        assert not rig.follower.is_doubtful
        await rig.follower.stop()

    rig.loop.run_until_complete(whole())
    rig.loop.close()


@simulated
async def test_the_median_time_past_lifts_the_clock(rig):
    rig.wall_offset = -20 * 3600
    rig.source.past = START + 9000
    await rig.wait()
    assert rig.clock.now() == START + 9000


@simulated
async def test_the_first_answer_is_the_second_generation(rig):
    assert SILENT_POLLS_MAX == 3
    assert rig.moves == [2]


@simulated
async def test_silence_begins_after_three_polls_and_not_with_the_third(rig):
    seen_at = rig.follower._seen_at
    rig.source.error = Unavailable("chain_unavailable", "no answer")
    while rig.loop.time() < seen_at + SILENT_POLLS_MAX * POLL:
        await asyncio.sleep(0.1)
    assert rig.follower._judge() == ("no answer" if rig.loop.time() > seen_at + SILENT_POLLS_MAX * POLL else "")
    rig.follower._seen_at = rig.loop.time() - SILENT_POLLS_MAX * POLL
    assert rig.follower._judge() == ""
    rig.follower._seen_at -= 0.01
    assert rig.follower._judge() == "no answer"


@simulated
async def test_a_tip_is_stale_from_the_second_on_that_follows_the_configured_age(rig):
    rig.source.stamp = rig.clock.now() - AGE_MAX
    rig.follower._take(await rig.source.tip())
    assert rig.follower._judge() == ""
    rig.source.stamp -= 1
    rig.follower._take(await rig.source.tip())
    assert rig.follower._judge() == f"the best block is {AGE_MAX + 1} seconds old"


def test_trouble_is_logged_when_it_begins_and_when_it_ends(caplog):
    @simulated
    async def run(rig):
        await rig.wait(3)
        rig.source.error = Unavailable("chain_unavailable", "no answer")
        await rig.wait(3)
        rig.source.error = None
        await rig.wait(3)

    run()
    told = [record.getMessage() for record in caplog.records if record.name == "paychan.chain"]
    assert told == ["chain source: answers", "chain source: no answer", "chain source: answers"]


def test_one_that_was_never_started_can_be_stopped():
    rig = Rig()
    rig.loop.run_until_complete(rig.follower.stop())
    assert rig.source.stops == 1
    rig.loop.close()


def test_when_it_has_stopped_nothing_is_asked_any_more():
    rig = Rig()

    async def whole() -> None:
        rig.follower.start()
        await rig.wait(2)
        await rig.follower.stop()
        assert rig.follower._task.done()

    rig.loop.run_until_complete(whole())
    rig.loop.close()
