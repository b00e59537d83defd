"""`paychan overview|events|freeze|thaw|drain|limits`: what is, and what an operator changes at run time; from elsewhere, too."""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from ..core.errors import Rejection, Unavailable
from ..parts import require_server
from ..printing import show
from ..rpc.store_client import StoreClient
from ..settings.load import load_server_config, load_store_config
from ..settings.models import ServerConfig
from ..settings.steering import LIMITS
from .observing import ask_store
from .output import CommandError, UsageError, utc
from .remote import add_place, add_server, remote_of

STORE_SECONDS_MAX = 1.0
"""An overview is for trouble, too: a store that is away holds it up for no longer."""


def register(subparsers: Any, exits: str) -> None:
    """Add the subcommands to an argparse parser."""

    def add(name: str, action: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = subparsers.add_parser(name, help=text, description=text, epilog=exits)
        add_place(parser, "holds server.toml and store.toml")
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=action, json=False)
        return parser

    add("overview", _overview, "say how the system is: workers, store, signer, chain, shards, exposure")
    events = subparsers.add_parser("events", help=(text := "list what has happened, oldest first"), description=text, epilog=exits)
    add_server(events, is_required=True)
    events.add_argument("--after", type=int, default=0, metavar="ID", help="begin behind this event (the first that is kept)")
    events.add_argument("--json", action="store_true", help="print JSON")
    events.set_defaults(run=_events, json=False, config_dir=None)
    freeze = add("freeze", _freeze, "open no channel from now on; payments and settlements go on")
    freeze.add_argument("--why", default="", metavar="TEXT", help="is shown to who looks")
    thaw = add("thaw", _thaw, "open channels again")
    for parser in (freeze, thaw):
        parser.add_argument("--cluster", action="store_true", help="on all machines that share the store, not on this one alone")
    drain = add("drain", _drain, "have a worker, or this machine, give its shards away")
    what = drain.add_mutually_exclusive_group(required=True)
    what.add_argument("--worker", type=int, metavar="NUMBER", help="one worker, as `paychan overview` numbers them; it is replaced")
    what.add_argument("--machine", action="store_true", help="all workers of the machine, until --undo")
    what.add_argument("--undo", action="store_true", help="have a drained machine serve again")
    limits = add("limits", _limits, "show the limits, or tighten them; never beyond what server.toml allows")
    limits.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help=f"NAME= takes it back; {', '.join(LIMITS)}"
    )


# --- what is ---


def _overview(arguments: argparse.Namespace) -> int:
    remote = remote_of(arguments)
    if remote is None:
        found = _look(arguments)
    else:
        found = remote.get("workers", "GET", "/status")
        found["stores"] = remote.get("stores", "GET", "/cluster")["stores"]
    show(json.dumps(found) if arguments.json else "\n".join(_overview_lines(found)))
    return 0


def _look(arguments: argparse.Namespace) -> dict[str, Any]:
    require_server("paychan overview")
    from ..operator.context import read_context  # compiled parts of the server
    from ..operator.looking import look
    from ..operator.views.cluster import stores

    context = read_context(arguments.config_dir)
    found = _do(lambda: asyncio.run(look(context)))
    try:
        seen = asyncio.run(ask_store(arguments.config_dir, lambda store: store.stores(), STORE_SECONDS_MAX))
    except CommandError:
        return {**found, "stores": []}  # what the workers say of it is told
    return {**found, "stores": stores(seen, time.time())["stores"]}


