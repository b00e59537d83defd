"""`paychan config import FILE.cfg [DIR]`: a configuration file of the server of 2016, as ours.

One file becomes one of ours. It is complete as far as the old one went; what only an operator knows stays empty, and
`paychan config check` names it.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from ..printing import show
from ..settings.seed import FILE_BYTES_MAX, SeedError, parse
from ..settings.seed_keys import convert
from .output import CommandError

ABOUT = "turn a configuration file of the server of 2016 into one of ours, and say what became of each line; no secret is taken"

Values = dict[tuple[str, str], object]


def register(actions: Any, exits: str) -> None:
    """Add the action to an argparse parser."""
    parser = actions.add_parser("import", help=ABOUT.partition(",")[0], description=ABOUT, epilog=exits)
    parser.add_argument("file", type=Path, metavar="FILE.cfg", help="server.cfg, store.cfg or signing.cfg")
    parser.add_argument("directory", type=Path, metavar="DIR", nargs="?", default=Path(), help="where to (here)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_import)


def _import(arguments: argparse.Namespace) -> int:
    try:
        made = convert(parse(_read(arguments.file)))
    except SeedError as error:
        raise CommandError(f"{arguments.file}: {error}") from error
    path = arguments.directory / f"{made.kind}.toml"
    given: Values = dict(made.values)
    _write(path, as_toml(DEFAULTS[made.kind](given) | given))
    if arguments.json:
        show(json.dumps({"file": str(path), "lines": [vars(note) for note in made.notes]}))
        return 0
    lines = [f"{arguments.file}:{note.line}: {note.key}: {note.what}" for note in made.notes]
    show("\n".join([*lines, f"{path} is made; `paychan config check {arguments.directory}` says what is missing"]))
    return 0


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        text = content.decode()
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"{path}: is no text") from error
    if len(content) > FILE_BYTES_MAX:
        raise CommandError(f"{path}: is longer than {FILE_BYTES_MAX} bytes")
    return text


def _write(path: Path, text: str) -> None:
    """Make a file that is not there yet."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o644)) as file:
            file.write(text)
    except FileExistsError as error:
        raise CommandError(f"{path}: is there already, and is not replaced") from error
    except OSError as error:
        raise CommandError(f"{path}: cannot be made: {error.strerror}") from error


def as_toml(values: Values) -> str:
    """Return values by (table, key) as TOML, tables in the order of their first key."""
    tables: dict[str, list[str]] = {"": []}
    for (table, key), value in values.items():
        tables.setdefault(table, []).append(f"{key} = {json.dumps(value)}")
    return "\n\n".join("\n".join([*([f"[{table}]"] if table else []), *lines]) for table, lines in tables.items()) + "\n"


def _common(given: Values) -> Values:
    return {("", "network"): "", ("", "state_dir"): f"state/{given.get(('', 'network'), 'live')}", ("debug", "enable"): False}


def _server(given: Values) -> Values:
    """Return what a server.toml needs beside what the old file says; limits as config/live has them."""
    is_debug, is_live = bool(given.get(("debug", "enable"))), given.get(("", "network")) == "live"
    values: Values = _common(given) | {
        ("http", "host"): "127.0.0.1",
        ("http", "port"): 8000,
        ("http", "workers"): 1,
        ("processes", "store"): "unix:run/store.sock",
        ("processes", "signer"): "unix:run/signer.sock",
        ("chain", "backend"): "debug" if is_debug else "bitcoind",
        ("open", "price"): "fixed",
        ("open", "duration_hours_min"): 24,
        ("open", "duration_hours_max"): 2160,
    }
    if ("bitcoind", "user") in given:
        values["bitcoind", "password_file"] = "bitcoind.password"
    elif not is_debug:
        values["bitcoind", "cookie_file"] = ""
    if is_live:
        values |= {
            ("open", "confirmations_from"): [[1_000_000, 3], [5_000_000, 6]],
            ("open", "funding_value_max"): 10_000_000,
            ("exposure", "channel_value_max"): 2_000_000,
            ("exposure", "total_value_max"): 50_000_000,
        }
    return values


def _store(given: Values) -> Values:
    return _common(given) | {("store", "address"): "unix:run/store.sock"}


def _signer(given: Values) -> Values:
    return _common(given) | {
        ("signer", "address"): "unix:run/signer.sock",
        ("policy", "funds_destination_address"): "",
        ("policy", "fee_per_byte_max"): 500,
        ("policy", "fee_share_percent_max"): 95,
    }


DEFAULTS = {"server": _server, "store": _store, "signer": _signer}
