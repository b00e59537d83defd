#!/bin/sh
# benchPayChanServer.sh NUM_PAYMENTS NUM_THREADS HOST:PORT [SERVER_PUBKEY]
# Opens NUM_THREADS channels in parallel on a server in debug mode, makes NUM_PAYMENTS one-satoshi payments on each, closes them.
set -eu
ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON="$ROOT/.venv/bin/python"
[ -x "$PYTHON" ] || PYTHON=python3
cd "$ROOT"
exec "$PYTHON" -m bench.pay_channels "$@"
