"""What sellers read: how a channel stands, which channels are open, and the snapshot for a payer that lost what it knew.

All of it is read from the store, so that nothing is told that is not durable; any worker answers.
"""

import base64
from collections.abc import Callable
from typing import Any

from ...core.channel import ChannelState, ChannelTerms, Phase
from ...core.errors import Rejection, Unavailable
from ...core.network import encode_address
from ...core.outpoint import OUTPOINT_SIZE, format_outpoint
from ...core.units import LOCKTIME_MAX
from ...mpp import CHANNEL_TYPE
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.store_client import StoreClient
from ...rpc.store_messages import Scan, Stored, StoreMessage
from ...settings.models import ServerConfig
from ..protocol.replies import Reply, json_reply

PAGE_MAX = 500
"""Channels in one answer; some 150 kB."""


class Books:
    """Of all channels. clock: unix seconds, now. open_price: satoshi that the first sale on a channel would spend, too, now."""

    def __init__(self, config: ServerConfig, store: StoreClient, clock: Callable[[], int], open_price: Callable[[], int]) -> None:
        self._config, self._store, self._clock, self._open_price = config, store, clock, open_price

    async def look(self, outpoint: bytes) -> Reply:
        """Return how one channel stands. Raises Rejection("no_such_channel"), Unavailable."""
        return json_reply(200, await self.standing(outpoint))

    async def standing(self, outpoint: bytes) -> dict[str, Any]:
        """`look`, for programs."""
        return self._standing(*await self._read(outpoint))

    async def list(self, cursor: tuple[int, bytes], limit: int) -> Reply:
        """Return open channels in the order of their expiries, those after `cursor` (expiry, outpoint); `next` is the cursor to go
        on with, or null. Raises Unavailable."""
        ask = Scan(min(limit, PAGE_MAX), LOCKTIME_MAX, *cursor)
        try:
            page = await self._store.page(StoreMessage.SCAN_EXPIRING, ask)
            found = await self._store.load_many([outpoint for _, outpoint in page]) if page else []
        except (ConnectionGone, RemoteRefusal) as error:
            raise Unavailable("store_unavailable") from error
        pairs = zip(page, found, strict=True)
        rows = [self._standing(*_parse(outpoint, stored)) for (_, outpoint), stored in pairs if stored is not None]
        more = write_cursor(*page[-1]) if len(page) == ask.limit else None
        return json_reply(200, {"channels": rows, "next": more})

    async def snapshot(self, outpoint: bytes) -> Reply:
        """Return all that a payer needs to go on, its own newest payment among it. Only for who has signed a payment."""
        terms, state = await self._read(outpoint)
        payment = base64.urlsafe_b64encode(state.payment.serialize()).rstrip(b"=").decode()
        about = {
            "channel_type": CHANNEL_TYPE,
            "network": self._config.common.network.name,
            "change_address": encode_address(self._config.common.network, terms.change_script),
            "payment": payment,
        }
        return json_reply(200, {"status": 200, **self._standing(terms, state), **about})

    async def _read(self, outpoint: bytes) -> tuple[ChannelTerms, ChannelState]:
        try:
            stored = await self._store.load(outpoint)
        except (ConnectionGone, RemoteRefusal) as error:
            raise Unavailable("store_unavailable") from error
        if stored is None:
            raise Rejection("no_such_channel")
        return _parse(outpoint, stored)

    def _standing(self, terms: ChannelTerms, state: ChannelState) -> dict[str, Any]:
        left, now = state.payment.change_value, self._clock()
        received = terms.funding_value - left
        spent = state.sales.spent_at(now, received, self._open_price())
        return {
            "channel": format_outpoint(terms.outpoint),
            "phase": Phase(state.phase).name.lower(),
            "funding_value": terms.funding_value,
            "received": received,
            "spent": spent,
            "reserved": state.sales.reserved_at(now),
            "credit": received - spent,
            "channel_value_left": left,
            "client_pubkey": terms.client_pubkey.hex(),
            "exp_time": terms.exp_time,
            "payments_end_at": terms.exp_time - self._config.settlement_period,
            "opened_at": terms.opened_at,
        }


def _parse(outpoint: bytes, stored: Stored) -> tuple[ChannelTerms, ChannelState]:
    return ChannelTerms.parse(outpoint, stored.terms), ChannelState.parse(stored.state)


def write_cursor(expiry: int, outpoint: bytes) -> str:
    """Return a place in the order of the open channels as text."""
    return f"{expiry:08x}{outpoint.hex()}"


def read_cursor(text: str) -> tuple[int, bytes]:
    """Return what `write_cursor` was given. Raises Rejection naming the parameter."""
    try:
        raw = bytes.fromhex(text)
        if len(raw) != 4 + OUTPOINT_SIZE or text != text.strip():
            raise ValueError
    except ValueError:
        raise Rejection("invalid_sale", "after must be what `next` was in an answer", "after") from None
    return int.from_bytes(raw[:4], "big"), raw[4:]
