"""Faults of tests/campaign/alerts.py that happen to the node, the chain and the time. Their order counts: time goes on only."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from paychan.core.refund import sign_refund
from paychan.server.settlement.highwater import write_highest
from tests.campaign.alert_faults import STARTING, killed
from tests.campaign.alert_scenes import Fault, Scene, estimates
from tests.chain.regtest_system import DAY, DEPTH, HOUR, Channel, Regtest
from tests.system import wait_until

REFUND_FEE = 1000


def node_of(scene: Scene) -> Regtest:
    assert scene.chain is not None
    return scene.chain


@contextmanager
def no_blocks(scene: Scene) -> Iterator[None]:
    """The best block is some hours old, as it was made at first; then there is a new one."""
    chain = node_of(scene)
    assert time.time() - chain.node.rpc("getblockchaininfo")["time"] > 2 * HOUR
    yield
    chain.node.set_time(int(time.time()))
    chain.node.mine()


@contextmanager
def node_killed(scene: Scene) -> Iterator[None]:
    chain = node_of(scene)
    height = chain.node.height
    chain.node.kill()
    try:
        yield
    finally:
        chain.node.start()
    wait_until(lambda: scene.scraper.value("paychan_tip_height") == height, 30, "the blocks that it had")


@contextmanager
def node_syncs(scene: Scene) -> Iterator[None]:
    """The node answers that it has not all blocks yet."""
    chain = node_of(scene)
    told = chain.node.rpc("getblockchaininfo")
    chain.gate.answers["getblockchaininfo"] = {**told, "initialblockdownload": True, "difficulty": 0, "verificationprogress": 0.5}
    try:
        yield
    finally:
        estimates(chain)


@contextmanager
def no_estimates(scene: Scene) -> Iterator[None]:
    """The node estimates nothing, when a channel is settled."""
    chain = node_of(scene)
    first, second = chain.channel("no estimate").opened(), chain.channel("estimate").opened()
    chain.gate.answers["estimatesmartfee"] = {"errors": ["Insufficient data or no feerate found"], "blocks": 6}
    try:
        assert first.close().status == 202
        yield
    finally:
        estimates(chain)
    assert second.close().status == 202
    bury(chain, first, second)


def bury(chain: Regtest, *channels: Channel) -> None:
    """Mine until the settlements of channels are final."""
    for channel in channels:
        channel.wait_sent(30)
    chain.node.mine(DEPTH)
    for channel in channels:
        channel.wait_for("no_such_payment", 30)


@contextmanager
def no_confirmation(scene: Scene) -> Iterator[None]:
    """A settlement is published, and no block takes it."""
    chain = node_of(scene)
    channel = chain.channel("waits").opened()
    assert channel.close().status == 202
    channel.wait_sent()
    yield
    bury(chain, channel)


@contextmanager
def clock_jumps(scene: Scene) -> Iterator[None]:
    """The server starts with a time that was kept while the clock was a day ahead."""
    kept = scene.system.state_dir / "clock"

    def start_with(seconds: int) -> None:
        with killed(scene, scene.system.child_pid("server")):
            wait_until(lambda: not _is_served(scene), 20, "the server's end")
            kept.unlink(missing_ok=True)
            if seconds:
                write_highest(kept, seconds)

    start_with(int(time.time()) + DAY)
    yield
    start_with(0)
    wait_until(lambda: scene.system.ready_workers() == 1, 30, "a worker that trusts the time")


def _is_served(scene: Scene) -> bool:
    return scene.scraper.value("paychan_processes", role="worker") > 0


@contextmanager
def near_expiry(scene: Scene) -> Iterator[None]:
    """A channel's expiry comes, and the node refuses every settlement."""
    chain = node_of(scene)
    channel = chain.channel("near").opened()
    chain.gate.refused = {"sendrawtransaction"}
    try:
        chain.pass_time(channel.terms.exp_time - 2 * HOUR)
        yield
    finally:
        estimates(chain)
    chain.node.mine()  # with a new block it is tried again at once
    bury(chain, channel)


@contextmanager
def refunded(scene: Scene) -> Iterator[None]:
    """The same until after the expiry, and the payer takes everything back."""
    chain = node_of(scene)
    channel = chain.channel("refunded").opened()
    refund = sign_refund(channel.terms, REFUND_FEE, channel.sender.key)
    chain.gate.refused = {"sendrawtransaction"}
    try:
        chain.pass_time(channel.terms.exp_time + 1)
        chain.node.rpc("sendrawtransaction", refund.hex())
        for _ in range(DEPTH + 1):  # the depth counts from when the spend was seen first
            chain.node.mine()
            time.sleep(2)
        yield
    finally:
        estimates(chain)


@contextmanager
def node_stopped(scene: Scene) -> Iterator[None]:
    """The node hangs: it takes connections, and answers nothing."""
    pid = node_of(scene).node.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


_HERE, _SILENT = "chain", ("PaychanNotReady", "PaychanNodeAway", "PaychanChainDoubtful", "PaychanUnavailable")
_AHEAD = (*STARTING, "PaychanNoWorkers", "PaychanChainDoubtful")  # by such a time the best block is old
FAULTS = (
    Fault(_HERE, "no block comes", no_blocks, ("PaychanTipOld",), is_first=True),
    Fault(_HERE, "the node is killed", node_killed, ("PaychanNodeAway", "PaychanChainDoubtful"), _SILENT),
    Fault(_HERE, "the node hangs", node_stopped, ("PaychanChainDoubtful",), _SILENT),
    Fault(_HERE, "the node syncs", node_syncs, ("PaychanChainDoubtful",), _SILENT),
    Fault(_HERE, "nothing is estimated", no_estimates, ("PaychanFeeEstimateMissing",), ("PaychanSettlementLate",)),
    Fault(_HERE, "no block takes a settlement", no_confirmation, ("PaychanSettlementLate",)),
    Fault(_HERE, "the clock jumps", clock_jumps, ("PaychanClockDoubtful", "PaychanClockAhead"), _AHEAD),
    Fault(_HERE, "an expiry comes near", near_expiry, ("PaychanValueNearExpiry",), ("PaychanSettlementStuck",)),
    Fault(_HERE, "a payer is refunded", refunded, ("PaychanSettlementLost",), ("PaychanValueNearExpiry", "PaychanSettlementStuck")),
)
