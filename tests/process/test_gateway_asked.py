"""Aim: nginx and Caddy, set up as the examples say, serve what is paid and nothing else. Method: Debian's own programs with the
example files, their ports changed; a real paychan server, gateway and upstream."""

import shutil
import subprocess
import sys

import pytest

from paychan.mpp.receipt import parse_receipt
from tests.buyer import OPEN_PRICE
from tests.gateways import Process, running_gateway, running_upstream, started, told
from tests.ports import free_port
from tests.process.test_gateway_sells import asked, challenge_of, get, new_buyer
from tests.selling import Seller, make_token, with_door
from tests.system import ROOT

EXAMPLES = ROOT / "examples" / "gateway"
PRICE = 5
PROXIES = ("nginx", "caddy")


@pytest.fixture(scope="module")
def upstream():
    with running_upstream() as process:
        yield process


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with with_door(tmp_path_factory.mktemp("paychan")) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(system, upstream, tmp_path_factory):
    """The example's own file, with other ports, and a route of which no second run is had for one payment."""
    text = (EXAMPLES / "gateway.toml").read_text().replace("port = 8402", "port = PORT").replace(":3000", f":{upstream.port}")
    text = text.replace("../../state/debug/run/sell.sock", str((system.state_dir / "run" / "sell.sock").absolute()))
    text += '\n[[routes]]\npath = "/once"\nprice = 5\nrerun = false\n'
    with running_gateway(tmp_path_factory.mktemp("gateway"), text) as process:
        yield process


@pytest.fixture(scope="module")
def seller(system):
    return Seller(system, make_token(system, "looker"))


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request, gateway, upstream, tmp_path_factory):
    program = shutil.which(request.param) or shutil.which(request.param, path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip(f"{request.param} is not installed (Debian: nginx-light, caddy)")
    directory, port = tmp_path_factory.mktemp(request.param), free_port()
    file = directory / request.param
    name = {"nginx": "nginx.conf", "caddy": "Caddyfile"}[request.param]
    text = (EXAMPLES / name).read_text().replace(":8080", f":{port}").replace(":8402", f":{gateway.port}")
    text = text.replace(":3000", f":{upstream.port}")
    if request.param == "nginx":
        own = "".join(f"{key}_temp_path {directory}/{key};\n" for key in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        text = f"pid {directory}/pid;\n" + text.replace("http {", f"http {{\naccess_log off;\n{own}")
        command = [program, "-p", str(directory), "-c", str(file), "-g", "daemon off;", "-e", str(directory / "log")]
    else:
        command = [program, "run", "--config", str(file), "--adapter", "caddyfile"]
    file.write_text(text)
    env = {"HOME": str(directory), "XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory), "PATH": "/usr/sbin:/usr/bin"}
    with started(Process(command, port, env)) as process:
        yield process
        process.stop()


@pytest.fixture
def buyer(system, proxy, request, upstream):
    made = new_buyer(system, proxy, request.node.name, "/jokes/1")
    assert get(proxy, "/jokes/opens", made.open(OPEN_PRICE + PRICE)).status == 200
    upstream.log()
    return made


def spent(seller, buyer):
    return seller.look(buyer.channel)["spent"]


def test_who_does_not_pay_gets_the_challenge_and_nobody_is_asked(proxy, upstream):
    upstream.log()
    for method in ("GET", "POST"):
        answer = get(proxy, "/jokes/1?x=%2F", method=method)
        assert (answer.status, answer.code) == (402, "payment_required"), answer
        assert challenge_of(answer).session().amount == PRICE and answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/problem+json"
    assert asked(upstream) == []


def test_what_is_paid_is_served_with_a_receipt_and_the_payment_goes_no_further(proxy, upstream, buyer, seller):
    before = spent(seller, buyer)
    answer = get(proxy, "/jokes/2?y=1", buyer.pay(PRICE))
    assert answer.status == 200 and told(answer)["line"][1] == "/jokes/2?y=1" and answer.headers["cache-control"] == "private"
    assert parse_receipt(answer.headers["payment-receipt"]).spent == spent(seller, buyer) == before + PRICE
    assert "Payment " not in answer.body.decode() and asked(upstream) == ["/jokes/2?y=1"]


def test_a_body_comes_through(proxy, buyer):
    assert told(get(proxy, "/jokes/2", buyer.pay(PRICE), "POST", b"body"))["body"] == "body"


def test_a_payment_buys_one_thing(proxy, upstream, buyer):
    assert get(proxy, "/jokes/2", buyer.pay(PRICE)).status == 200
    refused = get(proxy, "/jokes/3", buyer.again())
    assert (refused.status, refused.code) == (402, "insufficient_credit") and asked(upstream) == ["/jokes/2"]


def test_where_no_second_run_is_free_it_is_refused(proxy, upstream, buyer):
    buyer.challenge = challenge_of(get(proxy, "/once"))
    assert get(proxy, "/once", buyer.pay(PRICE)).status == 200
    refused = get(proxy, "/once", buyer.again())
    assert (refused.status, refused.code) == (409, "already_served") and asked(upstream) == ["/once"]


def test_what_is_free_is_served(proxy):
    assert get(proxy, "/other").status == 200


SPELLINGS = "/JOKES/1 /jokes%2f1 /x/..%2fjokes/1 /x/%2e%2e/jokes/1 //jokes/1 /jokes;/1 /jokes%5c1 /jokes/1%00 /./jokes/1"


@pytest.mark.parametrize("target", SPELLINGS.split())
def test_another_spelling_is_not_free(proxy, upstream, target):
    upstream.log()
    answer = get(proxy, target)
    assert answer.status in (400, 402) and asked(upstream) == [], answer


def test_what_is_counted_is_not_sold_so(proxy, upstream, buyer):
    refused = get(proxy, "/files/x", buyer.pay(100))
    assert refused.status == 501 and refused.code == "not_metered_here" and asked(upstream) == []


def test_only_the_operators_proxies_may_ask(gateway, system, upstream, tmp_path):
    headers = {"X-Forwarded-Method": "GET", "X-Forwarded-Host": "h", "X-Forwarded-Uri": "/other"}
    assert get(gateway, "/auth", headers).status == 204
    assert get(gateway, "/auth", {**headers, "X-Forwarded-Uri": "/jokes/1"}).status == 402
    del headers["X-Forwarded-Uri"]
    assert get(gateway, "/auth", headers).code == "malformed_request"
    text = f'[gateway]\nport = PORT\nforward_auth = "/auth"\n[upstreams.api]\nurl = "http://127.0.0.1:{upstream.port}"\n'
    with running_gateway(tmp_path, text + '[[routes]]\npath = "/*"\nfree = true\n') as closed:
        assert get(closed, "/auth", headers).code == "not_a_proxy"


def test_traefiks_example_names_what_the_gateway_takes():
    """Debian has no Traefik, so this one is read only."""
    text = (EXAMPLES / "traefik.yml").read_text()
    assert "http://127.0.0.1:8402/auth" in text and 'Payment-Authorization: ""' in text


def test_the_example_is_a_file_that_runs():
    command = [sys.executable, "-m", "paychan", "gateway", "--check", str(EXAMPLES / "gateway.toml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, "no problem found\n")
