"""Every metric: its name, meaning, labels, and the cells of a process' slot that hold it; docs/METRICS.md is for operators.

All labels are bounded by this file: none comes from a request. A cell is a u64; where a metric is in seconds, its cells hold
nanoseconds. Compiled code counts by the cells that `_fast/tally.pxd` fixes; all others are handed out here, in this order.
"""

import hashlib
from dataclasses import dataclass
from enum import Enum

from .._fast import tally
from ..core.errors import BY_NUMBER, OPERATORS_FROM
from ..rpc.signer_messages import RefusalCode

NANOSECONDS = 1_000_000_000

_ROWS = [row for row in BY_NUMBER.values() if row.number < OPERATORS_FROM]
CODES = tuple(row.code for row in _ROWS)
"""The outcomes that are refusals."""


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Join(Enum):
    """What a gauge is over several processes: counts add up, of what all see the same the worst is taken."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True)
class Family:
    """One metric. values: of its label, a cell each; those in `sparse` are shown once they are not zero. is_seconds: the cells hold
    nanoseconds. is_optional: a gauge that is not shown while it is zero. is_operators: a gauge of the operator's process, not the
    workers'. first_power: of a histogram, see tally.pxd."""

    name: str
    kind: Kind
    help: str
    at: int
    label: str = ""
    values: tuple[str, ...] = ("",)
    sparse: frozenset[str] = frozenset()
    join: Join = Join.SUM
    is_seconds: bool = False
    is_optional: bool = False
    is_operators: bool = False
    first_power: int = 0

    @property
    def size(self) -> int:
        """Cells."""
        return tally.HISTOGRAM_CELLS if self.kind is Kind.HISTOGRAM else len(self.values)

    def cell(self, value: str = "") -> int:
        """Return where a label's value is counted. Raises ValueError for one that it does not have."""
        return self.at + self.values.index(value)


FAMILIES: list[Family] = []
"""Those that lie in cells, in the order in which they are shown. `exposition.py` adds what it knows itself."""

_next = tally.COMPILED_END


def _take(size: int) -> int:
    global _next
    at, _next = _next, _next + size
    if _next > tally.CELLS:
        raise AssertionError("the cells are used up")
    return at


def _add(family: Family) -> Family:
    FAMILIES.append(family)
    return family


def _counter(
    name: str, help: str, label: str = "", values: tuple[str, ...] = ("",), sparse: tuple[str, ...] = (), at: int = 0
) -> Family:
    family = Family(name, Kind.COUNTER, help, at or _take(len(values)), label, values, frozenset(sparse))
    return _add(family)


def _gauge(
    name: str,
    help: str,
    join: Join,
    label: str = "",
    values: tuple[str, ...] = ("",),
    is_optional: bool = False,
    is_operators: bool = False,
) -> Family:
    at = _take(len(values))
    return _add(Family(name, Kind.GAUGE, help, at, label, values, join=join, is_optional=is_optional, is_operators=is_operators))


def _seconds(name: str, help: str, at: int = 0) -> Family:
    """A histogram of durations."""
    at = at or _take(tally.HISTOGRAM_CELLS)
    return _add(Family(name, Kind.HISTOGRAM, help, at, is_seconds=True, first_power=tally.NANOSECONDS_FROM))


# --- of the slot itself ---

ROLE_AT, CLAIMS_AT, BEAT_AT, PID_AT, NUMBER_AT = (_take(1) for _ in range(5))
"""What kind of process has the slot; how many have had it; unix nanoseconds of its newest gauges, 0: it has none yet; its process
id; of a worker, the number by which the store knows it, 0: by none yet."""

# --- answers ---

DOORS = {tally.SHARED: "shared", tally.OWN: "own", tally.BATCH: "batch", tally.FORWARDED: "forwarded", tally.SALE_DOOR: "sell"}
OUTCOMES = {
    tally.DONE: "done",
    tally.TAKEN: "accepted",
    tally.EMPTIED: "exhausted",
    tally.AGAIN: "repeated",
    tally.PASSED_ON: "passed_on",
    **{row.number: row.code for row in _ROWS},
}
TROUBLES = tuple(row.code for row in _ROWS if row.status == 503)
"""The refusals that are our fault."""

PAID = ("accepted", "exhausted", "repeated", "passed_on")
"""Outcomes of payments and sales, beside `done` and refusals. These, and TROUBLES, are shown from the start, so that the first one
is a rise; of the others only those that occurred."""

