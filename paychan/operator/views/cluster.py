"""The machines that share the channels, as this one's store saw them last."""

import asyncio
import time
from itertools import pairwise
from typing import Any

from ...core.errors import Unavailable
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.peer_address import machine_of
from ...rpc.store_messages import Lease, MessageError
from ...rpc.stores_messages import StoreSeen, StoresSeen
from ..answers import Answer, Request, json_answer
from ..context import Context
from ..looking import look
from .queries import read_query


async def machines(context: Context, request: Request) -> Answer:
    """Answer GET /operator/v1/cluster."""
    read_query(request.query)
    now, told = await asyncio.gather(look(context), ask(context))
    postgres = context.store.postgres
    return json_answer(
        {
            "is_cluster": context.config.cluster is not None,
            "machine": context.machine,
            "ready": now["ready"],
            **told,
            "shards": now["shards"],
            "elsewhere_shards": max(0, now["shards"]["total"] - now["shards"]["owned"]),
            "engine": now["store"]["engine"],
            "database": None
            if postgres is None
            else {"name": postgres.database, "hosts": [f"{host}:{port}" for host, port in postgres.hosts]},
        }
    )


async def ask(context: Context) -> dict[str, Any]:
    """Return all stores as this machine's saw them, and when; none if it does not answer."""
    try:
        return stores(await context.store_client.stores(), time.time())
    except (Unavailable, ConnectionGone, RemoteRefusal, MessageError):
        return {"looked_at": None, "stores": []}


def stores(seen: StoresSeen, now: float) -> dict[str, Any]:
    """Return all stores as they are told. now: unix seconds."""
    if not seen.stores:
        return {"looked_at": None, "stores": []}
    rows = [_store(one, seen) for one in seen.stores]
    return {"looked_at": round(now - seen.age_ms / 1000, 3), "stores": rows}


def _store(one: StoreSeen, seen: StoresSeen) -> dict[str, Any]:
    held = sorted(lease for lease in one.owners if lease < seen.shard_count)
    singles = {seen.shard_count + lease: lease.name.lower() for lease in Lease}
    return {
        "name": one.name,
        "number": one.number,
        "is_this": one.is_this,
        "life": one.life.name.lower(),
        "unmoved_seconds": round(one.unmoved_ms / 1000, 3),
        "fence": one.fence,
        "groups": one.groups,
        "shards": len(held),
        "unserved_shards": sum(not one.owners[shard] for shard in held),
        "leases": [name for lease, name in singles.items() if lease in one.owners],
        "open_value_satoshi": one.open,
        "begun_value_satoshi": one.begun,
        "workers": [
            {
                "number": number,
                "machine": machine_of(address) or "",
                "shards": ranges([shard for shard in held if one.owners[shard] == number]),
            }
            for number, address in sorted(one.workers.items())
        ],
    }


def ranges(numbers: list[int]) -> list[list[int]]:
    """Return rising numbers as [first, last] of each run without a gap."""
    if not numbers:
        return []
    ends = [pair for pair in pairwise(numbers) if pair[1] != pair[0] + 1]
    firsts, lasts = [numbers[0], *(after for _, after in ends)], [*(before for before, _ in ends), numbers[-1]]
    return [list(pair) for pair in zip(firsts, lasts, strict=True)]
