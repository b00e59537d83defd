"""Aim: memory that fails costs one shard its payments, and nobody any money. Method: a real system whose store flips a bit in its
own memory (faulty/sitecustomize.py)."""

import itertools
import os
from pathlib import Path

from paychan.chain.debug import DEBUG_FUNDING_VALUE
from paychan.core.sender import Sender
from paychan.core.settlement import check_settlement
from paychan.core.sharding import shard_of
from store.maintenance import audit
from tests.campaign.load import is_outpoint_of
from tests.settled import FEE_MAX
from tests.system import Client, Payer, System, running, wait_until

SHARDS = 256
EXPOSURE_MAX = 500_000
FAULTY = Path(__file__).parent / "faulty"
EXPOSURE = {"server.toml": {"fee_per_byte = 40": f"fee_per_byte = 40\n\n[exposure]\ntotal_value_max = {EXPOSURE_MAX}"}}


def shard(payer: Payer) -> int:
    return shard_of(payer.sender.terms.outpoint, SHARDS)


def opened(payer: Payer) -> Payer:
    assert payer.open().status == 201
    assert payer.pay(1000).status == 200
    return payer


def a_neighbour(system: System, payer: Payer, name: str) -> Payer:
    """Return a payer whose channel is in the same shard."""
    return next(other for number in itertools.count() if shard(other := system.payer(f"{name} {number}")) == shard(payer))


def settlement_of(system: System, sender: Sender) -> bytes:
    return next((raw for raw in system.broadcast().values() if is_outpoint_of(raw, sender.terms.outpoint)), b"")


def test_a_flipped_bit_stops_one_shard_and_loses_nothing(tmp_path):
    fault = tmp_path / "fault"
    env = {"PYTHONPATH": f"{FAULTY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "PAYCHAN_FAULT": str(fault)}
    with running(tmp_path, workers=2, env=env, changes=EXPOSURE) as system:
        victim, other = opened(system.payer("victim")), opened(system.payer("other"))
        neighbour = opened(a_neighbour(system, victim, "neighbour"))
        assert shard(other) != shard(victim)
        assert victim.pay(100_000).status == 200
        durable = victim.newest
        flip(fault, victim)

        assert refusal(victim.pay(1000)) == (503, "shard_stopped")
        for answer in (victim.resend(), victim.close(), neighbour.pay(), neighbour.close()):
            assert refusal(answer) == (503, "shard_stopped")
        for port in (system.port, *system.own_ports()):  # whichever worker is asked
            assert refusal(Client(port).request("PUT", victim.sender.channel_target(victim.newest))) == (503, "shard_stopped")
            assert other.pay().status == 200

        ready = system.client().request("GET", "/readyz")
        assert ready.status == 200
        why = ready.json["stopped_shards"][str(shard(victim))]
        assert why.startswith("channel: ") and f"of {DEBUG_FUNDING_VALUE} satoshi" in why
        line = next(line for line in system.output if "is stopped" in line)
        assert f"shard {shard(victim)} is stopped: {why}" in line
        assert durable.signature.hex() not in "".join(system.output)

        # Too much is open now: the largest channel is settled, also one of the stopped shard, as it is stored.
        assert other.pay(98_000).status == 200
        wait_until(lambda: settlement_of(system, victim.sender), 30, "the settlement of a channel of the stopped shard")
        check_settlement(settlement_of(system, victim.sender), victim.sender.terms, durable, FEE_MAX)

        system.stop()
        assert audit(system.store_place) == 0
        system.output.clear()
        system.start()
        assert system.client().request("GET", "/readyz").json["stopped_shards"] == {}
        assert opened(a_neighbour(system, victim, "late")).pay().status == 200


def flip(fault: Path, payer: Payer) -> None:
    part = fault.with_suffix(".part")
    part.write_text(payer.sender.terms.outpoint.hex())
    part.rename(fault)
    wait_until(lambda: not fault.exists(), 10, "the flip")


def refusal(answer) -> tuple[int, str]:
    return answer.status, answer.code
