"""Aim: a machine of a cluster is drained without a payment lost, stays so over a restart, and comes back; the last one is not
drained. Method: two machines, the commands on the spot, and payers of both machines' channels who repeat what was not answered."""

import http.client
import json

import pytest

from paychan.cli.output import utc
from tests.machines import two_machines
from tests.operating import command
from tests.system import wait_until


@pytest.fixture
def machines(tmp_path):
    with two_machines(tmp_path) as both:
        yield both
        log = "".join([*both.output, *both.second.output])
        assert "Traceback" not in log and "internal error" not in log


def test_a_freeze_of_all_machines_holds_on_each_from_its_answer_on_until_it_is_undone_anywhere(machines):
    first, second = machines, machines.second
    old, one, other = (machines.payer(f"freeze {name}") for name in ("old", "one", "other"))
    assert old.open().status == 201
    place, there = str(first.config_dir), str(second.config)
    told = command(first, "freeze", place, "--cluster", "--why", "a trial", "--json")
    told = json.loads(told.stdout)
    assert (told["opens"]["holds_for"], told["not_yet"]) == ("all machines", [])
    refused = {client: answer_of(client, one) for client in (first.client(), second.client())}
    assert {(answer.status, answer.json["code"]) for answer in refused.values()} == {(503, "opens_frozen")}
    wait_until(lambda: second.client().request("GET", "/v1/fundingInfo").json["code"] == "opens_frozen", 20, "telling nobody")
    assert old.pay().status == 200
    assert f"openings frozen on all machines since {since(told)} a trial\n" in command(second, "overview", there).stdout
    alone = command(second, "thaw", there)
    assert alone.stdout == "openings are frozen on all machines\n", "a thaw of one machine leaves it"
    thawed = command(first, "thaw", place, "--cluster")
    assert thawed.stdout.startswith("channels are opened again\nother machines ask before each opening")
    wait_until(lambda: answer_of(first.client(), one).status == 201, 20, "opening at the first machine")
    wait_until(lambda: answer_of(second.client(), other).status == 201, 20, "opening at the second machine")


def answer_of(client, payer):
    """Return a machine's answer to a payer's opening, which may be repeated."""
    payer.client = client
    return payer.open() if payer.newest is None else client.request("POST", payer.sender.open_target(payer.newest))


def since(told):
    return utc(told["opens"]["since_at"])


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
        payer.client = other.client()
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
