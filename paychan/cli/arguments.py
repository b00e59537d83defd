"""The forms of the payer's arguments: text in, a checked value out. What is wrong is said in the words of whoever typed it."""

import argparse
import json
import re
import sys
from decimal import Decimal
from typing import NoReturn
from urllib.parse import urlsplit

from ..client import Funding
from ..client.sources import NodeAddress, parse_node_url
from ..client.wire import parse_url
from ..core.errors import Rejection
from ..core.outpoint import parse_outpoint
from ..core.units import COIN, MAX_MONEY
from .output import EXIT_USAGE
from .places import is_name

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\Z")
_NUMBER_SIZE_MAX = 24  # characters: Decimal and float read so many digits without rounding more than they may
_SHOWN_MAX = 80


class Parser(argparse.ArgumentParser):
    """A parser that tells a wrong argument as any other error is told: in one line, or with `--json` as JSON."""

    def error(self, message: str) -> NoReturn:
        content = {"code": "usage", "detail": message, "exit_status": EXIT_USAGE}
        text = f"{self.prog}: {message} (usage); `{self.prog} --help` tells more"
        self.exit(EXIT_USAGE, (json.dumps(content) if "--json" in sys.argv[1:] else text) + "\n")


def _refuse(wanted: str, text: str) -> argparse.ArgumentTypeError:
    shown = text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."
    return argparse.ArgumentTypeError(f"{wanted}, not {shown!r}")


def satoshi(text: str) -> int:
    """Return an amount in satoshi, 0 to all that there can be."""
    if not (text.isascii() and text.isdigit()):
        raise _refuse("must be a whole number of satoshi", text)
    if len(text.lstrip("0")) > 16 or int(text) > MAX_MONEY:
        raise _refuse(f"must be at most {MAX_MONEY} satoshi, which is every bitcoin there can be", text)
    return int(text)


def funding_value(text: str) -> int:
    """Return an amount in satoshi of which a channel can be made: more than none."""
    value = satoshi(text)
    if not value:
        raise _refuse("must be at least 1 satoshi", text)
    return value


def satoshi_or_all(text: str) -> int | str:
    """Return an amount in satoshi, or "all"."""
    return text if text == "all" else satoshi(text)


def _is_number(text: str) -> bool:
    return len(text) <= _NUMBER_SIZE_MAX and bool(_NUMBER.match(text))


def bitcoins(text: str) -> int:
    """Return an amount that is given in bitcoins, in satoshi: more than none."""
    if not _is_number(text):
        raise _refuse("must be a number of bitcoins, such as 0.05", text)
    value = Decimal(text) * COIN
    if not 0 < value <= MAX_MONEY:
        raise _refuse(f"must be more than 0 and at most {MAX_MONEY // COIN} bitcoins", text)
    if value != value.to_integral_value():
        raise _refuse("must have at most 8 decimals: one satoshi is 0.00000001", text)
    return int(value)


def _positive(text: str, unit: str, most: float) -> float:
    if not _is_number(text):
        raise _refuse(f"must be a number of {unit}", text)
    value = float(text)
    if not 0 < value <= most:
        raise _refuse(f"must be more than 0 and at most {most:.0f} {unit}", text)
    return value


def days(text: str) -> float:
    """Return a number of days; a part of a day counts, too."""
    return _positive(text, "days", 1e9)


def seconds(text: str) -> float:
    """Return a number of seconds."""
    return _positive(text, "seconds", 1e9)


def fee_rate(text: str) -> float:
    """Return a fee in satoshi for each byte."""
    return _positive(text, "satoshi per byte", 1e6)


def funding(text: str) -> Funding:
    """Return the funding output in TXID:VOUT:SATOSHI."""
    parts = text.split(":")
    try:
        if len(parts) == 3:
            return Funding(parse_outpoint(parts[0], parts[1]), funding_value(parts[2]))
    except Rejection:
        pass
    raise _refuse("must be TXID:VOUT:SATOSHI (64 hexadecimal digits, a number, a number)", text)


def url(text: str) -> str:
    """Return an http or https URL as it is."""
    try:
        parse_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def resource(text: str) -> str:
    """Return the http or https URL of something that can be asked for; it is not repeated if it is none: it may hold a secret."""
    parts = urlsplit(text)
    try:
        parse_url(f"{parts.scheme}://{parts.netloc}")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not re.fullmatch(r"[\x21-\x7e]+", text) or parts.fragment:
        raise argparse.ArgumentTypeError("the URL must be plain ASCII, without spaces and without a fragment")
    return text


def method(text: str) -> str:
    """Return the name of an HTTP method."""
    if not re.fullmatch(r"[A-Z]{1,20}", text):
        raise _refuse("must be an HTTP method in capitals, such as PUT", text)
    return text


def node_url(text: str) -> NodeAddress:
    """Return where a Bitcoin node is. Its URL may hold a password, so it is never repeated."""
    try:
        return parse_node_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def name(text: str) -> str:
    """Return a channel's name, which is a file's, too."""
    if not is_name(text):
        raise _refuse("must be a name of up to 64 letters, digits, '.', '_' and '-'", text)
    return text
