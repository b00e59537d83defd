"""`paychan keygen` and `paychan fund`: a key, the agreement with a server, and the way to the channel's address."""

import argparse
import sys
import time
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

from bitcoin.base58 import CBase58Data
from bitcoin.core import Hash160

from ..chain.debug import DEBUG_FUNDING_VALUE, debug_outpoint
from ..client import Channel, Funding, Refused, create_key, find_funding, read_key
from ..client.wire import parse_url
from ..core.network import BY_NAME, LIVE, TEST, Network
from ..core.outpoint import parse_outpoint
from ..core.units import COIN, DUST_LIMIT, MAX_MONEY
from .output import UsageError, print_result, progress
from .places import channel_path, free_name, state_directory
from .qr import terminal_qr
from .session import policy_of, summary
from .sources import Esplora, FundingSource, bitcoind

SECONDS_PER_DAY = 86_400


def keygen(arguments: argparse.Namespace) -> int:
    """Make a secret key file."""
    path = Path(arguments.file) if arguments.file else state_directory(arguments) / "payer.key"
    key = create_key(path)
    print_result(arguments, {"key_file": str(path), "client_pubkey": key.public_key.format().hex()})
    return 0


def fund(arguments: argparse.Namespace) -> int:
    """Agree with a server, and say where to pay."""
    network, amount = BY_NAME[arguments.network], _amount(arguments)
    _check_url(arguments, network)
    if arguments.debug and network is not TEST:
        raise UsageError("--debug needs --network test")
    if arguments.wait and not arguments.debug:
        source_of(arguments, network)  # complain before anything is made
    name = arguments.name or free_name(arguments)
    path = channel_path(arguments, name)
    key_file = Path(arguments.key) if arguments.key else path.with_suffix(".key")
    if not arguments.key and not key_file.exists():
        create_key(key_file)
    address = arguments.change_address or _own_address(network, key_file)
    exp_time = int(time.time() + arguments.expires_in * SECONDS_PER_DAY)
    with Channel.create(path, arguments.url, key_file, network, exp_time, address, policy_of(arguments)) as channel:
        price = channel.record.agreement.open_price
        if amount < price + DUST_LIMIT:
            path.unlink()
            raise Refused(f"the channel needs at least {price + DUST_LIMIT} satoshi: the open price is {price}", "too_small")
        _tell(arguments, name, channel, amount)
    return 0


def _tell(arguments: argparse.Namespace, name: str, channel: Channel, amount: int) -> None:
    agreed = channel.record.agreement
    uri = f"bitcoin:{agreed.funding_address}?amount={Decimal(amount) / COIN:.8f}&label={quote('paychan ' + name)}"
    if arguments.debug:
        channel.set_funding(Funding(debug_outpoint(agreed.client_pubkey, agreed.exp_time), DEBUG_FUNDING_VALUE))
    elif arguments.wait:
        progress(arguments, f"pay {amount} satoshi to {agreed.funding_address}\n{uri}\n{terminal_qr(uri, sys.stderr)}")
        wait_for_funding(arguments, channel, source_of(arguments, agreed.network))
    how = {"amount": amount, "bip21": uri, "change_address": agreed.change_address}
    print_result(arguments, {**summary(name, channel.record), **how}, "" if arguments.wait else terminal_qr(uri, sys.stdout))


def source_of(arguments: argparse.Namespace, network: Network) -> FundingSource:
    """Return the block chain that the arguments name. Raises UsageError."""
    try:
        if arguments.esplora:
            return Esplora(arguments.esplora)
        if arguments.bitcoind:
            return bitcoind(arguments.bitcoind, arguments.cookie, network)
    except ValueError as error:
        raise UsageError(str(error)) from error
    raise UsageError("--esplora URL or --bitcoind URL is needed to look at the block chain")


def wait_for_funding(arguments: argparse.Namespace, channel: Channel, source: FundingSource) -> None:
    """Poll until the channel's output is there and confirmed as the server asks; note it."""
    agreed, shown = channel.record.agreement, ""
    deadline = time.monotonic() + arguments.wait_seconds
    while True:
        found = source.find(agreed)
        if len(found) > 1:
            raise Refused("several outputs pay to this address: choose one, `open --funding TXID:VOUT:SATOSHI`", "ambiguous")
        count = found[0].confirmations if found else -1
        if found and count >= agreed.funding_tx_min_conf:
            channel.set_funding(found[0].funding)
            return
        text = f"{count} of {agreed.funding_tx_min_conf} confirmations" if found else "nothing has arrived yet"
        if text != shown:
            progress(arguments, text)
            shown = text
        if time.monotonic() + arguments.poll_seconds > deadline:
            raise Refused(text, "funding_not_found")
        time.sleep(arguments.poll_seconds)


def note_funding(arguments: argparse.Namespace, channel: Channel) -> None:
    """Note the funding output that `open` was told of, if it was."""
    agreed = channel.record.agreement
    if arguments.funding:
        txid, _, rest = arguments.funding.partition(":")
        vout, _, value = rest.partition(":")
        if not value.isascii() or not value.isdigit() or not 0 < int(value) <= MAX_MONEY:
            raise UsageError("--funding is TXID:VOUT:SATOSHI")
        channel.set_funding(Funding(parse_outpoint(txid, vout), int(value)))
    elif arguments.funding_tx:
        channel.set_funding(find_funding(agreed, read_transaction(arguments.funding_tx)))
    elif (arguments.esplora or arguments.bitcoind) and channel.record.funding is None:
        wait_for_funding(arguments, channel, source_of(arguments, agreed.network))
    elif channel.record.funding is None:
        raise Refused(f"pay to {agreed.funding_address}, then name the transaction: --funding-tx FILE", "not_funded")


def read_transaction(path: str) -> bytes:
    """Return the transaction in a file of hexadecimal digits. Raises UsageError."""
    try:
        return bytes.fromhex(Path(path).read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: is no file with a transaction in hex") from error


def _amount(arguments: argparse.Namespace) -> int:
    if arguments.btc is not None:
        try:
            satoshi = Decimal(arguments.btc) * COIN
        except InvalidOperation as error:
            raise UsageError("--btc is a number of bitcoins") from error
        if not satoshi.is_finite() or satoshi != satoshi.to_integral_value():
            raise UsageError("--btc has at most 8 decimals")
        amount = int(satoshi)
    else:
        amount = arguments.amount if arguments.amount is not None else DEBUG_FUNDING_VALUE if arguments.debug else 0
    if not 0 < amount <= MAX_MONEY:
        raise UsageError("--amount SATOSHI or --btc BITCOINS is needed")
    return amount


def _check_url(arguments: argparse.Namespace, network: Network) -> None:
    """Over plain http a stranger on the way could pose as the server."""
    try:
        server = parse_url(arguments.url)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if network is LIVE and not server.is_tls and not _is_loopback(server.host) and not arguments.allow_http:
        raise UsageError("real bitcoins over plain http: use https, or --allow-http if the way is secured otherwise")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _own_address(network: Network, key_file: Path) -> str:
    """Return the P2PKH address of the channel's own key."""
    pubkey = read_key(key_file).public_key.format()
    return str(CBase58Data.from_bytes(Hash160(pubkey), network.p2pkh_version))
