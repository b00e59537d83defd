"""What the commands share: the retry policy from the arguments, and a channel in a few words."""

import argparse
from typing import Any

from ..client import ChannelRecord, RetryPolicy
from ..client.refund import MEDIAN_TIME_LAG
from ..core.outpoint import format_outpoint
from .output import utc


def policy_of(arguments: argparse.Namespace) -> RetryPolicy:
    """Return the policy with `--deadline` seconds for everything."""
    deadline = arguments.deadline
    return RetryPolicy(timeout=min(10.0, deadline), deadline=deadline)


def summary(name: str, record: ChannelRecord) -> dict[str, Any]:
    """Return what there is to know about a channel; values in satoshi, times in unix seconds."""
    agreed = record.agreement
    return {
        "name": name,
        "phase": record.phase.value,
        "server_url": agreed.server_url,
        "network": agreed.network.name,
        "funding_address": agreed.funding_address,
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
