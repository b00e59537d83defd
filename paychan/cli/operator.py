"""For operators: run the processes, check a configuration, look at channels, have one settled."""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import logs
from ..core.channel import ChannelState, ChannelTerms, Phase
from ..core.errors import Rejection, Unavailable
from ..core.outpoint import format_outpoint, parse_outpoint, txid_hex
from ..core.units import LOCKTIME_MAX
from ..exits import EXIT_BAD_CONFIG
from ..instances import Instances, read_instances
from ..parts import require_gateway, require_server
from ..printing import show
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import Stored, StoreMessage
from ..settings.load import load_server_config
from ..supervisor import Supervisor
from . import cluster, doctor, importing, remote, steer, token
from .observing import ask_store
from .output import EXIT_REFUSED, CommandError, utc

EXITS = (
    "exit statuses: 0 done (run: stopped by a signal); 1 refused; 2 wrong usage, or a configuration that must not run; "
    "3 interrupted; 10 done, but the result could not be written to standard output; 70 the machine failed, as a full disk does"
)


def register(subparsers: Any) -> None:
    """Add the operators' subcommands to an argparse parser."""

    what = "holds server.toml, store.toml and signer.toml"

    def add(name: str, action: Callable[[argparse.Namespace], int], text: str, *arguments: tuple[str, str]) -> None:
        parser = subparsers.add_parser(name, help=text, description=text, epilog=EXITS)
        remote.add_place(parser, what)
        parser.add_argument("--json", action="store_true", help="print JSON")
        for argument, meaning in arguments:
            parser.add_argument(argument, metavar=argument.upper(), help=meaning)
        parser.set_defaults(run=action, json=False)

    outpoint = ("outpoint", "FUNDING_TXID/VOUT")
    about = "start signer, store and server of each directory, and keep them running"
    run = subparsers.add_parser("run", help=about, description=about, epilog=EXITS)
    run.add_argument("config_dirs", type=Path, nargs="+", metavar="CONFIG_DIR", help=what)
    run.set_defaults(run=_run, json=False)
    add("channels", _channels, "list the channels that are open or being settled")
    add("channel", _channel, "show one channel", outpoint)
    add("settle", _settle, "have a channel settled now", outpoint)
    steer.register(subparsers, EXITS)
    doctor.register(subparsers)
    about = "sell what an HTTP server offers, which is not touched for it"
    gateway = subparsers.add_parser("gateway", help=about, description=about, epilog=EXITS)
    gateway.add_argument("file", metavar="FILE", help="gateway.toml")
    gateway.add_argument("--check", action="store_true", help="say what is wrong with the file, and start nothing")
    gateway.set_defaults(run=_gateway, json=False)
    about = "serve what is counted, or print it"
    counts = subparsers.add_parser("metrics", help=about, description=about, epilog=EXITS)
    counts.add_argument("config_dir", type=Path, metavar="CONFIG_DIR", help="holds server.toml")
    counts.add_argument("--once", action="store_true", help="print what would be served now, and end")
    counts.set_defaults(run=_metrics, json=False)
    about = "serve the operator's API and page"
    serving = subparsers.add_parser("operator", help=about, description=about, epilog=EXITS)
    serving.add_argument("config_dir", type=Path, metavar="CONFIG_DIR", help=what)
    serving.set_defaults(run=_operator, json=False)
    about = "say who may sell, and who may operate"
    tokens = subparsers.add_parser("token", help=about, description=about).add_subparsers(required=True, metavar="ACTION")
    token.register(tokens, EXITS)
    about = "work on a cluster of several machines"
    clusters = subparsers.add_parser("cluster", help=about, description=about).add_subparsers(required=True, metavar="ACTION")
    cluster.register(clusters, EXITS)
    about = "work on configurations"
    config = subparsers.add_parser("config", help=about, description=about).add_subparsers(required=True, metavar="ACTION")
    about = "say what is missing or wrong in a configuration"
    check = config.add_parser("check", help=about, description=about, epilog=EXITS)
    check.add_argument("config_dirs", type=Path, nargs="+", metavar="CONFIG_DIR", help=what)
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=_check)
    importing.register(config, EXITS)


def _run(arguments: argparse.Namespace) -> int:
    require_server("paychan run")
    logs.set_up("supervisor")
    if len(arguments.config_dirs) > 1:
        return Instances(arguments.config_dirs).run()
    supervisor = Supervisor(arguments.config_dirs[0])
    logs.set_up("supervisor", supervisor.server.common.log)
    return supervisor.run()


def _metrics(arguments: argparse.Namespace) -> int:
    require_server("paychan metrics")
    from ..metrics import command  # compiled parts of the server

    config = load_server_config(arguments.config_dir / "server.toml")
    if arguments.once:
        show(command.text_now(config))
    else:
        command.serve(config)
    return 0


def _operator(arguments: argparse.Namespace) -> int:
    require_server("paychan operator")
    from ..operator.command import serve  # compiled parts of the server

    serve(arguments.config_dir)
    return 0


def _gateway(arguments: argparse.Namespace) -> int:
    require_gateway("paychan gateway")
    from ..gateway.command import run  # a payer's installation has it not

    return run(arguments)


# --- config check ---


