"""Aim: the comparison with other sellers' middleware measures, reckons and says what it should, whatever is installed. Method: its
parts without the network: our own sellers for real, a chain's stand-in asked as mppx asks it, rounds that are made up."""

import argparse
import json
import re
import urllib.request
from pathlib import Path

import pytest

from bench.peers.__main__ import OURS, Cost, measure, proxies, report, run
from bench.peers.chain import CHAIN_ID, DEPOSIT, STATE_SELECTOR, chain
from bench.peers.driving import drive
from bench.peers.install import MPPX, REQUIREMENTS
from bench.peers.sellers import Seller, plain_upstream


def ask(url: str, *calls: tuple[str, list]) -> list[dict]:
    content = [{"jsonrpc": "2.0", "id": number, "method": method, "params": given} for number, (method, given) in enumerate(calls)]
    request = urllib.request.Request(url, json.dumps(content).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_the_chains_stand_in_answers_in_the_abis_form_and_notes_what_it_does_not_know():
    state = {"to": "0x" + "4d" * 20, "data": STATE_SELECTOR + "ab" * 32}
    with chain() as (url, asked):
        told = ask(url, ("eth_chainId", []), ("eth_call", [state, "latest"]), ("eth_call", [{"data": "0x12345678"}]), ("eth_x", []))
    assert [row["id"] for row in told] == [0, 1, 2, 3] and int(told[0]["result"], 16) == CHAIN_ID
    words = re.findall("[0-9a-f]{64}", told[1]["result"].removeprefix("0x"))
    assert [int(word, 16) for word in words] == [0, DEPOSIT, 0] and len(told[1]["result"]) == 2 + 3 * 64
    assert [row["error"]["code"] for row in told[2:]] == [3, -32601]
    assert asked == {"the chain's id": 1, "a channel's state": 1, "unknown: eth_call of 0x12345678": 1, "unknown: eth_x": 1}


def test_all_that_is_installed_is_pinned():
    lines = REQUIREMENTS.read_text().split()
    assert len(lines) > 20 and all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][^ ]*", line) for line in lines)
    assert {"x402==2.25.0", "coincurve==21.0.0"} <= set(lines)
    package, lock = (json.loads((MPPX / name).read_text()) for name in ("package.json", "package-lock.json"))
    assert lock["packages"][""]["dependencies"] == package["dependencies"] == {"mppx": "0.11.0", "viem": "2.54.0"}
    assert all(row["integrity"] and "resolved" not in row for name, row in lock["packages"].items() if name)


ROUNDS = {
    OURS: [Cost(11.0, 1.0), Cost(21.0, 1.0), Cost(12.0, 2.0)],
    "paychan, gateway": [Cost(22.0, 2.0), Cost(42.0, 2.0), Cost(24.0, 4.0)],
    "dear": [Cost(102.0, 2.0), Cost(152.0, 2.0), Cost(204.0, 4.0)],
    "nginx, a plain proxy": [Cost(None, 1.0), Cost(None, 2.0), Cost(None, 1.0)],
}


def test_ratios_are_formed_within_a_round():
    lines = report(ROUNDS, {"dear": "no: in memory"})
    assert [line.split()[-2:] for line in lines[1:3]] == [["1.0", "x"], ["2.0", "x"]]
    assert re.split(r"  +", lines[3]) == ["dear", "152.0", "2.0", "150.0", "10.0 x", "no: in memory"]
    assert lines[4].split() == ["nginx,", "a", "plain", "proxy", "1.0"]
    assert proxies(ROUNDS).endswith("2.0 x")
    assert "left out" in proxies({name: rows for name, rows in ROUNDS.items() if "nginx" not in name})


def test_each_signs_on_where_it_stood_and_none_always_begins():
    first: list[tuple[str, int, int]] = []

    def sign(name: str):
        return lambda begin, count: first.append((name, begin, count)) or [["x"] * count]

    with plain_upstream() as (url, pid):
        found = measure([Seller(name, url, [pid], "X-Free", sign(name)) for name in "ab"], 40, 2, 1)
    assert first == [("a", 0, 30), ("b", 0, 30), ("a", 30, 40), ("b", 30, 40), ("b", 70, 40), ("a", 70, 40)]
    assert {name: len(rows) for name, rows in found.items()} == {"a": 2, "b": 2}


def test_a_call_that_is_not_answered_200_ends_the_measurement():
    with chain() as (url, _), pytest.raises(RuntimeError, match="has answered 501"):  # it knows no GET
        drive(url, "X-Free", [["x"]], "/paid")


def test_ours_are_measured_for_real_without_any_peer(tmp_path: Path):
    arguments = argparse.Namespace(connections=2, calls=4, rounds=1, storage="memory")
    lines = run(arguments, None, tmp_path)
    names = [line[:24].strip() for line in lines]
    assert names[1:3] == [OURS, "paychan, gateway"]
    for line in lines[1:3]:
        paid, unpaid, added, _ = (float(text) for text in re.findall(r"\d+\.\d", line))
        assert paid > unpaid > 0 and abs(paid - unpaid - added) < 0.2 and line.endswith("synced to disk")