def _overview_lines(found: dict[str, Any]) -> list[str]:
    ready, chain, shards, exposure, opens = (found[name] for name in ("ready", "chain", "shards", "exposure", "opens"))
    most = {name: "no limit" if exposure[name] is None else exposure[name] for name in exposure}
    lines = [
        f"network {found['network']}{', machine ' + found['machine'] if found['machine'] else ''}, version {found['version']}",
        "takes payments" if ready["is_ready"] else f"takes no payments: {ready['code']} {ready['detail']}".rstrip(),
        f"store {'up' if found['store']['is_up'] else 'away'}, signer {'up' if found['signer']['is_up'] else 'away'}",
        f"shards {shards['owned']} of {shards['total']}",
        *(f"shard {row['shard']} is stopped: {row['why']}" for row in shards["stopped"]),
        f"open {exposure['open_value_satoshi']} of {most['total_value_max_satoshi']} satoshi, "
        f"unsettled {exposure['unsettled_value_satoshi']} of {most['unsettled_value_max_satoshi']}",
        f"openings frozen on {opens['holds_for']} since {utc(opens['since_at'] or 0)} {opens['why']}".rstrip()
        if opens["is_frozen"]
        else "",
        "this machine is drained" if found["is_drained"] else "",
        f"chain at {chain['height']}" if chain["height"] is not None else "",
        "the chain is doubtful" if chain["is_doubtful"] else "",
    ]
    for row in found["workers"]:
        state = "ready" if row["is_ready"] else row["code"] or "not ready"
        lines.append(f"worker {row['number']} pid {row['pid']} {state} shards {row['shards']} channels {row['loaded_channels']}")
    lines += [_store_line(row) for row in found["stores"] if row["name"]]
    return [line for line in lines if line]


def _store_line(row: dict[str, Any]) -> str:
    """Return a machine's line: its store, as this one's sees it."""
    of = ", ".join(sorted({worker["machine"] for worker in row["workers"] if worker["machine"]}))
    workers = f"{len(row['workers'])} worker{'' if len(row['workers']) == 1 else 's'}{' of ' + of if of else ''}"
    life = {"alive": "alive", "silent": "silent", "unknown": "not heard yet"}[row["life"]]
    for_seconds = "" if row["life"] == "alive" else f" for {row['unmoved_seconds']:.0f} s"
    unserved = f", {row['unserved_shards']} unserved" if row["unserved_shards"] else ""
    leases = f", {' and '.join(name.replace('_', ' ') for name in row['leases'])}" if row["leases"] else ""
    who = f"store {row['name']}{' (this machine)' if row['is_this'] else ''} {life}{for_seconds}"
    return f"{who}, shards {row['shards']} on {workers}{unserved}{leases}, open {row['open_value_satoshi']} satoshi"


def _events(arguments: argparse.Namespace) -> int:
    """Print page after page, until there are no more for now."""
    remote, after = remote_of(arguments), arguments.after
    assert remote is not None  # --server is required
    while True:
        page = remote.get("events", "GET", f"/events?limit=500&after={after}")
        for row in page["events"]:
            what = " ".join(f"{name}={value}" for name, value in row["data"].items())
            text = f"{row['id']} {utc(row['at'])} {row['type']} {row.get('outpoint') or ''} {what}"
            show(json.dumps(row) if arguments.json else " ".join(text.split()))
        if page["next"] is None:
            return 0
        after = page["next"]


# --- what changes ---


def _freeze(arguments: argparse.Namespace) -> int:
    return _set_opens(arguments, {"is_frozen": True, "why": arguments.why, "cluster": arguments.cluster})


def _thaw(arguments: argparse.Namespace) -> int:
    return _set_opens(arguments, {"is_frozen": False, "cluster": arguments.cluster})


def _set_opens(arguments: argparse.Namespace, wanted: dict[str, Any]) -> int:
    remote = remote_of(arguments)
    found = _set_opens_here(arguments, **wanted) if remote is None else remote.get("opens", "PUT", "/opens", wanted)
    opens = found["opens"]
    text = f"openings are frozen on {opens['holds_for']}" if opens["is_frozen"] else "channels are opened again"
    if "others_within_seconds" in found:
        seconds = found["others_within_seconds"]
        text += f"\nother machines ask before each opening, and tell payers no other thing within {seconds} seconds"
    return _tell(arguments, found, text)


