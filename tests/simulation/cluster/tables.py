"""The rows of a store on PostgreSQL, and what the schema's functions do to them (store/engines/postgres/*.sql). Pure.

Each function runs as one transaction on what is visible. A row that another transaction has written, whose commit still waits for a
standby, is locked: who would write it too is told to wait (`Blocked`), and looks again from the beginning, as READ COMMITTED does.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from store import keys
from store.engines.postgres import engine, opening

AHEAD_SECONDS_MAX = 600
NUMBER_MAX = 65_535
NOTIFY = ("notify", "")
"""What a transaction that tells the others locks besides: those commit one after the other."""

EVENTS = ("events", "lock")
"""What a transaction locks from before it numbers an event until it has ended."""

Key = tuple[str, Any]
Changes = dict[Key, Any]


class SqlError(Exception):
    """What a function raises. `sqlstate`: five characters."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Blocked(Exception):
    """A row is locked: `key`."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self.key = key


@dataclass(frozen=True)
class ClusterRow:
    identity: bytes | None = None
    highest: int = 0


@dataclass(frozen=True)
class StoreRow:
    """As the table's columns."""

    number: int
    instance: bytes
    fence: int
    groups: int
    open_value: int = 0
    begun_value: int = 0
    open_spent: int = 0
    owners: bytes = b""
    confirmed: int = 0


@dataclass(frozen=True)
class ShardRow:
    store: str = ""
    epoch: int = 0


@dataclass(frozen=True)
class StateRow:
    phase: int
    value: int
    revision: int
    record: bytes


@dataclass
class Tables:
    """Everything that is visible: table -> key -> row."""

    rows: dict[str, dict[Any, Any]] = field(
        default_factory=lambda: {"cluster": {True: ClusterRow()}, "store": {}, "shard": {}, "state": {}, "record": {}}
    )

    def apply(self, changes: Mapping[Key, Any]) -> None:
        """Make a transaction visible. None deletes."""
        for (table, key), row in changes.items():
            if row is None:
                self.rows[table].pop(key, None)
            else:
                self.rows[table][key] = row


class Transaction:
    """One call: what it has changed so far, and which rows it holds."""

    def __init__(self, tables: Tables, locked: Container[Key], is_replicated: bool = True, now: int = 0) -> None:
        """is_replicated: whether the settings are those that `replicated` wants. now: the database's clock, unix seconds."""
        self._tables, self._locked, self._is_replicated, self.now = tables, locked, is_replicated, now
        self.changes: Changes = {}
        self.held: dict[Key, None] = {}

    def get(self, table: str, key: Any) -> Any:
        """Return a row, None if there is none."""
        changed = self.changes.get((table, key), self)
        return self._tables.rows[table].get(key) if changed is self else changed

    def all(self, table: str) -> dict[Any, Any]:
        rows = dict(self._tables.rows[table])
        rows.update({key: row for (where, key), row in self.changes.items() if where == table})
        return {key: row for key, row in rows.items() if row is not None}

    def hold(self, table: str, key: Any) -> None:
        """Lock a row that a statement's condition has found. Raises Blocked."""
        if (table, key) in self._locked:
            raise Blocked((table, key))
        self.held[table, key] = None

    def put(self, table: str, key: Any, row: Any) -> None:
        self.hold(table, key)
        self.changes[table, key] = row

    def need_replication(self) -> None:
        if not self._is_replicated:
            raise SqlError("PC003", "the database does not replicate synchronously")

    def tell(self) -> None:
        self.hold(*NOTIFY)

    @property
    def is_logged(self) -> bool:
        """Whether it ends with a line in the log, for which it waits. The events' lock is in memory and takes none."""
        return any(key != EVENTS for key in self.held)

    @property
    def tells(self) -> bool:
        """Whether the others are told to look."""
        return NOTIFY in self.held


# --- the functions, as the scripts have them ---


def pass_(tx: Transaction, store: str, fence: int, groups: int, *sums: int) -> None:
    tx.need_replication()
    row = tx.get("store", store)
    if row is None or row.fence != fence or row.groups != groups - 1:
        raise SqlError("PC001", f"store {store} is not at fence {fence}, group {groups - 1}")
    opened, begun, spent = sums
    tx.put("store", store, replace(row, groups=groups, open_value=opened, begun_value=begun, open_spent=spent))


def _put_owners(tx: Transaction, store: str, owners: bytes | None) -> None:
    if owners is not None:
        tx.put("store", store, replace(tx.get("store", store), owners=owners))
        tx.tell()


def put_group(tx: Transaction, store: str, fence: int, groups: int, *rest: Any) -> None:
    pass_(tx, store, fence, groups, *rest[:3])
    columns, (names, values, gone, leases, epochs, owners) = rest[3:11], rest[11:]
    written = _put_states(tx, list(zip(*columns, strict=True)))
    if written != len(columns[0]):
        raise SqlError("PC002", f"{written} of {len(columns[0])} states are as expected")
    for key, value in zip(names, values, strict=True):
        if tx.get("record", key) != value:
            tx.put("record", key, value)
    for key in gone:
        if tx.get("record", key) is not None:
            tx.put("record", key, None)
    _raise_epochs(tx, store, leases, epochs)
    _put_owners(tx, store, owners)