def _check(arguments: argparse.Namespace) -> int:
    """Print every problem of the three files and of what they name, and of several directories what they share; exit status 2 if
    there is one."""
    _, each, together = read_instances(arguments.config_dirs)
    problems = [*sum(each, []), *(together if len(each) > 1 else [])]
    if arguments.json:
        show(json.dumps({"problems": problems}))
    else:
        show("\n".join(problems) if problems else "no problem found")
    return EXIT_BAD_CONFIG if problems else 0


# --- looking at the store ---


def _describe(outpoint: bytes, stored: Stored) -> dict[str, Any]:
    terms, state = ChannelTerms.parse(outpoint, stored.terms), ChannelState.parse(stored.state)
    return {
        "outpoint": format_outpoint(outpoint),
        "phase": Phase(state.phase).name.lower(),
        "funding_value": terms.funding_value,
        "received": terms.funding_value - state.payment.change_value,
        "channel_value_left": state.payment.change_value,
        "spent": state.sales.spent,
        "reserved": state.sales.reserved_at(int(time.time())),
        "client_pubkey": terms.client_pubkey.hex(),
        "exp_time": terms.exp_time,
        "opened_at": terms.opened_at,
        "settlement_txid": txid_hex(state.settlement_txid) if state.settlement_txid else None,
        "settlement": stored.settlement.hex() or None,
    }


def _channels(arguments: argparse.Namespace) -> int:
    api = remote.remote_of(arguments)
    found = _channels_here(arguments) if api is None else _channels_there(api)
    if arguments.json:
        show(json.dumps({"channels": found}))
        return 0
    lines = [
        f"{row['outpoint']} {row['phase']} received {row['received']} of {row['funding_value']} expires {utc(row['exp_time'])}"
        for row in found
    ]
    unsettled = sum(row["received"] for row in found)
    show("\n".join([*lines, f"{len(found)} channel{'' if len(found) == 1 else 's'}, {unsettled} satoshi unsettled"]))
    return 0


def _channels_there(api: remote.Remote) -> list[dict[str, Any]]:
    """Return all that are open or being settled, page by page."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = api.get("channels", "GET", f"/channels?limit=500{f'&after={quote(after)}' if after else ''}")
        found += [_as_here(row) for row in page["channels"] if row["phase"] != "settled"]
        after = str(page["next"] or "")
        if not after:
            return found


def _as_here(row: dict[str, Any]) -> dict[str, Any]:
    """Return a channel with the keys that a command on the spot prints, and the others as they come."""
    names = {"expires_at": "exp_time"} | {f"{name}_satoshi": name for name in ("funding_value", "received", "spent")}
    return {names.get(name, name): value for name, value in row.items()}


def _channels_here(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    async def ask(store: StoreClient) -> list[dict[str, Any]]:
        pairs = await store.scan(StoreMessage.SCAN_EXPIRING, LOCKTIME_MAX)
        pairs += await store.scan(StoreMessage.SCAN_UNFINISHED)
        stored = [(outpoint, await store.load(outpoint)) for _, outpoint in pairs]
        return [_describe(outpoint, found) for outpoint, found in stored if found is not None]

    found: list[dict[str, Any]] = asyncio.run(ask_store(arguments.config_dir, ask))
    return found


def _channel(arguments: argparse.Namespace) -> int:
    outpoint, api = _outpoint(arguments.outpoint), remote.remote_of(arguments)
    if api is not None:
        row = _as_here(api.get("outpoint", "GET", f"/channels/{format_outpoint(outpoint)}"))
    else:
        stored = asyncio.run(ask_store(arguments.config_dir, lambda store: store.load(outpoint)))
        if stored is None:
            raise CommandError("no such channel")
        row = _describe(outpoint, stored)
    if arguments.json:
        show(json.dumps(row))
    else:
        readable = row | {key: utc(row[key]) for key in ("exp_time", "opened_at") if row.get(key)}
        show("\n".join(f"{key}: {value}" for key, value in readable.items()))
    return 0


def _outpoint(text: str) -> bytes:
    txid, _, vout = text.replace(":", "/").partition("/")
    try:
        return parse_outpoint(txid, vout)
    except Rejection as error:
        raise CommandError(f"{text} is no outpoint; write FUNDING_TXID/VOUT") from error


# --- settling ---


def _settle(arguments: argparse.Namespace) -> int:
    outpoint, api = _outpoint(arguments.outpoint), remote.remote_of(arguments)
    if api is None:
        body = _settle_here(arguments, outpoint)
    else:
        body = api.ask("POST", f"/channels/{format_outpoint(outpoint)}/settle", {})
    show(json.dumps(body) if arguments.json else str(body.get("settlement_txid") or body.get("detail")))
    return EXIT_REFUSED if "code" in body else 0


def _settle_here(arguments: argparse.Namespace, outpoint: bytes) -> dict[str, Any]:
    require_server("paychan settle")
    from ..operator import acting  # compiled parts of the server

    config = load_server_config(arguments.config_dir / "server.toml")
    run_dir = (config.common.state_dir / "run").absolute()
    try:
        _, answer = asyncio.run(acting.settle(run_dir, outpoint, config.cluster is not None))
    except Unavailable as error:
        raise CommandError(f"{error.detail}: is the server running?") from error
    body: dict[str, Any] = json.loads(answer)
    return body
