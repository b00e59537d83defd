"""The judge of a simulated world: knows what each payer was promised, what is safe on disk, what the signer signed, and what the
chain says.

It trusts no process. What is safe is what the simulated disk has synced; what was promised is what a payer has read.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bitcoin.core import CTransaction

from paychan._fast.frame import FrameReader
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.outpoint import format_outpoint, make_outpoint
from paychan.core.units import DUST_LIMIT
from paychan.rpc.signer_messages import SignerMessage
from paychan.rpc.store_messages import PAYLOAD_MAX, OwnerTable, StoreMessage, decode_commit
from store import keys
from tests.campaign.signer_oracle import DESTINATION_SIZE_MAX, INFLATION, Oracle, Rules
from tests.tiling import History, Operation, check

from .auditor import INFLATED_SIZE, SETTLEMENT_SIZE, SHARE_WORTH_PERCENT, Auditor
from .blockchain import BlockChain, payment_in
from .hosts import (
    CONFIRMATIONS,
    DESTINATION,
    FEE_RATE_MAX,
    FEE_SHARE_PERCENT_MAX,
    FEE_SUM_PER_DAY_MAX,
    PERIOD,
    SERVER_PUBKEY,
    VERSIONS_MAX,
)

LATE_SLACK_SECONDS = 1800
ATTACKED_SHARE_PERCENT = 25
"""Less than the ladder's first share: what an attack asks for can be paid before the period is half over."""

CHANCES_MIN = 6
"""Blocks, as many as a settlement period has on average."""

"""By so much a worker that sees the chain seldom may lag behind its median time past (the chain's seconds)."""


@dataclass
class Promise:
    """One channel as its payer knows it. lowest: the lowest acknowledged change value (satoshi); acks: (time, change value)."""

    terms: ChannelTerms
    operations: list[Operation] = field(default_factory=list)
    lowest: int = 0
    acks: list[tuple[float, int]] = field(default_factory=list)
    closed_at: float = float("inf")
    is_void: bool = False


