"""Aim: the JavaScript client of 2016 works unchanged.

Method: its requests and its checks, as described in docs/PROTOCOL.md, in our own words: the same headers, the same
query order, unpadded payments, `test=undefined`, the paths taken from each Location, its own books kept by `value_received`.
"""

import base64
import http.client
import json
from hashlib import sha256
from urllib.parse import urlsplit

import pytest
from coincurve import PrivateKey

from paychan._fast.sighash import payment_sighash
from paychan.chain.debug import DEBUG_FUNDING_VALUE
from paychan.core.channel import ChannelTerms
from paychan.core.network import TEST
from paychan.core.payment import Payment
from paychan.core.script import funding_address, redeem_script
from tests.settled import settled_change
from tests.system import CHANGE_ADDRESS, DOORS, System, make_sender, running

CLOCK_START = 1_795_329_876
EXP_TIME = CLOCK_START + 7 * 24 * 3600
CLIENTS_DUST_LIMIT = 500
OPEN_AMOUNT = 100_000


class Client2016:
    """The client of paychanjs-client c92cc98: what it sends, what it believes, and when it gives up."""

    def __init__(self, endpoint: str, terms: ChannelTerms, key: PrivateKey, is_debug: bool = False) -> None:
        self.endpoint, self.terms, self.key = endpoint, terms, key
        self.test = "true" if is_debug else "undefined"
        self.change_value = terms.funding_value
        self.open_url = self.channel_url = ""
        self.newest = ""
        self._connection: http.client.HTTPConnection | None = None

    def _request(self, method: str, url: str) -> tuple[int, dict, dict[str, str]]:
        """One request on a kept connection to wherever `url` points, with the only headers that it ever sends."""
        parts = urlsplit(url)
        assert (parts.scheme, bool(parts.netloc)) == ("http", True), "its URL library needs an absolute one"
        if self._connection is None or self._connection.port != parts.port:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=15)
        self._connection.putrequest(method, f"{parts.path}?{parts.query}", skip_host=True, skip_accept_encoding=True)
        self._connection.putheader("Host", parts.netloc)
        self._connection.putheader("Connection", "keep-alive")
        if method != "GET":
            self._connection.putheader("Content-Length", "0")
        self._connection.endheaders()
        answer = self._connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        body = answer.read()
        assert "application/json" in headers["content-type"].lower() or answer.status >= 400, "Invalid server response"
        return answer.status, json.loads(body), headers

    def _sign(self, amount: int) -> str:
        """Sign what would be left; below its own dust limit it gives up everything."""
        left = self.change_value - amount
        sighash_type = 0x83 if left >= CLIENTS_DUST_LIMIT else 0x82
        left = left if sighash_type == 0x83 else 0
        terms = self.terms
        digest = payment_sighash(terms.outpoint, terms.redeem_script, terms.change_script, left, sighash_type)
        raw = Payment(left, self.key.sign(digest, hasher=None), sighash_type).serialize()
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    def get_funding_info(self) -> dict:
        keys = f"client_pubkey={self.terms.client_pubkey.hex()}&exp_time={self.terms.exp_time}"
        status, info, headers = self._request("GET", f"{self.endpoint}/v1/fundingInfo?{keys}")
        assert status == 200
        own = funding_address(
            TEST, redeem_script(bytes.fromhex(info["server_pubkey"]), self.terms.client_pubkey, self.terms.exp_time)
        )
        assert info["funding_address_copy"] == own
        assert any(info[key] for key in ("open_price", "funding_tx_min_conf", "settlement_period_hours"))
        self.open_url = headers["location"].split("?")[0]
        return info

    def open(self, amount: int) -> int:
        payment = self._sign(amount)
        status, result, headers = self._request(
            "POST",
            f"{self.open_url}?client_pubkey={self.terms.client_pubkey.hex()}&exp_time={self.terms.exp_time}"
            f"&change_address={CHANGE_ADDRESS}&test={self.test}&payment={payment}",
        )
        if status == 409:
            self.channel_url = headers["location"]
            raise FileExistsError
        assert status in (201, 202)
        assert result["channel_status"]
        if status == 201:
            self.channel_url = headers["location"]
        return self._book(result, payment)

    def pay(self, amount: int) -> int:
        payment = self._sign(amount)
        status, result, _ = self._request("PUT", f"{self.channel_url}?payment={payment}")
        if status not in (200, 202):
            raise ValueError(result["code"])
        return self._book(result, payment)

    def close(self) -> dict:
        status, result, _ = self._request("DELETE", f"{self.channel_url}?payment={self.newest}")
        assert status == 202
        return result

    def _book(self, result: dict, payment: str) -> int:
        self.change_value -= result["value_received"]
        self.newest = payment
        return result["value_received"]


