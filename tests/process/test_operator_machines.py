"""Aim: a machine of a cluster is drained without a payment lost, stays so over a restart, and comes back; the last one is not
drained. Method: two machines, the commands on the spot, and payers of both machines' channels who repeat what was not answered."""

import http.client
import json

import pytest

from tests.machines import two_machines
from tests.operating import command
from tests.system import wait_until


@pytest.fixture
def machines(tmp_path):
    with two_machines(tmp_path) as both:
        yield both
        log = "".join([*both.output, *both.second.output])
        assert "Traceback" not in log and "internal error" not in log


def overview(system):
    return json.loads(command(system, "overview", str(system.config_dir), "--json").stdout)


def pays(payer, client):
    """Send the newest payment through a machine; False where a client repeats it."""
    payer.client = client
    try:
        return payer.resend().status == 200
    except (OSError, http.client.HTTPException):
        return False


def test_a_machine_is_drained_and_comes_back_and_no_payment_is_lost(machines):
    payers = [machines.payer(f"cluster {number}") for number in range(6)]
    assert [payer.open().status for payer in payers] == [201] * 6
    drain = ("drain", str(machines.config_dir))
    wait_until(lambda: command(machines, *drain, "--machine").returncode == 0, 30, "draining")
    other = machines.second
    for payer in payers:
        payer.newest = payer.sender.pay(1)
        wait_until(lambda payer=payer: pays(payer, other.client()), 60, "paying at the other machine")
    wait_until(lambda: (found := overview(machines))["is_drained"] and found["ready"]["code"] == "machine_drained", 60, "draining")
    assert all(row["shards"] == 0 for row in overview(machines)["workers"])
    refused = machines.client().request("GET", "/readyz")
    assert (refused.status, refused.json["code"]) == (503, "machine_drained")
    for payer in payers:
        assert payer.resend().json["channel_value_left"] == payer.newest.change_value
    undone = command(machines, *drain, "--undo")
    assert (undone.returncode, undone.stdout) == (0, "the machine serves again\n")
    wait_until(lambda: machines.ready_workers() == 2, 60, "serving again")
    for payer in payers:
        payer.newest = payer.sender.pay(1)
        wait_until(lambda payer=payer: pays(payer, machines.client()), 60, "paying at the first machine")
    other.kill()
    wait_until(lambda: machines.ready_workers() == 1, 60, "noticing that the other machine is gone")
    last = command(machines, *drain, "--machine")
    assert last.returncode == 1 and "no_other_machine" in last.stderr
