"""The machines that share the channels, as this one knows them."""

from typing import Any

from ..answers import Answer, Request, json_answer
from ..context import Context
from ..looking import look
from .queries import read_query


async def machines(context: Context, request: Request) -> Answer:
    """Answer GET /operator/v1/cluster. Each machine answers for itself: another one's workers are asked about at its own API."""
    read_query(request.query)
    now = await look(context)
    this: dict[str, Any] = {
        "name": context.machine,
        "is_this": True,
        "is_ready": now["ready"]["is_ready"],
        "workers": now["workers"],
        "shards": now["shards"]["owned"],
    }
    postgres = context.store.postgres
    return json_answer(
        {
            "is_cluster": context.config.cluster is not None,
            "machines": [this],
            "shards": now["shards"],
            "elsewhere_shards": max(0, now["shards"]["total"] - now["shards"]["owned"]),
            "engine": now["store"]["engine"],
            "database": None
            if postgres is None
            else {"name": postgres.database, "hosts": [f"{host}:{port}" for host, port in postgres.hosts]},
        }
    )
