"""Aim: the three calls of an x402 facilitator take money once, change nothing when they only look, and refuse what is forged,
replayed, stale or for somebody else. Method: a real system with two workers; each call over the sellers' port.
"""

import json
import threading

import pytest

from paychan.core.sender import sign_payment
from tests.ports import free_port
from tests.selling import Seller, channel_of, make_token, sell_changes, text_of
from tests.system import running, wait_until
from tests.x402_parts import Facilitator, channel_id, opening, voucher

OPENED = 200_000


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def system(tmp_path_factory, port):
    with running(tmp_path_factory.mktemp("x402"), workers=2, changes=sell_changes(f"port = {port}")) as system:
        yield system


@pytest.fixture(scope="module")
def token(system):
    return make_token(system, "shop")


@pytest.fixture
def seller(system, port, token):
    made = Seller(system, token, port)

    def is_open():
        try:
            return made.request("GET", "/x402/supported").status == 200
        except ConnectionError:
            return False

    wait_until(is_open, 20, "opening the sellers' door")
    return made


@pytest.fixture
def shop(seller):
    return Facilitator(seller)


@pytest.fixture
def payer(system, request):
    made = system.payer(f"x402 {request.node.name}")
    assert made.open(OPENED).status == 201
    return made


def spend_all(shop, payer):
    """Use up the credit that opening the channel has left."""
    left = shop.seller.look(channel_of(payer))["credit"]
    answer = shop.seller.ask({"do": "charge", "channel": channel_of(payer), "key": "rest", "amount": left})
    assert answer.json["credit"] == 0


# --- supported ---


def test_what_is_supported_says_all_that_a_payer_needs(shop, system):
    kind = shop.kind
    assert (kind["x402Version"], kind["scheme"]) == (2, "batch-settlement")
    assert kind["network"].startswith("bip122:") and len(kind["network"]) == 39
    told = kind["extra"]
    assert told["payTo"] == system.server_pubkey.hex() and told["paymentFlow"] == "upfront"
    assert told["channelType"] == "p2sh-cltv-1" and int(told["openPrice"]) > 0 and told["dustLimit"] == "700"
    assert told["chain"] == kind["network"]


# --- settle ---


def test_a_payment_is_taken_and_charged_for(shop, payer):
    spend_all(shop, payer)
    done = shop.settle(7, voucher(payer, payer.sender.pay(7)))
    assert done["success"] and done["amount"] == "7" and done["payer"] == payer.sender.terms.client_pubkey.hex()
    after = shop.seller.look(channel_of(payer))
    assert (after["received"], after["spent"]) == (OPENED + 7, OPENED + 7)
    assert done["transaction"] == f"{channel_id(payer)}:{OPENED + 7}"
    state = done["extra"]["channelState"]
    assert (state["accepted"], state["spent"]) == (str(OPENED + 7), str(OPENED + 7))
    assert state["deposit"] == str(payer.sender.terms.funding_value)


def test_the_same_payment_again_buys_nothing_unless_the_seller_made_the_attempt_that_has_bought(shop, payer):
    spend_all(shop, payer)
    shown = voucher(payer, payer.sender.pay(7))
    first = shop.settle(7, shown, attempts=[5])
    for attempts in ([], [6], [6, 7, 2**23 - 1]):
        again = shop.settle(7, shown, attempts=attempts)
        assert (again["success"], again["errorReason"]) == (False, "already_served")
    assert again["extra"]["voucherState"]["payment"] == shown["payment"]
    repeated = shop.settle(7, shown, attempts=[8, 7, 5])
    assert repeated["extra"]["purchase"] == first["extra"]["purchase"]
    assert (first["success"], first["extra"]["repeated"]) == (True, False)
    assert (repeated["success"], repeated["extra"]["repeated"]) == (True, True)
    assert shop.seller.look(channel_of(payer))["spent"] == OPENED + 7
    assert shop.settle(6, shown)["errorReason"] == "purchase_differs"  # at a route of another price


