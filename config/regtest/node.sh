#!/bin/sh
# Runs the Bitcoin node of this configuration (tests/node) until SIGTERM; prints one line when it is ready.
# ./runEverything.sh starts it, before the server, and sets ROOT (of the sources) and PAYCHAN_PYTHON.
set -eu
PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" exec "$PAYCHAN_PYTHON" -m tests.node --config "$(dirname "$0")" run
