"""`paychan open|pay|status|close|refund|list`: each does one operation of the client library and prints what came of it."""

import argparse
import os
from dataclasses import asdict
from typing import Any

from ..client import Channel, Outcome, StateError, parse_record, read_state
from ..client.refund import check_settlement
from .funding import note_funding, read_transaction, source_of
from .output import print_result, utc
from .places import channel_names, channel_path
from .session import policy_of, summary


def _channel(arguments: argparse.Namespace) -> Channel:
    return Channel(channel_path(arguments, arguments.name), policy_of(arguments))


def _achieved(arguments: argparse.Namespace, outcome: Outcome) -> dict[str, Any]:
    return {"name": arguments.name, **asdict(outcome), "settlement_txid": outcome.settlement_txid or None}


def open_channel(arguments: argparse.Namespace) -> int:
    """Open a funded channel."""
    with _channel(arguments) as channel:
        if arguments.resume:
            channel.resume()
        if channel.record.signed is None:
            note_funding(arguments, channel)
        print_result(arguments, _achieved(arguments, channel.open(arguments.amount)))
    return 0


def pay(arguments: argparse.Namespace) -> int:
    """Pay more."""
    with _channel(arguments) as channel:
        if arguments.resume:
            channel.resume()
        if arguments.amount == "all":
            recovered = channel.resend().recovered
            outcome = channel.pay(channel.record.change_value)
            result = {**_achieved(arguments, outcome), "recovered": recovered}
        else:
            result = _achieved(arguments, channel.pay(arguments.amount))
        print_result(arguments, result)
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Show a channel; nothing is asked of the server without --resend."""
    path = channel_path(arguments, arguments.name)
    if arguments.resend:
        with _channel(arguments) as channel:
            channel.resend()
    print_result(arguments, summary(arguments.name, parse_record(read_state(path))))
    return 0


def close(arguments: argparse.Namespace) -> int:
    """Have a channel settled."""
    settlement = read_transaction(arguments.settlement) if arguments.settlement else None
    with _channel(arguments) as channel:
        result = _achieved(arguments, channel.close_channel())
        if settlement is not None:
            result["settlement_pays"] = check_settlement(channel.record, settlement)
        print_result(arguments, result)
    return 0


def refund(arguments: argparse.Namespace) -> int:
    """Write the refund transaction, maybe publish it."""
    with _channel(arguments) as channel:
        source = source_of(arguments, channel.record.agreement.network) if arguments.broadcast else None
        made = channel.refund(arguments.fee_rate)
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
    if channel.record.paid_value:
        note += "\nthe server can settle until then, and will if it wants what it was paid"
    print_result(arguments, result, note)
    return 0


def _write(path: os.PathLike[str], text: str) -> None:
    """Write a file of mode 0600, over an equal one."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise StateError(f"{path}: cannot be written: {error.strerror}") from error


def list_channels(arguments: argparse.Namespace) -> int:
    """Show all channels in a line each; damaged ones too."""
    shown = []
    for name in channel_names(arguments):
        try:
            whole = summary(name, parse_record(read_state(channel_path(arguments, name))))
            keys = ("name", "phase", "network", "paid_value", "change_value", "pending_value", "expires", "server_url")
            shown.append({key: whole[key] for key in keys})
        except StateError as error:
            shown.append({"name": name, "phase": "damaged", "detail": error.detail})
    print_result(arguments, {"channels": shown})
    return 0


def amount_or_all(text: str) -> int | str:
    """Read the AMOUNT argument."""
    if text == "all":
        return text
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise argparse.ArgumentTypeError("a number of satoshi, or all")
    return int(text)
