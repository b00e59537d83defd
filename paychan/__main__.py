"""The command `paychan`. For operators: `paychan run CONFIG_DIR`."""

import argparse
import sys
from pathlib import Path

from . import __version__
from .config import EXIT_BAD_CONFIG
from .errors import ConfigError
from .supervisor import Supervisor


def _run(arguments: argparse.Namespace) -> int:
    try:
        return Supervisor(arguments.config_dir).run()
    except ConfigError as error:
        print(f"paychan: {error}", file=sys.stderr)
        return EXIT_BAD_CONFIG


def main() -> None:
    """Parse the command line and run what it names."""
    parser = argparse.ArgumentParser(prog="paychan", description="Bitcoin payment channels")
    parser.add_argument("--version", action="version", version=f"paychan {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="start signer, store and server, and keep them running")
    run.add_argument("config_dir", type=Path, metavar="CONFIG_DIR", help="holds server.toml, store.toml and signer.toml")
    run.set_defaults(run=_run)
    arguments = parser.parse_args()
    sys.exit(arguments.run(arguments))


if __name__ == "__main__":
    main()
