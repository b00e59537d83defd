"""The routes that act: a body or a path read strictly, the deed, a line in the log that says who did what."""

import logging
from typing import Any

from ..core.errors import Rejection
from ..core.outpoint import format_outpoint, parse_outpoint
from . import acting
from .answers import Answer, Request, json_answer, read_object, worker_answer
from .context import Context
from .looking import pid_of

log = logging.getLogger("paychan.operator")


async def settle(context: Context, request: Request) -> Answer:
    """Answer POST /operator/v1/channels/TXID/VOUT/settle."""
    if request.body not in (b"", b"{}"):
        raise Rejection("invalid_command", "This takes no body, or an empty object")
    outpoint = parse_outpoint(request.parts["txid"], request.parts["vout"])
    _say(request, f"settle {format_outpoint(outpoint)}")
    status, body = await acting.settle(context.run_dir, outpoint, context.config.cluster is not None)
    return worker_answer(status, body)


async def set_opens(context: Context, request: Request) -> Answer:
    """Answer PUT /operator/v1/opens."""
    wanted = _members(request.body, {"is_frozen": bool, "why": str, "cluster": bool}, needed="is_frozen")
    why, is_frozen, is_for_all = acting.check_why(wanted.get("why", "")), wanted["is_frozen"], wanted.get("cluster", False)
    _say(request, f"{'freeze' if is_frozen else 'thaw'} openings{' on all machines' if is_for_all else ''}")
    if is_for_all:
        lease_ms = context.store.lease_ms
        return json_answer(await acting.freeze_all(context.config, context.store_client, lease_ms, is_frozen, why))
    return json_answer(await acting.freeze(context.config, is_frozen, why))


async def drain(context: Context, request: Request) -> Answer:
    """Answer POST /operator/v1/drain."""
    wanted = _members(request.body, {"worker": int, "machine": bool}, needed="")
    if len(wanted) != 1:
        raise Rejection("invalid_command", 'The body must be {"worker": NUMBER}, {"machine": true} or {"machine": false}')
    if "machine" in wanted:
        _say(request, "drain this machine" if wanted["machine"] else "have this machine serve again")
        return json_answer(await acting.drain_machine(context.config, wanted["machine"]), 202)
    _say(request, f"drain worker {wanted['worker']}")
    return json_answer(await acting.drain_worker(context.config, pid_of(context, wanted["worker"])), 202)


async def limits(context: Context, _: Request) -> Answer:
    """Answer GET /operator/v1/limits."""
    now = acting.current(context.config)
    return json_answer({"limits": acting.limits(context.config, now), "revision": now.revision})


async def set_limits(context: Context, request: Request) -> Answer:
    """Answer PATCH /operator/v1/limits."""
    wanted = read_object(request.body)
    if not wanted:
        raise Rejection("invalid_command", "The body names no limit")
    told = await acting.set_limits(context.config, wanted)
    _say(request, "set limits " + ", ".join(f"{name}={value}" for name, value in sorted(wanted.items())))
    return json_answer(told)


def _members(body: bytes, kinds: dict[str, type], needed: str) -> dict[str, Any]:
    """Return the members of the object that a body is. Raises Rejection for one that is unknown, of another kind, or missing."""
    found = read_object(body)
    for name, value in found.items():
        if type(value) is not kinds.get(name):
            raise Rejection("invalid_command", f"The body takes {', '.join(kinds)}, each of its kind")
    if needed and needed not in found:
        raise Rejection("invalid_command", f"{needed} is missing", needed)
    return found


def _say(request: Request, what: str) -> None:
    log.info("%s: %s", request.who, what)
