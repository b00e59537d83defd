"""Aim: a sold answer is kept as long as docs/PAYMENT_SCHEME.md says, and memory stays bounded. Method: a clock by hand."""

import threading
from concurrent.futures import Future

from paychan.sell import kept
from paychan.sell.facts import Answer
from paychan.sell.kept import KEPT_SECONDS, Kept, Outcome

ONE, TWO = b"1" * 36, b"2" * 36


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def keep(store, key, outpoint=ONE, size=10):
    assert store.claim(key, outpoint)
    store.settle(key, Answer(200, (), b"x" * size))


def test_one_claims_and_the_others_wait_for_the_same_answer():
    store = Kept(Clock())
    assert store.claim("a", ONE) and not store.claim("a", ONE)
    waiting = [store.find("a") for _ in range(3)]
    assert all(isinstance(found, Future) and not found.done() for found in waiting)
    store.settle("a", Answer(200, (), b"x"))
    assert {found.result(0) for found in waiting} == {Answer(200, (), b"x")} and store.find("a") == Answer(200, (), b"x")
    store.settle("a", Outcome.GIVEN_BACK)  # what is settled stays
    assert store.find("a") == Answer(200, (), b"x") and not store.claim("a", ONE)


def test_what_was_given_back_or_not_kept_can_be_claimed_anew():
    store = Kept(Clock())
    for outcome in Outcome:
        assert store.claim("a", ONE)
        waiting = store.find("a")
        store.settle("a", outcome)
        assert waiting.result(0) is outcome and store.find("a") is None
    store.settle("nobody's", Outcome.GIVEN_BACK)


def test_an_answer_stays_ten_minutes_after_the_next_purchase_on_its_channel():
    clock = Clock()
    store = Kept(clock)
    keep(store, "old")
    clock.now = 10 * KEPT_SECONDS
    keep(store, "elsewhere", TWO)
    assert store.find("old")  # nothing newer on its channel
    keep(store, "new")
    clock.now += KEPT_SECONDS
    keep(store, "newer", TWO)
    assert store.find("old")
    clock.now += 1
    keep(store, "newest", TWO)
    assert store.find("old") is None and store.find("new") and store.find("newest")


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(kept, "KEPT_SUM_MAX", 10 * (kept.OVERHEAD + 1000))
    store = Kept(Clock())
    assert store.claim("under way", TWO)
    for number in range(100):
        keep(store, str(number), number.to_bytes(36, "big"), 1000)
    assert store.find("89") is None and all(store.find(str(number)) for number in range(90, 100))
    assert isinstance(store.find("under way"), Future)
    monkeypatch.setattr(kept, "KEPT_COUNT_MAX", 5)
    keep(store, "one more")
    assert store.find("95") is None and store.find("one more")


def test_threads_claim_once():
    store, won = Kept(Clock()), []
    barrier = threading.Barrier(8)

    def claim():
        for key in map(str, range(500)):
            barrier.wait()
            if store.claim(key, ONE):
                won.append(key)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won, key=int) == list(map(str, range(500)))
