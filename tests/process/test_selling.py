"""Aim: a seller gets what the door promises, and nobody else does; whatever is killed, what was charged is what was answered, once.
Method: real processes, two workers; sales over the Unix socket, over TCP and over TLS; kills under load."""

import random
import ssl
import stat
import subprocess
import sys
import threading
import time

import pytest

from paychan.core.channel import ChannelState
from paychan.core.sales import hash_key
from paychan.core.sender import sign_payment
from store.check import StoredRecords
from store.keys import STATE
from tests.ports import free_port
from tests.selling import SOCKET, Seller, channel_of, make_token, sell_changes, text_of, token_command, with_door
from tests.system import running, wait_until


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    changes = sell_changes(SOCKET, f"port = {free_port()}")
    with running(tmp_path_factory.mktemp("selling"), workers=2, changes=changes) as system:
        yield system


@pytest.fixture(scope="module")
def seller(system):
    made = Seller(system, make_token(system, "shop"))
    wait_until(lambda: (system.state_dir / "run" / "sell.sock").exists(), 20, "opening the sellers' door")
    return made


@pytest.fixture
def payer(system, request):
    made = system.payer(f"selling {request.node.name}")
    assert made.open(200_000).status == 201
    return made


def charge(payer, key, amount, pays=0, **more):
    """Return a sale; with a new payment if it pays."""
    sale = {"do": "charge", "channel": channel_of(payer), "key": key, "amount": amount, **more}
    if pays:
        payer.newest = payer.sender.pay(pays)
        sale["payment"] = text_of(payer.newest)
    return sale


def test_a_payment_and_a_charge_are_one(seller, payer):
    start = seller.look(channel_of(payer))
    assert start["spent"] + start["credit"] == start["received"] == 200_000 and start["phase"] == "open"
    answer = seller.ask(charge(payer, "one", 300, pays=300))
    assert answer.status == 200
    assert answer.json["purchase"] == {"number": 1, "asked": 300, "amount": 300, "until": 0}
    assert answer.json["value_received"] == 300 and answer.json["credit"] == start["credit"]
    after = seller.look(channel_of(payer))
    assert (after["received"], after["spent"]) == (200_300, start["spent"] + 300)
    assert after["received"] - after["spent"] == answer.json["credit"]


def test_the_same_again_is_answered_again_and_charged_once(seller, payer):
    sale = charge(payer, "one", 300, pays=300)
    first = seller.ask(sale).json
    again = [seller.ask(sale).json for _ in range(3)]
    assert [one["purchase"] for one in again] == [first["purchase"]] * 3
    assert [one["value_received"] for one in again] == [0, 0, 0]
    assert not first["repeated"] and all(one["repeated"] for one in again)
    assert seller.look(channel_of(payer))["spent"] == first["spent"]
    differs = seller.ask({**sale, "amount": 299})
    assert (differs.status, differs.code) == (409, "purchase_differs")


def test_without_credit_nothing_is_taken_not_even_the_payment(seller, payer):
    before = seller.look(channel_of(payer))
    refused = seller.ask(charge(payer, "dear", before["credit"] + 11, pays=10))
    assert (refused.status, refused.code) == (402, "insufficient_credit")
    assert refused.json["missing"] == 1 and refused.json["required"] == before["received"] + 11
    assert seller.look(channel_of(payer)) == before
    assert seller.ask(charge(payer, "dear", before["credit"] + 11, pays=1)).status == 200  # the newer payment says the whole
    assert seller.look(channel_of(payer))["credit"] == 0


def test_a_reservation_is_settled_at_what_was_used(seller, payer):
    before = seller.look(channel_of(payer))
    held = seller.ask({**charge(payer, "stream", 1000), "do": "reserve", "seconds": 60}).json
    assert held["purchase"]["until"] >= time.time() and held["credit"] == before["credit"] - 1000
    assert seller.look(channel_of(payer))["reserved"] == 1000
    settle = {"do": "settle", "channel": channel_of(payer), "key": "stream", "number": held["purchase"]["number"], "amount": 400}
    more = seller.ask({**settle, "amount": 1001})
    assert (more.status, more.code) == (409, "more_than_held")
    for times in range(2):
        settled = seller.ask(settle).json
        assert (settled["credit"], settled["repeated"]) == (before["credit"] - 400, times == 1)
    release = {"do": "release", "channel": channel_of(payer), "key": "stream", "number": held["purchase"]["number"]}
    for _ in range(2):
        assert seller.ask(release).json["credit"] == before["credit"]
    anew = seller.ask(charge(payer, "stream", 1000)).json  # what was given back whole is sold anew
    assert anew["purchase"]["number"] > held["purchase"]["number"]
    late = seller.ask(release)
    assert (late.status, late.code) == (404, "no_such_purchase")
    assert seller.look(channel_of(payer))["credit"] == before["credit"] - 1000


