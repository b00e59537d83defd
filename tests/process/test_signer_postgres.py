"""Aim: several signers with one key sign as one would, whatever becomes of a machine, of the database, or of the connection.

Method: real signers, each with a state directory of its own and the same key file, a primary and a standby (tests/postgres.py),
and faults: two asked at once, ledgers set back, a killed or stopped database, cancelled waits.
"""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from coincurve import PrivateKey

from paychan.core.outpoint import format_outpoint
from paychan.core.settlement import check_settlement
from paychan.exits import EXIT_BAD_CONFIG, EXIT_FAILED
from paychan.rpc.connection import ConnectionGone
from paychan.rpc.signer_messages import RefusalCode, SignerMessage
from tests import postgres
from tests.process.test_signer_process import CONFIG, ROOT, Signer, run_command
from tests.process.test_store_postgres import make_authority, make_certificate
from tests.system import wait_until

pytestmark = postgres.needed

KEY = PrivateKey(b"\x05" * 32)
STORE_TOML = 'network = "test"\nstate_dir = "{state}"\n[debug]\nenable = true\n[store]\naddress = "unix:run/store.sock"\n{table}'


class Machine(Signer):
    """A signer on a machine of its own."""

    def __init__(self, directory: Path, cluster: postgres.Cluster, database: str) -> None:
        directory.mkdir()
        super().__init__(directory)
        self.cluster, self.database = cluster, database
        hosts = ", ".join(f'"{host}:{port}"' for host, port in cluster.hosts())
        self.config.write_text(f"{CONFIG.format(state=self.state)}versions_max = 9\n[postgres]\nhosts = [{hosts}]\n")
        self.point_at(database)
        self.state.mkdir(mode=0o700)
        (self.state / "signer.key").touch(mode=0o600)
        (self.state / "signer.key").write_text(KEY.secret.hex() + "\n")

    def point_at(self, database: str) -> None:
        lines = [line for line in self.config.read_text().splitlines() if not line.startswith("database = ")]
        self.config.write_text("\n".join([*lines, f'database = "{database}"', ""]))

    def spawn(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "signer", self.config], cwd=ROOT, stderr=log)

    def says(self, text: str) -> bool:
        return text in self.log.read_text()

    def wait_for_end(self) -> int:
        wait_until(lambda: self.process.poll() is not None, 20, "the signer's end")
        return self.process.returncode

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def own(self) -> Path:
        return self.state / "signer" / "signed.db"

    def own_rows(self, query: str) -> list:
        with sqlite3.connect(self.own) as db:
            return db.execute(query).fetchall()

    def sql(self, *statements: str) -> list:
        return self.cluster.primary.sql(*statements, database=self.database)

    def note(self, change_value: int):
        (answer,) = self.ask((SignerMessage.NOTE, self.request(change_value, 0).encode()))
        return answer


_schemas: dict[postgres.Cluster, str] = {}


def init(directory: Path, cluster: postgres.Cluster) -> str:
    """Return a new database with a schema: a copy of the cluster's first one, with a ledger of its own."""
    if cluster not in _schemas:
        _schemas[cluster] = make_schema(directory / "init", cluster)
    database = cluster.make_database()
    cluster.primary.sql(f"DROP DATABASE {database}", f"CREATE DATABASE {database} TEMPLATE {_schemas[cluster]}")
    cluster.primary.sql("UPDATE paychan.signer_ledger SET id = uuid_send(gen_random_uuid())", database=database)
    return database


def make_schema(place: Path, cluster: postgres.Cluster) -> str:
    database = cluster.make_database()
    place.mkdir(exist_ok=True)
    (place / "store.toml").write_text(STORE_TOML.format(state=place / "state", table=cluster.table(database)))
    done = run_store("postgres", "init", place)
    assert done.returncode == 0, done.stderr
    return database


