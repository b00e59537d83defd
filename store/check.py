"""`paychan-store check DIR`: whether every record in a store is whole and fits the others, and whether the money comes out even:
each channel leaves its payer no more than it holds; all open ones, and all that are being settled, received what their updates
were counted to bring, one by one, when they came. `audit DIR`: also whether each newest payment is its payer's. Reads only, and one
channel at a time.

Pure but for `StoredRecords`: the rules take any `Records`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from rocksdict import ReadOptions

from paychan.core.channel import ChannelState, ChannelTerms, Phase
from paychan.core.funding import txid_without_witness
from paychan.core.network import BY_NAME
from paychan.core.outcome import Outcome
from paychan.core.outpoint import OUTPOINT_SIZE, format_outpoint, txid_of
from paychan.core.payment import SIGHASH_CHANGE, SIGHASH_NO_CHANGE, Payment
from paychan.rpc.store_messages import LEASE_COUNT

from . import keys
from .engines.rocksdb import hold_against_mark, open_for_reading
from .identity import Identity
from .mark import Mark, path_of
from .restored import describe_restored

BATCH = 512  # channels whose records are looked up at once
FUNDING_BATCH = 16  # funding transactions, of up to a megabyte each
PROBLEMS_SHOWN_MAX = 1000  # the others are counted
SIGNATURE_SIZES = range(8, 73)  # strict DER

Verify = Callable[[ChannelTerms, Payment], bool]
"""Whether a payment is signed by the payer of a channel with these terms."""


class Records(Protocol):
    """What the rules need to read."""

    def walk(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield every pair whose key begins with `prefix`, in the order of the keys."""

    def get(self, names: list[bytes]) -> list[bytes | None]: ...


