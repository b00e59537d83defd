"""Aim: what stands behind the gateway is served to who pays, once for each payment, and paid for only if it was served. Method: a
real paychan server in debug mode, the gateway and an upstream as processes; the seller's door tells what each channel has spent."""

import asyncio
import dataclasses
import threading

import httpx
import pytest
from mpp.client import PaymentTransport
from mpp.runtime import ClientMethod

from paychan.core.sender import sign_payment
from paychan.mpp.challenge import parse_challenges
from paychan.mpp.receipt import parse_receipt
from tests.buyer import OPEN_PRICE, Buyer
from tests.gateways import frame, handshake, parse, running_gateway, running_upstream, told
from tests.process.test_selling_troubles import Signs
from tests.selling import Seller, make_token, with_door
from tests.system import CLIENT_SECONDS, wait_until

PRICE = 5


@pytest.fixture(scope="module")
def upstream():
    with running_upstream() as process:
        yield process


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with with_door(tmp_path_factory.mktemp("paychan")) as made:
        yield made


def config(system, upstream, *more):
    routes = {
        "/*": f"price = {PRICE}",
        "/dear": "price = 7",
        "/once/*": f'price = {PRICE}\nrerun = false',
        "/big/*": f"price = {PRICE}",
        "/status/*": f'price = {PRICE}\ncharged = ["2xx", "302"]',
        "/free/*": "free = true",
        "/large": f"price = {PRICE}\nlimits = {{ body_bytes_max = 4000000 }}",
        "/silent": f"price = {PRICE}\nlimits = {{ answer_seconds_max = 1 }}",
        "/echo/*": f"price = {PRICE}\nwebsocket = true",
    }
    socket = (system.state_dir / "run" / "sell.sock").absolute()
    text = f'[gateway]\nport = PORT\nrealm = "shop"\ncors_origins = ["https://page.example"]\n[seller]\nsocket = "{socket}"\n'
    text += f'[upstreams.api]\nurl = "http://127.0.0.1:{upstream.port}"\n[discovery]\ntitle = "Shop"\n'
    text += "".join(f'[[routes]]\npath = "{path}"\n{lines}\n' for path, lines in routes.items())
    return text + "\n".join(more)


@pytest.fixture(scope="module")
def gateway(system, upstream, tmp_path_factory):
    with running_gateway(tmp_path_factory.mktemp("gateway"), config(system, upstream)) as process:
        yield process


@pytest.fixture(scope="module")
def seller(system):
    return Seller(system, make_token(system, "looker"))


@pytest.fixture
def buyer(system, gateway, request, upstream):
    """A buyer whose channel is open, and whose opening bought one request."""
    made = new_buyer(system, gateway, request.node.name)
    assert get(gateway, "/opens", made.open(OPEN_PRICE + PRICE)).status == 200
    upstream.log()
    return made


def new_buyer(system, gateway, name, target="/x"):
    made = Buyer(system.payer(f"gateway {name}").sender)
    made.challenge = challenge_of(get(gateway, target))
    return made


def get(gateway, target, headers=None, method="GET", body=None):
    client = gateway.client()
    try:
        return client.request(method, target, headers or {}, body)
    finally:
        client.close()


def challenge_of(answer):
    (found,) = parse_challenges([answer.headers["www-authenticate"]])
    return found


def spent(seller, buyer):
    return seller.look(buyer.channel)["spent"]


def asked(upstream):
    return [entry["line"][1] for entry in upstream.log()]


def test_who_does_not_pay_is_told_the_price_and_nobody_is_asked(gateway, upstream):
    upstream.log()
    answer = get(gateway, "/x")
    assert answer.status == 402 and answer.headers["cache-control"] == "no-store" and answer.code == "payment_required"
    asks = challenge_of(answer).session()
    assert (asks.amount, challenge_of(answer).realm) == (PRICE, "shop")
    for method in ("POST", "HEAD", "OPTIONS", "DELETE"):
        assert get(gateway, "/x", method=method).status == 402
    big = get(gateway, "/x", {"Expect": "100-continue", "Content-Length": "500000"}, method="POST")
    assert big.status == 402  # and its body was not waited for
    assert asked(upstream) == []


