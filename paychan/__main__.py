"""The command `paychan`: for operators, and for payers."""

import sys

from . import __version__, logs, printing
from .cli import operator, payer, receipts
from .cli.arguments import Parser
from .cli.guard import guarded


def main() -> int:
    """Parse the command line and run what it names; return its exit status."""
    return printing.run("paychan", _main)


def _main() -> int:
    parser = Parser(prog="paychan", description="Bitcoin payment channels")
    parser.add_argument("--version", action="version", version=f"paychan {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    operator.register(subparsers)
    payer.register(subparsers)
    receipts.register(subparsers)
    arguments = parser.parse_args()
    logs.silence()
    return guarded(arguments.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