def test_a_payer_cannot_say_that_it_repeats(shop, payer):
    spend_all(shop, payer)
    shown = voucher(payer, payer.sender.pay(7), attempts=[5], release=1, extra={"attempts": [5]})
    assert shop.settle(7, shown, attempts=[5])["success"]
    assert shop.settle(7, shown)["errorReason"] == "already_served"
    assert shop.seller.look(channel_of(payer))["spent"] == OPENED + 7


def test_another_purchase_by_the_same_payment_is_paid_from_credit_or_refused(shop, payer):
    spend_all(shop, payer)
    payment = payer.sender.pay(15)
    assert shop.settle(7, voucher(payer, payment, purchase="1"))["success"]
    assert shop.settle(7, voucher(payer, payment, purchase="2"))["success"]
    short = shop.settle(7, voucher(payer, payment, purchase="3"))
    assert (short["success"], short["errorReason"]) == (False, "insufficient_credit")
    assert short["extra"]["channelState"]["spent"] == str(OPENED + 14)


def test_of_many_who_show_one_payment_at_once_one_buys(system, shop, payer, port):
    spend_all(shop, payer)
    shown, token = voucher(payer, payer.sender.pay(7)), make_token(system, "crowd")
    crowd = [Facilitator(Seller(system, token, port)) for _ in range(8)]
    answers: list[dict] = []
    threads = [threading.Thread(target=lambda one=one: answers.append(one.settle(7, shown))) for one in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer["success"] for answer in answers) == [False] * 7 + [True]
    assert {answer.get("errorReason") for answer in answers} == {None, "already_served"}
    assert shop.seller.look(channel_of(payer))["spent"] == OPENED + 7


def test_a_channel_is_opened_and_the_first_thing_bought_with_one_payment(shop, system):
    payer = system.payer("x402 opens")
    price = int(shop.kind["extra"]["openPrice"])
    shown = opening(payer, payer.sender.pay(price + 9))
    done = shop.settle(9, shown)
    assert done["success"], done
    after = shop.seller.look(channel_of(payer))
    assert (after["received"], after["spent"]) == (price + 9, price + 9)
    assert shop.settle(9, shown)["errorReason"] == "already_served"
    assert shop.settle(9, voucher(payer, payer.sender.pay(9)))["success"]


def test_an_opening_that_does_not_reach_is_told_what_is_missing(shop, system):
    payer = system.payer("x402 opens short")
    price = int(shop.kind["extra"]["openPrice"])
    short = shop.settle(9, opening(payer, payer.sender.pay(price + 8)))
    assert (short["success"], short["errorReason"]) == (False, "insufficient_credit")
    assert short["extra"]["channelState"]["accepted"] == str(price + 8)
    assert shop.settle(9, voucher(payer, payer.sender.pay(1)))["success"]
    early = system.payer("x402 opens shorter")
    assert shop.settle(9, opening(early, early.sender.pay(1)))["errorReason"] == "open_price_short"


def test_what_a_handler_did_not_serve_is_given_back_and_can_be_bought_again(shop, payer):
    spend_all(shop, payer)
    shown = voucher(payer, payer.sender.pay(7))
    number = shop.settle(7, shown)["extra"]["purchase"]
    for _ in range(2):
        back = shop.settle(7, shown, release=number)
        assert back["success"] and back["amount"] == "0"
        assert back["extra"]["channelState"]["spent"] == str(OPENED)
    assert shop.settle(7, shown)["success"]
    assert shop.settle(7, shown)["errorReason"] == "already_served"
    late = shop.settle(7, shown, release=number)  # it means the first one: the second may be served
    assert (late["success"], late["errorReason"]) == (False, "no_such_purchase")
    assert shop.seller.look(channel_of(payer))["spent"] == OPENED + 7
    never = shop.settle(7, voucher(payer, payer.sender.pay(7)), release=number)
    assert (never["success"], never["errorReason"]) == (False, "no_such_purchase")


