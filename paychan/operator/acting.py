"""What an operator may do: settle a channel, freeze openings, tighten limits, drain a worker or this machine.

Each change is on disk before a worker hears of it, and every worker of this machine is asked to obey before the answer: it says
which do not yet. Those obey once they run again, before they open anything. The commands on the spot use the same functions.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, Rejection, Unavailable
from ..core.network import LIVE
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.event_messages import NoteChange
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import MessageError
from ..settings.dangers import troubles_with_exposure
from ..settings.models import ServerConfig
from ..settings.steering import (
    DAMAGED_FREEZE,
    FREEZE_NOTE,
    LIMITS,
    WHY_LENGTH_MAX,
    Freeze,
    Steering,
    change_steering,
    is_limit,
    read_freeze,
    read_steering,
    steering_file,
)
from . import workers

TRIES = 8
"""To replace a note that others replace, too."""

THIS, ALL = "this machine", "all machines"
"""What a change, or a freeze, holds for."""

log = logging.getLogger("paychan.operator")


async def settle(run_dir: Path, outpoint: bytes, is_cluster: bool) -> tuple[int, bytes]:
    """Have a channel settled by its owner; return status and body of its answer. Raises Unavailable."""
    reply = await workers.settle(run_dir, outpoint)
    if reply is None:
        elsewhere = "; if it is served, another machine of the cluster settles it: ask there" if is_cluster else ""
        raise Unavailable("no_worker_answers", f"No worker of this machine serves the channel{elsewhere}")
    return reply.status, reply.body


def check_why(why: str) -> str:
    """Return the reason for a freeze. Raises Rejection."""
    if len(why) > WHY_LENGTH_MAX or not why.isprintable():
        raise Rejection("invalid_command", f"why must be up to {WHY_LENGTH_MAX} printable characters", "why")
    return why


async def freeze(config: ServerConfig, is_frozen: bool, why: str) -> dict[str, Any]:
    """Have no channel opened on this machine from now on, or have them opened again; return what holds. Raises Unavailable."""

    def change(before: Steering) -> Steering:
        if not is_frozen:
            return replace(before, frozen_at=None, why="")
        return replace(before, frozen_at=before.frozen_at or int(time.time()), why=why)

    now = _change(config, change)
    told, answer = await _obeyed(config, now)
    return {"opens": opens(now, told), **answer}


async def freeze_all(config: ServerConfig, store: StoreClient, lease_ms: int, is_frozen: bool, why: str) -> dict[str, Any]:
    """Do the same on all machines that share the store: once its note is durable, whatever machine is about to open a channel asks
    for it. lease_ms: of a worker at its store; within that, and a look of the store, none tells of an address any more. Raises
    Unavailable; then it is not known whether anything has changed."""
    try:
        now = await _change_note(store, is_frozen, why)
    except (ConnectionGone, RemoteRefusal, MessageError) as error:
        raise Unavailable("store_unavailable", "The store does not answer; nothing may have changed") from error
    told, silent = await workers.tell_all(config.common.state_dir.absolute() / "run", "ask")
    late = [row["pid"] for row in told if row.get("freeze", {}).get("revision", -1) < now.revision]
    return {
        "opens": opens(current(config), told, now),
        "revision": now.revision,
        "not_yet": sorted([*silent, *late]),
        **_place(config, ALL),
        "others_within_seconds": math.ceil(lease_ms * 5 / 4000),
    }


async def _change_note(store: StoreClient, is_frozen: bool, why: str) -> Freeze:
    """Return what the note says. Raises Unavailable, ConnectionGone, RemoteRefusal, MessageError."""
    note, now_at = (await store.notes(FREEZE_NOTE)).get(FREEZE_NOTE), int(time.time())
    for _ in range(TRIES):
        before = read_freeze(note or b"")
        revision = now_at if before is DAMAGED_FREEZE else before.revision + 1
        after = Freeze(revision, (before.frozen_at or now_at) if is_frozen else None, why if is_frozen else "")
        if replace(after, revision=before.revision) == before:
            return before
        is_done, note = await store.note(NoteChange(FREEZE_NOTE, note, after.encode()))
        if is_done:
            return after
    raise Unavailable("store_unavailable", "Others change the freeze at the same time")


def opens(steering: Steering, told: list[dict[str, Any]], known: Freeze = Freeze()) -> dict[str, Any]:  # noqa: B008
    """Return whether openings are frozen, and where, as it is told: the freeze of all machines first. told: by this machine's
    workers. known: what the note says at least."""
    heard = [Freeze(**row["freeze"]) for row in told if "freeze" in row]
    everywhere = max([known, *heard], key=lambda freeze: freeze.revision)
    found: Freeze | Steering = everywhere if everywhere.frozen_at is not None else steering
    where = "" if found.frozen_at is None else ALL if found is everywhere else THIS
    return {"is_frozen": bool(where), "since_at": found.frozen_at, "why": found.why, "holds_for": where}


# --- limits ---


def limits(config: ServerConfig, steering: Steering) -> dict[str, Any]:
    """Return each limit as it holds, as server.toml has it, and as it was set at run time (null: it was not)."""
    tightened = steering.tighten(config)
    return {
        name: {"now": shown(limit.of(tightened)), "configured": shown(limit.of(config)), "set": steering.limits.get(name)}
        for name, limit in LIMITS.items()
    }


def shown(value: int) -> int | None:
    """Return a limit as it is told: none is null."""
    return None if value >= 1 << 63 else value


async def set_limits(config: ServerConfig, wanted: Mapping[str, object]) -> dict[str, Any]:
    """Tighten limits, or take that back (None); return what holds. Raises Rejection, Unavailable; then nothing has changed."""
    for name, value in wanted.items():
        _check_limit(config, name, value)

    def change(before: Steering) -> Steering:
        merged = {**before.limits, **wanted}
        after = replace(before, limits={name: value for name, value in merged.items() if value is not None})  # type: ignore[misc]
        _check_together(after.tighten(config))
        return after

    now = _change(config, change)
    _, answer = await _obeyed(config, now)
    return {"limits": limits(config, now), **answer}


def _check_limit(config: ServerConfig, name: str, value: object) -> None:
    limit = LIMITS.get(name)
    if limit is None:
        raise Rejection("invalid_command", f"There is no such limit; there are {', '.join(LIMITS)}")
    if value is None:
        return
    if not is_limit(name, value) or not isinstance(value, int):
        raise Rejection("invalid_command", f"{name} must be null or a whole number from 0 to {limit.most}", name)
    if limit.is_looser(value, limit.of(config)):
        raise Rejection("limit_looser", f"server.toml has {limit.of(config)}; only that file allows more", name)


def _check_together(config: ServerConfig) -> None:
    """Refuse limits that contradict each other, as server.toml would be refused."""
    if config.duration_max <= config.duration_min:
        raise Rejection("limits_contradict", "duration_hours_max must exceed open.duration_hours_min", "duration_hours_max")
    if config.common.network is LIVE:
        for key, why in troubles_with_exposure(config):
            raise Rejection("limits_contradict", f"{key} {why}", f"{key}_satoshi")


# --- draining ---


async def drain_machine(config: ServerConfig, is_drained: bool) -> dict[str, Any]:
    """Have this machine's workers give their shards away and own none, also after a restart; or have them serve again."""
    run_dir = config.common.state_dir.absolute() / "run"
    if is_drained and not current(config).is_drained and not await _others_serve(run_dir):
        raise Rejection("no_other_machine")
    now = _change(config, lambda before: replace(before, is_drained=is_drained))
    told, silent = await workers.tell_all(run_dir, "drain" if is_drained else "look")
    late = [row["pid"] for row in told if is_drained and not (row.get("is_leaving") or row.get("is_drained"))]
    return {"machine": {"is_drained": now.is_drained}, "not_yet": sorted([*silent, *late]), **_place(config)}


