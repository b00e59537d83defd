"""`paychan cluster certificates DIRECTORY --host HOST ...`: what the machines of a cluster know each other by."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from ..printing import show
from ..settings import hosts
from .certificates import DATABASE, DAYS, PEER, RENEWED_BEFORE, Machine, make_certificates

DAYS_MAX = 3650
_KINDS = {"workers": PEER, "database": DATABASE}


def register(actions: Any, exits: str) -> None:
    """Add the actions to an argparse parser."""
    text = (
        "make a certificate for each machine, signed by an authority that is made the first time; those that end soon are renewed. "
        "Run it where you keep secrets; copy to each machine its own folder, never ca.key"
    )
    parser = actions.add_parser("certificates", help=text.partition(";")[0], description=text, epilog=exits)
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="holds ca.crt and ca.key, and a folder for each machine")
    parser.add_argument(
        "--host",
        type=_machine,
        action="append",
        required=True,
        metavar="HOST[,HOST...]",
        help="a machine: first what the others connect to (cluster.peer_host, or where its PostgreSQL listens), then further names "
        "or IP addresses of it; once for each machine",
    )
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=sorted(_KINDS),
        default="workers",
        help="workers, which speak to each other (the default), or the database: PostgreSQL, and all who come to it. Each has a "
        "directory of its own",
    )
    parser.add_argument("--days", type=_days, default=DAYS, metavar="N", help=f"until a certificate ends ({DAYS})")
    help_text = f"make all anew, not only those with less than 1/{RENEWED_BEFORE} of --days left"
    parser.add_argument("--renew", action="store_true", help=help_text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_certificates)


def _machine(text: str) -> Machine:
    try:
        names = tuple(hosts.host(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: {text[:80]!r}") from error
    if not all(names):
        raise argparse.ArgumentTypeError("names an empty host")
    return Machine(names)


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= DAYS_MAX):
        raise argparse.ArgumentTypeError(f"must be a whole number of days from 1 to {DAYS_MAX}")
    return int(text)


def _certificates(arguments: argparse.Namespace) -> int:
    directory: Path = arguments.directory
    kinds = _KINDS[arguments.purpose]
    done = make_certificates(directory, arguments.host, time.time(), arguments.days, arguments.renew, kinds)
    rows = [{"host": machine.hosts[0], "directory": str(directory / machine.hosts[0]), "done": what} for machine, what in done]
    lines = [f"{row['directory']}: {row['done']}" for row in rows]
    show(json.dumps({"certificates": rows}) if arguments.json else "\n".join(lines))
    return 0
