"""Aim: a process that is stopped, orphaned or started twice costs no money and disturbs little. Method: real systems with two
workers; SIGSTOP longer than the lease, SIGCONT, kill -9 of the parent, a second `paychan run`; the tiling check judges."""

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from paychan.core.sender import sign_payment
from paychan.core.sharding import shard_of
from paychan.rpc.store_messages import EntryStatus
from paychan.server.doors.peers import ANSWER_SECONDS_MAX
from paychan.supervisor import STOP_SECONDS_MAX
from tests.campaign.faults import LEASE_MS
from tests.campaign.fencing import SHARDS, Rogue, count_stale
from tests.campaign.load import Account, Load, PatientClient
from tests.ports import free_port
from tests.system import PATIENCE_FACTOR, ROOT, System, make_config, processes, running, wait_until
from tests.tiling import check_all

STALE_COUNT = int(os.environ.get("PAYCHAN_STALE_COUNT", "40"))
LEASE_SECONDS = 3.0  # config/debug/store.toml
ORPHAN_SECONDS_MAX = 15.0
STORE_STOPPED_SECONDS = 12.0
EXIT_BAD_CONFIG = 2


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("fencing"), workers=2) as system:
        yield system


@pytest.fixture(autouse=True)
def both_workers(system):
    wait_until(lambda: system.ready_workers() == 2, 30, "two workers")


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process, and let it go on at the end, whatever happens."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def is_alive(pid: int) -> bool:
    return any(pid == other for other, _, _ in processes())


@pytest.mark.parametrize("oldest", [True, False])
def test_a_stopped_workers_channels_move_and_its_late_writes_count_for_nothing(system, oldest):
    # Attempts give up after 1 s: connections that the kernel gave to the stopped worker hang.
    with Load(system, seed=10 + oldest, threads=4, shared=4, timeout=1.0) as load:
        accounts = [Account.of(system, f"stopped-{oldest}-{i}") for i in range(16)]
        client = PatientClient(system.port, timeout=1.0)
        for account in accounts:
            account.open(client)
        with stopped(system.worker_pids()[0 if oldest else -1]):
            begun = time.monotonic()
            for account in accounts:
                account.pay(client, 5)
            print(f"the other worker took over within {time.monotonic() - begun:.1f} s")
            load.wait_for_progress(20)
            wait_until(lambda: time.monotonic() - begun > LEASE_SECONDS + 1, 10, "the end of the lease")
        # It wakes with requests in its sockets and an old table, and must not answer from it.
        for _ in range(10):
            for account in accounts:
                account.pay(client, 5)
        load.wait_for_progress(50)
        wait_until(lambda: system.ready_workers() == 2, 10, "the stopped worker's return")
        for account in accounts:
            account.close(client)
        assert check_all([account.history for account in accounts]).problems == []
        assert load.close_and_judge().problems == []


def test_a_forwarded_request_is_not_held_by_a_stopped_owner(system):
    """The other worker answers 503 as soon as it knows that the owner is gone, not after its own patience."""
    accounts = [Account.of(system, f"forward-{i}") for i in range(8)]
    client = PatientClient(system.port, timeout=1.0)
    for account in accounts:
        account.open(client)
    slow = PatientClient(system.port, timeout=2 * ANSWER_SECONDS_MAX)
    with stopped(system.worker_pids()[0]):
        deadline = time.monotonic() + 10
        while True:  # find a connection that the running worker serves
            slow.close()
            slow._connection.timeout = 0.5
            with contextlib.suppress(OSError):
                if slow.request("GET", "/healthz").status == 200:
                    break
            assert time.monotonic() < deadline
        slow._connection.sock.settimeout(2 * ANSWER_SECONDS_MAX)
        for account in accounts:
            account.pay(slow, 5)
    assert slow.slowest_attempt < ANSWER_SECONDS_MAX
    for account in accounts:
        account.close(client)
    assert check_all([account.history for account in accounts]).problems == []


def test_a_late_write_of_a_former_owner_changes_nothing(system):
    """Former owner and new owner judge different payments on the same state; only the new owner's may count.

    Without the epoch, or without the comparison, both would be acknowledged and their intervals overlap.
    """

    async def scenario() -> None:
        late = Rogue(system)
        await late.join("late")
        await asyncio.to_thread(system.kill, "worker")
        await late.wait_for(lambda table: len(table.workers) == 2)
        before = late.epochs()
        await late.wait_for(lambda table: len(table.workers) == 3)
        gone = {shard: epoch for shard, epoch in before.items() if shard not in late.epochs()}
        assert gone, "no shard moved from the rogue to a real worker"
        names = (f"late-{i}" for i in itertools.count())
        account = next(a for n in names if shard_of((a := Account.of(system, n)).terms.outpoint, SHARDS) in gone)
        shard = shard_of(account.terms.outpoint, SHARDS)
        client = PatientClient(system.port)
        await asyncio.to_thread(account.open, client)
        seen = account.lowest.change_value
        operation = await asyncio.to_thread(account.pay, client, 5)
        assert operation.received == 5

        lower = sign_payment(account.terms, seen - 10, account.sender.key)
        assert await late.write(account, gone[shard], seen, lower) == EntryStatus.STALE_EPOCH
        newest = late.table.owners[shard][1]
        assert newest > gone[shard]
        assert await late.write(account, newest, seen, lower) == EntryStatus.CONFLICT
        assert await late.write(account, gone[shard], account.lowest.change_value, lower) == EntryStatus.STALE_EPOCH

        operation = await asyncio.to_thread(account.pay, client, 7)
        assert (operation.received, operation.lost) == (7, 0)
        late.connection.close()
        await asyncio.to_thread(account.close, client)
        assert check_all([account.history]).problems == []

    asyncio.run(scenario())