PAYMENTS = "paychan_payments_total", "Payments and sales that were answered, by the door they came through and their outcome."
REQUESTS = "paychan_requests_total", "Other requests that were answered (opens, closes, looks), by their outcome."

LATENCY = _seconds(
    "paychan_payment_seconds",
    "Time from a payment's arrival in the worker to its durable answer, of payments that waited for the disk.",
    tally.LATENCY_AT,
)
GROUP_UPDATES = _add(
    Family(
        "paychan_group_updates",
        Kind.HISTOGRAM,
        "Updates that one group of a worker carried to the store.",
        tally.GROUP_SIZES_AT,
        first_power=tally.SIZES_FROM,
    )
)
COMMIT = _seconds("paychan_commit_seconds", "Time from sending a group to the store to its durable answer.")
RECEIVED = _counter("paychan_received_satoshi_total", "Satoshi that payers were told were received.", at=tally.RECEIVED_AT)
CHARGED = _counter(
    "paychan_charged_satoshi_total", "Satoshi that sellers were told were spent, reservations included.", at=tally.CHARGED_AT
)
RETURNED = _counter("paychan_returned_satoshi_total", "Satoshi that went back to payers' credit.", at=tally.RETURNED_AT)

# --- opens, the chain ---

OPENS = _counter(
    "paychan_opens_total", "Requests to open a channel, by their outcome.", "outcome", ("opened", *CODES), sparse=CODES
)
OPENS_FROZEN = _gauge("paychan_opens_frozen", "1: the operator has frozen openings.", Join.MAX)
LOOKUPS = _counter(
    "paychan_funding_lookups_total",
    "Look-ups of funding outputs for opens, by their outcome.",
    "outcome",
    ("found", "nothing", "remembered", "refused", "failed"),
)
LIMITED = _counter(
    "paychan_limited_total",
    "Requests and connections that were refused because of what else came from their address, by kind.",
    "kind",
    ("payments", "opens", "connections"),
    at=tally.LIMITED_AT,
)
POLLS = _counter("paychan_chain_polls_total", "Looks at the best block, by their outcome.", "outcome", ("answered", "failed"))
TIP_HEIGHT = _gauge("paychan_tip_height", "Height of the best block, by the worker furthest behind.", Join.MIN, is_optional=True)
TIP_TIME = _gauge(
    "paychan_tip_timestamp_seconds",
    "Time in the best block's header, by the worker furthest behind.",
    Join.MIN,
    is_optional=True,
)
CHAIN_DOUBTFUL = _gauge("paychan_chain_doubtful", "1 if a worker does not trust the chain source now.", Join.MAX)
CLOCK_DOUBTFUL = _gauge("paychan_clock_doubtful", "1 if a worker does not trust the time now.", Join.MAX)
CLOCK_AHEAD = _gauge("paychan_clock_ahead_seconds", "By how much the kept time is ahead of the wall clock.", Join.MAX)
NO_ESTIMATE = _gauge("paychan_fee_estimate_missing", "1 if the chain source gives no fee estimate.", Join.MAX)

# --- workers ---

READY = _gauge("paychan_ready", "1 if every worker would accept payments, as /readyz says.", Join.MIN)
NOT_READY = _gauge("paychan_workers_not_ready", "Workers whose /readyz is 503, by its code.", Join.SUM, "code", TROUBLES)
STORE_UP = _gauge("paychan_store_up", "1 if every worker is connected to the store.", Join.MIN)
SIGNER_UP = _gauge("paychan_signer_up", "1 if every worker is connected to the signer.", Join.MIN)
WAITING = _gauge("paychan_waiting_requests", "Requests that wait for the disk.", Join.SUM)
LATER = _gauge("paychan_postponed_requests", "Payments that wait for something else: the chain, another worker.", Join.SUM)
CONNECTIONS = _gauge("paychan_own_port_connections", "Open connections to the workers' own ports.", Join.SUM)
LOADED = _gauge("paychan_loaded_channels", "Channels in the workers' memory.", Join.SUM)
OWNED = _gauge("paychan_owned_shards", "Shards that this machine's workers own.", Join.SUM)
SHARDS = _gauge("paychan_shards", "Shards of the store.", Join.MAX)
STOPPED = _gauge("paychan_stopped_shards", "Shards that the store has stopped because figures differed.", Join.MAX)
STARTS = _counter(
    "paychan_process_starts_total", "Times that a process of this role has begun to count.", "role", ("worker", "store", "operator")
)
CERTIFICATE = _gauge(
    "paychan_certificate_end_timestamp_seconds", "When the cluster's certificate ends.", Join.MIN, is_optional=True
)