def test_what_was_taken_over_has_a_new_number_and_the_old_one_gives_nothing_back(seller, payer):
    before = seller.look(channel_of(payer))["credit"]
    sale = charge(payer, "one", 300)
    first = seller.ask(sale).json["purchase"]
    taken = seller.ask({**sale, "again": first["number"]}).json
    assert taken["repeated"] and taken["purchase"] == {**first, "number": first["number"] + 1}
    assert seller.ask(sale).json["purchase"] == taken["purchase"]  # on disk
    number = {"do": "release", "channel": channel_of(payer), "key": "one", "number": first["number"]}
    for late in (number, {**sale, "again": first["number"]}):
        answer = seller.ask(late)
        assert (answer.status, answer.code) == (404, "no_such_purchase")
    assert seller.look(channel_of(payer))["credit"] == before - 300
    assert seller.ask({**number, "number": taken["purchase"]["number"]}).json["credit"] == before
    anew = seller.ask({**sale, "again": first["number"]}).json
    assert not anew["repeated"] and anew["credit"] == before - 300


def test_a_reservation_that_is_taken_over_is_renewed(seller, payer):
    sale = {**charge(payer, "stream", 1000), "do": "reserve", "seconds": 60}
    held = seller.ask(sale).json["purchase"]
    longer = seller.ask({**sale, "seconds": 3600, "again": held["number"]}).json["purchase"]
    assert longer["until"] >= held["until"] + 3500 and longer["amount"] == 1000
    shorter = seller.ask({**sale, "seconds": 1, "again": longer["number"]}).json["purchase"]
    assert shorter["until"] == longer["until"] and shorter["number"] > longer["number"] > held["number"]


def test_a_reservation_falls_back_by_itself(seller, payer):
    before = seller.look(channel_of(payer))["credit"]
    held = seller.ask({**charge(payer, "short", 1000), "do": "reserve", "seconds": 1}).json
    wait_until(lambda: seller.look(channel_of(payer))["credit"] == before, 5, "falling back")
    settle = {"do": "settle", "channel": channel_of(payer), "key": "short", "number": held["purchase"]["number"], "amount": 1}
    assert seller.ask(settle).code == "more_than_held"
    assert seller.ask(charge(payer, "all", before)).status == 200
    assert seller.look(channel_of(payer))["credit"] == 0


def test_what_was_spent_is_kept_when_a_channel_is_settled(seller, payer):
    seller.ask(charge(payer, "one", 300, pays=300))
    spent = seller.look(channel_of(payer))["spent"]
    assert payer.close().status == 202
    closed = seller.look(channel_of(payer))
    assert closed["phase"] in ("signed", "broadcast", "settled") and closed["spent"] == spent
    assert seller.ask(charge(payer, "two", 1)).code in ("channel_closing", "no_such_payment")
    assert seller.ask(charge(payer, "one", 300)).json["purchase"]["amount"] == 300  # bought before


def test_a_payment_that_gives_up_everything_buys_and_closes(seller, payer):
    sale = charge(payer, "last", 5000, pays=payer.sender.change_value)
    first = seller.ask(sale).json
    assert first["channel_value_left"] == 0
    assert seller.ask(sale).json["purchase"] == first["purchase"]
    wait_until(lambda: seller.look(channel_of(payer))["phase"] != "open", 10, "closing")


def test_a_payer_that_lost_its_state_gets_it_back_by_a_worthless_payment(seller, payer):
    sold = seller.ask(charge(payer, "one", 300, pays=300)).json
    worthless = sign_payment(payer.sender.terms, payer.sender.terms.funding_value, payer.sender.key)
    stale = seller.ask({**charge(payer, "two", 1), "payment": text_of(worthless)})
    assert (stale.status, stale.code) == (400, "out_of_order")
    ask = {"do": "snapshot", "channel": channel_of(payer), "payment": text_of(worthless)}
    snapshot = seller.ask(ask).json
    assert snapshot["payment"] == text_of(payer.newest)
    assert (snapshot["received"], snapshot["spent"]) == (sold["received"], sold["spent"])
    assert snapshot["client_pubkey"] == payer.sender.terms.client_pubkey.hex()
    stranger = text_of(type(worthless)(worthless.change_value - 1, worthless.signature, 0x83))
    refused = seller.ask({**ask, "payment": stranger})
    assert (refused.status, refused.code) == (400, "bad_signature") and "payment" not in refused.json