class StoredRecords:
    """A database, opened for reading only. `sequence`: number of its newest write. Raises rocksdict's plain `Exception`."""

    def __init__(self, directory: Path) -> None:
        self._db = open_for_reading(directory)
        self.sequence = self._db.latest_sequence_number()

    def close(self) -> None:
        self._db.close()

    def walk(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        bounds = ReadOptions()
        if prefix:
            bounds.set_iterate_upper_bound(bytes((prefix[0] + 1,)))
        cursor = self._db.iter(bounds)
        cursor.seek(prefix)
        while cursor.valid():
            yield cursor.key(), cursor.value()
            cursor.next()
        cursor.status()  # raises what ended the walk early

    def get(self, names: list[bytes]) -> list[bytes | None]:
        return self._db.get(names)  # type: ignore[arg-type, return-value]  # rocksdict tells of its own union, and of anything


@dataclass
class Report:
    """What was found. `problems`: the first PROBLEMS_SHOWN_MAX, one line each; `problem_count`: all. Values in satoshi. `unproven`:
    unsettled channels without a kept funding transaction."""

    identity: Identity | None = None
    phases: Counter[Phase] = field(default_factory=Counter)
    open_value: int = 0
    begun_value: int = 0
    open_spent: int = 0
    spent: int = 0
    funding: int = 0
    left: int = 0
    unproven: int = 0
    restored: str = ""
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0

    def complain(self, text: str) -> None:
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_SHOWN_MAX:
            self.problems.append(text)

    def lines(self) -> Iterator[str]:
        """Yield what `paychan-store check` prints."""
        if self.identity:
            yield f"store {self.identity.store_id.hex()} of network {self.identity.network}, {self.identity.shard_count} shards"
        if self.restored:
            yield self.restored
        counts = ", ".join(f"{self.phases[phase]} {phase.name.lower()}" for phase in Phase)
        yield f"{sum(self.phases.values())} channels: {counts}"
        yield f"{self.open_value} satoshi received on open ones, {self.begun_value} on those being settled"
        yield f"of {self.funding} satoshi {self.funding - self.left} were received and {self.left} are left"
        if self.spent:
            yield f"{self.spent} satoshi of what was received were spent on purchases"
        if self.unproven:
            yield f"{self.unproven} unsettled channels have no funding transaction: only a signer in debug mode settles them"
        yield from self.problems
        if self.problem_count > len(self.problems):
            yield f"and {self.problem_count - len(self.problems)} more"
        yield "no problems" if not self.problem_count else f"{self.problem_count} problems"


def check_store(directory: Path, verify: Verify | None = None) -> Report:
    """Check the database in `directory`, whose lock the caller holds. Raises Exception if it does not open or read."""
    if path_of(directory).exists():
        mark = Mark(directory)
        try:
            hold_against_mark(directory, mark)
        finally:
            mark.close()
    records = StoredRecords(directory)
    try:
        report = check_records(records, verify)
        if not path_of(directory).exists():
            report.complain(f"{path_of(directory)} is missing: whether the log is whole cannot be told")
        return report
    finally:
        records.close()


def check_records(records: Records, verify: Verify | None = None) -> Report:
    """Hold every record against the rules, and against every other record that must go with it. verify: also ask this about each
    newest payment."""
    report = Report()
    report.identity = _check_identity(records, report)
    _check_channels(records, report, verify)
    _check_companions(records, report)
    _check_fundings(records, report)
    _check_rest(records, report)
    return report


def _check_identity(records: Records, report: Report) -> Identity | None:
    (raw,) = records.get([keys.IDENTITY])
    if raw is None:
        report.complain("the identity record is missing")
        return None
    try:
        identity = Identity.decode(raw)
        if identity.network not in BY_NAME:
            raise ValueError(f"network {identity.network} is unknown")
        return identity
    except ValueError as error:
        report.complain(f"the identity record: {error}")
        return None


def _check_channels(records: Records, report: Report, verify: Verify | None) -> None:
    batch: list[tuple[bytes, bytes]] = []
    for key, record in records.walk(keys.STATE):
        if len(key) != 1 + OUTPOINT_SIZE:
            report.complain(f"a state record's key has {len(key)} bytes: {key.hex()}")
            continue
        batch.append((key[1:], record))
        if len(batch) == BATCH:
            _check_batch(records, batch, report, verify)
            batch.clear()
    _check_batch(records, batch, report, verify)


def _check_batch(records: Records, batch: list[tuple[bytes, bytes]], report: Report, verify: Verify | None) -> None:
    if not batch:
        return
    names = [prefix + outpoint for outpoint, _ in batch for prefix in (keys.TERMS, keys.SETTLEMENT, keys.UNFINISHED)]
    found = records.get(names)
    indexed: list[bytes] = []
    unsettled: Counter[bytes] = Counter()
    for number, (outpoint, record) in enumerate(batch):
        terms_record, settlement, unfinished = found[3 * number : 3 * number + 3]
        try:
            terms = _check_terms(outpoint, terms_record, report.identity)
            state = _check_state(record, terms)
            _check_settlement(state, settlement)
            if verify is not None and not verify(terms, state.payment):
                raise ValueError("its newest payment is not signed by its payer")
            if unfinished != (bytes((state.phase,)) if Phase.OPEN < state.phase < Phase.SETTLED else None):
                raise ValueError(f"in phase {state.phase.name.lower()}, and the index of settlements says {unfinished!r}")
        except ValueError as error:
            report.complain(f"{format_outpoint(outpoint)}: {error}")
            continue
        report.phases[state.phase] += 1
        received = terms.funding_value - state.payment.change_value
        if state.phase < Phase.SETTLED:
            unsettled[txid_of(outpoint)] += 1
            report.begun_value += received if state.phase != Phase.OPEN else 0
        report.funding += terms.funding_value
        report.left += state.payment.change_value
        report.spent += state.sales.spent
        if state.phase == Phase.OPEN:
            report.open_value += received
            report.open_spent += state.sales.spent
            indexed.append(keys.expiring_key(terms.exp_time, outpoint))
    for key, value in zip(indexed, records.get(indexed) if indexed else [], strict=True):
        if value != b"":
            report.complain(f"{format_outpoint(key[5:])}: open, and not in the index of expiries")


    wanted = list(unsettled)
    for start in range(0, len(wanted), FUNDING_BATCH):
        txids = wanted[start : start + FUNDING_BATCH]
        kept = records.get([keys.FUNDING + txid for txid in txids])
        report.unproven += sum(unsettled[txid] for txid, funding in zip(txids, kept, strict=True) if funding is None)


def _check_terms(outpoint: bytes, record: bytes | None, identity: Identity | None) -> ChannelTerms:
    if record is None:
        raise ValueError("has a state and no terms")
    terms = ChannelTerms.parse(outpoint, record)
    if identity is not None and terms.server_pubkey != identity.server_pubkey:
        raise ValueError("is another server key's")
    return terms


def _check_state(record: bytes, terms: ChannelTerms) -> ChannelState:
    state = ChannelState.parse(record)
    payment = state.payment
    if payment.change_value > terms.funding_value:
        raise ValueError(f"gives the payer {payment.change_value} of {terms.funding_value}")
    if state.sales.spent > terms.funding_value - payment.change_value:
        raise ValueError(f"has sold for {state.sales.spent} satoshi, and received {terms.funding_value - payment.change_value}")
    if payment.sighash_type not in (SIGHASH_CHANGE, SIGHASH_NO_CHANGE) or len(payment.signature) not in SIGNATURE_SIZES:
        raise ValueError("has a payment of no known form")
    return state


def _check_settlement(state: ChannelState, settlement: bytes | None) -> None:
    """A settled channel may have none, or one that lost to another transaction."""
    if state.phase < Phase.SIGNED and settlement is not None:
        raise ValueError("has a settlement before one was signed")
    if state.phase in (Phase.SIGNED, Phase.BROADCAST):
        if settlement is None:
            raise ValueError("is signed and has no settlement")
        if sha256(sha256(settlement).digest()).digest() != state.settlement_txid:
            raise ValueError("has another settlement than its state names")


def _check_companions(records: Records, report: Report) -> None:
    """Every record that belongs to a channel has one, and every index entry has a channel in that phase."""
    for prefix in (keys.TERMS, keys.SETTLEMENT, keys.EXPIRING, keys.UNFINISHED, keys.DONE):
        batch: list[tuple[bytes, bytes]] = []
        for pair in records.walk(prefix):
            batch.append(pair)
            if len(batch) == BATCH:
                _check_owners(records, prefix, batch, report)
                batch.clear()
        _check_owners(records, prefix, batch, report)


def _check_owners(records: Records, prefix: bytes, batch: list[tuple[bytes, bytes]], report: Report) -> None:
    size = 1 + OUTPOINT_SIZE + (4 if prefix in (keys.EXPIRING, keys.DONE) else 0)
    for key, _ in batch:
        if len(key) != size:
            report.complain(f"a key has {len(key)} bytes: {key.hex()}")
    whole = [(key, value) for key, value in batch if len(key) == size]
    if not whole:
        return
    outpoints = [key[-OUTPOINT_SIZE:] for key, _ in whole]
    states = records.get([keys.STATE + outpoint for outpoint in outpoints])
    terms = records.get([keys.TERMS + outpoint for outpoint in outpoints]) if prefix == keys.EXPIRING else []
    for number, (key, value) in enumerate(whole):
        state, name = states[number], format_outpoint(outpoints[number])
        if state is None:
            report.complain(f"{name}: a record under {prefix.decode()} and no channel")
        elif len(state) < 2:
            continue  # said already
        elif prefix == keys.UNFINISHED and not Phase.OPEN < state[1] < Phase.SETTLED:
            report.complain(f"{name}: in the index of settlements, and in phase {state[1]}")
        elif prefix == keys.DONE:
            _check_outcome(key, value, state, name, report)
        elif prefix == keys.EXPIRING:
            try:
                expiry = ChannelTerms.parse(outpoints[number], terms[number] or b"").exp_time
            except ValueError:
                continue  # said already
            if state[1] != Phase.OPEN or key != keys.expiring_key(expiry, outpoints[number]):
                report.complain(f"{name}: in the index of expiries, where it does not belong")


def _check_outcome(key: bytes, record: bytes, state: bytes, name: str, report: Report) -> None:
    try:
        settled_at = Outcome.parse(record).settled_at
    except ValueError as error:
        report.complain(f"{name}: {error}")
        return
    if state[1] != Phase.SETTLED or keys.split_timed_key(key)[0] != settled_at:
        report.complain(f"{name}: in the index of settled channels, where it does not belong")


def _check_fundings(records: Records, report: Report) -> None:
    for key, value in records.walk(keys.FUNDING):
        if txid_without_witness(value) != key[1:]:
            report.complain(f"a funding transaction is not the one that its key names: {key.hex()}")


def _check_unsettled(record: bytes | None, report: Report) -> None:
    try:
        told = keys.decode_unsettled(record)
    except ValueError as error:
        report.complain(str(error))
        return
    if told.open != report.open_value:
        report.complain(f"the record of the open value says {told.open}, the channels {report.open_value}")
    if told.begun != report.begun_value and not (record is not None and len(record) == keys.OPEN_ALONE_SIZE):
        report.complain(f"the record of the value being settled says {told.begun}, the channels {report.begun_value}")


def _check_spent(record: bytes | None, report: Report) -> None:
    try:
        told = keys.decode_spent(record)
    except ValueError as error:
        report.complain(str(error))
        return
    if told != report.open_spent:
        report.complain(f"the record of the spent value says {told}, the channels {report.open_spent}")


def _check_rest(records: Records, report: Report) -> None:
    leases = (report.identity.shard_count if report.identity else 1 << 16) + LEASE_COUNT
    for key, value in records.walk(keys.EPOCH):
        if len(key) != 3 or int.from_bytes(key[1:], "big") >= leases or len(value) != 8:
            report.complain(f"an epoch record is damaged: {key.hex()}")
    _check_unsettled(records.get([keys.UNSETTLED])[0], report)
    _check_spent(records.get([keys.OPEN_SPENT])[0], report)
    (restored,) = records.get([keys.RESTORED])
    if restored is not None:
        try:
            report.restored = describe_restored(restored)
        except ValueError:
            report.complain("the record of a restore is damaged")
    for key, _ in records.walk(b""):
        if key not in keys.SINGLE and key[:1] not in keys.MANY:
            report.complain(f"a record of no known kind: {key.hex()}")
