"""Aim: a gateway's file means one thing, or is refused with a line for each mistake. Method: files with one mistake each."""

import pytest

from paychan.gateway.models import Price, Unit
from tests.unit.gateway.making import HEAD, complaints, load

PAID = '[[routes]]\npath = "/v1/*"\nprice = 5\n'


def test_a_short_file_is_enough(tmp_path):
    config = load(tmp_path, PAID)
    (route,) = config.routes
    assert route.price == Price(5) and route.upstream.url == "http://127.0.0.1:3000"
    assert route.charged == frozenset(range(200, 300)) and route.rerun is None
    assert config.door.token_file == tmp_path / "gateway.token" and config.host == "127.0.0.1"


def test_a_gateway_that_sells_nothing_needs_no_seller(tmp_path):
    head = '[upstreams.api]\nurl = "http://127.0.0.1:3000"\n'
    assert load(tmp_path, '[[routes]]\npath = "/*"\nfree = true\n', head).door is None


@pytest.mark.parametrize(
    "line, price",
    [
        ("price_per_kilobyte = 2", Price(2, Unit.KILOBYTE, 64)),
        ("price_per_second = 3", Price(3, Unit.SECOND, 5)),
        ("price_per_event = 4\nreserve = 7", Price(4, Unit.EVENT, 7)),
        ("free = true", None),
    ],
)
def test_each_kind_of_price(tmp_path, line, price):
    assert load(tmp_path, f'[[routes]]\npath = "/"\n{line}\n').routes[0].price == price


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "routes: name at least one"),
        (PAID + "cost = 5", "routes[1].cost: is unknown"),
        ('[[routes]]\npath = "/"', "routes[1]: give one of price"),
        (PAID + "free = true", "routes[1]: give one of price"),
        (PAID + "price_per_event = 1", "routes[1]: give one of price"),
        ('[[routes]]\npath = "/"\nprice = 0', "routes[1].price: must be from 1"),
        ('[[routes]]\npath = "/"\nprice = 1.5', "routes[1].price: must be an integer"),
        (PAID + "reserve = 3", "routes[1].reserve: is of a price for what is counted"),
        ('[[routes]]\npath = "/"\nprice_per_second = 2100000000000000\nreserve = 2', "routes[1].reserve: is worth more"),
        ('[[routes]]\npath = "v1"\nprice = 5', "routes[1].path: must start with /"),
        ('[[routes]]\npath = "/a//b"\nprice = 5', "routes[1].path: cannot be asked for: the path holds an empty segment"),
        ('[[routes]]\npath = "/a%20b"\nprice = 5', "routes[1].path: cannot be asked for"),
        ('[[routes]]\npath = "/a/../b"\nprice = 5', "routes[1].path: cannot be asked for"),
        ('[[routes]]\npath = "/a*"\nprice = 5', "routes[1].path: '*' stands for a whole segment"),
        (PAID + 'methods = ["get"]', "routes[1].methods: get is no method"),
        (PAID + 'methods = ["CONNECT"]', "routes[1].methods: CONNECT is no method"),
        (PAID + 'host = "API.example.com"', "routes[1].host: must be a name in lower case"),
        (PAID + 'host = "a:80"', "routes[1].host: must be a name in lower case"),
        (PAID + 'upstream = "other"', "routes[1].upstream: no [upstreams.other] is there"),
        (PAID + 'charged = ["5xx"]', "routes[1].charged: must be statuses"),
        (PAID + 'charged = ["x"]', "routes[1].charged: must be statuses"),
        (PAID + 'request_headers.set = { Host = "x" }', "routes[1].request_headers.host: is the gateway's own"),
        (PAID + 'request_headers.set = { X = "a\\nb" }', "routes[1].request_headers.x: is no header field"),
        (PAID + 'response_headers.remove = ["Payment-Receipt"]', "routes[1].response_headers.payment-receipt: is the gateway's"),
        (PAID + 'request_headers.set_from_files = { X = "none" }', "routes[1].request_headers.set_from_files.X:"),
        (PAID + PAID, "routes[2] /v1/*: another route has the same path and method"),
        (PAID + '[[routes]]\npath = "/V1/*"\nprice = 6', "differs from another route in case alone"),
        (PAID + '[[routes]]\nhost = "a"\npath = "/"\nprice = 6', "routes[1] /v1/*: names no host, and others do"),
        (PAID + "[limits]\nbody_bytes_max = -1", "limits.body_bytes_max: must be from 0"),
        (PAID + "[routes.limits]\nbody_bytes = 1", "routes[1].limits.body_bytes: is unknown"),
        (PAID.replace("/v1/*", "/readyz"), "routes[1].path: is the gateway's own"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path, text, complaint):
    assert any(line.startswith(complaint) or complaint in line for line in complaints(tmp_path, text)), complaints(tmp_path, text)


@pytest.mark.parametrize(
    "old, new, complaint",
    [
        ('realm = "api.example.com"', "", "gateway.realm: is missing"),
        ('socket = "/run/sell.sock"', 'url = "http://10.0.0.1"', "seller.url: must be https"),
        ('socket = "/run/sell.sock"', "", "seller.socket: give the sellers' door"),
        ('socket = "/run/sell.sock"\ntoken_file = "gateway.token"', 'url = "https://a"', "seller.token_file: is missing"),
        ("http://127.0.0.1:3000", "ftp://127.0.0.1", "upstreams.api.url: must start with http"),
        ("http://127.0.0.1:3000", "http://u:p@127.0.0.1", "upstreams.api.url: must hold no credentials"),
        ("http://127.0.0.1:3000", "http://127.0.0.1/a/../b", "upstreams.api.url: cannot be asked for"),
        ('realm = "api.example.com"', 'realm = "x"\ntrusted_proxies = ["10.0.0.0/33"]', "gateway.trusted_proxies: 10.0.0.0/33"),
        ('realm = "api.example.com"', 'realm = "x"\ncors_origins = ["shop"]', "gateway.cors_origins: shop is no origin"),
        ('realm = "api.example.com"', 'realm = "x"\ntls_key = "k"', "gateway.tls_key: tls_certificate and tls_key"),
    ],
)
def test_mistakes_of_the_other_sections(tmp_path, old, new, complaint):
    assert old in HEAD
    found = complaints(tmp_path, PAID, HEAD.replace(old, new))
    assert any(line.startswith(complaint) for line in found), found


def test_a_token_that_others_may_read_is_refused(tmp_path):
    (tmp_path / "gateway.token").write_text("pct_x")
    (tmp_path / "gateway.token").chmod(0o644)
    assert any("seller.token_file" in line and "open to" in line for line in complaints(tmp_path, PAID))


def test_all_mistakes_are_told_at_once(tmp_path):
    found = complaints(tmp_path, PAID + 'a = 1\nb = 2\nmethods = ["x"]')
    assert [line.split(":")[0] for line in found] == ["routes[1].methods", "routes[1].a", "routes[1].b"]
