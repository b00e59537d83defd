#!/bin/sh
# ./runCluster.sh [--seconds N] [--faults]: a whole cluster on this machine, to try it: three machines with server, store and signer, three
# PostgreSQL nodes, and payers. Prints where to pay and what to kill; at the end (Ctrl-C) whether anything was lost. --faults kills by itself.
# Needs what ./runTests.sh needs; where there is no PostgreSQL, one is installed into .venv. Leaves nothing behind.
# PAYCHAN_PYTHON: as for ./runEverything.sh.
set -eu
ROOT=$(dirname "$(readlink -f "$0")")
if [ -z "${PAYCHAN_PYTHON:-}" ]; then
    NEEDS=dev
    . "$ROOT/setupVenv.sh"
    PAYCHAN_PYTHON=$VENV_PYTHON
fi
unset PORT PAYCHAN_WORKERS PAYCHAN_CLOCK_START PAYCHAN_STATE_DIR PAYCHAN_STORE
cd "$ROOT"
export PYTHONPATH="$ROOT" PYTHONSAFEPATH=1
exec "$PAYCHAN_PYTHON" -m tests.try_cluster "$@"
