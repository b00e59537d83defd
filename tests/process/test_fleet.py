"""Two machines, each with a store of its own, on one database: any door of any machine serves every channel, and a machine that
dies, hangs or is upgraded costs no payment.

Method: whole systems (tests/fleet.py), payers at all doors of both (tests/campaign/load.py), judged by tiling.
"""

import signal
import time

import pytest

from tests import postgres
from tests.campaign.load import Load
from tests.fleet import fleet
from tests.operating import command
from tests.process.test_four_doors import open_channel
from tests.system import wait_until

pytestmark = postgres.needed

LEASE_MS = 2000


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    with fleet(tmp_path_factory.mktemp("fleet"), lease_ms=LEASE_MS) as made:
        yield made
        log = "".join(line for machine in made.machines for line in machine.output)
        assert "Traceback" not in log and "internal error" not in log
        assert "payment=" not in log


def judged(machines, load):
    """End a load, and judge it and the database."""
    verdict = load.close_and_judge()
    assert verdict.problems == []
    done = machines.check()
    assert done.returncode == 0, done.stdout
    print(f"{load.operations} operations, {verdict.gaps} lost answers, slowest {load.slowest:.2f} s")


def held_by(machine):
    """Return what a machine says is received on open channels."""
    return machine.client().request("GET", "/readyz").json["exposure"]["open_value"]


def test_a_channel_is_served_through_any_door_of_any_machine(machines):
    first, second = machines.machines
    client, owners = first.client(), set()
    while len(owners) < 2:
        channel = open_channel(machines, client)
        owners.add(channel.owner)
        for door in (first, second):
            channel.left -= 7
            answer = door.client().request("PUT", f"{channel.path}?payment={channel.sign(channel.left).encode()}")
            assert (answer.status, answer.json["value_received"]) == (200, 7)
    assert {machines.sql(f"SELECT count(*)::int FROM paychan.shard WHERE store = '{name}'")[0][0] for name in "ab"} == {129}
    values = [row[0] for row in machines.sql("SELECT open_value::int FROM paychan.store")]
    assert all(values)
    for machine in (first, second):
        wait_until(lambda machine=machine: held_by(machine) == sum(values), 20, "the sum of both stores")


def test_an_operator_sees_all_machines_and_freezes_openings_on_all(machines):
    first, second = machines.machines
    for machine, other in ((first, second), (second, first)):
        lines = command(machine, "overview", str(machine.config_dir)).stdout.splitlines()
        stores = {line.split()[1]: line for line in lines if line.startswith("store ") and "shards" in line}
        assert stores.keys() == {"a", "b"}
        alive = f"(this machine) alive, shards 128 on 1 worker of m{'ab'.index(machine.name)}"
        assert alive in stores[machine.name]
        assert f"store {other.name} alive, shards 128 on 1 worker" in stores[other.name]
    assert command(second, "freeze", str(second.config_dir), "--cluster").returncode == 0
    payer = machines.payer("frozen fleet")
    payer.client = first.client()
    assert (payer.open().json["code"], first.knows()) == ("opens_frozen", machines.worker_count)
    assert command(first, "thaw", str(first.config_dir), "--cluster").returncode == 0
    wait_until(lambda: first.client().request("POST", payer.sender.open_target(payer.newest)).status == 201, 20, "opening again")


@pytest.mark.parametrize("way", ["power", "stop"])
def test_a_machine_that_is_gone_for_a_lease_costs_no_payment(machines, way):
    """Its leases are taken over by the other, and come back; what a stopped one still has to say is refused."""
    _, second = machines.machines
    with Load(machines, seed=f"gone-{way}", pause=0.01, threads=3, timeout=1.0) as load:
        if way == "power":
            second.lose_power()
        else:
            second.signal(signal.SIGSTOP)
        gone = time.monotonic()
        wait_until(lambda: machines.sql("SELECT DISTINCT store FROM paychan.shard") == [("a",)], 20, "the take-over")
        print(f"taken over after {time.monotonic() - gone:.2f} s")
        load.wait_for_progress(5)
        if way == "power":
            second.start_again()
        else:
            second.signal(signal.SIGCONT)
        machines.wait_until_whole()
        load.wait_for_progress(5)
        judged(machines, load)


def test_an_upgrade_of_one_machine_after_the_other_costs_no_payment(machines):
    with Load(machines, seed="upgrade", pause=0.01, threads=3) as load:
        for machine in reversed(machines.machines):
            assert machine.stop() == 0
            (other,) = (name for name in "ab" if name != machine.name)
            assert machines.sql("SELECT DISTINCT store FROM paychan.shard") == [(other,)], "it gave all away before it ended"
            machine.start_again()
            machines.wait_until_whole()
            load.wait_for_progress(5)
        judged(machines, load)
