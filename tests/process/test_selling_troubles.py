"""Aim: whatever is away or killed, nothing is served unpaid, nothing is charged twice, and who sends the same payment again gets
what it paid for. Method: real processes; the server stopped and killed under a shop, a shop killed and started again, two shops at
one door, and the unmodified client of another project."""

import asyncio
import dataclasses
import os
import select
import shutil
import signal
import socket
import socketserver
import threading
import time
import uuid
from contextlib import suppress

import httpx
import pytest

from paychan.rpc.connection import reachable
from tests.buyer import OPEN_PRICE, Buyer, challenge_of, problem_of, receipt_of
from tests.ports import free_port
from tests.selling import Seller, text_of, with_door
from tests.shops import running_shop
from tests.system import CLIENT_SECONDS, wait_until


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with with_door(tmp_path_factory.mktemp("troubles"), workers=2) as system:
        yield system


@pytest.fixture
def open_shop(system, tmp_path):
    def open_(kind, port=0, workers=1):
        return running_shop(kind, str(system.state_dir.absolute() / "run" / "sell.sock"), tmp_path, port or free_port(), workers)

    return open_


@pytest.fixture
def seller(system):
    return Seller(system, (system.state_dir / "run" / "sell.cookie").read_text().strip())


def new_buyer(system, shop):
    made = Buyer(system.payer(f"trouble {uuid.uuid4()}").sender, challenge_of(shop.get("/joke")))
    assert shop.get("/joke", made.open(OPEN_PRICE + 5)).status_code == 200
    return made


