"""Aim: behind each kind of middleware a request is served when it was paid, once; what failed is given back; every refusal is what
docs/PAYMENT_SCHEME.md says. Method: the real server in debug mode, shops in processes of their own, and a buyer that signs by
hand."""

import json
import threading
import uuid

import pytest

from paychan.mpp import discovery, sse
from paychan.mpp.challenge import make_challenge
from paychan.mpp.receipt import parse_receipt, read_receipt
from paychan.mpp.text import decode_json, encode_json
from tests.buyer import OPEN_PRICE, Buyer, challenge_of, forged, problem_of, receipt_of, snapshot_of
from tests.ports import free_port
from tests.selling import Seller, with_door
from tests.shops import KINDS, LONG, running_shop

SAMPLE = ("fastapi", "flask")
"""Kinds that show what the rules do: one behind the asyncio till, one behind the blocking one."""


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with with_door(tmp_path_factory.mktemp("shops"), workers=2) as system:
        yield system


@pytest.fixture(scope="module")
def shops(system, tmp_path_factory):
    directory, opened, contexts = tmp_path_factory.mktemp("runs"), {}, []

    def open_shop(kind):
        if kind not in opened:
            context = running_shop(kind, str(system.state_dir.absolute() / "run" / "sell.sock"), directory, free_port())
            opened[kind] = context.__enter__()
            contexts.append(context)
        return opened[kind]

    yield open_shop
    for context in contexts:
        context.__exit__(None, None, None)


@pytest.fixture
def shop(shops, request):
    return shops(request.param)


@pytest.fixture
def buyer(system, shop):
    made = Buyer(system.payer(f"buyer {uuid.uuid4()}").sender)
    made.challenge = challenge_of(shop.get("/joke"))
    return made


@pytest.fixture
def seller(system):
    return Seller(system, (system.state_dir / "run" / "sell.cookie").read_text().strip())


EVERY = pytest.mark.parametrize("shop", KINDS, indirect=True)
SOME = pytest.mark.parametrize("shop", SAMPLE, indirect=True)


def opened(shop, buyer, more=0):
    """Have the channel opened by a first purchase; more: credit that is left, satoshi."""
    answer = shop.get("/joke", buyer.open(OPEN_PRICE + 5 + more))
    assert answer.status_code == 200, answer.text
    return answer


@EVERY
def test_who_does_not_pay_is_told_how(shop):
    answer = shop.get("/joke")
    assert answer.status_code == 402 and answer.headers["cache-control"] == "no-store"
    assert problem_of(answer).code == "payment_required"
    asked = challenge_of(answer).session()
    assert (asked.amount, asked.details.channel_type, asked.details.open_price) == (5, "p2sh-cltv-1", OPEN_PRICE)
    assert shop.get("/free").status_code == 200 and shop.runs() == 0
    assert shop.head("/joke").status_code in (402, 405)


@EVERY
def test_a_life(shop, buyer, seller):
    first = receipt_of(opened(shop, buyer))
    assert (first.accepted, first.spent, first.remaining) == (OPEN_PRICE + 5, OPEN_PRICE + 5, 0)
    assert first.deposit == buyer.sender.terms.funding_value and first.challenge_id == buyer.challenge.id
    before = shop.runs()
    paid = shop.get("/joke", buyer.pay(5))
    assert paid.status_code == 200 and receipt_of(paid).spent == OPEN_PRICE + 10 and paid.headers["cache-control"] == "private"
    posted = shop.post("/do", b"a body", buyer.pay(5))
    assert posted.json()["body"] == "a body" and shop.runs() == before + 2
    head = shop.head("/joke", buyer.pay(5))
    assert head.status_code == 204 and receipt_of(head).remaining == 5 and shop.runs() == before + 2
    dear = shop.get("/joke", buyer.pay(0, challenge_of(shop.get("/joke"))))
    assert dear.status_code == 200 and receipt_of(dear).remaining == 0  # from the credit
    closed = shop.get("/joke", buyer.close())
    final = receipt_of(closed)
    assert closed.status_code == 204 and final.settlement_txid and final.spent == OPEN_PRICE + 20
    assert seller.look(buyer.channel)["phase"] != "open" and shop.runs() == before + 3
    late = shop.get("/joke", buyer.pay(5))
    assert (late.status_code, problem_of(late).name) == (402, "session/channel-finalized") and challenge_of(late)


