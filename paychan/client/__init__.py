"""The payer's side of a channel: agrees with a server, opens, pays, closes, and can always get its money back.

    from paychan.client import Channel, Funding, create_key

    create_key(Path("me.key"))
    with Channel.create("shop.json", "https://pay.example.com", "me.key", TEST, exp_time, change_address) as channel:
        ...                                     # pay to channel.record.agreement.funding_address, then
        channel.set_funding(Funding(outpoint, value))
        channel.open()                          # the price in channel.record.agreement.open_price
        channel.pay(5)                          # satoshi; returns when the server has it on disk
        channel.close_channel()

`Channel("shop.json")` goes on with it later, after a crash too. `AsyncChannel` is the same for asyncio. The server is trusted
with nothing but the goods: it never gets more than one payment ahead of what it acknowledged. Values are satoshi.
"""

from .channel import DEFAULT_POLICY, AsyncChannel, Channel
from .errors import (
    ChannelBusy,
    ChannelClosed,
    ChannelClosing,
    ChannelUnknown,
    ClientError,
    InvalidAmount,
    OutcomeUnknown,
    Refused,
    ServerMisbehaved,
    StateBehindServer,
    StateError,
    Unreachable,
)
from .protocol import Outcome
from .record import Agreement, ChannelRecord, Funding, PayerPhase, parse_record
from .refund import Refund, find_funding
from .steps import RetryPolicy
from .storage import create_key, read_key, read_state

__all__ = [
    "DEFAULT_POLICY",
    "Agreement",
    "AsyncChannel",
    "Channel",
    "ChannelBusy",
    "ChannelClosed",
    "ChannelClosing",
    "ChannelRecord",
    "ChannelUnknown",
    "ClientError",
    "Funding",
    "InvalidAmount",
    "Outcome",
    "OutcomeUnknown",
    "PayerPhase",
    "Refund",
    "Refused",
    "RetryPolicy",
    "ServerMisbehaved",
    "StateBehindServer",
    "StateError",
    "Unreachable",
    "create_key",
    "find_funding",
    "parse_record",
    "read_key",
    "read_state",
]
