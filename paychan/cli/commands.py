"""`paychan open|pay|status|close|refund|list`: each does one operation of the client library and prints what came of it."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..client import Channel, ChannelClosed, ChannelClosing, ChannelMissing, Outcome, Refused, StateError, parse_record, read_state
from ..client.refund import check_settlement
from ..client.storage import is_there
from ..printing import say
from .funding import named_funding, note_funding, read_transaction, source_of
from .output import UsageError, utc
from .places import channel_names, channel_path, state_directory
from .session import policy_of, show, summary, why_closed


def _existing(arguments: argparse.Namespace) -> Path:
    """Return the state file of the channel that the arguments name. Raises ChannelMissing."""
    path = channel_path(arguments, arguments.name)
    if not is_there(path):
        raise ChannelMissing(f'no channel "{arguments.name}"; `paychan list` shows yours')
    return path


@contextmanager
def _channel(arguments: argparse.Namespace) -> Iterator[Channel]:
    """Open the channel that the arguments name. If it turns out to be over, the error tells why, if that is known."""
    with Channel(_existing(arguments), policy_of(arguments)) as channel:
        try:
            yield channel
        except (ChannelClosed, ChannelClosing) as error:
            why = why_closed(channel.record, int(time.time()))
            raise type(error)(f"{error.detail}: {why}" if why else error.detail, error.code) from error


def _achieved(arguments: argparse.Namespace, outcome: Outcome) -> dict[str, Any]:
    return {"name": arguments.name, **asdict(outcome), "settlement_txid": outcome.settlement_txid or None}


def open_channel(arguments: argparse.Namespace) -> int:
    """Open a funded channel."""
    with _channel(arguments) as channel:
        if arguments.resume:
            channel.resume()
        if channel.record.signed is None:
            note_funding(arguments, channel)
        show(arguments, _achieved(arguments, channel.open(arguments.amount)))
    return 0


def pay(arguments: argparse.Namespace) -> int:
    """Pay more."""
    gives_all = arguments.amount == "all"
    if gives_all and not arguments.yes and not _can_ask():
        raise UsageError("`pay NAME all` gives all that is left away: add --yes if that is meant")
    with _channel(arguments) as channel:
        if gives_all and not arguments.yes:
            _ask_about_all(channel)
        if arguments.resume:
            channel.resume()
        if gives_all:
            recovered = channel.resend().recovered
            outcome = channel.pay(channel.record.change_value)
            result = {**_achieved(arguments, outcome), "recovered": recovered}
        else:
            result = _achieved(arguments, channel.pay(arguments.amount))
        show(arguments, result)
    return 0


def _can_ask() -> bool:
    """Return whether somebody is there who reads what is asked, and can answer."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


def _ask_about_all(channel: Channel) -> None:
    """Ask before everything is given away. Raises Refused unless the answer is yes."""
    record = channel.record
    what = f"all {record.change_value} satoshi that are left would go to {record.agreement.server_url}, none of them back to you"
    say(f"{what}. Pay them? [y/N]")
    try:
        answer = sys.stdin.readline().strip().lower()
    except (OSError, ValueError):  # the terminal has gone, or that was no text
        answer = ""
    if answer not in ("y", "yes"):
        raise Refused("nothing was paid", "not_confirmed")


def status(arguments: argparse.Namespace) -> int:
    """Show a channel; nothing is asked of the server without --resend."""
    path = _existing(arguments)
    if arguments.resend:
        with _channel(arguments) as channel:
            channel.resend()
    record = parse_record(read_state(path))
    last, note = record.agreement.open_before, ""
    if record.funding is None and last is not None and time.time() > last:
        note = f"do not pay to it any more: the server would have opened it until {utc(last)}"
    show(arguments, summary(arguments.name, record), note)
    return 0


def close(arguments: argparse.Namespace) -> int:
    """Have a channel settled."""
    settlement = read_transaction(arguments.settlement) if arguments.settlement else None
    with _channel(arguments) as channel:
        result = _achieved(arguments, channel.close_channel())
        if settlement is not None:
            result["settlement_pays"] = check_settlement(channel.record, settlement)
        show(arguments, result)
    return 0


def refund(arguments: argparse.Namespace) -> int:
    """Write the refund transaction, maybe publish it."""
    with _channel(arguments) as channel:
        source = source_of(arguments, channel.record.agreement.network) if arguments.broadcast else None
        other = named_funding(arguments, channel.record.agreement)
        made = channel.refund(arguments.fee_rate, other)
        path = channel_path(arguments, arguments.name).parent / f"{made.txid}.hex"
        _write(path, made.raw.hex() + "\n")
        result = {
            "name": arguments.name,
            "txid": made.txid,
            "file": str(path),
            "fee": made.fee,
            "value": made.value,
            "change_address": channel.record.agreement.change_address,
            "valid_after": made.valid_after,
            "expected_at": made.expected_at,
            "broadcast": source is not None,
        }
        if source is not None:
            source.broadcast(made.raw)
    note = f"valid when the chain's median time past exceeds {utc(made.valid_after)}: expect it about {utc(made.expected_at)}"
    if channel.record.paid_value and other in (None, channel.record.funding):
        note += "\nthe server can settle until then, and will if it wants what it was paid"
    show(arguments, result, note)
    return 0


def _write(path: os.PathLike[str], text: str) -> None:
    """Write a file of mode 0600, over an equal one."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise StateError(f"{path}: cannot be written: {error.strerror}") from error


_COLUMNS = {
    "name": "NAME",
    "phase": "PHASE",
    "network": "NETWORK",
    "paid_value": "PAID",
    "change_value": "LEFT",
    "pending_value": "PENDING",
    "expires": "EXPIRES",
    "server_url": "SERVER",
}
"""What `list` shows of a channel's summary, and what stands above it."""


def list_channels(arguments: argparse.Namespace) -> int:
    """Show all channels in a line each; damaged ones too."""
    shown: list[dict[str, Any]] = []
    for name in channel_names(arguments):
        try:
            whole = summary(name, parse_record(read_state(channel_path(arguments, name))))
            shown.append({key: whole[key] for key in _COLUMNS})
        except StateError as error:
            shown.append({"name": name, "phase": "damaged", "detail": error.detail})
    text = _table(shown) if shown else f"no channels in {state_directory(arguments)}; `paychan fund` makes one"
    show(arguments, {"channels": shown} if arguments.json else {}, text)
    return 0


def _table(channels: list[dict[str, Any]]) -> str:
    """Return a line for each channel, below the columns' heads. What is wrong with a damaged one ends its line."""
    rows = [list(_COLUMNS.values())] + [[str(channel.get(key, "")) for key in _COLUMNS] for channel in channels]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    lines = []
    for row, channel in zip(rows, [{}, *channels], strict=True):
        cells = row[:2] if "detail" in channel else row
        line = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
        lines.append("  ".join([*line, channel.get("detail", "")]).rstrip())
    return "\n".join(lines)