@EVERY
def test_the_same_again_is_answered_again_and_neither_charged_nor_run(shop, buyer, seller):
    opened(shop, buyer, more=100)
    headers = buyer.pay(5)
    answers = [shop.post("/do", b"once", headers) for _ in range(3)]
    assert len({answer.content for answer in answers}) == len({answer.headers["payment-receipt"] for answer in answers}) == 1
    assert shop.runs() and receipt_of(answers[0]).remaining == 100
    runs = shop.runs()
    other = shop.post("/do", b"another", headers)
    assert other.status_code == 200 and receipt_of(other).remaining == 95 and shop.runs() == runs + 1
    newer = shop.post("/do", b"newer", buyer.pay(5))
    assert newer.status_code == 200
    assert shop.post("/do", b"once", headers).content == answers[0].content  # the payment is not the newest any more
    assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 20


@EVERY
def test_what_fails_is_given_back(shop, buyer, seller):
    opened(shop, buyer)
    for path, status in (("/fail", 500), ("/missing", 404)):
        headers = buyer.pay(5)
        for _ in range(2):  # the same again is run again: it has bought nothing
            runs = shop.runs()
            failed = shop.get(path, headers)
            assert failed.status_code == status and "payment-receipt" not in failed.headers and shop.runs() == runs + 1
        assert seller.look(buyer.channel)["credit"] == 5
        assert receipt_of(shop.get("/joke", buyer.again())).remaining == 0  # it buys something else


@EVERY
def test_a_metered_price_charges_what_was_used(shop, buyer, seller):
    opened(shop, buyer)
    asked = challenge_of(shop.get("/metered?n=3"))
    assert (asked.session().amount, asked.session().unit_type, asked.session().max_prepay) == (2, "token", 400)
    answer = shop.get("/metered?n=3", buyer.pay(20, asked))
    assert answer.status_code == 200
    receipt = receipt_of(answer)
    assert (receipt.units, receipt.remaining) == (3, 14)
    standing = seller.look(buyer.channel)
    assert (standing["spent"], standing["reserved"]) == (OPEN_PRICE + 5 + 6, 0)
    again = shop.get("/metered?n=3", buyer.again(asked))
    assert again.content == answer.content and seller.look(buyer.channel)["spent"] == standing["spent"]


@EVERY
def test_a_price_of_the_request(shop, buyer):
    opened(shop, buyer)
    seven = challenge_of(shop.get("/dynamic?n=7"))
    assert seven.session().amount == 7
    assert receipt_of(shop.get("/dynamic?n=7", buyer.pay(7, seven))).remaining == 0
    assert shop.get("/dynamic?n=0").status_code == 200  # free
    cheap = shop.get("/dynamic?n=9", buyer.pay(9, seven))
    assert (cheap.status_code, problem_of(cheap).code) == (402, "invalid_challenge")
    assert shop.get("/dynamic?n=9", buyer.again(challenge_of(cheap))).status_code == 200


@EVERY
def test_an_answer_too_long_to_keep_is_made_again_and_not_charged_again(shop, buyer, seller):
    opened(shop, buyer)
    headers = buyer.pay(5)
    for _ in range(2):
        answer = shop.get("/long", headers)
        assert answer.status_code == 200 and answer.text == LONG and receipt_of(answer).remaining == 0
    assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 10


@SOME
def test_two_requests_with_one_payment_at_once_are_one_purchase(shop, buyer, seller):
    import httpx

    opened(shop, buyer)
    headers, answers, runs = buyer.pay(5), [], shop.runs()

    def ask():
        answers.append(httpx.get(f"{shop.client.base_url}/slow", headers=headers, timeout=30))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200} and len({answer.content for answer in answers}) == 1
    assert shop.runs() == runs + 1 and seller.look(buyer.channel)["spent"] == OPEN_PRICE + 10