@pytest.fixture(scope="module", params=DOORS)
def system(tmp_path_factory, request):
    clock = {"PAYCHAN_CLOCK_START": str(CLOCK_START)}
    with running(tmp_path_factory.mktemp("js"), env=clock, door=request.param) as system:
        yield system


def new_client(system: System, name: str, **rest) -> Client2016:
    key = PrivateKey(sha256(name.encode()).digest())
    terms = make_sender(system.server_pubkey, key, EXP_TIME).terms
    return Client2016(f"http://127.0.0.1:{system.asked_port}", terms, key, **rest)


@pytest.mark.parametrize("is_debug", [False, True])
def test_its_whole_session(system, is_debug):
    client = new_client(system, f"session {is_debug}", is_debug=is_debug)
    info = client.get_funding_info()
    assert info["open_price"] <= OPEN_AMOUNT
    assert client.open_url == f"http://127.0.0.1:{system.asked_port}/v1/channels/new"
    assert client.open(OPEN_AMOUNT) == OPEN_AMOUNT
    assert client.pay(100) == 100
    assert client.pay(1) == 1
    assert [client.pay(1) for _ in range(5)] == [1] * 5
    result = client.close()
    assert client.change_value == DEBUG_FUNDING_VALUE - OPEN_AMOUNT - 106
    assert (result["channel_status"], result["channel_value_left"]) == ("closed", client.change_value)
    txid = result["settlement_txid"]
    assert settled_change(system.broadcast()[txid], txid, client.terms) == client.change_value


def test_giving_up_the_rest(system):
    """It asks for less than everything, signs for everything, and its books are right all the same."""
    client = new_client(system, "give up")
    client.get_funding_info()
    client.open(OPEN_AMOUNT)
    left = client.change_value
    assert client.pay(left - 499) == left
    assert client.change_value == 0
    with pytest.raises(ValueError, match="no_such_payment"):
        client.pay(0)
    assert client.close()["channel_value_left"] == 0


def test_an_open_that_gives_up_everything(system):
    client = new_client(system, "give up at once")
    client.get_funding_info()
    assert client.open(DEBUG_FUNDING_VALUE - 1) == DEBUG_FUNDING_VALUE
    assert client.change_value == 0


@pytest.mark.parametrize("left", [500, 699])
def test_its_change_below_our_dust_limit_is_refused_and_its_books_stay_right(system, left):
    client = new_client(system, f"dust {left}")
    client.get_funding_info()
    client.open(OPEN_AMOUNT)
    before = client.change_value
    with pytest.raises(ValueError, match="dust_change"):
        client.pay(client.change_value - left)
    assert client.change_value == before
    assert client.pay(client.change_value - 700) == before - 700
    assert client.close()["channel_value_left"] == 700


def test_a_channel_that_exists_is_found_again(system):
    """On 409 it throws, but keeps the Location, with which it can pay and close."""
    client = new_client(system, "twice")
    client.get_funding_info()
    client.open(OPEN_AMOUNT)
    again = new_client(system, "twice")
    again.get_funding_info()
    with pytest.raises(FileExistsError):
        again.open(OPEN_AMOUNT)
    assert again.channel_url == client.channel_url
    again.change_value -= OPEN_AMOUNT
    assert again.pay(11) == 11
    assert again.close()["channel_status"] == "closed"
