"""The documented cluster, three machines with PostgreSQL under Patroni: its files are good; payers pay on through the loss of the
primary's machine, a machine that comes back without its disk, and a switchover; and nothing that was answered is lost.

Method: the files of deploy/patroni and the certificates of `paychan cluster certificates` (tests/patroni.py), the real programs.
"""

import subprocess
import sys

import pytest

from tests import patroni
from tests.system import ROOT

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
    with machines.system(tmp_path) as made:
        yield made


def test_payments_go_on_through_a_lost_machine_a_switchover_and_a_lost_disk(machines, system):
    paying = patroni.Paying(system)
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