@SOME
def test_refusals_before_anything_is_asked(shop, buyer):
    opened(shop, buyer)
    before, good = shop.runs(), buyer.pay(5)
    text = good["Authorization"].removeprefix("Payment ")
    content = decode_json(text)

    def with_challenge(**params):
        return {"Authorization": "Payment " + encode_json({**content, "challenge": {**content["challenge"], **params}})}

    foreign = make_challenge(b"another secret", buyer.challenge.realm, buyer.challenge.request, buyer.challenge.expires)
    rows = [
        ({"Authorization": "Payment !"}, 402, "malformed_credential", "malformed-credential"),
        ({"Authorization": "Payment " + "A" * 9000}, 402, "malformed_credential", "malformed-credential"),
        ({"Authorization": "Payment e30"}, 402, "malformed_credential", "malformed-credential"),
        ({"Authorization": f"Payment {text}, Payment {text}"}, 400, "two_credentials", "bad-request"),
        ({**good, "Payment-Authorization": good["Authorization"]}, 400, "two_credentials", "bad-request"),
        (with_challenge(method="tempo"), 400, "method_unsupported", "method-unsupported"),
        (with_challenge(realm="elsewhere"), 402, "invalid_challenge", "invalid-challenge"),
        (with_challenge(id="A" * 43), 402, "invalid_challenge", "invalid-challenge"),
        (with_challenge(expires="2036-01-01T00:00:00Z"), 402, "invalid_challenge", "invalid-challenge"),
        (with_challenge(**foreign.params()), 402, "invalid_challenge", "invalid-challenge"),
    ]
    for headers, status, code, name in rows:
        answer = shop.get("/joke", headers)
        problem = problem_of(answer)
        assert (answer.status_code, problem.code, problem.name) == (status, code, name)
        assert ("www-authenticate" in answer.headers) == (status == 402)
    assert shop.runs() == before
    assert shop.get("/joke", good).status_code == 200  # none of it has counted


@SOME
def test_payloads_that_are_refused(shop, buyer):
    opened(shop, buyer)
    content = decode_json(buyer.pay(5)["Authorization"].removeprefix("Payment "))
    txid, _, vout = content["payload"]["channelId"].partition(":")
    change = {
        "topUp": {"action": "topUp"},
        "no action": {"action": None},
        "an alias of the channel": {"channelId": f"{txid}:0{vout}"},
        "a channel in capitals": {"channelId": f"{txid.upper()}:{vout}"},
        "no payment": {"payment": None},
        "an opening without a key": {"action": "open"},
    }
    before = shop.runs()
    for payload in change.values():
        headers = {"Authorization": "Payment " + encode_json({**content, "payload": {**content["payload"], **payload}})}
        answer = shop.get("/joke", headers)
        assert (answer.status_code, problem_of(answer).name) == (402, "invalid-payload"), payload
    unknown = {**content["payload"], "channelId": f"{'ab' * 32}:0"}
    answer = shop.get("/joke", {"Authorization": "Payment " + encode_json({**content, "payload": unknown})})
    assert (answer.status_code, problem_of(answer).name) == (402, "session/channel-not-found")
    assert shop.runs() == before


@SOME
def test_a_forged_payment_tells_a_stranger_nothing(shop, buyer, seller):
    opened(shop, buyer)
    before = seller.look(buyer.channel)
    for method in (shop.get, shop.head):
        answer = method("/joke", buyer.show(forged(buyer.sign_cumulative(buyer.cumulative + 4))))
        assert answer.status_code == 402 and "payment-session-snapshot" not in answer.headers
    problem = problem_of(shop.get("/joke", buyer.show(forged(buyer.sign_cumulative(buyer.cumulative + 4)))))
    assert problem.name == "session/invalid-signature" and not problem.amounts
    for method in (shop.get, shop.head):
        stale = method("/joke", buyer.show(forged(buyer.sign_cumulative(1))))
        assert stale.status_code == 402 and "payment-session-snapshot" not in stale.headers
    assert problem_of(shop.get("/joke", buyer.show(forged(buyer.sign_cumulative(1))))).name == "session/invalid-signature"
    assert seller.look(buyer.channel) == before


