"""Aim: whoever is killed, buyers, sellers and server tell the same story of every purchase.

Method: the campaign of sales (sales.py; books.py says exactly what is promised), short: each of its processes is killed at a random
moment, and on several machines what one alone does not have. PAYCHAN_SALES_KILLS: kills in all; PAYCHAN_SEED makes its choices
again. And its judge, against stories that are false.
"""

import json
import os
import secrets
import subprocess
import sys

import pytest

from tests import postgres
from tests.campaign.books import Kills, judge, sums_of
from tests.campaign.breaks import ROOT, SLIPS
from tests.campaign.sales import OF_A_FLEET, VICTIMS, campaign
from tests.certificates import need_openssl

KILLS = int(os.environ.get("PAYCHAN_SALES_KILLS", str(len(VICTIMS))))
SEED = int(os.environ.get("PAYCHAN_SEED", secrets.randbelow(1 << 32)))
FUNDING, OPENING = 1_000_000, 83_240
ONE = "channel/0"


def test_whoever_is_killed_goods_and_charges_and_purses_agree(tmp_path):
    report = campaign(tmp_path, KILLS, SEED, say=print)
    print(report)
    assert report.problems == [], f"seed {SEED}"
    assert report.kills.total() == KILLS and set(report.kills) >= set(VICTIMS[:KILLS])
    sums = report.verdict
    assert sums.channels >= 6 and sums.answered > 2 * sums.channels and sums.charged >= sums.answered > sums.channels
    assert sums.served >= sums.answered


@postgres.needed
def test_whatever_is_lost_of_several_machines_they_agree():
    need_openssl()
    victims = [victim for victim in OF_A_FLEET if victim not in VICTIMS]
    plan = ["--machines", "2", "--kills", str(len(victims)), "--victim", ",".join(victims), "--seed", str(SEED)]
    command = [sys.executable, "-m", "tests.campaign.sales", *plan]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert all(f"{victim} 1" in done.stdout for victim in victims) and "problems 0" in done.stdout


@pytest.mark.parametrize("name", SLIPS)
def test_each_fault_that_a_campaign_is_to_find_still_fits_the_code(name):
    for file, right, wrong in SLIPS[name].patches:
        assert (ROOT / file).read_text().count(right) == 1 and right != wrong


class Story:
    """One buyer's purchases, as all three wrote them down; what a test leaves out or adds makes it false."""

    def __init__(self):
        self.notes, self.records, self.killed = [], {"shop": []}, []
        self.book = {"funding_value": FUNDING, "received": 0, "spent": OPENING, "reserved": 0}
        self.purse = {"signed": 0, "acknowledged": 0, "entered": 0, "hold": ""}
        self.at = 0

    def ask(self, ident, cost=100, method="GET"):
        self.notes.append({"what": "ask", "id": ident, "way": "shop", "method": method, "target": "/goods", "cost": cost})

    def present(self, ident, cumulative):
        self.at += 1
        self.notes.append({"what": "try", "id": ident, "channel": ONE, "change": FUNDING - cumulative, "at": self.at})

    def answer(self, ident, cumulative, status=200, good=None, name="", accepted=None, spent=0):
        said = json.dumps(f"the good of {good or ident}") if status == 200 else ""
        known = cumulative if accepted is None and status == 200 else accepted or 0
        more = {"status": status, "name": name, "accepted": known, "spent": spent or known, "good": said, "at": self.at}
        self.notes.append({"what": "answer", "id": ident, "channel": ONE, "change": FUNDING - cumulative, **more})

    def serve(self, ident, method="GET"):
        self.records["shop"].append({"what": "served", "id": ident, "channel": ONE, "method": method})

    def pay(self, cumulative, spent):
        self.book |= {"received": cumulative, "spent": OPENING + spent}
        self.purse |= {"signed": cumulative, "acknowledged": cumulative, "entered": cumulative}

    def problems(self):
        told = {"what": "books", "id": "", "channel": ONE, **self.purse}
        return judge([[*self.notes, told]], self.records, {ONE: self.book}, OPENING, Kills(self.killed)).problems