def _put_states(tx: Transaction, rows: list[tuple[Any, ...]]) -> int:
    """Return how many rows were written."""
    written: set[bytes] = set()
    for outpoint, phase_before, value_before, revision_before, phase, value, revision, record in rows:
        row = tx.get("state", outpoint)
        if (
            row is None
            or outpoint in written
            or (row.phase, row.value, row.revision) != (phase_before, value_before, revision_before)
        ):
            continue
        if phase >= phase_before and value <= value_before and revision >= revision_before:
            tx.put("state", outpoint, StateRow(phase, value, revision, record))
            written.add(outpoint)
    opened = 0
    for outpoint, phase_before, _, _, phase, value, revision, record in rows:
        if phase_before == 0 and tx.get("state", outpoint) is None:
            tx.put("state", outpoint, StateRow(phase, value, revision, record))
            opened += 1
    return len(written) + opened


def _raise_epochs(tx: Transaction, store: str, leases: list[int], epochs: list[int]) -> None:
    raised = 0
    for lease, epoch in zip(leases, epochs, strict=True):
        row = tx.get("shard", lease)
        if row is not None and row.store == store and row.epoch < epoch:
            tx.put("shard", lease, replace(row, epoch=epoch))
            raised += 1
    if raised != len(leases):
        raise SqlError("PC002", f"{raised} of {len(leases)} leases are ours, with an older epoch")


def begin_store(
    tx: Transaction, name: str, instance: bytes, identity: bytes, leases: int, seen_fence: int, seen_groups: int, confirmed: int
) -> tuple[int, int, int]:
    """Return (fence, groups, number)."""
    tx.need_replication()
    cluster = tx.get("cluster", True)
    if cluster.identity not in (None, identity):
        raise SqlError("PC001", "the database belongs to another store")
    tx.put("cluster", True, replace(cluster, identity=identity))
    row = tx.get("store", name)
    tx.hold("store", name)
    if row is None:
        number = max((other.number for other in tx.all("store").values()), default=0) + 1
        if number > NUMBER_MAX:
            raise SqlError("23514", "number")
        row = StoreRow(number, instance, 1, 0, confirmed=confirmed)
    elif row.instance == instance or (row.fence, row.groups) == (seen_fence, seen_groups):
        row = replace(row, fence=row.fence + 1, instance=instance, owners=b"", confirmed=confirmed)
    else:
        raise SqlError("PC001", f"another store uses the name {name}")
    tx.put("store", name, row)
    for lease in range(leases):
        if tx.get("shard", lease) is None:
            tx.put("shard", lease, ShardRow())
    _move(tx, [lease for lease, shard in tx.all("shard").items() if shard.store in (name, "")], name)
    tx.tell()
    return row.fence, row.groups, row.number


def _move(tx: Transaction, leases: Iterable[int], to: str) -> None:
    for lease in leases:
        tx.put("shard", lease, ShardRow(to, tx.get("shard", lease).epoch + 1))


def take_over(tx: Transaction, name: str, fence: int, groups: int, silent: str, silent_fence: int, silent_groups: int) -> int:
    """Return how many leases were taken."""
    tx.need_replication()
    for store in sorted({name, silent}):
        if tx.get("store", store) is not None:
            tx.hold("store", store)
    row = tx.get("store", silent)
    if row is None or (row.fence, row.groups) != (silent_fence, silent_groups):
        return 0
    tx.put("store", silent, replace(row, fence=row.fence + 1, owners=b""))
    own = tx.get("store", name)
    if own is None or (own.fence, own.groups) != (fence, groups - 1):
        raise SqlError("PC001", f"store {name} is not at fence {fence}, group {groups - 1}")
    tx.put("store", name, replace(own, groups=groups))
    taken = [lease for lease, shard in tx.all("shard").items() if shard.store == silent]
    _move(tx, taken, name)
    tx.tell()
    return len(taken)


def give(tx: Transaction, store: str, fence: int, groups: int, *rest: Any) -> None:
    pass_(tx, store, fence, groups, *rest[:3])
    leases, to, owners = rest[3:]
    given = [lease for lease, shard in tx.all("shard").items() if lease in leases and shard.store == store]
    _move(tx, given, to)
    if len(given) != len(leases) or tx.get("store", to) is None:
        raise SqlError("PC002", f"{len(given)} of {len(leases)} leases are ours, to be given to {to}")
    _put_owners(tx, store, owners)
    tx.tell()


def raise_highest(tx: Transaction, seconds: int) -> int:
    row = tx.get("cluster", True)
    if row.highest < seconds <= tx.now + AHEAD_SECONDS_MAX:
        tx.put("cluster", True, replace(row, highest=seconds))
    return int(tx.get("cluster", True).highest)


