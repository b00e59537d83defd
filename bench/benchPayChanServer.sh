#!/bin/sh
# benchPayChanServer.sh NUM_PAYMENTS NUM_THREADS HOST:PORT [SERVER_PUBKEY]
# Opens NUM_THREADS channels on a server in debug mode (./runEverything.sh config/debug/), makes NUM_PAYMENTS one-satoshi payments on
# each, all channels at once, and closes them. Tells payments a second and latencies. The client is compiled: the server is the limit.
# PAYCHAN_PYTHON: a Python that has what paychan needs, instead of .venv; nothing is built then.
set -eu
ROOT=$(dirname "$(dirname "$(readlink -f "$0")")")
if [ -z "${PAYCHAN_PYTHON:-}" ]; then
    NEEDS=run
    . "$ROOT/setupVenv.sh"
    PAYCHAN_PYTHON=$VENV_PYTHON
fi
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
exec "$PAYCHAN_PYTHON" -m bench.pay_channels "$@"
