"""What is: status and counts. Read from the counts' file, so that it is answered while workers are busy, stuck or dead."""

import math
import time
from typing import Any

from .. import __version__
from ..core.errors import Rejection, Unavailable
from ..metrics import exposition, families, file
from ..metrics.families import Family, Kind
from ..metrics.file import Role, Slot
from ..settings.steering import DAMAGED, Steering
from . import acting, workers
from .answers import Answer, Request, json_answer
from .context import Context

SILENT_SECONDS = 5
"""A worker that has not renewed its gauges for so long is told of as `silent`: it is stuck, stopped, or starved."""


async def status(context: Context, _: Request) -> Answer:
    """Answer GET /operator/v1/status."""
    return json_answer(await look(context))


async def look(context: Context) -> dict[str, Any]:
    """Return how this machine is. Raises Unavailable."""
    told, _ = await workers.tell_all(context.run_dir, "look")
    try:
        steering = acting.current(context.config)
    except Unavailable:
        steering = Steering(frozen_at=0, why=DAMAGED)  # as the workers take it
    return what_is(context, slots(context), told, steering)


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
        return file.read_all(context.config.common.state_dir.absolute(), context.config.store)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unavailable("counts_unavailable", f"The counts cannot be read: {error.strerror}") from error


def what_is(context: Context, found: list[Slot], told: list[dict[str, Any]], steering: Steering) -> dict[str, Any]:
    """Return the content of the answer. told: what the workers say that answer."""
    config = steering.tighten(context.config)
    rows = [slot for slot in found if slot.is_live and slot.role == Role.WORKER]
    alive = [slot for slot in rows if slot.cells[families.BEAT_AT]]
    rows_told = sorted((_worker(slot) for slot in rows), key=lambda row: (row["number"], row["pid"]))
    return {
        "network": config.common.network.name,
        "version": __version__,
        "machine": context.machine,
        "now_at": int(time.time()),
        "ready": _ready(rows_told, told),
        "workers": rows_told,
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
            "stopped": _stopped(told),
        },
        "exposure": {
            "open_value_satoshi": max((_one(slot, families.OPEN_VALUE) for slot in alive), default=0),
            "total_value_max_satoshi": acting.shown(config.total_exposure_max),
            "unsettled_value_satoshi": max((_one(slot, families.UNSETTLED) for slot in alive), default=0),
            "unsettled_value_max_satoshi": acting.shown(config.unsettled_value_max),
        },
        "opens": acting.opens(steering, told),
        "is_drained": steering.is_drained,
    }


def pid_of(context: Context, number: int) -> int:
    """Return the process id of a worker, by the number that the store knows it by. Raises Rejection."""
    for slot in slots(context):
        if slot.is_live and slot.role == Role.WORKER and number and slot.cells[families.NUMBER_AT] == number:
            return slot.cells[families.PID_AT]
    raise Rejection("no_such_worker", parameter="worker")


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


def _ready(workers: list[dict[str, Any]], told: list[dict[str, Any]]) -> dict[str, Any]:
    """Return whether all workers take payments; else the code of one that does not, and what it says to it."""
    code = next((row["code"] for row in workers if not row["is_ready"]), "" if workers else "no_workers")
    detail = next((row["ready"].get("detail", "") for row in told if row["ready"].get("code") == code), "")
    return {"is_ready": not code, "code": code, "detail": detail}


def _stopped(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the shards that the store has stopped, and why, as any worker that is ready knows them."""
    found: dict[int, str] = {}
    for row in told:
        found |= {int(shard): why for shard, why in row["ready"].get("stopped_shards", {}).items()}
    return [{"shard": shard, "why": why} for shard, why in sorted(found.items())]
