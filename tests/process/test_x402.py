"""Aim: x402's own middleware sells for this server to x402's own client; what is forged, replayed or stale buys nothing; whatever
is killed, nothing is charged twice, and the payer goes on. Method: a real system, FastAPI behind x402's middleware in a process of
its own, x402's httpx client with our scheme on a real purse.
"""

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from x402 import x402Client, x402ClientSync
from x402.http.clients import x402_requests, x402HttpxClient
from x402.http.utils import decode_payment_required_header, decode_payment_response_header, encode_payment_signature_header
from x402.schemas import PaymentPayload

from paychan.client import PayerPhase
from paychan.core.network import TEST, caip2
from paychan.core.outpoint import format_outpoint
from paychan.core.sender import sign_payment
from paychan.mpp.text import encode_bytes, format_channel_id
from paychan.pay.budget import Budget
from paychan.pay.purse import Purse
from paychan.pay.receipts import receipts_file
from paychan.pay.x402 import ChannelScheme, pay_with
from paychan.receipts.claims import payment_hash
from paychan.receipts.keys import make_key
from paychan.receipts.verify import examine, read_receipt
from paychan.sell.x402 import ChannelScheme as ChannelSeller
from paychan.sell.x402 import facilitator
from tests.ports import free_port
from tests.selling import Seller, channel_of, make_token, sell_changes
from tests.system import CLIENT_SECONDS, ROOT, running, wait_until
from tests.x402_parts import voucher

PRICE = 5