def test_what_another_attempt_has_bought_is_not_given_back_by_who_made_one_before(shop, payer):
    spend_all(shop, payer)
    shown = voucher(payer, payer.sender.pay(7))
    mine = shop.settle(7, shown, attempts=[5])["extra"]["purchase"]
    assert shop.settle(7, shown, release=mine)["success"]
    theirs = shop.settle(7, shown, attempts=[6])["extra"]["purchase"]
    late = shop.settle(7, shown, release=mine)
    assert theirs != mine and late.get("errorReason") == "no_such_purchase"
    assert shop.settle(7, shown, attempts=[7, 5]).get("errorReason") == "already_served"
    assert shop.seller.look(channel_of(payer))["spent"] == OPENED + 7
    assert shop.settle(7, shown, release=theirs)["success"]
    assert shop.seller.look(channel_of(payer))["spent"] == OPENED


def test_closing_settles_and_is_no_purchase(shop, payer):
    spend_all(shop, payer)
    payment = payer.sender.pay(7)
    assert shop.settle(7, voucher(payer, payment))["success"]
    stale = sign_payment(payer.sender.terms, payment.change_value + 1, payer.sender.key)
    refused = shop.settle(7, voucher(payer, stale, "refund"))
    assert (refused["success"], refused["errorReason"]) == (False, "not_newest_payment")
    for _ in range(2):
        closed = shop.settle(7, voucher(payer, payment, "refund"))
        assert (closed["success"], closed["errorReason"]) == (False, "channel_closed")
        assert len(closed["transaction"]) == 64 and closed["extra"]["final"]
    after = shop.settle(7, voucher(payer, payer.sender.pay(7)))
    assert after["errorReason"] in ("channel_closing", "no_such_payment")


# --- what is refused ---


def test_forged_and_stale_payments_buy_nothing(shop, payer, system):
    spend_all(shop, payer)
    before = shop.seller.look(channel_of(payer))
    stranger = system.payer("x402 stranger")
    forged = sign_payment(payer.sender.terms, payer.sender.change_value - 7, stranger.sender.key)
    for call in (shop.settle, shop.verify):
        told = call(7, voucher(payer, forged))
        assert (told.get("errorReason") or told["invalidReason"]) == "bad_signature" and told["extra"] is None
        stale = sign_payment(payer.sender.terms, payer.sender.terms.funding_value, payer.sender.key)
        told = call(7, voucher(payer, stale))
        assert (told.get("errorReason") or told["invalidReason"]) == "out_of_order"
        newest = told["extra"]["voucherState"]["payment"]  # only for who has signed: it closes the channel
        assert newest == text_of(sign_payment(payer.sender.terms, payer.sender.change_value, payer.sender.key))
        assert told["extra"]["channelState"]["accepted"] == str(before["received"])
    assert shop.seller.look(channel_of(payer)) == before


def test_looking_changes_nothing(shop, payer):
    spend_all(shop, payer)
    before = shop.seller.look(channel_of(payer))
    payment = payer.sender.pay(7)
    assert shop.verify(7, voucher(payer, payment))["isValid"]
    assert shop.verify(8, voucher(payer, payment))["invalidReason"] == "insufficient_credit"
    assert shop.seller.look(channel_of(payer)) == before


def test_a_payment_far_ahead_is_refused_for_its_rest_would_be_lost(shop, payer):
    spend_all(shop, payer)
    payment = payer.sender.pay(7 * 21 + 1)
    for told in (shop.settle(7, voucher(payer, payment)), shop.verify(7, voucher(payer, payment))):
        assert (told.get("errorReason") or told["invalidReason"]) == "prepay_too_large"
    assert shop.settle(7, voucher(payer, payment), maxPrepay="141")["success"]


def test_the_last_satoshis_may_be_given_up_whole(shop, payer):
    spend_all(shop, payer)
    rest = payer.sender.change_value
    most = shop.settle(rest - 600, voucher(payer, payer.sender.pay(rest)))
    assert most["success"], most
    wait_until(lambda: shop.seller.look(channel_of(payer))["phase"] != "open", 10, "closing")


