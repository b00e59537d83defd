"""`paychan spending`: what a purse has spent, where, and what is left. `paychan purse`: what its owner does with it."""

import argparse
import base64
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..client import Funding, Refused
from ..client.wire import parse_url
from ..core.outpoint import format_outpoint
from ..pay.budget import DAY
from ..pay.node import NodeWallet
from ..pay.purse import Purse
from ..printing import show
from .buying import payer_of
from .funding import named_funding
from .output import UsageError, print_result, utc
from .places import purse_directory
from .table import table

PSBT_BYTES_MAX = 4 << 20

COLUMNS = {
    "day": "DAY",
    "origin": "SERVER",
    "payments": "PAYMENTS",
    "amount": "SATOSHI",
    "opening": "OPENING",
    "unanswered": "UNANSWERED",
    "channel": "CHANNEL",
}
CHANNELS = {"name": "CHANNEL", "phase": "PHASE", "network": "NETWORK", "paid": "PAID", "left": "LEFT", "expires": "EXPIRES"}
BUDGETS = {"limit": "BUDGET", "most": "SATOSHI", "spent": "SPENT", "left": "LEFT"}


def spending(arguments: argparse.Namespace) -> int:
    """Show what was spent by day and server, what the budget leaves, and what is in the channels."""
    purse = Purse(purse_directory(arguments))
    since = int(time.time() - arguments.days * DAY)
    rows = [asdict(row) for row in purse.ledger.rows(since)]
    channels, budgets = _channels(purse), _budgets(purse)
    if arguments.json:
        show(json.dumps({"spending": rows, "budget": budgets, "channels": channels}))
        return 0
    parts = [table(COLUMNS, rows) if rows else f"nothing was spent in {arguments.days:g} days out of {purse.directory}"]
    parts.append(table(BUDGETS, [{**row, "most": "none" if row["most"] is None else row["most"]} for row in budgets]))
    if channels:
        parts.append(table(CHANNELS, [{**row, "expires": utc(row["expires"])} for row in channels]))
    show("\n\n".join(parts))
    return 0


def _budgets(purse: Purse) -> list[dict[str, Any]]:
    spent, budget = purse.ledger.spent(""), purse.budget
    sums = (("hour", budget.hour, spent.hour), ("day", budget.day, spent.day), ("opening", budget.opening, spent.opening))
    return [
        {"limit": name, "most": most, "spent": used, "left": None if most is None else max(most - used, 0)}
        for name, most, used in sums
    ]


def _channels(purse: Purse) -> list[dict[str, Any]]:
    return [
        {
            "name": standing.name,
            "phase": "held" if standing.record.hold else standing.record.phase.value,
            "network": standing.record.agreement.network.name,
            "paid": standing.paid,
            "left": standing.left,
            "expires": standing.record.agreement.exp_time,
        }
        for standing in purse.standings()
    ]


def trust(arguments: argparse.Namespace) -> int:
    """Agree to the key and network that a server names next."""
    origin = parse_url(arguments.url).origin
    Purse(purse_directory(arguments)).trust(origin)
    show(json.dumps({"origin": origin}) if arguments.json else f"{origin}: what it asks for next is agreed to")
    return 0


def psbt(arguments: argparse.Namespace) -> int:
    """Print a PSBT that funds a channel, for keys that are elsewhere."""
    made = _node(arguments).psbt(Purse(purse_directory(arguments)).unfunded(arguments.name))
    show(json.dumps({"name": arguments.name, "psbt": made}) if arguments.json else made)
    return 0


def broadcast(arguments: argparse.Namespace) -> int:
    """Send a signed PSBT, and note the output in it."""
    purse = Purse(purse_directory(arguments))
    agreed = purse.unfunded(arguments.name)
    _tell(arguments, purse, _node(arguments).broadcast(agreed, _signed(arguments.file)))
    return 0


def fund(arguments: argparse.Namespace) -> int:
    """Note the output that funds a channel, as the payer names it."""
    purse = Purse(purse_directory(arguments))
    named = named_funding(arguments, purse.unfunded(arguments.name))
    if named is None:
        raise UsageError("--funding-tx FILE or --funding TXID:VOUT:SATOSHI is needed")
    _tell(arguments, purse, named)
    return 0


def _tell(arguments: argparse.Namespace, purse: Purse, funding: Funding) -> None:
    purse.set_funding(arguments.name, funding)
    result = {"name": arguments.name, "funding_outpoint": format_outpoint(funding.outpoint), "funding_value": funding.value}
    print_result(arguments, result)


def _node(arguments: argparse.Namespace) -> NodeWallet:
    if not arguments.bitcoind:
        raise UsageError("--bitcoind URL is needed: the node that has the wallet")
    return NodeWallet(arguments.bitcoind, Path(arguments.cookie) if arguments.cookie else None, arguments.wallet or "")


def _signed(path: str) -> str:
    """Return the PSBT in a file, base64 or as it is."""
    try:
        with open(path, "rb") as file:
            raw = file.read(PSBT_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{path!r}: cannot be read: {error.strerror}") from error
    if len(raw) > PSBT_BYTES_MAX:
        raise UsageError(f"{path!r}: is too long for a PSBT")
    if raw.startswith(b"psbt\xff"):
        return base64.b64encode(raw).decode()
    text = b"".join(raw.split()).decode("ascii", "replace")
    if not text.startswith("cHNidP"):
        raise UsageError(f"{path!r}: is no PSBT")
    return text


def close(arguments: argparse.Namespace) -> int:
    """Have a channel settled by its server."""
    txid = payer_of(arguments).close_channel_at(arguments.url, arguments.name)
    if not txid:
        raise Refused(f"the server did not say that it settled {arguments.name}; it will before the channel expires", "not_settled")
    show(json.dumps({"name": arguments.name, "settlement_txid": txid}) if arguments.json else f"settlement txid: {txid}")
    return 0