# --- money ---

OPEN_VALUE = _gauge("paychan_open_value_satoshi", "Satoshi received on open channels.", Join.MAX)
UNSETTLED = _gauge("paychan_unsettled_value_satoshi", "Satoshi received on all channels whose settlement is not buried.", Join.MAX)
OPEN_LIMIT = _gauge("paychan_open_value_limit_satoshi", "exposure.total_value_max.", Join.MAX)
UNSETTLED_LIMIT = _gauge("paychan_unsettled_value_limit_satoshi", "exposure.unsettled_value_max.", Join.MAX)
UNECONOMIC = _gauge("paychan_uneconomic_channels", "Channels worth less than their settlement's fee.", Join.SUM)
PHASES = ("closing", "signed", "broadcast")
UNFINISHED = _gauge("paychan_unfinished_settlements", "Settlements that are not buried, by phase.", Join.MAX, "phase", PHASES)
OLDEST = _gauge(
    "paychan_oldest_settlement_seconds", "Since when the settler knows the oldest one of a phase.", Join.MAX, "phase", PHASES
)
HORIZONS = {"1h": 3600, "3h": 3 * 3600, "6h": 6 * 3600, "12h": 12 * 3600, "24h": 24 * 3600}
AT_RISK = _gauge(
    "paychan_value_at_risk_satoshi",
    "Satoshi received on channels that expire within this time and whose settlement is not buried.",
    Join.MAX,
    "within",
    tuple(HORIZONS),
)
SETTLEMENTS = _counter(
    "paychan_settlements_total",
    "Steps of settlements: signed, raised (signed again with a higher fee), published, settled, settled by an older payment, lost.",
    "step",
    ("signed", "raised", "published", "settled", "settled_older", "lost"),
)
FEES = _counter("paychan_settlement_fees_satoshi_total", "Fees of the settlements that were buried.")
SETTLED_VALUE = _counter("paychan_settled_value_satoshi_total", "Satoshi received on the channels whose settlement was buried.")
MISSING = _counter("paychan_settlement_missing_satoshi_total", "Satoshi that buried settlements of older payments fell short.")
SIGNER_REQUESTS = _counter(
    "paychan_signer_requests_total",
    "Requests to the signer, by its answer.",
    "outcome",
    ("answered", "gone", *(code.name.lower() for code in RefusalCode)),
)
SIGNER = _seconds("paychan_signer_seconds", "Time until the signer answered.")

# --- the store ---

STORE_GROUPS = _counter("paychan_store_groups_total", "Groups that the store made durable.")
STORE_FRAMES = _counter("paychan_store_frames_total", "Workers' frames in those groups.")
STORE_BYTES = _counter("paychan_store_bytes_total", "Bytes of those frames.")
STORE_SYNC = _seconds("paychan_store_sync_seconds", "Time of a group's synced write.")
STORE_JUDGE = _seconds("paychan_store_judge_seconds", "Time in which a group was judged, before its write.")
EPOCHS = _counter("paychan_store_epochs_raised_total", "Times that a shard or lease got a new owner.")
STOPS = _counter("paychan_store_shards_stopped_total", "Times that a shard was stopped because figures differed.")

EVENTS = _counter("paychan_events_total", "Events that the store made durable.")
DELIVERIES = _counter(
    "paychan_webhook_deliveries_total",
    "Attempts to deliver an event, by outcome; disabled: an endpoint was given up.",
    "outcome",
    ("taken", "failed", "disabled"),
)
UNDELIVERED = _gauge(
    "paychan_webhook_failing_seconds",
    "Since when the enabled endpoint that is worst off has taken nothing.",
    Join.MAX,
    is_operators=True,
)


def layout() -> bytes:
    """Return what tells one layout of the cells from every other: 32 bytes."""
    rows = [(family.name, family.at, family.label, family.values, family.first_power) for family in FAMILIES]
    return hashlib.sha256(repr((tally.CELLS, tally.BUCKETS, sorted(OUTCOMES.items()), DOORS, rows, ROLE_AT)).encode()).digest()
