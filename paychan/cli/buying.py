"""`paychan get` and `paychan post`: a request that pays for itself, out of the purse."""

import argparse
import base64
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from ..client import StateError
from ..client.errors import printable
from ..client.sources import Esplora, bitcoind
from ..exits import EXIT_UNPRINTED
from ..mpp.problems import parse_problem
from ..pay.budget import Question
from ..pay.errors import FundingNeeded
from ..pay.node import NodeWallet
from ..pay.plain import Payer, Response
from ..pay.purse import Purse
from ..pay.settings import looking
from ..pay.wallets import Wallet
from ..printing import say, show
from .output import StatusError, UsageError, progress
from .places import purse_directory
from .qr import terminal_qr
from .session import policy_of

BODY_IN_JSON_MAX = 16 << 20


def get(arguments: argparse.Namespace) -> int:
    """Buy what is at a URL, and print it."""
    headers, body = _headers(arguments), _body(arguments)
    method = arguments.method or ("POST" if body is not None else "GET")
    payer = payer_of(arguments)
    before = _signed_away(payer.purse)
    with _asked(arguments, payer, method, headers, body) as response:
        status = _deliver(arguments, payer, response, before)
    if status == 0 and response.status >= 400:
        raise StatusError(_refusal(response))
    return status


def _refusal(response: Response) -> str:
    """Return what the server says, as far as it can be said in a line."""
    told = parse_problem(response.start, response.status).detail
    return printable(f"the server answers {response.status} {response.reason}{f': {told}' if told else ''}")


def payer_of(arguments: argparse.Namespace) -> Payer:
    """Return the payer that the arguments describe."""
    purse = Purse(purse_directory(arguments), wallet=_wallet(arguments), ask=lambda question: _may(arguments, question))
    if arguments.max_price is not None:
        purse.budget = replace(purse.budget, request=arguments.max_price)
    payer = Payer(purse, deadline=policy_of(arguments).deadline)
    payer.timeout = max(arguments.deadline, 1.0)
    return payer


def _wallet(arguments: argparse.Namespace) -> Wallet | None:
    """Return what pays for new channels, None for what purse.toml says."""
    cookie = Path(arguments.cookie) if arguments.cookie else None
    if arguments.bitcoind and arguments.wallet is not None:
        return NodeWallet(arguments.bitcoind, cookie, arguments.wallet)
    if arguments.wallet is not None:
        raise UsageError("--wallet NAME needs the node that has it: --bitcoind URL")
    if arguments.esplora:
        return looking(lambda _: Esplora(arguments.esplora))
    if arguments.bitcoind:
        return looking(lambda network: bitcoind(arguments.bitcoind, arguments.cookie, network))
    return None


def _may(arguments: argparse.Namespace, question: Question) -> bool:
    """Return whether a payment above the budget may be made: by --yes, or by who sits there."""
    if question.limit == "request" and arguments.max_price is not None:
        return False
    if arguments.yes:
        return True
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        return False
    say(f"{question}. Pay all the same? [y/N]")
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except (OSError, ValueError):  # the terminal has gone, or that was no text
        return False


@contextmanager
def _asked(
    arguments: argparse.Namespace, payer: Payer, method: str, headers: dict[str, str], body: bytes | None
) -> Iterator[Response]:
    """Yield the answer. With --wait a channel's money is waited for."""
    deadline, is_told = time.monotonic() + arguments.wait_seconds, False
    response = None
    while response is None:
        try:
            response = payer.request(method, arguments.url, headers, body)
        except FundingNeeded as error:
            if not is_told:
                progress(arguments, f"{error.detail}\n{error.uri}\n{terminal_qr(error.uri, sys.stderr)}")
            if not arguments.wait or time.monotonic() > deadline:
                raise
            is_told = True
            time.sleep(arguments.poll_seconds)
    with response:
        yield response


def _deliver(arguments: argparse.Namespace, payer: Payer, response: Response, before: tuple[int, int]) -> int:
    """Write the body as it comes, and say what it cost."""
    kept: list[bytes] = []
    last = b"\n"
    with _output(arguments) as output:
        for piece in payer.goods(response):
            if output is None:
                kept.append(piece)
                if sum(map(len, kept)) > BODY_IN_JSON_MAX:
                    raise UsageError("the answer is too long for --json: use --output FILE")
                continue
            try:
                output.write(piece)
                output.flush()
                last = piece[-1:] or last
            except BrokenPipeError:
                return 0  # a reader who went away has seen enough
            except OSError as error:
                say(f"paychan: the answer cannot be written: {error.strerror}")
                return EXIT_UNPRINTED
    amount, opening = (now - then for now, then in zip(_signed_away(payer.purse), before, strict=True))
    if arguments.json:
        show(json.dumps({"status": response.status, "paid": amount + opening, **_content(kept, arguments)}))
    elif amount + opening and not arguments.quiet:
        line = "\n" if last != b"\n" and not arguments.output and sys.stdout and sys.stdout.isatty() else ""
        channel = f", and {opening} for a new channel" if opening else ""
        say(f"{line}paid {amount} satoshi{channel}; `paychan spending` tells more")
    return 0


def _content(kept: list[bytes], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the body for JSON: as text if it is some, else as base64."""
    if arguments.output:
        return {"file": arguments.output}
    body = b"".join(kept)
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


@contextmanager
def _output(arguments: argparse.Namespace) -> Iterator[BinaryIO | None]:
    """Yield where the body goes; None: into the JSON object."""
    if arguments.output and arguments.output != "-":
        try:
            file = open(arguments.output, "wb")  # noqa: SIM115
        except OSError as error:
            raise StateError(f"{arguments.output}: cannot be written: {error.strerror}") from error
        with file:
            yield file
    elif arguments.json:
        yield None
    else:
        yield os.fdopen(os.dup(1), "wb")


def _signed_away(purse: Purse) -> tuple[int, int]:
    """Return what was signed away by now, satoshi: for goods, and for opening channels."""
    rows = list(purse.ledger.rows())
    return sum(row.amount for row in rows), sum(row.opening for row in rows)


def _headers(arguments: argparse.Namespace) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in arguments.header or []:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or not text.isprintable():
            raise UsageError(f"--header must be NAME:VALUE, not {text[:80]!r}")
        found[name.strip()] = value.strip()
    return found


def _body(arguments: argparse.Namespace) -> bytes | None:
    """Return the body of --data; a text that begins with @ names a file, @- standard input."""
    data = arguments.data
    if data is None:
        return b"" if arguments.run_as == "POST" else None
    try:
        if data == "@-":
            return sys.stdin.buffer.read()
        if data.startswith("@"):
            return Path(data[1:]).read_bytes()
    except OSError as error:
        raise UsageError(f"{data[1:]!r}: cannot be read: {error.strerror}") from error
    return str(data).encode(errors="surrogateescape")
