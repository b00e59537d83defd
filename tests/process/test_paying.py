"""Aim: an unmodified HTTP client with our payer buys from the real till over the real server: three lines, two trips at first, one
later. Method: the system in debug mode, a FastAPI shop behind it, and each client in turn."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading

import aiohttp
import httpx
import httpx2
import pytest
import requests

from paychan.client import Unreachable
from paychan.core.outpoint import format_outpoint
from paychan.pay.aiohttp import Payer as AiohttpPayer
from paychan.pay.budget import Budget
from paychan.pay.errors import BudgetExceeded
from paychan.pay.httpx import Payer as HttpxPayer
from paychan.pay.httpx2 import Payer as Httpx2Payer
from paychan.pay.plain import Payer as PlainPayer
from paychan.pay.purse import Purse
from paychan.pay.pympp import transport
from paychan.pay.requests import Payer as RequestsPayer
from tests.paying_shop import PRICE, selling, start, stop
from tests.system import CLIENT_SECONDS, ROOT

OPEN_PRICE = 83_240


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with selling(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


def paid(directory):
    """What the purse says that it signed away, by its records and by its ledger, which agree."""
    purse = Purse(directory)
    by_record = sum(standing.paid for standing in purse.standings())
    assert by_record == sum(purse.ledger.signed_away(name) for name in purse.names())
    return by_record


def books_of(shop, purse):
    """How the only channel of a purse stands, as the sellers' door tells it."""
    (standing,) = purse.standings()
    name = format_outpoint(standing.record.terms.outpoint)
    (row,) = (row for row in shop.channels() if row["channel"] == name)
    return row


def test_httpx_in_three_lines(shop, tmp_path):
    before = shop.count()
    client = httpx.Client(auth=HttpxPayer(tmp_path / "purse"), timeout=CLIENT_SECONDS)
    answers = [client.get(f"{shop.url}/joke/{number}") for number in range(5)]
    assert [answer.json() for answer in answers] == [{"joke": number} for number in range(5)]
    assert [len(answer.history) for answer in answers] == [1, 0, 0, 0, 0], "one trip from the second on"
    assert paid(tmp_path / "purse") == OPEN_PRICE + 5 * PRICE
    assert shop.count() == before + 5
    assert client.post(f"{shop.url}/echo", content="hello").json() == {"echo": "hello"}
    assert client.get(shop.url).json() == "open"


def test_httpx2(shop, tmp_path):
    with httpx2.Client(auth=Httpx2Payer(tmp_path / "purse"), timeout=CLIENT_SECONDS) as client:
        assert [client.get(f"{shop.url}/joke/{number}").json()["joke"] for number in range(3)] == [0, 1, 2]
    assert paid(tmp_path / "purse") == OPEN_PRICE + 3 * PRICE


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_asynchronous_clients_share_a_channel(shop, tmp_path, library):
    async def buy():
        payer = (HttpxPayer if library is httpx else Httpx2Payer)(tmp_path / "purse")
        async with library.AsyncClient(auth=payer) as client:
            answers = await asyncio.gather(*(client.get(f"{shop.url}/joke/{number}") for number in range(8)))
        return sorted(answer.json()["joke"] for answer in answers)

    assert asyncio.run(buy()) == list(range(8))
    assert paid(tmp_path / "purse") == OPEN_PRICE + 8 * PRICE
    assert len(Purse(tmp_path / "purse").names()) == 1


def test_requests(shop, tmp_path):
    session = requests.Session()
    session.mount(shop.url, RequestsPayer(tmp_path / "purse"))
    assert [session.get(f"{shop.url}/joke/{number}").json()["joke"] for number in range(3)] == [0, 1, 2]
    assert session.post(f"{shop.url}/echo", data="hello").json() == {"echo": "hello"}
    assert paid(tmp_path / "purse") == OPEN_PRICE + 4 * PRICE


def test_aiohttp(shop, tmp_path):
    async def buy():
        async with aiohttp.ClientSession(middlewares=[AiohttpPayer(tmp_path / "purse")]) as session:
            found = [await (await session.get(f"{shop.url}/joke/{number}")).json() for number in range(3)]
            found.append(await (await session.post(f"{shop.url}/echo", data=b"hello")).json())
            return found

    assert asyncio.run(buy()) == [{"joke": 0}, {"joke": 1}, {"joke": 2}, {"echo": "hello"}]
    assert paid(tmp_path / "purse") == OPEN_PRICE + 4 * PRICE


