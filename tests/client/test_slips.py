"""Aim: whatever a payer gets wrong is told as what it is, and leaves nothing behind. Method: the command, against a server with
limits on network regtest, one in debug mode, and one that knows of v1 what 2016 knew."""

import argparse
import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from paychan.cli.funding import wait_for_funding
from paychan.client import Channel, Funding, parse_record
from paychan.client.sources import Found
from paychan.core.outpoint import format_outpoint, make_outpoint
from tests.client.payer_system import LARGEST, running_with_limits, type_paychan
from tests.client.scripted_server import ScriptedServer
from tests.ports import free_port
from tests.system import ROOT, running

UNIX_SECONDS = re.compile(r"\b[12][0-9]{9}\b")
UTC = re.compile(r": 20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9:]{8} UTC$", re.M)
WAYS = ("--bitcoind URL", "--esplora URL", "--funding-tx FILE", "--funding TXID:VOUT:SATOSHI")


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    with running_with_limits(tmp_path_factory.mktemp("limited")) as system:
        yield f"http://127.0.0.1:{system.port}"


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("system")) as found:
        yield found


@pytest.fixture
def paychan(tmp_path):
    return lambda *words: type_paychan(tmp_path / "state", *words)


def files(tmp_path) -> list[str]:
    return sorted(os.listdir(tmp_path / "state")) if (tmp_path / "state").exists() else []


FUND = ("--expires-in", 3, "--name", "try")


# --- fund ---


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--amount", 500_000), "the server is on regtest: give --network regtest (wrong_network)"),
        (("--amount", 500_000, "--network", "test"), "the server is on regtest: give --network regtest (wrong_network)"),
        (("--debug",), "the server is on regtest: give --network regtest (wrong_network)"),
        (
            ("--btc", "0.5", "--network", "regtest"),
            f"the server opens channels of at most {LARGEST} satoshi, not of 50000000; give a smaller --amount, or open several "
            "channels (funding_too_large)",
        ),
        (
            ("--amount", 83_000, "--network", "regtest"),
            "the channel needs at least 83940 satoshi: the open price is 83240; give a larger --amount (too_small)",
        ),
        (
            ("--amount", 500_000, "--network", "regtest", "--expires-in", 0.1),
            "exp_time must be at least 7 hours ahead; give a larger --expires-in (exp_time_too_soon)",
        ),
        (
            ("--amount", 5_000_000, "--network", "regtest", "--expires-in", 7.25 / 24),
            "the server opens no channel that expires so soon, and 3 confirmations take 30 minutes or so; give a larger "
            "--expires-in (exp_time_too_soon)",
        ),
        (
            ("--amount", 500_000, "--network", "regtest", "--expires-in", 91),
            "exp_time must be at most 2160 hours ahead; give a smaller --expires-in (exp_time_too_far)",
        ),
        (
            ("--amount", 500_000, "--network", "regtest", "--change-address", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"),
            "change_address is no address of network regtest; see --change-address (invalid_change_address)",
        ),
    ],
    ids=str,
)
def test_what_the_server_opens_no_channel_on_is_refused_before_there_is_an_address_a_key_or_a_file(
    limited, paychan, tmp_path, words, told
):
    done = paychan("fund", limited, *FUND, *words)
    assert (done.status, done.out, done.err) == (1, "", f"paychan: {told}\n")
    assert not (tmp_path / "state").exists()


def test_the_wrong_network_of_a_server_of_2016_is_found_out_too(paychan, tmp_path):
    with ScriptedServer() as server:
        url = f"http://127.0.0.1:{server.port}"
        done = paychan("fund", url, *FUND, "--amount", 50_000)
        known = ("test", "testnet4", "signet", "regtest")
        advice = " or ".join(f"--network {name}" for name in known)
        assert done.err == f"paychan: the server is on {' or '.join(known)}: give {advice} (wrong_network)\n"
        assert not files(tmp_path)
        assert paychan("fund", url, *FUND, "--amount", 50_000, "--network", "test").status == 0


def test_what_fits_is_told_with_the_confirmations_that_it_needs(limited, paychan, tmp_path):
    for name, amount, count in (("small", 999_999, 1), ("large", LARGEST, 3)):
        words = ("fund", limited, "--network", "regtest", "--expires-in", 3, "--name", name, "--amount", amount)
        done = paychan(*words)
        assert done.status == 0 and f"confirmations needed: {count}\n" in done.out
        assert all(way in done.out for way in WAYS) and f"then: paychan open {name}" in done.out
        known = json.loads(paychan("status", name, "--json").out)
        assert (known["amount"], known["confirmations_needed"]) == (amount, count)
    assert files(tmp_path) == ["large.json", "large.json.lock", "large.key", "small.json", "small.json.lock", "small.key"]


