"""Faults of tests/campaign/alerts.py that happen to processes, disk, memory, limits, certificate and payers."""

import itertools
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from coincurve import PrivateKey

from paychan.core.outpoint import format_outpoint
from paychan.core.sender import sign_payment
from paychan.core.sharding import shard_of
from tests.campaign.alert_scenes import CHANNELS, NOTED_EACH, OPEN_MAX, UNSETTLED_MAX, Fault, Scene, repeated
from tests.campaign.load import BATCH_TYPE, batch_of_one
from tests.certificates import ALPHA, make
from tests.operating import Operator
from tests.ports import free_port
from tests.selling import make_token
from tests.system import Client, Payer, wait_until

STRANGER = PrivateKey(b"\7" * 32)
REFUSED = ("PaychanNotReady", "PaychanUnavailable", "PaychanNothingAccepted", "PaychanShardsWithoutOwner")
"""What may be true while a process is away: payments are answered 503, or not at all."""

STARTING = (*REFUSED, "PaychanStoreAway", "PaychanSignerAway")
"""The same while one starts."""

SHARDS = 256
TXID = re.compile(r"[0-9a-f]{64}")


@contextmanager
def killed(scene: Scene, pid: int) -> Iterator[None]:
    """A process is killed, and nobody starts another one."""
    with scene.unattended():
        os.kill(pid, signal.SIGKILL)
        yield


def metrics_away(scene: Scene):
    return killed(scene, scene.metrics_pid)


def server_away(scene: Scene):
    return killed(scene, scene.system.child_pid("server"))  # its workers end with it


def store_away(scene: Scene):
    return killed(scene, scene.system.child_pid("store"))


def signer_away(scene: Scene):
    return killed(scene, scene.system.child_pid("signer"))