def test_threads_and_clients_of_all_kinds_share_a_purse(shop, tmp_path):
    found, before = [], shop.count()

    def buy(number):
        client = httpx.Client(auth=HttpxPayer(tmp_path / "purse"), timeout=60)
        session = requests.Session()
        session.mount(shop.url, RequestsPayer(tmp_path / "purse"))
        found.append(client.get(f"{shop.url}/joke/{number}").json()["joke"])
        found.append(session.get(f"{shop.url}/joke/{number + 100}").json()["joke"])

    threads = [threading.Thread(target=buy, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [*range(6), *range(100, 106)]
    assert paid(tmp_path / "purse") == OPEN_PRICE + 12 * PRICE
    assert shop.count() == before + 12
    assert len(Purse(tmp_path / "purse").names()) == 1


def test_a_request_of_many_units_is_paid_as_the_till_tells(shop, tmp_path):
    client = httpx.Client(auth=HttpxPayer(tmp_path / "purse"), timeout=CLIENT_SECONDS)
    assert client.get(f"{shop.url}/dear").json() == "dear"
    assert len(client.get(f"{shop.url}/dear").history) == 0
    assert paid(tmp_path / "purse") == OPEN_PRICE + 2 * 30


def test_what_fails_costs_nothing(shop, tmp_path):
    client = httpx.Client(auth=HttpxPayer(tmp_path / "purse"), timeout=CLIENT_SECONDS)
    assert client.get(f"{shop.url}/fails").status_code == 500
    assert client.get(f"{shop.url}/fails").json() == "mended"
    assert client.get(f"{shop.url}/joke/no").status_code == 422
    assert client.get(f"{shop.url}/joke/1").status_code == 200
    assert paid(tmp_path / "purse") == OPEN_PRICE + 2 * PRICE


def test_a_budget_stops_before_anything_is_signed(shop, tmp_path):
    client = httpx.Client(auth=HttpxPayer(tmp_path / "purse", Budget(day=3 * PRICE)), timeout=CLIENT_SECONDS)
    for number in range(3):
        client.get(f"{shop.url}/joke/{number}")
    with pytest.raises(BudgetExceeded, match="in a day"):
        client.get(f"{shop.url}/joke/3")
    assert paid(tmp_path / "purse") == OPEN_PRICE + 3 * PRICE


def test_an_old_purse_finds_its_way_back_and_a_channel_closes(shop, tmp_path):
    payer = PlainPayer(tmp_path / "purse")
    payer.request("GET", f"{shop.url}/joke/1").read()
    old = tmp_path / "old"
    old.mkdir()
    for file in (tmp_path / "purse").iterdir():
        (old / file.name).write_bytes(file.read_bytes())
        (old / file.name).chmod(0o600)
    for number in range(3):
        payer.request("GET", f"{shop.url}/joke/{number}").read()
    restored = PlainPayer(old)
    assert restored.request("GET", f"{shop.url}/joke/9").status == 200
    assert paid(old) == OPEN_PRICE + 5 * PRICE
    (name,) = restored.purse.names()
    assert len(restored.close_channel_at(f"{shop.url}/joke/1", name)) == 64
    assert [standing.record.phase.value for standing in restored.purse.standings()] == ["closed"]
    assert restored.request("GET", f"{shop.url}/joke/9").status == 200
    assert len(restored.purse.names()) == 2


# --- streams ---


def test_a_stream_is_paid_while_it_runs_and_what_was_not_used_is_used_later(shop, tmp_path):
    payer = HttpxPayer(tmp_path / "purse")
    with httpx.Client(auth=payer, timeout=30) as client:
        found = [event.data for event in payer.events(client, f"{shop.url}/stream/10")]
        assert found == [f"word {number}" for number in range(10)]
        assert paid(tmp_path / "purse") == OPEN_PRICE + 3 * 8
        (name,) = payer.purse.names()
        assert payer.purse.ledger.credit(name) == 4
        client.get(f"{shop.url}/joke/1")
    assert paid(tmp_path / "purse") == OPEN_PRICE + 3 * 8 + PRICE - 4


def test_who_pays_from_credit_buys_as_often_as_it_asks(shop, tmp_path):
    """The payment that is shown is the same each time, and so is the request; yet each time it was meant."""
    with httpx.Client(auth=HttpxPayer(tmp_path / "purse"), timeout=CLIENT_SECONDS) as client:
        assert client.get(f"{shop.url}/measured").json() == "one"
        before, served = paid(tmp_path / "purse"), shop.count()
        assert [client.post(f"{shop.url}/echo", content="now").json() for _ in range(4)] == [{"echo": "now"}] * 4
        assert (shop.count() - served, paid(tmp_path / "purse")) == (4, before)
        assert books_of(shop, Purse(tmp_path / "purse"))["credit"] == 39 - 4 * PRICE


def test_a_stream_for_an_asynchronous_client(shop, tmp_path):
    async def read():
        payer = Httpx2Payer(tmp_path / "purse")
        async with httpx2.AsyncClient(timeout=30) as client:
            return [event.data async for event in payer.aevents(client, f"{shop.url}/stream/9")]

    assert asyncio.run(read()) == [f"word {number}" for number in range(9)]


def test_a_shop_that_is_killed_in_a_stream_costs_a_part_at_most_and_the_next_stream_is_right(shop, tmp_path):
    """Of the part that was under way nothing is given back, for nobody knows what of it arrived; no other difference is left."""
    payer, url, found = HttpxPayer(tmp_path / "purse"), f"{shop.url}/stream/10", []
    with httpx.Client(auth=payer, timeout=30) as client:
        with pytest.raises(httpx.TransportError):
            for event in payer.events(client, f"{url}?stuck_at=6"):
                found.append(event.data)
                if len(found) == 6:
                    stop(shop.process, signal.SIGKILL)
        shop.process = start(shop.system, shop.port, shop.served)
        lost = paid(tmp_path / "purse") - OPEN_PRICE
        assert (found, lost) == ([f"word {number}" for number in range(6)], 2 * 8), "two parts of four words"
        assert [event.data for event in payer.events(client, url)] == [f"word {number}" for number in range(10)]
        (name,) = payer.purse.names()
        signed = paid(tmp_path / "purse")
        told = books_of(shop, payer.purse)
        assert (told["received"], told["credit"]) == (signed, signed - OPEN_PRICE - lost - 10 * 2)
        assert payer.purse.ledger.credit(name) == told["credit"] < 8


def test_a_stream_stops_at_the_budget_for_one_request(shop, tmp_path):
    payer, found = PlainPayer(tmp_path / "purse", Budget(request=17)), []
    with payer.request("GET", f"{shop.url}/stream/100") as response, pytest.raises(BudgetExceeded):
        for event in payer.events(response):
            found.append(event)
    assert len(found) == 8
    assert paid(tmp_path / "purse") == OPEN_PRICE + 2 * 8


# --- MPP's SDK ---


def test_pympp_as_it_is(shop, tmp_path):
    async def buy():
        async with httpx.AsyncClient(transport=transport(tmp_path / "purse"), timeout=30) as client:
            jokes = [(await client.get(f"{shop.url}/joke/{number}")).json()["joke"] for number in range(4)]
            dear = (await client.get(f"{shop.url}/dear")).json()
            return jokes, dear, (await client.get(f"{shop.url}/joke/9")).json()

    before = shop.count()
    assert asyncio.run(buy()) == ([0, 1, 2, 3], "dear", {"joke": 9})
    assert shop.count() == before + 6
    assert paid(tmp_path / "purse") == OPEN_PRICE + 5 * PRICE + 30


def test_pympp_goes_on_with_what_another_client_left_pending(shop, tmp_path):
    """A payment whose answer was lost buys the next request, and is not paid for twice."""
    client = httpx.Client(auth=HttpxPayer(tmp_path / "purse", deadline=0.0))
    client.get(f"{shop.url}/joke/1")
    payer = PlainPayer(client.auth.purse, deadline=0.0)
    payer._send = _lost(payer._send)
    with pytest.raises(Unreachable):
        payer.request("GET", f"{shop.url}/joke/2")
    assert paid(tmp_path / "purse") == OPEN_PRICE + 2 * PRICE

    async def buy():
        async with httpx.AsyncClient(transport=transport(tmp_path / "purse"), timeout=30) as client:
            return (await client.get(f"{shop.url}/joke/3")).json()

    assert asyncio.run(buy()) == {"joke": 3}
    assert paid(tmp_path / "purse") == OPEN_PRICE + 3 * PRICE, "the lost one was bought, so this is another"


def _lost(send):
    """Lose the answers to requests that pay."""

    def lose(asked, step, *rest):
        response = send(asked, step, *rest)
        if step.headers:
            response.close()
            raise ConnectionResetError("lost")
        return response

    return lose


# --- the command line ---


def run(tmp_path, *words, data=None):
    env = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    return subprocess.run(
        [sys.executable, "-m", "paychan", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, input=data
    )


def test_from_nothing_to_a_paid_answer_in_one_command(shop, tmp_path):
    done = run(tmp_path, "get", f"{shop.url}/joke/7")
    assert (done.returncode, done.stdout) == (0, '{"joke":7}')
    assert done.stderr == f"paid {PRICE} satoshi, and {OPEN_PRICE} for a new channel; `paychan spending` tells more\n"
    again = run(tmp_path, "get", f"{shop.url}/joke/8", "--json")
    assert json.loads(again.stdout) == {"status": 200, "paid": PRICE, "body": '{"joke":8}'}
    posted = run(tmp_path, "post", f"{shop.url}/echo", "-d", "@-", "-q", data="from a pipe")
    assert (posted.returncode, posted.stdout, posted.stderr) == (0, '{"echo":"from a pipe"}', "")
    spent = json.loads(run(tmp_path, "spending", "--json").stdout)
    (row,) = spent["spending"]
    assert (row["origin"], row["payments"], row["amount"], row["opening"]) == (shop.url, 3, 3 * PRICE, OPEN_PRICE)
    assert {limit["limit"]: limit["left"] for limit in spent["budget"]}["day"] == 50_000 - 3 * PRICE
    shown = run(tmp_path, "spending").stdout
    assert shop.url in shown and "OPENING" in shown


def test_a_stream_from_the_command_line(shop, tmp_path):
    done = run(tmp_path, "get", f"{shop.url}/stream/6")
    assert (done.returncode, done.stdout) == (0, "".join(f"data: word {number}\n\n" for number in range(6)))
    assert f"paid 16 satoshi, and {OPEN_PRICE} for a new channel" in done.stderr


def test_a_price_above_what_was_said_ends_with_12_and_pays_nothing(shop, tmp_path):
    done = run(tmp_path, "get", f"{shop.url}/joke/7", "--max-price", "4", "--yes")
    assert (done.returncode, done.stdout) == (12, "")
    assert "asks for 5 satoshi; the budget is 4 for one request" in done.stderr
    assert paid(tmp_path / "paychan" / "purse") == 0


def test_a_refusal_of_the_server_ends_with_13_and_a_wrong_place_with_4(shop, tmp_path):
    assert run(tmp_path, "get", f"{shop.url}/nowhere").returncode == 13
    assert run(tmp_path, "get", "http://127.0.0.1:1/").returncode == 4
    assert run(tmp_path, "get", "ftp://x").returncode == 2


def test_the_purse_is_listed_and_closed_from_the_command_line(shop, tmp_path):
    run(tmp_path, "get", f"{shop.url}/joke/7", "-o", str(tmp_path / "joke"))
    assert json.loads((tmp_path / "joke").read_text()) == {"joke": 7}
    (channel,) = json.loads(run(tmp_path, "list", "--json", "--state-dir", str(tmp_path / "paychan/purse")).stdout)["channels"]
    assert (channel["phase"], channel["paid_value"]) == ("open", OPEN_PRICE + PRICE)
    closed = run(tmp_path, "purse", "close", channel["name"], f"{shop.url}/joke/7", "--json")
    assert closed.returncode == 0, closed.stderr
    assert len(json.loads(closed.stdout)["settlement_txid"]) == 64
