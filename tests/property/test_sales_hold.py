"""Aim: what a seller is told is what was charged, once, and never more than was received; a refusal changes nothing. Method:
Hypothesis drives payments, charges, reservations, settlements, replays, time and restarts through a worker's table and the store's
group, over a dict, and holds each answer against the slow judge, which tells the rules a second time."""

import struct

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from paychan._fast.channel import ChannelTable, shard_of
from paychan._fast.group import StateCache
from paychan._fast.selling import judge
from paychan._fast.status import Status
from paychan.core.channel import ABSENT, ChannelState, Phase
from paychan.core.payment import Payment
from paychan.core.sales import ATTEMPT_MAX
from paychan.rpc.store_messages import LEASE_COUNT, Entry, EntryStatus, encode_commit
from store import keys
from store.check import Report, _check_batch
from store.group import NOTHING, Group
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all
from tests.reference import judge_sale

OPEN_PRICE = 700
KINDS = {"sell": 1, "settle": 2, "prove": 3, "again": 4}
KEYS = [bytes([number]) * 16 for number in range(7)]
AMOUNTS = st.integers(1, 200) | st.sampled_from([1, 5, 100, 3000]) | st.sampled_from([0, 21 * 10**14 + 1, 2**63, 2**64 - 1])


class Disk(dict):
    """What a group reads from."""

    def states(self, outpoints):
        return [self.get(keys.STATE + outpoint) for outpoint in outpoints]

    def terms(self, outpoints):
        return [self.get(keys.TERMS + outpoint) for outpoint in outpoints]

    def funding(self, txid):
        return None

    def get_many(self, names):
        return [self.get(name) for name in names]


