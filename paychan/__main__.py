"""The command `paychan`: for operators, and for payers."""

import sys

from . import __version__
from .cli import operator, payer
from .cli.arguments import Parser
from .core.errors import ConfigError


def main() -> None:
    """Parse the command line and run what it names."""
    parser = Parser(prog="paychan", description="Bitcoin payment channels")
    parser.add_argument("--version", action="version", version=f"paychan {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    operator.register(subparsers)
    payer.register(subparsers)
    arguments = parser.parse_args()
    try:
        status = arguments.run(arguments)
    except (ConfigError, operator.CommandError) as error:
        status = operator.fail(error)
    sys.exit(status)


if __name__ == "__main__":
    main()