@SOME
def test_a_payer_that_lost_its_state_gets_it_back(shop, buyer):
    opened(shop, buyer)
    shop.get("/joke", buyer.pay(5))
    newest, cumulative = buyer.newest, buyer.cumulative
    buyer.sender.change_value = buyer.sender.terms.funding_value
    for method in (shop.get, shop.head):
        answer = method("/joke", buyer.show(buyer.sign_cumulative(0)))
        assert answer.status_code == 402 and challenge_of(answer)
        snapshot = snapshot_of(answer)
        assert (snapshot.accepted, snapshot.spent, snapshot.required) == (cumulative, cumulative, cumulative + 5)
        assert (snapshot.payment, snapshot.exp_time) == (newest, buyer.sender.terms.exp_time)
    assert problem_of(shop.get("/joke", buyer.show(buyer.sign_cumulative(0)))).code == "out_of_order"
    buyer.adopt(snapshot)
    assert receipt_of(shop.get("/joke", buyer.pay(5))).remaining == 0


@SOME
def test_too_much_and_too_little(shop, buyer, seller):
    opened(shop, buyer)
    before = seller.look(buyer.channel)
    above = shop.get("/joke", buyer.show(buyer.sign_cumulative(buyer.cumulative + 5 + 101)))
    problem = problem_of(above)
    assert (above.status_code, problem.code, problem.name) == (402, "prepay_too_large", "verification-failed")
    assert problem.amounts["requiredCumulative"] == buyer.cumulative + 5
    small = shop.get("/joke", buyer.show(buyer.sign_cumulative(buyer.cumulative + 4)))
    assert problem_of(small).name == "session/delta-too-small" and seller.look(buyer.channel) == before
    again = shop.get("/joke", buyer.again())  # the payment has bought this before: it is answered from what was kept
    assert again.status_code == 200
    other = shop.get("/joke?other", buyer.again())
    problem = problem_of(other)
    assert (other.status_code, problem.name) == (402, "session/insufficient-balance")
    assert problem.amounts == {
        "acceptedCumulative": buyer.cumulative,
        "spent": buyer.cumulative,
        "requiredCumulative": buyer.cumulative + 5,
        "deposit": buyer.sender.terms.funding_value,
    }
    assert shop.get("/joke", buyer.pay(5 + 100)).status_code == 200  # just so much is taken
    assert shop.head("/joke", buyer.show(buyer.sign_cumulative(buyer.cumulative + 1000))).status_code == 402


@SOME
def test_openings_that_are_refused(shop, buyer, system):
    short = shop.get("/joke", buyer.open(OPEN_PRICE - 1))
    assert (short.status_code, problem_of(short).name) == (402, "payment-insufficient")
    only_open = shop.get("/joke", buyer.open(1))
    assert (only_open.status_code, problem_of(only_open).name) == (402, "session/insufficient-balance")
    assert problem_of(only_open).amounts["requiredCumulative"] == OPEN_PRICE + 5
    assert shop.get("/joke", buyer.open(5)).status_code == 200  # it is open already: the payment counts as a voucher
    another = Buyer(system.payer(f"another {uuid.uuid4()}").sender, buyer.challenge)
    assert shop.head("/joke", another.open(OPEN_PRICE)).status_code == 204  # HEAD opens, and buys nothing


@SOME
def test_closing_takes_the_newest_payment(shop, buyer, seller):
    opened(shop, buyer)
    old = buyer.newest
    shop.get("/joke", buyer.pay(5))
    newest, buyer.newest = buyer.newest, old
    refused = shop.get("/joke", buyer.close())
    assert (refused.status_code, problem_of(refused).code) == (402, "not_newest_payment")
    assert snapshot_of(refused).payment == newest and seller.look(buyer.channel)["phase"] == "open"
    buyer.newest = forged(newest)
    stranger = shop.get("/joke", buyer.close())
    assert problem_of(stranger).name == "session/invalid-signature" and seller.look(buyer.channel)["phase"] == "open"


