"""What the commands share: the retry policy from the arguments, and a channel in a few words."""

import argparse
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from ..client import Agreement, ChannelRecord, RetryPolicy
from ..client.refund import MEDIAN_TIME_LAG
from ..core.outpoint import format_outpoint
from ..core.units import COIN, SECONDS_PER_HOUR
from .output import print_result

TIMES = ("open_before", "exp_time", "refund_expected_at", "valid_after", "expected_at")
"""Values of results that are unix seconds. Programs get them so, people in UTC."""


def policy_of(arguments: argparse.Namespace) -> RetryPolicy:
    """Return the policy with `--deadline` seconds for everything."""
    deadline = arguments.deadline
    return RetryPolicy(timeout=min(10.0, deadline), deadline=deadline)


def utc(seconds: int) -> str:
    """Return unix seconds as people write them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def show(arguments: argparse.Namespace, result: dict[str, Any], extra: str = "") -> None:
    """Print a result with its times as the reader wants them. extra: text for people only."""
    if not arguments.json:
        result = {
            name: utc(value) if name in TIMES and value is not None else value
            for name, value in result.items()
            if name != "exp_time" or "expires" not in result
        }
    print_result(arguments, result, extra)


def payment_uri(name: str, agreed: Agreement) -> str:
    """Return the BIP 21 line that a wallet reads, to pay what was agreed to the channel `name`."""
    amount = f"amount={Decimal(agreed.planned_value) / COIN:.8f}&" if agreed.planned_value else ""
    return f"bitcoin:{agreed.funding_address}?{amount}label={quote('paychan ' + name)}"


def summary(name: str, record: ChannelRecord) -> dict[str, Any]:
    """Return what there is to know about a channel; values in satoshi, times in unix seconds. Until it is funded it says how."""
    agreed, is_unfunded = record.agreement, record.funding is None
    return {
        "name": name,
        "phase": record.phase.value,
        "server_url": agreed.server_url,
        "network": agreed.network.name,
        "funding_address": agreed.funding_address,
        "amount": agreed.planned_value if is_unfunded else None,
        "bip21": payment_uri(name, agreed) if is_unfunded else None,
        "confirmations_needed": agreed.confirmations,
        "open_before": agreed.open_before,
        "funding_outpoint": format_outpoint(record.funding.outpoint) if record.funding else None,
        "funding_value": record.funding.value if record.funding else None,
        "open_price": agreed.open_price,
        "paid_value": record.paid_value,
        "change_value": record.change_value,
        "pending_value": record.pending_value,
        "exp_time": agreed.exp_time,
        "expires": utc(agreed.exp_time),
        "refund_expected_at": agreed.exp_time + MEDIAN_TIME_LAG,
        "settlement_txid": record.settlement_txid or None,
        "held": record.hold.code if record.hold else None,
        "held_because": record.hold.detail if record.hold else None,
    }


def why_closed(record: ChannelRecord, now: int) -> str:
    """Return why the server has settled a channel, or will, as far as the record tells. now: unix seconds."""
    agreed = record.agreement
    if record.acknowledged is not None and record.acknowledged.exhausts:
        return "everything in it was paid"
    if now >= agreed.exp_time - agreed.settlement_period_hours * SECONDS_PER_HOUR:
        hours = agreed.settlement_period_hours
        return f"it expires {utc(agreed.exp_time)}, and {hours} hours before that the server takes its money and no more payments"
    return ""