def test_many_sales_for_channels_of_both_workers_in_one_request(system, seller):
    payers = [system.payer(f"batch {number}") for number in range(8)]
    assert [payer.open(200_000).status for payer in payers] == [201] * 8
    sales = [charge(payer, f"{number}", 10 + number, pays=10 + number) for number in range(8) for payer in payers]
    sales.insert(5, {"do": "charge"})
    answer = seller.ask(*sales)
    assert answer.status == 200
    told = answer.json
    assert [one["status"] for one in told] == [200] * 5 + [400] + [200] * 59
    assert told[5]["code"] == "missing_parameter"
    for payer in payers:
        assert seller.look(channel_of(payer))["received"] == 200_000 + sum(range(10, 18))


def test_open_channels_are_listed_page_by_page(system, seller, payer):
    found, after = [], ""
    while after is not None:
        page = seller.request("GET", f"/v1/sell/channels?limit=3{'&after=' + after if after else ''}").json
        found += page["channels"]
        after = page["next"]
    names = [row["channel"] for row in found]
    assert channel_of(payer) in names and len(set(names)) == len(names)
    assert [row["exp_time"] for row in found] == sorted(row["exp_time"] for row in found)
    assert {row["phase"] for row in found} == {"open"}


def test_a_backup_has_what_was_sold(system, seller, payer, tmp_path):
    """Taken while the store runs; restored, it sells on from there, and nothing is charged that was charged before."""
    sold = seller.ask(charge(payer, "one", 300, pays=300)).json
    for command in (
        ["backup", system.store_place, str(tmp_path / "kept")],
        ["restore", str(tmp_path / "kept"), str(tmp_path / "restored")],
        ["audit", str(tmp_path / "restored")],
    ):
        done = subprocess.run([sys.executable, "-m", "store", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("no problems\n")
    records = StoredRecords(tmp_path / "restored" / "store" / "db")
    (record,) = records.get([STATE + payer.sender.terms.outpoint])
    records.close()
    sales = ChannelState.parse(record).sales
    assert (sales.spent, sales.purchases[0].held, sales.purchases[0].key) == (sold["spent"], 300, hash_key("one"))


# --- who may ask ---


def test_only_who_shows_a_token_is_answered_and_only_what_it_is_for(system, seller, payer):
    sale = charge(payer, "one", 1)
    for wrong, code in (("", "token_missing"), ("pct_" + "A" * 43, "token_unknown"), ("\xe4", "token_unknown")):
        answer = Seller(system, wrong).ask(sale)
        assert (answer.status, answer.code) == (401, code) and answer.headers["www-authenticate"] == "Bearer"
    two = Seller(system, make_token(system, "two")).request("GET", "/v1/sell/channels", headers={"authorization": "Bearer x"})
    assert two.status == 401
    reader = Seller(system, make_token(system, "reader", "read"))
    assert reader.look(channel_of(payer))["phase"] == "open"
    assert (reader.ask(sale).status, reader.ask(sale).code) == (403, "token_scope")
    assert seller.look(channel_of(payer))["spent"] == reader.look(channel_of(payer))["spent"] < 200_000


def test_tokens_are_made_listed_and_revoked(system):
    token = make_token(system, "passing")
    file = system.state_dir / "sell-tokens"
    assert token not in file.read_text() and stat.S_IMODE(file.stat().st_mode) == 0o600
    passing = Seller(system, token)
    assert passing.request("GET", "/v1/sell/channels?limit=1").status == 200
    assert "passing charge" in token_command(system, "list").stdout.splitlines()
    assert token_command(system, "add", "passing", "--scope", "read").returncode == 1
    assert token_command(system, "revoke", "passing").returncode == 0
    assert passing.request("GET", "/v1/sell/channels?limit=1").code == "token_unknown"
    assert token_command(system, "revoke", "passing").returncode == 1


def test_a_damaged_file_of_tokens_opens_the_door_to_nobody(system, seller):
    file = system.state_dir / "sell-tokens"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole + b"nonsense\n")
        assert seller.request("GET", "/v1/sell/channels").code == "token_unknown"
        file.unlink()
        assert seller.request("GET", "/v1/sell/channels").code == "token_unknown"
    finally:
        file.write_bytes(whole)
    assert seller.request("GET", "/v1/sell/channels").status == 200


def test_the_public_ports_know_nothing_of_it(system):
    client = system.client()
    assert client.request("POST", "/v1/sell").status == 404
    assert client.request("GET", "/v1/sell/channels").status == 404


def test_over_tcp(system, payer):
    text = (system.config_dir / "server.toml").read_text()
    port = int(text.partition("[sell]")[2].partition("port = ")[2].partition("\n")[0])
    over = Seller(system, make_token(system, "tcp"), port)
    assert over.ask(charge(payer, "tcp", 7)).status == 200


def test_over_tls(tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
        + ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no openssl command here")
    key.chmod(0o600)
    port = free_port()
    lines = f"port = {port}", f'tls_certificate = "{certificate}"', f'tls_key = "{key}"'
    with running(tmp_path / "system", changes=sell_changes(*lines)) as system:
        payer = system.payer("tls")
        assert payer.open(200_000).status == 201
        token = make_token(system, "tls")
        over = Seller(system, token, port, ssl.create_default_context(cafile=certificate))
        assert over.ask(charge(payer, "tls", 7)).status == 200
        with pytest.raises(ConnectionError):
            Seller(system, token, port).look("x")  # plain text is not understood
        assert token not in "".join(system.output) and text_of(payer.newest) not in "".join(system.output)


# --- what is no sale ---

TXID = "ab" * 32
GOOD = {"do": "charge", "channel": f"{TXID}/0", "key": "k", "amount": 1}
BAD = {
    "no JSON": (b"{", "invalid_sale"),
    "not UTF-8": (b'{"do":"\xff"}', "invalid_sale"),
    "half a surrogate": (b'{"do":"charge","channel":"' + f"{TXID}/0".encode() + b'","key":"\\ud800","amount":1}', "invalid_sale"),
    "a number": (b"7", "invalid_sale"),
    "an empty list": (b"[]", "invalid_sale"),
    "nothing": (b"", "invalid_sale"),
    "too many": (b"[" + b",".join([b"{}"] * 257) + b"]", "invalid_sale"),
    "deeply nested": (b"[" * 5000 + b"]" * 5000, "invalid_sale"),
    "no verb": ({**GOOD, "do": "take"}, "invalid_sale"),
    "a verb that is no text": ({**GOOD, "do": ["charge"]}, "invalid_sale"),
    "no key": ({name: value for name, value in GOOD.items() if name != "key"}, "missing_parameter"),
    "an unknown member": ({**GOOD, "tip": 1}, "invalid_sale"),
    "a member of another verb": ({**GOOD, "number": 1}, "invalid_sale"),
    "an amount of nothing": ({**GOOD, "amount": 0}, "invalid_sale"),
    "a negative amount": ({**GOOD, "amount": -1}, "invalid_sale"),
    "half a satoshi": ({**GOOD, "amount": 0.5}, "invalid_sale"),
    "an amount as text": ({**GOOD, "amount": "1"}, "invalid_sale"),
    "an amount that is true": ({**GOOD, "amount": True}, "invalid_sale"),
    "more than all bitcoins": ({**GOOD, "amount": 21 * 10**14 + 1}, "invalid_sale"),
    "an amount of 64 bits": ({**GOOD, "amount": 2**64}, "invalid_sale"),
    "an empty key": ({**GOOD, "key": ""}, "invalid_sale"),
    "a long key": ({**GOOD, "key": "k" * 129}, "invalid_sale"),
    "a key that is no text": ({**GOOD, "key": None}, "invalid_sale"),
    "a short txid": ({**GOOD, "channel": f"{TXID[1:]}/0"}, "invalid_txid"),
    "an index with a zero before it": ({**GOOD, "channel": f"{TXID}/00"}, "invalid_vout"),
    "no index": ({**GOOD, "channel": TXID}, "invalid_vout"),
    "a channel that is no text": ({**GOOD, "channel": 7}, "invalid_sale"),
    "a payment that is no base64": ({**GOOD, "payment": "!"}, "invalid_base64"),
    "a payment that is none": ({**GOOD, "payment": "AAAA"}, "invalid_payment"),
    "a payment that is null": ({**GOOD, "payment": None}, "invalid_sale"),
    "no such channel": (GOOD, "no_such_channel"),
    "a purchase 0 again": ({**GOOD, "again": 0}, "invalid_sale"),
    "a purchase again that is true": ({**GOOD, "again": True}, "invalid_sale"),
    "an attempt 0": ({**GOOD, "attempt": 0}, "invalid_sale"),
    "an attempt of 24 bits": ({**GOOD, "attempt": 2**23}, "invalid_sale"),
    "an attempt as text": ({**GOOD, "attempt": "7"}, "invalid_sale"),
    "a settlement's attempt": ({**GOOD, "do": "settle", "number": 1, "attempt": 7}, "invalid_sale"),
    "a settlement again": ({**GOOD, "do": "settle", "number": 1, "again": 1}, "invalid_sale"),
    "a reservation without end": ({**GOOD, "do": "reserve"}, "missing_parameter"),
    "a reservation for a moment": ({**GOOD, "do": "reserve", "seconds": 0}, "invalid_sale"),
    "a reservation for days": ({**GOOD, "do": "reserve", "seconds": 86401}, "invalid_sale"),
    "a settlement without a number": ({**GOOD, "do": "settle"}, "missing_parameter"),
    "a settlement of purchase 0": ({**GOOD, "do": "settle", "number": 0}, "invalid_sale"),
    "a release with an amount": ({**GOOD, "do": "release", "number": 1}, "invalid_sale"),
    "a snapshot without a payment": ({"do": "snapshot", "channel": f"{TXID}/0"}, "missing_parameter"),
}


@pytest.mark.parametrize(("sale", "code"), BAD.values(), ids=BAD)
def test_bad_input_is_told_and_changes_nothing(seller, sale, code):
    answer = seller.request("POST", "/v1/sell", sale) if isinstance(sale, bytes) else seller.ask(sale)
    assert (answer.code, answer.status) == (code, 404 if code == "no_such_channel" else 400)
    assert answer.json["status"] == answer.status and answer.headers["cache-control"] == "no-store"


ROUTES = {
    "another path": ("GET", "/v1/sell/wares", "no_such_route", 404),
    "another method": ("DELETE", "/v1/sell/channels", "no_such_route", 404),
    "a payment that is none": ("PUT", f"/v1/channels/{TXID}/0?payment=AAAA", "invalid_payment", 400),
    "what v1 has beside channels": ("GET", "/v1/fundingInfo", "no_such_route", 404),
    "an unknown channel": ("GET", f"/v1/sell/channels/{TXID}/0", "no_such_channel", 404),
    "no channel": ("GET", "/v1/sell/channels/x", "invalid_txid", 400),
    "a limit of nothing": ("GET", "/v1/sell/channels?limit=0", "invalid_sale", 400),
    "a limit beyond": ("GET", "/v1/sell/channels?limit=501", "invalid_sale", 400),
    "a cursor of ours no more": ("GET", "/v1/sell/channels?after=00", "invalid_sale", 400),
}


@pytest.mark.parametrize(("method", "target", "code", "status"), ROUTES.values(), ids=ROUTES)
def test_bad_requests(seller, method, target, code, status):
    answer = seller.request(method, target)
    assert (answer.code, answer.status) == (code, status)


def test_the_terms_are_told(system, seller):
    terms = seller.request("GET", "/v1/sell/terms").json
    assert terms["server_pubkey"] == system.server_pubkey.hex() and terms["channel_type"] == "p2sh-cltv-1"
    assert terms["chain"] == "bip122:000000000933ea01ad0ee984209779ba" and terms["debug"] is True and terms["api"] is None
    assert (terms["dust_limit"], terms["settlement_period"], terms["duration_min"]) == (700, 6 * 3600, 3600)
    assert (terms["open_price"], terms["funding_tx_min_conf"]) == (83_240, 0)
    assert terms["duration_max"] == (876_000 - 6) * 3600 and terms["funding_value_max"] > 0


def test_a_seller_opens_pays_and_closes_for_a_payer(system, seller):
    payer = system.payer("by the seller's door")
    payment = payer.sender.pay(200_000)
    opened = seller.request("POST", payer.sender.open_target(payment))
    assert opened.status == 201 and opened.json["value_received"] == 200_000
    newer = payer.sender.pay(10)
    paid = seller.request("PUT", payer.sender.channel_target(newer))
    assert (paid.status, paid.json["value_received"]) == (200, 10)
    assert seller.look(channel_of(payer))["received"] == 200_010
    assert seller.request("POST", payer.sender.open_target(payment)).code == "channel_exists"
    assert seller.request("DELETE", payer.sender.channel_target(newer)).status == 202


def test_what_a_reading_token_may_not(system, seller, payer):
    reader = Seller(system, make_token(system, "terms-reader", "read"))
    assert reader.request("GET", "/v1/sell/terms").status == 200
    for method in ("PUT", "DELETE", "POST"):
        refused = reader.request(method, payer.sender.channel_target(payer.newest))
        assert (refused.status, refused.code) == (403, "token_scope")
    assert seller.look(channel_of(payer))["phase"] == "open"


def test_programs_of_the_same_user_find_a_token_beside_the_socket(system):
    cookie = system.state_dir / "run" / "sell.cookie"
    assert stat.S_IMODE(cookie.stat().st_mode) == 0o600
    assert Seller(system, cookie.read_text().strip()).request("GET", "/v1/sell/terms").status == 200
    assert Seller(system, cookie.read_text().strip() + "x").request("GET", "/v1/sell/terms").code == "token_unknown"


def test_a_body_that_is_too_long_is_not_read(seller):
    with pytest.raises(ConnectionError):
        answer = seller.request("POST", "/v1/sell", b" " * 300_000)
        assert (answer.status, answer.code) == (413, "body_too_large")
        raise ConnectionError  # which of the two, the kernel decides


# --- kills ---


class Buyer(threading.Thread):
    """Buys, is reserved for, and gets back, on one channel, one after the other; repeats what was not answered."""

    def __init__(self, system, token, number, seed):
        super().__init__()
        self.payer = system.payer(f"kills {number}")
        assert self.payer.open(200_000).status == 201
        self.seller, self.rng = Seller(system, token), random.Random(f"{seed} {number}")
        self.begin = self.seller.look(channel_of(self.payer))["spent"]
        self.paid, self.charged, self.purchases, self.attempts = 200_000, 0, 0, 0
        self.is_over, self.problem = False, ""

    def run(self):
        try:
            while not self.is_over:
                self.buy()
        except Exception as error:
            self.problem = repr(error)

    def buy(self):
        amount, key = self.rng.randrange(1, 50), f"{self.purchases} {self.name}"
        self.paid += amount
        sale = charge(self.payer, key, amount, pays=amount)
        reserves = self.rng.random() < 0.3
        answer, attempts = self.seller.persist({**sale, "do": "reserve", "seconds": 600} if reserves else sale)
        assert answer.status == 200, answer.json
        kept = amount
        if reserves or self.rng.random() < 0.3:
            kept = self.rng.randrange(amount + 1)
            number = answer.json["purchase"]["number"]
            settle = {"do": "settle", "channel": channel_of(self.payer), "key": key, "number": number, "amount": kept}
            answer, more = self.seller.persist(settle)
            attempts += more - 1
            assert answer.status == 200, answer.json
        assert answer.json["purchase"]["amount"] == kept
        self.charged += kept
        self.purchases += 1
        self.attempts += attempts - 1

    def judge(self):
        """What was answered is what is on disk, each purchase once."""
        found = self.seller.look(channel_of(self.payer))
        assert self.problem == ""
        assert (found["received"], found["spent"], found["reserved"]) == (self.paid, self.begin + self.charged, 0)


def test_what_was_charged_is_what_was_answered_whatever_is_killed(tmp_path):
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    with with_door(tmp_path, workers=2) as system:
        token = make_token(system, "kills")
        buyers = [Buyer(system, token, number, seed) for number in range(4)]
        for buyer in buyers:
            buyer.start()
        for victim in ("store", "worker", "store", "server", "worker", "store"):
            time.sleep(rng.uniform(0.1, 0.5))
            system.kill(victim)
            before = [buyer.purchases for buyer in buyers]
            wait_until(
                lambda before=before: all(b.problem or b.purchases > n + 1 for b, n in zip(buyers, before, strict=True)),
                30,
                f"selling on after {victim} was killed (seed {seed})",
            )
        for buyer in buyers:
            buyer.is_over = True
        for buyer in buyers:
            buyer.join(60)
            buyer.judge()
        assert sum(buyer.attempts for buyer in buyers) > 0, "no kill met a sale"
        system.stop()
        checked = subprocess.run(
            [sys.executable, "-m", "store", "audit", system.store_place], capture_output=True, text=True, check=False
        )
        assert checked.stdout.endswith("no problems\n"), checked.stdout + checked.stderr
