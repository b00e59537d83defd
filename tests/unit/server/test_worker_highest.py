"""Aim: a worker tells other machines of the time that it is sure of, and goes by theirs. Method: the worker's own beat, with the
store's client in place of a store."""

import asyncio
from types import SimpleNamespace

import pytest

from paychan.clock import Clock
from paychan.rpc.connection import ConnectionGone
from paychan.server.worker import Worker


class Store:
    """Stands for the store's client: the other machines are sure of `others`."""

    link = SimpleNamespace(is_up=True)

    def __init__(self, others: int) -> None:
        self.others, self.told = others, []

    async def highest(self, seconds: int) -> int:
        if self.others < 0:
            raise ConnectionGone
        self.told.append(seconds)
        return max(self.others, seconds)


def share(store: Store, wall: int, block: int) -> tuple[bool, Clock]:
    clock = Clock(lambda: wall, beyond_max=600, elapsed=lambda: 0.0)
    clock.observe(block, block - 100)
    return asyncio.run(Worker._share_highest(SimpleNamespace(_life=object(), _store=store, _clock=clock))), clock


def test_a_clock_that_is_behind_goes_by_the_others():
    store = Store(5000)
    is_shared, clock = share(store, wall=1000, block=4900)
    assert is_shared and clock.now() == 5000 and store.told == [4800]


def test_the_others_are_told_of_a_time_that_is_sure_and_of_no_other():
    for wall, told in ((5000, 5000), (9000, 0)):
        store = Store(0)
        assert share(store, wall, block=4900)[0] and store.told == [told]


@pytest.mark.parametrize("is_there", [True, False])
def test_without_a_store_it_is_tried_again(is_there):
    store = Store(-1)
    store.link = SimpleNamespace(is_up=is_there)
    assert not share(store, 5000, 4900)[0]