def test_a_paid_request_is_served_once_charged_and_receipted(gateway, upstream, buyer, seller):
    before = spent(seller, buyer)
    answer = get(gateway, "/x?y=1", buyer.pay(PRICE))
    assert answer.status == 200 and told(answer)["line"][1] == "/x?y=1" and answer.headers["cache-control"] == "private"
    receipt = parse_receipt(answer.headers["payment-receipt"])
    assert (receipt.spent, receipt.accepted) == (before + PRICE, buyer.cumulative)
    assert spent(seller, buyer) == before + PRICE
    headers = dict(told(answer)["headers"])
    assert (headers["paychan-channel"], headers["paychan-charged"]) == (buyer.channel, str(PRICE))
    assert "authorization" not in headers
    assert "Payment " not in answer.body.decode()


def test_the_same_again_is_answered_again_and_costs_nothing(gateway, upstream, buyer, seller):
    first = get(gateway, "/x", buyer.pay(PRICE))
    before = spent(seller, buyer)
    again = [get(gateway, "/x", buyer.again()) for _ in range(3)]
    assert [answer.body for answer in again] == [first.body] * 3
    assert again[0].headers["payment-receipt"] == first.headers["payment-receipt"]
    assert asked(upstream) == ["/x"] and spent(seller, buyer) == before


def test_a_payment_buys_one_thing(gateway, upstream, buyer):
    headers = buyer.pay(PRICE)
    assert get(gateway, "/x", headers).status == 200
    for target, method, body in (("/y", "GET", None), ("/x", "POST", None), ("/x?z", "GET", None), ("/x", "POST", b"body")):
        refused = get(gateway, target, buyer.again(), method, body)
        assert (refused.status, refused.code) == (402, "insufficient_credit"), (target, method)
    assert asked(upstream) == ["/x"]


def test_a_cheap_challenge_does_not_pay_for_what_is_dear(gateway, buyer):
    refused = get(gateway, "/dear", buyer.pay(7))
    assert (refused.status, refused.code) == (402, "invalid_challenge")
    assert get(gateway, "/dear", buyer.again(challenge_of(refused))).status == 200


def test_forged_replayed_and_garbled_credentials_are_refused(gateway, upstream, buyer, seller):
    assert get(gateway, "/x", buyer.pay(PRICE)).status == 200
    before, newest = spent(seller, buyer), buyer.newest
    upstream.log()
    terms = buyer.sender.terms
    stale = sign_payment(terms, terms.funding_value - OPEN_PRICE, buyer.sender.key)
    refusals = {
        "bad_signature": buyer.show(dataclasses.replace(newest, change_value=newest.change_value - PRICE)),
        "out_of_order": buyer.show(stale),
        "malformed_credential": {"Authorization": "Payment x"},
        "two_credentials": {**buyer.again(), "Payment-Authorization": buyer.again()["Authorization"]},
    }
    for code, headers in refusals.items():
        refused = get(gateway, "/other", headers)
        assert refused.code == code and 400 <= refused.status <= 402, (code, refused)
    assert asked(upstream) == [] and spent(seller, buyer) == before


FAILING = {"/drop": 502, "/silent": 504, "/short/10/100": 502, "/cut/0": 502, "/status/500": 500}


@pytest.mark.parametrize("path, status", FAILING.items())
def test_what_fails_before_it_begins_is_given_back(gateway, buyer, seller, path, status):
    before = seller.look(buyer.channel)
    failed = get(gateway, path, buyer.pay(PRICE))
    after = seller.look(buyer.channel)
    assert failed.status == status and "payment-receipt" not in failed.headers
    assert (after["spent"], after["credit"]) == (before["spent"], before["credit"] + PRICE)
    assert get(gateway, "/x", buyer.again()).status == 200  # the credit buys
    assert spent(seller, buyer) == before["spent"] + PRICE


def test_which_statuses_cost_the_operator_says(gateway, buyer, seller):
    for status, cost in ((200, PRICE), (206, PRICE), (302, PRICE), (304, 0), (404, 0), (301, 0), (503, 0)):
        before = spent(seller, buyer)
        answer = get(gateway, f"/status/{status}", buyer.pay(PRICE))
        assert answer.status == status and spent(seller, buyer) == before + cost, status
        assert ("payment-receipt" in answer.headers) == (200 <= status < 300), status