@dataclass
class Judge:
    """`now()`: simulated seconds. `latest()`: unix seconds by the most hasty clock that the machine had; `has_one_clock()`: whether
    it was never set; `believed()`: the latest time that the server may act upon. has_limits: whether channels may be settled for
    what they hold. `safe`: the store's data as the disk would certainly have it after a power loss."""

    chain: BlockChain
    lease_seconds: float
    now: Any
    latest: Callable[[], int]
    has_one_clock: Callable[[], bool]
    believed: Callable[[], int]
    has_limits: bool
    violations: list[str] = field(default_factory=list)
    promises: dict[bytes, Promise] = field(default_factory=dict)
    safe: dict[bytes, bytes] = field(default_factory=dict)
    on_acknowledged: Callable[[float], None] = lambda sent_at: None
    """Is told when each payment was sent that is acknowledged."""
    seen: Counter[str] = field(default_factory=Counter)
    """How often what happened that makes the world worth something."""

    def __post_init__(self) -> None:
        self.auditor = Auditor(self.chain, DESTINATION, PERIOD, CONFIRMATIONS, FEE_RATE_MAX)
        self.auditor.violations, self.auditor.data = self.violations, self.safe
        self._published: dict[int, int] = {}
        self._writers: dict[tuple[int, int], Any] = {}
        self._readers: dict[Any, FrameReader] = {}
        self._commits: dict[tuple[Any, int], tuple[bytes, dict[int, int]]] = {}
        self._settlements: set[bytes] = set()
        self._signed: dict[bytes, list[tuple[int, int, bytes]]] = {}
        self._noted: dict[bytes, int] = {}
        self._notes: dict[tuple[Any, int], bytes] = {}
        self._set_back: list[tuple[float, dict[bytes, bytes]]] = []
        """When what is safe was set back, and what was safe before."""
        self.has_thief = False
        """Whether somebody else asks the signer: the server must take what was signed for him."""
        rules = (SERVER_PUBKEY, DESTINATION, FEE_RATE_MAX, FEE_SHARE_PERCENT_MAX, VERSIONS_MAX, PERIOD, FEE_SUM_PER_DAY_MAX)
        self._oracle = Oracle(Rules(*rules))

    def breach(self, what: str) -> None:
        if len(self.violations) < 50:
            self.violations.append(f"{self.now():.4f} s: {what}")

    def expect(self, terms: ChannelTerms) -> Promise:
        """A payer has funded a channel; `terms` are the truth."""
        self.auditor.expect(terms).may_close = self.has_limits
        promise = self.promises[terms.outpoint] = Promise(terms, lowest=terms.funding_value)
        return promise

    # --- what payers are told ---

    def acknowledged(self, promise: Promise, asked: int, left: int, received: int, sent_at: float) -> None:
        """A payer has read the acknowledgement of a payment that leaves `asked`; it says `left` and `received` (satoshi)."""
        where, terms = format_outpoint(promise.terms.outpoint)[:8], promise.terms
        if left != asked:
            self.breach(f"{where}: acknowledged {left} for a payment that leaves {asked}")
        was_safe = [safe for at, safe in self._set_back if sent_at < at]
        if not any(_leaves_at_most(safe.get(keys.STATE + terms.outpoint), asked) for safe in (self.safe, *was_safe)):
            self.breach(f"{where}: acknowledged a payment that leaves {asked}, and it is not safe on disk")
        if received > 0 and sent_at > promise.closed_at:
            self.breach(f"{where}: took a payment that was sent after the channel's close had been acknowledged")
        known = [change for at, change in promise.acks if at < sent_at - self.lease_seconds - 0.5]
        if known and asked > min(known):
            self.breach(f"{where}: acknowledged {asked} long after {min(known)}: an owner that is none any more answered")
        if received > 0 and self.chain.median_time_past >= terms.exp_time - PERIOD + LATE_SLACK_SECONDS:
            self.breach(f"{where}: took a payment within the settlement period, by the chain's own clock")
        self.seen["payments acknowledged"] += 1
        self.on_acknowledged(sent_at)
        promise.acks.append((self.now(), asked))
        promise.lowest = min(promise.lowest, asked)
        self.auditor.accounts[terms.outpoint].lowest = promise.lowest
        self.auditor.accounts[terms.outpoint].opened = True

    # --- what the disk holds ---

    def see_commit(self, writes: Mapping[bytes, bytes | None]) -> None:
        """The store's writes have become safe."""
        self.auditor.see_writes(writes)
        for key, value in writes.items():
            if value is None:
                self.safe.pop(key, None)
            else:
                self.safe[key] = value
                if key[:1] == keys.SETTLEMENT:
                    self._settlements.add(value)
                    self._judge_bid(key[1:], value)

    def _judge_bid(self, outpoint: bytes, raw: bytes) -> None:
        """Hold the fee of a version that the server wants to publish against the time that it may believe."""
        terms, tx = self.promises[outpoint].terms, CTransaction.deserialize(raw)
        payment = payment_in(tx)
        if payment is None or self.has_thief:
            return
        fee, received = terms.funding_value - sum(out.nValue for out in tx.vout), terms.funding_value - payment.change_value
        left = terms.exp_time - self.believed()
        size = len(raw) + 3 + DESTINATION_SIZE_MAX - len(tx.vout[-1].scriptPubKey)
        if not self._is_small(fee, received, size) and fee * 100 > received * self._oracle.rules.share_at(left):
            self.breach(f"{format_outpoint(outpoint)[:8]}: bids {fee} of {received}, {left} s before its expiry")

    def see_recovery(self, data: Mapping[bytes, bytes]) -> None:
        """The store has read its disk after a start: nothing that was safe is missing."""
        self.seen["store starts"] += 1
        safe, changed = self.safe, {key: value for key, value in data.items() if self.safe.get(key) != value}
        for key in safe.keys() - data.keys():
            if key[:1] not in (keys.EXPIRING, keys.UNFINISHED):
                self.breach(f"the store's disk lost {key[:1]!r} {key[1:9].hex()}")
        for key, value in changed.items():
            if key[:1] == keys.EPOCH and keys.decode_epoch(value) < keys.decode_epoch(safe.get(key)):
                self.breach("an epoch on the store's disk went back")
        self.see_commit({**dict.fromkeys(safe.keys() - data.keys()), **changed})

    def set_back(self, pairs: Mapping[bytes, bytes]) -> None:
        """What is safe was set back, by whoever promoted the wrong standby. What a store had answered before may still be on its
        way to a payer, at a worker that is stopped."""
        self._set_back.append((self.now(), dict(self.safe)))
        self.safe.clear()
        self.safe.update(pairs)
        for outpoint, account in self.auditor.accounts.items():
            record = pairs.get(keys.STATE + outpoint)
            account.phase = int(ChannelState.parse(record).phase) if record is not None else ABSENT
            account.fee = -1

    def check_store(self) -> None:
        """The store's indexes and its sums agree with its states."""
        expiring, unfinished, opened, begun = set(), set(), 0, 0
        for key, value in self.safe.items():
            if key[:1] != keys.STATE:
                continue
            outpoint, state = key[1:], ChannelState.parse(value)
            terms = ChannelTerms.parse(outpoint, self.safe[keys.TERMS + outpoint])
            received = terms.funding_value - state.payment.change_value
            if state.phase == Phase.OPEN:
                expiring.add(keys.expiring_key(terms.exp_time, outpoint))
                opened += received
            elif state.phase != Phase.SETTLED:
                begun += received
                unfinished.add(keys.UNFINISHED + outpoint)
        if {key for key in self.safe if key[:1] == keys.EXPIRING} != expiring:
            self.breach("the store's index of expiries differs from its states")
        if {key for key in self.safe if key[:1] == keys.UNFINISHED} != unfinished:
            self.breach("the store's index of settlements differs from its states")
        if keys.decode_unsettled(self.safe.get(keys.UNSETTLED)) != (opened, begun):
            self.breach("the store's sums of what is unsettled are wrong")

    # --- what the store says: no stale owner writes ---

    def tap_store(self, end: Any, data: bytes, is_out: bool) -> None:
        """See the store's frames. Whoever commits after the store has named a new owner, commits under the new epoch or in vain."""
        for kind, request_id, payload in self._frames(end, data, is_out):
            if is_out and kind == StoreMessage.OWNERS:
                for lease, (_, epoch) in enumerate(OwnerTable.decode(payload).owners):
                    self._published[lease] = max(epoch, self._published.get(lease, 0))
            elif not is_out and kind == StoreMessage.COMMIT:
                self._commits[end, request_id] = payload, dict(self._published)
            elif is_out and kind == StoreMessage.COMMIT + 128:
                self._see_statuses(end, *self._commits.pop((end, request_id)), payload)

    def _see_statuses(self, end: Any, payload: bytes, published: dict[int, int], statuses: bytes) -> None:
        for entry, status in zip(decode_commit(payload), statuses, strict=True):
            self.seen[("writes taken", "writes of stale owners refused", "conflicts refused", "forbidden")[status]] += 1
            if status == 0 and entry.epoch < published.get(entry.shard, 0):
                self.breach(f"the store took a write of epoch {entry.epoch}, the shard's is {published[entry.shard]}")
            if status == 0 and self._writers.setdefault((entry.shard, entry.epoch), end) is not end:
                self.breach(f"two workers wrote to shard {entry.shard} under epoch {entry.epoch}")

    def forget_store(self) -> None:
        """The store's process has ended."""
        self._published.clear()
        self._commits.clear()

    def forget_epochs(self) -> None:
        """What stores told of epochs may have been lost, with what was not confirmed."""
        self._published.clear()
        self._writers.clear()
        self._commits = {asked: (payload, {}) for asked, (payload, _) in self._commits.items()}

    def _frames(self, end: Any, data: bytes, is_out: bool) -> list[tuple[int, int, bytes]]:
        reader = self._readers.get((end, is_out))
        if reader is None:
            reader = self._readers[end, is_out] = FrameReader(PAYLOAD_MAX)
        return reader.feed(data)

    # --- what the signer gives away ---

    def tap_signer(self, end: Any, data: bytes, is_out: bool) -> None:
        for kind, request_id, payload in self._frames(end, data, is_out):
            if not is_out and kind == SignerMessage.NOTE:
                self._notes[end, request_id] = payload
            elif is_out and kind == SignerMessage.SETTLE + 128:
                self._see_signature(payload)
            elif is_out and kind == SignerMessage.NOTE + 128:
                self._see_note(self._notes.pop((end, request_id)))

    def _see_note(self, request: bytes) -> None:
        """From now on nothing is signed that leaves the payer more than this payment did."""
        self.seen["payments noted"] += 1
        terms_size = int.from_bytes(request[44:46], "little")
        change_value = int.from_bytes(request[48 + terms_size : 56 + terms_size], "little")
        outpoint = request[:36]
        self._noted[outpoint] = min(change_value, self._noted.get(outpoint, change_value))

    def _see_signature(self, raw: bytes) -> None:
        """Hold a signed settlement against the policy, with the eyes of whoever pays for a mistake."""
        self.seen["signatures"] += 1
        tx = CTransaction.deserialize(raw)
        outpoint = make_outpoint(tx.vin[0].prevout.hash, tx.vin[0].prevout.n)
        where, promise, payment = format_outpoint(outpoint)[:8], self.promises.get(outpoint), payment_in(tx)
        if promise is None or payment is None:
            self.breach(f"the signer signed {where}, which is no channel")
            return
        value = promise.terms.funding_value
        fee, received = value - sum(output.nValue for output in tx.vout), value - payment.change_value
        before = self._signed.setdefault(outpoint, [])
        if bytes(tx.vout[-1].scriptPubKey) != DESTINATION or fee < 0:
            self.breach(f"the signer signed {where} with a fee of {fee} or to another destination")
        if (payment.change_value, fee, tx.GetTxid()) not in before:
            self._judge_fee(where, promise.terms, fee, received, len(raw) + 3 + DESTINATION_SIZE_MAX - len(DESTINATION))
        noted = self._noted.get(outpoint, value)
        if payment.change_value > noted and (payment.change_value, fee, tx.GetTxid()) not in before:
            self.breach(f"the signer signed {where} for {payment.change_value}, and {noted} was noted")
        for change, old_fee, _ in before:
            if payment.change_value > change or (payment.change_value == change and fee < old_fee):
                self.breach(f"the signer signed {where} for {payment.change_value} with {fee}, after {change} with {old_fee}")
        before.append((payment.change_value, fee, tx.GetTxid()))
        if len({txid for *_, txid in before}) > VERSIONS_MAX:
            self.breach(f"the signer signed {where} too often")

    def _judge_fee(self, where: str, terms: ChannelTerms, fee: int, received: int, size: int) -> None:
        """Hold a new fee against what is allowed at this time, by the most hasty clock that the machine had."""
        left = terms.exp_time - self.latest()
        if not self._is_small(fee, received, size) and fee * 100 > received * self._oracle.rules.share_at(left):
            self.breach(f"the signer signed {where} with a fee of {fee} of {received}, {left} s before its expiry")
        if left > PERIOD and fee > FEE_RATE_MAX * (size + INFLATION):
            self.breach(f"the signer signed {where} with a fee of {fee}, before its time")
        is_over = self._oracle.is_over_the_days_sum(terms.outpoint, terms.exp_time, fee, self.latest())
        if is_over and self.has_one_clock():
            self.breach(f"the signer signed {where} with a fee of {fee}, beyond the day's sum")
        self._oracle.saw_burnt(self.latest(), terms.outpoint, fee)

    @staticmethod
    def _is_small(fee: int, received: int, size: int) -> bool:
        """Whether a fee is the least that can be replaced: that much is allowed at any time."""
        return fee <= 2 * size and fee * 100 <= received * FEE_SHARE_PERCENT_MAX

    def see_published(self, raw: bytes) -> None:
        """A transaction comes to the network. A settlement is safe on disk before anybody sees it."""
        if raw not in self._settlements and payment_in(CTransaction.deserialize(raw)) is not None:
            self.breach("a settlement was published that is not safe on disk")

    # --- the end ---

    def judge(self, settles: bool, is_late: bool, wall_error: float) -> None:
        """Look at everything after its time. settles: the channels had the time to be settled; is_late: maybe not in time;
        wall_error: seconds by which the machine's clock was wrong, at its slowest."""
        self.check_store()
        for outpoint, promise in self.promises.items():
            record = self.safe.get(keys.STATE + outpoint)
            state = ChannelState.parse(record) if record is not None else None
            if state is None:
                if promise.acks:
                    self.breach(f"{format_outpoint(outpoint)[:8]}: was acknowledged, and is not on disk")
                continue
            history = History(format_outpoint(outpoint)[:8], promise.terms.funding_value, promise.operations)
            history.final_left = state.payment.change_value
            for problem in check(history).problems:
                self.breach(problem)
            if settles:
                is_behind = wall_error <= -PERIOD
                had_chances = not is_behind or self._chances(promise.terms.exp_time) >= CHANCES_MIN
                self._judge_end(outpoint, promise, state, is_late or not had_chances, is_behind)

    def _chances(self, exp_time: int) -> int:
        """Return how many blocks came in the settlement period, told by the chain's median time alone: a clock that is behind by
        more than the period tells nothing, and the median can leap over most of it within a few blocks."""
        medians = map(self.chain.median_time_at, range(10, self.chain.height))
        return sum(exp_time - PERIOD <= median < exp_time for median in medians)

    def _judge_end(self, outpoint: bytes, promise: Promise, state: ChannelState, is_late: bool, is_behind: bool) -> None:
        where, account, spender = format_outpoint(outpoint)[:8], self.auditor.accounts[outpoint], self.chain.spender(outpoint)
        if promise.is_void or state.phase == ABSENT:
            return
        is_economic = not is_late and self._is_worth_its_fee(promise, self.auditor.received(account), is_behind)
        if spender is None:
            if is_economic:
                self.breach(f"{where}: nothing spends it after its expiry, its phase is {state.phase.name}")
            return
        payment = payment_in(CTransaction.deserialize(spender.raw))
        if payment is None:
            if is_economic:
                self.breach(f"{where}: lost {self.auditor.received(account)} satoshi to the refund")
        elif format_outpoint(outpoint) in self.auditor.lost_logged:
            self.breach(f"{where}: was told as a loss, and a settlement is on the chain")
        elif payment.change_value > promise.lowest:
            self.breach(f"{where}: settled with a change of {payment.change_value}, acknowledged was {promise.lowest}")
        elif payment.change_value != state.payment.change_value:
            self.breach(f"{where}: settled with another payment than the store holds")

    def _is_worth_its_fee(self, promise: Promise, received: int, is_behind: bool) -> bool:
        """Whether what was received would have paid for every block of the settlement period, with something to spare; where the
        settlement was attacked, from the period's beginning on. is_behind: the signer's clock never saw that period, so that its
        first share and its sum of a day held until the end."""
        end, account = promise.terms.exp_time, self.auditor.accounts[promise.terms.outpoint]
        dearest = max((block.threshold for block in self.chain.blocks if end - PERIOD <= block.time <= end), default=1.0)
        is_attacked = self.auditor.has_copies or account.pinned > 0
        share = ATTACKED_SHARE_PERCENT if is_attacked or is_behind else SHARE_WORTH_PERCENT
        affordable = min(received * share // 100, received - DUST_LIMIT)
        if is_behind:
            affordable = min(affordable, FEE_SUM_PER_DAY_MAX // len(self.promises) // 2)
        return affordable >= 1.3 * dearest * (INFLATED_SIZE if is_attacked else SETTLEMENT_SIZE) + account.pinned


def _leaves_at_most(record: bytes | None, change_value: int) -> bool:
    """Return whether a state record has a payment that leaves this or less (satoshi)."""
    return record is not None and ChannelState.parse(record).payment.change_value <= change_value