async def _others_serve(run_dir: Path) -> bool:
    """Return whether workers of other machines are there, as any ready worker of this one knows: they settle what is due."""
    told, _ = await workers.tell_all(run_dir, "look")
    ready = [row["ready"] for row in told if row["ready"].get("ready")]
    return any(row["cluster"]["workers"] > row["workers"] for row in ready if "cluster" in row)


async def drain_worker(config: ServerConfig, pid: int) -> dict[str, Any]:
    """Have one worker give its shards away and end; the server makes a successor. Raises Rejection, Unavailable."""
    run_dir = config.common.state_dir.absolute() / "run"
    found = next((worker for worker in workers.sockets(run_dir) if worker.pid == pid), None)
    if found is None:
        raise Rejection("no_such_worker")
    told = await workers.tell(found, "drain")
    if told is None:
        raise Unavailable("no_worker_answers", "The worker does not answer")
    if not told.get("is_leaving"):
        raise Unavailable("worker_too_young")
    return {"worker": {"pid": pid, "is_leaving": True}, "not_yet": [], **_place(config)}


# --- what all have in common ---


def current(config: ServerConfig) -> Steering:
    """Return what was changed at run time. Raises Unavailable."""
    try:
        return read_steering(steering_file(config.common.state_dir))
    except ConfigError as error:
        raise Unavailable("steering_unavailable", "What was changed at run time cannot be read: see the log") from error


def _change(config: ServerConfig, change: Callable[[Steering], Steering]) -> Steering:
    """Raises Unavailable, and what `change` raises."""
    try:
        return change_steering(config.common.state_dir, change)
    except (OSError, ConfigError) as error:
        log.error("a change could not be kept: %s", error)
        raise Unavailable("steering_unavailable") from error


async def _obeyed(config: ServerConfig, now: Steering) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Ask all workers to obey; return what they tell, and which do not yet, by pid."""
    told, silent = await workers.tell_all(config.common.state_dir.absolute() / "run", "look")
    late = [row["pid"] for row in told if row.get("revision", 0) < now.revision]
    return told, {"revision": now.revision, "not_yet": sorted([*silent, *late]), **_place(config)}


def _place(config: ServerConfig, holds_for: str = THIS) -> dict[str, Any]:
    """Return for what it holds: what is for this machine alone, others of a cluster are asked for by themselves."""
    return {"machine_name": config.cluster.machine if config.cluster is not None else "", "holds_for": holds_for}