class Shop:
    """x402_shop.py in a process of its own."""

    def __init__(self, directory: Path, door: int, token: str) -> None:
        self.token = token
        self.served_file, self.door, self._port = directory / "served", door, free_port()
        self.served_file.touch()
        self._env = {"DOOR": f"http://127.0.0.1:{door}", "TOKEN": token, "SERVED": str(self.served_file), "NETWORK": caip2(TEST)}
        self.url = f"http://127.0.0.1:{self._port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, is_flask: bool = False, **more: str) -> None:
        uvicorn = ["uvicorn", "--port", str(self._port), "--log-level", "warning", "tests.x402_shop:app"]
        command = [sys.executable, "-m", *(["tests.x402_flask_shop"] if is_flask else uvicorn)]
        env = {**os.environ, **self._env, **more, "PORT": str(self._port), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
        wait_until(self._is_up, 30, "the shop's start")

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/free", timeout=CLIENT_SECONDS).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def served(self) -> list[str]:
        return self.served_file.read_text().split()


@contextmanager
def selling(directory: Path):
    """Run a system and a shop; yield (system, seller's door, shop)."""
    door = free_port()
    with running(directory, workers=2, changes=sell_changes(f"port = {door}")) as system:
        token = make_token(system, "shop")
        seller = Seller(system, token, door)
        wait_until(lambda: _answers(seller), 20, "opening the sellers' door")
        shop = Shop(directory, door, token)
        shop.start()
        try:
            yield system, seller, shop
        finally:
            shop.kill()


def _answers(seller: Seller) -> bool:
    try:
        return seller.request("GET", "/x402/supported").status == 200
    except ConnectionError:
        return False


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with selling(tmp_path_factory.mktemp("x402shop")) as made:
        yield made


@pytest.fixture
def shop(place):
    return place[2]


@pytest.fixture
def seller(place):
    """On a connection of its own: the door ends one that has been silent for long."""
    return Seller(place[0], place[2].token, place[2].door)


@pytest.fixture
def purse(tmp_path):
    made = Purse(tmp_path / "purse", Budget(opening=None))
    yield made
    made.close()


def get(scheme: ChannelScheme, *urls: str) -> list[httpx.Response]:
    """Get by x402's client, one after the other."""

    async def work() -> list[httpx.Response]:
        async with x402HttpxClient(pay_with(x402Client(), scheme), timeout=30) as client:
            return [await client.get(url) for url in urls]

    return asyncio.run(work())


def standing_of(seller: Seller, purse: Purse) -> dict:
    """Look at the purse's one channel; a door that has ended a silent connection is asked anew."""
    (standing,) = purse.standings()
    channel = format_outpoint(standing.record.terms.outpoint)
    with suppress(ConnectionError):
        return seller.look(channel)
    return seller.look(channel)


# --- buying ---


def test_requests_are_bought_one_by_one_on_one_channel(shop, seller, purse):
    answers = get(ChannelScheme(purse), *(f"{shop.url}/news/bought{number}" for number in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.json() for answer in answers] == [{"news": f"bought{number}"} for number in range(4)]
    after = standing_of(seller, purse)
    open_price = after["spent"] - 4 * PRICE
    assert open_price > 0 and after["credit"] == 0
    receipt = decode_payment_response_header(answers[-1].headers["payment-response"])
    assert receipt.amount == str(PRICE) and receipt.extra["channelState"]["spent"] == str(after["spent"])
    again = get(ChannelScheme(purse), f"{shop.url}/news/later")  # another process, the same purse
    assert again[0].status_code == 200 and standing_of(seller, purse)["spent"] == after["spent"] + PRICE
    assert [shop.served.count(name) for name in ("bought0", "bought3", "later")] == [1, 1, 1]


def test_what_the_handler_failed_to_serve_is_credit_for_the_next(shop, seller, purse):
    scheme = ChannelScheme(purse)
    good, bad = get(scheme, f"{shop.url}/news/before", f"{shop.url}/fails")
    assert (good.status_code, bad.status_code) == (200, 500)
    failed = standing_of(seller, purse)
    assert failed["credit"] == PRICE
    assert get(scheme, f"{shop.url}/news/after")[0].status_code == 200
    after = standing_of(seller, purse)
    assert (after["credit"], after["received"], after["spent"]) == (0, failed["received"], failed["spent"] + PRICE)


def test_a_budget_keeps_the_purse_shut(shop, tmp_path):
    purse = Purse(tmp_path / "purse", Budget(request=PRICE - 1, opening=None))
    with pytest.raises(Exception, match="budget"):
        get(ChannelScheme(purse), f"{shop.url}/news/dear")
    assert "dear" not in shop.served


def test_closing_settles_the_channel_and_serves_nothing(shop, seller, purse):
    scheme = ChannelScheme(purse)
    get(scheme, f"{shop.url}/news/last")
    (standing,) = purse.standings()
    with scheme.closing(standing.name):
        (answer,) = get(scheme, f"{shop.url}/news/unpaid")
    told = decode_payment_response_header(answer.headers["payment-response"])
    assert (answer.status_code, told.error_reason) == (402, "channel_closed") and "unpaid" not in shop.served
    (standing,) = purse.standings()
    assert standing.record.phase is PayerPhase.CLOSED and standing.record.settlement_txid == told.transaction
    assert get(scheme, f"{shop.url}/news/anew")[0].status_code == 200  # on another channel
    assert len(list(purse.standings())) == 2


def test_flask_sells_too(place, seller, purse, tmp_path):
    system = place[0]
    shop = Shop(tmp_path, int(place[2].door), make_token(system, "flask"))
    shop.start(is_flask=True)
    try:
        answers = get(ChannelScheme(purse), f"{shop.url}/news/one", f"{shop.url}/fails", f"{shop.url}/news/two")
        assert [answer.status_code for answer in answers] == [200, 500, 200] and shop.served == ["one", "two"]
        after = standing_of(seller, purse)
        lost = [row.record.signed for row in purse.standings()][0]
        channel = format_channel_id([row.record.terms.outpoint for row in purse.standings()][0])
        payload = {"type": "voucher", "channelId": channel, "payment": encode_bytes(lost.serialize())}
        assert refusal(shown(shop, payload | {"purchase": f"from {PRICE}"})) == "already_served" and after["credit"] == 0
        assert refusal(shown(shop, payload)) == "insufficient_credit"  # another purchase, for which nothing is left
    finally:
        shop.kill()


def test_flask_says_that_it_cannot_sell_yet(place, tmp_path):
    shop = Shop(tmp_path, free_port(), place[2].token)
    shop.start(is_flask=True)
    try:
        answer = httpx.get(f"{shop.url}/news/early", timeout=CLIENT_SECONDS)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    finally:
        shop.kill()


def test_x402s_blocking_client_buys_too(shop, seller, purse):
    session = x402_requests(pay_with(x402ClientSync(), ChannelScheme(purse)))
    assert [session.get(f"{shop.url}/news/blocking{number}").status_code for number in range(3)] == [200] * 3
    assert standing_of(seller, purse)["credit"] == 0


def test_receipts_are_signed_and_make_a_chain(place, purse, tmp_path):
    key_file = tmp_path / "receipts.key"
    key = make_key(key_file)
    shop = Shop(tmp_path, int(place[2].door), make_token(place[0], "signing"))
    shop.start(KEY=str(key_file))
    try:
        answers = get(ChannelScheme(purse), *(f"{shop.url}/news/{number}" for number in range(3)))
        assert get(ChannelScheme(purse), f"{shop.url}/fails")[0].status_code == 500
        shop.kill()
        shop.start(KEY=str(key_file))
        answers += get(ChannelScheme(purse), f"{shop.url}/news/3")
    finally:
        shop.kill()
    told = [decode_payment_response_header(answer.headers["payment-response"]) for answer in answers]
    verdict = examine([one.extra["receipt"] for one in told], {key.thumbprint(): key})
    assert verdict.is_good and (verdict.receipts, verdict.amount) == (4, 4 * PRICE)
    assert verdict.chains[0].is_whole and not verdict.chains[0].remarks
    (standing,) = purse.standings()
    assert receipts_file(purse.directory, standing.name).read_text().split() == [one.extra["receipt"] for one in told]
    _, claims = read_receipt(told[-1].extra["receipt"], {key.thumbprint(): key})
    assert claims.payment == payment_hash(standing.record.signed.serialize())
    assert (claims.method, claims.resource) == ("GET", f"{shop.url}/news/3")


# --- what buys nothing ---


def shown(shop: Shop, payload: dict, path: str = "/news/stolen") -> httpx.Response:
    """Show a payload that was made by hand."""
    asked = httpx.get(f"{shop.url}{path}", timeout=CLIENT_SECONDS)
    accepted = decode_payment_required_header(asked.headers["payment-required"]).accepts[0]
    header = encode_payment_signature_header(PaymentPayload(payload=payload, accepted=accepted))
    return httpx.get(f"{shop.url}{path}", headers={"PAYMENT-SIGNATURE": header}, timeout=30)


@pytest.fixture
def payer(place, seller, request):
    made = place[0].payer(f"x402 shop {request.node.name}")
    assert made.open(200_000).status == 201
    left = seller.look(channel_of(made))["credit"]
    assert seller.ask({"do": "charge", "channel": channel_of(made), "key": "rest", "amount": left}).status == 200
    return made


def refusal(answer: httpx.Response) -> str:
    assert answer.status_code == 402
    return decode_payment_response_header(answer.headers["payment-response"]).error_reason


def test_forged_replayed_and_stale_payments_buy_nothing(shop, seller, payer, place):
    start = seller.look(channel_of(payer))
    stranger = place[0].payer("x402 shop stranger")
    forged = sign_payment(payer.sender.terms, payer.sender.change_value - PRICE, stranger.sender.key)
    assert refusal(shown(shop, voucher(payer, forged))) == "bad_signature"
    stale = sign_payment(payer.sender.terms, payer.sender.terms.funding_value, payer.sender.key)
    assert refusal(shown(shop, voucher(payer, stale))) == "out_of_order"
    assert seller.look(channel_of(payer)) == start and "stolen" not in shop.served
    payment = payer.sender.pay(PRICE)
    assert shown(shop, voucher(payer, payment), "/news/honest").status_code == 200
    for path in ("/news/stolen", "/news/honest", "/fails"):
        assert refusal(shown(shop, voucher(payer, payment), path)) == "already_served"
    assert seller.look(channel_of(payer))["spent"] == start["spent"] + PRICE
    assert "stolen" not in shop.served and shop.served.count("honest") == 1


def test_of_two_who_show_one_payment_at_once_one_is_served(shop, seller, payer):
    start, payload = seller.look(channel_of(payer)), voucher(payer, payer.sender.pay(PRICE))
    asked = httpx.get(f"{shop.url}/slow", timeout=CLIENT_SECONDS)
    accepted = decode_payment_required_header(asked.headers["payment-required"]).accepts[0]
    header = encode_payment_signature_header(PaymentPayload(payload=payload, accepted=accepted))
    before = shop.served.count("slow")

    async def work() -> list[int]:
        async with httpx.AsyncClient(timeout=30) as client:
            tries = [client.get(f"{shop.url}/slow", headers={"PAYMENT-SIGNATURE": header}) for _ in range(6)]
            return [answer.status_code for answer in await asyncio.gather(*tries)]

    assert sorted(asyncio.run(work())) == [200] + [402] * 5
    assert shop.served.count("slow") == before + 1
    assert seller.look(channel_of(payer))["spent"] == start["spent"] + PRICE


def test_marks_for_the_channel_server_are_not_taken_from_payers(shop, payer, seller):
    payment = payer.sender.pay(PRICE)
    assert shown(shop, voucher(payer, payment, attempts=[1], release=1)).status_code == 200
    asked = httpx.get(f"{shop.url}/news/marked", timeout=CLIENT_SECONDS)
    accepted = decode_payment_required_header(asked.headers["payment-required"]).accepts[0]
    accepted.extra.update(attempts=[1], release=1)
    header = encode_payment_signature_header(PaymentPayload(payload=voucher(payer, payment), accepted=accepted))
    answer = httpx.get(f"{shop.url}/news/marked", headers={"PAYMENT-SIGNATURE": header}, timeout=30)
    assert answer.status_code == 402 and "marked" not in shop.served


# --- trouble ---


def contexts(place, payload: dict, *phases: str) -> list[SimpleNamespace]:
    """What x402 shows a scheme object while one request is settled and cancelled."""
    asked = httpx.get(f"{place[2].url}/news/any", timeout=CLIENT_SECONDS)
    accepted = decode_payment_required_header(asked.headers["payment-required"]).accepts[0]
    shared = {"payment_payload": PaymentPayload(payload=payload, accepted=accepted), "requirements": accepted}
    return [SimpleNamespace(**shared, phase=phase, transport_context=None) for phase in phases]


@pytest.mark.parametrize("is_late", [False, True], ids=["was lost", "took effect"])
def test_who_had_no_answer_serves_what_it_has_bought_itself_and_nothing_else(place, seller, payer, is_late):
    """Two sellers at one purchase: one had no answer to its charge, and the payer has gone to the other one."""
    start, payload = seller.look(channel_of(payer)), voucher(payer, payer.sender.pay(PRICE))
    calls = facilitator(f"http://127.0.0.1:{place[2].door}", place[2].token, is_async=False)
    gone = facilitator(f"http://127.0.0.1:{free_port()}", place[2].token, is_async=False)
    unlucky, other = ChannelSeller(gone), ChannelSeller(calls)
    (before,) = contexts(place, payload, "before-handler")
    with pytest.raises(httpx.ConnectError):
        unlucky.before_settle(before)
    unlucky._facilitator = calls
    if is_late:
        ((_, attempts),) = unlucky._lost.items()
        wants = before.requirements.model_copy(update={"extra": {**before.requirements.extra, "attempts": attempts}})
        assert calls.settle(before.payment_payload, wants).success
    theirs, their_cancel = contexts(place, payload, "before-handler", "cancel")
    found = other.before_settle(theirs).result
    assert found.success != is_late and found.error_reason == ("already_served" if is_late else None)
    ours, our_cancel = contexts(place, payload, "before-handler", "cancel")
    found = unlucky.before_settle(ours).result
    assert found.success == is_late and found.error_reason == (None if is_late else "already_served")
    assert seller.look(channel_of(payer))["spent"] == start["spent"] + PRICE
    scheme, refused, cancel = (unlucky, other, our_cancel) if is_late else (other, unlucky, their_cancel)
    assert refused.settle_on_cancel(their_cancel if is_late else our_cancel) is None
    assert calls.settle(cancel.payment_payload, scheme.settle_on_cancel(cancel)).success
    assert seller.look(channel_of(payer))["spent"] == start["spent"]


class Lossy(ThreadingHTTPServer):
    """Stands before the sellers' door, and loses as many answers to settlements as it is told, after they took effect."""

    daemon_threads = True

    def __init__(self, door: int) -> None:
        self.door, self.to_lose = door, 0
        super().__init__(("127.0.0.1", 0), _Passing)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return self.server_address[1]


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name: self.headers[name] for name in ("authorization", "content-type") if name in self.headers}
        url = f"http://127.0.0.1:{self.server.door}{self.path}"
        answer = httpx.request(self.command, url, content=body, headers=headers, timeout=CLIENT_SECONDS)
        if self.path.endswith("/settle") and self.server.to_lose > 0:
            self.server.to_lose -= 1
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_a_payment_whose_outcome_was_lost_on_the_way_is_served_when_it_comes_again_once(place, seller, purse, tmp_path):
    system = place[0]
    lossy = Lossy(int(place[2].door))
    shop = Shop(tmp_path, lossy.port, make_token(system, "lossy"))
    shop.start()
    try:
        scheme = ChannelScheme(purse)
        assert get(scheme, f"{shop.url}/news/first")[0].status_code == 200
        start = standing_of(seller, purse)
        lossy.to_lose = 2
        assert [get(scheme, f"{shop.url}/news/lost")[0].status_code for _ in range(2)] == [402, 402]
        assert standing_of(seller, purse)["spent"] == start["spent"] + PRICE  # charged once, and nobody was told
        assert shop.served == ["first"]
        lost = [row.record.signed for row in purse.standings()][0]
        found = get(scheme, f"{shop.url}/news/found")[0]
        assert found.status_code == 200, decode_payment_response_header(found.headers["payment-response"])
        assert standing_of(seller, purse)["spent"] == start["spent"] + PRICE and shop.served == ["first", "found"]
        channel = format_channel_id([row.record.terms.outpoint for row in purse.standings()][0])
        payload = {"type": "voucher", "channelId": channel, "payment": encode_bytes(lost.serialize())}
        assert refusal(shown(shop, payload)) == "already_served"
        lossy.to_lose = 1
        assert shown(shop, payload).status_code == 402  # it is known what it bought: lost answers give no second chance
        assert refusal(shown(shop, payload)) == "already_served" and shop.served == ["first", "found"]
    finally:
        shop.kill()
        lossy.shutdown()
        lossy.server_close()


def test_killed_anywhere_nothing_is_charged_twice_and_the_payer_goes_on(tmp_path):
    """The server's processes and the shop are killed in turn while a payer buys; what it was served, it paid for, once each; what
    it paid and was not served is bounded by one purchase a kill of the shop."""
    dice = random.Random(402)
    with selling(tmp_path) as (system, seller, shop):
        purse = Purse(tmp_path / "purse", Budget(None, None, None, None, None, None))
        scheme = ChannelScheme(purse)
        assert get(scheme, f"{shop.url}/news/n0")[0].status_code == 200
        opened = standing_of(seller, purse)["spent"] - PRICE
        got, shop_kills, killers = 1, 0, []
        for number in range(1, 25):
            if number % 8 == 7:
                shop.kill()
                shop.start()
                shop_kills += 1
            elif number % 2:
                name = ("worker", "store", "signer")[number // 2 % 3]
                killers.append(threading.Timer(dice.uniform(0, 0.06), system.kill, (name,)))
                killers[-1].start()
            deadline = time.monotonic() + 60
            while True:
                assert time.monotonic() < deadline
                try:
                    (answer,) = get(scheme, f"{shop.url}/news/n{number}")
                except Exception:
                    time.sleep(0.1)
                    continue
                if answer.status_code == 200:
                    got += 1
                    break
                time.sleep(0.1)
        for killer in killers:
            killer.join()
        wait_until(lambda: _answers(seller), 20, "the sellers' door")
        after = standing_of(seller, purse)
        names = [name for name in shop.served if name.startswith("n")]
        assert set(names) == {f"n{number}" for number in range(25)} and got == 25
        charged = (after["spent"] - opened) // PRICE
        assert len(names) <= charged <= len(names) + shop_kills
        assert after["received"] == after["spent"] and (after["spent"] - opened) % PRICE == 0
