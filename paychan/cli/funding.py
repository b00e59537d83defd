"""`paychan keygen` and `paychan fund`: a key, the agreement with a server, and the way to the channel's address."""

import argparse
import sys
import time
from pathlib import Path

from ..chain.debug import DEBUG_FUNDING_VALUE
from ..client import LIVE, TEST, Agreement, Channel, Funding, Network, Refused, StateError, WrongNetwork, create_key, find_funding
from ..client.sources import Esplora, FundingSource, bitcoind
from ..client.storage import is_there
from ..client.wire import parse_url
from ..core.network import BY_NAME
from .output import UsageError, progress
from .places import channel_path, free_name, state_directory
from .qr import terminal_qr
from .session import payment_uri, policy_of, show, summary
from .waiting import wait_for_funding

SECONDS_PER_DAY = 86_400

TRANSACTION_SIZE_MAX = 8_000_000
"""Hexadecimal digits of the largest transaction that fits into a block."""

HOW_TO_FIND = "--bitcoind URL or --esplora URL to look for the payment, --funding-tx FILE or --funding TXID:VOUT:SATOSHI to name it"

_ADVICE = {
    "exp_time_too_soon": "give a larger --expires-in",
    "exp_time_too_far": "give a smaller --expires-in",
    "funding_too_large": "give a smaller --amount, or open several channels",
    "too_small": "give a larger --amount",
    "invalid_change_address": "see --change-address",
}


def keygen(arguments: argparse.Namespace) -> int:
    """Make a secret key file."""
    path = Path(arguments.file) if arguments.file else state_directory(arguments) / "payer.key"
    key = create_key(path)
    how = f"to use it: paychan fund URL --key {path} ... (without --key a channel gets a key of its own)"
    show(arguments, {"key_file": str(path), "client_pubkey": key.public_key.format().hex()}, how)
    return 0


def fund(arguments: argparse.Namespace) -> int:
    """Agree with a server, and say where to pay. What it would not open a channel on is refused before anything is made."""
    network = BY_NAME[arguments.network or ("test" if arguments.debug else "live")]
    _check_way(arguments, network)
    if arguments.debug and network is not TEST:
        raise UsageError("--debug needs --network test")
    if arguments.wait and not arguments.debug:
        source_of(arguments, network)  # complain before anything is made
    if arguments.key and not is_there(Path(arguments.key)):
        raise StateError(f"{arguments.key}: there is no such key file; `paychan keygen {arguments.key}` makes it")
    name = arguments.name or free_name(arguments)
    amount = arguments.amount or arguments.btc or DEBUG_FUNDING_VALUE
    with _agree(arguments, network, name, amount) as channel:
        _tell(arguments, name, channel, amount)
    return 0


def _agree(arguments: argparse.Namespace, network: Network, name: str, amount: int) -> Channel:
    """Return the new channel. What the server does not agree to is told with the argument that would change it."""
    path = channel_path(arguments, name)
    key_file = Path(arguments.key) if arguments.key else path.with_suffix(".key")
    exp_time = int(time.time() + arguments.expires_in * SECONDS_PER_DAY)
    address, policy = arguments.change_address or "", policy_of(arguments)
    try:
        return Channel.create(path, arguments.url, key_file, network, exp_time, address, policy, amount)
    except WrongNetwork as error:
        known = [f"--network {name}" for name in error.networks if name in BY_NAME]
        advice = f"give {' or '.join(known)}" if known else "this version does not know it"
        raise Refused(f"the server is on {' or '.join(error.networks)}: {advice}", error.code) from error
    except Refused as error:
        advice = _ADVICE.get(error.code, "")
        if not advice:
            raise
        raise Refused(f"{error.detail}; {advice}", error.code) from error


def _tell(arguments: argparse.Namespace, name: str, channel: Channel, amount: int) -> None:
    agreed, code = channel.record.agreement, ""
    uri = payment_uri(name, agreed)
    if arguments.debug:
        channel.fund_debug()
        then = f"then: paychan open {name}"
    elif arguments.wait:
        progress(arguments, f"pay {amount} satoshi to {agreed.funding_address}\n{uri}\n{terminal_qr(uri, sys.stderr)}")
        wait_for_funding(arguments, channel, source_of(arguments, agreed.network))
        then = f"then: paychan open {name}"
    else:
        code = terminal_qr(uri, sys.stdout)
        then = f"then: paychan open {name}, with {HOW_TO_FIND}"
    how = {"amount": amount, "bip21": uri, "change_address": agreed.change_address}
    show(arguments, {**summary(name, channel.record), **how}, f"{code}{then}")


def source_of(arguments: argparse.Namespace, network: Network) -> FundingSource:
    """Return the block chain that the arguments name. Raises UsageError."""
    if arguments.esplora:
        return Esplora(arguments.esplora)
    if arguments.bitcoind:
        return bitcoind(arguments.bitcoind, arguments.cookie, network)
    raise UsageError("--esplora URL or --bitcoind URL is needed to look at the block chain")


def named_funding(arguments: argparse.Namespace, agreed: Agreement) -> Funding | None:
    """Return the output at the channel's address that --funding or --funding-tx names, None if neither is there."""
    named: Funding | None = arguments.funding
    return find_funding(agreed, read_transaction(arguments.funding_tx)) if arguments.funding_tx else named


def note_funding(arguments: argparse.Namespace, channel: Channel) -> None:
    """Note the funding output that `open` was told of, if it was."""
    agreed = channel.record.agreement
    named = named_funding(arguments, agreed)
    if named is not None:
        channel.set_funding(named)
    elif (arguments.esplora or arguments.bitcoind) and channel.record.funding is None:
        wait_for_funding(arguments, channel, source_of(arguments, agreed.network))
    elif channel.record.funding is None:
        what = f"{agreed.planned_value} satoshi " if agreed.planned_value else ""
        raise Refused(f"pay {what}to {agreed.funding_address} first; then give {HOW_TO_FIND}", "not_funded")


def read_transaction(path: str) -> bytes:
    """Return the transaction in a file of hexadecimal digits. Raises UsageError."""
    try:
        with open(path, encoding="ascii") as file:
            return bytes.fromhex(file.read(TRANSACTION_SIZE_MAX + 1).strip())
    except OSError as error:
        raise UsageError(f"{path!r}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path!r}: is no file with a transaction in hex") from error


def _check_way(arguments: argparse.Namespace, network: Network) -> None:
    """Over plain http a stranger on the way could pose as the server."""
    server = parse_url(arguments.url)
    if network is LIVE and not server.is_tls and not server.is_loopback and not arguments.allow_http:
        other = "if these are no real bitcoins, say which --network they are of"
        raise UsageError(f"real bitcoins over plain http: use https, or --allow-http if the way is secured otherwise; {other}")
