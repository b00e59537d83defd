"""The payer's commands on the command line: `register` adds them to the parser of `paychan`."""

import argparse

from ..core.network import BY_NAME
from ..printing import show
from . import arguments as forms
from . import buying, commands, completion, funding, spending
from .guard import Command
from .output import EXIT_TEXT

DEADLINE_SECONDS = 30.0
PURSE = "where the purse is (default: `purse` in the state directory)"


def register(subparsers: "argparse._SubParsersAction[forms.Parser]") -> None:
    """Add the payer's commands, from keygen to completion, to a parser's."""

    def add(name: str, command: Command, about: str) -> argparse.ArgumentParser:
        parser = subparsers.add_parser(
            name, help=about, description=about, epilog=EXIT_TEXT, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object; errors as JSON on stderr")
        parser.add_argument("--state-dir", metavar="DIR", help="default: $XDG_DATA_HOME/paychan or ~/.local/share/paychan")
        parser.set_defaults(run=command)
        return parser

    keygen = add("keygen", funding.keygen, "make a secret key file")
    keygen.add_argument("file", nargs="?", metavar="FILE", help="default: payer.key in the state directory")
    _add_fund(add("fund", funding.fund, "agree on a channel with a server, and show where to pay"))
    _add_open(add("open", commands.open_channel, "open a funded channel"))
    _add_pay(add("pay", commands.pay, "pay on an open channel"))
    status = _named(add("status", commands.status, "show a channel"))
    status.add_argument("--resend", action="store_true", help="send a payment whose outcome is unknown again")
    _deadline(status)
    close = _named(add("close", commands.close, "have a channel settled"))
    close.add_argument("--settlement", metavar="FILE", help="check this settlement transaction (hex): does it pay the change?")
    _deadline(close)
    _add_refund(add("refund", commands.refund, "make the transaction that takes everything back after the expiry"))
    _add_request(add("get", buying.get, "fetch a URL, and pay for it out of the purse if that is asked"), "GET")
    _add_request(add("post", buying.get, "send data to a URL, and pay for it"), "POST")
    spent = add("spending", spending.spending, "show what was paid, to whom, and what the budget leaves")
    spent.add_argument("--purse", metavar="DIR", help=PURSE)
    spent.add_argument("--days", type=forms.days, default=30.0, metavar="DAYS", help="how far back (default: 30)")
    _add_purse(subparsers)
    add("list", commands.list_channels, "list all channels")
    shells = add("completion", lambda arguments: _complete(arguments, subparsers), "print a completion script for a shell")
    shells.add_argument("shell", choices=completion.SHELLS)


def _complete(arguments: argparse.Namespace, subparsers: "argparse._SubParsersAction[forms.Parser]") -> int:
    show(completion.script(arguments.shell, "paychan", dict(subparsers.choices)), end="")
    return 0


def _named(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("name", metavar="NAME", type=forms.name, help="the channel")
    return parser


def _deadline(parser: argparse.ArgumentParser) -> None:
    about = "give up on an unknown outcome after this long (default: 30)"
    parser.add_argument("--deadline", type=forms.seconds, default=DEADLINE_SECONDS, metavar="SECONDS", help=about)


def _chain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--esplora", type=forms.url, metavar="URL", help="a block explorer's API, e.g. https://blockstream.info/testnet/api"
    )
    parser.add_argument("--bitcoind", type=forms.node_url, metavar="URL", help="your own node, http://[USER:PASSWORD@]HOST:PORT")
    parser.add_argument("--cookie", metavar="FILE", default="", help="the node's cookie file, instead of user and password")


def _funding(parser: argparse.ArgumentParser, what: str) -> None:
    """Let an output at the channel's address be named, by its transaction or by its outpoint."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--funding-tx", metavar="FILE", help=f"{what} transaction in hex: proves its output's value")
    about = f"{what} output, if you are sure of its value"
    which.add_argument("--funding", type=forms.funding, metavar="TXID:VOUT:SATOSHI", help=about)


def _waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--poll-seconds", type=forms.seconds, default=15.0, metavar="SECONDS", help="how often it is asked")
    parser.add_argument("--wait-seconds", type=forms.seconds, default=86_400.0, metavar="SECONDS", help="how long it is asked")


def _add_fund(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", type=forms.url, help="the server, e.g. https://pay.example.com")
    value = parser.add_mutually_exclusive_group(required=True)
    value.add_argument("--amount", type=forms.funding_value, metavar="SATOSHI", help="how much to lock up")
    value.add_argument("--btc", type=forms.bitcoins, metavar="BITCOINS", help="the same in bitcoins")
    value.add_argument("--debug", action="store_true", help="the server is in debug mode: no money is needed")
    parser.add_argument("--expires-in", type=forms.days, required=True, metavar="DAYS", help="when your refund becomes possible")
    parser.add_argument("--network", choices=sorted(BY_NAME), help="default: live; with --debug: test")
    parser.add_argument("--name", type=forms.name, metavar="NAME", help="what to call the channel (default: channel-N)")
    parser.add_argument("--key", metavar="FILE", help="your secret key (default: a new one, NAME.key)")
    parser.add_argument("--change-address", metavar="ADDRESS", help="where your change goes (default: your key's address)")
    parser.add_argument("--wait", action="store_true", help="wait for the money; needs --esplora or --bitcoind")
    parser.add_argument("--allow-http", action="store_true", help="use plain http for real bitcoins")
    _chain(parser)
    _waiting(parser)
    _deadline(parser)


def _add_open(parser: argparse.ArgumentParser) -> None:
    _named(parser)
    about = "the first payment (default: the open price agreed)"
    parser.add_argument("--amount", type=forms.satoshi, metavar="SATOSHI", help=about)
    _funding(parser, "the funding")
    parser.add_argument("--resume", action="store_true", help="sign again after the channel was put on hold")
    _chain(parser)
    _waiting(parser)
    _deadline(parser)


def _add_pay(parser: argparse.ArgumentParser) -> None:
    _named(parser)
    about = "satoshi, or all: that closes the channel"
    parser.add_argument("amount", metavar="AMOUNT", type=forms.satoshi_or_all, help=about)
    parser.add_argument("--yes", action="store_true", help="do not ask before all is given away")
    parser.add_argument("--resume", action="store_true", help="sign again after the channel was put on hold")
    _deadline(parser)


def _add_refund(parser: argparse.ArgumentParser) -> None:
    _named(parser)
    parser.add_argument("--fee-rate", type=forms.fee_rate, required=True, metavar="N", help="satoshi per byte")
    _funding(parser, "instead of the channel's own, another")
    parser.add_argument("--broadcast", action="store_true", help="publish it; needs --esplora or --bitcoind")
    _chain(parser)
    parser.set_defaults(deadline=DEADLINE_SECONDS)


def _buyer(parser: argparse.ArgumentParser) -> None:
    """Add what every command has that pays out of the purse."""
    parser.add_argument("--purse", metavar="DIR", help=PURSE)
    parser.add_argument("--max-price", type=forms.satoshi, metavar="SATOSHI", help="pay at most this for the request")
    parser.add_argument("--yes", action="store_true", help="pay what the budget does not allow, without asking")
    about = "fund new channels from this wallet of the node ('' if it has one alone)"
    parser.add_argument("--wallet", metavar="NAME", help=about)
    _chain(parser)
    _deadline(parser)


def _add_request(parser: argparse.ArgumentParser, method: str) -> None:
    parser.add_argument("url", metavar="URL", type=forms.resource, help="what to buy")
    parser.add_argument("-X", "--method", type=forms.method, metavar="METHOD", help=f"default: {method}")
    parser.add_argument("-H", "--header", action="append", metavar="NAME:VALUE", help="a header; as often as you like")
    parser.add_argument("-d", "--data", metavar="TEXT", help="the body; @FILE takes it from a file, @- from standard input")
    parser.add_argument("-o", "--output", metavar="FILE", help="where the answer goes (default: standard output)")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not say what was paid")
    parser.add_argument("--wait", action="store_true", help="wait until a new channel has its money")
    _buyer(parser)
    _waiting(parser)
    parser.set_defaults(run_as=method)


def _add_purse(subparsers: "argparse._SubParsersAction[forms.Parser]") -> None:
    about = "work on the purse"
    actions = subparsers.add_parser("purse", help=about, description=about).add_subparsers(required=True, metavar="ACTION")

    def add(name: str, command: Command, about: str) -> argparse.ArgumentParser:
        shape = argparse.RawDescriptionHelpFormatter
        parser = actions.add_parser(name, help=about, description=about, epilog=EXIT_TEXT, formatter_class=shape)
        parser.add_argument("--json", action="store_true", help="print one JSON object; errors as JSON on stderr")
        parser.add_argument("--state-dir", metavar="DIR", help="default: $XDG_DATA_HOME/paychan or ~/.local/share/paychan")
        parser.set_defaults(run=command)
        return parser

    trust = add("trust", spending.trust, "agree to the key and network that a server names next")
    trust.add_argument("url", metavar="URL", type=forms.url, help="the server")
    trust.add_argument("--purse", metavar="DIR", help=PURSE)
    fund = _named(add("fund", spending.fund, "name the output that funds a new channel"))
    fund.add_argument("--purse", metavar="DIR", help=PURSE)
    _funding(fund, "the funding")
    psbt = _named(add("psbt", spending.psbt, "print a PSBT that funds a new channel out of a node's wallet"))
    sent = _named(add("broadcast", spending.broadcast, "send a signed PSBT, which funds a new channel"))
    sent.add_argument("file", metavar="FILE", help="the PSBT, base64 or binary")
    for parser in (psbt, sent):
        parser.add_argument("--purse", metavar="DIR", help=PURSE)
        parser.add_argument("--wallet", metavar="NAME", help="the node's wallet, if it has several")
        _chain(parser)
    close = _named(add("close", spending.close, "have a channel settled by its server"))
    close.add_argument("url", metavar="URL", type=forms.resource, help="anything that the server sells")
    _buyer(close)
