"""What is: status and counts. Read from the counts' file, so that it is answered while workers are busy, stuck or dead."""

import math
import time
from typing import Any

from .. import __version__
from ..core.errors import Unavailable
from ..metrics import exposition, families, file
from ..metrics.families import Family, Kind
from ..metrics.file import Role, Slot
from .answers import Answer, Request, json_answer
from .context import Context

SILENT_SECONDS = 5
"""A worker that has not renewed its gauges for so long is told of as `silent`: it is stuck, stopped, or starved."""


async def status(context: Context, _: Request) -> Answer:
    """Answer GET /operator/v1/status."""
    return json_answer(what_is(context, slots(context)))


async def counts(context: Context, _: Request) -> Answer:
    """Answer GET /operator/v1/counts: every metric of docs/METRICS.md."""
    taken_at, table = time.time(), Table()
    exposition.tell(table, slots(context), {"network": context.config.common.network.name})
    return json_answer({"taken_at": round(taken_at, 3), "machine": context.machine, "families": table.families})


class Table:
    """A sink of the metrics: rows by name. A histogram is one row, with [upper bound, how many are not above]; null: infinite."""

    def __init__(self) -> None:
        self.families: dict[str, list[dict[str, Any]]] = {}

    def head(self, name: str, kind: Kind, help: str) -> None:
        self.families[name] = []

    def sample(self, name: str, value: float, labels: exposition.Labels = ()) -> None:
        self.families[name].append({"labels": dict(labels), "value": value})

    def histogram(self, name: str, buckets: list[tuple[float, int]], total: float, count: int) -> None:
        shown = [[None if bound == math.inf else bound, below] for bound, below in buckets]
        self.families[name].append({"labels": {}, "buckets": shown, "sum": total, "count": count})


def slots(context: Context) -> list[Slot]:
    """Return what the processes count. Nothing, if none has counted yet."""
    try:
        return file.read(context.run_dir)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unavailable("counts_unavailable", f"The counts cannot be read: {error.strerror}") from error


def what_is(context: Context, found: list[Slot]) -> dict[str, Any]:
    """Return the content of the answer."""
    config = context.config
    rows = [slot for slot in found if slot.is_live and slot.role == Role.WORKER]
    alive = [slot for slot in rows if slot.cells[families.BEAT_AT]]
    workers = sorted((_worker(slot) for slot in rows), key=lambda row: (row["number"], row["pid"]))
    return {
        "network": config.common.network.name,
        "version": __version__,
        "machine": context.machine,
        "now_at": int(time.time()),
        "ready": _ready(workers),
        "workers": workers,
        "store": {
            "is_up": bool(alive) and all(_one(slot, families.STORE_UP) for slot in alive),
            "engine": "postgresql" if context.store.postgres is not None else "rocksdb",
        },
        "signer": {"is_up": bool(alive) and all(_one(slot, families.SIGNER_UP) for slot in alive)},
        "chain": {
            "height": min(filter(None, (_one(slot, families.TIP_HEIGHT) for slot in alive)), default=None),
            "tip_at": min(filter(None, (_one(slot, families.TIP_TIME) for slot in alive)), default=None),
            "is_doubtful": any(_one(slot, families.CHAIN_DOUBTFUL) for slot in alive),
        },
        "shards": {
            "total": max((_one(slot, families.SHARDS) for slot in alive), default=0),
            "owned": sum(_one(slot, families.OWNED) for slot in alive),
            "stopped": [],
        },
        "exposure": {
            "open_value_satoshi": max((_one(slot, families.OPEN_VALUE) for slot in alive), default=0),
            "total_value_max_satoshi": config.total_exposure_max,
            "unsettled_value_satoshi": max((_one(slot, families.UNSETTLED) for slot in alive), default=0),
            "unsettled_value_max_satoshi": config.unsettled_value_max,
        },
        "opens": {"is_frozen": False, "since_at": None, "why": ""},
    }


def _one(slot: Slot, family: Family) -> int:
    return slot.cells[family.at]


def _worker(slot: Slot) -> dict[str, Any]:
    beat = slot.cells[families.BEAT_AT]
    silence = max(0, time.time_ns() - beat) / families.NANOSECONDS if beat else None
    is_silent = silence is None or silence > SILENT_SECONDS
    code = next((value for value in families.NOT_READY.values if slot.cells[families.NOT_READY.cell(value)]), "")
    return {
        "number": slot.cells[families.NUMBER_AT],
        "pid": slot.cells[families.PID_AT],
        "is_ready": not is_silent and bool(_one(slot, families.READY)),
        "code": "silent" if is_silent else code,
        "shards": _one(slot, families.OWNED),
        "loaded_channels": _one(slot, families.LOADED),
        "silence_seconds": None if silence is None else round(silence, 3),
    }


def _ready(workers: list[dict[str, Any]]) -> dict[str, Any]:
    code = next((row["code"] for row in workers if not row["is_ready"]), "" if workers else "no_workers")
    return {"is_ready": not code, "code": code, "detail": ""}
