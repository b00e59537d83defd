"""Aim: no two attempts of a shop are called the same, whatever process makes them. Method: they are drawn, also in children."""

import os

from paychan.core.sales import ATTEMPT_MAX
from paychan.sell import attempts
from paychan.sell.attempts import draw


def test_each_is_another_and_fits():
    drawn = [draw() for _ in range(1000)]
    assert len(set(drawn)) == 1000 and all(1 <= one <= ATTEMPT_MAX for one in drawn)


def test_after_the_last_comes_the_first(monkeypatch):
    monkeypatch.setattr(attempts, "_numbers", iter(range(ATTEMPT_MAX - 1, ATTEMPT_MAX + 1)))
    assert [draw(), draw()] == [ATTEMPT_MAX, 1]


def drawn_in_a_child():
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, draw().to_bytes(4, "little"))
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        return int.from_bytes(told.read(), "little")


def test_a_fork_goes_on_elsewhere():
    """One of eight million is the parent's next: the second child is no such chance any more."""
    children = [drawn_in_a_child() for _ in range(3)]
    assert len({*children, draw()}) >= 3