def test_money_is_waited_for_until_it_has_the_confirmations_that_the_amount_needs(limited, paychan, tmp_path):
    assert paychan("fund", limited, *FUND, "--network", "regtest", "--amount", LARGEST).status == 0
    depths = [-1, 0, 1, 2, 3, 4]

    class Chain:
        def find(self, agreement):
            depth = depths.pop(0)
            return [Found(Funding(make_outpoint(bytes(32), 0), LARGEST), depth)] if depth >= 0 else []

    with Channel(tmp_path / "state" / "try.json") as channel:
        wait_for_funding(argparse.Namespace(json=True, poll_seconds=0.001, wait_seconds=60), channel, Chain())
        assert channel.record.funding.value == LARGEST
    assert depths == [4]


def test_a_server_that_is_down_is_named(limited, paychan, tmp_path):
    url = f"http://127.0.0.1:{free_port()}"
    done = paychan("fund", url, *FUND, "--amount", 50_000, "--deadline", 0.3)
    assert (done.status, done.err) == (4, f"paychan: {url}: Connection refused (unreachable)\n")
    assert not files(tmp_path)
    done = paychan("fund", limited, *FUND, "--amount", 500_000, "--network", "regtest", "--wait", "--esplora", f"{url}/api")
    assert done.status == 4 and done.err.endswith(f"paychan: the block explorer {url}/api: Connection refused (unreachable)\n")


def test_a_key_of_keygen_is_used_by_who_names_it_and_keygen_says_so(limited, paychan, tmp_path):
    done = paychan("keygen")
    key = str(tmp_path / "state" / "payer.key")
    assert f"to use it: paychan fund URL --key {key} ..." in done.out
    pubkey = re.search(r"client pubkey: ([0-9a-f]{66})", done.out)[1]
    words = ("fund", limited, *FUND, "--network", "regtest", "--amount", 500_000)
    assert paychan(*words, "--key", key).status == 0
    assert json.loads((tmp_path / "state" / "try.json").read_text())["client_pubkey"] == pubkey
    assert "try.key" not in files(tmp_path)
    done = paychan(*words, "--name", "other", "--key", tmp_path / "missing")
    assert done.status == 9 and f"{tmp_path / 'missing'}: there is no such key file; `paychan keygen " in done.err


# --- channels that are not there, or not open ---


@pytest.mark.parametrize(
    "words",
    [("pay", "nosuch", 5), ("open", "nosuch"), ("close", "nosuch"), ("status", "nosuch"), ("refund", "nosuch", "--fee-rate", 5)]
    + [("status", "nosuch", "--resend"), ("open", "nosuch", "--resume"), ("pay", "nosuch", "all", "--yes")],
    ids=str,
)
def test_a_channel_that_is_not_there_is_named_and_leaves_nothing(paychan, tmp_path, words):
    done = paychan(*words)
    assert (done.status, done.out) == (9, "")
    assert done.err == 'paychan: no channel "nosuch"; `paychan list` shows yours (channel_missing)\n'
    assert not (tmp_path / "state").exists()


def test_an_unfunded_channel_says_how_to_go_on(limited, paychan):
    assert paychan("fund", limited, *FUND, "--network", "regtest", "--amount", 500_000).status == 0
    done = paychan("status", "try")
    address = re.search("funding address: (2[1-9A-Za-z]+)", done.out)[1]
    assert "amount: 500000\n" in done.out
    assert f"bip21: bitcoin:{address}?amount=0.00500000&label=paychan%20try\n" in done.out
    done = paychan("open", "try")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert f"pay 500000 satoshi to {address} first" in done.err and all(way in done.err for way in WAYS)
    done = paychan("close", "try")
    assert done.status == 1 and "the channel is not open, so there is nothing to close" in done.err and "(not_open)" in done.err
    assert paychan("pay", "try", 5).err == "paychan: the channel is not open yet (not_open)\n"


def test_a_funded_channel_does_not_ask_for_money_again(system, paychan):
    assert paychan("fund", f"http://127.0.0.1:{system.port}", "--debug", *FUND).status == 0
    done = paychan("status", "try")
    assert "bip21" not in done.out and "amount:" not in done.out and "funding value: 12345678900000" in done.out


def test_who_comes_too_late_to_pay_is_told(limited, paychan, tmp_path):
    assert paychan("fund", limited, *FUND, "--network", "regtest", "--amount", 500_000).status == 0
    assert "do not pay" not in paychan("status", "try").out
    path = tmp_path / "state" / "try.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "open_before": int(time.time()) - 60}))
    assert "do not pay to it any more: the server would have opened it until 20" in paychan("status", "try").out


