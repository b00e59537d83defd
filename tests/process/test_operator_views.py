"""Aim: what the operator sees is what the store has, also after the operator's process was killed; and a query that makes no
sense is refused. Method: a real system, channels that are paid, closed and settled, and answers held against what payers know."""

import os
import signal
import time
from contextlib import suppress

import pytest

from paychan.core.outpoint import format_outpoint
from tests.operator_page import Page, with_page
from tests.system import processes, wait_until

HOUR = 3600
OPEN, PAID = 100_000, 1000


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """The page of a system with five channels, of which the last two are settled, and their payers."""
    with with_page(tmp_path_factory.mktemp("operator")) as page:
        payers = [page.system.payer(f"view {number}", expires_in=(9 + number) * HOUR) for number in range(5)]
        for number, payer in enumerate(payers):
            assert payer.open(OPEN).status == 201
            assert payer.pay(PAID * number).status == 200
        for payer in payers[3:]:
            assert payer.close().status == 202
        wait_until(lambda: has_all(page), 30, "seeing every channel")
        yield page, payers


def has_all(page: Page) -> bool:
    """Whether the books have been read since everything was opened and settled."""
    with suppress(AssertionError):  # 503 while the store is not connected
        money, settled = page.view("money"), page.view("channels?phase=settled")
        return (money["days"][-1]["settled"], money["by_phase"]["open"]["channels"], settled["total"]) == (2, 3, 2)
    return False


def outpoint(payer) -> str:
    return format_outpoint(payer.sender.terms.outpoint)


def test_lists_are_of_every_channel_once_page_by_page(seen):
    page, payers = seen
    found, cursor = [], ""
    while cursor is not None:
        answer = page.view(f"channels?limit=2&order=expiry&after={cursor}")
        assert answer["total"] == 5 and len(answer["channels"]) <= 2
        found += answer["channels"]
        cursor = answer["next"]
    assert [row["outpoint"] for row in found] == [outpoint(payer) for payer in payers]
    assert [row["phase"] for row in found] == ["open"] * 3 + ["settled"] * 2
    assert [row["received_satoshi"] for row in found] == [OPEN + PAID * number for number in range(5)]
    rows = page.view("channels?phase=unsettled&order=value")["channels"]
    assert [row["outpoint"] for row in rows] == [outpoint(payer) for payer in payers[2::-1]]
    (row,) = page.view(f"channels?search={outpoint(payers[1])[3:40]}")["channels"]
    assert row["outpoint"] == outpoint(payers[1])


def test_one_channel_is_as_the_store_has_it_now(seen):
    page, payers = seen
    assert payers[0].pay(77).status == 200
    one = page.view(f"channels/{outpoint(payers[0])}")
    assert (one["phase"], one["received_satoshi"], one["settlement"]) == ("open", OPEN + 77, None)
    assert one["terms"]["client_pubkey"] == payers[0].sender.terms.client_pubkey.hex()
    assert [event["type"] for event in one["history"]] == ["channel.opened"]
    done = page.view(f"channels/{outpoint(payers[4])}")
    assert [event["type"] for event in done["history"]] == ["channel.opened", "channel.settled"]
    assert done["settlement"]["transaction"] == page.system.broadcast()[done["settlement"]["txid"]].hex()
    assert done["settlement"]["fee_satoshi"] == done["history"][1]["data"]["fee_satoshi"] > 0
    assert page.get(f"/operator/v1/channels/{'ab' * 32}/0").code == "no_such_channel"
    assert page.get("/operator/v1/channels/xy/0").code == "invalid_txid"


def test_money_is_what_payers_have_paid_and_nothing_settled_is_unsettled(seen):
    page, payers = seen
    paid = [payer.sender.terms.funding_value - payer.newest.change_value for payer in payers]

    def is_told() -> bool:
        money = page.view("money")
        return money["unsettled_satoshi"] == sum(paid[:3]) == money["by_phase"]["open"]["received_satoshi"]

    wait_until(is_told, 20, "the sums to be those of the channels")
    money = page.view("money")
    assert money["by_phase"]["open"]["channels"] == 3
    assert sum(row["satoshi"] for row in money["at_risk"]) == sum(paid[:3])
    today = money["days"][-1]
    assert (today["settled"], today["received_satoshi"], today["lost_satoshi"]) == (2, sum(paid[3:]), 0)
    assert today["settled_satoshi"] + today["fees_satoshi"] == today["received_satoshi"]
    assert sum(day["opened"] for day in money["days"]) == 5
    assert page.view("settlements")["total"] == 0
    assert page.view("trouble")["trouble"] == []
    cluster = page.view("cluster")
    (store,) = cluster["stores"]
    (worker,) = store["workers"]
    assert (cluster["shards"]["owned"], store["shards"], worker["shards"]) == (256, 256, [[0, 255]])
    assert store["open_value_satoshi"] == sum(paid[:3])


def test_days_are_the_same_after_the_operators_process_was_killed(seen):
    page, _ = seen
    before = page.view("money")["days"]
    main = next(pid for pid, parent, command in processes() if "paychan.operator" in command and parent == page.system.process.pid)
    os.kill(main, signal.SIGKILL)
    time.sleep(0.5)
    wait_until(page.is_there, 30, "the page to come back")
    wait_until(lambda: has_all(page), 30, "reading the books again")
    assert page.view("money")["days"] == before
    assert page.view("channels?phase=settled")["total"] == 2


@pytest.mark.parametrize(
    "path",
    [
        "channels?limit=0", "channels?limit=501", "channels?limit=1&limit=2", "channels?phase=shut", "channels?order=name",
        "channels?search=%3Cscript%3E", "channels?search=%25", "channels?after=x", "channels?after=1-2", "channels?who=me",
        "settlements?after=x", "money?x=1", "trouble?x", "cluster?x=1",
    ],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_refused(seen, path):
    page, _ = seen
    answer = page.get(f"/operator/v1/{path}")
    assert (answer.status, answer.code) == (400, "invalid_query")


def test_the_pages_files_need_no_token_and_views_do(seen):
    page, _ = seen
    for path in ("/", "/page/main.js", "/page/style.css", "/page/icon.svg"):
        answer = page.get(path, "")
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    for path in ("/page/none.js", "/page/..%2fserving.py", "/page/", "/page"):
        assert page.get(path, "").status == 404
    for view in ("channels", "money", "settlements", "trouble", "cluster", "token"):
        assert page.get(f"/operator/v1/{view}", "").status == 401
    assert page.get("/operator/v1/token", "settle").json == {"name": "of-settle", "scope": "settle"}
