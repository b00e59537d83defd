"""Aim: a configuration of 2016 becomes ours, line by line, and none of its secrets goes anywhere. Method: our own `.cfg` vectors
through the real command's function, and the result through our loaders; odd and broken files.
"""

import argparse
import json
import tomllib
from pathlib import Path

import pytest

from paychan.cli import operator
from paychan.cli.output import CommandError
from paychan.settings.directory import read_directory
from paychan.settings.seed import SeedError, parse
from paychan.settings.seed_keys import convert

VECTORS = Path(__file__).parents[2] / "vectors" / "seed-cfg"
SECRETS = ("secret", "5ec7e7")


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    operator.register(parser.add_subparsers())
    arguments = parser.parse_args(["config", "import", *map(str, words)])
    return arguments.run(arguments)


def test_three_files_become_a_configuration_that_lacks_only_what_is_secret(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PAYCHAN_STATE_DIR", raising=False)
    for name in ("server.cfg", "store.cfg", "signing.cfg"):
        assert run(VECTORS / name, tmp_path / "new") == 0
    told = capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    found = read_directory(tmp_path / "new")
    keys = {problem.split(": ")[1] for problem in found.problems}
    assert keys == {"signer.key_file", "bitcoind.password_file"}
    assert found.server.funding_tx_min_conf == 2 and found.server.base_price == 70_000 and found.server.price_add_settlement_fee
    assert found.server.settlement_period_hours == 6 and found.server.chain.bitcoind_user == "rpc"
    everything = told + "".join(path.read_text() for path in (tmp_path / "new").iterdir())
    assert [secret for secret in SECRETS if secret in everything.replace("a secret, not taken over", "")] == []


def test_each_line_is_told_of(tmp_path, capsys):
    assert run(VECTORS / "server.cfg", tmp_path, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["lines"]
    about = {row["key"]: row["what"] for row in rows}
    assert len(rows) == 17 and rows[0]["line"] == 2 and rows[-1]["line"] == 24
    assert about["open.basePrice"].startswith("server.toml: open.base_price")
    assert "signer.toml: policy.settlement_period_hours (set it there)" in about["settlement.settlementPeriodHours"]
    assert about["chanStore.port"].startswith("no counterpart") and about["valueCallback.enable"].startswith("no counterpart")
    assert about["import"].startswith("no counterpart") and "not taken over" in about["bitcoin.bitcoindRPC.pass"]


def test_debug_mode_stays_debug_mode(tmp_path):
    text = (VECTORS / "server.cfg").read_text().replace("enable = off", "enable = on").replace('"live"', '"test"')
    (tmp_path / "server.cfg").write_text(text)
    run(tmp_path / "server.cfg", tmp_path)
    values = tomllib.loads((tmp_path / "server.toml").read_text())
    assert values["debug"]["enable"] is True and values["chain"]["backend"] == "debug" and "exposure" not in values


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "store.toml").write_text("mine")
    with pytest.raises(CommandError, match="is there already"):
        run(VECTORS / "store.cfg", tmp_path)
    assert (tmp_path / "store.toml").read_text() == "mine"


def test_a_variable_is_not_read():
    entries = parse('storage { stateDir = "x" }\nbitcoin { network = "$(NETWORK)" }')
    made = convert(entries)
    assert made.values == {} and made.notes[1].what.startswith("not taken over")


BROKEN = ["a { b = 1", "a = ", "= 1", "}", 'a = "no end', "a = 1.5", "a = b", "a { } }", "x" * 99 + " {" * 99, "\0", "a = {"]
BROKEN += ['"a" = 1', "", "store { a = 1 }"]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_such_file_is_refused_in_one_line_that_quotes_nothing(tmp_path, text):
    with pytest.raises(SeedError) as caught:
        convert(parse(text))
    assert "\n" not in str(caught.value) and "no end'" not in str(caught.value)
    (tmp_path / "a.cfg").write_text(text)
    with pytest.raises(CommandError):
        run(tmp_path / "a.cfg", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.cfg"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * ((1 << 20) + 1)])
def test_what_is_no_text_is_refused(tmp_path, content):
    (tmp_path / "a.cfg").write_bytes(content)
    with pytest.raises(CommandError):
        run(tmp_path / "a.cfg", tmp_path)
