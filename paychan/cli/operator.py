"""For operators: run the processes, check a configuration, look at channels, have one settled."""

import argparse
import asyncio
import json
import os
import stat
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.channel import ChannelState, ChannelTerms, Phase
from ..core.errors import ConfigError, Rejection
from ..core.outpoint import format_outpoint, parse_outpoint, txid_hex
from ..core.units import LOCKTIME_MAX
from ..parts import require_server
from ..rpc.connection import Address, ConnectionGone, FrameConnection, RemoteRefusal, connect
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import Hello, Stored, StoreMessage
from ..settings.load import EXIT_BAD_CONFIG, load_server_config, load_signer_config, load_store_config
from ..settings.models import ServerConfig, StoreConfig
from ..supervisor import Supervisor

EXIT_REFUSED = 1
CONNECT_SECONDS_MAX = 5.0
SETTLE_SECONDS_MAX = 30.0


class CommandError(Exception):
    """A command that could not do what it was asked for; `str()` is one line for the operator."""


def register(subparsers: Any) -> None:
    """Add the operators' subcommands to an argparse parser."""

    def add(name: str, action: Callable[[argparse.Namespace], int], text: str, *arguments: tuple[str, str]) -> None:
        parser = subparsers.add_parser(name, help=text, description=text)
        for argument, what in arguments:
            parser.add_argument(argument, type=Path if argument == "config_dir" else str, metavar=argument.upper(), help=what)
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=action)

    directory = ("config_dir", "holds server.toml, store.toml and signer.toml")
    outpoint = ("outpoint", "FUNDING_TXID/VOUT")
    add("run", _run, "start signer, store and server, and keep them running", directory)
    add("channels", _channels, "list the channels that are open or being settled", directory)
    add("channel", _channel, "show one channel", directory, outpoint)
    add("settle", _settle, "have a channel settled now", directory, outpoint)
    config = subparsers.add_parser("config", help="work on configurations").add_subparsers(required=True, metavar="ACTION")
    check = config.add_parser("check", help="say what is missing or wrong in a configuration")
    check.add_argument("config_dir", type=Path, metavar="CONFIG_DIR")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=_check)


def _run(arguments: argparse.Namespace) -> int:
    require_server("paychan run")
    return Supervisor(arguments.config_dir).run()


# --- config check ---


def _check(arguments: argparse.Namespace) -> int:
    """Print every problem of the three files; exit status 2 if there is one."""
    problems: list[str] = []
    configs: list[Any] = []
    for load, name in (
        (load_server_config, "server.toml"),
        (load_store_config, "store.toml"),
        (load_signer_config, "signer.toml"),
    ):
        try:
            configs.append(load(arguments.config_dir / name))
        except ConfigError as error:
            problems += error.problems
    problems += _key_file_problems(arguments.config_dir / "signer.toml")
    if not problems:
        try:
            Supervisor.check_agreement(*configs)
        except ConfigError as error:
            problems += error.problems
    if arguments.json:
        print(json.dumps({"problems": problems}))
    else:
        print("\n".join(problems) if problems else "no problem found")
    return EXIT_BAD_CONFIG if problems else 0