def _set_opens_here(arguments: argparse.Namespace, is_frozen: bool, cluster: bool, why: str = "") -> dict[str, Any]:
    config, acting = _here(arguments)
    if not cluster:
        return _do(lambda: asyncio.run(acting.freeze(config, is_frozen, acting.check_why(why))))
    lease_ms = load_store_config(arguments.config_dir / "store.toml").lease_ms

    async def ask(store: StoreClient) -> dict[str, Any]:
        found: dict[str, Any] = await acting.freeze_all(config, store, lease_ms, is_frozen, acting.check_why(why))
        return found

    return _do(lambda: asyncio.run(ask_store(arguments.config_dir, ask)))


def _drain(arguments: argparse.Namespace) -> int:
    remote = remote_of(arguments)
    wanted = {"worker": arguments.worker} if arguments.worker is not None else {"machine": arguments.machine}
    if remote is not None:
        found = remote.get("not_yet", "POST", "/drain", wanted)
    elif arguments.worker is not None:
        found = _drain_here(arguments)
    else:
        config, acting = _here(arguments)
        found = _do(lambda: asyncio.run(acting.drain_machine(config, arguments.machine)))
    what = "the worker gives its shards away" if arguments.worker is not None else "the machine gives its shards away"
    return _tell(arguments, found, "the machine serves again" if arguments.undo else what)


def _drain_here(arguments: argparse.Namespace) -> dict[str, Any]:
    config, acting = _here(arguments)
    from ..operator.context import read_context
    from ..operator.looking import pid_of

    context = read_context(arguments.config_dir)
    return _do(lambda: asyncio.run(acting.drain_worker(config, pid_of(context, arguments.worker))))


def _limits(arguments: argparse.Namespace) -> int:
    remote = remote_of(arguments)
    wanted = dict(map(_assignment, arguments.set))
    if remote is not None:
        found = remote.get("limits", "PATCH", "/limits", wanted) if wanted else remote.get("limits", "GET", "/limits")
    else:
        config, acting = _here(arguments)
        if wanted:
            found = _do(lambda: asyncio.run(acting.set_limits(config, wanted)))
        else:
            found = _do(lambda: {"limits": acting.limits(config, acting.current(config))})
    lines = [_limit_line(name, row) for name, row in found["limits"].items()]
    return _tell(arguments, found, "\n".join(lines))


def _limit_line(name: str, row: dict[str, Any]) -> str:
    configured = "" if row["set"] is None else f" (server.toml: {'none' if row['configured'] is None else row['configured']})"
    return f"{name}: {'none' if row['now'] is None else row['now']}{configured}"


def _assignment(text: str) -> tuple[str, int | None]:
    name, equals, number = text.partition("=")
    if not equals or name not in LIMITS or not (number == "" or (number.isascii() and number.isdigit() and len(number) <= 16)):
        raise UsageError(f"--set takes NAME=NUMBER, or NAME= alone; the names are {', '.join(LIMITS)}")
    return name, int(number) if number else None


def _here(arguments: argparse.Namespace) -> tuple[ServerConfig, Any]:
    """Return the configuration of this machine, and what acts on it."""
    require_server("paychan")
    from ..operator import acting  # compiled parts of the server

    return load_server_config(arguments.config_dir / "server.toml"), acting


def _do(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what some work returns. Raises CommandError for a refusal."""
    try:
        return work()
    except (Rejection, Unavailable) as error:
        raise CommandError(f"{error.detail} ({error.code})") from error


def _tell(arguments: argparse.Namespace, found: dict[str, Any], text: str) -> int:
    if arguments.json:
        show(json.dumps(found))
        return 0
    late = found.get("not_yet") or []
    show("\n".join([text, *([f"not yet obeyed by process {', '.join(map(str, late))}: it is stuck, or stopped"] if late else [])]))
    return 0