def test_a_channel_that_was_settled_for_its_expiry_says_so(tmp_path, paychan):
    """The server's clock is eight hours behind, so it takes a channel that by our clock is due."""
    start = int(time.time()) - 8 * 3600
    with running(tmp_path / "system", env={"PAYCHAN_CLOCK_START": str(start)}) as system:
        url = f"http://127.0.0.1:{system.port}"
        assert paychan("fund", url, "--debug", "--expires-in", 1 / 24, "--name", "due").status == 0
        assert paychan("open", "due").status == 0
        record = parse_record((tmp_path / "state" / "due.json").read_bytes())
        settle = [sys.executable, "-m", "paychan", "settle", str(system.config_dir), format_outpoint(record.terms.outpoint)]
        subprocess.run(settle, env={"PAYCHAN_STATE_DIR": str(system.state_dir)}, cwd=ROOT, check=True, capture_output=True)
        for _ in range(2):
            done = paychan("pay", "due", 5)
            assert done.status == 5 and "(channel_closed)" in done.err
            assert re.search(r"it expires 20[-0-9]+ [0-9:]+ UTC, and 6 hours before that the server takes its money", done.err)


# --- what is shown ---


def test_people_read_times_and_programs_read_seconds(system, paychan):
    url = f"http://127.0.0.1:{system.port}"
    commands = [
        (("fund", url, "--debug", *FUND), {"exp_time", "refund_expected_at", "open_before"}),
        (("open", "try"), set()),
        (("status", "try"), {"exp_time", "refund_expected_at", "open_before"}),
        (("refund", "try", "--fee-rate", 5), {"valid_after", "expected_at"}),
    ]
    for words, times in commands:
        shown = paychan(*words).out
        assert not UNIX_SECONDS.search(shown), shown
        assert len(UTC.findall(shown)) >= len(times)
        if words[0] in ("status", "refund"):
            found = json.loads(paychan(*words, "--json").out)
            assert all(type(found[name]) is int for name in times)
    assert not UNIX_SECONDS.search(paychan("list").out)


def test_a_list_has_heads_and_an_empty_one_a_sentence(limited, paychan, tmp_path):
    assert paychan("list").out == f"no channels in {tmp_path / 'state'}; `paychan fund` makes one\n"
    assert json.loads(paychan("list", "--json").out) == {"channels": []}
    assert not (tmp_path / "state").exists()
    assert paychan("fund", limited, *FUND, "--network", "regtest", "--amount", 500_000).status == 0
    (tmp_path / "state" / "broken.json").write_text("{}")
    head, *lines = paychan("list").out.splitlines()
    assert head.split() == ["NAME", "PHASE", "NETWORK", "PAID", "LEFT", "PENDING", "EXPIRES", "SERVER"]
    assert lines[0].split("  ")[0] == "broken" and "damaged" in lines[0] and lines[0].endswith("the state file is damaged: version")
    assert lines[1].index(limited) == head.index("SERVER") and lines[1].index("regtest") == head.index("NETWORK")
    assert lines[1].index("20") == head.index("EXPIRES")


# --- giving everything away ---


@pytest.fixture
def full(system, paychan, tmp_path):
    """An open channel's state file."""
    assert paychan("fund", f"http://127.0.0.1:{system.port}", "--debug", *FUND).status == 0
    assert paychan("open", "try").status == 0
    return tmp_path / "state" / "try.json"


def test_all_is_not_given_away_by_a_script_that_does_not_say_yes(paychan, full):
    before = full.read_bytes()
    done = paychan("pay", "try", "all")
    assert (done.status, done.out) == (2, "") and "add --yes" in done.err
    assert full.read_bytes() == before
    assert json.loads(paychan("pay", "try", "all", "--yes", "--json").out)["change_value"] == 0


@pytest.mark.parametrize(("answer", "status"), [("n\n", 1), ("\n", 1), ("\x04", 1), ("yes\n", 0), ("Y\n", 0)])
def test_who_sits_at_a_terminal_is_asked_before_all_is_given_away(full, answer, status):
    before = full.read_bytes()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "paychan", "pay", "try", "all", "--json", "--state-dir", str(full.parent)]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True, cwd=ROOT)
    os.close(theirs)
    try:
        asked = b""
        with contextlib.suppress(OSError):  # EIO: the command has ended
            while b"[y/N]" not in asked:
                asked += os.read(ours, 1024)
        assert b"all 12345678816760 satoshi that are left would go to http://127.0.0.1:" in asked
        os.write(ours, answer.encode())
        result = process.communicate(timeout=60)[0]
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    assert process.returncode == status
    if status:
        assert not result and full.read_bytes() == before
    else:
        assert json.loads(result)["status"] == "closed"


def test_a_wrong_argument_is_told_in_one_line_or_as_json(paychan):
    done = paychan("pay", "try", "-5")
    assert done.status == 2 and done.err == (
        "paychan pay: argument AMOUNT: must be a whole number of satoshi, not '-5' (usage); `paychan pay --help` tells more\n"
    )
    error = json.loads(paychan("pay", "try", "-5", "--json").err)
    assert (error["code"], error["exit_status"]) == ("usage", 2)