def bought(ident="a", method="GET"):
    """A purchase as it should be."""
    story = Story()
    story.ask(ident, method=method)
    story.present(ident, OPENING + 100)
    story.serve(ident, method)
    story.answer(ident, OPENING + 100)
    story.pay(OPENING + 100, 100)
    return story


def test_what_was_paid_charged_and_served_once_is_believed():
    assert bought().problems() == []


FALSE = {
    "SERVED FREE: channel/0: 83240": lambda story: story.book.update(spent=OPENING),
    "CHARGED TWICE: channel/0": lambda story: story.book.update(spent=OPENING + 200),
    "PAID IS NOT RECEIVED: more": lambda story: story.book.update(received=OPENING + 101),
    "PAID IS NOT RECEIVED: entered": lambda story: story.purse.update(entered=OPENING + 200),
    "PAID IS NOT RECEIVED: hold": lambda story: story.purse.update(hold="state_behind_server"),
    "NEVER SERVED": lambda story: story.records["shop"].clear(),
    "the server does not know": lambda story: story.purse.update(channel="channel/1"),
    "the purse says": lambda story: story.notes.append({"what": "problem", "id": "a", "error": "StateBehindServer"}),
}


@pytest.mark.parametrize("word", FALSE)
def test_a_false_sum_is_seen(word):
    story = bought()
    FALSE[word](story)
    assert any(word.partition(":")[0] in problem for problem in story.problems()), story.problems()


def test_a_good_that_was_paid_for_another_request_is_seen():
    story = Story()
    story.ask("a")
    story.present("a", OPENING + 100)
    story.serve("a")
    story.answer("a", OPENING + 100, good="b")
    story.pay(OPENING + 100, 100)
    assert ["WRONG GOOD" in problem for problem in story.problems()] == [True]


def test_what_is_served_after_a_refusal_is_seen():
    story = bought()
    story.ask("b")
    story.present("b", OPENING + 100)
    story.answer("b", OPENING + 100, 402, name="session/insufficient-balance", accepted=OPENING + 100)
    assert story.problems() == []
    story.serve("b")
    assert ["SERVED FREE" in problem for problem in story.problems()] == [True]


@pytest.mark.parametrize(("who", "was_killed"), [("gateway", False), ("shop", True), ("store", True), ("buyer", False)])
def test_what_failed_is_given_back_unless_who_owes_it_or_takes_it_was_killed(who, was_killed):
    story = bought()
    story.ask("b")
    story.present("b", OPENING + 200)
    story.answer("b", OPENING + 200, 500)
    story.pay(OPENING + 200, 100)
    assert story.problems() == []
    story.pay(OPENING + 200, 200)
    story.killed = [(story.at - 0.1, who)]
    assert story.problems() == [] if was_killed else "CHARGED TWICE" in story.problems()[0]


def test_who_was_killed_after_it_has_answered_owes_what_its_handler_failed_to_serve():
    story = bought()
    story.ask("b")
    story.present("b", OPENING + 200)
    story.answer("b", OPENING + 200, 500)
    story.pay(OPENING + 200, 200)
    story.killed = [(story.at + 1.0, "shop")]
    assert ["CHARGED TWICE" in problem for problem in story.problems()] == [True]


def test_what_was_never_answered_is_charged_once_at_most():
    story = bought()
    story.ask("b")
    story.present("b", OPENING + 200)
    story.present("b", OPENING + 200)
    for charged in (0, 100):
        story.pay(OPENING + 200, 100 + charged)
        assert story.problems() == []
    story.pay(OPENING + 200, 300)
    assert ["CHARGED TWICE" in problem for problem in story.problems()] == [True]
    story.pay(OPENING + 200, 100)
    story.serve("b")
    assert ["SERVED FREE" in problem for problem in story.problems()] == [True]