def persist(ask, seconds=60.0):
    """Ask the same until it is answered otherwise than 503."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer.status_code != 503:
            return answer
        assert "www-authenticate" not in answer.headers and answer.headers["retry-after"] and time.monotonic() < deadline
        time.sleep(0.05)


KINDS = pytest.mark.parametrize("kind", ["fastapi", "flask"])


@KINDS
def test_while_the_store_is_away_the_outcome_is_unknown_and_later_the_same_payment_buys(system, open_shop, seller, kind):
    with open_shop(kind) as shop:
        buyer = new_buyer(system, shop)
        headers, runs = buyer.pay(5), shop.runs()
        store = system.child_pid("store")
        os.kill(store, signal.SIGSTOP)
        try:
            answer = shop.get("/joke", headers)
        finally:
            os.kill(store, signal.SIGCONT)
        assert answer.status_code == 503 and "www-authenticate" not in answer.headers and shop.runs() == runs
        paid = persist(lambda: shop.get("/joke", headers))
        assert paid.status_code == 200 and receipt_of(paid).remaining == 0 and shop.runs() == runs + 1
        assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 10


@KINDS
def test_a_handler_that_fails_while_the_store_is_away_has_not_cost_anything(system, open_shop, seller, kind):
    """What cannot be given back is remembered: the same payment is served for it."""
    with open_shop(kind) as shop:
        buyer = new_buyer(system, shop)
        headers = buyer.pay(5)
        runs, answers = shop.runs(), []
        thread = threading.Thread(target=lambda: answers.append(shop.get("/slowly-failing", headers)))
        thread.start()
        wait_until(lambda: shop.runs() > runs, 10, "running the handler")
        store = system.child_pid("store")
        os.kill(store, signal.SIGSTOP)
        thread.join(60)
        os.kill(store, signal.SIGCONT)
        assert answers[0].status_code == 500
        wait_until(lambda: seller.request("GET", f"/v1/sell/channels/{buyer.channel}").status == 200, 20, "coming back")
        again = persist(lambda: shop.get("/slowly-failing", headers))
        assert again.status_code == 500  # run again, and given back
        assert seller.look(buyer.channel)["credit"] == 5 and shop.runs() == runs + 2


@KINDS
def test_what_killed_shops_hold_keeps_a_payer_waiting_until_its_time_is_over(system, open_shop, seller, kind):
    """A channel remembers four purchases. As long as all of them are held for requests that nobody ends, it sells nothing."""
    with open_shop(kind) as shop:
        buyer = new_buyer(system, shop)
        held = {"do": "reserve", "channel": buyer.channel, "amount": 1, "seconds": 8, "payment": text_of(buyer.sign(4))}
        assert [seller.ask({**held, "key": f"{number:064x}"}).status for number in range(4)] == [200] * 4
        headers, runs = buyer.pay(5), shop.runs()
        waiting = shop.get("/joke", headers)
        assert (waiting.status_code, waiting.json()["code"]) == (503, "overloaded") and waiting.headers["retry-after"]
        assert "held" in waiting.json()["detail"] and shop.runs() == runs
        assert persist(lambda: shop.get("/joke", headers)).status_code == 200
        wait_until(lambda: seller.look(buyer.channel)["reserved"] == 0, 10, "giving back all that was held")
        assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 10 and shop.runs() == runs + 1


def test_a_shop_that_was_killed_serves_what_was_paid_and_not_served(system, open_shop, seller, tmp_path):
    port = free_port()
    with open_shop("fastapi", port) as shop:
        buyer = new_buyer(system, shop)
        headers, runs = buyer.pay(5), shop.runs()
        thread = threading.Thread(target=lambda: pytest.raises(httpx.TransportError, shop.get, "/slow", headers))
        thread.start()
        wait_until(lambda: shop.runs() > runs, 10, "running the handler")
        shop.kill()
        thread.join(30)
        assert seller.look(buyer.channel)["credit"] == 0  # charged, and not served
    with open_shop("fastapi", port) as shop:
        assert shop.get("/slow", headers).status_code == 503  # it might be running elsewhere
        served = persist(lambda: shop.get("/slow", headers))
        assert served.status_code == 200 and receipt_of(served).remaining == 0
        assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 10
        posted = buyer.pay(5)
        assert shop.post("/do", b"x", posted).status_code == 200
    with open_shop("fastapi", port) as shop:  # an answer that is gone is not made again where that may do harm
        again = persist(lambda: shop.post("/do", b"x", posted))
        assert (again.status_code, problem_of(again).code) == (409, "already_served")
        assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 15


def test_two_shops_sell_once_for_one_payment(system, open_shop, seller):
    with open_shop("fastapi") as one, open_shop("flask") as two:
        buyer = new_buyer(system, one)
        asked = challenge_of(two.get("/joke"))
        assert asked.realm == buyer.challenge.realm  # they are one, so either's challenge is good
        headers, other, answers = buyer.pay(5), buyer.again(asked), []
        before = one.runs() + two.runs()
        threads = [
            threading.Thread(target=lambda shop=shop, shown=shown: answers.append(persist(lambda: shop.post("/do", b"x", shown))))
            for shop, shown in ((one, headers), (two, other)) * 3
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        statuses = sorted(answer.status_code for answer in answers)
        assert set(statuses) == {200, 409} and one.runs() + two.runs() == before + 1, statuses
        assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 10


@pytest.mark.parametrize("fails", [True, False], ids=["fails", "serves"])
def test_who_hangs_up_and_goes_to_another_till_gets_one_good_for_one_price(system, open_shop, seller, monkeypatch, fails):
    """The first till's handler still runs when the second one runs it again, and fails after that one has served it: what was paid
    for is not given back then."""
    with open_shop("flask") as two:
        if fails:
            monkeypatch.setenv("SHOP_FAILS", "yes")
        with open_shop("fastapi") as one:
            buyer = new_buyer(system, two)
            headers, answers = buyer.pay(5, challenge_of(two.get("/held"))), []
            other = buyer.again(challenge_of(one.get("/held")))
            runs = one.runs()
            thread = threading.Thread(target=lambda: answers.append(one.get("/held", other)))
            thread.start()
            wait_until(lambda: one.runs() > runs, 10, "running the handler")
            two.go()
            assert two.get("/held", headers).status_code == 503  # it may be under way
            assert persist(lambda: two.get("/held", headers)).status_code == 200
            one.go()
            thread.join(30)
            assert answers[0].status_code == (500 if fails else 200)
            assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 10
            refused = two.get("/joke", headers)
            assert (refused.status_code, problem_of(refused).name) == (402, "session/insufficient-balance")
            if fails:
                assert persist(lambda: one.get("/held", other)).status_code == 500  # it was served, so it is not given back
                assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 10


class Cut(socketserver.ThreadingUnixStreamServer):
    """Stands before the sellers' door, at a socket with a cookie of its own. `cuts`: connections end at a sale "before" it comes to
    the door, or "after" the door has answered, and before that is heard."""

    daemon_threads = True

    def __init__(self, door, directory):
        self.door, self.path, self.cuts, self.count = str(door), str(directory / "sell.sock"), "", 0
        shutil.copy(door.with_name("sell.cookie"), directory)
        with reachable(self.path) as path:
            super().__init__(path, socketserver.BaseRequestHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def finish_request(self, here, _):
        with socket.socket(socket.AF_UNIX) as there, suppress(OSError):
            with reachable(self.door) as path:
                there.connect(path)
            while self.pass_on(here, there):
                pass

    def pass_on(self, here, there):
        """Pass on what came; return whether the connection goes on."""
        for ready in select.select([here, there], [], [])[0]:
            data, is_cut = ready.recv(1 << 16), False
            if ready is here and self.cuts and b"POST /v1/sell " in data:
                self.count, is_cut = self.count + 1, True
            if not is_cut or self.cuts == "after":
                (there if ready is here else here).sendall(data)
            if is_cut and self.cuts == "after":
                select.select([there], [], [], 10)
            if is_cut or not data:
                return False
        return True


@KINDS
@pytest.mark.parametrize("cuts", ["before", "after"])
def test_a_charge_without_an_answer_is_served_by_who_has_made_it_and_by_nobody_else(
    system, open_shop, seller, tmp_path_factory, kind, cuts
):
    """The buyer goes to another process meanwhile, and comes back."""
    directory = tmp_path_factory.mktemp("cut")
    cut = Cut(system.state_dir.absolute() / "run" / "sell.sock", directory)
    with open_shop("fastapi") as two, running_shop(kind, cut.path, directory, free_port()) as one:
        buyer = new_buyer(system, two)
        headers, before = buyer.pay(5), (one.runs(), two.runs())
        assert one.get("/joke").status_code == 402
        cut.cuts = cuts
        lost = one.post("/do", b"x", headers)
        assert lost.status_code == 503 and cut.count > 1 and one.runs() == before[0]
        cut.cuts = ""
        elsewhere = two.post("/do", b"x", headers)  # 503: what it finds there may be under way
        back = persist(lambda: one.post("/do", b"x", headers))
        again = persist(lambda: two.post("/do", b"x", headers))
        served, refused = (elsewhere, back) if cuts == "before" else (back, again)
        assert elsewhere.status_code == (200 if cuts == "before" else 503)
        assert served.status_code == 200 and receipt_of(served).remaining == 0
        assert (refused.status_code, problem_of(refused).code) == (409, "already_served")
        assert (one.runs() - before[0], two.runs() - before[1]) == ((0, 1) if cuts == "before" else (1, 0))
        assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 10
    cut.shutdown()
    cut.server_close()


def test_one_payment_buys_in_one_of_two_shops_at_one_door(system, open_shop, seller, monkeypatch):
    """They have the same wares at the same paths; only their names differ."""
    with open_shop("fastapi") as one:
        monkeypatch.setenv("SHOP_REALM", "another shop")
        with open_shop("flask") as two:
            buyer = new_buyer(system, one)
            asked = challenge_of(two.get("/joke"))
            assert one.get("/joke", buyer.pay(5)).status_code == 200
            foreign = two.get("/joke", buyer.again())
            assert problem_of(foreign).code == "invalid_challenge"
            for _ in range(2):
                refused = persist(lambda: two.get("/joke", buyer.again(asked)))
                assert (refused.status_code, problem_of(refused).name) == (402, "session/insufficient-balance")
                time.sleep(1.1)
            assert two.runs() == 0 and two.get("/joke", buyer.pay(5, asked)).status_code == 200


def test_workers_of_one_shop_know_each_others_challenges_and_sell_once(system, open_shop, seller):
    with open_shop("fastapi", workers=2) as shop:
        buyer = new_buyer(system, shop)
        for _ in range(10):
            headers = buyer.pay(5)
            base = str(shop.client.base_url)
            answers = [persist(lambda: httpx.get(f"{base}/joke", headers=headers, timeout=CLIENT_SECONDS)) for _ in range(3)]  # noqa: B023
            assert {answer.status_code for answer in answers} == {200}
        assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 55


def test_who_has_no_channel_server_says_later(system, open_shop, tmp_path):
    from paychan.sell.facts import Answer, Price, Request
    from paychan.sell.till import Till
    from paychan.sell.wire import Door

    async def decide():
        return await Till(Door("token", socket=str(tmp_path / "nobody"))).decide(Request("GET", "/"), Price(5))

    answer = asyncio.run(decide())
    assert isinstance(answer, Answer) and answer.status == 503 and "www-authenticate" not in dict(answer.headers)


class Signs:
    """pympp's idea of a method, with our hands: the first credential opens, the next ones pay what is asked."""

    def __init__(self, buyer, amount_of):
        from mpp.methods import Method
        from pydantic import BaseModel, ConfigDict

        class Anything(BaseModel):
            model_config = ConfigDict(extra="allow")

        self.method = Method(name="bitcoin", intent="session", request_model=Anything, payload_model=Anything)
        self.buyer, self.amount_of, self.made = buyer, amount_of, 0

    async def create(self, params):
        from paychan.mpp.challenge import Challenge

        theirs = getattr(params, "challenge", params)
        echo = {name: value for name, value in dataclasses.asdict(theirs.to_echo()).items() if value}
        challenge = Challenge(**{name: value for name, value in echo.items() if name in Challenge.__dataclass_fields__})
        self.made += 1
        amount = self.amount_of(challenge.session())
        headers = self.buyer.pay(amount, challenge) if self.made > 1 else self.buyer.open(OPEN_PRICE + amount, challenge)
        return headers["Authorization"]


def test_the_unmodified_client_of_pympp_buys(system, open_shop, seller):
    """Its own handling of 402, receipts and retries; of ours is what signs, as a method of it."""
    from mpp import Receipt
    from mpp.client import PaymentTransport
    from mpp.runtime import ClientMethod

    async def buy(base, buyer, times):
        signs = Signs(buyer, lambda session: session.amount)
        method = ClientMethod(method=signs.method, create_credential=signs.create)
        transport = PaymentTransport(methods=[method], inner=httpx.AsyncHTTPTransport())
        async with httpx.AsyncClient(transport=transport, base_url=base, timeout=CLIENT_SECONDS) as client:
            answers = [await client.get("/joke") for _ in range(times)]
            answers.append(await client.post("/do", content=b"x"))
        return answers, signs.made

    with open_shop("fastapi") as shop:
        buyer = Buyer(system.payer("pympp").sender)
        answers, made = asyncio.run(buy(str(shop.client.base_url), buyer, 4))
        assert [answer.status_code for answer in answers] == [200] * 5 and made == 5
        receipt = Receipt.from_payment_receipt(answers[-1].headers["payment-receipt"])
        assert (receipt.status, receipt.method) == ("success", "bitcoin")
        assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 25 and shop.runs() == 5
