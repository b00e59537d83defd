"""Aim: every example that sells is bought from by the buyer that stands beside it, as their first lines tell, and the shortest are
as short as they are said to be; what SELLING.md and PAYING.md begin with works as printed. Method: real processes: a debug server
whose state lies where the examples look for it, granian as the examples' heads name it, the buyers as scripts."""

import ast
import json
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port
from tests.selling import Seller, with_door
from tests.system import CLIENT_SECONDS, ROOT, wait_until

EXAMPLES = ROOT / "examples"
SELLERS = sorted(EXAMPLES.glob("sell_*.py"))
BUYERS = sorted(EXAMPLES.glob("buy*.py"))
OPEN_PRICE = 83240
KINDS_OF_INTERFACE = {"sell_flask": "wsgi", "sell_django": "wsgi"}
ENV = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with with_door(tmp_path_factory.mktemp("system")) as system:
        yield system


@pytest.fixture
def place(system, tmp_path):
    """A directory like a checkout: the examples, and the state of a server that runs."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "debug").symlink_to(system.state_dir.absolute())
    (tmp_path / "examples").symlink_to(EXAMPLES)
    return tmp_path


@contextmanager
def process(place: Path, url: str, *command: object):
    """Run a program until the block ends; begin when `url` answers, whatever that is."""
    with open(place / "log", "w+") as log:
        running = subprocess.Popen([str(part) for part in command], cwd=place, env=ENV, stdout=log, stderr=log)
        try:

            def answers() -> bool:
                try:
                    return bool(httpx.get(url, timeout=CLIENT_SECONDS).status_code)
                except httpx.TransportError:
                    return running.poll() is not None

            wait_until(answers, 30, f"starting {command}")
            assert running.poll() is None, (place / "log").read_text()
            yield
        finally:
            running.terminate()
            running.wait(30)
    assert "Traceback" not in (place / "log").read_text()


@contextmanager
def seller(place: Path, name: str, text: str = ""):
    """Run an example that sells; yield its URL. text: where it is said how it is run, if not in the example."""
    port, interface = free_port(), KINDS_OF_INTERFACE.get(name, "asgi")
    module = name if text else f"examples.{name}"
    said = f".venv/bin/granian --interface {interface} --port 8080 {module}:app"
    assert said in (text or (EXAMPLES / f"{name}.py").read_text())
    url = f"http://127.0.0.1:{port}"
    program = Path(sys.executable).parent / "granian"
    with process(place, url, program, "--interface", interface, "--port", port, f"{module}:app"):
        yield url


def run(place: Path, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=place, env={**ENV, "HOME": str(place)}, capture_output=True, text=True, timeout=120
    )


def buy(place: Path, example: str, url: str) -> list[str]:
    """Run an example that buys; return the lines that it prints."""
    done = run(place, sys.executable, EXAMPLES / example, url, place / "purse")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


def spent(system, place: Path) -> int:
    """Return what the server says was spent on the one channel in the purse."""
    (file,) = (place / "purse").glob("*.json")
    outpoint = json.loads(file.read_text())["funding"]["outpoint"]
    token = (system.state_dir / "run" / "sell.cookie").read_text().strip()
    return Seller(system, token).look(outpoint)["spent"]


def marked_lines(name: str) -> list[str]:
    return [line for line in (EXAMPLES / f"{name}.py").read_text().splitlines() if re.search(r"#.*\bsells\b", line)]


def test_each_has_its_test():
    names = {path.stem for path in (*SELLERS, *BUYERS)}
    assert names == {
        *("sell_fastapi", "sell_flask", "sell_django", "sell_tokens", "sell_mcp", "sell_x402"),
        *("buy", "buy_tokens", "buy_mcp", "buy_x402"),
    }


@pytest.mark.parametrize("name", ["sell_fastapi", "sell_flask", "sell_django", "sell_x402"])
def test_five_lines_sell(name):
    """Without those that are marked, a whole application is left that sells nothing."""
    assert 3 <= len(marked_lines(name)) <= 5


def test_three_lines_buy():
    kept = ast.unparse(ast.parse((EXAMPLES / "buy.py").read_text()))
    lines = [line for line in kept.splitlines() if re.search(r"^import httpx|import Payer|Payer\(", line)]
    assert len(lines) == 3


@pytest.mark.parametrize("name", ["sell_fastapi", "sell_flask", "sell_django"])
def test_a_buyer_buys_from_each_framework(system, place, name):
    with seller(place, name) as url:
        assert httpx.get(f"{url}/joke", timeout=CLIENT_SECONDS).status_code == 402
        said = [buy(place, "buy.py", f"{url}/joke") for _ in range(2)]
    assert all(len(lines) == 1 and len(lines[0]) > 10 for lines in said)
    assert spent(system, place) == OPEN_PRICE + 2 * 5


def test_a_price_may_depend_on_what_is_asked_for(system, place):
    with seller(place, "sell_fastapi") as url:
        assert httpx.get(f"{url}/jokes?count=many", timeout=CLIENT_SECONDS).status_code == 422
        (line,) = buy(place, "buy.py", f"{url}/jokes?count=3")
        assert len(ast.literal_eval(line)) == 3
        described = httpx.get(f"{url}/openapi.json", timeout=CLIENT_SECONDS).json()
        offers = described["paths"]["/joke"]["get"]["x-payment-info"]["offers"]
    assert spent(system, place) == OPEN_PRICE + 3 * 4
    assert [(offer["method"], offer["amount"]) for offer in offers] == [("bitcoin", "5")]


def test_tokens_are_paid_as_they_come(system, place):
    with seller(place, "sell_tokens") as url:
        stream, complete = buy(place, "buy_tokens.py", url)
    assert len(stream.split()) == 50 and len(complete.split()) == 7
    assert spent(system, place) == OPEN_PRICE + 50 + 7


def test_tools_are_paid(system, place):
    with seller(place, "sell_mcp") as url:
        lines = buy(place, "buy_mcp.py", f"{url}/mcp")
        assert lines == [
            "count: 5 (spent on the channel: 0 satoshi)",
            f"shout: HELLO (spent on the channel: {OPEN_PRICE + 3} satoshi)",
        ]
        buy(place, "buy_mcp.py", f"{url}/mcp")
    assert spent(system, place) == OPEN_PRICE + 2 * 3


def test_x402s_client_buys_of_x402s_middleware(system, place):
    with seller(place, "sell_x402") as url:
        lines = buy(place, "buy_x402.py", f"{url}/news")
    assert len(lines) == 3 and all(line.startswith("200 ") and "block" in line for line in lines)
    assert spent(system, place) == OPEN_PRICE + 3 * 5


def test_x402s_client_buys_from_credit_as_often_as_it_lasts(system, place):
    """A metered purchase has left credit on the channel: one payment buys several things."""
    with seller(place, "sell_tokens") as url:
        buy(place, "buy_tokens.py", url)
    with seller(place, "sell_x402") as url:
        said = [line for _ in range(2) for line in buy(place, "buy_x402.py", f"{url}/news")]
    assert len(said) == 6 and all(line.startswith("200 ") for line in said)
    assert spent(system, place) == OPEN_PRICE + 50 + 7 + 6 * 5


def test_the_gateway_sells_what_a_server_answers_that_knows_nothing_of_it(system, place):
    ware, upstream, gateway = place / "ware", free_port(), free_port()
    (ware / "jokes").mkdir(parents=True)
    (ware / "jokes" / "first").write_text('"knock, knock"')
    file = place / "gateway.toml"
    text = (EXAMPLES / "gateway" / "gateway.toml").read_text().replace("../../state", "state")
    file.write_text(text.replace("port = 8402", f"port = {gateway}").replace(":3000", f":{upstream}"))
    at = f"http://127.0.0.1:{upstream}/"
    with process(place, at, sys.executable, "-m", "http.server", upstream, "--bind", "127.0.0.1", "--directory", ware):
        url = f"http://127.0.0.1:{gateway}"
        with process(place, f"{url}/healthz", sys.executable, "-m", "paychan", "gateway", file):
            assert buy(place, "buy.py", f"{url}/jokes/first") == ["knock, knock"]
            done = run(place, sys.executable, "-m", "paychan", "get", f"{url}/jokes/first", "--purse", place / "purse")
    assert (done.returncode, done.stdout) == (0, '"knock, knock"'), done.stderr
    assert spent(system, place) == OPEN_PRICE + 2 * 5


def test_what_the_documents_begin_with_works_as_printed(system, place):
    selling, paying = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("SELLING", "PAYING"))
    shop, buyer = (re.search(r"```python\n(.*?)```", text, re.DOTALL)[1] for text in (selling, paying))
    assert [int(number) for number in re.findall(r"# (\d)", shop)] == [1, 2, 3]
    assert len(buyer.split("\n\n")) == 2 and len(buyer.strip().splitlines()) == 4
    (place / "shop.py").write_text(shop)
    joke, paid = re.search(r"\$ \.venv/bin/paychan get http://127.0.0.1:8080/joke\n    (.*)\n    (.*)\n", selling).groups()
    with seller(place, "shop", selling) as url:
        done = run(place, sys.executable, "-m", "paychan", "get", f"{url}/joke", "--purse", place / "purse")
        assert (done.stdout, done.stderr.strip()) == (joke, paid)
        (place / "buyer.py").write_text(buyer.replace("http://127.0.0.1:8080", url))
        assert run(place, sys.executable, "buyer.py").stdout.strip() == joke.strip('"')
    assert spent(system, place) == OPEN_PRICE + 2 * 5
    assert f"{joke}\n    {paid}" in paying


@pytest.mark.parametrize("name", ["sell_fastapi", "sell_flask", "sell_x402"])
def test_a_shop_that_is_there_before_its_server_says_why_and_sells_when_it_comes(system, place, name):
    """The server's state lies elsewhere at first: nobody answers where the shop looks for it."""
    state = place / "state" / "debug"
    target = state.readlink()
    state.unlink()
    with seller(place, name) as url:
        good, buyer = ("news", "buy_x402.py") if name == "sell_x402" else ("joke", "buy.py")
        for _ in range(2):
            answer = httpx.get(f"{url}/{good}", timeout=CLIENT_SECONDS)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert int(answer.headers["retry-after"]) > 0
        said = [line for line in (place / "log").read_text().splitlines() if "nothing can be sold" in line]
        assert len(said) == 1 and str(place / "state" / "debug" / "run" / "sell.sock") in said[0] and "server running" in said[0]
        state.symlink_to(target)
        bought = buy(place, buyer, f"{url}/{good}")
    assert spent(system, place) == OPEN_PRICE + 5 * len(bought)


@pytest.mark.parametrize("path", BUYERS, ids=lambda path: path.name)
def test_a_buyer_without_a_seller_says_so_in_one_line(tmp_path, path):
    url = f"http://127.0.0.1:{free_port()}"
    done = run(tmp_path, sys.executable, path, url, tmp_path / "purse")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and url in done.stderr and "Traceback" not in done.stderr
