"""Aim: with real coins' rules a request from the command line leads to an address, a payment by hand, its confirmations and the
answer; what is left comes back. Method: a real node, the server on network regtest, a shop before it, and the commands."""

import json
import re
import shutil
import subprocess
import sys
import time

import pytest

from paychan.client import parse_record
from paychan.core.network import REGTEST, decode_address
from signer.keys import create_key
from tests import paying_shop
from tests.node.bcoin_node import Node
from tests.paying_shop import PRICE, Shop
from tests.ports import free_port
from tests.settled import settled_change
from tests.system import ROOT, System, wait_until


@pytest.fixture(scope="module")
def node():
    with Node() as node:
        node.mine(110)
        yield node


@pytest.fixture(scope="module")
def shop(node, tmp_path_factory):
    directory = tmp_path_factory.mktemp("shop")
    config, state = directory / "config", directory / "state"
    shutil.copytree(ROOT / "config" / "regtest", config)
    server = config / "server.toml"
    text = re.sub(r"(?m)^port = 18443", f"port = {node.port}", server.read_text())
    text = re.sub(r"(?m)^# \[sell\].*\n# socket = ", "[sell]\nsocket = ", text)
    server.write_text(text if "\n[sell]" in text else text + '\n[sell]\nsocket = "run/sell.sock"\n')
    state.mkdir(mode=0o700)
    (state / "node.cookie").write_text(f"x:{node.api_key}")
    create_key(state / "signer.key")
    system = System(state, config, free_port())
    try:
        system.start()
        port, served = free_port(), directory / "served"
        shop = Shop(system, port, served, paying_shop.start(system, port, served))
        yield shop
        paying_shop.stop(shop.process)
    finally:
        system.stop()


def command(shop, node, purse, *words):
    chain = ("--bitcoind", f"http://127.0.0.1:{node.port}", "--cookie", str(shop.system.state_dir / "node.cookie"))
    return [sys.executable, "-m", "paychan", *words, "--purse", str(purse), *chain]


def run(shop, node, purse, *words):
    return subprocess.run(command(shop, node, purse, *words), cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_channel_is_paid_by_hand_and_used_once_it_is_confirmed(shop, node, tmp_path):
    purse, url = tmp_path / "purse", f"{shop.url}/joke/7"
    refused = run(shop, node, purse, "get", url, "--json")
    assert refused.returncode == 11, refused.stderr
    told = json.loads(refused.stderr)
    assert told["code"] == "funding_needed"
    value, address = re.search(r"pay (\d+) satoshi to (\S+),", told["detail"]).groups()
    node.fund(decode_address(REGTEST, address), 1_000)  # somebody else's dust is not taken for it
    node.mine(1)
    assert run(shop, node, purse, "get", url).returncode == 11

    waiting = command(shop, node, purse, "get", url, "--wait", "--poll-seconds", "0.2", "--deadline", "60")
    with subprocess.Popen(waiting, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as buyer:
        node.fund(decode_address(REGTEST, address), int(value))
        deadline = time.monotonic() + 60
        while buyer.poll() is None and time.monotonic() < deadline:
            node.mine(1)
            time.sleep(0.5)
        out, err = buyer.communicate(timeout=60)
    assert (buyer.returncode, out) == (0, '{"joke":7}'), err
    again = run(shop, node, purse, "get", url, "--json")
    assert json.loads(again.stdout)["paid"] == PRICE
    spent = json.loads(run_plain(purse, "spending", "--json").stdout)
    (row,), (channel,) = spent["spending"], spent["channels"]
    assert channel["paid"] == row["amount"] + row["opening"] == int(value) - channel["left"]

    closed = run(shop, node, purse, "purse", "close", channel["name"], url)
    assert closed.returncode == 0, closed.stderr
    record = parse_record((purse / f"{channel['name']}.json").read_bytes())
    wait_until(lambda: node.rpc("getrawmempool"), 60, "the settlement")
    (txid,) = node.rpc("getrawmempool")
    raw = bytes.fromhex(node.rpc("getrawtransaction", txid))
    assert settled_change(raw, txid, record.terms) == channel["left"]


def run_plain(purse, *words):
    command = [sys.executable, "-m", "paychan", *words, "--purse", str(purse)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_new_channel_may_be_named_by_its_transaction(shop, node, tmp_path):
    """Where nobody can look for the payment: the funding transaction proves its output."""
    purse, url = tmp_path / "purse", f"{shop.url}/joke/8"
    plain = [sys.executable, "-m", "paychan", "get", url, "--purse", str(purse), "--json"]
    refused = subprocess.run(plain, cwd=ROOT, capture_output=True, text=True, timeout=60)
    value, address = re.search(r"pay (\d+) satoshi to (\S+),", json.loads(refused.stderr)["detail"]).groups()
    funding = node.fund(decode_address(REGTEST, address), int(value))
    node.mine(6)
    (tmp_path / "funding.hex").write_text(funding.raw.hex())
    (name,) = [path.stem for path in purse.glob("*.json")]
    named = run_plain(purse, "purse", "fund", name, "--funding-tx", str(tmp_path / "funding.hex"))
    assert named.returncode == 0, named.stderr
    bought = subprocess.run([*plain, "--deadline", "60"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert json.loads(bought.stdout)["body"] == '{"joke":8}', bought.stderr
