"""Aim: docs/PAYING.md works as printed, for who begins with nothing. Method: its commands and programs, run against a shop, its
address put in."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paychan.cli.output import EXIT_TEXT
from paychan.pay.settings import read_settings
from tests.paying_shop import selling
from tests.system import ROOT

DOCUMENT = (ROOT / "docs" / "PAYING.md").read_text()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with selling(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


def run(command, place):
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "XDG_DATA_HOME": str(place)}
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=120)


def test_the_first_command(shop, tmp_path):
    (line,) = re.findall(r"(?m)^    \$ (paychan get \S+)$", DOCUMENT)
    done = run(line.replace("http://127.0.0.1:8080/joke", f"{shop.url}/joke/7").split(), tmp_path)
    assert done.stdout == '{"joke":7}'
    (told,) = re.findall(r"(?m)^    (paid \d+ satoshi, .*)$", DOCUMENT)
    assert done.stderr == told + "\n"
    shown = run(["paychan", "spending"], tmp_path).stdout
    heads = re.findall(r"(?m)^    ((?:DAY|BUDGET|CHANNEL) .*)$", DOCUMENT)
    assert [line.split() for line in shown.splitlines() if line.startswith(("DAY", "BUDGET", "CHANNEL"))] == [
        head.split() for head in heads
    ]


def test_the_three_lines(shop, tmp_path):
    first, second = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    program = first.replace("http://127.0.0.1:8080/joke", f"{shop.url}/joke/7")
    program += second.replace("https://api.example.com/tokens", f"{shop.url}/stream/6")
    done = run([sys.executable, "-c", program], tmp_path)
    assert done.stdout.splitlines() == ["{'joke': 7}", *(f"word {number}" for number in range(6))], done.stderr


def test_the_example(shop, tmp_path):
    done = run([sys.executable, str(ROOT / "examples" / "buy.py"), f"{shop.url}/joke/9", str(tmp_path / "purse")], tmp_path)
    assert done.stdout == "{'joke': 9}\n", done.stderr


def test_the_settings_are_read(tmp_path):
    blocks = re.findall(r"(?m)^ {4,6}\[(?:budget|channels|wallet)\].*\n(?: {4,6}\S.*\n)*", DOCUMENT)
    text = "\n".join(line.strip() for block in blocks for line in block.splitlines())
    (tmp_path / "purse.toml").write_text(text)
    found = read_settings(tmp_path)
    assert (found.budget.request, found.deposit, found.days, found.wallet_name) == (1_000, 300_000, 30, "payer")


def test_exit_statuses_are_those_of_the_commands():
    told = {int(number) for row in re.findall(r"(?m)^\| ([\d, ]+) \| ", DOCUMENT) for number in row.split(",")}
    assert told <= {int(number) for number in re.findall(r"(?m)^  (\d+) ", EXIT_TEXT)}
    assert {11, 12, 13} <= told