def _put_events(tx: Transaction, bodies: list[bytes]) -> None:
    if bodies:
        tx.hold(*EVENTS)
        newest = max((key for key in tx.all("record") if key.startswith(keys.EVENT)), default=keys.event_key(0))
        for number, body in enumerate(bodies, keys.event_number(newest) + 1):
            tx.put("record", keys.event_key(number), body)


def put_told_group(tx: Transaction, *arguments: Any) -> None:
    put_group(tx, *arguments[:-1])
    _put_events(tx, arguments[-1])


def put_note(
    tx: Transaction, key: bytes, expected: bytes | None, value: bytes | None, events: list[bytes]
) -> tuple[bool, bytes | None]:
    tx.need_replication()
    if not key.startswith(keys.NOTE):
        raise SqlError("PC002", "this is no note")
    tx.hold(*EVENTS)
    said = tx.get("record", key)
    if said != expected:
        return False, said
    if (value, said) != (None, None):
        tx.put("record", key, value)
    _put_events(tx, events)
    return True, value


def tell_events(tx: Transaction, events: list[bytes]) -> None:
    tx.need_replication()
    _put_events(tx, events)


def drop_events(tx: Transaction, up_to: int) -> None:
    tx.need_replication()
    kept = sorted(key for key in tx.all("record") if key.startswith(keys.EVENT))
    for key in kept[:-1]:
        if keys.event_number(key) <= up_to:
            tx.put("record", key, None)


def called(function: Callable[..., Any]) -> Callable[..., list[tuple[Any, ...]]]:
    """Return a statement that calls a function, found by its name when it is called: as rows, of what it returns."""

    def call(tx: Transaction, *arguments: Any) -> list[tuple[Any, ...]]:
        found = globals()[function.__name__](tx, *arguments)
        return [found if isinstance(found, tuple) else (found,)]

    return call


WRITES: dict[str, Callable[..., list[tuple[Any, ...]]]] = {
    engine.PUT_GROUP: called(put_group),
    engine.PUT_TOLD_GROUP: called(put_told_group),
    engine.PUT_NOTE: called(put_note),
    engine.TELL: called(tell_events),
    engine.DROP: called(drop_events),
    engine.GIVE: called(give),
    engine.TAKE_OVER: called(take_over),
    engine.HIGHEST: called(raise_highest),
    opening.BEGIN: called(begin_store),
}


# --- what stores read ---


def _look(tables: Tables) -> list[tuple[Any, ...]]:
    shards = sorted(tables.rows["shard"].items())
    rows = []
    for name, row in sorted(tables.rows["store"].items()):
        held = [(lease, shard.epoch) for lease, shard in shards if shard.store == name]
        sums = (row.open_value, row.begun_value, row.open_spent)
        leases, epochs = [lease for lease, _ in held], [epoch for _, epoch in held]
        rows.append((name, row.number, row.fence, row.groups, *sums, row.owners, leases, epochs, row.confirmed))
    return rows


def _read(tables: Tables, outpoints: list[bytes]) -> list[tuple[Any, ...]]:
    return [row[:3] for row in _load(tables, outpoints)]


def _load(tables: Tables, outpoints: list[bytes]) -> list[tuple[Any, ...]]:
    states, records = tables.rows["state"], tables.rows["record"]
    return [
        (outpoint, states[outpoint].record, records.get(keys.TERMS + outpoint), records.get(keys.SETTLEMENT + outpoint))
        for outpoint in dict.fromkeys(outpoints)
        if outpoint in states
    ]


def _record(tables: Tables, key: bytes) -> list[tuple[bytes]]:
    value = tables.rows["record"].get(key)
    return [] if value is None else [(value,)]


def _scan(tables: Tables, after: bytes, before: bytes, limit: int) -> list[tuple[bytes, bytes]]:
    return sorted(pair for pair in tables.rows["record"].items() if after < pair[0] < before)[:limit]


def _ends(tables: Tables, first: bytes, end: bytes) -> list[tuple[bytes | None, bytes | None]]:
    found = sorted(key for key in tables.rows["record"] if first <= key < end)
    return [(found[0], found[-1]) if found else (None, None)]


def _row(tables: Tables, name: str) -> list[tuple[bytes, int, int]]:
    row = tables.rows["store"].get(name)
    return [] if row is None else [(row.instance, row.fence, row.groups)]


READS: dict[str, Callable[..., list[tuple[Any, ...]]]] = {
    engine.LOOK: _look,
    engine.READ: _read,
    engine.LOAD: _load,
    engine.RECORD: _record,
    engine.SCAN: _scan,
    engine.ENDS: _ends,
    opening.ROW: _row,
    "SELECT version, identity FROM paychan.cluster": lambda tables: [
        (opening.SCHEMA_VERSION, tables.rows["cluster"][True].identity)
    ],
    "SELECT moved FROM paychan.cluster": lambda tables: [(None,)],
}
