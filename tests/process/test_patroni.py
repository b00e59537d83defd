"""The documented cluster, three machines with PostgreSQL under Patroni: its files are good; payers pay on through the loss of the
primary's machine, a machine that comes back without its disk, and a switchover; and nothing that was answered is lost.

Method: the files of deploy/patroni and the certificates of `paychan cluster certificates` (tests/patroni.py), the real programs.
"""

import subprocess
import sys
import threading

import pytest

from paychan.chain.debug import DEBUG_FUNDING_VALUE
from tests import patroni
from tests.campaign.load import PatientClient
from tests.system import ROOT, System, free_port, make_config, own_ports_block, wait_until

pytestmark = patroni.needed


@pytest.fixture(scope="module")
def machines():
    found = patroni.Machines()
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture
def system(machines, tmp_path):
    """A system whose store is on that database, set up by the document's commands."""
    machines.primary.sql("CREATE DATABASE paychan")
    with own_ports_block() as base_port:
        config = make_config(tmp_path / "config", {"server.toml": {"base_port = ": f"base_port = {base_port}"}})
        file = config / "store.toml"
        file.write_text(f"{file.read_text()}\n{machines.table()}")
        command = [sys.executable, "-m", "store", "postgres", "init", str(config), "--host", str(machines.primary.sockets)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        made = System(tmp_path / "state", config, free_port())
        made.start()
        try:
            yield made
        finally:
            made.stop()


class Paying(threading.Thread):
    """Pays a satoshi by a satoshi until it is told to stop, repeating what was not answered. `answered`: satoshi that the channel
    has received, by the newest answer."""

    def __init__(self, system):
        super().__init__(daemon=True)
        self._payer, self._is_over, self.answered, self.failed = system.payer("patroni"), threading.Event(), 0, ""
        assert self._payer.open().status == 201
        self._client = PatientClient(system.port)
        self.start()

    def run(self):
        while not self._is_over.is_set():
            target = self._payer.sender.channel_target(self._payer.sender.pay(1))
            answer, _ = self._client.until_answered("PUT", target)
            if answer.status != 200:
                self.failed = f"{answer.status} {answer.code}"
                return
            self.answered = DEBUG_FUNDING_VALUE - answer.json["channel_value_left"]

    def goes_on(self):
        """Wait until a payment was answered that was signed after this call."""
        begun = self.answered
        wait_until(lambda: self.failed or self.answered > begun + 1, patroni.START_SECONDS_MAX, "a payment")
        assert not self.failed

    def end(self):
        self._is_over.set()
        self.join(patroni.START_SECONDS_MAX)
        assert not self.is_alive() and not self.failed
        return self.answered


def test_payments_go_on_through_a_lost_machine_a_switchover_and_a_lost_disk(machines, system):
    paying = Paying(system)
    paying.goes_on()

    lost = machines.primary
    lost.kill()
    machines.wait_for(2)
    paying.goes_on()

    lost.lose_disk()
    lost.start()
    machines.wait_for(3)
    paying.goes_on()

    roles = machines.roles()
    successor = next(name for name, role in roles.items() if role == "Sync Standby")
    machines.primary.ctl("switchover", "--master", machines.primary.name, "--candidate", successor, "--force")
    machines.wait_for(3)
    assert machines.primary.name == successor
    paying.goes_on()

    answered = paying.end()
    system.stop()
    checked = subprocess.run(
        [sys.executable, "-m", "store", "check", str(system.config_dir)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert f"{answered} satoshi" in checked.stdout, checked.stdout
