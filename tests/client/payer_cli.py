"""`paychan` with the payer's commands only, for subprocesses of the tests."""

import argparse
import sys

from paychan.cli.guard import guarded
from paychan.cli.payer import register
from paychan.printing import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="paychan")
    register(parser.add_subparsers(required=True, metavar="COMMAND"))
    arguments = parser.parse_args()
    return guarded(arguments.run, arguments)


if __name__ == "__main__":
    sys.exit(run("paychan", main))