def test_what_was_called_served_before_and_was_not_may_have_been_given_back_since():
    story = bought()
    story.ask("b")
    story.present("b", OPENING + 200)
    story.answer("b", OPENING + 200, 409)
    for charged in (0, 100):
        story.pay(OPENING + 200, 100 + charged)
        assert story.problems() == []
    story.serve("b")
    assert story.problems() == []
    story.pay(OPENING + 200, 100)
    assert ["SERVED FREE" in problem for problem in story.problems()] == [True]


def test_a_request_that_was_charged_on_two_payments_is_seen():
    story = bought()
    story.present("a", OPENING + 200)
    story.serve("a")
    story.answer("a", OPENING + 200)
    story.pay(OPENING + 200, 200)
    assert ["CHARGED TWICE" in problem for problem in story.problems()] == [True]


@pytest.mark.parametrize(("spent", "word"), [(200, ""), (300, ""), (400, "CHARGED TWICE"), (100, "SERVED FREE")])
def test_what_a_purchase_adds_is_explained_by_what_was_presented_before_it(spent, word):
    story = bought()
    for ident in ("b", "c"):
        story.ask(ident)
        story.present(ident, OPENING + 400)
    story.serve("c")
    story.answer("c", OPENING + 400, spent=OPENING + spent)
    story.pay(OPENING + 400, 200)  # the books themselves are right
    assert [word in problem for problem in story.problems()] == [True] * bool(word)


@pytest.mark.parametrize(("settled", "word"), [(4, ""), (9, ""), (0, ""), (7, "SERVED FREE")])
def test_what_a_metered_request_held_may_be_given_back_after_its_buyer_has_gone(settled, word):
    story = bought()
    story.ask("m", 4)
    story.notes[-1]["target"] = "/metered"
    story.present("m", OPENING + 109)
    for number, (ident, spent) in enumerate((("b", 209), ("c", 300 + settled)), 1):
        story.ask(ident)
        story.present(ident, OPENING + 109 + 100 * number)
        story.serve(ident)
        story.answer(ident, OPENING + 109 + 100 * number, spent=OPENING + spent)
    story.pay(OPENING + 309, 304)
    assert [word in problem for problem in story.problems()] == [True] * bool(word)


@pytest.mark.parametrize(
    ("used", "more", "hangs_up", "word"),
    [(0, 9, True, ""), (0, 9, False, "CHARGED TWICE"), (0, 7, True, "CHARGED TWICE"), (4, 9, True, "CHARGED TWICE")],
)
def test_what_a_metered_request_holds_again_used_nothing_and_was_hung_up_on(used, more, hangs_up, word):
    story = bought()
    story.ask("m", used)
    story.notes[-1]["target"] = "/metered"
    for _ in range(1 + hangs_up):
        story.present("m", OPENING + 109)
    story.serve("m")
    story.answer("m", OPENING + 109, spent=OPENING + 100 + used)
    story.ask("b")
    story.present("b", OPENING + 218)
    story.serve("b")
    story.answer("b", OPENING + 218, spent=OPENING + 200 + used + more)
    story.pay(OPENING + 218, 200 + used + more)
    story.book["reserved"] = more
    assert [word in problem for problem in story.problems()] == [True] * bool(word)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_must_not_run_twice_is_seen_to(method):
    story = bought(method=method)
    story.serve("a", method)
    assert [problem.partition(":")[0] for problem in story.problems()] == ["SERVED TWICE"] * (method == "POST")


def test_a_buyer_that_signs_further_while_one_payment_is_unknown_is_seen():
    story = bought()
    story.ask("b", 10_000)
    story.present("b", OPENING + 100 + 10_000)
    story.present("b", OPENING + 100 + 10_001)
    story.pay(OPENING + 10_101, 100)
    assert ["SIGNED AHEAD" in problem for problem in story.problems()] == [True]


def test_sums_take_each_once():
    assert sums_of([(100,), (100,), (10_000,)]) == {0, 100, 200, 10_000, 10_100, 10_200}
    assert sums_of([(3, 9)]) == {0, 3, 9}
