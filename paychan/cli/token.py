"""`paychan token add|list|revoke`: who may ask at the sellers' door, or the operator's API. A change counts at once."""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..printing import show
from ..settings.load import load_server_config
from ..settings.tokens import SCOPES, TOKENS_MAX, Token, digest, is_name, make_token, read_tokens, tokens_file, write_tokens
from .output import CommandError

SCOPES_TEXT = (
    "for sellers: charge sells, and reads; read reads. For operators: watch looks; settle also settles a channel; "
    "steer also freezes opens, drains, and tightens limits"
)


def register(actions: Any, exits: str) -> None:
    """Add the actions to an argparse parser."""
    texts = {
        "add": (_add, "make a token, and print it: it is written nowhere"),
        "list": (_list, "list the tokens by name and scope"),
        "revoke": (_revoke, "make a token worthless, at once"),
    }
    for name, (action, text) in texts.items():
        parser = actions.add_parser(name, help=text, description=text, epilog=exits)
        parser.add_argument("config_dir", type=Path, metavar="CONFIG_DIR", help="holds server.toml")
        if name != "list":
            parser.add_argument("name", type=_name, metavar="NAME", help="what you call it")
        if name == "add":
            parser.add_argument("--scope", choices=SCOPES, required=True, help=SCOPES_TEXT)
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=action)


def _name(text: str) -> str:
    if not is_name(text):
        raise argparse.ArgumentTypeError("must be up to 64 letters, digits, '.', '_' and '-'")
    return text


def _file(arguments: argparse.Namespace) -> Path:
    return tokens_file(load_server_config(arguments.config_dir / "server.toml").common.state_dir)


@contextmanager
def _changing(path: Path) -> Iterator[list[Token]]:
    """Yield the tokens, to be changed in place, and write them. Two such commands at once: the second is refused."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.lockf(handle, os.F_TLOCK, 0)
    except BlockingIOError as error:
        raise CommandError("another command changes the tokens just now") from error
    except OSError as error:
        raise CommandError(f"{lock}: {error.strerror}") from error
    try:
        tokens = read_tokens(path)
        yield tokens
        write_tokens(path, tokens)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        os.close(handle)


def _add(arguments: argparse.Namespace) -> int:
    made = make_token()
    with _changing(_file(arguments)) as tokens:
        if any(token.name == arguments.name for token in tokens):
            raise CommandError(f"there is a token {arguments.name} already; revoke it, or take another name")
        if len(tokens) == TOKENS_MAX:
            raise CommandError(f"there are {TOKENS_MAX} tokens already")
        tokens.append(Token(arguments.name, arguments.scope, digest(made)))
    show(json.dumps({"name": arguments.name, "scope": arguments.scope, "token": made}) if arguments.json else made)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    rows = [{"name": token.name, "scope": token.scope} for token in read_tokens(_file(arguments))]
    lines = [f"{row['name']} {row['scope']}" for row in rows]
    show(json.dumps({"tokens": rows}) if arguments.json else "\n".join(lines) or "no tokens; `paychan token add` makes one")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    with _changing(_file(arguments)) as tokens:
        kept = [token for token in tokens if token.name != arguments.name]
        if len(kept) == len(tokens):
            raise CommandError(f"no token is called {arguments.name}")
        tokens[:] = kept
    show(json.dumps({"revoked": arguments.name}) if arguments.json else f"{arguments.name} is worth nothing any more")
    return 0