def test_no_write_of_a_stale_owner_is_accepted(tmp_path):
    """PAYCHAN_STALE_COUNT: of each kind; `python -m tests.campaign.fencing` says more about them."""
    seed = secrets.randbelow(1 << 32)
    lease = {"store.toml": {"lease_ms = ": f"lease_ms = {LEASE_MS}"}}
    with running(tmp_path, workers=2, changes=lease) as system:
        for part in count_stale(system, STALE_COUNT, seed):
            print(part)
            assert part.tried.total() >= STALE_COUNT
            assert (part.accepted, part.problems) == (0, []), f"seed {seed}"


def test_workers_end_with_the_servers_main_process(system):
    with Load(system, seed=20) as load:
        workers = system.worker_pids()
        main = system.kill("server")
        killed_at = time.monotonic()
        wait_until(lambda: not any(is_alive(pid) for pid in workers), ORPHAN_SECONDS_MAX, "the end of the orphans")
        load.wait_for_progress(5)
        print(f"orphans gone and payments back {time.monotonic() - killed_at:.2f} s after the kill")
        assert system.child_pid("server") != main
        assert load.close_and_judge().problems == []


@pytest.mark.parametrize(("number", "rounds"), [(signal.SIGKILL, 4), (signal.SIGTERM, 1)])
def test_no_worker_survives_however_early_the_main_process_ends(tmp_path, number, rounds):
    """A worker that has just been made has not yet told the kernel, and has its maker's signal handlers, not its own."""
    config = make_config(tmp_path / "config")
    env = {**os.environ, "PORT": str(free_port()), "PAYCHAN_STATE_DIR": str(tmp_path / "state"), "PAYCHAN_WORKERS": "2"}

    def family() -> list[int]:
        return [pid for pid, _, command in processes() if f"paychan.server {config}/" in command]

    for _ in range(rounds):
        command = [sys.executable, "-m", "paychan.server", str(config / "server.toml")]
        main = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: len(family()) > 1, 20, "the first worker")
            main.send_signal(number)
            main.wait(ORPHAN_SECONDS_MAX if number == signal.SIGKILL else STOP_SECONDS_MAX)
            wait_until(lambda: not family(), ORPHAN_SECONDS_MAX, "the end of the workers")
        finally:
            for pid in family():
                os.kill(pid, signal.SIGKILL)


def test_a_second_instance_on_the_same_state_exits_and_disturbs_nothing(system):
    with Load(system, seed=30) as load:
        before = {system.child_pid(name) for name in ("signer", "store", "server")} | set(system.worker_pids())
        second = replace(system, port=free_port(), output=[], process=None)
        process = second.spawn()
        try:
            output, _ = process.communicate(timeout=20 * PATIENCE_FACTOR)
        finally:
            if process.poll() is None:
                process.kill()
        assert process.returncode == EXIT_BAD_CONFIG, output
        assert "ready" not in output.splitlines()[-1]
        load.wait_for_progress(20)
        after = {system.child_pid(name) for name in ("signer", "store", "server")} | set(system.worker_pids())
        assert after == before
        verdict = load.close_and_judge()
        assert (verdict.problems, verdict.gaps) == ([], 0)


def test_a_stopped_store_means_bounded_503s_and_no_loss(system):
    with Load(system, seed=40, timeout=2 * STORE_STOPPED_SECONDS) as load:
        with stopped(system.child_pid("store")):
            begun = time.monotonic()
            while (elapsed := time.monotonic() - begun) < STORE_STOPPED_SECONDS:
                # A connection for each: both workers must notice, each when its own lease ends.
                probe = PatientClient(system.port)
                answer = probe.request("GET", "/readyz")
                probe.close()
                if elapsed > LEASE_SECONDS + 0.5:
                    assert answer.status == 503 and answer.code in ("store_unavailable", "owner_moved"), answer
                    assert "retry-after" in answer.headers
                time.sleep(0.1)
        begun = time.monotonic()
        load.wait_for_progress(5)
        print(f"payments back {time.monotonic() - begun:.2f} s after the store woke")
        assert load.slowest_attempt < STORE_STOPPED_SECONDS, "a request was held until the store woke"
        assert load.close_and_judge().problems == []


def test_a_new_instance_starts_right_after_its_supervisor_was_killed(tmp_path):
    """The children of a killed supervisor are told to end; its successor waits for their locks instead of giving up."""
    with running(tmp_path, workers=2) as system:
        account = Account.of(system, "after")
        account.open(PatientClient(system.port))
        system.process.kill()
        system.process.wait()
        system.output.clear()
        system.start()
        client = PatientClient(system.port)
        account.pay(client)
        account.close(client)
        assert check_all([account.history]).problems == []


def test_the_state_directory_is_free_again_after_a_stop(tmp_path):
    with running(tmp_path, workers=2) as system:
        system.restart()
        assert isinstance(system, System) and system.ready_workers() == 2