@contextmanager
def worker_stopped(scene: Scene) -> Iterator[None]:
    pid = scene.system.kill("worker", signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def workers_die(scene: Scene):
    """Every worker is killed as soon as there is one."""
    return repeated(lambda: scene.system.kill("worker"))


@contextmanager
def nothing_published(scene: Scene) -> Iterator[None]:
    """Transactions cannot be sent, and channels close: what they received stays unsettled."""
    blocked, each = scene.system.state_dir / "broadcast", OPEN_MAX // 3
    aside = blocked.with_name("broadcast.aside")
    if blocked.exists():
        blocked.rename(aside)
    blocked.touch()  # a file where a directory belongs
    closed = []
    try:
        for number in range(UNSETTLED_MAX * 85 // 100 // each):
            closed.append(scene.payer(f"unpublished {number}", each))
            wait_until(lambda: closed[-1].close().code == "chain_unavailable", 20, "a close that is held up by the file alone")
        yield
    finally:
        blocked.unlink()
        if aside.exists():
            aside.rename(blocked)
    for payer in closed:
        wait_until(lambda payer=payer: payer.close().status in (202, 404), 30, "a settlement")


@contextmanager
def no_receiver(scene: Scene) -> Iterator[None]:
    """A webhook goes to a port where nobody listens."""
    operator = Operator(scene.operator_port, make_token(scene.system, "alerts", "steer"))
    wait_until(operator.is_there, 60, "serving the operator's API")
    made = operator.ask("POST", "/webhooks", {"url": f"http://127.0.0.1:{free_port()}/", "after": 0})
    assert made.status == 201, made
    try:
        yield
    finally:
        operator.ask("DELETE", f"/webhooks/{made.json['id']}")


@contextmanager
def too_much_open(scene: Scene) -> Iterator[None]:
    """More is received than may be open, and at that moment the signer is lost, without which nothing is settled."""
    payer = scene.payer("too much", 100_000)
    with scene.unattended():
        signer = scene.system.child_pid("signer")
        assert payer.pay(OPEN_MAX).status == 200
        os.kill(signer, signal.SIGKILL)
        yield


@contextmanager
def uneconomic(scene: Scene) -> Iterator[None]:
    """The least fee that the operator allows is more than a channel may pay."""
    payer = scene.payer("worth little", 100_000)
    scene.change("fee_per_byte = 40", "fee_per_byte = 400\nfee_per_byte_min = 400")
    try:
        wait_until(lambda: payer.close().code == "settlement_uneconomic", 20, "a settlement that costs too much")
        yield
    finally:
        scene.change("fee_per_byte = 400\nfee_per_byte_min = 400", "fee_per_byte = 40")
    wait_until(lambda: payer.close().status in (202, 404), 30, "a settlement")


@contextmanager
def old_backup(scene: Scene) -> Iterator[None]:
    """The store is set back behind a payment that the signer has noted, and the channel is to be settled."""
    system, backup = scene.system, scene.directory / "backup"
    payer = scene.payer("set back", 100_000)
    assert "backup" in scene.command("store", "backup", system.state_dir, backup) or backup.exists()
    before = scene.scraper.value("paychan_signer_requests_total", outcome="answered")
    assert payer.pay(2 * NOTED_EACH).status == 200
    wait_until(lambda: scene.scraper.value("paychan_signer_requests_total", outcome="answered") > before, 20, "the signer's note")
    with killed(scene, system.child_pid("store")):
        shutil.move(system.state_dir / "store", scene.directory / "lost")
        scene.command("store", "restore", backup, system.state_dir)
    outpoint = format_outpoint(payer.sender.terms.outpoint)
    wait_until(lambda: "gives_payer_more" in scene.command("paychan", "settle", system.config_dir, outpoint), 20, "a refusal")
    yield
    with killed(scene, system.child_pid("signer")):  # it is told to be content with what is left
        said = scene.command("signer", "--forget-note", system.config_dir / "signer.toml", outpoint)
        assert "forgotten" in said, said
    told: list[str] = []

    def is_settled() -> bool:
        told.append(scene.command("paychan", "settle", system.config_dir, outpoint))
        return bool(TXID.fullmatch(told[-1].strip()))

    try:
        wait_until(is_settled, 20, "a settlement")
    except AssertionError:
        raise AssertionError(f"the channel is not settled: {told[-1]}") from None


@contextmanager
def slow_disk(scene: Scene, milliseconds: int = 400) -> Iterator[None]:
    """Each sync of the store takes longer."""
    assert scene.switch is not None
    pid = scene.system.child_pid("store")
    before = scene.switch.failures(pid)
    scene.switch.fail(pid, f"sync,1,{milliseconds},slow")
    try:
        wait_until(lambda: scene.switch.failures(pid) != before, 20, "a slow sync")
        yield
    finally:
        scene.switch.fail(pid, "")


BATCHES, BATCH_PAYMENTS = 36, 1000
SLOWEST_MS = 1000
"""A worker gives a store up that does not answer for two seconds."""


@contextmanager
def many_wait(scene: Scene) -> Iterator[None]:
    """More comes than a very slow disk takes: batches, each of one payment again and again, which all wait for its write. They come
    in two halves, so that one waits while the other is answered."""
    payers = [scene.payer(f"many wait {number}", 85_000) for number in range(BATCHES)]
    ends = threading.Event()

    def pay(payer: Payer) -> None:
        client = Client(scene.system.port)
        while not ends.is_set():
            body = batch_of_one(payer.sender.channel_target(payer.sender.pay(1))) * BATCH_PAYMENTS
            with suppress(OSError):
                client.request("POST", "/v1/payments", {"Content-Type": BATCH_TYPE}, body)

    threads = [threading.Thread(target=pay, args=(payer,), daemon=True) for payer in payers]
    with slow_disk(scene, SLOWEST_MS):
        try:
            for half in (threads[::2], threads[1::2]):
                for thread in half:
                    thread.start()
                time.sleep(1.5 * SLOWEST_MS / 1000)
            yield
        finally:
            ends.set()
    for thread in threads:
        thread.join()


@contextmanager
def bad_signatures(scene: Scene) -> Iterator[None]:
    """Nothing comes but payments that are not the payer's."""
    payer = scene.payer("bad", 100_000)
    bad = sign_payment(payer.sender.terms, payer.sender.change_value - 1, STRANGER)
    target = payer.sender.channel_target(bad)
    with scene.load.resting(), repeated(lambda: payer.client.request("PUT", target)):
        yield


@contextmanager
def flipped_bit(scene: Scene) -> Iterator[None]:
    """The store's memory fails, in a shard that no payer of the load has."""
    taken = {shard_of(scene.system.payer(f"load {number}").sender.terms.outpoint, SHARDS) for number in range(CHANNELS)}
    names = (f"flipped {number}" for number in itertools.count())
    name = next(n for n in names if shard_of(scene.system.payer(n).sender.terms.outpoint, SHARDS) not in taken)
    payer, fault = scene.payer(name, 100_000), scene.directory / "fault"
    assert payer.pay(1000).status == 200
    part = fault.with_suffix(".part")
    part.write_text(payer.sender.terms.outpoint.hex())
    part.rename(fault)
    wait_until(lambda: not fault.exists(), 20, "the flip")
    wait_until(lambda: payer.pay(1).code == "shard_stopped", 20, "a stopped shard")
    yield
    scene.system.kill("store", signal.SIGTERM)  # the supervisor starts it again
    wait_until(lambda: scene.system.ready_workers() == 2, 30, "another store")


@contextmanager
def certificate_ends(scene: Scene) -> Iterator[None]:
    """The cluster's certificate is one that ends in ten days."""
    assert scene.certificates is not None
    make(scene.certificates, ALPHA, days=10, renew=True)
    scene.reload()
    yield
    make(scene.certificates, ALPHA, renew=True)
    scene.reload()


_HERE, _MACHINE = "processes", "machine"
FAULTS = (
    Fault(_HERE, "the signer is killed", signer_away, ("PaychanSignerAway", "PaychanNotReady", "PaychanUnavailable"), REFUSED),
    Fault(_HERE, "the store is killed", store_away, ("PaychanStoreAway", "PaychanShardsWithoutOwner"), STARTING),
    Fault(_HERE, "the server is killed", server_away, ("PaychanNoWorkers",), STARTING),
    Fault(_HERE, "the metrics' process is killed", metrics_away, ("PaychanMetricsGone",)),
    Fault(_HERE, "nothing but bad signatures", bad_signatures, ("PaychanNothingAccepted",)),
    Fault(_HERE, "nothing can be published", nothing_published, ("PaychanExposureNearLimit", "PaychanSettlementStuck")),
    Fault(_HERE, "too much is open", too_much_open, ("PaychanOpenValueOverLimit",), STARTING),
    Fault(_HERE, "fees are too high", uneconomic, ("PaychanUneconomicChannels",), (*STARTING, "PaychanSettlementStuck")),
    Fault(_HERE, "the disk is slow", slow_disk, ("PaychanSlow", "PaychanDiskSlow"), REFUSED),
    Fault(_HERE, "many wait", many_wait, ("PaychanQueueGrows",), (*STARTING, "PaychanSlow", "PaychanDiskSlow")),
    Fault(_HERE, "nobody takes a webhook", no_receiver, ("PaychanWebhookFails",)),
    Fault(_HERE, "a bit flips", flipped_bit, ("PaychanShardStopped",), STARTING),
    Fault(_HERE, "the store is set back", old_backup, ("PaychanSignerRefuses",), (*STARTING, "PaychanSettlementStuck")),
    Fault(_HERE, "a worker is stopped", worker_stopped, ("PaychanWorkerStuck",), STARTING),
    Fault(_HERE, "workers die", workers_die, ("PaychanRestarts",), (*STARTING, "PaychanNoWorkers")),
    Fault(_MACHINE, "the certificate ends", certificate_ends, ("PaychanCertificateEnds",), STARTING),
)
