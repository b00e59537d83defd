"""Aim: a store that was restored from a backup takes nothing on a channel that was settled since, and gets back what payers paid
since. Method: the whole system beside a real node; the backup is taken while it runs, the restore is the operator's command.
"""

import shutil
import subprocess
import sys

import pytest

from tests import postgres
from tests.chain.regtest_system import DEPTH, regtest
from tests.system import ROOT, wait_until


@pytest.fixture
def chain(tmp_path):
    with regtest(tmp_path) as chain:
        yield chain


def command(*arguments: object) -> str:
    call = [sys.executable, "-m", "store", *map(str, arguments)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@postgres.embedded_only
def test_a_channel_settled_after_the_backup_is_not_paid_on_again(chain, tmp_path):
    state = chain.system.state_dir
    kept, settled, buried = (chain.channel(name).opened() for name in ("kept", "settled", "buried"))
    for channel in (kept, settled, buried):
        assert channel.pay(1000).json["value_received"] == 1000
    command("backup", state, tmp_path / "backup")
    for channel in (kept, settled, buried):
        assert channel.pay(500).json["value_received"] == 500
    assert buried.close().status == 202
    buried.wait_sent()
    chain.node.mine(DEPTH)
    assert settled.close().status == 202
    settled.wait_sent()
    spenders = {channel.name: chain.spender(channel).GetTxid() for channel in (settled, buried)}

    chain.system.stop()
    chain.system.output.clear()
    shutil.move(state / "store", tmp_path / "lost")
    printed = command("restore", tmp_path / "backup", state)
    assert "3 open" in printed
    assert "no problems" in command("check", state)
    chain.system.start()
    wait_until(lambda: chain.system.ready_workers() == 1, 20, "being ready again")
    assert chain.logged("this store was restored at")

    for channel in (kept, settled, buried):
        channel.client.close()
    again = kept.pay(0)
    assert (again.status, again.json["value_received"]) == (200, 500)  # what the backup did not hold
    again = kept.pay(0)
    assert (again.status, again.json["value_received"]) == (200, 0)
    assert kept.pay(70).json["value_received"] == 70
    for channel in (settled, buried):
        for amount in (0, 100):
            answer = channel.pay(amount)
            assert (answer.status, answer.code) in ((410, "funding_spent"), (409, "channel_closing"), (410, "channel_settled"))
    chain.node.mine(DEPTH)
    assert {channel.name: chain.spender(channel).GetTxid() for channel in (settled, buried)} == spenders
    for channel in (settled, buried):
        assert channel.pay(0).status in (409, 410)
