"""Aim: a store that was restored from a backup takes nothing on a channel that was settled since, and gets back what payers paid
since. Method: the whole system beside a real node; the backup is taken while it runs, the restore is the operator's command.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import postgres
from tests.chain.regtest_system import DEPTH, regtest
from tests.system import ROOT, System, wait_until

REFUSALS = ((409, "channel_closing"), (410, "funding_spent"), (410, "channel_settled"), (404, "no_such_payment"))
"""Of a channel whose settlement is in a block; the last once that is as deep as it must be."""


@pytest.fixture
def chain(tmp_path):
    with regtest(tmp_path) as chain:
        yield chain


def command(*arguments: object) -> str:
    call = [sys.executable, "-m", "store", *map(str, arguments)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lose_store(system: System, lost: Path) -> None:
    """Have a system that is stopped begin without its store; on PostgreSQL with a new, empty database."""
    shutil.move(system.state_dir / "store", lost)
    if not system.is_embedded:
        file = system.config_dir / "store.toml"
        file.write_text(file.read_text().partition("[postgres]")[0])
        postgres.use(system.config_dir)


def test_a_channel_settled_after_the_backup_is_not_paid_on_again(chain, tmp_path):
    kept, settled, buried = (chain.channel(name).opened() for name in ("kept", "settled", "buried"))
    for channel in (kept, settled, buried):
        assert channel.pay(1000).json["value_received"] == 1000
    command("backup", chain.system.store_place, tmp_path / "backup")
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
    lose_store(chain.system, tmp_path / "lost")
    printed = command("restore", tmp_path / "backup", chain.system.store_place)
    assert "3 open" in printed
    assert "no problems" in command("check", chain.system.store_place)
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
            assert (answer.status, answer.code) in REFUSALS
    chain.node.mine(DEPTH)
    assert {channel.name: chain.spender(channel).GetTxid() for channel in (settled, buried)} == spenders
    for channel in (settled, buried):
        answer = channel.pay(0)
        assert (answer.status, answer.code) in REFUSALS
