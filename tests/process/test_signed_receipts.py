"""Aim: what a till sells is receipted, purchase by purchase, in one chain for each channel: over several processes of the shop,
over restarts, for what was given back and for what was metered; and who cannot sign sells all the same. Method: a real system,
shops of two processes that share a key, our payer for httpx; the verifier judges what came.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest

from paychan.mpp.receipt import parse_receipt
from paychan.pay.budget import NO_LIMITS
from paychan.pay.httpx import Payer
from paychan.pay.purse import Purse
from paychan.pay.receipts import receipts_file
from paychan.receipts.claims import payment_hash
from paychan.receipts.keys import WELL_KNOWN, make_key
from paychan.receipts.verify import examine, read_receipt
from tests.gateways import running_gateway, running_upstream
from tests.ports import free_port
from tests.receipts_shop import ORIGIN, PRICE
from tests.selling import with_door
from tests.system import CLIENT_SECONDS, ROOT, wait_until


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with with_door(tmp_path_factory.mktemp("receipts"), workers=2) as system:
        yield system


@pytest.fixture
def key_file(tmp_path):
    make_key(tmp_path / "receipts.key")
    return tmp_path / "receipts.key"


@pytest.fixture
def keys(key_file):
    from paychan.receipts.keys import read_key

    key = read_key(key_file)
    return {key.thumbprint(): key}


@contextmanager
def shop(system, key_file, kind: str = "fastapi", workers: int = 2):
    """Run a shop of so many processes; yield its URL."""
    port = free_port()
    interface = ["--interface", "wsgi" if kind == "flask" else "asgi", "--factory", "--port", str(port)]
    interface += ["--workers", str(workers), "--workers-kill-timeout", "2"]  # one that only starts does not hear that it shall stop
    command = [sys.executable, "-m", "granian", *interface, f"tests.receipts_shop:{kind}_app"]
    env = {**os.environ, "SHOP_DOOR": str(system.state_dir.absolute() / "run" / "sell.sock"), "SHOP_KEY": str(key_file)}
    process = subprocess.Popen(command, env={**env, "PYTHONPATH": str(ROOT)}, cwd=ROOT, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: is_up(url), 30, "the shop's start")
        yield url
    finally:
        process.terminate()
        process.wait()


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/free", timeout=CLIENT_SECONDS).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def purse(tmp_path):
    return Purse(tmp_path / "purse", NO_LIMITS)


@pytest.fixture
def payer(purse):
    return Payer(purse)


def signed(answer: httpx.Response) -> str:
    return parse_receipt(answer.headers["payment-receipt"]).jws


@pytest.mark.parametrize("kind", ["fastapi", "flask"])
def test_what_a_shop_of_two_processes_sells_is_one_chain(system, key_file, keys, purse, payer, kind):
    lines = []
    for _ in range(2):  # the second time it is started anew
        with shop(system, key_file, kind) as url:
            for _ in range(8):  # each on a connection of its own, so that both processes have their share
                answer = httpx.get(f"{url}/news?a=1", auth=payer, timeout=30)
                assert answer.status_code == 200
                lines.append(signed(answer))
    verdict = examine(lines, keys)
    assert verdict.is_good and (verdict.receipts, verdict.amount) == (16, 16 * PRICE)
    assert len(verdict.chains) == 1 and verdict.chains[0].is_whole and verdict.chains[0].remarks == []
    claims = read_receipt(lines[-1], keys)[1]
    assert (claims.method, claims.resource) == ("GET", f"{ORIGIN}/news?a=1")
    (standing,) = purse.standings()
    assert claims.payment == payment_hash(standing.record.signed.serialize())
    assert receipts_file(purse.directory, standing.name).read_text().split() == lines  # the payer has kept them


def test_given_back_and_metered_purchases_are_in_the_sums(system, key_file, keys, payer):
    with shop(system, key_file) as url, httpx.Client(auth=payer, timeout=30) as client:
        answers = [client.get(f"{url}/news"), client.get(f"{url}/metered"), client.get(f"{url}/fails")]
        assert [answer.status_code for answer in answers] == [200, 200, 500]
        assert "payment-receipt" not in answers[2].headers
        answers += [client.post(f"{url}/news", content=b"a body"), client.get(f"{url}/news")]
    told = [parse_receipt(answer.headers["payment-receipt"]) for answer in answers if answer.status_code == 200]
    verdict = examine([one.jws for one in told], keys)
    assert verdict.is_good, verdict
    claims = [read_receipt(one.jws, keys)[1] for one in told]
    assert [one.amount for one in claims] == [5, 6, 5, 5]
    assert [(one.spent, one.accepted) for one in claims] == [(one.spent, one.accepted) for one in told]
    assert verdict.chains[0].remarks == [] and claims[2].body.startswith("sha-256=:") and not claims[0].body


@pytest.mark.parametrize("kind", ["fastapi", "flask"])
def test_a_stream_is_receipted_at_its_end_over_all_that_it_cost(system, key_file, keys, purse, payer, kind):
    with shop(system, key_file, kind, workers=1) as url, httpx.Client(timeout=30) as client:
        before = httpx.get(f"{url}/news", auth=payer, timeout=30)
        for count in (3, 10, 4):  # of parts of 4: less than one, three, and one whole
            assert len(list(payer.events(client, f"{url}/words?count={count}"))) == count
        after = httpx.get(f"{url}/news", auth=payer, timeout=30)
        header = {"Authorization": after.request.headers["authorization"]}
        (standing,) = purse.standings()
        lines = receipts_file(purse.directory, standing.name).read_text().split()
        assert lines[0] == signed(before) and lines[-1] == signed(after)
        assert httpx.get(f"{url}/news", headers=header, timeout=30).status_code == 200
    verdict = examine(lines, keys)
    assert verdict.is_good and verdict.chains[0].is_whole and verdict.chains[0].remarks == []
    assert [read_receipt(line, keys)[1].amount for line in lines] == [PRICE, 6, 20, 8, PRICE]
    assert read_receipt(lines[2], keys)[1].resource == f"{ORIGIN}/words?count=10"


@pytest.mark.parametrize("kind", ["fastapi", "flask"])
def test_the_public_key_is_published_by_one_line(system, key_file, keys, kind):
    with shop(system, key_file, kind, workers=1) as url:
        (told,) = httpx.get(f"{url}{WELL_KNOWN}", timeout=CLIENT_SECONDS).json()["keys"]
    assert told["kid"] in keys and "d" not in told and "d" in json.loads(key_file.read_text())


def test_the_gateway_signs_and_publishes(system, key_file, keys, purse, payer, tmp_path):
    older = make_key(tmp_path / "older.key")
    with running_upstream() as upstream, httpx.Client(timeout=30) as client:
        door = (system.state_dir / "run" / "sell.sock").absolute()
        text = f'[gateway]\nport = PORT\nrealm = "shop"\npublic_url = "{ORIGIN}"\n[seller]\nsocket = "{door}"\n'
        text += '[receipts]\nkey = "receipts.key"\nolder = ["older.key"]\n'
        text += f'[upstreams.api]\nurl = "http://127.0.0.1:{upstream.port}"\n'
        text += '[[routes]]\npath = "/status/*"\nprice = 5\n[[routes]]\npath = "/events/*"\nprice_per_event = 2\nreserve = 4\n'
        with running_gateway(tmp_path, text) as gateway:
            url = f"http://127.0.0.1:{gateway.port}"
            published = httpx.get(f"{url}{WELL_KNOWN}", timeout=CLIENT_SECONDS).json()["keys"]
            assert httpx.get(f"{url}/status/200", auth=payer, timeout=30).status_code == 200
            assert len(list(payer.events(client, f"{url}/events/9"))) == 9
            assert httpx.get(f"{url}/status/200", auth=payer, timeout=30).status_code == 200
    assert [row["kid"] for row in published] == [*keys, older.thumbprint()] and not any("d" in row for row in published)
    (standing,) = purse.standings()
    lines = receipts_file(purse.directory, standing.name).read_text().split()
    verdict = examine(lines, keys)
    assert verdict.is_good and verdict.chains[0].remarks == []
    claims = [read_receipt(line, keys)[1] for line in lines]
    assert [(one.amount, one.resource) for one in claims] == [
        (5, f"{ORIGIN}/status/200"), (18, f"{ORIGIN}/events/9"), (5, f"{ORIGIN}/status/200"),
    ]  # fmt: skip


def test_a_gateway_without_its_receipts_key_says_so(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text('[gateway]\nport = 1\n[receipts]\nkey = "none.key"\n[upstreams.a]\nurl = "http://127.0.0.1:1"\n'
                    '[[routes]]\npath = "/*"\nfree = true\n')  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "paychan", "gateway", str(file)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "none.key" in done.stderr and "Traceback" not in done.stderr


def test_the_same_purchase_has_the_same_receipt(system, key_file, keys, payer):
    with shop(system, key_file) as url:
        first = httpx.get(f"{url}/news", auth=payer, timeout=30)
        header = {"Authorization": first.request.headers["authorization"]}
        again: list[httpx.Response] = []

        def ask() -> bool:
            """Ask again; 503 is what the other process answers while the first one may still be at it."""
            again.append(httpx.get(f"{url}/news", headers=header, timeout=30))
            return sum(answer.status_code == 200 for answer in again) == 6

        wait_until(ask, 30, "six more answers")
        again = [answer for answer in again if answer.status_code == 200]  # kept, or run again, by either process
        assert {signed(answer) for answer in again} == {signed(first)}


def test_who_cannot_sign_sells_all_the_same(system, key_file, payer):
    with shop(system, key_file, workers=1) as url:  # a second one could start after that, and would not
        assert signed(httpx.get(f"{url}/news", auth=payer, timeout=30))
        database = key_file.with_name(f"{key_file.name}.db")
        database.write_bytes(b"this is no database" * 1000)
        for leftover in ("-wal", "-shm"):
            database.with_name(f"{database.name}{leftover}").unlink(missing_ok=True)
        answers = [httpx.get(f"{url}/news", auth=payer, timeout=30) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 4