def run_store(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "store", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def machines(directory: Path, cluster: postgres.Cluster, count: int = 2):
    database = init(directory, cluster)
    made = [Machine(directory / f"m{number}", cluster, database) for number in range(count)]
    try:
        yield made
    finally:
        for machine in made:
            machine.kill()


@contextmanager
def own_cluster():
    cluster = postgres.Cluster()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def two(tmp_path):
    with machines(tmp_path, postgres.shared()) as made:
        for machine in made:
            machine.spawn()
        wait_until(lambda: all(machine.says("ready at") for machine in made), 20, "both signers' start")
        yield made


def is_signed(answer) -> bool:
    return isinstance(answer, bytes) and len(answer) > 0


# --- as one would ---


def test_what_one_signed_the_other_knows(two):
    first, second = two
    raw = first.settle(first.request())
    check_settlement(raw, first.request().terms, first.request().payment, 10_000)
    assert second.settle(second.request(9_000_001)) == RefusalCode.GIVES_PAYER_MORE
    assert second.settle(second.request(fee=9_999)) == RefusalCode.FEE_FALLS
    assert second.settle(second.request()) == raw
    assert is_signed(second.settle(second.request(fee=20_000)))
    assert first.settle(first.request()) == RefusalCode.FEE_FALLS
    assert first.sql("SELECT versions, fee FROM paychan.signer_signed") == [(2, 20_000)]
    assert first.own_rows("SELECT versions FROM signed") == [(1,)] and second.own_rows("SELECT versions FROM signed") == [(2,)]


def test_a_machine_that_is_lost_takes_nothing_with_it(two):
    first, second = two
    assert is_signed(first.settle(first.request()))
    assert first.note(8_000_000) == b""
    first.kill()
    shutil.rmtree(first.state)
    assert second.settle(second.request(8_500_000)) == RefusalCode.GIVES_PAYER_MORE
    assert is_signed(second.settle(second.request(8_000_000)))


def test_of_two_that_are_asked_at_once_one_signs(two):
    """Each has room for one version; the payments of each round are different ones."""
    for machine in two:
        machine.end(signal.SIGTERM)
        machine.config.write_text(machine.config.read_text().replace("versions_max = 9", "versions_max = 1"))
        machine.start()
    for number in range(8):
        answers = {}

        def ask(machine, fee, outpoint=bytes([number]) * 36, answers=answers):
            answers[fee] = machine.settle(machine.request(fee=fee, outpoint=outpoint))

        threads = [threading.Thread(target=ask, args=(machine, 10_000 + place)) for place, machine in enumerate(two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        signed = [fee for fee, answer in answers.items() if is_signed(answer)]
        refused = [answer for answer in answers.values() if not is_signed(answer)]
        assert len(signed) == 1 and refused[0] in (RefusalCode.TOO_MANY_VERSIONS, RefusalCode.FEE_FALLS), answers
    assert two[0].sql("SELECT max(versions), count(*) FROM paychan.signer_signed") == [(1, 8)]


def test_the_fees_of_the_day_are_counted_for_all(tmp_path):
    with machines(tmp_path, postgres.shared()) as two:
        for machine in two:
            machine.config.write_text(machine.config.read_text().replace("versions_max = 9", "fee_sum_per_day_max = 30000"))
            machine.start()
        first, second = two
        assert is_signed(first.settle(first.request()))
        first.sql("UPDATE paychan.signer_fee SET outpoint = '\\x01'", "UPDATE paychan.signer_signed SET outpoint = '\\x01'")
        assert second.settle(second.request(fee=10_001)) == RefusalCode.FEES_OF_THE_DAY  # half of what the other has left
        assert is_signed(second.settle(second.request(fee=10_000)))


# --- the stricter counts ---


def test_a_database_that_was_set_back_makes_no_signer_forget_what_it_signed(two):
    first, second = two
    assert is_signed(first.settle(first.request()))
    assert first.note(8_500_000) == b""
    first.sql("DELETE FROM paychan.signer_signed", "DELETE FROM paychan.signer_noted", "UPDATE paychan.signer SET writes = 0")
    assert first.settle(first.request(9_000_001)) == RefusalCode.GIVES_PAYER_MORE
    first.end(signal.SIGTERM)
    first.start()  # and gives the database what it has
    assert first.says("the database has lost what was confirmed")
    assert second.settle(second.request(8_500_001)) == RefusalCode.GIVES_PAYER_MORE
    first.sql("DELETE FROM paychan.signer_noted")
    assert second.settle(second.request(9_000_001)) == RefusalCode.GIVES_PAYER_MORE


def test_a_ledger_of_its_own_that_was_set_back_is_made_up_for(two):
    first, _ = two
    copy = first.state / "copy"
    shutil.copy(first.own, copy)
    raw = first.settle(first.request())
    assert first.note(8_500_000) == b""
    first.kill()
    shutil.copy(copy, first.own)
    first.start()
    assert first.settle(first.request(9_000_001)) == RefusalCode.GIVES_PAYER_MORE
    assert first.settle(first.request()) == raw
    assert first.own_rows("SELECT change_value FROM signed") == [(9_000_000,)]


def test_both_set_back_differently_still_go_on(two):
    """The database knows an older version, and has had more of them."""
    first, _ = two
    raw = first.settle(first.request(8_000_000))
    change = "change_value = 9000000, fee = 50, versions = 5, txid = '\\x01'"
    first.sql(f"UPDATE paychan.signer_signed SET {change}", "UPDATE paychan.signer SET writes = 0")
    assert first.settle(first.request(8_000_001)) == RefusalCode.GIVES_PAYER_MORE
    assert first.settle(first.request(8_000_000)) == raw
    assert first.sql("SELECT change_value, versions FROM paychan.signer_signed") == [(8_000_000, 6)]
    assert is_signed(first.settle(first.request(8_000_000, 20_000)))
    assert first.own_rows("SELECT fee, versions FROM signed") == [(20_000, 7)]


def test_what_is_signed_again_may_have_been_noted_behind_since(two):
    first, second = two
    raw = first.settle(first.request())
    assert second.note(8_000_000) == b""
    assert second.settle(second.request()) == raw
    assert second.settle(second.request(fee=20_000)) == RefusalCode.GIVES_PAYER_MORE
    assert second.process.poll() is None


def test_what_was_signed_before_there_was_a_database_is_loaded_into_it(tmp_path):
    with machines(tmp_path, postgres.shared()) as (first, second):
        with_database = first.config.read_text()
        first.config.write_text(with_database[: with_database.index("[postgres]")])
        first.start()
        raw = first.settle(first.request())
        first.end(signal.SIGTERM)
        first.config.write_text(with_database)
        first.start()
        assert first.says("the shared ledger was given ours: 1 channels")
        second.start()
        assert second.settle(second.request(9_000_001)) == RefusalCode.GIVES_PAYER_MORE
        assert second.settle(second.request()) == raw


def test_another_database_is_refused_until_its_operator_says_so(two, tmp_path):
    first, _ = two
    assert is_signed(first.settle(first.request()))
    first.end(signal.SIGTERM)
    other = init(tmp_path, first.cluster)
    first.point_at(other)
    first.spawn()
    assert first.wait_for_end() == EXIT_BAD_CONFIG and first.says("this is another database than the one")
    for _ in range(2):
        done = run_command("--load", first.config)
        assert (done.returncode, done.stdout) == (0, "the shared ledger was given ours: 1 channels\n"), done
    assert first.cluster.primary.sql("SELECT versions FROM paychan.signer_signed", database=other) == [(1,)]
    first.start()
    running = run_command("--load", first.config)
    assert running.returncode == 2 and "another signer runs" in running.stderr


def test_a_note_is_forgotten_in_both(two):
    first, second = two
    assert first.note(8_000_000) == b""
    first.end(signal.SIGTERM)
    done = run_command("--forget-note", first.config, format_outpoint(first.request().terms.outpoint))
    assert done.returncode == 0 and done.stdout.startswith("forgotten"), done
    first.start()
    assert is_signed(second.settle(second.request()))


# --- not before it is confirmed ---


def waits(machine) -> list:
    rows = machine.sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'paychan_signer'")
    return [row[0] for row in rows]


def test_no_signature_leaves_before_a_standby_has_it(tmp_path):
    with own_cluster() as cluster, machines(tmp_path, cluster, 1) as (machine,):
        machine.start()
        cluster.standbys[0].signal(signal.SIGSTOP)
        answer = machine.settle(machine.request())
        assert isinstance(answer, ConnectionGone)
        assert machine.wait_for_end() == EXIT_FAILED and machine.says("is a standby connected?")
        assert machine.own_rows("SELECT count(*) FROM signed") == [(0,)]
        machine.spawn()
        assert machine.wait_for_end() == EXIT_FAILED  # nor is it ready
        cluster.standbys[0].signal(signal.SIGCONT)
        machine.start()
        assert is_signed(machine.settle(machine.request()))


def test_a_cancelled_wait_is_no_confirmation(tmp_path):
    with own_cluster() as cluster, machines(tmp_path, cluster, 1) as (machine,):
        machine.start()
        cluster.standbys[0].signal(signal.SIGSTOP)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(machine.settle(machine.request())))
        asking.start()
        wait_until(lambda: waits(machine), 20, "a commit that waits")
        machine.sql(f"SELECT pg_cancel_backend({waits(machine)[0]})")
        assert machine.wait_for_end() == EXIT_FAILED and machine.says("the database warns")
        asking.join()
        assert isinstance(answers[0], ConnectionGone)
        cluster.standbys[0].signal(signal.SIGCONT)


def test_without_names_of_standbys_nothing_is_signed(tmp_path):
    with own_cluster() as cluster, machines(tmp_path, cluster, 1) as (machine,):
        machine.start()
        cluster.primary.sql("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
        assert machine.wait_for_end() == EXIT_FAILED and machine.says("does not replicate synchronously")


def test_a_signer_follows_the_database_to_another_machine(tmp_path):
    with own_cluster() as cluster, machines(tmp_path, cluster, 1) as (machine,):
        machine.start()
        raw = machine.settle(machine.request())
        cluster.primary.kill()
        assert machine.wait_for_end() == EXIT_FAILED and machine.says("the database has closed the connection")
        machine.spawn()
        wait_until(lambda: machine.says("no primary of the database is there"), 20, "waiting for a primary")
        cluster.fail_over()

        def is_ready_again():
            if machine.process.poll() is not None:  # as long as the new primary has no standby; the supervisor starts it again
                machine.spawn()
            return machine.log.read_text().count("ready at") == 2

        wait_until(is_ready_again, 30, "being ready again")
        assert machine.settle(machine.request(9_000_001)) == RefusalCode.GIVES_PAYER_MORE
        assert machine.settle(machine.request()) == raw


def test_it_stops_at_once_whether_it_waits_or_serves(tmp_path):
    with machines(tmp_path, postgres.shared(), 1) as (machine,):
        assert machine.start().end(signal.SIGTERM) == 0
        text = machine.config.read_text()
        machine.config.write_text(text.replace("hosts = [", 'hosts = ["127.0.0.1:1"] # '))
        machine.spawn()
        wait_until(lambda: machine.says("no primary of the database is there"), 20, "the complaint")
        assert machine.end(signal.SIGTERM) == 0
        assert "Traceback" not in machine.log.read_text() and "destroyed" not in machine.log.read_text()


def test_over_tls_it_signs_behind_its_filter(tmp_path):
    """The host is a name, if there is one, so that threads look it up before the filter; they are gone when it comes."""
    ours, host = make_authority(tmp_path, "ours"), "localhost"
    try:
        socket.getaddrinfo(host, None)
    except OSError:  # a machine without /etc/hosts
        host = "127.0.0.1"
    server = make_certificate(tmp_path, ours, "db", f"subjectAltName={'DNS' if host == 'localhost' else 'IP'}:{host}")
    client = make_certificate(tmp_path, ours, "paychan_signer")
    with own_cluster() as cluster, machines(tmp_path, cluster, 1) as (machine,):
        cluster.primary.use_tls(*server, ours[1], "paychan_signer")
        files = f'ca_file = "{ours[1]}"\ncertificate_file = "{client[1]}"\nkey_file = "{client[0]}"\n'
        machine.config.write_text(machine.config.read_text().replace("127.0.0.1", host) + files)
        machine.start()
        assert is_signed(machine.settle(machine.request()))
        by_tls = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = 'paychan_signer'"
        assert machine.sql(by_tls) == [(1,)]
        assert machine.says("system calls filtered")


# --- what it may ---


def test_its_role_calls_functions_and_sees_no_table_and_the_stores_neither(two):
    first, _ = two
    for statement in (
        "SELECT * FROM paychan.signer_signed",
        "DELETE FROM paychan.signer_signed",
        "SELECT * FROM paychan.state",
        "SELECT paychan.restored()",
        "SELECT paychan.signer_pass('')",
    ):
        with pytest.raises(Exception, match="permission denied"):
            first.sql("SET ROLE paychan_signer", statement)
    for statement in ("SELECT * FROM paychan.signer_signed", "SELECT paychan.signer_beat('')"):
        with pytest.raises(Exception, match="permission denied"):
            first.sql("SET ROLE paychan_store", statement)


def test_another_key_or_no_ledger_is_refused(two, tmp_path):
    first, second = two
    second.kill()
    (second.state / "signer.key").write_text("06" * 32 + "\n")
    shutil.rmtree(second.state / "signer")
    second.spawn()
    assert second.wait_for_end() == EXIT_BAD_CONFIG and second.says("belongs to another key or network")
    second.point_at(first.cluster.make_database())
    second.spawn()
    assert second.wait_for_end() == EXIT_BAD_CONFIG and second.says("`paychan-store postgres init` makes it")


def test_what_it_gave_up_holds_for_the_thread_with_the_connection(two):
    """The filter is on every thread, and no socket was opened after it."""
    proc = Path("/proc") / str(two[0].process.pid)
    threads = list((proc / "task").iterdir())
    assert len(threads) == 2
    for thread in threads:
        status = (thread / "status").read_text()
        assert "Seccomp:\t2" in status or "Seccomp:" not in status
    if os.geteuid() == 0:
        links = [os.readlink(entry) for entry in (proc / "fd").iterdir()]
        assert not any("io_uring" in link for link in links)
