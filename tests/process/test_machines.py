"""Aim: a channel is served the same by the machine that owns it and by another, to the byte; a machine that goes, or gets a new
certificate, costs no payment. Method: two servers of one cluster on two loopback addresses, with TLS between them; the tests of the
four doors run over them once more, "forwarded" being the other machine."""

import os
import signal
import ssl
import time

import pytest

from paychan.client import RetryPolicy
from paychan.server.doors.peer_port import VERSION
from tests.campaign.load import Account, Load, PatientClient
from tests.certificates import BETA, files_of, make
from tests.client.payer_system import new_channel
from tests.machines import Second, connections_to, two_machines
from tests.process.test_four_doors import (  # noqa: F401  # collected here, over the fixture of this file
    open_channel,
    test_a_batch_of_many_answers_each_in_its_place,
    test_all_doors_at_once_on_shared_channels,
    test_each_kind_of_request_through_each_door,
    test_every_door_gives_the_models_bodies_and_its_state,
)
from tests.selling import Seller
from tests.system import Client, processes, wait_until
from tests.tiling import check_all

CHANNELS = 12
LEASE_SECONDS = 3.0  # config/debug/store.toml
KILLS = int(os.environ.get("PAYCHAN_MACHINE_KILLS", "3"))


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with two_machines(tmp_path_factory.mktemp("machines")) as machines:
        yield machines
        log = "".join([*machines.output, *machines.second.output])
        assert "Traceback" not in log and "internal error" not in log
        assert "PRIVATE KEY" not in log and "payment=" not in log


def test_requests_go_over_tls_and_not_over_a_socket_of_the_other_machine(system):
    """So the tests above are about what they say."""
    client, ports = system.client(), system.own_ports()
    assert len(set(ports)) == 2
    opened = [open_channel(system, client) for _ in range(CHANNELS)]
    assert {channel.owner for channel in opened} == set(ports), "a Location names the owner's own port, whichever machine it is on"
    assert connections_to(BETA) >= 1
    state = client.request("GET", "/readyz").json
    assert (state["workers"], state["cluster"]["workers"]) == (1, 2), "the first counts this machine's"
    assert (state["cluster"]["machine"], state["cluster"]["trouble"]) == ("alpha", "")
    assert system.second.client().request("GET", "/readyz").json["cluster"]["machine"] == "beta"


def test_a_sale_on_another_machines_channel_is_the_same_as_on_ones_own(system):
    """The sellers' door asks this machine; what it is told comes from the owner."""
    seller = Seller(system, (system.state_dir / "run" / "sell.cookie").read_text().strip())
    client, told = system.client(), {}
    while len(told) < 2:
        channel = open_channel(system, client)
        channel.left -= 50
        sale = {
            "do": "charge",
            "channel": channel.path.removeprefix("/v1/channels/"),
            "key": f"machine {channel.owner}",
            "amount": 50,
            "payment": channel.sign(channel.left).encode(),
        }
        answers = [seller.ask(sale), seller.ask(sale)]
        assert [answer.status for answer in answers] == [200, 200], answers
        assert [answer.json["repeated"] for answer in answers] == [False, True]
        told[channel.owner] = [(set(answer.json), answer.json["received"], answer.json["spent"]) for answer in answers]
    one, other = told.values()
    assert one == other


def shown_by(machine: Second) -> str:
    """Return the certificate that a machine's newest worker shows, in PEM."""
    return ssl.get_server_certificate((BETA, machine.peer_ports()[-1]))


def test_new_certificates_are_taken_with_a_reload_and_no_payment_is_lost(system):
    """Renewed, all of them, and both servers told with SIGHUP while payers pay through every door."""
    with Load(system, seed=71, pause=0.002) as load:
        old = shown_by(system.second)
        make(system.certificates, renew=True)
        assert shown_by(system.second) == old
        before = len(system.second.peer_ports())
        for pid in (system.child_pid("server"), system.second.process.pid):
            os.kill(pid, signal.SIGHUP)
        wait_until(lambda: len(system.second.peer_ports()) > before, 30, "the second machine's reload")
        wait_until(lambda: system.ready_workers() == system.second.ready_workers() == 2, 30, "both machines after the reload")
        assert shown_by(system.second) == files_of(system.certificates, BETA).certificate.read_text() != old
        load.wait_for_progress(20)
        verdict = load.close_and_judge()
    assert verdict.problems == []
    print(f"slowest payment during the reloads: {load.slowest:.2f} s, {load.operations} operations, {verdict.gaps} lost answers")