def _key_file_problems(path: Path) -> list[str]:
    """Return what is wrong with the signer's key file, by its mode alone: its content is nobody's business but the signer's.

    The file is read here once more, loosely, so that the key is looked at even if other keys of the configuration are wrong.
    """
    try:
        table = tomllib.loads(path.read_text())
        state_dir, name = os.environ.get("PAYCHAN_STATE_DIR") or table["state_dir"], table["signer"].get("key_file", "signer.key")
        if table.get("debug", {}).get("enable") is True:
            return []  # a missing one is made
        file = Path(state_dir, name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # that has been said
    why = _trouble_with_key(file)
    return [f"{path}: signer.key_file: {file}: {why}"] if why else []


def _trouble_with_key(file: Path) -> str:
    try:
        mode = file.stat().st_mode
    except OSError as error:
        return f"{error.strerror}; `paychan-signer --init {file}` makes one"
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    if mode & 0o077:
        return "is open to group or others; its mode must be 0600"
    return "" if os.access(file, os.R_OK) else "cannot be read by this user; the signer's user must"


# --- looking at the store ---


def _server_pubkey(config: StoreConfig) -> bytes:
    if config.server_pubkey is not None:
        return config.server_pubkey
    try:
        return bytes.fromhex(config.server_pubkey_file.read_text().strip())
    except (OSError, ValueError) as error:
        raise CommandError(f"{config.server_pubkey_file} cannot be read: has the signer been started?") from error


async def _ask_store(directory: Path, ask: Callable[[StoreClient], Any]) -> Any:
    """Connect to the store as an observer, which owns nothing, and return what `ask` makes of it."""
    config = load_store_config(directory / "store.toml")
    hello = Hello(config.common.network.name, _server_pubkey(config), "")
    store = StoreClient(config.address, hello, lambda *_: None, lambda: None)
    store.link.start()
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            while not store.link.is_up:
                await asyncio.sleep(0.02)
        return await ask(store)
    except (TimeoutError, ConnectionGone, RemoteRefusal) as error:
        raise CommandError(f"the store at {config.address} does not answer ({store.link.trouble or error})") from error
    finally:
        await store.link.stop()


def _describe(outpoint: bytes, stored: Stored) -> dict[str, Any]:
    terms, state = ChannelTerms.parse(outpoint, stored.terms), ChannelState.parse(stored.state)
    return {
        "outpoint": format_outpoint(outpoint),
        "phase": Phase(state.phase).name.lower(),
        "funding_value": terms.funding_value,
        "received": terms.funding_value - state.payment.change_value,
        "channel_value_left": state.payment.change_value,
        "client_pubkey": terms.client_pubkey.hex(),
        "exp_time": terms.exp_time,
        "opened_at": terms.opened_at,
        "settlement_txid": txid_hex(state.settlement_txid) if state.settlement_txid else None,
        "settlement": stored.settlement.hex() or None,
    }


def _channels(arguments: argparse.Namespace) -> int:
    async def ask(store: StoreClient) -> list[dict[str, Any]]:
        pairs = await store.scan(StoreMessage.SCAN_EXPIRING, LOCKTIME_MAX)
        pairs += await store.scan(StoreMessage.SCAN_UNFINISHED)
        stored = [(outpoint, await store.load(outpoint)) for _, outpoint in pairs]
        return [_describe(outpoint, found) for outpoint, found in stored if found is not None]

    found = asyncio.run(_ask_store(arguments.config_dir, ask))
    if arguments.json:
        print(json.dumps({"channels": found}))
        return 0
    for row in found:
        print(f"{row['outpoint']} {row['phase']} received {row['received']} of {row['funding_value']} expires {row['exp_time']}")
    print(f"{len(found)} channels, {sum(row['received'] for row in found)} satoshi unsettled")
    return 0


def _channel(arguments: argparse.Namespace) -> int:
    outpoint = _outpoint(arguments.outpoint)
    stored = asyncio.run(_ask_store(arguments.config_dir, lambda store: store.load(outpoint)))
    if stored is None:
        raise CommandError("no such channel")
    row = _describe(outpoint, stored)
    print(json.dumps(row) if arguments.json else "\n".join(f"{key}: {value}" for key, value in row.items()))
    return 0


def _outpoint(text: str) -> bytes:
    txid, _, vout = text.replace(":", "/").partition("/")
    try:
        return parse_outpoint(txid, vout)
    except Rejection as error:
        raise CommandError(f"{text} is no outpoint; write FUNDING_TXID/VOUT") from error


# --- settling ---


def _settle(arguments: argparse.Namespace) -> int:
    require_server("paychan settle")
    config = load_server_config(arguments.config_dir / "server.toml")
    body = asyncio.run(_settle_by_its_owner(config, _outpoint(arguments.outpoint)))
    print(json.dumps(body) if arguments.json else body.get("settlement_txid") or body.get("detail"))
    return EXIT_REFUSED if "code" in body else 0


async def _settle_by_its_owner(config: ServerConfig, outpoint: bytes) -> dict[str, Any]:
    """Ask the workers, one after the other, until the channel's owner answers."""
    from ..server.doors.peers import FORWARDED, PAYLOAD_MAX, PeerRequest, decode_reply  # a payer's installation has it not

    request = PeerRequest("settle", outpoint).encode()
    for path in sorted((config.common.state_dir / "run").absolute().glob("worker-*.sock")):
        try:
            connection = await connect(
                Address(path=str(path)), lambda: FrameConnection(PAYLOAD_MAX, lambda *_: None, lambda _: None)
            )
            answer = await asyncio.wait_for(connection.call(FORWARDED, request), SETTLE_SECONDS_MAX)
            body: object = json.loads(decode_reply(answer).body)
            if isinstance(body, dict):
                return body
        except (OSError, ConnectionGone, RemoteRefusal, TimeoutError):
            continue
    raise CommandError("no worker of this server settles this channel: is the server running?")


def fail(error: Exception) -> int:
    """Print one line about what went wrong; return the exit status."""
    print(f"paychan: {error}", file=sys.stderr)
    return EXIT_BAD_CONFIG if isinstance(error, ConfigError) else EXIT_REFUSED
