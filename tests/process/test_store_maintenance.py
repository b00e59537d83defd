"""The commands an operator has: a backup is taken from the running store, a check wants it stopped and changes nothing, a
restored store serves and says what it is. The real commands on real processes."""

import asyncio
import signal
import subprocess
import sys

import pytest

from paychan.core.channel import ABSENT
from paychan.rpc.store_messages import EntryStatus
from tests.process.test_store_process import ROOT, SHARDS, Store, channels, worker

pytestmark = pytest.mark.usefixtures("running")


@pytest.fixture
def store(tmp_path):
    rig = Store(tmp_path)
    yield rig
    if rig.process is not None:
        rig.kill(signal.SIGKILL)


@pytest.fixture
def running(store):
    """A store with five channels."""
    store.start()
    asyncio.run(fill(store))


async def fill(store):
    async with worker(store) as writer:
        await writer.owns(SHARDS)
        entries = [writer.entry(key, ABSENT, 900, 1000) for key in channels(5)]
        assert set(await writer.commit(*entries)) == {EntryStatus.OK}


def command(*arguments):
    call = [sys.executable, "-m", "store", *map(str, arguments)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_running_store_is_backed_up_and_not_checked(store, tmp_path):
    state = tmp_path / "state"
    code, _, said = command("check", state)
    assert (code, said.partition(": another")[1]) == (1, ": another")
    assert command("backup", state, tmp_path / "backup")[0] == 0
    store.kill(signal.SIGKILL)
    code, printed, _ = command("check", state)
    assert (code, printed.splitlines()[-1]) == (0, "no problems")
    assert "5 channels: 5 open, 0 closing" in printed
    assert "\n500 satoshi received on open ones, 0 on those being settled\n" in printed
    code, _, said = command("restore", tmp_path / "backup", state)
    assert code == 1
    assert "holds a store already" in said


def test_a_restored_store_serves_and_says_so(store, tmp_path):
    state = tmp_path / "state"
    assert command("backup", state, tmp_path / "backup")[0] == 0
    store.kill(signal.SIGKILL)
    (state / "store").rename(tmp_path / "lost")
    assert command("restore", tmp_path / "backup", state)[0] == 0
    store.start()

    async def scenario():
        async with worker(store) as reader:
            await reader.owns(SHARDS)
            assert all(await reader.load_many(*channels(5)))
            assert min(epoch for _, epoch in reader.owners.owners) > 1 << 32

    asyncio.run(scenario())


def test_a_check_tells_what_is_wrong_and_changes_nothing(store, tmp_path):
    store.kill(signal.SIGKILL)
    place = tmp_path / "state" / "store" / "db"
    log = max(place.glob("*.log"))
    raw = bytearray(log.read_bytes())
    raw[len(raw) // 2] ^= 1
    log.write_bytes(raw)
    code, printed, said = command("check", tmp_path / "state")
    assert (code, printed) == (1, "")
    assert said.startswith("paychan-store check: the log is damaged: it ends at write ")
    assert log.read_bytes() == raw
    code, complaint = store.run_to_end()
    assert code == 2
    assert "the log is damaged" in complaint.splitlines()[-1]


@pytest.mark.parametrize("name", ["check", "backup"])
def test_a_place_without_a_store_is_named(name, tmp_path):
    code, _, said = command(name, tmp_path / "nothing", *([tmp_path / "target"] if name == "backup" else []))
    assert code == 1
    assert said == f"paychan-store {name}: {tmp_path}/nothing holds no store; give the directory that state_dir names\n"
