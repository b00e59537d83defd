"""`paychan` with the payer's commands only, for subprocesses of the tests."""

import argparse
import sys

from paychan.cli.payer import register

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="paychan")
    register(parser.add_subparsers(required=True, metavar="COMMAND"))
    arguments = parser.parse_args()
    sys.exit(arguments.run(arguments))
