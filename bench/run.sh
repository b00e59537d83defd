#!/bin/sh
# ./bench/run.sh [--long | --tiny] [--publish]: sets up .venv on first use, builds, measures, and writes bench/results/COMMIT-INSTANT.*
# and bench/results/latest.*. ./bench/run.sh --compare A.json B.json puts two results side by side. --help tells the rest.
# PAYCHAN_PYTHON: a Python that has what paychan and its tests need, instead of .venv; nothing is built then.
set -eu
ROOT=$(dirname "$(dirname "$(readlink -f "$0")")")
if [ -z "${PAYCHAN_PYTHON:-}" ]; then
    NEEDS=dev
    . "$ROOT/setupVenv.sh"
    PAYCHAN_PYTHON=$VENV_PYTHON
fi
# Run from where we were called, so that files are relative to it; what lies there is imported by nobody.
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
exec "$PAYCHAN_PYTHON" -m bench.load "$@"
