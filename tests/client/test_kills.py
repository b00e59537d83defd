"""Aim: a payer killed at any moment goes on without loss on either side. Method: kill -9 of real paying processes."""

import random
import subprocess
import sys
import time

import pytest

from paychan.client import Channel, ChannelBusy, parse_record
from tests.client.payer_system import new_channel
from tests.settled import settled_change
from tests.system import ROOT, running

KILLS = 30
SEED = 20261122
AT_ONCE = 6
PAYING = [sys.executable, "-m", "tests.client.paying_loop"]


def spawn(path) -> subprocess.Popen[str]:
    return subprocess.Popen([*PAYING, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def kill_soon_after_a_payment(process: subprocess.Popen[str], seconds: float) -> int:
    """Kill -9 `seconds` after the first acknowledged payment; return the last total that it printed in whole."""
    lines = [process.stdout.readline()]
    assert lines[0].endswith("\n"), "the process died by itself"
    time.sleep(seconds)  # the moment is what is tested
    process.kill()
    lines += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    return int([line for line in lines if line.endswith("\n")][-1])


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("system")) as found:
        yield found


def test_thirty_kills_lose_nothing_on_either_side(system, tmp_path):
    chances = random.Random(SEED)
    paths = [tmp_path / f"{number}.json" for number in range(AT_ONCE)]
    for path in paths:
        new_channel(tmp_path, system.port, path.stem).release()
    acknowledged = dict.fromkeys(paths, 0)
    pending = 0
    for _ in range(KILLS // AT_ONCE):
        for path, process in [(path, spawn(path)) for path in paths]:
            total = kill_soon_after_a_payment(process, chances.uniform(0, 0.02))
            assert total > acknowledged[path]
            acknowledged[path] = total
            record = parse_record(path.read_bytes())
            assert total <= record.paid_value <= total + 1
            assert record.pending_value in (0, 1)
            pending += record.pending_value
    assert pending, "no kill hit between signing and acknowledgement"
    for path in paths:
        with Channel(path) as channel:
            expected = channel.record.paid_value + channel.record.pending_value
            recovered = channel.resend().recovered
            assert channel.record.paid_value == expected >= acknowledged[path]
            assert recovered in (0, 1)
            end = channel.close_channel()
            raw = system.broadcast()[end.settlement_txid]
            change = settled_change(raw, end.settlement_txid, channel.record.terms)
            assert channel.record.funding.value - change == channel.record.paid_value == expected


def test_a_process_that_pays_locks_the_channel(system, tmp_path):
    new_channel(tmp_path, system.port).release()
    process = spawn(tmp_path / "c.json")
    try:
        assert process.stdout.readline()
        with pytest.raises(ChannelBusy):
            Channel(tmp_path / "c.json")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    Channel(tmp_path / "c.json").release()
