"""The payer's side of a channel: agrees with a server, opens, pays, closes, and can always get its money back.

    from paychan.client import TEST, Channel, find_funding

    with Channel.create("shop.json", "https://pay.example.com", "me.key", TEST, exp_time, funding_value=100_000) as channel:
        ...                                     # pay 100 000 satoshi to channel.record.agreement.funding_address, then
        channel.set_funding(find_funding(channel.record.agreement, raw_transaction))
        channel.open()                          # the price in channel.record.agreement.open_price
        channel.pay(5)                          # satoshi; returns when the server has it on disk
        channel.close_channel()

`Channel("shop.json")` goes on with it later, after a crash too. `AsyncChannel` is the same for asyncio. `examples/` has both, to
run against a server in debug mode. The server is trusted with nothing but the goods: it never gets more than one payment ahead of
what it acknowledged. Values are satoshi.
"""

from ..core.network import LIVE, REGTEST, SIGNET, TEST, TESTNET4, Network
from .channel import DEFAULT_POLICY, AsyncChannel, Channel
from .errors import (
    ChannelBusy,
    ChannelClosed,
    ChannelClosing,
    ChannelMissing,
    ChannelUnknown,
    ClientError,
    InvalidAmount,
    OutcomeUnknown,
    Refused,
    ServerMisbehaved,
    StateBehindServer,
    StateError,
    Unreachable,
    WrongNetwork,
)
from .protocol import Outcome
from .record import Agreement, ChannelRecord, Funding, PayerPhase, parse_record
from .refund import Refund, find_funding
from .steps import RetryPolicy
from .storage import create_key, read_key, read_state

__all__ = [
    "DEFAULT_POLICY",
    "LIVE",
    "REGTEST",
    "SIGNET",
    "TEST",
    "TESTNET4",
    "Agreement",
    "AsyncChannel",
    "Channel",
    "ChannelBusy",
    "ChannelClosed",
    "ChannelClosing",
    "ChannelMissing",
    "ChannelRecord",
    "ChannelUnknown",
    "ClientError",
    "Funding",
    "InvalidAmount",
    "Network",
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
    "WrongNetwork",
    "create_key",
    "find_funding",
    "parse_record",
    "read_key",
    "read_state",
]
