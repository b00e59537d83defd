"""Waiting for the payer's money at the channel's address. Anybody may pay there, the server first of all: only an output of the
amount that was asked for is taken for the funding, and the payer is told of all others, which it can take back."""

import argparse
import time
from collections.abc import Sequence

from ..client import Agreement, Channel, Funding, Refused
from ..client.sources import Found, FundingSource, choose
from ..core.outpoint import txid_hex, txid_of, vout_of
from .output import progress

TOLD_MAX = 3
"""Outputs that are named in one line."""


def wait_for_funding(arguments: argparse.Namespace, channel: Channel, source: FundingSource) -> None:
    """Poll until the channel's output is there and confirmed as the server asks; note it, and tell of others at its address."""
    agreed, shown = channel.record.agreement, ""
    deadline = time.monotonic() + arguments.wait_seconds
    while True:
        found = source.find(agreed)
        chosen = choose(agreed, found)
        others = [output.funding for output in found if output is not chosen]
        if chosen is not None and chosen.confirmations >= agreed.confirmations:
            channel.set_funding(chosen.funding)
            if others:
                progress(arguments, f"beside the funding there is {_named(others)}: `refund --funding` takes that back")
            return
        text = _state(agreed, chosen, others)
        if text != shown:
            progress(arguments, text)
            shown = text
        if time.monotonic() + arguments.poll_seconds > deadline:
            raise Refused(text, "funding_not_found")
        time.sleep(arguments.poll_seconds)


def _state(agreed: Agreement, chosen: Found | None, others: Sequence[Funding]) -> str:
    if chosen is not None:
        return f"{chosen.confirmations} of {agreed.confirmations} confirmations"
    if not others:
        return "nothing has arrived yet"
    how = "if one of them is yours, `open --funding` takes it"
    return f"no output of {agreed.planned_value} satoshi has arrived yet, but {_named(others)}; {how}"


def _named(outputs: Sequence[Funding]) -> str:
    """Return outputs as `--funding` takes them."""
    texts = [f"{txid_hex(txid_of(output.outpoint))}:{vout_of(output.outpoint)}:{output.value}" for output in outputs]
    return ", ".join(texts[:TOLD_MAX]) + (f" and {len(texts) - TOLD_MAX} more" if len(texts) > TOLD_MAX else "")
