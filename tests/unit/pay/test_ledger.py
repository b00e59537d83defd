"""Aim: budgets hold whoever shares the ledger, and its rows are what was signed. Method: threads and processes with ledgers of
their own on one file, a clock that the test turns."""

import os
import threading

import pytest

from paychan.client import StateError
from paychan.pay.budget import DAY, HOUR, NO_LIMITS, Budget, Entry
from paychan.pay.errors import BudgetExceeded
from paychan.pay.ledger import Ledger

SHOP, OTHER = "https://shop.example", "https://other.example"


def entry(amount, cumulative, origin=SHOP, opening=0, channel="c-1"):
    return Entry(origin, channel, "GET /", amount, opening, cumulative)


class Clock:
    def __init__(self):
        self.now = 1_900_000_000

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock):
    ledger = Ledger(tmp_path / "spending.db", clock)
    yield ledger
    ledger.close()


@pytest.mark.parametrize(("limit", "window"), [("request", None), ("host", DAY), ("hour", HOUR), ("day", DAY)])
def test_each_limit_holds_for_its_window_and_no_longer(ledger, clock, limit, window):
    budget = Budget(**{**dict.fromkeys(("request", "host", "hour", "day"), None), limit: 10})
    ledger.enter(entry(6, 6), budget)
    if window is None:
        ledger.enter(entry(10, 16), budget)
        with pytest.raises(BudgetExceeded):
            ledger.enter(entry(11, 27), budget)
        return
    with pytest.raises(BudgetExceeded, match="spent are 6"):
        ledger.enter(entry(5, 11), budget)
    ledger.enter(entry(4, 10), budget)
    clock.now += window - 1
    with pytest.raises(BudgetExceeded):
        ledger.enter(entry(1, 11), budget)
    clock.now += 1
    ledger.enter(entry(10, 20), budget)


def test_a_hosts_limit_is_for_each_host(ledger):
    budget = Budget(host=10)
    ledger.enter(entry(10, 10), budget)
    ledger.enter(entry(10, 10, OTHER, channel="c-2"), budget)
    with pytest.raises(BudgetExceeded):
        ledger.enter(entry(1, 11, OTHER, channel="c-2"), budget)


def test_opening_is_counted_apart(ledger):
    budget = Budget(day=10, opening=100)
    ledger.enter(entry(10, 110, opening=100), budget)
    with pytest.raises(BudgetExceeded, match="opening"):
        ledger.enter(entry(0, 1, opening=1, channel="c-2"), budget)


def test_parts_of_one_request_are_added_up(ledger):
    with pytest.raises(BudgetExceeded):
        ledger.enter(entry(5, 5), Budget(request=10), already=6)


def test_what_is_refused_is_not_written(ledger):
    with pytest.raises(BudgetExceeded):
        ledger.enter(entry(11, 11), Budget(request=10))
    assert ledger.signed_away("c-1") == 0


def test_who_is_asked_does_not_hold_the_file(tmp_path, ledger):
    """While one thinks, another pays; what is left is looked at again."""
    other = Ledger(tmp_path / "spending.db", lambda: 1_900_000_000)
    asked = []

    def ask(question):
        asked.append(question.limit)
        other.enter(entry(5, 5, OTHER, channel="c-2"), NO_LIMITS)
        return question.limit == "request"

    with pytest.raises(BudgetExceeded):
        ledger.enter(entry(12, 12), Budget(request=10, hour=12), ask)
    assert asked == ["request", "hour"]


def test_threads_with_ledgers_of_their_own_stay_within_a_day(tmp_path, clock):
    budget, refused = Budget(request=5, day=100), []

    def spend(number):
        ledger = Ledger(tmp_path / "spending.db", clock)
        for step in range(10):
            try:
                ledger.enter(entry(5, 5 * (step + 1), channel=f"c-{number}"), budget)
            except BudgetExceeded:
                refused.append(number)
        ledger.close()

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = Ledger(tmp_path / "spending.db", clock)
    assert ledger.spent(SHOP).day == 100
    assert len(refused) == 60 - 20


def test_a_forked_process_has_a_connection_of_its_own(ledger):
    ledger.enter(entry(5, 5), NO_LIMITS)
    pid = os.fork()
    if not pid:
        try:
            ledger.enter(entry(5, 10), NO_LIMITS)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    ledger.enter(entry(5, 15), NO_LIMITS)
    assert ledger.signed_away("c-1") == 15


def test_what_was_never_signed_is_taken_back(ledger):
    for cumulative in (5, 10, 15):
        ledger.enter(entry(5, cumulative), NO_LIMITS)
    ledger.take_back("c-1", 10)
    assert ledger.signed_away("c-1") == 10
    ledger.take_back("c-1", 10)
    assert ledger.signed_away("c-1") == 10


def test_rows_add_up_by_day_and_tell_what_was_not_answered(ledger, clock):
    ledger.enter(entry(5, 105, opening=100), NO_LIMITS)
    ledger.note("c-1", 105, 0)
    ledger.enter(entry(7, 112), NO_LIMITS)
    ledger.note("c-1", 112, 3, "unanswered")
    clock.now += DAY
    ledger.enter(entry(9, 121), NO_LIMITS)
    newest, oldest = ledger.rows()
    assert (newest.payments, newest.amount, newest.opening, newest.unanswered) == (1, 9, 0, 0)
    assert (oldest.payments, oldest.amount, oldest.opening, oldest.unanswered) == (2, 12, 100, 7)
    assert ledger.credit("c-1") == 3
    assert ledger.rows(clock.now) == [newest]


def test_what_is_no_ledger_is_said(tmp_path):
    (tmp_path / "spending.db").write_bytes(b"no database, but long enough to be looked at" * 9)
    with pytest.raises(StateError):
        Ledger(tmp_path / "spending.db")