def test_what_breaks_off_stays_paid_and_may_be_fetched_again(gateway, upstream, buyer, seller):
    before = spent(seller, buyer)
    raw = request_raw(gateway, "/short/100000/200000", buyer.pay(PRICE))
    assert raw.startswith(b"HTTP/1.1 200") and len(raw) < 150_000
    raw = request_raw(gateway, "/short/100000/200000", buyer.again())
    assert raw.startswith(b"HTTP/1.1 200") and spent(seller, buyer) == before + PRICE


def test_where_nothing_is_run_again_a_lost_answer_is_said_to_be_served(gateway, upstream, buyer):
    assert get(gateway, "/once/x", buyer.pay(PRICE)).status == 200
    assert get(gateway, "/once/x", buyer.again()).status == 200  # the answer was kept
    request_raw(gateway, "/big/100000", buyer.pay(PRICE))


def request_raw(gateway, target, headers, method="GET"):
    lines = [f"{method} {target} HTTP/1.1", "Host: h", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return gateway.raw("\r\n".join([*lines, "", ""]).encode())


def test_a_body_is_part_of_what_is_bought(gateway, upstream, buyer):
    assert told(get(gateway, "/x", buyer.pay(PRICE), "POST", b"one"))["body"] == "one"
    assert get(gateway, "/x", buyer.again(), "POST", b"two").code == "insufficient_credit"
    assert told(get(gateway, "/x", buyer.again(), "POST", b"one"))["body"] == "one"
    assert asked(upstream) == ["/x"]


def test_a_large_body_is_bought_by_an_idempotency_key(gateway, upstream, buyer, seller):
    body = b"l" * 1_500_000
    waits = {"Content-Length": str(len(body)), "Expect": "100-continue"}  # who sends on would not hear the answer
    refused = parse(request_raw(gateway, "/large", {**buyer.pay(PRICE), **waits}, "POST"))
    assert (refused.status, refused.code) == (413, "body_too_large") and asked(upstream) == []
    before, headers = spent(seller, buyer), {**buyer.again(), "Idempotency-Key": "one"}
    answers = [get(gateway, "/large", headers, "POST", body) for _ in range(2)]
    assert [len(told(answer)["body"]) for answer in answers[:1]] == [len(body)] and spent(seller, buyer) == before + PRICE
    other = {**headers, **waits, "Idempotency-Key": "two"}
    assert parse(request_raw(gateway, "/large", other, "POST")).code == "insufficient_credit"


def test_two_at_once_with_one_payment_are_one_purchase(gateway, upstream, buyer, seller):
    before, headers, got = spent(seller, buyer), buyer.pay(PRICE), []
    threads = [threading.Thread(target=lambda: got.append(get(gateway, "/x", headers))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in got} == {200} and len({answer.body for answer in got}) == 1
    assert asked(upstream) == ["/x"] and spent(seller, buyer) == before + PRICE


def test_a_voucher_by_head_is_taken_anywhere_and_buys_nothing(gateway, upstream, buyer, seller):
    before = seller.look(buyer.channel)
    for path in ("/x", "/free/x", "/readyz-not", "/dear"):
        answer = get(gateway, path, buyer.pay(PRICE), "HEAD")
        assert answer.status == 204 and parse_receipt(answer.headers["payment-receipt"]).accepted == buyer.cumulative
    after = seller.look(buyer.channel)
    assert after["spent"] == before["spent"] and after["credit"] == before["credit"] + 4 * PRICE and asked(upstream) == []


def test_closing_ends_with_the_settlements_name(gateway, system, buyer):
    answer = get(gateway, "/x", buyer.close(), "POST")
    receipt = parse_receipt(answer.headers["payment-receipt"])
    assert answer.status == 204 and receipt.settlement_txid in system.broadcast()


def test_a_free_route_needs_no_payment_and_takes_none(gateway, buyer, seller):
    before = spent(seller, buyer)
    assert get(gateway, "/free/x").status == 200
    answer = get(gateway, "/free/x", buyer.pay(PRICE))
    assert answer.status == 200 and "authorization" not in dict(told(answer)["headers"]) and spent(seller, buyer) == before


def test_another_spelling_is_not_cheaper(gateway, upstream):
    upstream.log()
    spellings = "/FREE/x /free/../x /free/%2e%2e/x /free/..%2fx //free/x /dear/ /Dear /dear.json /free;/x"
    for target in spellings.split():
        assert get(gateway, target).status == (402 if target == "/FREE/x" else 400), target
    assert asked(upstream) == []


def test_a_websocket_is_paid_with_its_handshake(gateway, buyer, seller):
    connection, status = handshake(gateway, "/echo/x")
    connection.close()
    assert status == 402
    before = spent(seller, buyer)
    connection, status = handshake(gateway, "/echo/x", f"Authorization: {buyer.pay(PRICE)['Authorization']}")
    with connection:
        assert status == 101 and spent(seller, buyer) == before + PRICE
        connection.sendall(frame(b"hello"))
        assert connection.recv(100) == b"\x81\x05hello"


def test_a_page_of_another_origin_may_pay_if_the_operator_says_so(gateway, upstream, buyer):
    page, stranger = {"Origin": "https://page.example"}, {"Origin": "https://stranger.example"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-mine"}
    preflight = get(gateway, "/x", {**page, **asks}, "OPTIONS")
    assert preflight.status == 204 and preflight.headers["access-control-allow-headers"] == "authorization,x-mine"
    assert preflight.headers["access-control-allow-origin"] == "https://page.example" and asked(upstream) == []
    for answer in (get(gateway, "/x", page), get(gateway, "/x", {**page, **buyer.pay(PRICE)}), get(gateway, "/a//b", page)):
        assert answer.headers["access-control-allow-origin"] == "https://page.example", answer
        assert "WWW-Authenticate, Payment-Receipt" in answer.headers["access-control-expose-headers"]
    refused = get(gateway, "/x", {**stranger, **asks}, "OPTIONS")
    assert refused.status == 402 and "access-control-allow-origin" not in refused.headers


def test_what_is_sold_is_described(gateway):
    described = get(gateway, "/openapi.json").json
    operation = described["paths"]["/dear"]["get"]
    assert operation["x-payment-info"]["offers"][0]["amount"] == "7" and "402" in operation["responses"]
    assert "x-payment-info" not in described["paths"]["/free/{part1}"]["get"]
    assert "127.0.0.1" not in str(described)


def test_it_is_ready_while_the_sellers_door_answers(gateway):
    assert get(gateway, "/readyz").status == 200


def test_without_the_sellers_door_nothing_is_sold_and_nothing_is_lost(upstream, tmp_path):
    (tmp_path / "system").mkdir()
    with with_door(tmp_path / "system") as system, running_gateway(tmp_path, config(system, upstream)) as gateway:
        buyer = new_buyer(system, gateway, "restart")
        assert get(gateway, "/x", buyer.open(OPEN_PRICE + PRICE)).status == 200
        headers = buyer.pay(PRICE)
        system.stop()
        upstream.log()
        unknown = get(gateway, "/y", headers)
        assert unknown.status == 503 and "www-authenticate" not in unknown.headers and asked(upstream) == []
        assert get(gateway, "/free/x").status == 200
        wait_until(lambda: get(gateway, "/readyz").status == 503, 20, "noticing")
        system.output.clear()
        system.start()
        wait_until(lambda: get(gateway, "/y", headers).status == 200, 30, "selling again")
        assert asked(upstream)[-1] == "/y"


def test_no_payment_is_logged(gateway, buyer):
    get(gateway, "/drop", buyer.pay(PRICE))
    text = "".join(gateway.output)
    assert buyer.again()["Authorization"][8:40] not in text and buyer.newest.encode()[:40] not in text


def test_the_unmodified_client_of_pympp_buys(gateway, system, seller):
    """Its own handling of 402, receipts and retries; of ours is what signs, as a method of it."""
    buyer = Buyer(system.payer("gateway pympp").sender)
    signs = Signs(buyer, lambda session: session.amount)

    async def buy():
        transport = PaymentTransport(
            methods=[ClientMethod(method=signs.method, create_credential=signs.create)], inner=httpx.AsyncHTTPTransport()
        )
        base = f"http://127.0.0.1:{gateway.port}"
        async with httpx.AsyncClient(transport=transport, base_url=base, timeout=CLIENT_SECONDS) as client:
            return [await client.get("/x"), await client.post("/x", content=b"body"), await client.get("/dear")]

    answers = asyncio.run(buy())
    assert [answer.status_code for answer in answers] == [200] * 3 and signs.made == 3
    assert spent(seller, buyer) == OPEN_PRICE + PRICE + PRICE + 7
    assert parse_receipt(answers[-1].headers["payment-receipt"]).spent == OPEN_PRICE + PRICE + PRICE + 7