def test_a_machine_killed_under_load_again_and_again_loses_and_doubles_nothing(system):
    """PAYCHAN_MACHINE_KILLS: how often. Payers use the ports of both machines, and batches."""
    with Load(system, seed=72, pause=0.002) as load:
        for _ in range(KILLS):
            system.second.kill()
            load.wait_for_progress(10)
            system.second.start()
            load.wait_for_progress(20)
        verdict = load.close_and_judge()
    assert verdict.problems == []
    print(f"{KILLS} kills, {load.operations} operations, {verdict.gaps} lost answers, slowest {load.slowest:.2f} s")


def test_a_machine_that_hangs_loses_its_channels_to_the_other_and_comes_back(system):
    """Its kernel goes on confirming, so only the lease tells; its late writes count for nothing."""
    hung = [pid for pid, parent, _ in processes() if system.second.process.pid in (pid, parent)]
    with Load(system, seed=73, pause=0.002, timeout=1.0) as load:
        begun = time.monotonic()
        try:
            for pid in hung:
                os.kill(pid, signal.SIGSTOP)
            load.wait_for_progress(20)
            wait_until(lambda: time.monotonic() - begun > LEASE_SECONDS + 1, 10, "the end of the lease")
        finally:
            for pid in hung:
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: system.second.ready_workers() == 2, 30, "the return of the machine that hung")
        load.wait_for_progress(20)
        verdict = load.close_and_judge()
    assert verdict.problems == []


def test_clients_go_back_to_the_shared_name_when_the_owners_machine_is_gone(system, tmp_path):
    client = system.client()
    theirs = set(system.second.own_ports())
    followers = [channel for channel in (open_channel(system, client) for _ in range(CHANNELS)) if channel.owner in theirs]
    assert followers
    accounts = [Account.of(system, f"gone-{i}") for i in range(CHANNELS)]
    shared = PatientClient(system.port)
    for account in accounts:
        account.open(shared)
    with new_channel(tmp_path, system.port, policy=RetryPolicy(wait_first=0.01)) as channel:
        before = channel.pay(5).paid_value
        system.second.kill()
        channel.pay(7)
        assert channel.pay(1).paid_value == before + 8
    for account in accounts:
        operation = account.pay(shared, 5)
        assert operation.received == 5, account.name
    for channel in followers:
        target = f"{channel.path}?payment={channel.sign(channel.left - 9).encode()}"
        with pytest.raises(OSError, match="refused"):
            Client(channel.owner).request("PUT", target)
        answer, _ = client.persist("PUT", target)
        assert (answer.status, answer.json["value_received"]) == (200, 9)
    for account in accounts:
        account.close(shared)
    assert check_all([account.history for account in accounts]).problems == []
    system.second.start()


def test_a_machine_starts_while_workers_of_another_are_there(system):
    """Its supervisor waits for its own workers, whoever else has joined the store meanwhile."""
    account = Account.of(system, "restart")
    account.open(PatientClient(system.port))
    system.restart()
    wait_until(lambda: system.ready_workers() == system.second.ready_workers() == 2, 30, "both machines")
    account.pay(PatientClient(system.second.port), 5)
    account.close(PatientClient(system.port))
    assert check_all([account.history]).problems == []


def test_another_version_of_the_frames_is_answered_503_until_both_are_new(tmp_path):
    """As during a rolling upgrade. What a machine owns, it serves."""
    with two_machines(tmp_path, variant="newer frames") as machines:
        ours, theirs = machines.client(), machines.second.client()
        payers = [machines.payer(f"version {number}") for number in range(CHANNELS)]
        owned = {True: [], False: []}
        for payer in payers:
            if not all(owned.values()):
                answer = payer.open()
                owned[answer.status == 201].append(payer)
                assert answer.status == 201 or (answer.status, answer.code) == (503, "owner_moved")
        assert all(owned.values()), "a machine of another version was talked to"
        payer = owned[False][0]
        target = payer.sender.open_target(payer.newest)
        assert theirs.request("POST", target).status == 201
        payment = payer.sender.channel_target(payer.sender.pay(5))
        answer = ours.request("PUT", payment)
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "owner_moved", "1")
        assert owned[True][0].pay(5).status == 200
        newer = f"cannot be reached: it is of version {VERSION + 1}"
        told = [line for line in machines.output if "WARNING" in line and newer in line]
        assert len(told) == 1, told
        machines.second.stop()
        machines.second.variant = ""
        machines.second.start()
        answer, _ = ours.persist("PUT", payment)
        assert (answer.status, answer.json["value_received"]) in ((200, 5), (200, 0))
        assert owned[True][0].pay(5).status == 200
