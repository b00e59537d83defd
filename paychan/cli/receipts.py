"""`paychan receipts key|public|verify`: a seller's key for receipts, and a look at receipts that it signed."""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..printing import show
from .output import EXIT_REFUSED, CommandError

EXITS = (
    "exit statuses: 0 done (verify: all is well); 1 refused (verify: something is wrong); 2 wrong usage; 9 a key file is missing, "
    "damaged or cannot be written; 10 done, but the result could not be written to standard output"
)


def register(subparsers: Any) -> None:
    """Add the actions to an argparse parser."""
    about = "signed receipts: make a key, publish it, verify"
    actions = subparsers.add_parser("receipts", help=about, description=about).add_subparsers(required=True, metavar="ACTION")
    texts = {
        "key": (_key, "make a receipts key, and print its public half", "KEY_FILE"),
        "public": (_public, "print what a seller publishes of its keys: a JWK set", "KEY_FILE"),
        "verify": (_verify, "verify the receipts in a file, one a line, in the order in which they came", "FILE"),
    }
    for name, (action, text, file) in texts.items():
        parser = actions.add_parser(name, help=text, description=text, epilog=EXITS)
        parser.add_argument("file", type=Path, metavar=file, nargs="+" if name == "public" else None)
        if name == "verify":
            parser.add_argument(
                "--keys", type=Path, required=True, metavar="JWK_FILE", help="the seller's public keys, as it publishes them"
            )
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=_needing_joserfc(action))


def _needing_joserfc(action: Any) -> Any:
    def run(arguments: argparse.Namespace) -> int:
        if find_spec("joserfc") is None:
            raise CommandError("signatures of receipts need joserfc: pip install 'paychan[receipts]'")
        status: int = action(arguments)
        return status

    return run


def _key(arguments: argparse.Namespace) -> int:
    from ..receipts.keys import make_key, public_jwk

    show(json.dumps(public_jwk(make_key(arguments.file))))
    return 0


def _public(arguments: argparse.Namespace) -> int:
    from ..receipts.keys import public_set, read_key

    show(json.dumps(public_set(*map(read_key, arguments.file))))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from ..receipts.keys import read_public
    from ..receipts.verify import examine

    try:
        with open(arguments.file, encoding="ascii", errors="replace") as file:
            verdict = examine(file, read_public(arguments.keys))
    except OSError as error:
        raise CommandError(f"{arguments.file}: cannot be read: {error.strerror}") from error
    if arguments.json:
        show(json.dumps(verdict.as_object()))
        return 0 if verdict.is_good else EXIT_REFUSED
    lines = [*verdict.problems]
    for chain in verdict.chains:
        whole = "from its first receipt on" if chain.is_whole else "from a later receipt on"
        lines.append(f"channel {chain.channel_id}: {chain.receipts} receipts, {chain.amount} satoshi, {whole}")
        for word, found in (("wrong", chain.problems), ("missing", chain.gaps), ("note", chain.remarks)):
            lines += [f"  {word}: {text}" for text in found]
    show("\n".join([*lines, f"{verdict.receipts} receipts, {verdict.amount} satoshi: {verdict.word}"]))
    return 0 if verdict.is_good else EXIT_REFUSED