MALFORMED = {
    "no payload": (None, "malformed_credential"),
    "no type": ({"type": None}, "unknown_action"),
    "a list for a type": ({"type": []}, "unknown_action"),
    "topUp": ({"type": "topUp"}, "unknown_action"),
    "no channel": ({"channelId": None}, "invalid_member"),
    "a slash": ({"channelId": "00" * 32 + "/0"}, "invalid_member"),
    "capitals": ({"channelId": "AA" * 32 + ":0"}, "invalid_member"),
    "no payment": ({"payment": 7}, "invalid_base64"),
    "half a payment": ({"payment": "AAAA"}, "invalid_payment"),
    "an unknown channel": ({"channelId": "00" * 32 + ":0"}, "no_such_channel"),
    "a purchase that is none": ({"purchase": 7}, "invalid_member"),
    "a long purchase": ({"purchase": "x" * 65}, "invalid_member"),
    "an opening without a key": ({"type": "open"}, "missing_member"),
}


@pytest.mark.parametrize("change, reason", MALFORMED.values(), ids=MALFORMED)
def test_malformed_payments_are_answered(shop, payer, change, reason):
    payload = None if change is None else {**voucher(payer, payer.sender.pay(7)), **change}
    for call, name in ((shop.settle, "errorReason"), (shop.verify, "invalidReason")):
        told = call(7, payload)
        assert told[name] == reason or (call == shop.verify and told[name] == "unknown_action"), told


def test_questions_for_another_server_are_refused(shop, payer):
    shown = voucher(payer, payer.sender.pay(7))
    right = shop.requirements(7)
    for name, value in (
        ("scheme", "exact"),
        ("network", "bip122:000000000019d6689c085ae165831e93"),
        ("asset", "usd"),
        ("payTo", "02" + "00" * 32),
        ("amount", "0"),
        ("amount", "07"),
        ("amount", 7),
        ("amount", "2100000000000001"),
        ("extra", []),
        ("extra", {"maxPrepay": "-1"}),
        ("extra", {"release": True}),
        ("extra", {"release": -1}),
        ("extra", {"release": "7"}),
        ("extra", {"release": 2**63}),
    ):
        for call in ("settle", "verify"):
            answer = shop.ask(call, {**right, name: value}, shown)
            assert (answer.status, answer.code) == (400, "invalid_sale"), (name, value)
    for content in ([], None, 7, {}, {"x402Version": 1}, {"x402Version": True}, {"x402Version": 2, "paymentRequirements": 7}):
        assert shop.post("settle", content).status == 400
    assert shop.seller.request("POST", "/x402/settle", b"{").code == "invalid_sale"
    dearer = {"x402Version": 2, "payload": shown, "accepted": shop.requirements(6)}
    answer = shop.post("settle", {"x402Version": 2, "paymentPayload": dearer, "paymentRequirements": right})
    assert answer.json["errorReason"] == "invalid_challenge"
    assert shop.seller.look(channel_of(payer))["received"] == OPENED


def test_only_who_shows_a_token_is_answered(system, shop, payer, port):
    spend_all(shop, payer)
    wants, shown = shop.requirements(7), voucher(payer, payer.sender.pay(7))
    for token, status in (("", 401), ("pct_wrong", 401)):
        stranger = Seller(system, token, port)
        assert stranger.request("GET", "/x402/supported").status == status
        for call in ("settle", "verify"):
            assert stranger.request("POST", f"/x402/{call}", json.dumps({}).encode()).status == status
    reader = Facilitator(Seller(system, make_token(system, "reader", "read"), port))
    assert reader.ask("settle", wants, shown).code == "token_scope"
    assert reader.ask("verify", wants, shown).json["isValid"]
    assert shop.seller.request("PUT", "/x402/settle").code == "no_such_route"
    assert shop.seller.look(channel_of(payer))["received"] == OPENED