@SOME
def test_a_long_body_needs_a_key(shop, buyer, seller):
    opened(shop, buyer)
    headers, body = buyer.pay(5), b"x" * (1 << 20) + b"y"
    refused = shop.post("/do", body, headers)
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
    assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 5
    runs = shop.runs()
    for _ in range(2):
        answer = shop.post("/do", body, {**headers, "Idempotency-Key": "upload 1"})
        assert answer.status_code == 200
    assert shop.runs() == runs + 1 and seller.look(buyer.channel)["spent"] == OPEN_PRICE + 10


@pytest.mark.parametrize("shop", ["fastapi"], indirect=True)
def test_fastapi_judges_parameters_as_always(shop, buyer, seller):
    opened(shop, buyer)
    runs, headers = shop.runs(), buyer.pay(5)
    assert shop.get("/sync?n=x", headers).status_code == 422 and shop.runs() == runs
    assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 5
    assert shop.get("/sync?n=7", headers).json() == {"run": runs + 1, "n": 7}
    assert shop.get("/sync?n=7").status_code == 402


@pytest.mark.parametrize("shop", ["fastapi"], indirect=True)
def test_a_request_with_two_prices_is_not_served_for_one(shop, buyer, seller):
    opened(shop, buyer)
    runs, one = shop.runs(), challenge_of(shop.get("/two-prices"))
    assert shop.get("/two-prices", buyer.pay(1, one)).status_code == 500 and shop.runs() == runs
    assert seller.look(buyer.channel)["credit"] == 1


def test_an_application_tells_its_prices(shops):
    paths = shops("fastapi").get("/openapi.json").json()["paths"]
    assert paths["/joke"]["get"][discovery.NAME]["offers"][0]["amount"] == "5"
    assert paths["/dynamic"]["get"][discovery.NAME]["offers"][0]["amount"] is None
    assert "402" in paths["/do"]["post"]["responses"] and discovery.NAME not in paths["/free"]["get"]


def events_of(answer):
    """Yield (name, data) of each event."""
    name, data = "", []
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data.append(line[6:])
        elif not line and data:
            yield name, "\n".join(data)
            name, data = "", []


@SOME
class TestStreams:
    def test_a_stream_pauses_for_vouchers_and_ends_with_its_receipt(self, shop, buyer, seller):
        opened(shop, buyer)
        asked = challenge_of(shop.get("/tokens?n=8"))
        seen, paused = [], []
        with shop.client.stream("GET", "/tokens?n=8", headers=buyer.pay(3, asked)) as answer:
            assert answer.status_code == 200 and parse_receipt(answer.headers["payment-receipt"]).spent == OPEN_PRICE + 8
            for name, data in events_of(answer):
                if name == sse.NEED_VOUCHER:
                    need = sse.parse_need_voucher(data)
                    assert need.required == buyer.cumulative + 3 and need.accepted == buyer.cumulative
                    paused.append(len(seen))
                    assert shop.head("/tokens?n=8", buyer.pay(need.required - need.accepted, asked)).status_code == 204
                elif name == sse.RECEIPT:
                    receipt = read_receipt(json.loads(data))
                else:
                    seen.append(data)
        assert seen == [f"token {number}" for number in range(8)] and paused == [3, 6]
        assert (receipt.spent, receipt.remaining, receipt.units) == (OPEN_PRICE + 5 + 8, 1, 8)
        assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 13

    def test_a_stream_that_is_not_paid_ends(self, shop, buyer, seller):
        opened(shop, buyer)
        asked = challenge_of(shop.get("/tokens?n=8"))
        with shop.client.stream("GET", "/tokens?n=8&pause=0.5", headers=buyer.pay(3, asked)) as answer:
            names = [name for name, _ in events_of(answer)]
        assert names == ["", "", "", sse.NEED_VOUCHER, sse.ERROR]
        assert seller.look(buyer.channel)["spent"] == OPEN_PRICE + 8

    def test_what_a_stream_did_not_deliver_is_given_back(self, shop, buyer, seller):
        opened(shop, buyer)
        asked = challenge_of(shop.get("/tokens?n=1"))
        with shop.client.stream("GET", "/tokens?n=1", headers=buyer.pay(3, asked)) as answer:
            assert [name for name, _ in events_of(answer)] == ["", sse.RECEIPT]
        assert seller.look(buyer.channel)["credit"] == 2