class Selling(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 20), opening=st.sampled_from([0, 100, 700, 5000]))
    def open(self, seed, opening):
        self.sample = make_sample(f"selling {seed}", opening_change=10_000_000 - opening)
        self.outpoint = self.sample.terms.outpoint
        self.now, self.spent, self.unsettled, self.open_spent = NOW, 0, NOTHING, 0
        self.disk, self.cache, self.epochs = Disk(), StateCache(16), [1] * (SHARD_COUNT + LEASE_COUNT)
        self.account = self.sample.account
        self.payments = [self.account.newest]
        newest = self.account.newest
        state = ChannelState(Phase.OPEN, Payment(newest.change_value, newest.signature, newest.sighash_type))
        shard = shard_of(self.outpoint, SHARD_COUNT)
        terms = self.sample.terms.serialize()
        entry = Entry(shard, 1, self.outpoint, ABSENT, 10_000_000, state.serialize(), terms)
        assert self._commit(entry.encode()) == EntryStatus.OK
        self.restart()

    def _commit(self, entry):
        group = Group(self.disk, self.cache, self.epochs, SHARD_COUNT, self.unsettled, self.open_spent)
        status = group.judge(encode_commit([entry]))[0]
        self.disk.update((key, value) for key, value in group.writes.items() if value is not None)
        for key in [key for key, value in group.writes.items() if value is None]:
            self.disk.pop(key, None)
        group.keep()
        self.unsettled, self.open_spent = group.unsettled, group.open_spent
        assert self.cache.accounts.stopped == {}
        return status

    @rule()
    def restart(self):
        """Everything is read from the disk again, what the cache has too."""
        self.table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))
        self.table.open_price = OPEN_PRICE
        self.table.load(self.sample.terms, ChannelState.parse(self.disk[keys.STATE + self.outpoint]))
        self.table.mark_checked(self.outpoint, self.table.chain_generation)
        self.cache = StateCache(16)

    @rule(seconds=st.sampled_from([1, 1, 50, 50, 3600, 24 * 3600, 29 * 24 * 3600]))
    def wait(self, seconds):
        self.now += seconds

    @rule(
        what=st.sampled_from(["sell"] * 4 + ["settle"] * 2 + ["again"] * 2 + ["prove"]),
        key=st.sampled_from(KEYS),
        amount=AMOUNTS,
        ahead=st.sampled_from([0, 0, 0, 60, 60, 86400, 86400, 86401, 1]),
        pays=st.sampled_from([None, None, "anew", "anew", "again", "old", "all"]),
        more=st.integers(-1, 300),
        number=st.integers(0, 12),
        is_spoiled=st.sampled_from([False] * 9 + [True]),
        attempt=st.sampled_from([0, 1, 2, ATTEMPT_MAX]),
    )
    def ask(self, what, key, amount, ahead, pays, more, number, is_spoiled, attempt):
        paid = None
        if pays == "anew":
            self.payments.append(self.sample.sign(max(700, self.payments[-1].change_value - min(amount + more, 5000))))
        if pays or what == "prove":
            paid = self.payments[number % len(self.payments) if pays == "old" else -1]
        if pays == "all" and number == 12:
            paid = self.sample.sign(0, 0x82)
        if paid is not None and is_spoiled and paid.change_value:
            paid = type(paid)(paid.change_value + 1, paid.signature, 0x83)
        known = {one.key: one for one in self.account.bought}
        if what == "settle" and key in known and number < 9:
            number, amount = known[key].number, min(amount, known[key].held + number // 8)
        if what in ("sell", "again") and key in known and number < 9:
            amount = known[key].asked
            number = known[key].number + number // 8
        self._ask(what, key, amount, number, self.now + ahead if ahead else 0, attempt, paid)

    def _ask(self, what, key, amount, number, until, attempt, paid):
        now = self.now
        before = self.table.seal(self.outpoint)
        asked = what, key, amount, number, until, attempt, paid, now, now, SETTLEMENT_PERIOD, OPEN_PRICE
        wanted, after = judge_sale(self.account, *asked)
        raw = paid.raw if paid is not None else None
        sale = KINDS[what], self.outpoint, key, amount, number, until, raw
        status, charged, spent, bought = judge(self.table, *sale, now, now, attempt)
        code = Status(status).name.lower()
        event(code)
        assert code == wanted.code
        if code not in ("accepted", "exhausted"):
            assert self.table.seal(self.outpoint) == before  # nothing has changed
        if code in ("accepted", "exhausted", "replayed"):
            charged = struct.unpack("<q", struct.pack("<Q", charged))[0]
            assert code == "replayed" or charged == wanted.charged
            assert spent == wanted.spent
            if wanted.bought is not None:
                one = wanted.bought
                assert bought == (one.asked, one.held, one.number, one.until)
        if code in ("accepted", "exhausted"):
            self._write(after, charged)

    def _write(self, after, charged):
        credit = self.account.newest.change_value - after.newest.change_value
        entry = self.table.seal(self.outpoint, credit, charged % 2**64)
        assert self._commit(entry) == EntryStatus.OK
        assert self._commit(entry) in (EntryStatus.CONFLICT, EntryStatus.FORBIDDEN)  # a late repetition changes nothing
        self.table.acknowledge(self.outpoint)
        assert self.table.is_durable(self.outpoint)
        self.account = after

    @invariant()
    def the_disk_has_what_the_judge_has(self):
        if not hasattr(self, "table"):
            return
        state = ChannelState.parse(self.disk[keys.STATE + self.outpoint])
        sales, account = state.sales, self.account
        assert state.payment.change_value == account.newest.change_value
        assert (sales.spent, sales.revision) == (account.spent if account.changes else 0, account.changes)
        rows = {(one.key, one.asked, one.held, one.number, one.until) for one in sales.purchases}
        assert rows == {(one.key, one.asked, one.held, one.number, one.until) for one in account.bought}
        received = 10_000_000 - state.payment.change_value
        assert sales.spent <= received and sum(one.held for one in sales.purchases) <= sales.spent
        assert self.open_spent == (sales.spent if state.phase == Phase.OPEN else 0)
        report = Report()
        records = type("", (), {"get": lambda _, names: self.disk.get_many(names)})()
        _check_batch(records, [(self.outpoint, self.disk[keys.STATE + self.outpoint])], report, None)
        assert report.problems == [] and report.open_spent == self.open_spent
        assert (report.open_value, report.begun_value) == self.unsettled


TestSelling = Selling.TestCase
TestSelling.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
