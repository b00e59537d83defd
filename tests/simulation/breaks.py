"""Planted faults: `python -m tests.simulation.breaks [--most N] [--only NAME]`. Each must be found by the simulation.

A simulation that finds nothing is worth what it can find. Each break takes one rule away that keeps money safe, in memory only; the
seeds of `world.py`, or of `pinning.py`, are run until one fails.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import signer.ledger
import signer.policy
import signer.server
import store.sequencer
from paychan.clock import Clock
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.errors import Unavailable
from paychan.core.fees import LADDER, Rival, Stake, replacement_fee, wanted_fee
from paychan.core.payment import Payment
from paychan.core.units import DUST_LIMIT
from paychan.rpc.connection import ConnectionGone
from paychan.rpc.store_client import StoreClient
from paychan.rpc.store_messages import Entry, Stored, decode_commit, encode_commit
from paychan.server import worker
from paychan.server.channels.funding import FundingChecks
from paychan.server.channels.life import ChannelLife
from paychan.server.doors.peers import Peers
from paychan.server.protocol.replies import payment_result
from paychan.server.settlement import settling
from paychan.server.settlement.settler import Settler
from paychan.server.settlement.settling import Settling
from paychan.server.settlement.spends import Spends
from paychan.server.shards.ownership import Ownership
from paychan.server.worker import Worker
from signer.policy import Memory
from store import keys
from store.group import Group, PaymentGroup

from . import node
from .disk import Database, LedgerConnection
from .pinning import Fight
from .world import describe, run_seed, shrink, staged

BREAKS: dict[str, Callable[[], Any]] = {}


def _break(make: Callable[[], Any]) -> Callable[[], Any]:
    BREAKS[make.__name__.removeprefix("_").replace("_", " ")] = contextmanager(make)
    return make


# --- promises before the disk ---


@_break
def _answered_before_the_commit() -> Iterator[None]:
    commit = StoreClient.commit

    async def early(self: StoreClient, payload: bytes) -> bytes:
        task = asyncio.get_running_loop().create_task(commit(self, payload))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return bytes(len(decode_commit(payload)))

    with patch.object(StoreClient, "commit", early):
        yield


@_break
def _an_unknown_write_counts_as_written() -> Iterator[None]:
    commit = StoreClient.commit

    async def hopeful(self: StoreClient, payload: bytes) -> bytes:
        try:
            return await commit(self, payload)
        except ConnectionGone:
            return bytes(len(decode_commit(payload)))

    with patch.object(StoreClient, "commit", hopeful):
        yield


@_break
def _the_store_does_not_sync() -> Iterator[None]:
    with patch.object(Database, "is_synced", False):
        yield


@_break
def _the_store_survives_a_failed_write() -> Iterator[None]:
    with patch.object(store.sequencer, "_die", lambda error: None):
        yield


# --- the conditional update ---


@_break
def _the_store_ignores_epochs() -> Iterator[None]:
    with patch.object(Group, "judge", _rewriting(_with_present_epoch), create=True):
        yield


@_break
def _the_store_ignores_epochs_and_what_was_expected() -> Iterator[None]:
    with patch.object(Group, "judge", _rewriting(_with_present_epoch, _with_present_state), create=True):
        yield


@_break
def _a_second_open_overwrites_the_first() -> Iterator[None]:
    def judge(self: Group, payload: bytes) -> bytes:
        statuses = bytearray(PaymentGroup.judge(self, payload))
        for number, entry in enumerate(decode_commit(payload)):
            if entry.expected_phase == ABSENT and statuses[number] == 2:
                self._writes.update({keys.STATE + entry.outpoint: entry.state, keys.TERMS + entry.outpoint: entry.extra})
                statuses[number] = 0
        return bytes(statuses)

    with patch.object(Group, "judge", judge, create=True):
        yield


@_break
def _refused_writes_are_answered_ok() -> Iterator[None]:
    def judge(self: Group, payload: bytes) -> bytes:
        return bytes(len(PaymentGroup.judge(self, payload)))

    with patch.object(Group, "judge", judge, create=True):
        yield


def _rewriting(*changes: Callable[[Group, Entry], Entry]) -> Callable[[Group, bytes], bytes]:
    def judge(self: Group, payload: bytes) -> bytes:
        entries = decode_commit(payload)
        for change in changes:
            entries = [change(self, entry) for entry in entries]
        return PaymentGroup.judge(self, encode_commit([entry.encode() for entry in entries]))

    return judge


def _with_present_epoch(group: Group, entry: Entry) -> Entry:
    return Entry(entry.shard, group._epochs[entry.shard], *_after_epoch(entry))


def _after_epoch(entry: Entry) -> tuple[Any, ...]:
    return entry.outpoint, entry.expected_phase, entry.expected_change_value, entry.state, entry.extra


def _with_present_state(group: Group, entry: Entry) -> Entry:
    record = group.writes.get(keys.STATE + entry.outpoint) or group._reader.states([entry.outpoint])[0]
    if record is None or entry.expected_phase != Phase.OPEN:
        return entry
    state = ChannelState.parse(record)
    expected = (int(state.phase), state.payment.change_value)
    return Entry(entry.shard, entry.epoch, entry.outpoint, *expected, entry.state, entry.extra)


# --- ownership ---


@_break
def _the_lease_is_not_looked_at() -> Iterator[None]:
    trouble = Worker.trouble

    def careless(self: Worker) -> str:
        what = trouble(self)
        return "" if what in ("owner_moved", "store_unavailable") and self._life is not None else what

    with patch.object(Worker, "trouble", careless), patch.object(Ownership, "lose", lambda self: None):
        yield


@_break
def _an_unanswered_forward_is_sent_again() -> Iterator[None]:
    forward = Peers.forward

    async def eager(self: Peers, peer: str, request: Any) -> Any:
        try:
            return await forward(self, peer, request)
        except Unavailable:
            return None

    with patch.object(Peers, "forward", eager), patch.object(Peers, "link", lambda self, peer: None):
        yield


@_break
def _an_open_is_credited_again() -> Iterator[None]:
    exists = ChannelLife._exists

    def generous(self: ChannelLife, terms: ChannelTerms, payment: Payment) -> Any:
        outpoint = terms.outpoint
        left = int.from_bytes(self._channels.newest_payment(outpoint)[:8], "little")
        return payment_result(201, left, 1_100) if self._channels.phase(outpoint) == Phase.OPEN else exists(self, terms, payment)

    with patch.object(ChannelLife, "_exists", generous):
        yield


# --- settlement ---


@_break
def _settlements_are_not_retried() -> Iterator[None]:
    with patch.object(Settler, "_pause", lambda self, outpoint, _: self._pauses.__setitem__(outpoint, (1e9, 1.0))), patch.object(
        Settler, "_rests", lambda self, outpoint: outpoint in self._tried or self._tried.add(outpoint) or False
    ), patch.object(Settler, "_tried", set(), create=True):
        yield


@_break
def _settlements_are_made_from_memory() -> Iterator[None]:
    read, seen = Settling._read, {}
    load_many = StoreClient.load_many

    async def remembering(self: StoreClient, outpoints: list[bytes]) -> list[Stored | None]:
        found = await load_many(self, outpoints)
        for outpoint, stored in zip(outpoints, found, strict=True):
            if stored is not None:
                seen.setdefault((self, outpoint), ChannelState.parse(stored.state).payment)
        return found

    async def stale(self: Settling, outpoint: bytes) -> Any:
        case = await read(self, outpoint)
        payment = seen.get((self._store, outpoint))
        if payment is not None and case.state.phase == Phase.CLOSING:
            case.state = ChannelState(case.state.phase, payment)
        return case

    with patch.object(StoreClient, "load_many", remembering), patch.object(Settling, "_read", stale):
        yield


@_break
def _a_settlement_is_published_before_it_is_durable() -> Iterator[None]:
    make = Settling._make

    async def hasty(self: Settling, case: Any, fee: int, least: int) -> tuple[bytes, bytes]:
        transaction, txid = await make(self, case, fee, least)
        await self._chain.broadcast(transaction)
        return transaction, txid

    with patch.object(Settling, "_make", hasty):
        yield


@_break
def _the_close_is_not_made_durable() -> Iterator[None]:
    async def forgetful(self: ChannelLife, outpoint: bytes) -> None:
        if self._channels.phase(outpoint) == Phase.OPEN:
            self._channels.begin_closing(outpoint)

    with patch.object(ChannelLife, "_begin_closing", forgetful):
        yield


@_break
def _the_clock_is_the_wall_alone() -> Iterator[None]:
    observe = Clock.observe
    with patch.object(Clock, "observe", lambda self, block_time, _: observe(self, block_time, 0)):
        yield


@_break
def _a_clock_beyond_the_chain_is_believed() -> Iterator[None]:
    def trusting(self: Clock) -> int:
        self._sure = max(self._wall(), self._kept, self._sure)
        return self._sure

    with patch.object(Clock, "doubt", lambda self: ""), patch.multiple(Clock, sure=trusting, now=trusting):
        yield


@_break
def _an_expiry_is_judged_before_a_block_was_seen() -> Iterator[None]:
    with patch.object(worker, "EXPIRY_CODES", ()):
        yield


@_break
def _the_owner_of_a_new_channel_does_not_doubt_its_clock() -> Iterator[None]:
    parse, open_ = Worker._parse_open, Worker.open

    async def doubting(self: Worker, query: str) -> Any:
        if doubt := self._tip.clock_doubt:
            raise Unavailable("clock_doubtful", doubt)
        return await open_(self, query)

    def trusting(self: Worker, query: str, key: bytes) -> Any:
        with patch.object(Clock, "doubt", lambda self: ""):
            return parse(self, query, key)

    with patch.object(Worker, "open", doubting), patch.object(Worker, "_parse_open", trusting):
        yield


@_break
def _vanished_funding_is_not_noticed() -> Iterator[None]:
    async def blind(self: FundingChecks, outpoint: bytes) -> None:
        if self._channels.is_loaded(outpoint):
            self._channels.mark_checked(outpoint, self._channels.chain_generation)

    with patch.object(FundingChecks, "check", blind):
        yield


# --- funding transactions that no node would relay, and nodes that keep little ---


@_break
def _the_signer_reads_half_a_megabyte() -> Iterator[None]:
    with patch.object(signer.server, "PAYLOAD_MAX", 512 << 10):
        yield


@_break
def _the_proof_is_asked_for_when_it_is_needed() -> Iterator[None]:
    async def late(self: Settling, terms: Any) -> bytes:
        return await self._chain.funding_transaction(terms)

    with patch.object(Settling, "_proof", late):
        yield


# --- settlements that somebody is at work on ---


@_break
def _the_copies_that_miners_have_are_not_reckoned_with() -> Iterator[None]:
    def cheap(stake: Stake, *rest: Any, **_: Any) -> int:
        return wanted_fee(replace(stake, size_inflated=stake.size), *rest)

    with patch.object(settling, "wanted_fee", cheap):
        yield


@_break
def _what_hangs_on_a_settlement_is_not_paid_for() -> Iterator[None]:
    """It is neither asked for before, nor learnt from a refusal."""
    with (
        patch.object(settling, "replacement_fee", lambda rival, size: replacement_fee(Rival(rival.fee, rival.size), size)),
        patch.object(settling, "BLIND_FACTOR", 1),
    ):
        yield


@_break
def _a_refusal_for_the_fee_teaches_nothing() -> Iterator[None]:
    with patch.object(node, "is_for_fee", lambda reason: False):
        yield


@_break
def _what_waits_is_not_raised() -> Iterator[None]:
    with patch.object(Spends, "is_overdue", lambda self, case, rung, now: False):
        yield


@_break
def _no_settlement_without_an_estimate() -> Iterator[None]:
    fee_per_byte = node.NodeChain.fee_per_byte

    async def needed(self: Any, blocks: int) -> int:
        estimate = await fee_per_byte(self, blocks)
        if estimate is None:
            raise Unavailable("chain_unavailable")
        return estimate

    with patch.object(node.NodeChain, "fee_per_byte", needed):
        yield


@_break
def _an_estimate_is_believed_whatever_it_says() -> Iterator[None]:
    """It is paid without a look at the share, and the signer signs whatever it is asked for."""

    def rich(stake: Stake, rung: Any, estimate: int, *_: Any, **__: Any) -> int:
        return min(estimate * rung.factor * stake.size, stake.received - DUST_LIMIT)

    with (
        patch.object(settling, "wanted_fee", rich),
        patch.object(signer.policy, "_check_fee", lambda policy, request, memory, now: None),
    ):
        yield


@_break
def _what_full_mempools_ask_is_not_paid() -> Iterator[None]:
    async def hopeful(self: Settling, case: Any) -> bool:
        return False

    with patch.object(Settling, "_pay_what_is_asked", hopeful):
        yield


@_break
def _a_settlement_under_another_txid_counts_as_lost() -> Iterator[None]:
    look = Spends.look

    async def literal(self: Spends, case: Any, status: Any) -> Any:
        spend = await look(self, case, status)
        return spend if spend is None or spend.txid == case.state.settlement_txid else replace(spend, paid=None)

    with patch.object(Spends, "look", literal):
        yield


# --- the signer ---


@_break
def _the_signers_ledger_is_not_synced() -> Iterator[None]:
    save = LedgerConnection._save

    def careless(self: LedgerConnection) -> None:
        self._is_synced = False
        save(self)

    with patch.object(LedgerConnection, "_save", careless):
        yield


@_break
def _the_signer_forgets_what_it_signed() -> Iterator[None]:
    with patch.object(signer.policy, "_check_progress", lambda request, memory: None):
        yield


@_break
def _the_signer_forgets_what_was_noted() -> Iterator[None]:
    with (
        patch.object(signer.policy, "_check_progress", _progress_without_notes(signer.policy._check_progress)),
        patch.object(signer.ledger, "_PUT", signer.ledger._PUT.replace("change_value < :change_value", "change_value < -1")),
    ):
        yield


def _progress_without_notes(check: Callable[..., None]) -> Callable[..., None]:
    return lambda request, memory: check(request, Memory(memory.signed, None, memory.fees_of_the_day))


@_break
def _the_signer_does_not_know_the_time() -> Iterator[None]:
    with patch.object(signer.policy, "rung_at", lambda left, period: LADDER[-1]):
        yield


@_break
def _the_signer_does_not_bound_the_fee() -> Iterator[None]:
    with patch.object(signer.policy, "_check_fee", lambda policy, request, memory, now: None):
        yield


FIGHTS = (
    "the copies that miners have are not reckoned with",
    "what hangs on a settlement is not paid for",
    "a refusal for the fee teaches nothing",
    "no settlement without an estimate",
    "what waits is not raised",
    "what full mempools ask is not paid",
    "the proof is asked for when it is needed",
)
"""Found in `pinning.py`, where settlements are all that there is."""


def _clusters() -> dict[str, Callable[[], Any]]:
    if find_spec("asyncpg") is None:
        return {}
    from .cluster.breaks import BREAKS as found

    return found


CLUSTERS = _clusters()
"""Found in worlds of two machines on PostgreSQL, where asyncpg is installed."""

BREAKS |= CLUSTERS


def seed_of(name: str, number: int) -> str:
    """Return what the world is called in which a break is looked for."""
    return f"postgres2/{number}" if name in CLUSTERS else str(number)


def find(name: str, first: int, most: int) -> tuple[int, str]:
    """Return how many seeds it took to find a break, 0: it was not found; and what the judge said."""
    if name in FIGHTS:
        with BREAKS[name]():
            for number in range(most):
                if violation := Fight(str(first + number)).run().violation():
                    return number + 1, violation
        return 0, ""
    with staged(), BREAKS[name]():
        for number in range(most):
            violations = run_seed(seed_of(name, first + number)).judge.violations
            if violations:
                assert "breaks.py" not in violations[0], f"the break itself is broken: {violations[0]}"
                return number + 1, violations[0]
    return 0, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--most", type=int, default=5000, help="seeds for each break")
    parser.add_argument("--only", choices=list(BREAKS))
    parser.add_argument("--shrink", action="store_true", help="shrink the seed that found it")
    options = parser.parse_args()
    missed = []
    for name in [options.only] if options.only else BREAKS:
        began = time.monotonic()
        count, what = find(name, options.first, options.most)
        missed += [name] * (not count)
        found = f"found by seed {options.first + count - 1}: {what}" if count else f"NOT FOUND in {options.most} seeds"
        print(f"{name}: {found} ({time.monotonic() - began:.0f} s)", flush=True)
        if count and options.shrink and name not in FIGHTS:
            with staged(), BREAKS[name]():
                seed = seed_of(name, options.first + count - 1)
                print(describe(seed, shrink(seed)), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
