"""Channels: lists from the books, and one of them as the store has it now."""

import time
from typing import Any

from ...core.channel import ChannelState, ChannelTerms, Phase
from ...core.errors import Rejection, Unavailable
from ...core.outpoint import parse_outpoint, txid_hex
from ...core.sales import revision_of
from ...core.settlement import read_settlement
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.store_messages import MessageError, Stored
from ..answers import Answer, Request, json_answer
from ..books import ORDERS, PHASES, Cursor, Row, search_text
from ..context import Context
from .queries import read_limit, read_query, refused


async def listed(context: Context, request: Request) -> Answer:
    """Answer GET /operator/v1/channels."""
    asked = read_query(request.query, "phase", "search", "order", "limit", "after")
    order = asked["order"] or "expiry"
    if asked["phase"] not in PHASES or order not in ORDERS:
        raise refused(f"phase is one of {', '.join(filter(None, PHASES))}; order is one of {', '.join(ORDERS)}")
    try:
        search = search_text(asked["search"])
        after = Cursor.parse(asked["after"]) if asked["after"] else None
    except ValueError as error:
        raise refused(str(error)) from error
    books, phases = context.following.books, PHASES[asked["phase"]]
    rows, following = books.page(phases, order, read_limit(asked["limit"]), after, search)
    return json_answer(
        {
            "channels": [shown(row) for row in rows],
            "next": None if following is None else str(following),
            "total": books.total(phases, search),
            **freshness(context),
        }
    )


def freshness(context: Context) -> dict[str, Any]:
    """Return how old what the books say may be. is_complete: every channel has been read since this process began."""
    following = context.following
    return {"as_of_at": None if following.as_of is None else int(following.as_of), "is_complete": following.is_complete}


def shown(row: Row) -> dict[str, Any]:
    """Return a channel of a list."""
    return {
        "outpoint": row.name,
        "phase": row.phase.name.lower(),
        "funding_value_satoshi": row.funding,
        "received_satoshi": row.received,
        "spent_satoshi": row.spent,
        "credit_satoshi": max(0, row.received - row.spent),
        "expires_at": row.expires_at,
        "opened_at": row.opened_at,
        "settled_at": row.settled_at,
        "is_lost": row.is_lost,
    }


async def single(context: Context, request: Request) -> Answer:
    """Answer GET /operator/v1/channels/TXID/VOUT: as the store has it now, whether the books know it or not."""
    read_query(request.query)
    outpoint = parse_outpoint(request.parts["txid"], request.parts["vout"])
    try:
        (stored,) = await context.store_client.load_many([outpoint])
    except (ConnectionGone, RemoteRefusal, MessageError) as error:
        raise Unavailable("store_unavailable") from error
    if stored is None:
        raise Rejection("no_such_channel")
    return json_answer(_described(context, outpoint, stored))


def _described(context: Context, outpoint: bytes, stored: Stored) -> dict[str, Any]:
    terms, state = ChannelTerms.parse(outpoint, stored.terms), ChannelState.parse(stored.state)
    row = context.following.books.get(outpoint)
    received, now = terms.funding_value - state.payment.change_value, int(time.time())
    settled_at = row.settled_at if row is not None else None
    return {
        **shown(Row(outpoint, state.phase, terms.funding_value, received, state.sales.spent, terms.exp_time, terms.opened_at)),
        "settled_at": settled_at,
        "is_lost": row.is_lost if row is not None else None,
        "settles_at": max(0, terms.exp_time - context.config.settlement_period),
        "reserved_satoshi": state.sales.reserved_at(now),
        "terms": {
            "client_pubkey": terms.client_pubkey.hex(),
            "server_pubkey": terms.server_pubkey.hex(),
            "change_script": terms.change_script.hex(),
            "redeem_script": terms.redeem_script.hex(),
        },
        "sales": {
            "revision": state.sales.revision,
            "remembered": [
                {
                    "asked_satoshi": purchase.asked,
                    "held_satoshi": purchase.held,
                    "number": revision_of(purchase.number),
                    "falls_back_at": purchase.until or None,
                }
                for purchase in state.sales.purchases
            ],
        },
        "settlement": _settlement(terms, state, stored.settlement, row),
        "history": _history(terms, state, row),
    }


def _settlement(terms: ChannelTerms, state: ChannelState, transaction: bytes, row: Row | None) -> dict[str, Any] | None:
    if not state.settlement_txid or not transaction:
        return None
    paid, txid = read_settlement(transaction, terms), txid_hex(state.settlement_txid)
    return {
        "txid": txid,
        "transaction": transaction.hex(),
        **fee_of(paid.fee if paid is not None else None, paid.size if paid is not None else None),
        "confirmations": row.confirmations if row is not None and row.txid == txid else None,
    }


def fee_of(fee: int | None, size: int | None) -> dict[str, Any]:
    """Return what a settlement transaction pays. fee: satoshi; size: bytes."""
    return {
        "fee_satoshi": fee,
        "size_bytes": size,
        "fee_per_byte": round(fee / size, 2) if fee is not None and size else None,
    }


def _history(terms: ChannelTerms, state: ChannelState, row: Row | None) -> list[dict[str, Any]]:
    """Return what is durable of a channel's life and has a time."""
    found: list[dict[str, Any]] = [{"at": terms.opened_at, "type": "channel.opened", "data": {}}] if terms.opened_at else []
    if state.phase == Phase.SETTLED and row is not None and row.settled_at is not None:
        data = {"fee_satoshi": row.fee, "missing_satoshi": row.missing}
        found.append({"at": row.settled_at, "type": "channel.lost" if row.is_lost else "channel.settled", "data": data})
    return found
